"""Subscribe to an exafsd daemon; needs only numpy, pydantic and pyzmq."""

from exafsd.client.answers import Answers, NoAnswer
from exafsd.client.follower import AsyncFollower, Follower
from exafsd.client.keys import ClientKeys
from exafsd.client.recovery import Event
from exafsd.client.subscriber import DEFAULT_ADDRESS, AsyncSubscriber, Subscriber
from exafsd.client.tables import rows, to_pandas, to_xarray
from exafsd.contract.frames import FrameError, Message, latest

__all__ = [
    "DEFAULT_ADDRESS",
    "Answers",
    "AsyncFollower",
    "AsyncSubscriber",
    "ClientKeys",
    "Event",
    "Follower",
    "FrameError",
    "Message",
    "NoAnswer",
    "Subscriber",
    "latest",
    "rows",
    "to_pandas",
    "to_xarray",
]

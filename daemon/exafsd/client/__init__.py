"""Subscribe to an exafsd daemon; needs only numpy, pydantic and pyzmq."""

from exafsd.client.subscriber import DEFAULT_ADDRESS, Subscriber
from exafsd.contract.frames import FrameError, Message

__all__ = ["DEFAULT_ADDRESS", "FrameError", "Message", "Subscriber"]

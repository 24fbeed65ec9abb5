"""A SUB socket that yields messages as they come; see `Follower` for one that misses none."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq
import zmq.asyncio

from exafsd.client.contexts import AsyncMessages, Messages
from exafsd.client.keys import ClientKeys
from exafsd.contract.frames import Message, decode

#: where a daemon with default settings publishes
DEFAULT_ADDRESS = "tcp://127.0.0.1:5580"


def topics_of(topic: str | Sequence[str]) -> tuple[str, ...]:
    """One prefix or several, as a tuple."""
    return (topic,) if isinstance(topic, str) else tuple(topic)


class _Subscription:
    """Socket of both kinds of subscriber."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        topic: str | Sequence[str] = "",
        keys: Path | str | None = None,
    ) -> None:
        loaded = None if keys is None else ClientKeys.load(keys)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        if loaded is not None:
            loaded.protect(self._socket)
        for one in topics_of(topic):
            self._socket.setsockopt_string(zmq.SUBSCRIBE, one)
        self._socket.connect(address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)
        self._context.term()


class Subscriber(_Subscription, Messages):
    """Messages of one daemon.

    Parameters
    ----------
    address
        Of the daemon's PUB socket.
    topic
        Prefix of topics, or several: ``result.``, ``result.Cu.``, ``rejected.``, ``status.``;
        empty for all.
    keys
        Folder with this client's keys, where the daemon asks for them.

    Examples
    --------
    >>> with Subscriber(topic="result.Cu.K.") as results:  # doctest: +SKIP
    ...     for message in results:
    ...         print(message.header["shells"][0]["r"])
    """

    def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when none came within `timeout` s.

        Raises
        ------
        FrameError
            If what came is not a message of schema ``exafsd/1``.
        """
        if not self._socket.poll(None if timeout is None else int(max(timeout, 0) * 1000)):
            return None
        return decode(self._socket.recv_multipart())

    def messages(self, seconds: float) -> Iterator[Message]:
        """Messages that arrive within `seconds` s."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            message = self.receive(left)
            if message is not None:
                yield message


class AsyncSubscriber(_Subscription, AsyncMessages):
    """`Subscriber` for asyncio.

    Examples
    --------
    >>> async with AsyncSubscriber(topic="result.") as results:  # doctest: +SKIP
    ...     async for message in results:
    ...         print(message.header["id"])
    """

    async def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when none came within `timeout` s; see `Subscriber.receive`."""
        if not await readable(timeout, self._socket):
            return None
        return decode(self._socket.recv_multipart())


async def readable(timeout: float | None, *sockets: zmq.Socket[bytes]) -> bool:
    """Whether one of plain sockets has something within `timeout` s."""
    if any(socket.poll(0) for socket in sockets):
        await asyncio.sleep(0)  # others have their turn however much comes
        return True
    poller = zmq.asyncio.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    return bool(await poller.poll(-1 if timeout is None else int(max(timeout, 0) * 1000)))

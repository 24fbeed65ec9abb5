"""A SUB socket that yields messages."""

import time
from collections.abc import Iterator
from types import TracebackType

import zmq

from exafsd.contract.frames import Message, decode

#: where a daemon with default settings publishes
DEFAULT_ADDRESS = "tcp://127.0.0.1:5580"


class Subscriber:
    """Messages of one daemon.

    Parameters
    ----------
    address
        Of the daemon's PUB socket.
    topic
        Prefix of topics: ``result.``, ``result.Cu.``, ``rejected.``, ``status.``; empty for all.

    Examples
    --------
    >>> with Subscriber(topic="result.Cu.K.") as results:  # doctest: +SKIP
    ...     for message in results:
    ...         print(message.header["shells"][0]["r"])
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, topic: str = "") -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._socket.connect(address)

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

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self.receive()
            if message is not None:
                yield message

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""What comes out of a proxy, for the tests of the simulated beamline."""

import time
from collections.abc import Callable
from typing import Any

import zmq

from exafsd.codec import loads

SHAPES = ("array", "event", "page", "monitor", "resource", "stream")
Documents = list[tuple[str, dict[str, Any]]]


class Wire:
    """What comes out of the proxy."""

    def __init__(self, out: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.subscribe(b"")
        self._socket.connect(out)

    def receive(self, wait: float = 0.2) -> tuple[str, dict[str, Any]] | None:
        if not self._socket.poll(wait * 1e3):
            return None
        _, name, body = self._socket.recv().split(b" ", 2)
        return name.decode(), loads(body)

    def until(self, over: Callable[[], bool]) -> Documents:
        """Documents until `over` is true and the wire is silent."""
        received = []
        deadline = time.monotonic() + 100.0
        while time.monotonic() < deadline:
            finished = over()  # asked first: what was sent before is then still received
            got = self.receive(0.5)
            if got:
                received.append(got)
            elif finished:
                return received
        raise TimeoutError(f"{len(received)} documents, and no end")

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

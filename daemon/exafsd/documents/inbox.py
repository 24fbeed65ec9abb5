"""The bounded queue between sources and the worker; what does not fit is counted."""

import queue
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from exafsd.contract.vocabulary import Problem
from exafsd.documents.items import Trouble

#: s after which a busy worker looks for frames again, so that they have a time and a place
PUMPED = 0.005
#: bytes of frames that may wait: a few large ones must not fill the memory
MOST_BYTES = 1 << 30


class Arrival(NamedTuple):
    """A document and when it was received, time.perf_counter() in s."""

    name: str
    document: Any
    received: float


class RefusedFrame(ValueError):
    """A frame that is no document; `reason` is a code, the text says what to do."""

    def __init__(self, reason: Problem, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FrameSource(Protocol):
    """Where frames come from that the worker takes and decodes itself."""

    def pump(self, timeout: float) -> Sequence[bytes]:
        """Frames that are there; waits up to `timeout` s for the first."""
        ...

    def decode(self, frame: bytes) -> tuple[str, Any]:
        """Name and document of a frame; raises `RefusedFrame`."""
        ...


class _Frame(NamedTuple):
    frame: bytes
    received: float


class Inbox:
    """Documents on their way to the worker. Putting never blocks or raises.

    Documents of other threads are put; frames of an attached source are taken by `get` itself. A
    thread of its own for them would fight the worker for the interpreter's lock at every frame.
    """

    def __init__(self, size: int) -> None:
        # several times cheaper than queue.Queue, and like it safe between threads
        self._queue: queue.SimpleQueue[Arrival | Trouble | _Frame] = queue.SimpleQueue()
        self._size = size
        self._source: FrameSource | None = None
        self._pumped = 0.0
        self._bytes = 0  # of the frames that wait
        self.drops: Counter[Problem] = Counter()

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, name: str, document: Any) -> None:
        """Take a document."""
        self._put(Arrival(name, document, time.perf_counter()))

    def report(self, reason: Problem, detail: str) -> None:
        """Take trouble of a source: something arrived that is no document."""
        self.drops[reason] += 1
        if self._queue.qsize() < self._size:  # else it is counted; the text alone is lost
            self._queue.put(Trouble(reason, detail))

    def attach(self, source: FrameSource | None) -> None:
        """Let `get` take frames of a source; None: of none any more."""
        self._source = source

    def pump(self, timeout: float = 0.0) -> int:
        """Take the frames that the attached source has; how many there were."""
        if self._source is None:
            return 0
        frames = self._source.pump(timeout)
        self._pumped = time.perf_counter()
        for frame in frames:
            self._put(_Frame(frame, self._pumped))
        return len(frames)

    def get(self, timeout: float) -> Arrival | Trouble | None:
        """Next arrival, or None when none came within `timeout` s."""
        if self._source is not None:
            empty = self._queue.qsize() == 0
            if empty or time.perf_counter() - self._pumped > PUMPED:
                self.pump(timeout if empty else 0.0)
            timeout = 0.0
        try:
            item = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if not isinstance(item, _Frame):
            return item
        self._bytes -= len(item.frame)
        return self._decoded(item)

    def empty(self) -> tuple[int, list[Trouble]]:
        """Take all there is, unread: how many documents, and the troubles among them."""
        items: list[Arrival | Trouble | _Frame] = []
        with suppress(queue.Empty):
            while True:
                items.append(self._queue.get_nowait())
        self._bytes = 0
        problems = [item for item in items if isinstance(item, Trouble)]
        return len(items) - len(problems), problems

    def _put(self, item: Arrival | _Frame) -> None:
        size = len(item.frame) if isinstance(item, _Frame) else 0
        if self._queue.qsize() < self._size and self._bytes + size <= MOST_BYTES:
            self._queue.put(item)
            if size:
                self._bytes += size
        else:
            self.drops[Problem.INBOX_FULL] += 1

    def _decoded(self, item: _Frame) -> Arrival | Trouble:
        assert self._source is not None  # noqa: S101  # frames are left only while it is there
        try:
            name, document = self._source.decode(item.frame)
        except RefusedFrame as error:
            self.drops[error.reason] += 1
            return Trouble(error.reason, str(error))
        return Arrival(name, document, item.received)

"""The bounded queue between sources and the worker; what does not fit is counted."""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from exafsd.contract.vocabulary import Problem
from exafsd.documents.items import Trouble

#: s after which a busy worker looks for frames again, so that they have a time and a place
PUMPED = 0.005
#: s after which what has come is written down although the worker is still at work, and documents
#: that are so before it may go on
AHEAD, AT_ONCE = 0.02, 20
#: bytes of frames that may wait: a few large ones must not fill the memory
MOST_BYTES = 1 << 30
#: frames that wait of a source that keeps the others: they are not late before they are taken
WAITING = 200


class Arrival(NamedTuple):
    """A document; `received`: time.perf_counter(), None if it is not live.

    `place`: in the journal, or in a source that keeps documents.
    """

    name: str
    document: Any
    received: float | None
    place: Any = None


class RefusedFrame(ValueError):
    """A frame that is no document; `reason` is a code, the text says what to do."""

    def __init__(self, reason: Problem, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PlacedFrame(bytes):
    """A frame of a source that keeps it, with its place and key there."""

    place: Any = None
    key: bytes | None = None


class FrameSource(Protocol):
    """Where frames come from that the worker takes and decodes itself.

    `keeps`: whether it keeps frames that are not taken.
    """

    keeps: bool

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
        self._keep: Callable[[str, Any], Any] | None = None
        self._kept: deque[Arrival | Trouble] = deque()  # ahead of the worker, before the queue
        #: of what is taken off the queue and written down, and of the source
        self.taking = threading.Lock()
        self._busy_since: float | None = time.perf_counter()  # None: the worker is in `get`
        self._pumped = 0.0
        self._bytes = 0  # of the frames that wait
        self.drops: Counter[Problem] = Counter()
        self.latest: float | None = None  # perf_counter() when the latest document came

    def __len__(self) -> int:
        return self._queue.qsize() + len(self._kept)

    def put(self, name: str, document: Any) -> None:
        """Take a document."""
        self._put(Arrival(name, document, time.perf_counter()))

    def report(self, reason: Problem, detail: str) -> None:
        """Take trouble of a source: something arrived that is no document."""
        self.drops[reason] += 1
        self.tell(reason, detail)

    def tell(self, reason: Problem, detail: str) -> None:
        """Take trouble that is counted elsewhere."""
        if self._queue.qsize() < self._size:  # else the text alone is lost
            self._queue.put(Trouble(reason, detail))

    def attach(self, source: FrameSource | None) -> None:
        """Let `get` take frames of a source; None: of none any more."""
        self._source = source

    def keep(self, keep: Callable[[str, Any], Any]) -> None:
        """Have every document written down when it is taken, or before; `keep` says where."""
        self._keep = keep

    def pump(self, timeout: float = 0.0) -> int:
        """Take the frames that the attached source has; how many there were."""
        if self._source is None or (self._source.keeps and len(self) >= WAITING):
            return 0
        frames = self._source.pump(timeout)
        self._pumped = time.perf_counter()
        if frames:
            self.latest = self._pumped
        for frame in frames:
            self._put(_Frame(frame, self._pumped))
        return len(frames)

    def get(self, timeout: float) -> Arrival | Trouble | None:
        """Next arrival, or None when none came within `timeout` s."""
        self._busy_since = None
        try:
            with self.taking:
                if self._source is not None:
                    empty = not len(self)
                    if empty or time.perf_counter() - self._pumped > PUMPED:
                        self.pump(timeout if empty else 0.0)
                    timeout = 0.0
                if self._kept:
                    return self._kept.popleft()
                item = self._next()
                if item is not None or timeout <= 0:
                    return item
            try:  # of other threads' documents; nobody else takes them while the worker waits here
                waited = self._queue.get(timeout=timeout)
            except queue.Empty:
                return None
            with self.taking:
                return self._written(waited)
        finally:
            self._busy_since = time.perf_counter()

    def write_ahead(self) -> None:
        """Take and write down what has come while the worker is at work; for another thread.

        It does nothing but where the worker has not looked for `AHEAD` s.
        """
        while (busy := self._busy_since) is not None and time.perf_counter() - busy > AHEAD:
            with self.taking:
                if self._busy_since != busy:
                    return
                if time.perf_counter() - self._pumped > AHEAD:
                    self.pump()
                for _ in range(AT_ONCE):
                    item = self._next()
                    if item is None:
                        return
                    self._kept.append(item)

    def empty(self) -> tuple[int, list[Trouble]]:
        """Take all there is, unread: how many documents, and the troubles among them."""
        with self.taking:
            items: list[Arrival | Trouble | _Frame] = list(self._kept)
            self._kept.clear()
            with suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            self._bytes = 0
        problems = [item for item in items if isinstance(item, Trouble)]
        return len(items) - len(problems), problems

    def _next(self) -> Arrival | Trouble | None:
        try:
            return self._written(self._queue.get_nowait())
        except queue.Empty:
            return None

    def _written(self, item: Arrival | Trouble | _Frame) -> Arrival | Trouble:
        """Item, decoded and written down."""
        if isinstance(item, _Frame):
            self._bytes -= len(item.frame)
            item = self._decoded(item)
        if self._keep is None or isinstance(item, Trouble):
            return item
        return item._replace(place=self._keep(item.name, item.document))

    def _put(self, item: Arrival | _Frame) -> None:
        size = len(item.frame) if isinstance(item, _Frame) else 0
        if isinstance(item, Arrival):
            self.latest = item.received
        if len(self) < self._size and self._bytes + size <= MOST_BYTES:
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
        place = item.frame.place if isinstance(item.frame, PlacedFrame) else None
        return Arrival(name, document, item.received, place)

"""What has been published and can be had again; encoded, bounded in number and bytes.

Written by the thread that publishes, read by the one that answers. Under the lock there are only
copies of references: the publisher waits microseconds, whatever is asked.
"""

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exafsd.contract.answers import Span
from exafsd.contract.messages import BaseMessage, Identity, Result, RunStart, RunStop, Status

#: runs and bytes of the snapshot: it goes out as one reply
RUNS, SNAPSHOT_BYTES = 32, 8_000_000
#: a page of a replay: about 1 ms of sending, so that no other request waits for long
PAGE_MESSAGES, PAGE_BYTES = 200, 1_000_000
#: topics whose last number a status tells
TOLD = 100
#: bytes that Python keeps for a frame beside its content, about
OVERHEAD = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """A published message."""

    topic: str
    seq: int
    time: float
    run_uid: str | None
    frames: tuple[bytes, ...]
    size: int


def kept_of(seq: int, time: float, frames: Sequence[bytes]) -> Kept:
    """Message that was published before, from its frames; its run is in the header."""
    run_uid = json.loads(frames[1]).get("run_uid")
    size = sum(len(frame) + OVERHEAD for frame in frames)
    return Kept(bytes(frames[0]).decode(), seq, time, run_uid, tuple(frames), size)


class Ring:
    """The latest messages by topic and number, and the state a late subscriber needs.

    Parameters
    ----------
    most
        Messages kept; status messages are not, the last one is part of the snapshot.
    most_bytes
        Bytes kept; whichever bound is reached first forgets the oldest message.
    """

    def __init__(self, limit: int = 10_000, most_bytes: int = 300_000_000) -> None:
        self._most, self._most_bytes = limit, most_bytes
        self._lock = threading.Lock()
        self._topics: dict[str, deque[Kept]] = {}
        self._order: deque[str] = deque()  # topics of what is kept, oldest first
        self._last: OrderedDict[str, int] = OrderedDict()  # last number, latest topic at the end
        self._runs: OrderedDict[str, dict[tuple[str, ...], Kept]] = OrderedDict()
        self._status: Kept | None = None
        self._bytes = self._snapshot_bytes = 0

    @property
    def size(self) -> tuple[int, int]:
        """Messages and bytes that can be replayed."""
        return len(self._order), self._bytes

    @property
    def snapshot_size(self) -> tuple[int, int]:
        """Runs and bytes of the snapshot."""
        return len(self._runs), self._snapshot_bytes

    def add(self, topic: str, message: BaseMessage, frames: Sequence[bytes]) -> None:
        """Keep a message that is about to be sent."""
        run_uid = getattr(message, "run_uid", None)
        size = sum(len(frame) + OVERHEAD for frame in frames)
        stored = Kept(topic, message.seq, message.time, run_uid, tuple(frames), size)
        with self._lock:
            if isinstance(message, Status):
                self._status = stored
                return
            self._topics.setdefault(topic, deque()).append(stored)
            self._order.append(topic)
            self._bytes += size
            self._last[topic] = stored.seq
            self._last.move_to_end(topic)
            while len(self._order) > self._most or self._bytes > self._most_bytes:
                self._forget()
            if run_uid is not None:
                self._note(run_uid, _slot(message), stored)

    def _forget(self) -> None:
        topic = self._order.popleft()
        messages = self._topics[topic]
        self._bytes -= messages.popleft().size
        if not messages:
            del self._topics[topic]

    def _note(self, run_uid: str, slot: tuple[str, ...], stored: Kept) -> None:
        """Make a message part of the snapshot; runs that were silent longest go first."""
        slots = self._runs.setdefault(run_uid, {})
        self._runs.move_to_end(run_uid)
        before = slots.get(slot)
        slots[slot] = stored
        self._snapshot_bytes += stored.size - (before.size if before else 0)
        while len(self._runs) > RUNS or (
            self._snapshot_bytes > SNAPSHOT_BYTES and len(self._runs) > 1
        ):
            _, old = self._runs.popitem(last=False)
            self._snapshot_bytes -= sum(one.size for one in old.values())

    @classmethod
    def of_former(cls, messages: Iterable[Kept]) -> "Ring":
        """Messages of a publisher that is gone; of each topic the latest without a hole."""
        ring = cls()
        topics: dict[str, deque[Kept]] = {}
        for message in sorted(messages, key=lambda one: (one.topic, one.seq)):
            row = topics.setdefault(message.topic, deque())
            if row and row[-1].seq + 1 < message.seq:
                row.clear()
            if not row or row[-1].seq < message.seq:
                row.append(message)
        ring._topics = topics
        ring._last.update((topic, row[-1].seq) for topic, row in topics.items())
        return ring

    def spans(self) -> dict[str, Span]:
        """What can be replayed, by topic."""
        with self._lock:
            return {t: Span(first=self._first(t), last=last) for t, last in self._last.items()}

    def last(self) -> dict[str, int]:
        """Last number of the latest topics."""
        with self._lock:
            return dict(list(self._last.items())[-TOLD:])

    def snapshot(self, prefix: str) -> tuple[list[Kept], dict[str, Span]]:
        """State of topics that begin with `prefix`, oldest first, and what can be replayed."""
        with self._lock:
            state = [stored for slots in self._runs.values() for stored in slots.values()]
            if self._status is not None:
                state.append(self._status)
            spans = {
                topic: Span(first=self._first(topic), last=last)
                for topic, last in self._last.items()
                if topic.startswith(prefix)
            }
        state = [stored for stored in state if stored.topic.startswith(prefix)]
        return sorted(state, key=lambda stored: stored.time), spans

    def _first(self, topic: str) -> int:
        messages = self._topics.get(topic)
        return messages[0].seq if messages else self._last[topic] + 1

    def replay(
        self, topic: str, first: int, last: int, run_uid: str | None = None
    ) -> tuple[list[Kept], Span | None, int | None]:
        """A page of a topic: messages, what is missing of the range, and where to go on."""
        with self._lock:
            messages = list(self._topics.get(topic, ()))
            newest = self._last.get(topic, 0)
        oldest = messages[0].seq if messages else newest + 1
        missing = None
        if first < oldest:
            missing = Span(first=first, last=min(last, oldest - 1))
        elif last > newest:
            missing = Span(first=max(first, newest + 1), last=last)
        page: list[Kept] = []
        size = 0
        for stored in messages[max(first - oldest, 0) : max(last - oldest + 1, 0)]:
            if run_uid is not None and stored.run_uid != run_uid:
                continue
            if page and (len(page) >= PAGE_MESSAGES or size + stored.size > PAGE_BYTES):
                return page, missing, stored.seq
            page.append(stored)
            size += stored.size
        return page, missing, None


def _slot(message: BaseMessage) -> tuple[str, ...]:
    """Which place of its run's state a message takes.

    A result with arrays does not give way to one without: a late subscriber has a spectrum to
    show even where most results are sent without arrays.
    """
    if isinstance(message, Identity):
        kind = type(message).__name__
        arrays = "arrays" if isinstance(message, Result) and message.arrays else ""
        return (kind, message.channel, message.element, message.edge, arrays)
    if isinstance(message, RunStart | RunStop):
        return (type(message).__name__,)
    return ()

"""The bounded queue between sources and the worker; what does not fit is counted."""

import queue
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

from exafsd.documents.items import Problem


class Arrival(NamedTuple):
    """A document and when it was received, time.perf_counter() in s."""

    name: str
    document: Any
    received: float


class Inbox:
    """Documents on their way from a source thread to the worker. Putting never blocks or raises."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[Arrival | Problem] = queue.Queue(size)
        self.drops: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, name: str, document: Any) -> None:
        """Take a document."""
        try:
            self._queue.put_nowait(Arrival(name, document, time.perf_counter()))
        except queue.Full:
            self.drops["inbox_full"] += 1

    def report(self, reason: str, detail: str) -> None:
        """Take trouble of a source: something arrived that is no document."""
        self.drops[reason] += 1
        with suppress(queue.Full):  # it is counted; the text alone is lost
            self._queue.put_nowait(Problem(reason, detail))

    def get(self, timeout: float) -> Arrival | Problem | None:
        """Next arrival, or None when none came within `timeout` s."""
        try:
            return self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None

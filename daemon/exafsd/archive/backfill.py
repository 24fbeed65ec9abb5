"""What was missed of runs, fetched from a catalog by a thread: nothing else waits for it."""

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from exafsd.archive.catalog import documents, events_of, open_catalog, runs
from exafsd.contract.vocabulary import BACKFILLED_KEY
from exafsd.logs import get_logger

log = get_logger(__name__)

#: s between two looks whether the catalog has what is asked for
EVERY = 1.0
#: s after which an idle thread looks whether it is to end
IDLE = 0.2
#: rows of a page: arrays of a run must not all be one document
PAGE_ROWS = 50


@dataclass(frozen=True)
class Request:
    """What is missing.

    Attributes
    ----------
    kind
        ``rows`` of a run, its ``stop`` document, the ``whole`` run, or the ``uids`` of runs that
        have stopped since a time.
    run_uid
        Of the run; empty for `uids`.
    rows
        Sequence numbers by stream.
    since
        s since 1970, for `uids`.
    patience
        s for which the catalog is asked again.
    """

    kind: Literal["rows", "stop", "whole", "uids"]
    run_uid: str = ""
    rows: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    since: float = 0.0
    patience: float = 0.0


@dataclass(frozen=True)
class Reply:
    """What the catalog has of it; `lacking` says in words what it does not have, else None."""

    request: Request
    documents: list[tuple[str, Any]]
    lacking: str | None = None


class Backfill:
    """Asks a catalog until it has what is missing, or patience is over.

    Parameters
    ----------
    catalog
        A tiled profile or the URI of a server.
    """

    def __init__(self, catalog: str) -> None:
        self.catalog = catalog
        self._asked: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backfill", daemon=True)
        self._client: Any = None

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, patience: float = 1.0) -> None:
        """End; a request to the server that takes longer than `patience` s is left alone."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def ask(self, request: Request) -> None:
        """Ask for what is missing; the reply comes by `replies`."""
        self._asked.put(request)

    def replies(self) -> Iterator[Reply]:
        """Replies that are there."""
        while True:
            try:
                yield self._replies.get_nowait()
            except queue.Empty:
                return

    def _run(self) -> None:
        waiting: list[tuple[Request, float]] = []
        while not self._stopping.wait(EVERY if waiting else 0.0):
            waiting += [(request, time.monotonic()) for request in self._new(block=not waiting)]
            waiting = [one for one in waiting if not self._answer(*one)]
        self._disconnect()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.context.close()
        self._client = None

    def _new(self, block: bool) -> Iterator[Request]:
        try:
            while True:
                yield self._asked.get(timeout=IDLE) if block else self._asked.get_nowait()
                block = False
        except queue.Empty:
            return

    def _answer(self, request: Request, asked_at: float) -> bool:
        """Reply if the catalog has it all, or has not had it for too long."""
        try:
            if self._client is None:
                self._client = open_catalog(self.catalog)
            reply = self._fetch(request)
        except Exception as error:  # whatever server, client or storage may raise
            self._disconnect()
            reply = Reply(request, [], f"{type(error).__name__}: {error}")
        over = time.monotonic() - asked_at >= request.patience
        if reply.lacking is None or over:
            self._replies.put(reply)
            return True
        return False

    def _fetch(self, request: Request) -> Reply:
        if request.kind == "uids":
            stopped = [
                ("start", dict(run.metadata["start"]))
                for run in runs(self._client, since=request.since)
                if run.metadata.get("stop")
            ]
            return Reply(request, stopped)
        run = next(runs(self._client, search={"uid": request.run_uid}), None)
        if run is None:
            return Reply(request, [], f"{self.catalog} does not have the run")
        if request.kind == "rows":
            return _rows(run, request)
        stop = run.metadata.get("stop")
        if not stop:
            return Reply(request, [], f"the run has no end in {self.catalog}")
        if request.kind == "stop":
            return Reply(request, [("stop", dict(stop))])
        return _whole(run, request, dict(stop))


def _rows(run: Any, request: Request) -> Reply:
    """The missing rows as pages, after the descriptors of their streams."""
    replied: list[tuple[str, Any]] = []
    lacking: list[str] = []
    for stream, numbers in request.rows.items():
        descriptors, events = events_of(run, stream, numbers)
        present = list(events)
        replied += [("descriptor", descriptor) for descriptor in descriptors]
        replied += [("event_page", page) for page in _pages(present)]
        absent = numbers - {event["seq_num"] for event in present}
        if absent:
            lacking.append(f"{len(absent)} events of stream {stream!r}, from {min(absent)} on")
    return Reply(request, replied, " and ".join(lacking) or None)


def _whole(run: Any, request: Request, stop: dict[str, Any]) -> Reply:
    """All documents of a run, events as pages."""
    replied: list[tuple[str, Any]] = []
    events: list[dict[str, Any]] = []
    for name, document in documents(run):
        if name == "event":
            events.append(document)
        elif name != "stop":
            replied.append((name, document))
    replied += [("event_page", page) for page in _pages(events)]
    expected = sum((stop.get("num_events") or {}).values())
    absent = expected - len(events)
    lacking = f"{absent} of {expected} events" if absent > 0 else None
    return Reply(request, [*replied, ("stop", stop)], lacking)


def _pages(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events as marked pages, each of one descriptor and the same keys."""
    page: list[dict[str, Any]] = []
    for event in events:
        alike = page and (
            page[0]["descriptor"] == event["descriptor"]
            and page[0]["data"].keys() == event["data"].keys()
            and page[0]["timestamps"].keys() == event["timestamps"].keys()
            and len(page) < PAGE_ROWS
        )
        if page and not alike:
            yield _page(page)
            page = []
        page.append(event)
    if page:
        yield _page(page)


def _page(events: list[dict[str, Any]]) -> dict[str, Any]:
    first = events[0]
    return {
        "descriptor": first["descriptor"],
        **{name: [event[name] for event in events] for name in ("uid", "seq_num", "time")},
        "data": {key: [event["data"][key] for event in events] for key in first["data"]},
        "timestamps": {
            key: [event["timestamps"][key] for event in events] for key in first["timestamps"]
        },
        "filled": {},
        BACKFILLED_KEY: True,
    }

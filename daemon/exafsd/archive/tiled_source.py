"""Source from a tiled server: runs of a catalog are followed by websocket while they are written.

What is taken is decided by the rows of a run, not by messages: these only say that there are new
ones, and bring those of tables. So nothing is taken twice, and what messages leave out is read.
"""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from exafsd.archive.catalog import RESULT_PLAN, is_embedded, open_catalog, runs
from exafsd.archive.followed_run import FollowedRun, Taken
from exafsd.archive.journaled import find_run
from exafsd.archive.node_feeds import Node, NodeFeeds, Notice
from exafsd.contract.vocabulary import Problem
from exafsd.logs import get_logger
from exafsd.settings.tiled import TiledSource as TiledSettings

log = get_logger(__name__)

#: documents that may wait for the worker; the rest stays in the catalog
ROOM = 200
#: s between two tries at what the server could not give, and until a first answer
AGAIN = 1.0
#: s by which start times of runs may be before the latest connection, as clocks differ
OVERLAP = 600.0
#: notices that are taken before what they bring is put
AT_ONCE = 200
#: name of the table of a stream; there are others where it has more than 1,024 columns
TABLE = "internal"
#: uids of runs that are remembered
RUNS = 10_000


class Inbox(Protocol):
    """Where documents go."""

    def put(self, name: str, document: Any) -> None:
        """Take a document."""
        ...

    def report(self, reason: Problem, detail: str) -> None:
        """Take trouble."""
        ...

    def __len__(self) -> int: ...


class TiledSource:
    """Puts the documents of a catalog's runs into an inbox, each once.

    Parameters
    ----------
    inbox
        Takes documents, and is told of trouble.
    settings
        Which catalog.
    patience
        s to try again, at the end of a run, to read what cannot be read.
    journal
        Folder with the documents that the daemon before has taken; None without.
    open_runs
        Uids of those that had not ended.
    """

    keeps = True

    def __init__(
        self,
        inbox: Inbox,
        settings: TiledSettings,
        patience: float = 5.0,
        journal: Path | None = None,
        open_runs: Iterable[str] = (),
    ) -> None:
        self._inbox, self._settings, self._patience = inbox, settings, patience
        self._journal, self._journaled = journal, set(open_runs)
        self._began = time.time()
        self._connected_at: float | None = None
        self._feeds: NodeFeeds | None = None
        self._refusal: str | None = None
        self._catalog: Any = None
        self._open: dict[str, FollowedRun] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._unread: set[Node] = set()  # that could not be read
        self._changed: dict[str, None] = {}  # uids of runs
        self._again_at = 0.0
        self._stops: dict[str, tuple[Mapping[str, Any], float]] = {}  # and when they are put anyhow
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exafsd-tiled", daemon=True)

    @property
    def address(self) -> str:
        """Where it is connected to, or tries to."""
        return self._settings.catalog

    @property
    def absence(self) -> str:
        """What to say where the catalog cannot be followed."""
        refusal = self._refusal if self._feeds is None else self._feeds.refusal
        where = f"source.tiled.catalog {self._settings.catalog}"
        return f"no tiled server answers at {where}" if refusal is None else f"{where}: {refusal}"

    def connected(self) -> bool:
        """Whether new runs of the catalog are seen."""
        return self._feeds is not None and self._feeds.connected

    def start(self) -> None:
        """Begin to follow; the second time nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Take nothing more; it stays in the catalog."""
        self._stopping.set()
        if self._feeds is not None:
            self._feeds.stop()
        if self._thread.is_alive():  # a request may wait for a server that is gone
            self._thread.join(AGAIN)

    def _run(self) -> None:
        try:
            self._connect()
            while not self._stopping.is_set():
                self._step()
        except _StoppedError:
            pass
        finally:
            if self._catalog is not None:
                self._catalog.context.close()

    def _connect(self) -> None:
        while self._feeds is None:
            try:
                self._catalog = open_catalog(self._settings.catalog)
            except Exception as error:  # whatever client and server may raise
                log.debug("tiled", error=str(error))
                if self._stopping.wait(AGAIN):
                    raise _StoppedError from None
                continue
            if is_embedded(self._catalog):
                self._refusal = "it is in no server; serve it with `tiled serve config`"
                raise _StoppedError
            context = self._catalog.context
            path = tuple(self._catalog.path_parts)
            self._feeds = NodeFeeds(str(context.api_uri), path, context.api_key)
            self._feeds.start()

    def _step(self) -> None:
        """Take what has come, then put what it brings; read again what could not be read."""
        assert self._feeds is not None  # noqa: S101  # since `_connect`
        with suppress(queue.Empty):
            notice = self._feeds.notices.get(timeout=AGAIN)
            for _ in range(AT_ONCE):
                self._attempt(notice.node, partial(self._take, notice))
                notice = self._feeds.notices.get_nowait()
        if time.monotonic() >= self._again_at:
            for node in list(self._unread):
                self._attempt(node, partial(self._read, node))
            self._again_at = time.monotonic() + AGAIN
            self._changed |= dict.fromkeys(self._stops)
        changed, self._changed = self._changed, {}
        for uid in changed:
            self._attempt((uid,), partial(self._advance, uid))

    def _advance(self, uid: str) -> None:
        """Put what has come of a run, and its stop if it has ended."""
        run = self._open.get(uid)
        if run is None:
            return
        if uid not in self._stops:
            run.advance()
            return
        stop, _ = self._stops[uid]
        run.finish(stop)
        self._close(uid)

    def _attempt(self, node: Node, action: Callable[[], None]) -> None:
        """Do something about a node; where it fails, the node is read again later."""
        try:
            action()
        except _StoppedError:
            raise
        except Exception as error:  # whatever client, server, storage and files may raise
            log.debug("tiled", node="/".join(node), error=f"{type(error).__name__}: {error}")
            self._unread.add(node[:2])
            if node and node[0] in self._stops:
                self._give_up(node[0], error)

    def _read(self, node: Node) -> None:
        """Take what the catalog has of a node and those below it."""
        assert self._feeds is not None  # noqa: S101  # since `_connect`
        self._unread.discard(node)
        if not node:
            self._read_catalog()
            return
        run = self._open.get(node[0])
        if run is None:
            return
        for name in run.names() if len(node) == 1 else [node[1]]:
            self._feeds.follow((node[0], name))
            run.stream(name).read()
            self._changed[node[0]] = None
            for part in run.stream(name).parts():
                self._feeds.follow((node[0], name, part))

    def _read_catalog(self) -> None:
        """Look for runs that began or ended while nobody looked."""
        first, now = self._connected_at is None, time.time()
        since = self._began - self._settings.since if first else self._connected_at - OVERLAP
        unlisted = self._journaled | self._open.keys()
        for run in runs(self._catalog, since=since):
            unlisted.discard(run.metadata["start"]["uid"])
            self._look_at(run, first)
        for uid in unlisted:  # they are older
            if uid in self._catalog:
                self._look_at(self._catalog[uid], first)
        self._journaled.clear()
        self._connected_at = now

    def _look_at(self, run: Any, first: bool) -> None:
        start, stop = run.metadata["start"], run.metadata.get("stop")
        uid = start["uid"]
        ended_before = first and stop and uid not in self._journaled
        if uid not in self._seen and not ended_before:
            self._take_up(uid, start, run)
        self._remember(uid)
        if uid in self._open and stop:
            self._end(uid, stop)
        elif uid in self._open:
            self._read((uid,))

    def _take_up(self, uid: str, start: Mapping[str, Any], run: Any = None) -> None:
        assert self._feeds is not None  # noqa: S101  # since `_connect`
        taken = Taken()
        if uid in self._journaled and self._journal is not None:
            journaled = find_run(self._journal, uid)
            taken = Taken() if journaled is None else Taken.of(journaled.documents())
        run = self._catalog[uid] if run is None else run
        self._open[uid] = FollowedRun(run, start, taken, self._put)
        self._remember(uid)
        self._feeds.follow((uid,))

    def _remember(self, uid: str) -> None:
        self._seen[uid] = None
        if len(self._seen) > RUNS:
            self._seen.popitem(last=False)

    def _take(self, notice: Notice) -> None:
        node, message = notice.node, notice.message
        if node and node[0] not in self._open:
            return  # it has ended
        if notice.kind == "read":
            self._read(node[:2])
        elif notice.kind == "message" and not node:
            self._take_of_catalog(message)
        elif notice.kind == "message":
            self._take_of_run(node, message)

    def _take_of_run(self, node: Node, message: Mapping[str, Any]) -> None:
        assert self._feeds is not None  # noqa: S101  # since `_connect`
        run, kind = self._open[node[0]], message["type"]
        self._changed[node[0]] = None
        if len(node) == 1:  # a stream is new, or its configuration
            self._feeds.follow((*node, message["key"]))
            run.stream(message["key"]).changed = True
            return
        stream = run.stream(node[1])
        if len(node) == 2:  # a table or a column is new; those of events come before their rows
            table = message.get("structure_family") == "table"
            if table or stream.is_external(message["key"]):
                self._feeds.follow((*node, message["key"]))
        elif kind == "table-data" and node[2] == TABLE:
            stream.take(_rows(message))
        elif kind == "table-data":
            stream.read()
        else:
            stream.changed = True

    def _take_of_catalog(self, message: Mapping[str, Any]) -> None:
        """A run began, or its metadata are new."""
        about, uid = message["metadata"], message["key"]
        start = about.get("start") or {}
        if message["type"] == "container-child-created":
            is_run = any(spec["name"] == "BlueskyRun" for spec in message["specs"])
            if is_run and uid not in self._seen and start.get("plan_name") != RESULT_PLAN:
                self._take_up(uid, start)
        elif uid in self._open and about.get("stop"):
            self._end(uid, about["stop"])

    def _end(self, uid: str, stop: Mapping[str, Any]) -> None:
        self._stops.setdefault(uid, (stop, time.monotonic() + self._patience))
        self._changed[uid] = None

    def _give_up(self, uid: str, error: Exception) -> None:
        """After a while put the stop of a run although something cannot be read."""
        stop, until = self._stops[uid]
        if not self.connected():  # then it is the server that is away
            self._stops[uid] = (stop, time.monotonic() + self._patience)
        if not self.connected() or time.monotonic() < until:
            return
        self._inbox.report(
            Problem.TILED_UNREAD,
            f"run {uid} ended, and what is left of it cannot be read: {type(error).__name__}:"
            f" {error}. When it can be: exafsd replay {self._settings.catalog} --uid {uid}",
        )
        self._put("stop", dict(stop))
        self._close(uid)

    def _close(self, uid: str) -> None:
        assert self._feeds is not None  # noqa: S101  # since `_connect`
        del self._open[uid], self._stops[uid]
        self._unread = {node for node in self._unread if node[:1] != (uid,)}
        self._feeds.leave((uid,))

    def _put(self, name: str, document: dict[str, Any]) -> None:
        """Put a document when there is room."""
        while len(self._inbox) >= ROOM:
            if self._stopping.wait(0.002):
                break
        if self._stopping.is_set():
            raise _StoppedError
        self._inbox.put(name, document)


def _rows(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table that a message brings."""
    import tiled.serialization.table  # noqa: F401  # registers what reads Arrow
    from tiled.media_type_registration import default_deserialization_registry as registry

    table = registry.dispatch("table", message["mimetype"])(message["payload"])
    return table.to_dict(orient="records")


class _StoppedError(Exception):
    """The daemon ends."""

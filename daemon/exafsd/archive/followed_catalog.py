"""A catalog whose runs are followed: what websockets say of its nodes turns into documents.

What is taken is decided by the rows of a run, not by messages: these only say that there are new
ones, and bring those of tables. So nothing is taken twice, and what messages leave out is read.
"""

import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from exafsd.archive.catalog import RESULT_PLAN, run_of, runs
from exafsd.archive.followed_run import FollowedRun, FollowedStream, Put, Taken
from exafsd.archive.node_feeds import Node, NodeFeeds, Notice
from exafsd.logs import get_logger

log = get_logger(__name__)

#: s to wait for something new, and between two tries at what the server could not give
AGAIN = 1.0
#: s by which start times of runs may be before the latest connection, as clocks differ
OVERLAP = 600.0
#: notices that are taken before what they bring is put
AT_ONCE = 200
#: name of the table of a stream; there are others where it has more than 1,024 columns
TABLE = "internal"
#: type of the bytes of an array as numpy has them
RAW = "application/octet-stream"
#: uids of runs that are remembered
RUNS = 10_000


class StoppedError(Exception):
    """Nothing more is to be put: the daemon ends."""


class FollowedCatalog:
    """Puts the documents of a catalog's runs, each once.

    Parameters
    ----------
    catalog
        From `open_catalog`.
    feeds
        Websockets of its nodes, not started.
    put
        Takes a document; raises `StoppedError` at the end.
    unread
        Is told of a run whose rest cannot be read, and why.
    patience
        s to try to read it.
    since
        Start time, s since 1970, from which on runs are taken up that are open already.
    journaled
        What has been taken before of runs, by uid.
    """

    def __init__(
        self,
        catalog: Any,
        feeds: NodeFeeds,
        put: Put,
        unread: Callable[[str, Exception], None],
        patience: float,
        since: float,
        journaled: Mapping[str, Taken],
    ) -> None:
        self._catalog, self._feeds = catalog, feeds
        self._put, self._report, self._patience = put, unread, patience
        self._journaled = dict(journaled)
        self._first, self._since = True, since
        self._open: dict[str, FollowedRun] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._changed: dict[str, None] = {}  # uids of runs
        self._unread: set[Node] = set()  # that could not be read
        self._again_at = 0.0
        self._stops: dict[str, tuple[Mapping[str, Any], float]] = {}  # and when they are put anyhow

    def step(self) -> None:
        """Take what has come, then put what it brings; read again what could not be read."""
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

    def _attempt(self, node: Node, action: Callable[[], None]) -> None:
        """Do something about a node; where it fails, the node is read again later."""
        try:
            action()
        except StoppedError:
            raise
        except Exception as error:  # whatever client, server, storage and files may raise
            log.debug("tiled", node="/".join(node), error=f"{type(error).__name__}: {error}")
            self._unread.add(node[:2])
            if node and node[0] in self._stops:
                self._give_up(node[0], error)

    def _advance(self, uid: str) -> None:
        """Put what has come of a run, and its stop if it has ended."""
        run = self._open.get(uid)
        if run is not None and uid in self._stops:
            run.finish(self._stops[uid][0])
            self._close(uid)
        elif run is not None:
            run.advance()

    def _read(self, node: Node) -> None:
        """Take what the catalog has of a node and those below it."""
        self._unread.discard(node)
        if not node:
            self._read_catalog()
        elif node[0] in self._open:
            run = self._open[node[0]]
            for name in run.names() if len(node) == 1 else [node[1]]:
                self._feeds.follow((node[0], name))
                run.stream(name).read()
                self._changed[node[0]] = None
                for part in run.stream(name).parts():
                    self._feeds.follow((node[0], name, part))

    def _read_catalog(self) -> None:
        """Look for runs that began or ended while nobody looked."""
        now = time.time()
        unlisted = self._journaled.keys() | self._open.keys()
        for run in runs(self._catalog, since=self._since):
            unlisted.discard(run.metadata["start"]["uid"])
            self._look_at(run)
        for uid in unlisted:  # they are older
            with suppress(KeyError):
                self._look_at(run_of(self._catalog, uid))
        self._journaled.clear()
        self._first, self._since = False, now - OVERLAP

    def _look_at(self, run: Any) -> None:
        start, stop = run.metadata["start"], run.metadata.get("stop")
        uid = start["uid"]
        ended_before = self._first and stop and uid not in self._journaled
        if uid not in self._seen and not ended_before:
            self._take_up(uid, start, run)
        self._remember(uid)
        if uid in self._open:
            self._read((uid,))
            if stop:
                self._end(uid, stop)

    def _take_up(self, uid: str, start: Mapping[str, Any], run: Any) -> None:
        taken = self._journaled.get(uid) or Taken()
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

    def _take_of_catalog(self, message: Mapping[str, Any]) -> None:
        """A run began, or its metadata are new."""
        about, uid = message["metadata"], message["key"]
        start = about.get("start") or {}
        if message["type"] == "container-child-created":
            is_run = any(spec["name"] == "BlueskyRun" for spec in message["specs"])
            if is_run and uid not in self._seen and start.get("plan_name") != RESULT_PLAN:
                self._take_up(uid, start, run_of(self._catalog, uid))
        elif uid in self._open and about.get("stop"):
            self._end(uid, about["stop"])

    def _take_of_run(self, node: Node, message: Mapping[str, Any]) -> None:
        run, kind = self._open[node[0]], message["type"]
        self._changed[node[0]] = None
        if len(node) == 1:  # a stream is new, or its configuration
            self._feeds.follow((*node, message["key"]))
            run.stream(message["key"]).changed = True
            return
        stream = run.stream(node[1])
        if len(node) == 2:  # a table or a column is new
            self._feeds.follow((*node, message["key"]))
        elif kind == "table-data" and node[2] == TABLE:
            stream.take(_rows(message))
        elif kind == "table-data":
            stream.read()
        elif kind == "array-data":
            _bring(stream, node[2], message)
        else:
            stream.changed = True

    def _end(self, uid: str, stop: Mapping[str, Any]) -> None:
        self._stops.setdefault(uid, (stop, time.monotonic() + self._patience))
        self._changed[uid] = None

    def _give_up(self, uid: str, error: Exception) -> None:
        """After a while put the stop of a run although something cannot be read."""
        stop, until = self._stops[uid]
        if not self._feeds.connected:  # then it is the server that is away
            self._stops[uid] = (stop, time.monotonic() + self._patience)
        elif time.monotonic() >= until:
            self._report(uid, error)
            self._put("stop", dict(stop))
            self._close(uid)

    def _close(self, uid: str) -> None:
        del self._open[uid], self._stops[uid]
        self._unread = {node for node in self._unread if node[:1] != (uid,)}
        self._feeds.leave((uid,))


def _bring(stream: FollowedStream, key: str, message: Mapping[str, Any]) -> None:
    """Give a stream the rows of a column that a message brings, where it says which they are."""
    shape, offset, block = message["shape"], message.get("offset"), message.get("block")
    if offset is None and not any(block or ()):
        offset = [0]
    if offset is not None and not any(offset[1:]) and message.get("mimetype") == RAW:
        stream.bring(key, offset[0], shape[0], message["payload"])


def _rows(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table that a message brings."""
    import tiled.serialization.table  # noqa: F401  # registers what reads Arrow
    from tiled.media_type_registration import default_deserialization_registry as registry

    table = registry.dispatch("table", message["mimetype"])(message["payload"])
    return table.to_dict(orient="records")

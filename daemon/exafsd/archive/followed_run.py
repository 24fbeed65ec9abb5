"""A run of a catalog while it is measured: each row once, in the order in which it was written."""

import heapq
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exafsd.archive.catalog import CatalogError, StreamNode, row_key
from exafsd.contract.vocabulary import BACKFILLED_KEY

Put = Callable[[str, dict[str, Any]], None]
RowKey = tuple[int, float]
#: Rows of a stream that are remembered: `TiledWriter` may write as many twice when it tries again
REMEMBERED = 20_000
#: rows of a column that messages have brought and that wait for the row of the table
BROUGHT = 2_000


class RowMemory:
    """Which rows of a stream have been taken.

    Attributes
    ----------
    count
        How many: so many that the stream has in the order in which they were written.
    """

    def __init__(self) -> None:
        self.count = 0
        self._highest = -1  # sequence number
        self._latest: OrderedDict[RowKey, None] = OrderedDict()
        self._before = -math.inf  # time of the latest row that is forgotten

    def add(self, key: RowKey) -> None:
        """Take a row."""
        self.count += 1
        self._highest = max(self._highest, key[0])
        self._latest[key] = None
        if len(self._latest) > REMEMBERED:
            (_, self._before), _ = self._latest.popitem(last=False)

    def __contains__(self, key: RowKey) -> bool:
        number, at = key
        return key in self._latest or (number <= self._highest and at <= self._before)


@dataclass
class Taken:
    """What has been taken of a run, by this daemon or the one before.

    Attributes
    ----------
    started
        Whether its start document is there.
    descriptors
        Uids.
    rows
        By stream.
    """

    started: bool = False
    descriptors: set[str] = field(default_factory=set[str])
    rows: dict[str, RowMemory] = field(default_factory=lambda: defaultdict(RowMemory))

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> "Taken":
        """What the documents of a journal say."""
        taken, streams = cls(), dict[str, str]()
        for name, document in documents:
            if name == "start":
                taken.started = True
            elif name == "descriptor":
                taken.descriptors.add(document["uid"])
                streams[document["uid"]] = document["name"]
            elif name in ("event", "event_page"):
                rows = taken.rows[streams[document["descriptor"]]]
                page = name == "event_page"
                numbers = document["seq_num"] if page else [document["seq_num"]]
                times = document["time"] if page else [document["time"]]
                for row in zip(numbers, times, strict=True):
                    key = (int(row[0]), float(row[1]))
                    if BACKFILLED_KEY not in document or key not in rows:
                        rows.add(key)
        return taken


class FollowedRun:
    """Puts the documents of a run, as its nodes get them.

    Parameters
    ----------
    client
        Of the run.
    start
        Its start document.
    taken
        What has been taken of it.
    put
        Takes a document.
    """

    def __init__(self, client: Any, start: Mapping[str, Any], taken: Taken, put: Put) -> None:
        self._client = getattr(client, "v3", client)
        self._taken, self._put = taken, put
        self._streams: dict[str, FollowedStream] = {}
        if not taken.started:
            put("start", dict(start))
            taken.started = True

    def stream(self, name: str) -> "FollowedStream":
        """One of its streams, whose descriptor is put before anything of it."""
        if name not in self._streams:
            self._streams[name] = FollowedStream(name, self._client, self._taken, self._put)
        return self._streams[name]

    def names(self) -> list[str]:
        """Streams that the catalog has."""
        return sorted(self._client.base)  # itself it remembers those that it had first

    def advance(self, all_there: bool = False) -> None:
        """Put the rows that have come and have all columns, of all streams in order of time.

        `all_there`: columns that lack do not come.

        Raises
        ------
        CatalogError
            If a column cannot be read; nothing more of its stream is put before it is read anew.
        """
        changed = [stream for stream in self._streams.values() if stream.changed]
        events = (stream.events(all_there) for stream in changed)
        for event in heapq.merge(*events, key=lambda event: float(event["time"])):
            self._put("event", event)

    def finish(self, stop: Mapping[str, Any]) -> None:
        """Take what the catalog has beyond what has come, and put the stop document."""
        expected = stop.get("num_events") or {}
        for name in self.names():
            if self._taken.rows[name].count != expected.get(name):
                self.stream(name).read()
        self.advance(all_there=True)
        self._put("stop", dict(stop))


class FollowedStream:
    """A stream: rows that came, those that wait for their columns, and what was taken.

    Attributes
    ----------
    changed
        Whether there may be rows that have not been put.
    """

    def __init__(self, name: str, run: Any, taken: Taken, put: Put) -> None:
        self._name, self._run, self._put = name, run, put
        self._descriptors, self._rows = taken.descriptors, taken.rows[name]
        self._waiting: list[dict[str, Any]] = []
        self._brought: dict[str, dict[int, bytes]] = defaultdict(dict)  # by key and place
        self._unsure = False  # rows before those that wait may be missing, until it is read
        self.changed = False
        self._renew()

    def parts(self) -> list[str]:
        """Its tables and columns."""
        return [*self._node.tables, *self._node.columns]

    def bring(self, key: str, first: int, count: int, content: bytes) -> None:
        """Take `count` rows of a column, which are not read then; `first`: place of the first."""
        size = len(content) // max(count, 1)
        column = self._brought[key]
        if len(column) + count > BROUGHT:
            column.clear()  # they are read
        for place in range(count):
            if first + place >= self._rows.count:
                column[first + place] = content[place * size : (place + 1) * size]

    def take(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows that follow those before; one may be there twice, as its writer tried again."""
        waiting = {row_key(row) for row in self._waiting}
        for row in rows:
            key = row_key(row)
            if key not in self._rows and key not in waiting:
                self._waiting.append(row)
                waiting.add(key)
        self.changed = True

    def read(self) -> None:
        """Take what the catalog has."""
        self._unsure = self.changed = True
        self._renew()
        rows = self._node.rows()[self._rows.count :]
        stored = {row_key(row) for row in rows}
        # the server sends rows before it stores them
        self._waiting = rows + [row for row in self._waiting if row_key(row) not in stored]
        self._unsure = False

    def events(self, all_there: bool) -> Iterator[dict[str, Any]]:
        """Events of the rows whose columns are there; one is taken when the next is asked for."""
        if self._unsure:
            return
        self._unsure = True
        node = self._current()
        rows = self._waiting if node.tables else node.rows_of_columns()[self._rows.count :]
        ready = len(rows) if all_there else self._ready(rows)
        for first in range(0, ready, node.step):
            part = rows[first : min(first + node.step, ready)]
            first_place = self._rows.count
            brought = self._columns(node, first_place, len(part))
            events = list(node.events_from(part, first_place, brought))
            for event, row in zip(events, part, strict=True):
                yield event
                self._rows.add(row_key(row))
        self._waiting = [row for row in self._waiting if row_key(row) not in self._rows]
        self._unsure = self.changed = False

    def _current(self) -> StreamNode:
        """The node, with what it has gained; the catalog has it before the rows that need it."""
        node = self._node
        described = _updates(self._client.refresh()) == self._updates
        lacking = bool(self._waiting) and (not node.tables or self._lacking(self._waiting[0]))
        columns = all(key in node.columns for key in node.external)
        if not (described and columns) or lacking:
            self._renew()
            return self._node
        for key in node.external:
            node.columns[key].refresh()
        return node

    def _columns(self, node: StreamNode, first: int, count: int) -> dict[str, Any]:
        """Columns whose rows messages have brought, all of them."""
        columns = {}
        for key, column in node.columns.items():
            brought = self._brought[key]
            rows = [brought.pop(place, b"") for place in range(first, first + count)]
            whole = (count, *column.shape[1:])
            content = b"".join(rows) if all(rows) else b""
            if content and len(content) == column.dtype.itemsize * math.prod(whole):
                columns[key] = np.frombuffer(content, column.dtype).reshape(whole)
        return columns

    def _ready(self, rows: list[dict[str, Any]]) -> int:
        """How many of the rows have all columns."""
        if not rows or self._lacking(rows[0]):
            return 0
        columns = self._node.columns  # those of events are written before their rows
        external = self._node.external & columns.keys()
        lengths = [len(columns[key]) - self._rows.count for key in external]
        return max(min([len(rows), *lengths]), 0)

    def _lacking(self, row: Mapping[str, Any]) -> bool:
        return any(key not in row and key not in self._node.columns for key in self._node.keys)

    def _renew(self) -> None:
        """Look anew which columns there are."""
        try:
            self._client = self._run[self._name]
            self._node = StreamNode(self._name, self._client)
        except KeyError as error:
            raise CatalogError(f"stream {self._name!r} cannot be opened: {error}") from error
        self._updates = _updates(self._client)
        self._put_descriptors()

    def _put_descriptors(self) -> None:
        for descriptor in self._node.descriptors:
            if descriptor["uid"] not in self._descriptors:
                self._put("descriptor", descriptor)
                self._descriptors.add(descriptor["uid"])


def _updates(client: Any) -> int:
    """How often the configuration of a stream has changed."""
    return len(client.metadata.get("_config_updates") or ())

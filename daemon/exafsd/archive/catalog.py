"""Archived runs, from databroker or tiled, as the documents they once were.

``run.documents()`` holds a whole run in memory, returns arrays as lists, and external data as one
datum after all events. Here columns are read in slices and put back into their events: external
arrays come back inside, so that every shape of documents is replayed as events.
"""

import heapq
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Document = tuple[str, dict[str, Any]]
#: Bytes of one column that are read at once; tiled answers so much in about 10 ms.
SLICE_BYTES = 2_000_000
#: ``plan_name`` of our own result runs, which are no raw data
RESULT_PLAN = "exafsd"


class CatalogError(RuntimeError):
    """The catalog could not be started or opened."""


def open_catalog(name_or_uri: str) -> Any:
    """Open a catalog of Bluesky runs.

    Parameters
    ----------
    name_or_uri
        A profile, as for ``databroker.catalog[NAME]``, or the address of a tiled server, for
        which the environment variable ``TILED_API_KEY`` may hold a key.

    Raises
    ------
    CatalogError
        If there is no such profile, or the server does not answer or refuses.
    """
    try:
        if name_or_uri.startswith(("http://", "https://")):
            from tiled.client import from_uri  # a second to import: only who needs it

            return from_uri(name_or_uri, api_key=os.environ.get("TILED_API_KEY"))
        import databroker

        names = list(databroker.catalog)
        if name_or_uri not in names:
            raise CatalogError(f"no tiled profile {name_or_uri!r}; there are: {', '.join(names)}")
        return databroker.catalog[name_or_uri]
    except CatalogError:
        raise
    except Exception as error:  # httpx, tiled, sqlalchemy and duckdb each raise their own
        raise CatalogError(
            f"cannot open {name_or_uri!r}: {type(error).__name__}: {error}"
        ) from error


def run_of(catalog: Any, uid: str) -> Any:
    """Run of a catalog by its whole uid; the client of a catalog of runs takes beginnings as well.

    Raises
    ------
    KeyError
        If there is none.
    """
    from tiled.client.container import Container

    return Container.__getitem__(catalog, uid)


def is_embedded(catalog: Any) -> bool:
    """Whether a catalog lives in this process, so that no other may open its storage."""
    return getattr(catalog.context.http_client, "app", None) is not None


def runs(
    catalog: Any,
    uid: str | None = None,
    last: int | None = None,
    since: float | None = None,
    until: float | None = None,
    search: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """Yield runs of a catalog, oldest first; our own result runs only if asked for by `uid`.

    Parameters
    ----------
    catalog
        From `open_catalog`.
    uid
        This run, or the only one that begins so (5 characters or more).
    last
        So many of the latest that fit the other conditions.
    since, until
        Start times, seconds since 1970.
    search
        Items of the start document, by key (dots lead into it) and exact value.

    Raises
    ------
    CatalogError
        If there is no run `uid`.
    """
    from tiled.queries import Comparison, Eq

    if uid is not None:
        try:
            yield catalog[uid]
        except (KeyError, ValueError) as error:
            raise CatalogError(f"no run {uid!r}: {error}") from error
        return
    for key, value in (search or {}).items():
        catalog = catalog.search(Eq(f"start.{key}", value))
    if since is not None:
        catalog = catalog.search(Comparison("ge", "start.time", since))
    if until is not None:
        catalog = catalog.search(Comparison("lt", "start.time", until))
    if last is None:
        yield from _raw(catalog.sort(("start.time", 1)).values())
        return
    latest = _raw(catalog.sort(("start.time", -1)).values())
    yield from reversed([run for run, _ in zip(latest, range(last), strict=False)])


def documents(run: Any) -> Iterator[Document]:
    """Documents of one run: start, descriptors, events in order of time, stop.

    External data are read through the catalog and put into the events; a stream without events
    gets one per row. What was never archived cannot come back: see ``docs/reference``.

    Raises
    ------
    CatalogError
        If a column cannot be read, for example because its file is gone.
    """
    if not any(s.name == "BlueskyRun" and (s.version or "").startswith("3.") for s in run.specs):
        yield from _with_arrays(run.documents())  # a MongoDB catalog streams by itself
        return
    run = getattr(run, "v3", run)  # the older interface hides the columns
    metadata = run.metadata
    yield "start", dict(metadata["start"])
    streams = [StreamNode(name, run[name]) for name in run]
    for descriptor in sorted((d for s in streams for d in s.descriptors), key=_time):
        yield "descriptor", descriptor
    for event in heapq.merge(*(stream.events() for stream in streams), key=_time):
        yield "event", event
    if metadata.get("stop"):  # or its writer died, and the run is not complete
        yield "stop", dict(metadata["stop"])


def events_of(
    run: Any, stream: str, numbers: Collection[int]
) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Descriptors of a stream, and those of its events that have these sequence numbers.

    Both are empty where the run has no such stream.
    """
    run = getattr(run, "v3", run)
    if stream not in run:
        return [], iter(())
    node = StreamNode(stream, run[stream])
    return node.descriptors, node.events(numbers)


def _raw(runs: Any) -> Iterator[Any]:
    return (run for run in runs if run.metadata["start"].get("plan_name") != RESULT_PLAN)


def _time(document: Mapping[str, Any]) -> float:
    return float(document["time"])


class StreamNode:
    """One stream: a table of numbers, read whole, and columns of arrays, read in slices.

    Attributes
    ----------
    descriptors
        Of the stream; external data are in the events, so no key is marked as external.
    columns
        Clients of the columns that are not in the table, by data key.
    external
        Data keys whose values are in files.
    tables
        Clients of the tables, by name; there is one where events were written.
    """

    def __init__(self, name: str, node: Any) -> None:
        self._name = name
        self.descriptors = [_all_internal(descriptor) for descriptor in node.descriptors]
        keys = node.descriptors[0]["data_keys"]
        self.keys = list(keys)
        self.external = {key for key, spec in keys.items() if "external" in spec}
        base = node.base
        parts = list(base)
        self.columns = {key: base[key] for key in self.keys if key in parts}
        self.tables = {part: base[part] for part in parts if part not in self.columns}

    def events(self, numbers: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
        """Events in order; without a table, one per row of the columns, at no known time.

        `numbers`: only events with these sequence numbers.
        """
        rows = self.rows() or self.rows_of_columns()
        for first in range(0, len(rows), self.step):
            part = rows[first : first + self.step]
            if numbers is not None and not any(row["seq_num"] in numbers for row in part):
                continue
            for event in self.events_from(part, first):
                if numbers is None or event["seq_num"] in numbers:
                    yield event

    def events_from(
        self,
        rows: Sequence[Mapping[str, Any]],
        first: int,
        brought: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Events of rows that follow each other.

        `first`: place of the first in the columns; `brought`: what need not be read of these.
        """
        columns = {**self._read(first, first + len(rows), brought or {}), **(brought or {})}
        for index, row in enumerate(rows):
            yield self._event(row, {k: c[index] for k, c in columns.items() if index < len(c)})

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table in the order in which they were written.

        A plan that went back to a checkpoint has written a sequence number a second time.
        """
        rows: dict[tuple[int, float], dict[str, Any]] = {}
        for table in self.tables.values():
            for row in table.read().to_dict(orient="records"):
                rows.setdefault(row_key(row), {}).update(row)
        numbers = {number for number, _ in rows}
        by_time = len(numbers) < len(rows)
        # SQL promises no order
        return [rows[key] for key in sorted(rows, key=lambda key: key[::-1] if by_time else key)]

    def rows_of_columns(self) -> list[dict[str, Any]]:
        """A row without values for each place of the columns, where there is no table."""
        length = max((len(column) for column in self.columns.values()), default=0)
        at = self.descriptors[0]["time"]
        return [{"seq_num": number, "time": at} for number in range(1, length + 1)]

    @property
    def step(self) -> int:
        """Rows of the columns that are read at once."""
        sizes = [column.dtype.itemsize * np.prod(column.shape[1:], dtype=int)
                 for column in self.columns.values()]  # fmt: skip
        return max(int(SLICE_BYTES // max(sizes, default=1)), 1)

    def _read(self, first: int, last: int, brought: Collection[str]) -> dict[str, Any]:
        columns = {}
        for key, column in self.columns.items():
            if key in brought:
                continue
            try:
                if last > len(column):  # it may have grown
                    column.refresh()
                columns[key] = np.asarray(column[first : min(last, len(column))])
            except Exception as error:  # whatever server, client or file may raise
                raise CatalogError(
                    f"column {key!r} of stream {self._name!r} cannot be read from the catalog:"
                    f" {type(error).__name__}: {error}"
                ) from error
        return columns

    def _event(self, row: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
        descriptor = self.descriptors[0]
        for later in self.descriptors[1:]:  # the configuration changed in mid-run
            if later["time"] <= row["time"]:
                descriptor = later
        values = {**row, **arrays}
        data = {key: _plain(values[key]) for key in self.keys if key in values}
        recorded = {key: row[f"ts_{key}"] for key in data if f"ts_{key}" in row}
        # tiled keeps no timestamps of external data; those of the same event are the next best
        stamp = max(recorded.values(), default=None)
        return {
            "uid": f"{descriptor['uid']}/{row['seq_num']}",
            "descriptor": descriptor["uid"],
            "seq_num": row["seq_num"],
            "time": row["time"],
            "data": data,
            "timestamps": {} if stamp is None else dict.fromkeys(data, stamp) | recorded,
            "filled": {},
        }


def row_key(row: Mapping[str, Any]) -> tuple[int, float]:
    """What tells a row from others of its stream: sequence number and time."""
    return int(row["seq_num"]), float(row["time"])


def _plain(value: Any) -> Any:
    """Numbers as Python's own, so that documents can be encoded; lists as arrays."""
    if isinstance(value, list):
        value = np.asarray(value)
    return value.item() if isinstance(value, np.generic) else value


def _all_internal(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the mark of external data, which `documents` puts into the events."""
    keys = {
        key: {name: value for name, value in spec.items() if name != "external"}
        for key, spec in descriptor["data_keys"].items()
    }
    return {**descriptor, "data_keys": keys}


def _with_arrays(documents: Any) -> Iterator[Document]:
    for name, document in documents:
        document = dict(document)
        if name == "event":
            document["data"] = {k: _plain(v) for k, v in document["data"].items()}
        yield name, document

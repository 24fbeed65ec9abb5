"""Rows of a stream whose values are in files: waited for, read in order, given up in time."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.documents.asset_files import Request, Rows
from exafsd.documents.asset_reader import READER
from exafsd.documents.binding import Binding
from exafsd.documents.block import Block

#: rows read from files at once
BLOCK_ROWS = 4096
#: s of reading after which others have their turn
AT_ONCE = 0.5
#: events whose arrays have not been announced that are remembered
NOTED = 100_000


@dataclass(frozen=True)
class Fetch:
    """Rows start ... stop - 1, which stand in the file at + offset, or why there will be none.

    A file that is one table has a `spec` instead of a dataset.
    """

    path: Path | None = None
    dataset: str = ""
    start: int = 0
    stop: int = 0
    spec: str = ""
    offset: int = 0
    error: str | None = None


@dataclass
class _Waiting:
    """Rows whose values are partly in files."""

    block: Block
    fetches: Mapping[str, Fetch]
    deadline: float


class External:
    """Rows of one stream that wait for files: of resource and datum, and of stream_datum.

    `roots`: folders below which files may be read.
    """

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = tuple(map(str, roots))
        self._most = BLOCK_ROWS
        self._points = 0  # of tables that have been read
        self._waiting: deque[_Waiting] = deque()
        self._announced: dict[str, list[Fetch]] = {}
        self._noted: dict[int, Mapping[str, Any]] = {}
        self._row = 0  # next row of an announced stream
        self._first = 1  # number of its first row
        self._deadline = 0.0
        self._received: float | None = None

    def postpone(self, later: float) -> None:
        """Move all deadlines, where the clock is another one; so are times of receipt."""
        self._deadline += later
        self._received = None
        for row in self._waiting:
            row.deadline += later
            row.block = replace(row.block, received=None)

    @property
    def left(self) -> tuple[int, int]:
        """How far it has come: rows that wait, and the next row of an announced stream."""
        return len(self._waiting), self._row

    @property
    def announced(self) -> bool:
        """Whether rows of this stream come by stream_datum."""
        return bool(self._announced)

    def keep(self, keys: frozenset[str]) -> None:
        """Go on under another descriptor, which has these data keys."""
        self._announced = {key: part for key, part in self._announced.items() if key in keys}

    def pending(self, binding: Binding) -> bool:
        """Whether rows wait for a file."""
        return bool(self._waiting) or self._available(binding) > self._row

    def wait(
        self, block: Block, fetches: Mapping[str, Fetch], received: float | None, deadline: float
    ) -> None:
        """Queue a row whose values are in files."""
        self._waiting.append(_Waiting(replace(block, received=received), fetches, deadline))

    def announce(
        self,
        key: str,
        document: Mapping[str, Any],
        file: Fetch,
        received: float | None,
        deadline: float,
    ) -> None:
        """Take a stream_datum: rows of `key` that a file has or will have."""
        indices, seq = document["indices"], document["seq_nums"]
        begin, count = int(indices["start"]), int(indices["stop"]) - int(indices["start"])
        if not self._announced:
            self._first = min(1, int(seq["start"]))  # some count from 0
        # rows are counted through the run; indices begin anew in every file
        row = int(seq["start"]) - self._first
        if 0 <= row < self._row:
            raise ValueError(
                f"rows {dict(seq)} came again; the first reading of a row in a file counts"
            )
        if count < 1 or row < 0 or int(seq["stop"]) - int(seq["start"]) != count:
            raise ValueError(f"indices {dict(indices)} and seq_nums {dict(seq)} do not agree")
        fetch = replace(file, start=row, stop=row + count, offset=begin - row)
        self._announced.setdefault(key, []).append(fetch)
        self._deadline = deadline
        self._received = received

    def note(self, event: Mapping[str, Any]) -> None:
        """Take the internal part of a row whose arrays are in files."""
        self._noted[int(event["seq_num"])] = event
        if len(self._noted) > NOTED:
            del self._noted[next(iter(self._noted))]

    def _available(self, binding: Binding) -> int:
        """Rows announced for every column."""
        if not self._announced or not set(binding.columns.values()) <= set(self._announced):
            return 0
        return min(fetches[-1].stop for fetches in self._announced.values())

    def fetch(self, binding: Binding, now: float, final: bool) -> Iterator[Block]:
        """Read what has become readable, in order; give up on what is past its deadline.

        `final`: the run has stopped, so that no more events will bring context. Not everything is
        read at once: a large file must not keep others waiting.
        """
        end = time.monotonic() + AT_ONCE
        while self._waiting and time.monotonic() < end:
            head = self._waiting[0]
            block = self._filled(head.block, head.fetches, late=now >= head.deadline)
            if block is None:
                break
            self._waiting.popleft()
            yield block
        while self._available(binding) > self._row and time.monotonic() < end:
            for fetches in self._announced.values():  # forget what is read, or a run's memory grows
                while len(fetches) > 1 and fetches[0].stop <= self._row:
                    fetches.pop(0)
            parts = {key: fetches[0] for key, fetches in self._announced.items()}
            self._row = max(self._row, *(fetch.start for fetch in parts.values()))
            last = min(fetch.stop for fetch in parts.values())
            until = min(last, self._row + self._most)
            limit = self._most
            block = self._announced_block(binding, parts, until, now >= self._deadline, final)
            if block is None and self._most < limit:
                continue  # such rows are read fewer at once
            if block is None:
                break
            # of a part that cannot be read one block is rejected: its size is only a claim
            self._row = until if block.error is None else last
            yield block

    def _announced_block(
        self, binding: Binding, parts: Mapping[str, Fetch], stop: int, late: bool, final: bool
    ) -> Block | None:
        start = self._row
        seq = range(start + self._first, stop + self._first)
        internal = binding.keys - set(parts)
        if internal and not final and seq[-1] not in self._noted and not late:
            return None  # context of these rows comes in an event that is still on its way
        noted = [self._noted.pop(number, {}) for number in seq]
        columns: dict[str, Any] = {}
        for key in internal:
            values = [dict(event.get("data") or {}).get(key) for event in noted]
            if None not in values:
                columns[key] = values
        times = np.array([event.get("time") for event in noted], dtype=float)
        block = Block(binding, columns, np.array(seq), times, received=self._received)
        ranges = {key: replace(fetch, start=start, stop=stop) for key, fetch in parts.items()}
        filled = self._filled(block, ranges, late)
        if filled is None:  # looked at again later
            self._noted |= {n: event for n, event in zip(seq, noted, strict=True) if event}
        return filled

    def _filled(self, block: Block, fetches: Mapping[str, Fetch], late: bool) -> Block | None:
        """Block with its external columns read; None while they may still come."""
        for key, fetch in fetches.items():
            if fetch.error is not None or fetch.path is None:
                return replace(block, error=f"{key}: {fetch.error}")
        answers = READER.read([self._request(fetch) for fetch in fetches.values()])
        columns, table = dict(block.columns), None
        for key, answer in zip(fetches, answers, strict=True):
            if answer.kind == "fewer" and self._announced:
                self._most = answer.value
                return None
            if answer.kind == "not_yet" and not late:
                return None
            if answer.kind != "rows":
                text = f"{key}: {answer.text or 'too many rows'}"
                if block.binding.tables:  # whose points have numbers of their own
                    self._points += 1
                    block = replace(block, seq=np.array([self._points]))
                return replace(block, error=text, outside=answer.kind == "outside")
            if isinstance(answer.value, Rows):
                table = answer.value
                columns |= {f"{key}/{name}": values for name, values in table.columns.items()}
            else:
                columns[key] = _unit_axis(answer.value)
        return (
            replace(block, columns=columns)
            if table is None
            else self._points_of(block, columns, table)
        )

    def _request(self, fetch: Fetch) -> Request:
        first, last = fetch.start + fetch.offset, fetch.stop + fetch.offset
        return Request(str(fetch.path), self._roots, fetch.dataset, first, last, fetch.spec)

    def _points_of(self, block: Block, columns: Mapping[str, Any], table: Rows) -> Block:
        """Points of a table as rows of the stream, with what else the event had at each."""
        count = len(table.time)
        seq = np.arange(self._points, self._points + count) + 1
        self._points += count
        repeated = {
            key: values if key.partition("/")[0] in block.binding.tables else list(values) * count
            for key, values in columns.items()
        }
        return replace(block, columns=repeated, seq=seq, time=table.time, stamps={})


def _unit_axis(rows: NDArray[Any]) -> NDArray[Any]:
    """Scalars per row are sometimes written as rows of one."""
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows

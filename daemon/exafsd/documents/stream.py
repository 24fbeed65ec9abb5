"""One stream of a run: rows in, sweeps out."""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.analysis import Adapter
from exafsd.documents import assets
from exafsd.documents.binding import Binding, lookup
from exafsd.documents.items import Problem
from exafsd.documents.splitter import Segment, TurningSplitter
from exafsd.spectra import Floats, Run, SpectrumError, Sweep

#: scalar events gathered before they are looked at: numpy's overhead is that of some ten events
HELD_EVENTS = 16
#: rows read from a file at once
BLOCK_ROWS = 4096
#: readings of slow signals kept for lookup by time
REMEMBERED = 1024
#: a sweep whose span is below this share of the longest is flagged partial
PARTIAL = 0.9
_NOBODY = Run(uid="")


@dataclass(frozen=True)
class Block:
    """Rows of a stream: data key to sequence of values, sequence numbers, times in s."""

    columns: Mapping[str, Any]
    seq: Sequence[int]
    time: Sequence[float | None]
    stamps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    received: float | None = None
    #: set where the rows could not be read
    error: str | None = None

    @classmethod
    def of_event(
        cls, event: Mapping[str, Any], binding: Binding, without: Sequence[str] = ()
    ) -> "Block":
        """Block of one event."""
        data = event["data"]
        columns = {key: [data[key]] for key in binding.keys if key in data and key not in without}
        return cls(columns, [int(event["seq_num"])], [_time(event)])

    @classmethod
    def of_events(
        cls, events: Sequence[Mapping[str, Any]], binding: Binding, received: float | None
    ) -> "Block":
        """Block of several events, all with the same keys."""
        keys = set(binding.keys).intersection(*(e["data"] for e in events))
        columns = {key: [e["data"][key] for e in events] for key in keys}
        stamps = {
            key: [(e.get("timestamps") or {}).get(key, e["time"]) for e in events] for key in keys
        }
        return cls(
            columns,
            [int(e["seq_num"]) for e in events],
            [_time(e) for e in events],
            stamps,
            received,
        )

    @classmethod
    def of_page(cls, page: Mapping[str, Any], binding: Binding, received: float | None) -> "Block":
        """Block of an event page."""
        columns = {key: page["data"][key] for key in binding.keys if key in page["data"]}
        told = page.get("timestamps") or {}
        stamps = {key: told[key] for key in columns if key in told}
        return cls(columns, page["seq_num"], page["time"], stamps, received)


def _time(event: Mapping[str, Any]) -> float | None:
    """Time of an event; the archive gives back stream_datum rows as events without timestamps."""
    return None if event.get("timestamps") == {} else float(event["time"])


@dataclass(frozen=True)
class Fetch:
    """Rows start ... stop - 1 of a dataset, or why there will never be any."""

    path: Path | None = None
    dataset: str = ""
    start: int = 0
    stop: int = 0
    error: str | None = None


@dataclass
class _Waiting:
    """Rows whose values are partly in files."""

    block: Block
    fetches: Mapping[str, Fetch]
    deadline: float


class Context:
    """Chosen metadata of a run: from a row, from slow streams by time, from the start document."""

    def __init__(self, adapter: Adapter, start: Mapping[str, Any]) -> None:
        self._adapter = adapter
        self._start = start
        self._slow: dict[str, deque[tuple[float, Any, str | None]]] = {}

    def remember(self, binding: Binding, block: Block) -> None:
        """Keep the context readings of a stream that is not a spectrum itself."""
        if binding.has_signals:
            return
        for key in binding.context:
            if key in block.columns:
                kept = self._slow.setdefault(key, deque(maxlen=REMEMBERED))
                for when, value in zip(block.time, block.columns[key], strict=True):
                    kept.append((when or 0.0, value, binding.units.get(key)))

    def of(self, row: Mapping[str, Any], binding: Binding, when: float | None) -> dict[str, Any]:
        """Context of a sweep that ended at `when`: name to value, unit and time."""
        found: dict[str, Any] = {}
        for key in self._adapter.context:
            if key in row:
                found[key] = {"value": _plain(row[key]), "unit": binding.units.get(key)}
                found[key]["time"] = when
            elif key in self._slow:
                kept = list(self._slow[key])
                at = len(kept) if when is None else bisect_right([k[0] for k in kept], when)
                time, value, unit = kept[max(at - 1, 0)]
                found[key] = {"value": _plain(value), "unit": unit, "time": time}
            elif (value := lookup(self._start, key)) is not None:
                found[key] = {"value": _plain(value), "unit": None, "time": None}
        return found

    def truth_of(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        """Known parameters, where a simulation tells them."""
        found = {}
        for name, key in self._adapter.truth.items():
            value = row.get(key)
            for path in (key, f"truth.{name}"):
                value = lookup(self._start, path) if value is None else value
            if isinstance(value, (int, float, np.number)):
                found[name] = float(value)
        return found or None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Stream:
    """State of one stream: rows held back, the open sweep, rows that wait for files."""

    def __init__(
        self,
        binding: Binding,
        turn: float,
        context: Context,
        broken: SpectrumError | None,
    ) -> None:
        self.binding = binding
        self.rows = 0
        self._context = context
        self._broken = broken
        self._splitter = TurningSplitter(turn)
        self._held: list[Mapping[str, Any]] = []
        self._held_at: float | None = None
        self._waiting: deque[_Waiting] = deque()
        self._announced: dict[str, list[Fetch]] = {}
        self._noted: dict[int, Mapping[str, Any]] = {}
        self._row = 0  # next row of an announced stream
        self._first_seq = 1  # sequence number of row 0
        self._deadline = 0.0
        self._received: float | None = None
        self._number = 0
        self._longest = 0.0
        self._next_seq = 1
        self._name = binding.stream

    # rows in

    @property
    def announced(self) -> bool:
        """Whether rows of this stream come by stream_datum."""
        return bool(self._announced)

    @property
    def pending(self) -> bool:
        """Whether rows wait for a file."""
        return bool(self._waiting) or self._available() > self._row

    def hold(self, event: Mapping[str, Any], received: float | None) -> list[Block]:
        """Take an event; scalar ones are gathered to small blocks."""
        self._check(event)
        self._held.append(event)
        self._held_at = received
        return self.flush() if self.binding.rowwise or len(self._held) >= HELD_EVENTS else []

    def _check(self, event: Mapping[str, Any]) -> None:
        """Refuse an event that would spoil those held beside it."""
        _ = int(event["seq_num"]), float(event["time"])
        if self.binding.rowwise:  # it stays alone, and what is wrong with it is its own
            return
        for key in self.binding.columns.values():
            if key not in event["data"]:
                raise ValueError(f"event {event['seq_num']} has no {key!r}")
            float(event["data"][key])

    def flush(self) -> list[Block]:
        """Give out held events."""
        events, self._held = self._held, []
        if not events:
            return []
        return [Block.of_events(events, self.binding, self._held_at)]

    def wait(
        self, block: Block, fetches: Mapping[str, Fetch], received: float | None, deadline: float
    ) -> list[Sweep]:
        """Queue a row whose values are in files."""
        block = Block(block.columns, block.seq, block.time, received=received)
        self._waiting.append(_Waiting(block, fetches, deadline))
        return []

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
        if not self._announced:
            self._first_seq = int(seq["start"]) - int(indices["start"])
        fetch = replace(file, start=int(indices["start"]), stop=int(indices["stop"]))
        self._announced.setdefault(key, []).append(fetch)
        self._deadline = deadline
        self._received = received

    def note(self, event: Mapping[str, Any]) -> None:
        """Take the internal part of a row whose arrays are in files."""
        self._noted[int(event["seq_num"])] = event

    def _available(self) -> int:
        """Rows announced for every column."""
        if not self._announced:
            return 0
        wanted = set(self.binding.columns.values())
        if not wanted <= set(self._announced):
            return 0
        return min(fetches[-1].stop for fetches in self._announced.values())

    def fetch(self, now: float, final: bool) -> list[Block]:
        """Read what has become readable, in order; give up on what is past its deadline."""
        blocks = []
        while self._waiting:
            head = self._waiting[0]
            block = _filled(head.block, head.fetches, late=now >= head.deadline)
            if block is None:
                break
            blocks.append(block)
            self._waiting.popleft()
        while self._available() > self._row:
            parts = {
                key: next(fetch for fetch in fetches if fetch.stop > self._row)
                for key, fetches in self._announced.items()
            }
            end = min(fetch.stop for fetch in parts.values())
            until = min(end, self._row + BLOCK_ROWS)
            block = self._announced_block(parts, until, now >= self._deadline, final)
            if block is None:
                break
            blocks.append(block)
            # of a part that cannot be read one block is rejected: its size is only a claim
            self._row = until if block.error is None else end
        return blocks

    def _announced_block(
        self, fetches: Mapping[str, Fetch], stop: int, late: bool, final: bool
    ) -> Block | None:
        start = self._row
        seq = list(range(self._first_seq + start, self._first_seq + stop))
        internal = self.binding.keys - set(fetches)
        if internal and not final and seq[-1] not in self._noted and not late:
            return None  # context of these rows comes in an event that is still on its way
        noted = [self._noted.pop(number, {}) for number in seq]
        columns: dict[str, Any] = {}
        for key in internal:
            values = [dict(event.get("data") or {}).get(key) for event in noted]
            if None not in values:
                columns[key] = values
        times = [event.get("time") for event in noted]
        block = Block(columns, seq, times, received=self._received)
        ranges = {key: replace(fetch, start=start, stop=stop) for key, fetch in fetches.items()}
        filled = _filled(block, ranges, late)
        if filled is None:  # looked at again later
            self._noted |= {n: event for n, event in zip(seq, noted, strict=True) if event}
        return filled

    def check_sequence(self, run_uid: str, block: Block) -> Problem | None:
        """Count rows; say where sequence numbers have a gap or come again."""
        if len(block.seq) == 0:
            return None
        first, last, expected = int(block.seq[0]), int(block.seq[-1]), self._next_seq
        where = f"run {run_uid}, stream {self._name!r}"
        if last < expected:
            text = f"{where}: events {first} to {last} came again and were skipped"
            return Problem("repeated", text)
        self.rows += len(block.seq)
        self._next_seq = last + 1
        if first <= expected:
            return None
        text = f"{where}: events {expected} to {first - 1} are missing"
        return Problem("gap", f"{text}; replay the run from the archive")

    # sweeps out

    def accept(self, block: Block) -> list[Sweep]:
        """Rows with energy and signals: each an array and so a sweep, or points of one."""
        if block.error is not None:
            error = SpectrumError("asset_missing", block.error)
            return [self._broken_sweep(block, i, error) for i in range(len(block.seq))]
        if self.binding.rowwise:
            return [self._row_sweep(block, i) for i in range(len(block.seq))]
        return self.cut(self.points(block), self._name, block)

    def points(self, block: Block, stamps: bool = False) -> dict[str, NDArray[Any]]:
        """Columns of scalar rows by role; `stamps`: times of the reading, not of the event."""
        columns: dict[str, NDArray[Any]] = {}
        for role, key in self.binding.columns.items():
            if key not in block.columns:
                raise ValueError(f"events of stream {self._name!r} have no {key!r}")
            columns[role] = np.asarray(block.columns[key], dtype=float)
        if "energy" in columns:
            columns["energy"] = self.binding.scale(columns["energy"])
        elif self.binding.axis is not None:
            raise ValueError(f"stream {self._name!r} has an energy axis but scalar signals")
        key = next(iter(self.binding.columns.values()))
        times = block.stamps[key] if stamps and key in block.stamps else block.time
        columns["time"] = np.asarray(times, dtype=float)
        if not stamps:
            for key in (*self.binding.context, *self.binding.truth.values()):
                if key in block.columns:
                    columns[f"row:{key}"] = np.asarray(block.columns[key], dtype=object)
        return columns

    def cut(self, points: Mapping[str, NDArray[Any]], name: str, block: Block) -> list[Sweep]:
        """Add points to the open sweep; return the sweeps that ended."""
        self._name = name
        self._received = block.received
        return [self._segment_sweep(s) for s in self._splitter.push(points)]

    def finish(self, whole: bool) -> list[Sweep]:
        """Return the open sweep at the end of a run; `whole` is false after an abort."""
        return [self._segment_sweep(s, cut_off=not whole) for s in self._splitter.finish()]

    def _segment_sweep(self, segment: Segment, cut_off: bool = False) -> Sweep:
        columns = segment.columns
        middle = len(columns["time"]) // 2
        row = {
            name.removeprefix("row:"): array[middle]
            for name, array in columns.items()
            if name.startswith("row:")
        }
        times = columns["time"]
        self._number += 1
        span = float(np.ptp(columns["energy"])) if np.isfinite(columns["energy"]).all() else 0.0
        partial = cut_off or span < PARTIAL * self._longest
        self._longest = max(self._longest, span)
        return self._sweep(
            number=self._number,
            columns={n: a for n, a in columns.items() if n != "time" and not n.startswith("row:")},
            row=row,
            acquired=(_finite(times[0]), _finite(times[-1])),
            received=self._received,
            flags=("partial",) if partial else (),
        )

    def _row_sweep(self, block: Block, i: int) -> Sweep:
        row = {key: values[i] for key, values in block.columns.items()}
        columns: dict[str, NDArray[Any]] = {}
        broken = None
        key = ""
        try:
            for role, key in self.binding.columns.items():
                if key not in row:
                    raise _missing(key)
                columns[role] = np.atleast_1d(np.asarray(row[key], dtype=float)).ravel()
        except (TypeError, ValueError) as error:
            broken = error if isinstance(error, SpectrumError) else _not_numbers(key, error)
        if self.binding.axis is not None:
            columns["energy"] = self.binding.axis
        if "energy" in columns:
            columns["energy"] = self.binding.scale(columns["energy"])
        when = block.time[i]
        return self._sweep(
            number=int(block.seq[i]),
            columns=columns,
            row=row,
            acquired=(None, when),
            received=block.received,
            broken=broken,
        )

    def _broken_sweep(self, block: Block, i: int, error: SpectrumError) -> Sweep:
        return self._sweep(
            number=int(block.seq[i]),
            columns={},
            row={},
            acquired=(None, block.time[i]),
            received=block.received,
            broken=error,
        )

    def _sweep(
        self,
        number: int,
        columns: dict[str, NDArray[Any]],
        row: Mapping[str, Any],
        acquired: tuple[float | None, float | None],
        received: float | None,
        flags: tuple[str, ...] = (),
        broken: SpectrumError | None = None,
    ) -> Sweep:
        energy = columns.pop("energy", np.empty(0))
        direction = None
        if len(energy) > 1 and np.isfinite(energy[[0, -1]]).all():
            direction = "up" if energy[-1] >= energy[0] else "down"
        return Sweep(
            run=_NOBODY,
            stream=self._name,
            number=number,
            energy=energy,
            signals=_summed(columns),
            direction=direction,
            acquired=acquired,
            context=self._context.of(row, self.binding, acquired[1]),
            truth=self._context.truth_of(row),
            flags=flags,
            received=received,
            broken=self._broken or broken,
        )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _summed(columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """Signals with the elements of a fluorescence detector added up."""
    signals = {role: array for role, array in columns.items() if not role.startswith("iff#")}
    elements = [array for role, array in columns.items() if role.startswith("iff#")]
    if elements:
        signals["iff"] = elements[0] if len(elements) == 1 else np.sum(elements, axis=0)
    return signals


def _filled(block: Block, fetches: Mapping[str, Fetch], late: bool) -> Block | None:
    """Block with its external columns read; None while they may still come."""
    columns = dict(block.columns)
    error = None
    for key, fetch in fetches.items():
        if fetch.error is not None or fetch.path is None:
            error = f"{key}: {fetch.error}"
            break
        try:
            columns[key] = _unit_axis(
                assets.read_rows(fetch.path, fetch.dataset, fetch.start, fetch.stop)
            )
        except assets.NotYet as reason:
            if not late:
                return None
            error = f"{key}: {reason}"
            break
        except assets.AssetError as reason:
            error = f"{key}: {reason}"
            break
    return Block(columns, block.seq, block.time, block.stamps, block.received, error)


def _unit_axis(rows: NDArray[Any]) -> NDArray[Any]:
    """Scalars per row are sometimes written as rows of one."""
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows


def _missing(key: str) -> SpectrumError:
    return SpectrumError(
        "missing_column", f"the data key {key!r} is in the descriptor but not in the event"
    )


def _not_numbers(key: str, error: Exception) -> SpectrumError:
    return SpectrumError("not_numbers", f"{key!r} is not an array of numbers: {error}")

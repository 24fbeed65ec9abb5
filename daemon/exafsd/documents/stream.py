"""One stream of a run: rows in, sweeps out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.documents.binding import Binding
from exafsd.documents.block import Block
from exafsd.documents.context import Context
from exafsd.documents.external import External
from exafsd.documents.items import Problem
from exafsd.documents.splitter import Segment, TurningSplitter
from exafsd.spectra import Floats, Run, SpectrumError, Sweep

#: scalar events gathered before they are looked at: numpy's overhead is that of some ten events
HELD_EVENTS = 16
#: a sweep whose span is below this share of the longest is flagged partial
PARTIAL = 0.9
#: a jump of the sequence number beyond this is no gap but nonsense
LARGEST_GAP = 1_000_000
#: missing rows remembered in case they come late; a run's memory must not grow with its losses
REMEMBERED_ROWS = 10_000
_NOBODY = Run(uid="")


class Stream:
    """State of one stream: rows held back, rows that wait for files, the open sweep."""

    def __init__(
        self,
        binding: Binding,
        turn: float,
        context: Context,
        broken: SpectrumError | None,
    ) -> None:
        self.binding = binding
        self.external = External()
        self.rows = 0
        self._context = context
        self._broken = broken
        self._splitter = TurningSplitter(turn)
        self._held: list[Mapping[str, Any]] = []
        self._held_at: float | None = None
        self._received: float | None = None
        self._number = 0
        self._longest = 0.0
        self._next_seq = 1
        self._missing: set[int] = set()
        self._gap = False  # whether points of the open sweep are missing
        self._name = binding.stream

    # rows in

    @property
    def pending(self) -> bool:
        """Whether rows wait for a file."""
        return self.external.pending(self.binding)

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

    def in_sequence(self, run_uid: str, block: Block) -> tuple[Block | None, Problem | None]:
        """Return the rows of a block that are new, and what is wrong with their numbers."""
        if len(block.seq) == 0:
            return None, None
        where = f"run {run_uid}, stream {self._name!r}"
        expected = self._next_seq
        if max(block.seq) > expected + LARGEST_GAP or min(block.seq) < 1:
            text = f"{where}: events {block.seq[0]} to {block.seq[-1]} cannot be; they were skipped"
            return None, Problem("bad_document", text)
        if self.binding.rowwise and len(block.seq) == 1 and block.seq[0] in self._missing:
            self._missing.discard(block.seq[0])  # late, but never seen: a sweep of its own
            self.rows += 1
            return block, None
        new = sum(number >= expected for number in block.seq)
        if new < len(block.seq):
            text = f"{where}: events up to {expected - 1} came again and were skipped"
            problem = Problem("repeated", text)
            if new == 0:
                return None, problem
            return self._counted(block.tail(new)), problem
        if block.seq[-1] + 1 - expected == len(block.seq):
            return self._counted(block), None
        absent = set(range(expected, block.seq[-1] + 1)).difference(block.seq)
        if not absent:
            return self._counted(block), None
        if self.binding.rowwise and len(self._missing) + len(absent) <= REMEMBERED_ROWS:
            self._missing |= absent
        self._gap = True
        text = f"{where}: {len(absent)} events from {min(absent)} on are missing"
        return self._counted(block), Problem("gap", f"{text}; replay the run from the archive")

    def _counted(self, block: Block) -> Block:
        self.rows += len(block.seq)
        self._next_seq = int(block.seq[-1]) + 1
        return block

    # sweeps out

    def accept(self, block: Block) -> list[Sweep]:
        """Rows with energy and signals: each an array and so a sweep, or points of one."""
        if block.error is not None:
            error = SpectrumError("asset_missing", block.error)
            rows = range(len(block.seq)) if self.binding.rowwise else range(1)
            return [self._broken_sweep(block, i, error) for i in rows]
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
            flags=self._flags(partial),
        )

    def _flags(self, partial: bool) -> tuple[str, ...]:
        gap, self._gap = self._gap, False
        return (*(("partial",) if partial else ()), *(("gap",) if gap else ()))

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


def _missing(key: str) -> SpectrumError:
    return SpectrumError(
        "missing_column", f"the data key {key!r} is in the descriptor but not in the event"
    )


def _not_numbers(key: str, error: Exception) -> SpectrumError:
    return SpectrumError("not_numbers", f"{key!r} is not an array of numbers: {error}")

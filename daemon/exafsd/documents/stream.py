"""One stream of a run: rows in, sweeps out."""

import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.vocabulary import Flag, Reason
from exafsd.documents.binding import Binding
from exafsd.documents.block import Block
from exafsd.documents.context import Context
from exafsd.documents.corrections import Corrections
from exafsd.documents.direction import direction, span_of
from exafsd.documents.external import External
from exafsd.documents.joiner import Joiner
from exafsd.documents.numbering import Numbering
from exafsd.documents.padding import without_padding
from exafsd.documents.splitter import Segment, TurningSplitter, put
from exafsd.spectra import Floats, Run, SpectrumError, Sweep

#: scalar events gathered before they are looked at: numpy's overhead is that of some ten events
HELD_EVENTS = 16
#: the same of events that were received together: none of them is waited for
HELD_TOGETHER = 128
#: a sweep whose span is below this share of the longest of the last ones is flagged partial
PARTIAL = 0.9
#: that many: an amplitude that has changed, or a glitch, must not flag sweeps for ever
COMPARED = 8
#: s, by the points' times. The first sweep of a run may begin in mid-leg, which nobody can tell
#: before the second has ended: it is held until then. One that takes longer is made by a plan,
#: which begins at the start of the scan, and its users would wait too long
HELD_SECONDS = 10.0
#: columns of points that are no reading: bookkeeping of the stream itself
_NO_SIGNAL = ("time", "seq", "gap", "row:")
#: sweeps cut from points that may still be revised, and rows whose readings are told apart
REVISED_SWEEPS, REVISED_ROWS = 2, 10_000


@dataclass(frozen=True)
class SharedByStreams:
    """What the streams of a run have in common."""

    run: Run
    context: Context
    corrections: Corrections
    #: role (``iff`` for its elements) to s by which it lags behind the energy
    delays: Mapping[str, float]
    #: eV that the energy must come back by at a turn
    turn: float
    #: folders below which external files may be read
    roots: tuple[Path, ...] = ()
    #: why no sweep of this run can be analysed
    refused: SpectrumError | None = None


@dataclass
class _Cut:
    """A sweep that was cut from points, in case some of them are measured again."""

    number: int
    columns: dict[str, NDArray[Any]]
    partial: bool
    revision: int = 1
    changed: bool = False


class Stream:
    """State of one stream: rows held back, rows that wait for files, the open sweep.

    `joined`: its points come from a joiner.
    """

    def __init__(
        self,
        binding: Binding,
        shared: SharedByStreams,
        joined: bool = False,
    ) -> None:
        self.binding = binding
        self.external = External(shared.roots)
        self.numbering = Numbering()
        self._shared = shared
        self._broken = shared.refused or _unusable(binding)
        self._splitter = TurningSplitter(shared.turn)
        self._aligner: Joiner | None = None
        self._late = False  # whether some signal lags behind, and nothing can be done
        self._held: list[Mapping[str, Any]] = []
        self._held_at: float | None = None
        self._received: float | None = None
        self._number = 0
        self._spans: deque[float] = deque(maxlen=COMPARED)
        self._first: Sweep | None = None  # waits for the second, see HELD_SECONDS
        self._turned = False
        self._joined = joined
        #: whether points came again that could not take the place of the earlier ones
        self.stale = False
        self._cuts: deque[_Cut] = deque(maxlen=REVISED_SWEEPS)
        self._rows: OrderedDict[int, tuple[int, int]] = OrderedDict()  # number: digest, revision
        self._name = binding.stream

    def __getstate__(self) -> dict[str, Any]:
        """Without times of this process's clock, which say nothing to another."""
        return {**self.__dict__, "_held_at": None, "_received": None}

    # rows in

    @property
    def pending(self) -> bool:
        """Whether rows wait for a file."""
        return self.external.pending(self.binding)

    def hold(self, event: Mapping[str, Any], received: float | None) -> list[Block]:
        """Take an event; scalar ones are gathered to small blocks."""
        self._check(event)
        together = received is not None and received == self._held_at
        limit = HELD_TOGETHER if together else HELD_EVENTS
        self._held.append(event)
        self._held_at = received
        alone = self.binding.rowwise or not self.binding.columns  # context is wanted at once
        return self.flush() if alone or len(self._held) >= limit else []

    def bind(self, binding: Binding) -> list[Block]:
        """Go on under another descriptor; return the events held under the last one."""
        held = self.flush()
        self.binding = binding
        self.external.keep(binding.keys)
        self.refuse(binding)
        return held

    def refuse(self, binding: Binding) -> None:
        """Note that sweeps cannot be analysed if a binding is unusable.

        Where a row is a sweep that holds for its rows alone, else for what is cut from here on.
        """
        unusable = self._shared.refused or _unusable(binding)
        self._broken = unusable if binding.rowwise else self._broken or unusable

    def _check(self, event: Mapping[str, Any]) -> None:
        """Refuse an event that would spoil those held beside it."""
        _ = int(event["seq_num"]), float(event["time"])
        if self.binding.rowwise:  # it stays alone, and what is wrong with it is its own
            return
        for key in self.binding.columns.values():
            if key not in event["data"]:
                raise ValueError(f"event {event['seq_num']} has no {key!r}")
            _scalar(event["data"][key])

    @property
    def expected(self) -> int:
        """Number of the next event."""
        return int(self._held[-1]["seq_num"]) + 1 if self._held else self.numbering.expected

    def flush(self) -> list[Block]:
        """Give out held events."""
        events, self._held = self._held, []
        if not events:
            return []
        return [Block.of_events(events, self.binding, self._held_at)]

    # sweeps out

    def accept(self, block: Block) -> list[Sweep]:
        """Rows with energy and signals: each an array and so a sweep, or points of one."""
        if block.error is not None:
            error = SpectrumError(Reason.ASSET_MISSING, block.error)
            rows = range(len(block.seq)) if block.binding.rowwise else range(1)
            self._rows |= {int(number): (-1, 1) for number in block.seq[: len(rows)]}
            return [self._broken_sweep(block, i, error) for i in rows]
        if block.binding.rowwise:
            return [self._row_sweep(block, i) for i in range(len(block.seq))]
        points = self._aligned(self.points(block))
        return [] if points is None else self.cut(points, self._name, block.received)

    def amend(self, block: Block) -> tuple[list[Sweep], bool]:
        """Take rows that came again, as after a pause: the later reading counts.

        Of a row that is a sweep, a revision follows if it is another reading. Points replace those
        of the open sweep, or of one of the latest, which is then given out once more.

        Returns
        -------
        sweeps, changed
            Revisions; whether anything is other than it was.
        """
        if block.error is not None:
            return [], False
        if self._aligner is not None:
            self.stale = True
            return [], False
        if block.binding.rowwise:
            sweeps = [self._row_sweep(block, i, again=True) for i in range(len(block.seq))]
            return [sweep for sweep in sweeps if sweep.revision > 1], False
        points = self.points(block)
        changed = self._splitter.replace(points)
        for cut in self._cuts:
            cut.changed |= put(cut.columns, points)
            changed |= cut.changed
        return [], changed

    def revised(self) -> list[Sweep]:
        """Sweeps whose points were measured again, once more; when all of these have come."""
        done: list[Sweep] = []
        for cut in self._cuts:
            if not cut.changed:
                continue
            cut.changed = False
            if cut.number == 1 and self._first is not None:  # it has not been given out
                self._first = self._segment_sweep(cut)
            else:
                cut.revision += 1
                done.append(self._segment_sweep(cut))
        return done

    def points(self, block: Block, stamps: bool = False) -> dict[str, NDArray[Any]]:
        """Columns of scalar rows by role; `stamps`: times of the reading, not of the event."""
        columns: dict[str, NDArray[Any]] = {}
        binding, count = block.binding, len(block.seq)
        for role, key in binding.columns.items():
            if key not in block.columns:
                raise ValueError(f"events of stream {self._name!r} have no {key!r}")
            readings = self._column(binding, role, block.columns[key])
            columns[role] = readings if readings.shape == (count,) else readings.reshape(count)
        if binding.axis is not None:
            raise ValueError(f"stream {self._name!r} has an energy axis but scalar signals")
        key = next(iter(binding.columns.values()))
        times = block.stamps[key] if stamps and key in block.stamps else block.time
        columns["time"] = np.asarray(times, dtype=float)
        gap = np.zeros(len(block.seq)) if block.gap is None else block.gap.astype(float)
        columns[self.gap_role if stamps else "gap"] = gap
        if not stamps:
            columns["seq"] = block.seq
            for key in (*binding.context, *binding.truth.values()):
                in_rows = block.columns[key] if key in block.columns else [None] * len(gap)
                columns[f"row:{key}"] = np.asarray(in_rows, dtype=object)
        return columns

    @property
    def gap_role(self) -> str:
        """Column of a joined stream that tells where its rows are missing."""
        return f"gap:{self.binding.stream}"

    def delays(self) -> dict[str, float]:
        """Seconds by which columns of this stream lag behind the energy, without zeros."""
        delays = {
            role: self._shared.delays.get(_signal(role), 0.0) for role in self.binding.columns
        }
        return {role: delay for role, delay in delays.items() if delay and role != "energy"}

    def _column(self, binding: Binding, role: str, values: Any) -> NDArray[Any]:
        """Energies in eV, or counts, of readings."""
        readings = np.asarray(values, dtype=float)
        if role == "energy":
            return binding.scale(readings)
        return self._shared.corrections.counts(_signal(role), readings)

    def _aligned(self, points: dict[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]] | None:
        """Points with each signal as it was when the energy was read, as far as known."""
        delays = self.delays()
        if not delays or self._late:
            return points
        if self._aligner is None:
            if not np.isfinite(points["time"][0]):  # files of ophyd-async may come without times
                self._late = True
                return points
            self._aligner = Joiner(base="energy")
            self._aligner.add_stream("", [role for role in points if role != "time"], delays)
        return self._aligner.push("", points)

    def cut(
        self, points: Mapping[str, NDArray[Any]], name: str, received: float | None
    ) -> list[Sweep]:
        """Add points to the open sweep; return the sweeps that ended."""
        self._name = name
        self._received = received
        return self._sweeps(self._splitter.push(points))

    def finish(self, whole: bool) -> list[Sweep]:
        """Return what is open at the end of a run; `whole` is false after an abort."""
        revised = self.revised()
        rest = None if self._aligner is None else self._aligner.finish()
        sweeps = [] if rest is None else self.cut(rest, self._name, self._received)
        return revised + sweeps + self._sweeps(self._splitter.finish(), ended=True, whole=whole)

    def _sweeps(
        self, segments: list[Segment], ended: bool = False, whole: bool = True
    ) -> list[Sweep]:
        done = []
        for segment in segments:
            cut_off = not segment.turned and not (ended and whole)
            self._turned |= segment.turned
            span = span_of(segment.columns["energy"])
            partial = cut_off or span < PARTIAL * max(self._spans, default=0.0)
            first, self._first = self._first, None
            if first is not None:
                if self._spans[0] < PARTIAL * span:
                    first = replace(first, flags=(Flag.PARTIAL, *first.flags))
                    self._cuts[-1].partial = True
                at = self._received  # the document that completed it is the one that frees it
                done.append(replace(first, received=at, assembled_ms=_elapsed(at)))
            self._spans.append(span)
            self._number += 1
            self._cuts.append(cut := _Cut(self._number, segment.columns, partial))
            sweep = self._segment_sweep(cut)
            if self._number == 1 and segment.turned and not _slow(segment.columns["time"]):
                self._first = sweep
            else:
                done.append(sweep)
        return done

    def _segment_sweep(self, cut: _Cut) -> Sweep:
        columns = cut.columns
        times = columns["time"]
        middle = len(times) // 2
        row = {
            n.removeprefix("row:"): a[middle] for n, a in columns.items() if n.startswith("row:")
        }
        gap = any(array.any() for name, array in columns.items() if name.startswith("gap"))
        stale, self.stale = self.stale, False
        flags = {
            Flag.REMEASURED: stale,
            Flag.PARTIAL: cut.partial,
            Flag.GAP: gap,
            Flag.DELAY_IGNORED: self._late,
        }
        return self._sweep(
            number=cut.number,
            revision=cut.revision,
            columns={n: a for n, a in columns.items() if not n.startswith(_NO_SIGNAL)},
            row={key: value for key, value in row.items() if value is not None},
            acquired=(_finite(times[0]), _finite(times[-1])),
            received=self._received,
            flags=tuple(name for name, raised in flags.items() if raised),
            flown=self._turned or self._joined,
        )

    def _row_sweep(self, block: Block, i: int, again: bool = False) -> Sweep:
        binding = block.binding
        row = {key: values[i] for key, values in block.columns.items()}
        readings: dict[str, NDArray[Any]] = {}
        broken = None
        key = ""
        try:
            for role, key in binding.columns.items():
                if key not in row:
                    raise _missing(key)
                readings[role] = np.asarray(row[key], float).ravel()
        except (TypeError, ValueError) as error:
            broken = error if isinstance(error, SpectrumError) else _not_numbers(key, error)
        if binding.axis is not None:
            readings["energy"] = binding.axis
        # before dark readings are taken off zeros
        raw, readings, flags = without_padding(readings.pop("energy", np.empty(0)), readings)
        readings["energy"] = raw
        columns = {role: self._column(binding, role, array) for role, array in readings.items()}
        number = int(block.seq[i])
        energy = columns.pop("energy", np.empty(0))
        return self._sweep(
            number=number,
            columns={"energy": energy, **columns},
            binding=binding,
            row=row,
            acquired=(None, _finite(block.time[i])),
            received=block.received,
            flags=(*flags, Flag.DELAY_IGNORED) if self.delays() else flags,
            revision=self._row_revision(number, {"energy": energy, **columns}, again),
            broken=broken,
        )

    def _row_revision(self, number: int, columns: Mapping[str, NDArray[Any]], again: bool) -> int:
        """Revision of a row; 1 of one that only came twice, with the same readings."""
        digest = 0
        for column in columns.values():
            digest = zlib.crc32(np.ascontiguousarray(column).tobytes(), digest)
        before, revision = self._rows.get(number, (digest, 1))
        if again and digest == before:
            return 1
        revision += again
        self._rows[number] = digest, revision
        if len(self._rows) > REVISED_ROWS:
            self._rows.popitem(last=False)
        return revision

    def _broken_sweep(self, block: Block, i: int, error: SpectrumError) -> Sweep:
        return self._sweep(
            number=int(block.seq[i]),
            columns={},
            row={},
            acquired=(None, _finite(block.time[i])),
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
        flags: tuple[Flag, ...] = (),
        flown: bool = False,
        revision: int = 1,
        broken: SpectrumError | None = None,
        binding: Binding | None = None,
    ) -> Sweep:
        energy = columns.pop("energy", np.empty(0))
        context = self._shared.context
        return Sweep(
            run=self._shared.run,
            stream=self._name,
            number=number,
            energy=energy,
            signals=_summed(columns),
            direction=direction(energy),
            acquired=acquired,
            context=context.of(row, binding or self.binding, acquired[1]),
            truth=context.truth_of(row),
            flags=flags,
            received=received,
            assembled_ms=_elapsed(received),
            flown=flown,
            revision=revision,
            sample=context.sample_of(row, acquired[1]),
            broken=self._broken or broken,
        )


def _unusable(binding: Binding) -> SpectrumError | None:
    """Why no sweep under a descriptor can be analysed."""
    return None if binding.problem is None else SpectrumError(Reason.ENERGY_UNIT, binding.problem)


def _scalar(value: Any) -> float:
    """Reading of a point; some devices write scalars as arrays of one."""
    return float(value) if isinstance(value, (int, float)) else np.asarray(value, float).item()


def _elapsed(received: float | None) -> float | None:
    """Milliseconds since a document was received."""
    return None if received is None else (time.perf_counter() - received) * 1e3


def _signal(role: str) -> str:
    """Signal of a role: ``iff`` for the elements ``iff#0``, ``iff#1``, ..."""
    return role.partition("#")[0]


def _slow(times: Floats) -> bool:
    """Whether a sweep took too long for the next one to be waited for."""
    return bool(times[-1] - times[0] > HELD_SECONDS)


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
        Reason.MISSING_COLUMN, f"the data key {key!r} is in the descriptor but not in the event"
    )


def _not_numbers(key: str, error: Exception) -> SpectrumError:
    return SpectrumError(Reason.NOT_NUMBERS, f"{key!r} is not an array of numbers: {error}")

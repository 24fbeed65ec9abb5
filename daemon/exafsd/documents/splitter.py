"""Cut a stream of points into sweeps at the turning points of the monochromator.

What is cut depends only on the points, never on how they were chunked into documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.spectra import Floats

#: a leg of fewer points is jitter or unsorted data, not a sweep
MIN_LEG = 8

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Segment:
    """Points of one sweep in the order of measurement; `complete` is false at a run's end."""

    columns: dict[str, NDArray[Any]]
    complete: bool


class TurningSplitter:
    """Cuts where the energy comes back by more than `turn` eV after a leg of enough points."""

    def __init__(self, turn: float) -> None:
        self._turn = turn
        self._chunks: list[Columns] = []
        self._kept = 0  # points in chunks
        self._leg = _Leg()

    def push(self, columns: Columns) -> list[Segment]:
        """Add points, equally long arrays one of which is ``energy`` in eV; return ended sweeps."""
        energy = np.asarray(columns["energy"], float)
        self._chunks.append(columns)
        done = []
        offset = self._kept  # index of energy[0] within the open sweep
        self._kept += len(energy)
        while (cut := self._leg.advance(energy, offset, self._turn)) is not None:
            done.append(self._take(cut))
            # the points after the turn are looked at again as the start of the next leg
            energy = np.concatenate([chunk["energy"] for chunk in self._chunks])
            offset = 0
            self._leg = _Leg()
        return done

    def finish(self) -> list[Segment]:
        """Return what is left at the end of a run."""
        if self._kept == 0:
            return []
        rest = self._take(self._kept)
        return [Segment(rest.columns, complete=False)]

    def _take(self, count: int) -> Segment:
        joined = {
            name: np.concatenate([chunk[name] for chunk in self._chunks])
            for name in self._chunks[0]
        }
        self._kept -= count
        self._chunks = [{n: a[count:] for n, a in joined.items()}] if self._kept else []
        return Segment({name: array[:count] for name, array in joined.items()}, complete=True)


class _Leg:
    """State of the open sweep: its direction and how far it has come.

    A jump is a step larger than `turn` between neighbouring points. One jump after the extreme
    is a fly-back; more are unsorted data, which has no turning points. A point reached by a jump
    is never the extreme: it may be a glitch of the encoder.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._previous = 0.0
        self._direction = 0
        self._extreme = 0.0
        self._extreme_at = 0
        self._jumps = 0  # so far
        self._jumps_at_extreme = 0

    def advance(self, energy: Floats, offset: int, turn: float) -> int | None:
        """Look at more points; return the number of points before the turn, if there is one."""
        if len(energy) == 0:
            return None
        if self._first is None:
            self._first = self._previous = float(energy[0])
        jump = np.abs(np.diff(energy, prepend=self._previous)) > turn
        jumps = self._jumps + np.cumsum(jump)
        self._previous, self._jumps = float(energy[-1]), int(jumps[-1])
        begin = 0
        if self._direction == 0:
            moved = np.flatnonzero(np.abs(energy - self._first) > turn)
            if len(moved) == 0:
                return None
            begin = int(moved[0])
            self._direction = 1 if energy[begin] > self._first else -1
            self._extreme, self._extreme_at = energy[begin] * self._direction, offset + begin
            self._jumps_at_extreme = int(jumps[begin])
        value = energy[begin:] * self._direction
        jump, jumps = jump[begin:], jumps[begin:]
        index = offset + begin + np.arange(len(value))
        candidate = np.where(jump, -np.inf, value)
        highest = np.fmax.accumulate(np.concatenate([[self._extreme], candidate]))  # NaN passes by
        risen = candidate >= highest[1:]
        at = _latest(self._extreme_at, risen, index)
        jumps_at = _latest(self._jumps_at_extreme, risen, jumps)
        turned = (highest[1:] - value > turn) & (index - at >= MIN_LEG) & (at >= MIN_LEG)
        hits = np.flatnonzero(turned & (jumps - jumps_at <= 1))
        if len(hits):
            return int(at[hits[0]]) + 1
        self._extreme, self._extreme_at = float(highest[-1]), int(at[-1])
        self._jumps_at_extreme = int(jumps_at[-1])
        return None


def _latest(start: int, where: NDArray[np.bool_], value: NDArray[np.int_]) -> NDArray[np.int_]:
    """Running value at the latest true position; `value` never falls."""
    return np.maximum.accumulate(np.concatenate([[start], np.where(where, value, -1)]))[1:]

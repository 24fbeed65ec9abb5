"""Running average of the last sweeps of a run."""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from exafsd.contract.messages import Direction
from exafsd.contract.vocabulary import Flag
from exafsd.reduction.columns import INCOMPLETE
from exafsd.reduction.rebin import interpolate
from exafsd.settings.analysis import Average
from exafsd.spectra import Averaged, Floats, Shift, Spectrum

#: a scan that has less than this share of its range in common with the average begins a new one
OVERLAP = 0.9
#: energies of removed points that an average names
MOST_REMOVED = 32


@dataclass(frozen=True)
class _Member:
    """What is kept of a spectrum in an average; not its raw points, which are many."""

    number: int
    started: float | None
    direction: Direction | None
    mu: Floats  # (n,) on the average's grid, 0 where the scan does not reach
    reach: tuple[int, int]  # points of the grid that the scan has
    quality: tuple[Flag, ...]
    shift: Shift | None
    removed: tuple[float, ...]

    @classmethod
    def of(cls, spectrum: Spectrum, mu: Floats, reach: tuple[int, int]) -> "_Member":
        sweep = spectrum.id.sweep
        return cls(
            sweep.number,
            sweep.acquired[0],
            sweep.direction,
            mu,
            reach,
            spectrum.quality,
            spectrum.energy_shift,
            spectrum.removed,
        )


class RunningAverage:
    """The last `n` spectra of one channel and edge, and of one direction if so wanted."""

    def __init__(self, settings: Average) -> None:
        self._settings = settings
        self._members: deque[_Member] = deque()
        self._energy: Floats = np.empty(0)
        self._sum: Floats = np.empty(0)

    def add(self, spectrum: Spectrum) -> Spectrum | None:
        """Average with a new spectrum in it; None where there is none of at least two.

        The grid is that of the first spectrum. Where others end earlier, so does the average.
        """
        if not INCOMPLETE.isdisjoint(spectrum.quality):
            return None
        member = self._member(spectrum)
        if member is None:
            self._members.clear()
            self._energy, self._sum = spectrum.energy, np.zeros(len(spectrum.energy))
            member = _Member.of(spectrum, spectrum.mu, (0, len(spectrum.energy)))
        if len(self._members) == self._settings.n:
            self._sum = self._sum - self._members.popleft().mu
        self._members.append(member)
        self._sum = self._sum + member.mu
        return self._mean(spectrum) if len(self._members) > 1 else None

    def amend(self, spectrum: Spectrum) -> None:
        """Put a spectrum that was measured again in the place of the earlier one."""
        numbers = [member.number for member in self._members]
        if spectrum.id.sweep.number not in numbers:
            return
        at, member = numbers.index(spectrum.id.sweep.number), self._member(spectrum)
        if member is not None and INCOMPLETE.isdisjoint(spectrum.quality):
            self._sum = self._sum + member.mu - self._members[at].mu
            self._members[at] = member

    def _member(self, spectrum: Spectrum) -> _Member | None:
        """Spectrum on the average's grid; None where it covers another range."""
        grid, energy = self._energy, spectrum.energy
        if not self._members:
            return None
        if energy is grid or np.array_equal(energy, grid):
            return _Member.of(spectrum, spectrum.mu, (0, len(grid)))
        common = min(grid[-1], energy[-1]) - max(grid[0], energy[0])
        if common < OVERLAP * max(np.ptp(grid), np.ptp(energy)):
            return None
        first = int(np.searchsorted(grid, energy[0]))
        last = int(np.searchsorted(grid, energy[-1], side="right"))
        mu = np.zeros(len(grid))
        mu[first:last] = interpolate(energy, spectrum.mu, grid[first:last])
        return _Member.of(spectrum, mu, (first, last))

    def _mean(self, newest: Spectrum) -> Spectrum:
        members, sweep = self._members, newest.id.sweep
        oldest, n = members[0], len(members)
        first = max(member.reach[0] for member in members)
        last = min(member.reach[1] for member in members)
        whole = (first, last) == (0, len(self._energy))
        removed = sorted({energy for one in members for energy in one.removed})
        same = all(one.direction == sweep.direction for one in members)
        return replace(
            newest,
            id=replace(
                newest.id,
                sweep=replace(
                    sweep,
                    acquired=(oldest.started, sweep.acquired[1]),
                    direction=sweep.direction if same else None,
                ),
            ),
            energy=self._energy if whole else self._energy[first:last],
            mu=self._sum[first:last] / n,
            quality=tuple(dict.fromkeys(flag for one in members for flag in one.quality)),
            raw=None,
            energy_shift=_shift([one.shift for one in members]),
            removed=tuple(removed[:MOST_REMOVED]),
            averaged=Averaged(n, oldest.number, sweep.number),
        )


def _shift(shifts: list[Shift | None]) -> Shift | None:
    """Mean of what was added to the energies; its errors go together, so they do not fall."""
    calibrated = [shift for shift in shifts if shift is not None]
    if len(calibrated) < len(shifts):
        return None
    value, std = np.mean([(shift.value, shift.std) for shift in calibrated], axis=0)
    return Shift(float(value), float(std), calibrated[0].source)

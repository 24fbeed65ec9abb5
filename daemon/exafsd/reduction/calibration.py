"""Energy scale held by a reference foil: drift, backlash and jumps of the shift of its edge."""

from collections import deque
from typing import NamedTuple

import numpy as np

from exafsd.contract.messages import Direction
from exafsd.contract.vocabulary import Flag
from exafsd.reduction.foil import FoilTemplate, Match
from exafsd.settings.analysis import Calibration
from exafsd.spectra import Floats, Shift

#: a shift this many standard errors off the drift is no noise
SIGNIFICANT = 5.0
#: eV; shifts are applied in such steps, or every sweep would have energies of its own and need a
#: plan of its own. Half a step moves R by 1e-5 angstrom, and a foil is matched to 0.01 eV at best
STEP = 0.01


class Tracked(NamedTuple):
    """What to do with the energies of a sweep: `shift` is to be added; None is nothing."""

    shift: Shift | None
    flags: tuple[Flag, ...] = ()


class _Odd(NamedTuple):
    """A shift that is off the drift: a single outlier, or the first after a jump."""

    number: int
    match: Match
    off: float


class _Drift:
    """Shifts of one direction of the mono, smoothed by a straight line through the last ones.

    A line and no mean or exponential: these lag behind a steady drift by several sweeps.
    """

    def __init__(self, smoothing: int) -> None:
        self._recent: deque[tuple[int, Match]] = deque(maxlen=smoothing)
        self.odd: _Odd | None = None
        self.last: Match | None = None

    def expected(self, number: int) -> float | None:
        """Shift of the next sweep, eV; None before the first."""
        if not self._recent:
            return None
        newest = self._recent[-1][0]
        # a line is not believed further than it was measured
        return self._line(min(number, 2 * newest - self._recent[0][0])).shift

    def add(self, number: int, match: Match) -> None:
        """Follow a shift."""
        self._recent.append((number, match))
        self.odd = None
        self.last = self._line(number)

    def restart(self, number: int, match: Match) -> None:
        """Begin anew after a jump."""
        self._recent.clear()
        self.add(number, match)

    def _line(self, number: int) -> Match:
        if len(self._recent) < 3:
            return self._recent[-1][1]
        x = np.array([float(n) for n, _ in self._recent])
        shifts, stds = np.array([m for _, m in self._recent]).T
        middle = x.mean()
        x -= middle
        weight = 1 / len(x) + (number - middle) * x / max(float(x @ x), 1.0)
        return Match(float(weight @ shifts), float(np.sqrt(weight**2 @ stds**2)))


class Tracker:
    """Follows the foil through a run: up and down apart, both on one absolute scale."""

    def __init__(self, settings: Calibration, near: tuple[float, ...]) -> None:
        self._settings = settings
        self._near = near if settings.foil_e0 is None else (settings.foil_e0,)
        self._reference: FoilTemplate | None = None
        self._drifts: dict[Direction | None, _Drift] = {}

    def follow(
        self,
        number: int,
        direction: Direction | None,
        foil: tuple[Floats, Floats] | None,
        whole: bool,
    ) -> Tracked:
        """Shift of the next sweep.

        Parameters
        ----------
        number
            The sweep's number in its run.
        foil
            Energy (n,) in eV and mu (n,) of the reference channel; None where there is none.
        whole
            Whether the sweep is good enough to be the run's reference.
        """
        drift = self._drifts.setdefault(direction, _Drift(self._settings.smoothing))
        match = self._match(foil, whole)
        if match is None:
            return self._told(drift, Flag.FOIL_MISSING)
        if abs(match.shift + self._offset) > self._settings.max_shift:
            return self._told(drift, Flag.FOIL_LOST)
        expected = drift.expected(number)
        off = 0.0 if expected is None else match.shift - expected
        if abs(off) <= max(self._settings.jump, SIGNIFICANT * match.std):
            drift.add(number, match)
            return self._told(drift)
        # what two sweeps say, of whatever direction, is a jump
        near = self._settings.jump / 2
        agreeing = [
            (other, other.odd)
            for other in self._drifts.values()
            if other.odd is not None and abs(other.odd.off - off) < near
        ]
        if not agreeing:
            drift.odd = _Odd(number, match, off)
            return self._told(drift, Flag.FOIL_OUTLIER)
        for other, odd in agreeing:
            other.restart(odd.number, odd.match)
        drift.restart(number, match)
        return self._told(drift, Flag.ENERGY_JUMP)

    def held(self, direction: Direction | None) -> Tracked:
        """Shift of the latest sweep of a direction, for one that is published once more."""
        drift = self._drifts.get(direction)
        return Tracked(None) if drift is None else self._told(drift)

    def _match(self, foil: tuple[Floats, Floats] | None, whole: bool) -> Match | None:
        if foil is None:
            return None
        settings = self._settings
        if self._reference is None and whole:
            self._reference = FoilTemplate.of(*foil, self._near, settings.window)
        if self._reference is None:
            return None
        return self._reference.match(*foil, settings.max_shift + abs(self._offset))

    @property
    def _offset(self) -> float:
        """From the run's reference to the absolute scale, eV."""
        if self._settings.foil_e0 is None or self._reference is None:
            return 0.0
        return self._settings.foil_e0 - self._reference.e0

    def _told(self, drift: _Drift, *flags: Flag) -> Tracked:
        if drift.last is None:
            return Tracked(None, flags)
        steps = round((drift.last.shift + self._offset) / STEP)
        return Tracked(Shift(steps * STEP, drift.last.std), flags)

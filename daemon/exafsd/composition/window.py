"""Near edges on one energy scale: normalised by absolute ranges, as means over equal bins.

Nothing here depends on an E0, which would be settled too late, and move with what it is to find.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.vocabulary import Reason
from exafsd.reduction.edge_middle import Line
from exafsd.spectra import Floats, SpectrumError

#: Range that is compared, eV from the edge's tabulated energy, and width of a bin.
BELOW, ABOVE, BIN = -20.0, 80.0, 1.0
#: Ranges of the lines below and above the edge, eV from the tabulated edge; the second is what
#: sample and references share of it, but not less than `REACH` beyond the edge.
PRE, POST = (-200.0, -30.0), (45.0, 400.0)
REACH, SHORT = 130.0, 15.0
#: Least points of a line; coarsest step, eV, in the range about the edge where mu is steep.
POINTS, COARSEST, STEEP = 5, 2.2, (-8.0, 50.0)
#: Standard deviation of white noise, of the median of its third differences' absolute values.
NOISE = 1 / (0.6745 * 20**0.5)
#: Step of mu at the edge that is none, of mu itself.
SMALLEST = 1e-6
#: Widest steps, eV, between points of which noise is told from fine structure.
FINE = 1.5
#: Grids that are remembered.
GRIDS = 64


@dataclass(frozen=True)
class Ranges:
    """Where spectra are normalised, eV.

    From `first` the line before the edge, to `last` the one after it; `edge` is tabulated.
    """

    edge: float
    first: float
    last: float

    @classmethod
    def of(cls, energy: Floats, edge: float) -> "Ranges":
        """Ranges that a spectrum has, (n,) eV and ascending.

        Raises
        ------
        SpectrumError
            If it is too short.
        """
        first = max(float(energy[0]), edge + PRE[0])
        last = min(float(energy[-1]), edge + POST[1])
        if first > edge + PRE[1] - SHORT or last < edge + REACH:
            raise SpectrumError(
                Reason.NO_EDGE,
                f"the scan must reach from {SHORT - PRE[1]:.0f} eV below to {REACH:.0f} eV above"
                " the edge to be compared with references",
            )
        # of spectra that end a little earlier or later the same is compared
        return cls(edge, 10.0 * np.ceil(first / 10), 10.0 * np.floor(last / 10))

    def shared(self, other: "Ranges") -> "Ranges":
        """What both have."""
        return Ranges(self.edge, max(self.first, other.first), min(self.last, other.last))

    @property
    def centres(self) -> Floats:
        """Centres of the bins (m,), eV."""
        return self.edge + np.arange(BELOW, ABOVE + BIN / 2, BIN)


@dataclass(frozen=True)
class NearEdge:
    """A flattened near edge in bins, (m,).

    `noise` is the standard deviation of a bin's noise, `step` the usual one between points, eV.
    """

    flat: Floats
    noise: float
    step: float


def near_edge(energy: Floats, mu: Floats, ranges: Ranges) -> NearEdge:
    """Flattened mu in bins.

    mu less a line below the edge, over the step to the line above it; above the edge, where the
    lines cross the tabulated energy, the difference of their slopes is taken off.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending, and absorption in any unit.
    ranges
        Where it is normalised.

    Raises
    ------
    SpectrumError
        If the scan is too coarse or too short there, or has no edge.
    """
    layout = _layout(energy.tobytes(), ranges)
    (low, rising), (high, falling) = (
        (float(value[0]), float(slope[0]))
        for value, slope in (layout.before(mu[None]), layout.after(mu[None]))
    )
    step = high - low
    if not step > SMALLEST * (abs(high) + abs(low)):
        raise _refused("mu does not rise at the edge")
    flat = (mu - low - rising * layout.x - (falling - rising) * layout.above) / step
    sums = layout.integral(flat[layout.near])
    fine = flat[layout.fine]
    rough = np.abs(fine[3:] - 3 * fine[2:-1] + 3 * fine[1:-2] - fine[:-3])
    middle = len(rough) // 2
    # the median, without what `np.median` costs
    point = NOISE * float(np.partition(rough, middle)[middle]) if middle else 0.0
    return NearEdge((sums[1:] - sums[:-1]) / BIN, point * layout.bin_noise, layout.step)


class Integral:
    """Integrals of what is measured at points `x` (n,), from the first to places `at` (m,).

    Between points it is a cubic with the slopes of parabolas through three of them. Straight lines,
    or means over steps, would blunt a white line by up to 0.005 of the edge step where points are
    0.7 eV apart, and that looks like another phase.
    """

    def __init__(self, x: Floats, at: Floats) -> None:
        steps = np.diff(x)
        before, after = steps[:-1], steps[1:]
        both = before * after * (before + after)
        self._slope = np.array([-(after**2), after**2 - before**2, before**2]) / both
        self._steps = steps
        self._i = np.minimum(x.searchsorted(at, side="right") - 1, len(steps) - 1)
        step = steps[self._i]
        t = (at - x[self._i]) / step
        t2, t3, t4 = t**2, t**3, t**4
        self._end = np.array([
            (t - t3 + t4 / 2) * step, (t3 - t4 / 2) * step,
            (t2 / 2 - 2 * t3 / 3 + t4 / 4) * step**2, (t4 / 4 - t3 / 3) * step**2,
        ])  # fmt: skip

    def __call__(self, y: Floats) -> Floats:
        """Integrals (m,) of values (n,)."""
        slope = np.empty(len(y))
        low, here, high = self._slope
        slope[1:-1] = low * y[:-2] + here * y[1:-1] + high * y[2:]
        slope[0], slope[-1] = (y[1] - y[0]) / self._steps[0], (y[-1] - y[-2]) / self._steps[-1]
        total = np.zeros(len(y))
        areas = (y[1:] + y[:-1]) / 2 + (slope[:-1] - slope[1:]) * (self._steps / 12)
        np.cumsum(areas * self._steps, out=total[1:])
        i, (first, second, third, fourth) = self._i, self._end
        ends = first * y[i] + second * y[i + 1] + third * slope[i] + fourth * slope[i + 1]
        return total[i] + ends


class _Layout(NamedTuple):
    """Where what is on an energy grid (n,), in some ranges.

    `x` (n,) is eV from the edge, `above` the same and 0 below it. `integral` of the points `near`
    the edge is at the bounds of the bins. `fine` are the points that noise is told of, `step` is
    the usual one near the edge, eV, and `bin_noise` is what noise of a point does to a bin.
    """

    before: Line
    after: Line
    x: Floats
    above: Floats
    near: slice
    integral: Integral
    fine: NDArray[np.intp]
    step: float
    bin_noise: float


@lru_cache(maxsize=GRIDS)
def _layout(grid: bytes, ranges: Ranges) -> _Layout:
    energy = np.frombuffer(grid)
    edge, centres = ranges.edge, ranges.centres
    before = slice(*np.searchsorted(energy, (ranges.first, edge + PRE[1])).tolist())
    after = slice(*np.searchsorted(energy, (edge + POST[0], ranges.last)).tolist())
    if min(len(energy[before]), len(energy[after])) < POINTS:
        raise _refused("it has too few points before or after the edge")
    here = slice(*np.searchsorted(energy, (edge + STEEP[0], edge + STEEP[1])).tolist())
    steps = np.diff(energy[here])
    if energy[0] > centres[0] - BIN or energy[-1] < centres[-1] + BIN or not len(steps):
        raise _refused("it does not cover the near edge")
    if steps.max() > COARSEST:
        raise _refused(f"its near edge is too coarse: steps of {steps.max():.1f} eV")
    x, step = energy - edge, float(np.median(steps))
    bounds = np.append(centres - BIN / 2, centres[-1] + BIN / 2)
    # where steps are wide the fine structure itself is rough
    every = np.arange(after.start, after.stop)
    fine = every[np.gradient(energy[after]) <= FINE]
    # a point beyond either end, for the slopes of the last ones
    first, last = np.searchsorted(energy, bounds[[0, -1]]).tolist()
    near = slice(max(first - 2, 0), last + 2)
    return _Layout(
        Line.of(x, before), Line.of(x, after), x, np.where(x > 0, x, 0.0), near,
        Integral(energy[near], bounds), fine if len(fine) > 2 * POINTS else every,
        step, min(step / BIN, 2 / 3) ** 0.5,
    )  # fmt: skip


def _refused(why: str) -> SpectrumError:
    return SpectrumError(Reason.NO_EDGE, f"no linear combination: {why}")

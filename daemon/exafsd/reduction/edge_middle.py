"""Where mu has risen by half the edge step: an energy that noise hardly moves.

Larch's E0 is the steepest point, and where two are about as steep, as in CuO, noise decides which.
The middle of the edge is one place for a material. It is found with ranges in energy that are
absolute, so that it does not depend on an E0, and does not change if mu is scaled or gets a line.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from exafsd.spectra import Floats, ReducedSpectrum

#: Ranges of the lines below and above the edge, eV from the tabulated edge.
PRE, POST = (-200.0, -25.0), (45.0, 400.0)
#: Least points of a line, and how far beyond the edge a scan must go, eV.
POINTS, REACH = 3, 100.0
#: Where the middle is looked for, eV from the tabulated edge, in means over so many eV.
NEAR, MEAN = np.arange(-45.0, 45.0, 0.5), 5.0
#: Grids that are remembered.
GRIDS = 64


def edge_middle(energy: Floats, mu: Floats, edge: float) -> float | None:
    """Energy in eV at which mu has risen by half the edge step; None where no scan shows it.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending, and absorption in any unit, normalised or not.
    edge
        Tabulated energy of the edge, eV.
    """
    return edge_middles(energy, mu[None], edge)[0]


def edge_middles(energy: Floats, mus: Floats, edge: float) -> list[float | None]:
    """The same of spectra (b, n) on one grid."""
    middles: list[float | None] = [None] * len(mus)
    layout = _layout(energy.tobytes(), edge)
    if layout is None or layout.near is None:
        return middles
    bottom, top, near = layout.bottom(mus), layout.top(mus), layout.near
    step = top[0] - bottom[0]
    x, at = near.x, near.at
    # of spectra that do not rise nothing comes, whatever they are divided by
    rising = np.where(step > 0, step, np.nan)[:, None]
    y = (mus[:, near.part] - bottom[0][:, None] - bottom[1][:, None] * x) / rising
    total = np.zeros(y.shape)
    np.cumsum((y[:, 1:] + y[:, :-1]) * near.halves, axis=1, out=total[:, 1:])
    sums = near.between(total)
    means = (sums[:, len(at) :] - sums[:, : len(at)]) / MEAN
    above = means > 0.5
    for i, place in enumerate(above.argmax(axis=1).tolist()):
        if place > 0 and above[i, place]:
            low, high = means[i, place - 1 : place + 1].tolist()
            begin, end = float(at[place - 1]), float(at[place])
            middles[i] = edge + begin + (0.5 - low) / (high - low) * (end - begin)
    return middles


def middle_of(spectrum: ReducedSpectrum, edge: float) -> float | None:
    """`edge_middle` of a reduced spectrum, found once; its normalisation does not move it."""
    if edge not in spectrum.middles:
        spectrum.middles[edge] = edge_middle(spectrum.energy, spectrum.norm, edge)
    return spectrum.middles[edge]


def rise(energy: Floats, mu: Floats, edge: float) -> Floats | None:
    """Mu (n,) without the line below the edge, over the edge step; None where there is none.

    Parameters
    ----------
    energy, mu, edge
        As for `edge_middle`.
    """
    layout = _layout(energy.tobytes(), edge)
    if layout is None:
        return None
    (low, slope), (high, _) = layout.bottom(mu[None]), layout.top(mu[None])
    step = float(high[0] - low[0])
    return (mu - low[0] - slope[0] * (energy - edge)) / step if step > 0 else None


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Value at 0 and slope of the line through points (n,), each for the width it stands for.

    Else a scan with many points near the edge would be normalised otherwise than one without: the
    middle of CuO's edge moved by 0.3 eV with the grid.
    """
    values, slopes = Line.of(x, slice(None))(y[None])
    return float(values[0]), float(slopes[0])


@dataclass(frozen=True)
class Line:
    """The line through the points `part` of spectra: value at 0 and slope as products with mu."""

    part: slice
    mean: Floats
    slope: Floats
    centre: float

    @classmethod
    def of(cls, x: Floats, part: slice) -> "Line":
        """`x` (n,) of all points."""
        x = x[part]
        width = np.empty(len(x))
        width[1:-1] = (x[2:] - x[:-2]) / 2
        width[0], width[-1] = x[1] - x[0], x[-1] - x[-2]
        mean = width / width.sum()
        centre = float(mean @ x)
        away = x - centre
        weighted = width * away
        return cls(part, mean, weighted / (weighted @ away), centre)

    def __call__(self, mus: Floats) -> tuple[Floats, Floats]:
        """Values at 0 and slopes (b,) of spectra (b, n)."""
        y = mus[:, self.part]
        mean = y @ self.mean
        slope = (y - mean[:, None]) @ self.slope
        return mean - slope * self.centre, slope


class Between:
    """Linear between the points `x` (n,) and constant beyond them, at the places `at` (m,)."""

    def __init__(self, x: Floats, at: Floats) -> None:
        at = np.minimum(np.maximum(at, x[0]), x[-1])
        self._i = np.minimum(x.searchsorted(at, side="right") - 1, len(x) - 2)
        self._share = (at - x[self._i]) / (x[self._i + 1] - x[self._i])

    def __call__(self, y: Floats) -> Floats:
        """Values (b, m) of rows (b, n)."""
        low = y[:, self._i]
        return low + self._share * (y[:, self._i + 1] - low)


class _Near(NamedTuple):
    """Where the middle is looked for, `x` in eV from the edge, and what gives integrals there.

    `halves` are half the steps between points, `at` the places of the means.
    """

    part: slice
    x: Floats
    halves: Floats
    at: Floats
    between: Between


class _Layout(NamedTuple):
    """Lines below and above the edge, and what is near it; None where there is too little."""

    bottom: Line
    top: Line
    near: _Near | None


@lru_cache(maxsize=GRIDS)
def _layout(grid: bytes, edge: float) -> _Layout | None:
    """What a grid has; None where the scan is too short."""
    energy = np.frombuffer(grid)
    ends = (edge + PRE[0], edge + PRE[1], edge + POST[0], edge + POST[1])
    first, last, begin, end = energy.searchsorted(ends).tolist()
    if energy[-1] < edge + REACH or min(last - first, end - begin) < POINTS:
        return None
    x = energy - edge
    bottom, top = Line.of(x, slice(first, last)), Line.of(x, slice(begin, end))
    part = slice(*x.searchsorted((NEAR[0] - MEAN, NEAR[-1] + MEAN)).tolist())
    x = x[part]
    if len(x) < 2 * POINTS:
        return _Layout(bottom, top, None)
    at = NEAR[(x[0] <= NEAR - MEAN / 2) & (x[-1] >= NEAR + MEAN / 2)]
    if len(at) == 0:
        return _Layout(bottom, top, None)
    between = Between(x, np.concatenate([at - MEAN / 2, at + MEAN / 2]))
    return _Layout(bottom, top, _Near(part, x, 0.5 * (x[1:] - x[:-1]), at, between))

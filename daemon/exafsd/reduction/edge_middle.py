"""Where mu has risen by half the edge step: an energy that noise hardly moves.

Larch's E0 is the steepest point, and where two are about as steep, as in CuO, noise decides which.
The middle of the edge is one place for a material. It is found with ranges in energy that are
absolute, so that it does not depend on an E0, and does not change if mu is scaled or gets a line.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from exafsd.spectra import Floats, ReducedSpectrum

#: Ranges of the lines below and above the edge, eV from the tabulated edge.
PRE, POST = (-200.0, -25.0), (45.0, 400.0)
#: Least points of a line, and how far beyond the edge a scan must go, eV.
POINTS, REACH = 3, 100.0
#: Where the middle is looked for, eV from the tabulated edge, in means over so many eV.
NEAR, MEAN = np.arange(-45.0, 45.0, 0.5), 5.0


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
    none: list[float | None] = [None] * len(mus)
    lines = _lines(energy, edge)
    if lines is None:
        return none
    bottom, top = lines.bottom(mus), lines.top(mus)
    step = top[0] - bottom[0]
    here = slice(*energy.searchsorted((edge + NEAR[0] - MEAN, edge + NEAR[-1] + MEAN)))
    x = energy[here] - edge
    if len(x) < 2 * POINTS:
        return none
    # of spectra that do not rise nothing comes, whatever they are divided by
    rising = np.where(step > 0, step, np.nan)[:, None]
    y = (mus[:, here] - bottom[0][:, None] - bottom[1][:, None] * x) / rising
    total = np.zeros(y.shape)
    np.cumsum(0.5 * (y[:, 1:] + y[:, :-1]) * (x[1:] - x[:-1]), axis=1, out=total[:, 1:])
    at = NEAR[(x[0] <= NEAR - MEAN / 2) & (x[-1] >= NEAR + MEAN / 2)]
    if len(at) == 0:
        return none
    sums = between(x, total, np.concatenate([at - MEAN / 2, at + MEAN / 2]))
    means = (sums[:, len(at) :] - sums[:, : len(at)]) / MEAN
    above = means > 0.5
    first = above.argmax(axis=1)
    middles = none
    for i, place in enumerate(first.tolist()):
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
    lines = _lines(energy, edge)
    if lines is None:
        return None
    (low, slope), (high, _) = lines.bottom(mu[None]), lines.top(mu[None])
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


class _Lines(NamedTuple):
    """Lines below and above the edge."""

    bottom: Line
    top: Line


def _lines(energy: Floats, edge: float) -> _Lines | None:
    """None where the scan is too short."""
    ends = (edge + PRE[0], edge + PRE[1], edge + POST[0], edge + POST[1])
    first, last, begin, end = energy.searchsorted(ends).tolist()
    if energy[-1] < edge + REACH or min(last - first, end - begin) < POINTS:
        return None
    x = energy - edge
    return _Lines(Line.of(x, slice(first, last)), Line.of(x, slice(begin, end)))


def between(x: Floats, y: Floats, at: Floats) -> Floats:
    """Rows of `y` (b, n), linear between the points `x` (n,) and constant beyond them.

    `at` is (m,), or (b, m) where each row has its own.
    """
    at = np.minimum(np.maximum(at, x[0]), x[-1])
    i = np.minimum(x.searchsorted(at, side="right") - 1, len(x) - 2)
    share = (at - x[i]) / (x[i + 1] - x[i])
    rows = np.arange(len(y))[:, None]
    low = y[rows, i]
    return low + share * (y[rows, i + 1] - low)

"""Many points of a fast scan to few: the grid usual in XAFS, box-car and Gaussian averages."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from exafsd.contract.grid import ETOK
from exafsd.contract.vocabulary import Reason
from exafsd.settings.analysis import Rebin
from exafsd.spectra import Floats, SpectrumError

#: the grid reaches this far below the edge, eV, and this far above it, 1/angstrom; no scan of one
#: edge is longer
BELOW, K_END = 3000.0, 40.0
#: more bins than this are a slip in the settings
MOST_BINS = 100_000
#: share of bins without a point that may be filled from their neighbours
MAX_EMPTY = 0.1
#: `auto` rebins from this many points a bin: below it there is nothing to average. Once it has,
#: it goes on down to the second number.
POINTS_PER_BIN, STILL_PER_BIN = 2.0, 1.5
#: A mono that swings turns at a slightly other energy every time. The run's grid leaves out this
#: many bins at the ends of its first sweep, so that the next ones have them all.
INSET = 1
#: bins by which a sweep must be longer than the run's grid to give it a new one
LONGER = 4
#: sweeps that are shorter lose their last bins by fours: few different grids, few compiled plans
BLOCK = 4
#: and by one in so many of its points, where it is not averaged
LONGER_SHARE = 100
#: Energies closer than this are the same, eV; of sweeps that repeat theirs at least this share is.
SAME, ALIKE = 1e-3, 0.5
#: points over which a step is compared with its neighbours
USUAL = 9
#: two steps are alike if the smaller is this share of the larger: noise grows by no more than 1
EVEN = 0.2
#: standard deviation of a Gaussian of full width at half maximum 1
SIGMA = 1 / np.sqrt(8 * np.log(2))
#: a Gaussian ends at this many standard deviations
TAIL = 3.0


class Grid(NamedTuple):
    """Bins: `edges` (m + 1,) and `centres` (m,), eV, ascending."""

    edges: Floats
    centres: Floats


def xas_grid(position: float, settings: Rebin) -> Grid:
    """Bins about an edge: `pre_step` below the edge region, `xanes_step` in it, then `k_step`.

    Parameters
    ----------
    position
        Tabulated energy of the edge, eV. The grid hangs on it and not on what was found in a
        sweep, so that all sweeps and runs of an edge share it.

    Raises
    ------
    SpectrumError
        ``bad_settings`` if there would be no or too many bins.
    """
    low, high = settings.xanes
    k_low = (ETOK * max(high, 0.0)) ** 0.5
    spans = {
        "pre_step": (BELOW, settings.pre_step),
        "xanes_step": (high - low, settings.xanes_step),
        "k_step": (K_END - k_low, settings.k_step),
    }
    for name, (span, step) in spans.items():
        if not (-BELOW < low < high and 0 < span <= MOST_BINS * step):
            raise SpectrumError(
                Reason.BAD_SETTINGS,
                f"reduction.rebin has xanes = {settings.xanes} and {name} = {step:g}: that makes no"
                " grid",
            )
    before, across, above = (round(span / step) for span, step in spans.values())
    pre = low - settings.pre_step * np.arange(before, 0, -1)
    xanes = np.linspace(low, high, max(across, 1), endpoint=False)
    k = k_low + settings.k_step * np.arange(above + 1)
    edges = position + np.concatenate([pre, xanes, high + (k**2 - k_low**2) / ETOK])
    edges = edges[edges > 0]
    return Grid(edges, (edges[1:] + edges[:-1]) / 2)


def covered(grid: Grid, energy: Floats) -> tuple[int, int]:
    """First bin, and the one after the last, that lie wholly inside a scan."""
    first = int(np.searchsorted(grid.edges, energy[0]))
    return first, max(int(np.searchsorted(grid.edges, energy[-1], side="right")) - 1, first)


class Rebinned(NamedTuple):
    """`mu` (m,) at the centres of the bins; `empty` is the share of bins without a point."""

    mu: Floats
    empty: float


def rebin(
    energy: Floats,
    mu: Floats,
    grid: Grid,
    bins: tuple[int, int],
    method: Literal["boxcar", "gaussian"] = "boxcar",
) -> Rebinned | None:
    """Average a scan over bins; None where more than a few of them are empty.

    The points of a bin are not spread evenly over it. Their mean mu belongs to their mean energy,
    and is brought from there to the centre of the bin along the slope between the neighbours; with
    nominal centres an edge would move by up to half a bin. The slope spans at least one bin, so
    that it adds little noise. What is left is a broadening: mu of a bin of width w is
    too high by w^2 mu''/24 with the box-car, and by w^2 mu''/11 with the Gaussian.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending and unique; inside all of `bins`.
    bins
        First bin, and the one after the last.
    method
        ``boxcar``: mean of the points in the bin. ``gaussian``: mean weighted by a Gaussian about
        the centre whose full width at half maximum is the bin's width, and by the distance
        between points, as at NSLS-II ISS.
    """
    edges = grid.edges[bins[0] : bins[1] + 1]
    centres = grid.centres[bins[0] : bins[1]]
    ends = np.searchsorted(energy, edges)
    count = np.diff(ends)
    filled = count > 0
    empty = 1.0 - float(np.mean(filled))
    if empty > MAX_EMPTY:
        return None
    if method == "boxcar":
        where = ends[:-1][filled]
        sums = np.add.reduceat(np.stack([energy, mu])[:, : ends[-1]], where, axis=1)
        mean_energy, mean_mu = sums / count[filled]
    else:
        mean_energy, mean_mu = _gaussian(energy, mu, centres[filled], np.diff(edges)[filled])
    slope = _slope(mean_energy, mean_mu)
    moved = mean_mu + slope * (centres[filled] - mean_energy)
    if empty:
        moved = np.interp(centres, centres[filled], moved)
    return Rebinned(moved, empty)


def _gaussian(energy: Floats, mu: Floats, centres: Floats, widths: Floats) -> tuple[Floats, Floats]:
    """Weighted means of energy and mu about the centres."""
    sigma = SIGMA * widths
    first = np.searchsorted(energy, centres - TAIL * sigma)
    count = np.searchsorted(energy, centres + TAIL * sigma) - first
    # pairs of bin and point, bin by bin
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    point = np.arange(count.sum()) + np.repeat(first - start, count)
    at = energy[point]
    away = (at - np.repeat(centres, count)) / np.repeat(sigma, count)
    weight = np.exp(-0.5 * away**2) * np.gradient(energy)[point]
    sums = np.add.reduceat(np.stack([weight, weight * at, weight * mu[point]]), start, axis=1)
    return sums[1] / sums[0], sums[2] / sums[0]


def interpolate(x: Floats, y: Floats, at: Floats) -> Floats:
    """Smooth curve through points (n,), ascending, at (m,); beyond the ends it is not defined.

    Cubic between two points. The slope at each is that of the parabola through it and its
    neighbours; where one neighbour is much nearer than the other, it is the slope between the
    neighbours. So, unlike a spline, the curve is not thrown off by the noise of two close points.
    """
    slope = _slope(x, y)
    step = x[1:] - x[:-1]
    rise = (y[1:] - y[:-1]) / step
    before, after = step[:-1], step[1:]
    parabola = (after * rise[:-1] + before * rise[1:]) / (before + after)
    even = np.minimum(before, after) > EVEN * np.maximum(before, after)
    slope[1:-1] = np.where(even, parabola, slope[1:-1])
    i = np.minimum(np.maximum(x.searchsorted(at, side="right") - 1, 0), len(x) - 2)
    past, width, steep, start = at - x[i], step[i], rise[i], slope[i]
    bend = (start + slope[i + 1] - 2 * steep) / width
    return y[i] + past * (start + past * ((steep - start) / width - bend + past * bend / width))


def _slope(x: Floats, y: Floats) -> Floats:
    """Slope at each point between its two neighbours; (n,)."""
    if len(x) < 3:
        return np.zeros_like(x)
    inner = (y[2:] - y[:-2]) / (x[2:] - x[:-2])
    return np.concatenate([inner[:1], inner, inner[-1:]])


@dataclass
class CommonGrid:
    """The bins of one edge that all sweeps of a run share; it lives as long as the run."""

    grid: Grid
    bins: tuple[int, int] | None = None

    def choose(self, own: tuple[int, int], whole: bool) -> tuple[int, int]:
        """Bins for a sweep that covers the bins `own`; only `whole` sweeps decide for the run."""
        if self.bins is None or own[0] + LONGER < self.bins[0] or own[1] - LONGER > self.bins[1]:
            inner = own[0] + INSET, own[1] - INSET
            if not whole:
                return inner
            self.bins = inner
        first, last = self.bins
        missing = max(own[0] - first, 0), max(last - own[1], 0)
        return first + -(-missing[0] // BLOCK) * BLOCK, last - -(-missing[1] // BLOCK) * BLOCK


@dataclass
class OwnGrid:
    """Energies of a run's first whole sweep, for sweeps with too few points to be averaged.

    An encoder never gives the same energies twice. The first sweep stays as it is; the others are
    interpolated onto its points, so that one compiled plan serves them all.
    """

    energy: Floats | None = None

    def choose(self, energy: Floats, whole: bool) -> Floats:
        """Energies for a sweep (n,), inside its own; only `whole` sweeps decide for the run."""
        own = self.energy
        if own is None or self._is_longer(energy, own):
            inner = _apart(energy)[INSET:-INSET]
            if not whole:
                return inner
            own = self.energy = inner
        first = int(np.searchsorted(own, energy[0]))
        missing = len(own) - int(np.searchsorted(own, energy[-1], side="right"))
        return own[-(-first // BLOCK) * BLOCK : len(own) - -(-missing // BLOCK) * BLOCK]

    @staticmethod
    def _is_longer(energy: Floats, own: Floats) -> bool:
        before = int(np.searchsorted(energy, own[0]))
        after = len(energy) - int(np.searchsorted(energy, own[-1], side="right"))
        return max(before, after) > LONGER + len(energy) // LONGER_SHARE


def differ(energy: Floats, other: Floats) -> bool:
    """Whether two sweeps (n,), (m,) over one range have energies of their own each.

    Points that are missing make no difference, and other ranges are other scans.
    """
    if np.array_equal(energy, other):
        return False
    energy, other = (np.sort(one[np.isfinite(one)]) for one in (energy, other))
    if len(energy) < 2 or len(other) < 2:
        return False
    reach = np.ptp(other) / LONGER_SHARE
    if abs(energy[0] - other[0]) > reach or abs(energy[-1] - other[-1]) > reach:
        return False
    after = np.minimum(other.searchsorted(energy), len(other) - 1)
    away = np.minimum(
        np.abs(other[after] - energy), np.abs(other[np.maximum(after - 1, 0)] - energy)
    )
    return bool(np.mean(away <= SAME) < ALIKE)


def _apart(energy: Floats) -> Floats:
    """Energies without those that lie much closer to the one before than is usual there."""
    step = np.diff(energy, prepend=energy[0] - 1.0)
    usual = median_filter(step, size=USUAL, mode="nearest")
    return energy[step > EVEN * usual]

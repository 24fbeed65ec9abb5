"""Numbers of one near edge, of any element, without a model: where it is, and its white line.

As in `exafsd.composition.window` mu is normalised by ranges that are absolute, so that nothing
moves with an E0. Here a short XANES scan is enough, as nothing is compared with references.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from exafsd.composition.window import FINE, NOISE
from exafsd.reduction.edge_middle import Between
from exafsd.spectra import Floats

#: Range that is looked at, eV from the edge, and width of a bin.
BELOW, ABOVE, BIN = -30.0, 80.0, 1.0
#: Ranges of the lines below and above the edge, eV from it, and what a scan has of them at least.
PRE, POST = (-200.0, -20.0), (40.0, 400.0)
PRE_LEAST, POST_LEAST = -35.0, 60.0
#: Ranges narrower than these get a constant: a line would turn with the noise.
PRE_LINE, POST_LINE = 40.0, 80.0
#: Ranges are rounded to so many eV, so that scans of about one length are treated alike.
ROUND = 10.0
#: Least points of a range, and of the near edge.
POINTS, NEAR_POINTS = 3, 20
#: mu at the edge is looked for in means over so many bins.
MEAN = 5
#: The white line's area counts from so far below the edge's energy to so far above it, eV.
AREA = (-10.0, 20.0)
#: The white line's height is looked for up to so far above the edge's energy, eV.
PEAK = 25.0
#: Bins that differ by less, of the edge step, are equal.
EQUAL = 1e-9
#: Step of mu that is none, of mu itself.
SMALLEST = 1e-6
#: Grids that are remembered.
GRIDS = 64


@dataclass(frozen=True)
class NearEdgeNumbers:
    """What a near edge has, with standard deviations of what noise does to it.

    `flat` (m,) is normalised mu in bins, `noise` the standard deviation of one of them, and
    `density` that of the mean of many of them, times the root of their number: more than `noise`
    where points are farther apart than bins. `ranges`
    say where it was normalised, eV from the edge: only spectra with equal ones are comparable.
    `edge_energy` is where mu has risen by half, eV; `height` the white line's, of the edge step;
    `area` what is above a step at `edge_energy`, eV. Each is a value and its standard deviation,
    NaN where there is none.
    """

    flat: Floats
    noise: float
    ranges: tuple[float, ...]
    edge_energy: tuple[float, float]
    height: tuple[float, float]
    area: tuple[float, float]
    density: float = 0.0


@dataclass(frozen=True)
class _Layout:
    """Where what is on an energy grid (n,), and the two lines as products with mu.

    `lines` (4, n) gives value at the edge and slope of the line below it, then of the one above.
    `x` (l,) are the energies `near` the edge, eV from it, which is before the point `at`; `halves`
    (l - 1,) half the steps between them, `bounds` (m + 1,) of bins, and `between` gives integrals
    there. `quiet` is where noise is looked for, `bin_noise`, `density` and `line_noise` are
    what that of a point does to a bin, to the mean of many, and to both lines at the edge.
    """

    edge: float
    ranges: tuple[float, ...]
    lines: Floats
    near: slice
    quiet: tuple[slice, ...]
    x: Floats
    at: int
    halves: Floats
    bounds: Floats
    between: Between
    bin_noise: float
    density: float
    line_noise: tuple[float, float]


def near_edge_numbers(energy: Floats, mu: Floats, edge: float) -> NearEdgeNumbers | None:
    """Numbers of a near edge; None where the scan is too short, or mu does not rise.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending, and absorption in any unit.
    edge
        About where the edge is, eV; the same for all spectra of a series.
    """
    return near_edges(energy, mu[None], edge)[0]


def near_edges(energy: Floats, mus: Floats, edge: float) -> list[NearEdgeNumbers | None]:
    """The same of spectra (b, n) on one grid."""
    numbers: list[NearEdgeNumbers | None] = [None] * len(mus)
    layout = _layout(energy.tobytes(), edge)
    if layout is None:
        return numbers
    # one by one: a product with all of them would round otherwise than one with each
    low, rising, high, falling = np.array([layout.lines @ mu for mu in mus]).T
    step = high - low
    good = np.flatnonzero(step > SMALLEST * (np.abs(high) + np.abs(low))).tolist()
    x = layout.x
    flat = mus[:, layout.near] - low[:, None]
    flat[:, : layout.at] -= rising[:, None] * x[: layout.at]
    flat[:, layout.at :] -= falling[:, None] * x[layout.at :]
    total = np.zeros(flat.shape)
    np.cumsum((flat[:, 1:] + flat[:, :-1]) * layout.halves, axis=1, out=total[:, 1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = layout.between(total) / step[:, None]
        # fine structure only adds to what looks like noise
        points = np.min([_noise(mus[:, part]) for part in layout.quiet], axis=0) / step
    binned = (sums[:, 1:] - sums[:, :-1]) / BIN
    for i in good:
        point = float(points[i])
        noise = point * layout.bin_noise
        line_std = point * layout.line_noise[0], point * layout.line_noise[1]
        numbers[i] = NearEdgeNumbers(
            binned[i], noise, layout.ranges, *_of(layout, binned[i], sums[i], noise, line_std),
            density=point * layout.density,
        )  # fmt: skip
    return numbers


def _of(
    layout: _Layout, binned: Floats, sums: Floats, noise: float, line_std: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """Edge energy, height and area of the white line; `line_std` of the values at the edge."""
    none = (np.nan, np.nan)
    risen = (sums[MEAN:] - sums[:-MEAN]) > 0.5 * MEAN * BIN
    first = int(risen.argmax())
    if first == 0:
        return none, none, none
    low, high = line_std
    mean = float(sums[first + MEAN - 1] - sums[first - 1]) / (MEAN * BIN)
    slope = (float(sums[first + MEAN] - sums[first]) / (MEAN * BIN) - mean) / BIN
    start = float(layout.bounds[0])
    at = start + (first - 1 + MEAN / 2) * BIN + (0.5 - mean) / slope
    edge_std = math.hypot(noise / MEAN**0.5, 0.5 * low, 0.5 * high) / slope
    begin = round((at - start) / BIN)
    end = min(begin + round(PEAK / BIN), len(binned))
    height = area = none
    place = _highest(binned, begin, end)
    if place is not None:
        top = _peak(*binned[place - 1 : place + 2].tolist())
        height = top, math.hypot(noise, top * high, (top - 1) * low)
    if start <= at + AREA[0] and layout.bounds[-1] >= at + AREA[1]:
        whole = _sum(sums, at + AREA[1] - start) - _sum(sums, at + AREA[0] - start)
        wide, moved = AREA[1] - AREA[0], 0.5 / slope
        # noise moves the edge as well, from which the area counts
        own = (wide - MEAN * BIN) / BIN + MEAN * (1 - 1 / (MEAN * slope)) ** 2
        area = (
            whole - AREA[1],
            math.hypot(
                noise * BIN * own**0.5, (whole - wide + moved) * low, (moved - whole) * high
            ),
        )
    return (layout.edge + at, edge_std), height, area


def _sum(sums: Floats, at: float) -> float:
    """Integral up to a place between bounds, in eV from the first."""
    place = min(int(at / BIN), len(sums) - 2)
    part = at / BIN - place
    return float(sums[place]) * (1 - part) + float(sums[place + 1]) * part


def _highest(binned: Floats, begin: int, end: int) -> int | None:
    """Place of the highest bin, the first of several; None where it is no maximum.

    Bins between two points of a coarse scan are equal: which is higher must not be for rounding to
    say, and differs from one make of processor to another.
    """
    if end <= begin:
        return None
    least = float(binned[begin:end].max()) - EQUAL
    place = begin + int((binned[begin:end] >= least).argmax())
    if not 0 < place < len(binned) - 1:
        return None
    rises, goes_on = binned[place - 1] < least, binned[place + 1] > binned[place] + EQUAL
    return place if rises and not goes_on else None


def _peak(left: float, top: float, right: float) -> float:
    """Top of the parabola through the highest bin and its neighbours."""
    curved = left - 2 * top + right
    return top if curved >= 0 else top - (right - left) ** 2 / (8 * curved)


def _noise(mus: Floats) -> Floats:
    """Standard deviations (b,) of white noise, by third differences as in `composition.window`."""
    rough = np.abs(mus[:, 3:] - 3 * mus[:, 2:-1] + 3 * mus[:, 1:-2] - mus[:, :-3])
    middle = rough.shape[1] // 2
    return NOISE * np.partition(rough, middle)[:, middle] if middle else np.zeros(len(mus))


@lru_cache(maxsize=GRIDS)
def _layout(grid: bytes, edge: float) -> _Layout | None:
    energy = np.frombuffer(grid)
    x = energy - edge
    if x[0] > PRE_LEAST or x[-1] < POST_LEAST:
        return None
    first = ROUND * math.ceil(max(float(x[0]), PRE[0]) / ROUND)
    last = ROUND * math.floor(min(float(x[-1]), POST[1]) / ROUND)
    before = slice(*np.searchsorted(x, (min(first, PRE_LEAST + ROUND), PRE[1])))
    after = slice(*np.searchsorted(x, (POST[0], last), side="right"))
    top = min(ABOVE, last)
    near = slice(*np.searchsorted(x, (BELOW - 2 * BIN, top + 2 * BIN)))
    lengths = [one.stop - one.start for one in (before, after, near)]
    if min(lengths[:2]) < POINTS or lengths[2] < NEAR_POINTS:
        return None
    lines = np.zeros((4, len(x)))
    lines[:2, before] = _line(x[before], PRE_LINE)
    lines[2:, after] = _line(x[after], POST_LINE)
    bounds = np.arange(BELOW, top + BIN / 2, BIN)
    bounds = bounds[(bounds >= x[near][0]) & (bounds <= x[near][-1])]
    steps = np.diff(x[near])
    width = float(np.median(steps)) / BIN
    ranges = first, last, float(bounds[0]), float(bounds[-1])
    # where steps are wide mu itself is rough
    fine = np.cumprod(np.gradient(x[after]) <= FINE).sum()
    quiet = (after,)
    if 5 * POINTS < fine < lengths[1]:
        quiet = after, slice(after.start, after.start + int(fine))
    low, high = (float(np.linalg.norm(lines[i])) for i in (0, 2))
    return _Layout(
        edge, ranges, lines, near, quiet, x[near], int(np.searchsorted(x[near], 0.0)), steps / 2,
        bounds, Between(x[near], bounds), min(width, 2 / 3) ** 0.5, width**0.5, (low, high),
    )  # fmt: skip


def _line(x: Floats, least: float) -> Floats:
    """(2, n) whose products with y are its line's value at 0 and slope, by width as `line` has it.

    Over less than `least` eV it is a constant.
    """
    width = np.gradient(x)
    mean = width / width.sum()
    if x[-1] - x[0] < least:
        return np.stack([mean, np.zeros(len(x))])
    centre = float(mean @ x)
    slope = width * (x - centre) / float((width * (x - centre)) @ (x - centre))
    return np.stack([mean - slope * centre, slope])

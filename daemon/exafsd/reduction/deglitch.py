"""Replace single points that no neighbour explains, and say which."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from exafsd.reduction.rebin import interpolate
from exafsd.spectra import Floats

#: points next to each other that can be one glitch; what is wider may be real
WIDEST = 3
#: points on either side from which a point is predicted
NEIGHBOURS = 2
#: points from which the scatter about a point is taken
ABOUT = 41
#: from the median of absolute values to the standard deviation of Gaussian noise
TO_STD = 1.4826
#: scatter at least, in units of the largest mu: less is rounding
ROUNDING = 1e-6
#: Nothing is touched here, eV relative to the edge: white lines and pre-edge peaks are as sharp as
#: glitches. Chemical shifts and a mono that is off, up to 30 eV together, are allowed for.
EDGE_REGION = (-50.0, 80.0)
#: where more than this share of the points would have to go, it is not glitches
MAX_SHARE = 0.03


def deglitch(
    energy: Floats, mu: Floats, position: float, threshold: float
) -> tuple[Floats, tuple[float, ...]] | None:
    """Replace glitches by the curve through their neighbours.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending and unique.
    position
        Tabulated energy of the edge, eV; nothing is replaced in `EDGE_REGION` about it.
    threshold
        How far a point is off what its neighbours predict, in units of the scatter of such
        differences about it.

    Returns
    -------
    mu, removed
        (n,), and the energies of the points that were replaced; None where there are so many that
        they are no glitches.
    """
    if len(energy) < ABOUT:
        return mu, ()
    off = _off(energy, mu)
    scatter = np.maximum(_scatter(off), ROUNDING * np.abs(mu).max() + np.finfo(float).tiny)
    relative = energy - position
    allowed = (relative < EDGE_REGION[0]) | (relative > EDGE_REGION[1])
    suspects = np.flatnonzero(allowed & (np.abs(off) > threshold * scatter))
    limit = max(MAX_SHARE * len(energy), WIDEST)
    if len(suspects) > limit * (1 + 2 * NEIGHBOURS):  # a glitch makes its neighbours suspect, too
        return None
    good = np.ones(len(energy), bool)
    for i in suspects[np.argsort(-np.abs(off / scatter)[suspects])]:
        group = _group(energy, mu, scatter * threshold, good, int(i))
        if group is not None and allowed[group].all():
            good[group] = False
    glitches = np.flatnonzero(~good)
    if len(glitches) > limit:
        return None
    if len(glitches) == 0:
        return mu, ()
    cleaned = mu.copy()
    cleaned[glitches] = interpolate(energy[good], mu[good], energy[glitches])
    return cleaned, tuple(energy[glitches].tolist())


def _group(energy: Floats, mu: Floats, border: Floats, good: np.ndarray, i: int) -> slice | None:
    """Fewest points about `i` without which all others agree; None if there is no such group."""
    reach = WIDEST + 2 * NEIGHBOURS
    low, high = max(i - reach, 0), min(i + reach + 1, len(energy))

    def worst(without: slice | None) -> float:
        left = good[low:high].copy()
        if without is not None:
            left[without.start - low : without.stop - low] = False
        index = np.flatnonzero(left) + low
        return float(np.max(np.abs(_off(energy[index], mu[index])) / border[index]))

    if worst(None) <= 1:
        return None
    for width in range(1, WIDEST + 1):
        starts = range(max(i - WIDEST + 1, 0), min(i + WIDEST, len(energy) - width) + 1)
        groups = [slice(start, start + width) for start in starts]
        remaining = [worst(group) for group in groups]
        best = int(np.argmin(remaining))
        if remaining[best] <= 1:
            return groups[best]
    return None


def _off(energy: Floats, mu: Floats) -> Floats:
    """Difference of each point to the cubic through its neighbours; 0 at the ends."""
    n, m = len(energy), NEIGHBOURS
    moves = [*range(-m, 0), *range(1, m + 1)]
    at = energy[m : n - m]
    nodes = np.stack([energy[m + move : n - m + move] for move in moves]) - at
    predicted = np.zeros(len(at))
    for i, move in enumerate(moves):
        others = np.delete(nodes, i, axis=0)
        predicted += np.prod(others / (others - nodes[i]), axis=0) * mu[m + move : n - m + move]
    off = np.zeros(n)
    off[m : n - m] = mu[m : n - m] - predicted
    return off


def _scatter(off: Floats) -> Floats:
    """Robust standard deviation of the differences about each point."""
    padded = np.pad(np.abs(off), ABOUT // 2, mode="reflect")
    return TO_STD * np.median(sliding_window_view(padded, ABOUT), axis=1)

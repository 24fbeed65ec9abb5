"""Not-a-knot cubic splines through measured points: their values at once, or as a matrix.

The second derivatives M of the spline solve a tridiagonal system T M = 6 (d_i - d_{i-1}), d being
the slopes between points; that it is one polynomial over the first and over the last two intervals
takes the place of the ends. It is the curve of FITPACK's `UnivariateSpline` with s = 0, which Larch
uses.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from exafsd.spectra import Floats

#: its routines are not among what is typed
lapack: Any = linalg.lapack
#: Entries of the matrix this far below 1 are left out: they fall off by a factor of about 3.7 a
#: point away from the diagonal, so that some 25 points to each side are left.
NEGLIGIBLE = 1e-14
#: points to each side that are looked at
REACH = 32
#: points up to which the matrix is made of its columns
FEW = 8


class _System(NamedTuple):
    """Tridiagonal T of (n - 2,) inner points, and how the two ends follow from them."""

    step: Floats  # (n - 1,)
    below: Floats
    diagonal: Floats
    above: Floats
    first: float  # M_0 = (1 + first) M_1 - first M_2
    last: float


class Values:
    """The spline through spectra on points `x`, at `at`.

    Parameters
    ----------
    x
        (n,) ascending.
    at
        (m,); beyond the ends the outermost polynomials go on.

    Raises
    ------
    ValueError
        If there are too few points for a cubic spline.
    """

    def __init__(self, x: Floats, at: Floats) -> None:
        self._system = _system(x)
        self._inside = _interval(x, at)
        self._past = at - x[self._inside]

    def __call__(self, y: Floats) -> Floats:
        """Values (b, m) of spectra (b, n)."""
        step, below, diagonal, above, first, last = self._system
        slope = (y[:, 1:] - y[:, :-1]) / step
        bend = np.empty_like(y)
        right = 6.0 * (slope[:, 1:] - slope[:, :-1])
        *_, inner, _ = lapack.dgtsv(below, diagonal, above, right.T, overwrite_b=1)
        bend[:, 1:-1] = inner.T
        bend[:, 0] = (1 + first) * bend[:, 1] - first * bend[:, 2]
        bend[:, -1] = (1 + last) * bend[:, -2] - last * bend[:, -3]
        i, past = self._inside, self._past
        here, width = bend[:, i], step[i]
        change = (bend[:, i + 1] - here) / 6.0
        half = 0.5 * here
        # u (d - h (2 M + M') / 6 + u (M / 2 + u (M' - M) / 6 h)), M' being that of the next point
        cubic = past * change / width + half
        return y[:, i] + past * (slope[:, i] - width * (half + change) + past * cubic)


def matrix(x: Floats, at: Floats) -> sparse.csr_array:
    """The same as a matrix (m, n), without what is negligible.

    Row by row T^T z = c is solved, c being the weights of M. The inverse of a tridiagonal matrix
    falls off to either side of its diagonal by ratios that elimination from either end gives.

    Raises
    ------
    ValueError
        As `Values`.
    """
    n = len(x)
    if n < FEW:
        return sparse.csr_array(Values(x, at)(np.eye(n)).T)
    step, below, diagonal, above, first, last = _system(x)
    i = _interval(x, at)
    width, share = step[i], (at - x[i]) / step[i]
    here = ((1 - share) ** 3 - (1 - share)) * width**2 / 6
    after = (share**3 - share) * width**2 / 6
    # weights of two neighbouring inner points, which the outermost M are made of as well
    left, right, base = here, after, np.clip(i - 1, 0, n - 4)
    if (begin := i == 0).any():
        left = np.where(begin, (1 + first) * here + after, left)
        right = np.where(begin, -first * here, right)
    if (end := i == n - 2).any():
        left, right = (
            np.where(end, -last * after, left),
            np.where(end, here + (1 + last) * after, right),
        )

    down = _pivots(below, diagonal, above)
    up = _pivots(above[::-1], diagonal[::-1], below[::-1])[::-1]
    inverse = 1 / (down + up - diagonal)  # diagonal of T^-1
    to_right = np.concatenate([[0.0], -above / up[1:], [0.0]])  # from column j - 1 to j
    to_left = np.concatenate([-below / down[:-1], [0.0]])  # from column j + 1 to j
    at_left = left * inverse[base] + right * inverse[base + 1] * to_left[base]
    at_right = right * inverse[base + 1] + left * inverse[base] * to_right[base + 1]

    reach = np.arange(1, min(REACH, n) + 1)
    beyond = np.minimum(base[:, None] + 1 + reach, n - 2)  # to_right is 0 at n - 2
    before = base[:, None] - reach
    shrink = np.where(before >= 0, to_left[np.maximum(before, 0)], 0.0)
    z = np.concatenate(
        [
            (at_left[:, None] * np.cumprod(shrink, axis=1))[:, ::-1],
            at_left[:, None],
            at_right[:, None],
            at_right[:, None] * np.cumprod(to_right[beyond], axis=1),
        ],
        axis=1,
    )
    # to the points y: the second differences of z, as M are those of y
    span = z.shape[1]
    z = np.pad(z, ((0, 0), (2, 2)))
    column = (base - len(reach))[:, None] + np.arange(-1, span + 2)
    rise = np.diff(z, axis=1) / step[np.clip(column, 0, n - 2)]
    weights = 6.0 * np.diff(rise, axis=1)
    column = column[:, 1:]
    rows = np.arange(len(at))
    place = i - column[:, 0]
    weights[rows, place] += 1 - share
    weights[rows, place + 1] += share
    there = (np.abs(weights) > NEGLIGIBLE) & (column >= 0) & (column < n)
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return sparse.csr_array(
        (weights[there], column[there].astype(np.int32), ends.astype(np.int32)), shape=(len(at), n)
    )


def _system(x: Floats) -> _System:
    if len(x) < 4:
        raise ValueError(f"{len(x)} points cannot be interpolated by a cubic spline")
    step = x[1:] - x[:-1]
    first, last = float(step[0] / step[1]), float(step[-1] / step[-2])
    diagonal = 2.0 * (step[:-1] + step[1:])
    above, below = step[1:-1].copy(), step[1:-1].copy()
    diagonal[0] += step[0] * (1 + first)
    diagonal[-1] += step[-1] * (1 + last)
    above[0] -= first * step[0]
    below[-1] -= last * step[-1]
    return _System(step, below, diagonal, above, first, last)


def _interval(x: Floats, at: Floats) -> NDArray[np.intp]:
    inside = x.searchsorted(at, side="right") - 1
    return np.minimum(np.maximum(inside, 0, out=inside), len(x) - 2, out=inside)


def _pivots(below: Floats, diagonal: Floats, above: Floats) -> Floats:
    """Pivots of elimination from the first row on, without exchanging rows.

    All but the last row dominate, so LAPACK exchanges none of them.
    """
    pivots = lapack.dgttrf(below[:-1], diagonal[:-1], above[:-1])[1]
    return np.append(pivots, diagonal[-1] - below[-1] * above[-1] / pivots[-1])

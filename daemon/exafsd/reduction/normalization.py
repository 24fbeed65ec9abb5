"""Larch's `pre_edge` as linear maps: for one grid, E0 and ranges only small products are left."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from exafsd.contract.recipe import PreEdge
from exafsd.spectra import Floats

#: its routines are not among what is typed
lapack: Any = linalg.lapack
#: Larch's smallest edge step
SMALLEST_STEP = 1e-12
#: coefficients of a polynomial that normal equations find as well as anything else
SIMPLE = 3
IDENTITY = [np.eye(size) for size in range(SIMPLE + 1)]


class Normalized(NamedTuple):
    """`step` is signed: negative where mu falls at E0. All (b,) or (b, n)."""

    step: Floats
    edge_step: Floats
    edge_step_std: Floats
    norm: Floats
    flat: Floats


@dataclass(frozen=True)
class Polynomial:
    """A least-squares polynomial: fitted to the points `fit`, evaluated at all (n,) points."""

    fit: slice
    solve: Floats  # (points of fit, degree + 1)
    basis: Floats  # (degree + 1, n)

    @classmethod
    def of(cls, energy: Floats, fit: slice, degree: int, power: int = 0) -> "Polynomial":
        """Fit mu * energy**power by a polynomial of `degree` over `fit`.

        The energies are mapped onto -1 to 1 first, as Larch's `polyfit` does: the solution is the
        same, and its numbers stay of one size.
        """
        inside = energy[fit]
        middle, half = (inside[0] + inside[-1]) / 2, max((inside[-1] - inside[0]) / 2, 1e-9)
        at = (energy - middle) / half
        basis = np.ones((degree + 1, len(energy)))
        for i in range(degree):
            np.multiply(basis[i], at, out=basis[i + 1])
        solve = _least_squares(basis[:, fit])
        if power:
            weight = energy ** float(power)
            solve *= weight[fit]
            basis /= weight
        return cls(fit, solve.T, basis)


def _least_squares(powers: Floats) -> Floats:
    """From values at points (p,) to coefficients of `powers` (d + 1, p): (d + 1, p).

    Of low degree the normal equations lose no more than a digit or two; else singular values.
    """
    points = powers.shape[1]
    if len(powers) <= SIMPLE and points >= len(powers):
        factor, info = lapack.dpotrf(powers @ powers.T)
        if info == 0:
            return lapack.dpotrs(factor, IDENTITY[len(powers)])[0] @ powers
    return np.asarray(linalg.pinv(powers.T, rtol=points * np.finfo(float).eps), dtype=np.float64)


def index_of(array: Floats, value: float) -> int:
    """Larch's `index_of`: the last index at or below `value`, 0 if there is none."""
    return max(int(array.searchsorted(value, side="right")) - 1, 0)


def index_nearest(array: Floats, value: float) -> int:
    """Larch's `index_nearest`, of an ascending array: of two as near it is the lower."""
    after = int(array.searchsorted(value))
    if after == 0 or after == len(array):
        return max(after - 1, 0)
    return after - 1 if value - array[after - 1] <= array[after] - value else after


@dataclass(frozen=True)
class Normalization:
    """Pre-edge line, post-edge polynomial and edge step of spectra on one grid.

    Formulas and choices of ranges are those of `larch.xafs.pre_edge` (xraylarch 2026.3).
    """

    ranges: PreEdge
    ie0: int
    pre: Polynomial
    post: Polynomial
    pre_scatter: slice
    post_scatter: slice

    @classmethod
    def compile(cls, energy: Floats, e0: float, settings: PreEdge) -> "Normalization":
        """Resolve the ranges that are null and prepare the fits; `energy` (n,) eV, ascending."""
        low, high = float(energy[0]) - e0, float(energy[-1]) - e0
        ie0 = index_nearest(energy, e0)
        pre1, pre2 = _pre_range(settings, float(energy[1]) - e0, low, ie0)
        npre, nvict = settings.npre, settings.nvict
        relative = energy - e0
        if index_of(relative, pre2) - index_of(relative, pre1) < 3:
            npre = nvict = 0
        norm1, norm2 = _post_range(settings, high)
        nnorm = settings.nnorm
        if nnorm is None:
            nnorm = 2 if norm2 - norm1 >= 300 else 1 if norm2 - norm1 >= 30 else 0
        nnorm = max(min(nnorm, 5), 0)

        p1, p2 = index_of(energy, pre1 + e0), index_nearest(energy, pre2 + e0)
        if npre == 0:
            nvict, p2 = 0, p2 + 1 if p2 == p1 else p2
        elif p2 - p1 < 2:
            p2 = min(len(energy), p1 + 2)
        pre = Polynomial.of(energy, slice(p1, p2), npre, nvict)

        q1, q2 = index_of(energy, norm1 + e0), index_nearest(energy, norm2 + e0)
        q1 = min(q1, len(energy) - 3)
        if q2 - q1 < 2:
            q1, nnorm = q1 - 2, 0
        elif q2 - q1 < 5:
            nnorm = min(1, nnorm)
        post = Polynomial.of(energy, slice(q1, q2), nnorm)

        ranges = settings.model_copy(
            update={"pre1": pre1, "pre2": pre2, "norm1": norm1, "norm2": norm2, "nnorm": nnorm}
        )
        return cls(
            ranges, ie0, pre, post, _within(relative, pre1, pre2),
            _within(relative, norm1, norm2),
        )  # fmt: skip

    def __call__(self, mu: Floats) -> Normalized:
        """Normalize spectra, (b, n)."""
        pre_line = (mu[:, self.pre.fit] @ self.pre.solve) @ self.pre.basis
        norm = mu - pre_line
        post_coefs = norm[:, self.post.fit] @ self.post.solve
        step = post_coefs @ self.post.basis[:, self.ie0]
        edge_step = np.maximum(np.abs(step), SMALLEST_STEP)
        std = self._step_std(norm, post_coefs)
        norm /= edge_step[:, None]
        flat = norm.copy()
        above = slice(self.ie0, None)
        bent = (post_coefs / edge_step[:, None]) @ self.post.basis[:, above]
        flat[:, above] -= bent - (step / edge_step)[:, None]
        return Normalized(step, edge_step, std, norm, flat)

    def _step_std(self, norm: Floats, post_coefs: Floats) -> Floats:
        """Standard error of the edge step from the scatter about the two fitted curves.

        NaN where a range has too few points. Pre- and post-edge values at E0 are each known to
        about scatter / sqrt(points) times the leverage of extrapolating a polynomial of degree n
        to the end of its range, (n + 1). The post-edge scatter contains the EXAFS itself: an
        upper bound.
        """
        below = norm[:, self.pre_scatter]
        after = norm[:, self.post_scatter] - post_coefs @ self.post.basis[:, self.post_scatter]
        variance = np.zeros(len(norm))
        for scatter, degree in ((below, self.ranges.npre), (after, self.ranges.nnorm or 0)):
            points = scatter.shape[1]
            free = points - degree - 1
            if free < 1:
                return np.full(len(norm), np.nan)
            squares = np.einsum("ij,ij->i", scatter, scatter)
            variance += (degree + 1) ** 2 * squares / free / points
        return np.sqrt(variance)


def _pre_range(settings: PreEdge, second: float, low: float, ie0: int) -> tuple[float, float]:
    pre1, pre2 = settings.pre1, settings.pre2
    if pre1 is None:  # the first point is often bad
        unit = 5.0 if ie0 > 20 else 2.0
        pre1 = unit * round(second / unit)
    pre1 = max(pre1, low)
    if pre2 is None:
        pre2 = 0.5 * pre1
    return min(pre1, pre2), max(pre1, pre2)


def _post_range(settings: PreEdge, high: float) -> tuple[float, float]:
    norm1, norm2 = settings.norm1, settings.norm2
    if norm2 is None:
        norm2 = 5.0 * round(high / 5.0)
    if norm2 < 0:
        norm2 = high - norm2
    norm2 = min(norm2, high)
    if norm1 is None:
        norm1 = min(25.0, 5.0 * round(norm2 / 15.0))
    norm1, norm2 = min(norm1, norm2), max(norm1, norm2)
    return min(norm1, norm2 - 2), norm2


def _within(relative: Floats, low: float, high: float) -> slice:
    return slice(int(relative.searchsorted(low)), int(relative.searchsorted(high, side="right")))

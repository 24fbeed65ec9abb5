"""Bounded Levenberg-Marquardt for many small fits at once, with analytic derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.spectra import Floats

#: residuals (a, m) and their derivatives (a, m, n) at variables (a, n) of the fits `rows` (a,)
Evaluate = Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]]

#: A fit is done when its next step, which it still makes, is below this share of feffit's
#: error bar. What is left after it is far less than the 0.1 that is promised.
TOLERANCE = 0.05
#: Misfit relative to the data below which float32 cannot tell one model from another (1e-4
#: each in value): simulated spectra without noise would never be done.
FLOOR = 1e-8
#: Relative growth of the misfit that counts as none, for the same reason.
LEVEL = 1e-4
#: Evaluations after which a fit has failed. From the network's answer 2 to 4 are enough. Of a
#: library of 274 spectra none that ended took more than 13, and one that does not end is dear.
MAX_EVALUATIONS = 15
#: Damping of the first retry, relative to the diagonal, and what is small enough to be dropped.
DAMPING, UNDAMPED = 1e-2, 1e-3
#: Keeps the scaled normal equations solvable where two variables do the same.
RIDGE = 1e-10
#: Keeps variables that do nothing from being divided by zero.
SMALLEST = 1e-100


@dataclass(frozen=True)
class Minimum:
    """Where the fits ended.

    `x` (b, n), `cost` (b,) sum of squares there, `residual` (b, m) as it is there to first order,
    `jacobian` (b, m, n) and `hessian` (b, n, n) within `TOLERANCE` of there, `converged` and
    `bound`: (b,) and (b, n), which variables ended on a bound.
    """

    x: Floats
    cost: Floats
    residual: Floats
    jacobian: Floats
    hessian: Floats
    converged: NDArray[np.bool_]
    bound: NDArray[np.bool_]
    evaluations: int

    def inverse(self, held: NDArray[np.bool_] | None = None) -> Floats:
        """Inverse of the normal matrices, (b, n, n): the covariance for a misfit of one.

        Variables that are `held` (b, n) are zero; by default those on a bound.
        """
        free = ~(self.bound if held is None else held)
        scaled, scale = _scaled(self.hessian, np.zeros(len(free)))
        scale *= free
        return np.linalg.inv(_cut(scaled, free)) * (scale[:, :, None] * scale[:, None, :])

    def errors(self, held: NDArray[np.bool_]) -> Floats:
        """Error bars (b, n) for a misfit of one, where variables that are `held` have none."""
        return np.sqrt(_diagonal(self.inverse(held)))


def minimize(
    evaluate: Evaluate,
    start: Floats,
    begin: tuple[Floats, Floats],
    bounds: tuple[Floats, Floats],
    total: Floats,
    freedom: float,
    evaluations_max: int = MAX_EVALUATIONS,
    tolerance: float = TOLERANCE,
    small: Floats | None = None,
) -> Minimum:
    """Least sum of squares inside bounds.

    Parameters
    ----------
    evaluate
        The residuals.
    start
        (b, n) inside the bounds.
    begin
        Residuals and derivatives there.
    bounds
        Lowest and highest values, (n,) each.
    total
        (b,) sum of squares of the data, the scale for what is a good fit.
    freedom
        Independent points less variables, by which the misfit is divided for an error bar.
    evaluations_max
        Evaluations after which a fit has failed.
    tolerance
        Size of the next step, which is still made, at which a fit is done, in error bars.
    small
        (n,) or so small a step of every variable.
    """
    low, high = bounds
    x = start.copy()
    rows = np.arange(len(x))
    residual, jacobian = begin[0].copy(), begin[1].copy()
    cost = np.vecdot(residual, residual)
    damping = np.zeros(len(x))
    converged = np.zeros(len(x), dtype=bool)
    rows = rows[np.isfinite(cost) & np.isfinite(total)]
    evaluations = 1
    while rows.size:
        slopes, at = jacobian[rows], x[rows]
        gradient, hessian = _along(slopes.mT, residual[rows]), slopes.mT @ slopes
        moved = _moved(hessian, gradient, at, low, high, damping[rows])
        step = moved - at
        curved = np.vecdot(step, _along(hessian, step))
        usable = np.isfinite(curved)
        if not usable.all():  # a spoilt derivative: that fit has failed
            rows = rows[usable]
            continue
        scale = np.maximum(cost[rows], FLOOR * total[rows])
        done = curved <= tolerance**2 / freedom * scale
        if small is not None:
            done |= (np.abs(step) <= small).all(axis=-1)
        done &= damping[rows] == 0.0
        if done.any():
            # where a variable has only now met its bound, the others have yet to answer to that
            done &= ~(_on_bound(moved, low, high) & ~_on_bound(at, low, high)).any(axis=-1)
        if done.any():
            # the last step is too small to be worth another evaluation
            last, left = rows[done], ~done
            x[last], converged[last] = moved[done], True
            residual[last] += _along(slopes[done], step[done])
            change = 2 * np.vecdot(gradient, step) + curved
            cost[last] = np.maximum(cost[last] + change[done], 0.0)
            rows, moved, scale = rows[left], moved[left], scale[left]
        if not rows.size or evaluations == evaluations_max:
            break
        evaluations += 1
        tried, slopes = evaluate(moved, rows)
        tried_cost = np.vecdot(tried, tried)
        better = tried_cost <= cost[rows] + LEVEL * scale
        good, bad = rows[better], rows[~better]
        x[good], cost[good], residual[good] = moved[better], tried_cost[better], tried[better]
        jacobian[good] = slopes[better]
        damping[good] *= 0.1
        damping[good[damping[good] < UNDAMPED]] = 0.0
        damping[bad] = np.maximum(10 * damping[bad], DAMPING)
    bound = _on_bound(x, low, high)
    hessian = jacobian.mT @ jacobian
    return Minimum(x, cost, residual, jacobian, hessian, converged, bound, evaluations)


def _on_bound(x: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    return (x <= low) | (x >= high)


def _inside(x: Floats, low: Floats, high: Floats) -> Floats:
    return np.minimum(np.maximum(x, low), high)


def _along(matrices: Floats, vectors: Floats) -> Floats:
    """Products of matrices (b, m, n) with vectors (b, n)."""
    return (matrices @ vectors[..., None])[..., 0]


def _moved(
    hessian: Floats, gradient: Floats, x: Floats, low: Floats, high: Floats, damping: Floats
) -> Floats:
    """Variables (b, n) after a Gauss-Newton step, damped, to the least misfit inside the bounds.

    A variable on a bound that the misfit pushes outwards stays where it is. One that a step takes
    beyond a bound is put on it, that which goes farthest first, and the others answer to that.
    """
    curve, scale = _scaled(hessian, damping)
    # steps and bounds in error bars
    downhill, lowest, highest = -gradient * scale, (low - x) / scale, (high - x) / scale
    free = ((lowest < 0) | (downhill >= 0)) & ((highest > 0) | (downhill <= 0))
    step = _step(curve, downhill, free)
    far = np.where(free, np.maximum(lowest - step, step - highest), 0.0)
    rows = np.flatnonzero((far > 0).any(axis=-1))
    put = np.zeros_like(x)
    while rows.size:
        at = rows, far[rows].argmax(axis=-1)
        free[at] = False
        put[at] = _inside(step[at], lowest[at], highest[at])
        left = downhill[rows] - _along(curve[rows], put[rows])
        there = put[rows] + _step(curve[rows], left, free[rows])
        beyond = np.maximum(lowest[rows] - there, there - highest[rows])
        step[rows], far[rows] = there, np.where(free[rows], beyond, 0.0)
        rows = rows[(far[rows] > 0).any(axis=-1)]
    moved = np.where(step <= lowest, low, x + step * scale)
    return _inside(np.where(step >= highest, high, moved), low, high)


def _step(curve: Floats, downhill: Floats, free: NDArray[np.bool_]) -> Floats:
    """Step (b, n) of the free variables; the others do not move."""
    step: NDArray[Any] = np.linalg.solve(_cut(curve, free), (downhill * free)[..., None])
    return step[..., 0]


def _cut(curve: Floats, free: NDArray[np.bool_]) -> Floats:
    """Normal matrices where variables that are not free touch no others."""
    cut = curve * (free[:, :, None] & free[:, None, :])
    _diagonal(cut)[...] = _diagonal(curve)
    return cut


def _diagonal(matrices: Floats) -> Floats:
    """View (b, n) of matrices (b, n, n)."""
    count = matrices.shape[-1]
    return matrices.reshape(len(matrices), count * count)[:, :: count + 1]


def _scaled(hessian: Floats, damping: Floats) -> tuple[Floats, Floats]:
    """Normal matrices with ones on the diagonal, damped, and what scales them (b, n).

    Left unscaled, eV and angstrom^2 would differ by eight powers of ten.
    """
    scale = 1 / np.maximum(np.sqrt(_diagonal(hessian)), SMALLEST)
    scaled = hessian * scale[:, :, None]
    scaled *= scale[:, None, :]
    _diagonal(scaled)[...] = 1.0 + RIDGE + damping[:, None]
    return scaled, scale

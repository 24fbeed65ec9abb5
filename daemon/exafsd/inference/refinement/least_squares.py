"""Bounded Levenberg-Marquardt for many small fits at once, with analytic derivatives."""

from collections.abc import Callable
from dataclasses import dataclass

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
#: Evaluations after which a fit has failed. From the network's answer 2 to 4 are enough.
MAX_EVALUATIONS = 25
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
        scaled, scale = _scaled(self.hessian, free, np.zeros(len(free)))
        return np.linalg.inv(scaled) * (scale[:, :, None] * scale[:, None, :])


def minimize(
    evaluate: Evaluate,
    start: Floats,
    begin: tuple[Floats, Floats],
    bounds: tuple[Floats, Floats],
    total: Floats,
    freedom: float,
    evaluations_max: int = MAX_EVALUATIONS,
    tolerance: float = TOLERANCE,
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
        # where a variable has only now met its bound, the others have yet to answer to that
        met = (_on_bound(moved, low, high) & ~_on_bound(at, low, high)).any(axis=-1)
        done = (curved <= tolerance**2 / freedom * scale) & (damping[rows] == 0.0) & ~met
        if done.any():
            # the last step is too small to be worth another evaluation
            last = rows[done]
            x[last], converged[last] = moved[done], True
            residual[last] += _along(slopes[done], step[done])
            change = 2 * np.vecdot(gradient, step) + curved
            cost[last] = np.maximum(cost[last] + change[done], 0.0)
            rows, moved, scale = rows[~done], moved[~done], scale[~done]
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
    free = ((x > low) | (gradient <= 0)) & ((x < high) | (gradient >= 0))
    moved = x + _step(hessian, -gradient, free, damping)
    beyond = free & ((moved < low) | (moved > high))
    rows = np.flatnonzero(beyond.any(axis=-1))
    put = np.zeros_like(x)
    while rows.size:
        curve, there = hessian[rows], moved[rows]
        error = np.sqrt(np.einsum("bii->bi", curve))
        far = np.maximum(low - there, there - high) * error
        worst = np.where(beyond[rows], far, -1.0).argmax(axis=-1)
        at = rows, worst
        free[at] = False
        put[at] = _inside(moved[at], low[worst], high[worst]) - x[at]
        downhill = -gradient[rows] - _along(curve, put[rows])
        there = x[rows] + put[rows] + _step(curve, downhill, free[rows], damping[rows])
        left = free[rows] & ((there < low) | (there > high))
        moved[rows], beyond[rows] = there, left
        rows = rows[left.any(axis=-1)]
    return _inside(moved, low, high)


def _step(hessian: Floats, downhill: Floats, free: NDArray[np.bool_], damping: Floats) -> Floats:
    """Step (b, n) of the free variables; the others do not move."""
    scaled, scale = _scaled(hessian, free, damping)
    return np.linalg.solve(scaled, (downhill * scale)[..., None])[..., 0] * scale


def _scaled(hessian: Floats, free: NDArray[np.bool_], damping: Floats) -> tuple[Floats, Floats]:
    """Normal matrices with ones on the diagonal, held variables cut out, and what scales them.

    Left unscaled, eV and angstrom^2 would differ by eight powers of ten. The scale (b, n) is zero
    for what is held.
    """
    size = np.sqrt(np.einsum("bii->bi", hessian))
    scale = free / np.maximum(size, SMALLEST)
    scaled = hessian * scale[:, :, None]
    scaled *= scale[:, None, :]
    diagonal = np.einsum("bii->bi", scaled)  # a view
    diagonal[...] = 1.0 + RIDGE + damping[:, None]
    return scaled, scale

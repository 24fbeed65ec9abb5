"""Bounded Levenberg-Marquardt for many small fits at once, with analytic derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

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
#: Damping of the first retry, relative to the diagonal; of every further one it is ten times that
#: of the one before. Less hardly shortens a step that went too far.
DAMPING = 0.3
#: Share of it that is left after a step that is taken, and what is small enough to be dropped: a
#: second whole step after one that went too far would often do so again.
LEFT, UNDAMPED = 0.01, 0.01
#: Keeps the scaled normal equations solvable where two variables do the same.
RIDGE = 1e-10
#: Error bars that a step goes at most where there is no bound.
UNBOUNDED = 1e4
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


def conditional(inverse: Floats, held: NDArray[np.bool_]) -> Floats:
    """`Minimum.inverse` (b, n, n) where of the first m variables some are `held` (b, m), too."""
    if not held.any():
        return inverse
    m = held.shape[1]
    both = held[:, :, None] & held[:, None, :]
    inner = np.linalg.inv(np.where(both, inverse[:, :m, :m], np.eye(m))) * both
    across = inverse[:, :, :m]
    return inverse - across @ inner @ across.mT


def minimize_batch(
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
    fits = _Fits.at(np.arange(len(start)), start, *begin)
    ended: list[_Fits] = []
    evaluations = 1
    usable = np.isfinite(fits.cost) & np.isfinite(total)
    while True:
        if not usable.all():  # a spoilt value or derivative: that fit has failed
            ended.append(fits.those(~usable))
            fits = fits.those(usable)
        if not fits.rows.size:
            break
        gradient = _along(fits.jacobian.mT, fits.residual)
        moved = _moved(fits.hessian, gradient, fits.x, low, high, fits.damping)
        step = moved - fits.x
        curved = np.vecdot(step, _along(fits.hessian, step))
        usable = np.isfinite(curved)
        if not usable.all():
            continue
        scale = np.maximum(fits.cost, FLOOR * total[fits.rows])
        done = curved <= tolerance**2 / freedom * scale
        if small is not None:
            done |= (np.abs(step) <= small).all(axis=-1)
        done &= fits.damping == 0.0
        if done.any():
            # the last step is too small to be worth another evaluation
            stepped = fits.stepped(step, moved, 2 * np.vecdot(gradient, step) + curved)
            if done.all():
                fits = stepped
                break
            ended.append(stepped.those(done))
            left = ~done
            fits, moved, scale, usable = fits.those(left), moved[left], scale[left], usable[left]
        if evaluations == evaluations_max:
            break
        evaluations += 1
        fits = fits.tried(moved, *evaluate(moved, fits.rows), LEVEL * scale)
    ended.append(fits)
    end = _joined([one for one in ended if one.rows.size] or [fits])
    bound = (end.x <= low) | (end.x >= high)
    return Minimum(
        end.x, end.cost, end.residual, end.jacobian, end.hessian, end.converged, bound, evaluations
    )


class _Fits(NamedTuple):
    """Fits `rows` (a,) on their way: what `Minimum` has of them, and how much they are damped."""

    rows: NDArray[np.intp]
    x: Floats
    residual: Floats
    jacobian: Floats
    hessian: Floats
    cost: Floats
    damping: Floats
    converged: NDArray[np.bool_]

    @classmethod
    def at(cls, rows: NDArray[np.intp], x: Floats, residual: Floats, jacobian: Floats) -> "_Fits":
        """Fits at variables (a, n)."""
        hessian, cost = jacobian.mT @ jacobian, np.vecdot(residual, residual)
        nothing = np.zeros(len(rows))
        return cls(rows, x, residual, jacobian, hessian, cost, nothing, nothing.astype(bool))

    def those(self, which: NDArray[np.bool_]) -> "_Fits":
        """Some of them, by a mask (a,)."""
        return self if which.all() else _Fits._make(one[which] for one in self)

    def stepped(self, step: Floats, x: Floats, change: Floats) -> "_Fits":
        """As they are after a small last step, which leaves derivatives as they are."""
        residual = self.residual + _along(self.jacobian, step)
        cost, converged = np.maximum(self.cost + change, 0.0), np.ones(len(x), dtype=bool)
        return self._replace(x=x, residual=residual, cost=cost, converged=converged)

    def tried(self, x: Floats, residual: Floats, jacobian: Floats, level: Floats) -> "_Fits":
        """At other variables, where the misfit is there not larger by more than `level` (a,)."""
        there = _Fits.at(self.rows, x, residual, jacobian)
        better = there.cost <= self.cost + level
        less = np.where(self.damping < UNDAMPED, 0.0, LEFT * self.damping)
        damping = np.where(better, less, np.maximum(10 * self.damping, DAMPING))
        if not better.all():
            pairs = zip(there, self, strict=True)
            there = _Fits._make(
                np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs
            )
        return there._replace(damping=damping)


def _joined(parts: Sequence[_Fits]) -> _Fits:
    """Fits in the order of their rows."""
    if len(parts) == 1:
        return parts[0]
    order = np.concatenate([one.rows for one in parts]).argsort()
    return _Fits._make(np.concatenate(each)[order] for each in zip(*parts, strict=True))


def _inside(x: Floats, low: Floats, high: Floats) -> Floats:
    return np.minimum(np.maximum(x, low), high)


def _along(matrices: Floats, vectors: Floats) -> Floats:
    """Products of matrices (b, m, n) with vectors (b, n)."""
    return (matrices @ vectors[..., None])[..., 0]


def _moved(
    hessian: Floats, gradient: Floats, x: Floats, low: Floats, high: Floats, damping: Floats
) -> Floats:
    """Variables (b, n) after a Gauss-Newton step, damped, to the least misfit inside the bounds."""
    curve, scale = _scaled(hessian, damping)
    # steps and bounds in error bars
    lowest, highest = (low - x) / scale, (high - x) / scale
    step = np.linalg.solve(curve, (gradient * -scale)[..., None])[..., 0]
    outside = np.flatnonzero(((step < lowest) | (step > highest)).any(axis=-1))
    if outside.size:
        roots = np.linalg.cholesky(curve[outside], upper=True)
        for i, root in zip(outside, roots, strict=True):
            step[i] = _bounded(root, step[i], lowest[i], highest[i])
    moved = np.where(step <= lowest, low, x + step * scale)
    return _inside(np.where(step >= highest, high, moved), low, high)


def _bounded(root: Floats, free: Floats, lowest: Floats, highest: Floats) -> Floats:
    """Step (n,) to the least misfit inside bounds, where the `free` one (n,) leaves them.

    The misfit is larger by the square of `root` (n, n) times what the step differs by from the free
    one. Looked for are distances from the lower bounds, which are not negative; of variables that
    end beyond the upper bound, from that one.
    """
    lowest, upper = np.maximum(lowest, -UNBOUNDED), np.zeros(len(free), dtype=bool)
    step = free
    for _ in free:
        bound, side = np.where(upper, highest, lowest), 1.0 - 2.0 * upper
        try:
            distance, _ = nnls(root * side, root @ (free - bound))
        except RuntimeError:  # it goes round in circles
            break
        step = bound + side * distance
        beyond = np.where(upper, step < lowest, step > highest)
        if not beyond.any():
            break
        upper ^= beyond
    return _inside(step, lowest, highest)


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

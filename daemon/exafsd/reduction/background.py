"""Larch's `autobk` as linear algebra: what is not linear, the clamps' scale, is one number.

AUTOBK minimises over the spline coefficients c

    f(c) = q + s(q)^2 g,   q = |a - A c|^2,   g = |p - P c|^2,   s(q) = 0.1 + 10 q / n

where a = F S mu are the Fourier components of k^w chi below rbkg, p the clamped points of S mu,
S the interpolation from the measured points to the k grid, and A, P the same of the spline basis.
Where the gradient of f vanishes, so does that of q + x g with x = s^2 / (1 + 20 s g / n): the
minimum lies on the curve c(x), the minimiser of q + x g. In coordinates in which both quadratic
forms are diagonal, q and g along that curve are sums of as many terms as there are clamped points.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from larch.xafs.xafsft import ftwindow
from larch.xafs.xafsutils import ETOK
from scipy import linalg, sparse
from scipy.interpolate import BSpline

from exafsd.contract.grid import K_STEP
from exafsd.contract.recipe import Autobk
from exafsd.reduction.normalization import index_nearest, index_of
from exafsd.reduction.transform import NFFT
from exafsd.spectra import Floats

#: Entries of S this far below 1 are left out. S falls off by a factor of about 3.7 a point away
#: from the diagonal (cubic splines), so that some 25 points to each side are left.
NEGLIGIBLE = 1e-14
#: a cubic spline's collocation matrix has no entries further from its diagonal
BAND = 3
#: a direction of the spline is seen by the background's transform if it is this much of the
#: strongest; on usual scans the weakest is some 1e-3
RANK = 1e-10
#: values of x tried before Newton's method, since f may have several minima
SCAN = np.linspace(0.0, 1.0, 17)
NEWTON_STEPS = 12
#: relative precision of x; f is flat at its minimum, so that its error is the square of this
PRECISION = 1e-9


class Solution(NamedTuple):
    """`excess` (b, m) is edge step times chi on the k grid; `objective` (b,) is what f became."""

    excess: Floats
    objective: Floats


@dataclass(frozen=True)
class Background:
    """AUTOBK on one energy grid, E0 and recipe.

    Knots, window and number of Fourier components are those of `larch.xafs.autobk`
    (xraylarch 2026.3), whose residual this minimises.
    """

    k: Floats  # (m,)
    kmax: float
    points: slice  # measured points used
    to_grid: sparse.csr_array  # (m, points), S
    unseen: Floats  # (m, 2 irbkg), from S mu to the part of a that no spline can take up
    steer: Floats  # (m, j), from S mu to p - P c(0)
    solve: Floats  # (m, p), from S mu to c(0), as coordinates y
    basis: Floats  # (p, m), spline on the k grid for coordinates y
    shift: Floats  # (j, r), columns of P in coordinates y, of unit length
    strength: Floats  # (r,), their squared lengths
    leading: slice  # the r coordinates that the clamps move
    release: Floats | None  # (m, m), where the clamps alone decide some directions
    n: int

    @classmethod
    def compile(cls, energy: Floats, e0: float, settings: Autobk) -> "Background":
        """Prepare; `energy` (n,) eV, ascending.

        Raises
        ------
        ValueError
            If there are too few points for the spline.
        """
        grid_r = np.pi / (K_STEP * NFFT)
        rbkg = max(settings.rbkg, 2 * grid_r)
        iek0 = index_of(energy, e0)
        above = energy[iek0:] - e0
        kraw = np.sign(above) * np.sqrt(ETOK * np.abs(above))
        kmax = float(kraw.max())
        if settings.kmax is not None:
            kmax = max(0.0, min(kmax, settings.kmax))
        k = K_STEP * np.arange(int(1.01 + kmax / K_STEP), dtype="float64")
        iemax = min(len(energy), 2 + index_of(energy, e0 + kmax * kmax / ETOK)) - 1
        kmin = settings.kmin
        wide = kmax - kmin
        if wide <= 0:
            raise ValueError(f"kmin = {kmin} is beyond the data's end at k = {kmax:.2f}")
        unclamped = 1 + int(2 * rbkg * wide / np.pi)
        irbkg = int(1 + (unclamped - 1) * np.pi / (2 * grid_r * wide))
        nspl = max(5, min(128, unclamped))
        knots_at = kraw[[index_nearest(kraw, kmin + i * wide / (nspl - 1)) for i in range(nspl)]]
        if (np.diff(knots_at) <= 0).any():  # Larch's result is NaN then
            raise ValueError(f"too few points above E0 for {nspl} spline knots")
        used = kraw[: iemax - iek0 + 1]
        # FITPACK's knots of an interpolating cubic spline: all points but the second and last two
        knots = np.concatenate([[knots_at[0]] * 4, knots_at[2:-2], [knots_at[-1]] * 4])
        spline = np.asarray(BSpline(knots, np.eye(nspl), 3)(used))
        to_grid = interpolation(used, k)

        dk: Any = settings.dk  # Larch's annotation says int
        window = k**settings.kweight * ftwindow(
            k, xmin=kmin, xmax=kmax, window=settings.win, dx=dk, dx2=dk
        )
        turns = np.exp(-2j * np.pi / NFFT * np.outer(np.arange(len(k)), np.arange(irbkg)))
        transform = K_STEP / np.sqrt(np.pi) * window[:, None] * turns
        f = np.hstack([transform.real, transform.imag]).T  # (2 irbkg, m)
        sb = to_grid @ spline
        clamps = np.zeros((0, len(k)))
        for strength, rows in (
            (settings.clamp_lo, slice(None, settings.nclamp)),
            (settings.clamp_hi, slice(-settings.nclamp, None)),
        ):
            if strength and settings.nclamp:
                clamps = np.vstack([clamps, abs(strength) * np.eye(len(k))[rows]])

        left, size, right = linalg.svd(f @ sb)
        rank = int((size > RANK * size[0]).sum())
        left, to_coefs = left[:, :rank], right[:rank].T / size[:rank]
        # directions of c that |A c|^2 does not see serve the clamps alone
        free = sb @ right[rank:].T
        release = None
        if rank < nspl and len(clamps):
            release = np.eye(len(k)) - (free @ np.linalg.pinv(clamps @ free) @ clamps).T
            clamps = clamps @ release.T
        # coordinates y in which |A c|^2 = |y|^2 and |P c|^2 = sum of strength y^2
        held = clamps @ sb @ to_coefs
        shift, length, turn = linalg.svd(held, full_matrices=True)
        shift, clamped = shift[:, : len(length)], length > 0
        to_coefs, left = to_coefs @ turn.T, left @ turn.T
        solve = left.T @ f
        basis = sb @ to_coefs
        return cls(
            k=k,
            kmax=kmax,
            points=slice(iek0, iemax + 1),
            to_grid=to_grid,
            unseen=np.ascontiguousarray((f - left @ solve).T),
            steer=np.ascontiguousarray((clamps - clamps @ basis @ solve).T),
            solve=np.ascontiguousarray(solve.T),
            basis=np.ascontiguousarray(basis.T),
            shift=np.ascontiguousarray(shift[:, clamped]),
            strength=length[clamped] ** 2,
            leading=slice(0, int(clamped.sum())),
            release=release,
            n=2 * irbkg,
        )

    def __call__(self, mu: Floats) -> Solution:
        """Remove the background of spectra, (b, n)."""
        grid = np.ascontiguousarray((self.to_grid @ mu[:, self.points].T).T)
        y = grid @ self.solve
        unseen = grid @ self.unseen
        q = np.einsum("ij,ij->i", unseen, unseen)
        objective = q
        if self.steer.shape[1]:
            e = grid @ self.steer
            moved, objective = self._clamped(e, q)
            y[:, self.leading] += moved
        excess = grid - y @ self.basis
        return Solution(excess if self.release is None else excess @ self.release, objective)

    def _clamped(self, e: Floats, q0: Floats) -> tuple[Floats, Floats]:
        """Minimum of f along c(x): how far y moves in each leading coordinate, (b, r), and f.

        `e` is p - P c(0), (b, j), and `q0` is q at x = 0, (b,).
        """
        d, kappa = self.strength, 10.0 / self.n
        u = e @ self.shift
        u2 = u * u
        rest = np.maximum(np.einsum("ij,ij->i", e, e) - u2.sum(axis=1), 0.0)

        def along(x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
            """Return q, g and their derivatives at x, (b, t)."""
            share = 1 / (1 + x[:, :, None] * d)
            part = u2[:, None, :] * share * share
            slope = 2 * ((part * share) @ d)
            q = q0[:, None] + x * x * (part @ d)
            return q, rest[:, None] + part @ np.ones(len(d)), x * slope, -slope

        # f(x) <= f(0) at the minimum, which bounds q and with it s and x
        s0 = 0.1 + kappa * q0
        g0 = rest + u2.sum(axis=1)
        s1 = 0.1 + kappa * (q0 + s0**2 * g0)
        low, high = np.log(s0**2 / (1 + 2 * kappa * s1 * g0)), 2 * np.log(s1)
        width = high - low
        t = low[:, None] + width[:, None] * SCAN
        q, g, _, _ = along(np.exp(t))
        best = np.argmin(q + (0.1 + kappa * q) ** 2 * g, axis=1)
        step = width[:, None] / (len(SCAN) - 1)
        t = np.take_along_axis(t, best[:, None], axis=1)
        lowest, highest = t - step, t + step
        for _ in range(NEWTON_STEPS):
            x = np.exp(t)
            q, g, dq, dg = along(x)
            s = 0.1 + kappa * q
            extra = 1 + 2 * kappa * s * g
            miss = t + np.log(extra) - 2 * np.log(s)
            slope = 1 + x * kappa * (2 * (kappa * dq * g + s * dg) / extra - 2 * dq / s)
            with np.errstate(divide="ignore", invalid="ignore"):
                move = np.where(slope > 0, -miss / slope, -np.sign(miss) * step / 4)
            moved = np.clip(t + move, lowest, highest)
            change = np.abs(moved - t).max(initial=0.0)
            t = moved
            if change < PRECISION:
                break
        x = np.exp(t)
        q, g, _, _ = along(x)
        objective = (q + (0.1 + kappa * q) ** 2 * g)[:, 0]
        return x * np.sqrt(d) * u / (1 + x * d), objective


def interpolation(x: Floats, at: Floats) -> sparse.csr_array:
    """Not-a-knot cubic interpolation from points `x` (n,) to `at` (m,) as a matrix (m, n).

    The values of the interpolating spline are N C^-1 y with N the basis at `at` and C the banded
    collocation matrix; row by row C^T z = N^T is solved, and what is negligible left out.
    """
    n = len(x)
    if n < 4:
        raise ValueError(f"{n} points cannot be interpolated by a cubic spline")
    knots = np.concatenate([[x[0]] * 4, x[2:-2], [x[-1]] * 4])
    collocation = BSpline.design_matrix(x, knots, 3).tocoo()
    band = np.zeros((2 * BAND + 1, n))  # of the transposed matrix, as LAPACK wants it
    band[BAND + collocation.col - collocation.row, collocation.row] = collocation.data
    basis = BSpline.design_matrix(at, knots, 3, extrapolate=True)
    weights = linalg.solve_banded((BAND, BAND), band, basis.toarray().T, overwrite_b=True).T
    weights[np.abs(weights) < NEGLIGIBLE] = 0.0
    return sparse.csr_array(weights)

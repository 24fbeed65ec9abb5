"""Larch's `autobk` as linear algebra: what is not linear, the clamps' scale, is one number.

AUTOBK minimises over the spline coefficients c

    f(c) = q + s(q)^2 g,   q = |a - A c|^2,   g = |p - P c|^2,   s(q) = 0.1 + 10 q / n

where a = F S mu are the Fourier components of k^w chi below rbkg, p the clamped points of S mu,
S the interpolation from the measured points to the k grid, and A, P the same of the spline basis.
Where the gradient of f vanishes, so does that of q + x g with x = s^2 / (1 + 20 s g / n): the
minimum lies on the curve c(x), the minimiser of q + x g. In coordinates in which both quadratic
forms are diagonal, q and g along that curve are sums of as many terms as there are clamped points;
`clamps` finds x.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse
from scipy.interpolate import BSpline

from exafsd.contract.grid import ETOK, K_STEP
from exafsd.contract.recipe import Autobk
from exafsd.reduction import spline
from exafsd.reduction.clamps import lowest
from exafsd.reduction.normalization import index_nearest, index_of
from exafsd.reduction.transform import FT_SCALE, NFFT, R_STEP, SnappedWindow
from exafsd.spectra import Floats

#: its routines are not among what is typed
lapack: Any = linalg.lapack
#: a direction of the spline is seen by the background's transform if it is this much of the
#: strongest; on usual scans the weakest is some 1e-3
RANK = 1e-10
#: transforms that are kept; runs have one or two of them
REMEMBERED = 32


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
    to_grid: spline.Values | sparse.csr_array  # S, from the points used to the k grid
    transform: Floats  # (m, 2 irbkg), F, from the k grid to the part below rbkg
    solve: Floats  # (2 irbkg, p), from a to c(0), as coordinates y in which |A c|^2 is |y|^2
    basis: Floats  # (p, m), spline on the k grid for coordinates y
    clamps: Floats  # (m, j), from the k grid to the clamped points, times their weights
    shift: Floats  # (j, r), what the clamps see of the r directions of y that they move
    strength: Floats  # (r,), the squared lengths of what they see
    moves: Floats  # (r, m), these directions on the k grid
    release: Floats | None  # (m, m), where the clamps alone decide some directions

    @classmethod
    def compile(
        cls, energy: Floats, e0: float, settings: Autobk, once: bool = False
    ) -> "Background":
        """Prepare; `energy` (n,) eV, ascending.

        Parameters
        ----------
        once
            Whether it is for one use: S is not made as a matrix then, which takes longest.

        Raises
        ------
        ValueError
            If there are too few points for the spline.
        """
        rbkg = max(settings.rbkg, 2 * R_STEP)
        iek0 = index_of(energy, e0)
        above = energy[iek0:] - e0
        kraw = np.sqrt(ETOK * np.abs(above))
        if above[0] < 0:  # the only one that can be
            kraw[0] = -kraw[0]
        kmax = float(kraw[-1])
        if settings.kmax is not None:
            kmax = max(0.0, min(kmax, settings.kmax))
        k = K_STEP * np.arange(int(1.01 + kmax / K_STEP), dtype="float64")
        iemax = min(len(energy), 2 + index_of(energy, e0 + kmax * kmax / ETOK)) - 1
        kmin = settings.kmin
        wide = kmax - kmin
        if wide <= 0:
            raise ValueError(f"kmin = {kmin} is beyond the data's end at k = {kmax:.2f}")
        unclamped = 1 + int(2 * rbkg * wide / np.pi)
        irbkg = int(1 + (unclamped - 1) * np.pi / (2 * R_STEP * wide))
        nspl = max(5, min(128, unclamped))
        knot_points = [index_nearest(kraw, kmin + i * wide / (nspl - 1)) for i in range(nspl)]
        knots_at = kraw[knot_points]
        if (knots_at[1:] <= knots_at[:-1]).any():  # Larch's result is NaN then
            raise ValueError(f"too few points above E0 for {nspl} spline knots")
        used = kraw[: iemax - iek0 + 1]
        # FITPACK's knots of an interpolating cubic spline: all points but the second and last two
        ends = [0] * 4, [-1] * 4
        knots = knots_at[[*ends[0], *range(2, nspl - 2), *ends[1]]]
        functions = BSpline.construct_fast(knots, np.eye(nspl), 3)
        # S knows all points but the second and the last but one as knots: it leaves a spline on
        # some of them as it is
        if knot_points[2] >= 2 and knot_points[-3] <= len(used) - 3:
            sb = functions(k)
        else:
            sb = spline.Values(used, k)(functions(used).T).T
        window = SnappedWindow.of(len(k), kmin, kmax, settings.dk, settings.win)
        f = _transform(window, settings.kweight, irbkg)
        clamps = _clamps(settings, len(k))
        left, to_coefs, free = _decomposed(f.T @ sb)
        release = None
        if free is not None and clamps.shape[1]:
            # directions of c that |A c|^2 does not see serve the clamps alone
            free = sb @ free
            release = np.eye(len(k)) - (free @ np.linalg.pinv(clamps.T @ free) @ clamps.T).T
            clamps = release @ clamps
        basis = to_coefs.T @ sb.T
        shift, length, turn = _moved(basis @ clamps)
        clamped = length > 0
        return cls(
            k=k,
            kmax=kmax,
            points=slice(iek0, iemax + 1),
            to_grid=spline.Values(used, k) if once else spline.matrix(used, k),
            transform=f,
            solve=left,
            basis=basis,
            clamps=clamps,
            shift=shift[:, clamped],
            strength=length[clamped] ** 2,
            moves=turn[clamped] @ basis,
            release=release,
        )

    def __call__(self, mu: Floats) -> Solution:
        """Remove the background of spectra, (b, n)."""
        points = mu[:, self.points]
        if isinstance(self.to_grid, spline.Values):
            grid = self.to_grid(points)
        else:
            grid = np.ascontiguousarray((self.to_grid @ points.T).T)
        a = grid @ self.transform
        y = a @ self.solve
        unseen = a - y @ self.solve.T
        objective = np.einsum("ij,ij->i", unseen, unseen)
        excess = grid - y @ self.basis
        if len(self.strength):
            moved, objective = self._clamped(excess @ self.clamps, objective)
            excess -= moved @ self.moves
        elif self.clamps.shape[1]:
            e = excess @ self.clamps
            objective = objective + (0.1 + self._kappa * objective) ** 2 * np.einsum(
                "ij,ij->i", e, e
            )
        return Solution(excess if self.release is None else excess @ self.release, objective)

    @property
    def _kappa(self) -> float:
        return 10.0 / self.transform.shape[1]

    def _clamped(self, e: Floats, q0: Floats) -> tuple[Floats, Floats]:
        """Minimum of f along c(x): how far y moves in each direction of `moves`, (b, r), and f.

        `e` is p - P c(0), (b, j), and `q0` is q at x = 0, (b,).
        """
        u = e @ self.shift
        rest = np.maximum(np.einsum("ij,ij->i", e, e) - np.einsum("ij,ij->i", u, u), 0.0)
        x, objective = lowest(q0, rest, u * u, self.strength, self._kappa)
        x = x[:, None]
        return x * np.sqrt(self.strength) * u / (1 + x * self.strength), objective


def remainder(settings: Autobk, k_end: float) -> Floats:
    """What AUTOBK leaves of chi(k) as a matrix (m, m), on k from 0 to `k_end`, 1/angstrom.

    The background follows whatever a spectrum has below rbkg, and fine structure has tails there.
    Clamps are left out.
    """
    k = K_STEP * np.arange(int(2.01 + k_end / K_STEP), dtype=np.float64)
    energy = np.asarray(k**2 / ETOK)
    unclamped = settings.model_copy(update={"kmax": k_end, "clamp_lo": 0.0, "clamp_hi": 0.0})
    background = Background.compile(energy, 0.0, unclamped)
    taken = background.transform @ background.solve @ background.basis
    return np.asarray(np.eye(len(taken)) - taken.T)


@lru_cache(maxsize=REMEMBERED)
def _transform(window: SnappedWindow, kweight: int, irbkg: int) -> Floats:
    """F transposed, (m, 2 irbkg): real parts, then imaginary ones."""
    turns = np.exp(-2j * np.pi / NFFT * np.outer(np.arange(window.size), np.arange(irbkg)))
    weighted = FT_SCALE * window.weighted(window.size, kweight)[:, None] * turns
    return np.hstack([weighted.real, weighted.imag])


@lru_cache(maxsize=REMEMBERED)
def _clamps(settings: Autobk, size: int) -> Floats:
    """Clamped points of spectra on the k grid, times their weights; (m, j)."""
    rows = [
        abs(strength) * np.eye(size)[where]
        for strength, where in (
            (settings.clamp_lo, slice(None, settings.nclamp)),
            (settings.clamp_hi, slice(-settings.nclamp, None)),
        )
        if strength and settings.nclamp
    ]
    return np.concatenate([np.zeros((0, size)), *rows]).T


def _moved(clamped: Floats) -> tuple[Floats, Floats, Floats]:
    """Singular values of what clamps see (p, j), transposed; LAPACK takes none for an error."""
    if not clamped.shape[1]:
        return np.zeros((0, 0)), np.zeros(0), np.zeros((0, len(clamped)))
    shift, length, turn, _ = lapack.dgesdd(clamped.T, full_matrices=0)
    return shift, length, turn


def _decomposed(a: Floats) -> tuple[Floats, Floats, Floats | None]:
    """A (2 irbkg, nspl) as an orthonormal matrix and coordinates.

    Returns
    -------
    left, to_coefs, free
        (2 irbkg, p), orthonormal; (nspl, p), to coefficients c from coordinates y for which A c is
        `left` y; (nspl, nspl - p), directions of c that A does not see, None where it sees all.
    """
    packed, tau, _, _ = lapack.dgeqrf(a)
    right = packed[: a.shape[1]] * _triangle(a.shape[1])[: len(packed)]
    strengths = np.abs(right.diagonal())
    if len(right) == a.shape[1] and strengths.min() > math.sqrt(RANK) * strengths.max():
        inverse, _ = lapack.dtrtri(right)
        return lapack.dorgqr(packed, tau)[0], inverse, None
    left, size, right = linalg.svd(a)
    rank = int((size > RANK * size[0]).sum())
    free = right[rank:].T if rank < a.shape[1] else None
    return left[:, :rank], right[:rank].T / size[:rank], free


@lru_cache(maxsize=REMEMBERED)
def _triangle(size: int) -> Floats:
    return np.triu(np.ones((size, size)))

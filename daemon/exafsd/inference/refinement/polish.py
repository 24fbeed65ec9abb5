"""The polish: feffit's own fit, from the network's answer, through ``equation.onnx``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.card import Card
from exafsd.contract.grid import K_GRID, K_STEP
from exafsd.contract.recipe import FitWindow
from exafsd.inference.refinement.least_squares import minimize_batch
from exafsd.inference.refinement.reference_fit import ReferenceFit
from exafsd.spectra import Floats, Prediction

Status = Literal["converged", "at_bound", "failed", "shed", "off"]
#: theta (b, p) to chi (b, 401) and its derivatives (b, 401, p)
EquationLike = Callable[[Floats], tuple[NDArray[np.floating], NDArray[np.floating]]]
#: fit window and data end in 1/angstrom to what multiplies k^2 chi, (401,): Larch's window
#: cut to the data, times k^(kweight - 2); zero beyond the data
Weigh = Callable[[FitWindow, float], Floats]

#: feffit's transform: length, and R step of 0.0307 angstrom
NFFT = 2048
R_STEP = np.pi / (K_STEP * NFFT)
#: Independent points that must be left over for an error bar that means something.
SPARE_POINTS = 1.0
#: Share of chi(R) that may be dropped: below what float64 sums hold anyway.
NEGLIGIBLE = 1e-8
#: R-factor, beyond noise, above which a fit is flawed by the usual rule of thumb of EXAFS analysis,
#: and its error bars mean little.
UNEXPLAINED = 0.05
#: Data ends whose objective is kept, 0.4 MB each. A run has one, or two while it settles.
OBJECTIVES = 16


@dataclass(frozen=True)
class Objective:
    """What feffit minimizes in R space, for one fit window and data end.

    `matrix` is (l, m), from k^2 chi at the m points `inside` where the k window is not zero to
    numbers whose sum of squares is that of chi(R), real and imaginary, in the R window.
    `chi_matrix` is the same for chi.
    """

    matrix: Floats
    chi_matrix: Floats
    inside: slice
    n_idp: float


def objective(weigh: Weigh, window: FitWindow, k_end: float) -> Objective:
    """Objective of a window on data that end at `k_end`, 1/angstrom."""
    rows = chi_rows(weigh, window, k_end)
    used = np.flatnonzero(rows.any(axis=0))
    inside = slice(int(used[0]), int(used[-1]) + 1)
    # chi(R) is oversampled; these combinations of its points hold all of the sum of squares
    _, size, along = np.linalg.svd(rows[:, inside], full_matrices=False)
    significant = size > NEGLIGIBLE * size[0]
    matrix = size[significant, None] * along[significant]
    k_max = min(window.k[1], k_end - 0.5)
    n_idp = 1.0 + 2.0 * (window.r[1] - window.r[0]) * (k_max - window.k[0]) / np.pi
    return Objective(matrix, matrix * K_GRID[inside] ** 2, inside, n_idp)


def chi_rows(weigh: Weigh, window: FitWindow, k_end: float) -> Floats:
    """From k^2 chi (401,) to the real and the imaginary parts of chi(R) in a window, a row each."""
    # rounded as in Larch, which leaves out the step at the upper end
    first, last = (int(0.01 + r / R_STEP) for r in window.r)
    turn = 2j * np.pi / NFFT * np.outer(np.arange(first, last), np.arange(K_GRID.size))
    rows = K_STEP / np.sqrt(np.pi) * np.exp(-turn) * weigh(window, k_end)
    return np.concatenate([rows.real, rows.imag])


@dataclass(frozen=True)
class Fit:
    """The n variables of a fit that ended, and what is known of them.

    `value` is (n,), the covariances are (n, n): `cov` is of all that the values may be off by,
    `noise_cov` propagates the noise of chi(k), NaN where that is not known, `feffit_cov` is scaled
    by the misfit as feffit does it, `trend_cov` is against other sweeps of the run, NaN where that
    is not known. `bound` (n,) are the variables that ended on a bound and were
    held there. `whole` says that all of the model's paths were fitted, and that `cov` holds FEFF's
    errors as well as noise. `unexplained` is what of the R-factor is not noise.
    """

    ids: tuple[str, ...]
    value: Floats
    cov: Floats
    noise_cov: Floats
    feffit_cov: Floats
    trend_cov: Floats
    bound: NDArray[np.bool_]
    r_factor: float
    whole: bool = False
    unexplained: float = 0.0


@dataclass(frozen=True)
class Polished:
    """How a polish went, and its fit where there is one."""

    status: Status
    n_idp: float | None = None
    n_var: int | None = None
    fit: Fit | None = None
    evaluations: int = 0


#: a polish that was skipped under load, and one that is not made
SHED, OFF = Polished("shed"), Polished("off")


def fittable(chi_k2: NDArray[np.floating], predictions: Sequence[Prediction]) -> list[int]:
    """Which spectra (b, 401) have data, and a finite answer of the network to start from."""
    return [
        i
        for i, (row, p) in enumerate(zip(chi_k2, predictions, strict=True))
        if np.isfinite(row).all() and row.any() and np.isfinite(p.theta).all()
    ]


class Polisher:
    """Polishes spectra of one bundle.

    Parameters
    ----------
    card
        Its card.
    equation
        Its `exafsd.inference.predictor.Equation`.
    weigh
        Larch's k window, from the reduction: this package does without Larch.
    """

    def __init__(self, card: Card, equation: EquationLike, weigh: Weigh) -> None:
        self._window = card.fit[0]
        self._equation = equation
        self._objective = lru_cache(maxsize=OBJECTIVES)(partial(objective, weigh, self._window))
        self._reference = ReferenceFit.of(card)

    def __call__(
        self,
        chi_k2: NDArray[np.floating],
        predictions: Sequence[Prediction],
        k_end: float,
        epsilon_k: Sequence[float | None],
    ) -> list[Polished]:
        """Polish spectra with one data end; never raises on bad data.

        Parameters
        ----------
        chi_k2
            (b, 401) k^2 chi(k) on the contract grid, 1/angstrom^2, not masked at low k.
        predictions
            What the network reads from them.
        k_end
            End of the data, 1/angstrom.
        epsilon_k
            Noise of chi(k) of each.
        """
        reference = self._reference
        if reference is None or k_end - 0.5 <= self._window.k[0]:
            return [OFF] * len(chi_k2)
        goal = self._objective(k_end)
        if goal.n_idp - len(reference.ids) < SPARE_POINTS:
            return [OFF] * len(chi_k2)
        polished = [Polished("failed", goal.n_idp, len(reference.ids))] * len(chi_k2)
        rows = fittable(chi_k2, predictions)
        if rows:
            read = [predictions[i] for i in rows]
            noise = [epsilon_k[i] for i in rows]
            for i, one in zip(
                rows, self._fits(reference, goal, chi_k2[rows], read, noise), strict=True
            ):
                polished[i] = one
        return polished

    def _fits(
        self,
        reference: ReferenceFit,
        goal: Objective,
        chi_k2: NDArray[np.floating],
        predictions: Sequence[Prediction],
        epsilon_k: Sequence[float | None],
    ) -> list[Polished]:
        inside, chi_matrix = goal.inside, goal.chi_matrix
        data = chi_k2[:, inside] @ goal.matrix.T

        def evaluate(x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
            chi, jacobian = self._equation(reference.theta(x))
            slopes = chi_matrix @ (jacobian[:, inside] @ reference.basis)
            return chi[:, inside] @ chi_matrix.T - data[rows], slopes

        start = reference.start(np.stack([p.theta for p in predictions]))
        begin = evaluate(start, np.arange(len(start)))
        total = np.sum(data**2, axis=-1)
        n_var = len(reference.ids)
        freedom = goal.n_idp - n_var
        end = minimize_batch(
            evaluate, start, begin, (reference.low, reference.high), total, freedom
        )
        # how the variables answer to a change of chi(R), and thus to noise
        unscaled = end.inverse()
        to_noise = unscaled @ np.swapaxes(end.jacobian, -1, -2) @ chi_matrix
        polished: list[Polished] = []
        for i, epsilon in enumerate(epsilon_k):
            if not end.converged[i]:
                polished.append(Polished("failed", goal.n_idp, n_var, None, end.evaluations))
                continue
            variance = epsilon**2 if epsilon is not None else np.nan
            noise_cov = variance * to_noise[i] @ to_noise[i].T
            fit = Fit(
                ids=reference.ids,
                value=end.x[i],
                cov=noise_cov,
                noise_cov=noise_cov,
                feffit_cov=unscaled[i] * end.cost[i] / freedom,
                trend_cov=np.full_like(noise_cov, np.nan),
                bound=end.bound[i],
                r_factor=float(end.cost[i] / total[i]),
            )
            status = "at_bound" if end.bound[i].any() else "converged"
            polished.append(Polished(status, goal.n_idp, n_var, fit, end.evaluations))
        return polished

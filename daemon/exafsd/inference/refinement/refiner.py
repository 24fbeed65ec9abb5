"""The refinement: all of a model's paths, weighed by noise and by FEFF's errors, with priors.

A fit of the nearest shell alone, without a third cumulant, is what Artemis users know; it is a
worse fit than it could be. This one varies everything the network reads, from the network's
answer, through ``refinement.onnx``. What it minimizes is chi^2 with the covariance of noise and
theory, and what is known beforehand, so that its error bars hold what it may be off by.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.card import Card, Refinement
from exafsd.contract.grid import K_STEP
from exafsd.inference.refinement.least_squares import minimize
from exafsd.inference.refinement.polish import (
    OBJECTIVES,
    OFF,
    SPARE_POINTS,
    Fit,
    Objective,
    Polished,
    Status,
    Weigh,
    chi_rows,
    fittable,
    objective,
)
from exafsd.inference.refinement.reference_fit import ReferenceFit
from exafsd.inference.refinement.theory import TheoryCovariance
from exafsd.inference.refinement.variables import Variables
from exafsd.spectra import Floats, Prediction

#: theta (b, p) to complex chi (b, m, g), a pair, and the derivatives (b, m, p) of its sum
WavesLike = Callable[
    [Floats], tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
]
#: Noise of chi(k) at least, and where it is not known.
LEAST_NOISE, UNKNOWN_NOISE = 1e-6, 1e-3
#: Keeps `minimize` from asking for more than chi^2 = 1 is worth: it scales by share of `total`.
CHI2_SCALE = 1e8
#: The same for its last step: below a seventh of an error bar, and made nevertheless, it leaves
#: an error of the second order.
WORTH = 0.1


@dataclass(frozen=True)
class Prepared:
    """What depends on the data's end only: data and graph to what is fitted, and its errors.

    `goal` is of the data, `matrix` (l, m) from chi at the points of the graph to the same numbers,
    `noise` (l, l) their covariance for noise of 1 in chi(k).
    """

    goal: Objective
    matrix: Floats
    noise: Floats
    theory: TheoryCovariance


class Refiner:
    """Refines what the network reads from spectra of one bundle.

    Parameters
    ----------
    card
        Its card.
    waves
        Its `exafsd.inference.predictor.Waves`.
    weigh
        Larch's k window, from the reduction: this package does without Larch.
    """

    def __init__(self, card: Card, waves: WavesLike, weigh: Weigh) -> None:
        variables, about = Variables.of(card), card.refinement
        if variables is None or about is None:
            raise ValueError(f"the card of {card.name} has no refinement")
        self._variables, self._waves, self._window = variables, waves, card.fit[0]
        position = card.edge_position
        self._e0_std = position.zero_std if position else None
        self._like_feffit = ReferenceFit.of(card)
        self._k: Floats = about.k_min + about.k_step * np.arange(about.size, dtype=np.float64)
        self._floor = about.theory.floor

        def prepared(k_end: float) -> Prepared:
            return _prepared(weigh, card, about, self._k, k_end)

        self._prepared = lru_cache(maxsize=OBJECTIVES)(prepared)

    def __call__(
        self,
        chi_k2: NDArray[np.floating],
        predictions: Sequence[Prediction],
        k_end: float,
        epsilon_k: Sequence[float | None],
        e0_shift: Sequence[float | None],
    ) -> list[Polished]:
        """Refine spectra with one data end; never raises on bad data.

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
        e0_shift
            Where the material's zero of energy is, eV from each spectrum's E0; None if unknown.
        """
        if k_end - 0.5 <= self._window.k[0]:
            return [OFF] * len(chi_k2)
        prepared = self._prepared(k_end)
        free = len(self._like_feffit.ids) if self._like_feffit else len(self._variables.ids)
        if prepared.goal.n_idp - free < SPARE_POINTS:
            return [OFF] * len(chi_k2)
        n_idp, n_var = prepared.goal.n_idp, len(self._variables.ids)
        polished = [Polished("failed", n_idp, n_var)] * len(chi_k2)
        rows = fittable(chi_k2, predictions)
        if rows:
            fits = self._fits(
                prepared,
                chi_k2[rows],
                [predictions[i] for i in rows],
                np.array([epsilon_k[i] or np.nan for i in rows]),
                np.array([np.nan if (e := e0_shift[i]) is None else e for i in rows]),
            )
            for i, (status, fit, evaluations) in zip(rows, fits, strict=True):
                polished[i] = Polished(status, n_idp, n_var, fit, evaluations)
        return polished

    def _fits(
        self,
        prepared: Prepared,
        chi_k2: NDArray[np.floating],
        predictions: Sequence[Prediction],
        epsilon: Floats,
        e0_shift: Floats,
    ) -> Iterator[tuple[Status, Fit | None, int]]:
        """How each fit went; `epsilon` and `e0_shift` (b,) are NaN where they are not known."""
        variables, goal = self._variables, prepared.goal
        data = chi_k2[:, goal.inside] @ goal.matrix.T
        mean, std = self._prior(e0_shift)
        start = variables.start(np.stack([p.theta for p in predictions]))
        held = np.eye(len(variables.ids)) / std[:, None, :]

        def chi_and_slopes(x: Floats) -> tuple[Floats, Floats, Floats]:
            theta, slopes = variables.theta(x)
            real, imag, jacobian = (np.asarray(x, dtype=np.float64) for x in self._waves(theta))
            return real, imag, (prepared.matrix @ jacobian) @ slopes

        real, imag, slopes = chi_and_slopes(start)
        covariance = self._covariance(prepared, real, imag, data, epsilon)
        white = np.linalg.inv(np.linalg.cholesky(covariance))

        def weighed(
            x: Floats, rows: NDArray[np.intp], imag: Floats, slopes: Floats
        ) -> tuple[Floats, Floats]:
            rest = imag.sum(-1) @ prepared.matrix.T - data[rows]
            rest = (white[rows] @ rest[..., None])[..., 0]
            away = (x - mean[rows]) / std[rows]
            return (
                np.concatenate([rest, away], axis=1),
                np.concatenate([white[rows] @ slopes, held[rows]], axis=1),
            )

        def evaluate(x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
            _, imag, slopes = chi_and_slopes(x)
            return weighed(x, rows, imag, slopes)

        begin = weighed(start, np.arange(len(start)), imag, slopes)
        total = np.full(len(start), CHI2_SCALE)
        end = minimize(evaluate, start, begin, (variables.low, variables.high), total, WORTH)
        theta, to_theta = variables.theta(end.x)
        fitted = slice(0, data.shape[1])
        moved, colour = end.jacobian[:, fitted], np.linalg.inv(white)
        inverse = to_theta @ end.inverse()
        cov = inverse @ np.swapaxes(to_theta, 1, 2)
        # how theta answers to a change of what is fitted, and thus to noise
        answer = inverse @ np.swapaxes(moved, 1, 2) @ white
        noise_cov = epsilon[:, None, None] ** 2 * (
            answer @ prepared.noise @ np.swapaxes(answer, 1, 2)
        )
        rest = (colour @ end.residual[:, fitted, None])[..., 0]
        cost, size = np.sum(rest**2, axis=-1), np.sum(data**2, axis=-1)
        like_feffit = self._like_feffit_cov(colour @ moved, cost, goal.n_idp)
        for i in range(len(start)):
            if not (end.converged[i] and np.isfinite(cov[i]).all()):
                yield "failed", None, end.evaluations
                continue
            fit = Fit(
                ids=variables.ids,
                value=theta[i],
                cov=cov[i],
                noise_cov=noise_cov[i],
                feffit_cov=like_feffit[i],
                bound=end.bound[i],
                r_factor=float(cost[i] / size[i]),
                whole=True,
            )
            yield "at_bound" if end.bound[i].any() else "converged", fit, end.evaluations

    def _prior(self, e0_shift: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations (b, n) of the variables."""
        variables = self._variables
        mean = np.tile(variables.mean, (len(e0_shift), 1))
        std = np.tile(variables.std, (len(e0_shift), 1))
        if self._e0_std is not None:
            placed = np.isfinite(e0_shift)
            mean[placed, variables.e0] = e0_shift[placed]
            std[placed, variables.e0] = self._e0_std
        return mean, std

    def _covariance(
        self, prepared: Prepared, real: Floats, imag: Floats, data: Floats, epsilon: Floats
    ) -> Floats:
        """(b, l, l) of what is fitted, by theory, noise, and misfit of any other kind."""
        noise = np.maximum(np.nan_to_num(epsilon, nan=UNKNOWN_NOISE), LEAST_NOISE)
        covariance = prepared.theory(real, imag) + noise[:, None, None] ** 2 * prepared.noise
        floor = self._floor * np.mean(data**2, axis=-1)
        return np.asarray(covariance + floor[:, None, None] * np.eye(data.shape[1]))

    def _like_feffit_cov(self, slopes: Floats, cost: Floats, n_idp: float) -> Floats:
        """(b, p, p) as feffit has it for the variables of the reference fit; NaN for the others.

        `slopes` (b, l, n) of what is fitted, without weights.
        """
        cov = np.full((len(cost), slopes.shape[2], slopes.shape[2]), np.nan)
        reference = self._like_feffit
        if reference is not None:
            free = np.ix_(range(len(cost)), reference.first, reference.first)
            own = slopes[:, :, reference.first]
            normal = np.swapaxes(own, 1, 2) @ own
            size = np.sqrt(np.diagonal(normal, axis1=1, axis2=2))
            scaled = normal / (size[:, :, None] * size[:, None, :])
            inverse = np.linalg.pinv(scaled) / (size[:, :, None] * size[:, None, :])
            cov[free] = inverse * (cost / (n_idp - len(reference.first)))[:, None, None]
        return cov


def _prepared(weigh: Weigh, card: Card, about: Refinement, k: Floats, k_end: float) -> Prepared:
    window = card.fit[0]
    goal = objective(weigh, window, k_end)
    rows = chi_rows(weigh, window, k_end)
    every = round(about.k_step / K_STEP)
    place = np.rint(k / K_STEP).astype(int)
    # the same integral over k, on the graph's points
    coarse = every * rows[:, place] * k**2
    # what is fitted are combinations of points of chi(R): those that `objective` chose
    combine = goal.matrix @ np.linalg.pinv(rows[:, goal.inside])
    matrix = combine @ coarse
    return Prepared(
        goal, matrix, goal.chi_matrix @ goal.chi_matrix.T, TheoryCovariance(matrix, k, about.theory)
    )

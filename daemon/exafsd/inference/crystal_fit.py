"""Reading a spectrum by fitting a crystal to it, where no network has been trained.

The fit minimizes the misfit in R space, in the window of the nearest shell and, with less weight,
in one of all shells of the model, beside what is likely beforehand of every variable. It begins at
several E0 and keeps the best end. The model loses to the background what the data have lost, and
the near edge may have done to it what is likely. FEFF's errors do not weigh the misfit, unlike in
the refinement: from a crystal far off they would excuse any misfit. They widen the error bars
instead.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.card import Card
from exafsd.contract.grid import K_GRID
from exafsd.contract.recipe import FitWindow
from exafsd.inference.refinement.least_squares import Minimum, minimize_batch
from exafsd.inference.refinement.polish import OBJECTIVES, EquationLike, Objective, Weigh
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.refinement.weighed import (
    CHI2_SCALE,
    LEAST_NOISE,
    UNKNOWN_NOISE,
    WORTH,
    Prepared,
    WavesLike,
    prepare,
)
from exafsd.inference.second_phase import Rival, SecondPhase
from exafsd.spectra import Floats, Prediction

#: What is fitted with one data end: both windows together, and each alone.
Windows = tuple[Prepared, Prepared, Prepared]
#: Evaluations from every beginning, of which the best goes on, and after which that has failed.
FIRST, EVALUATIONS = 3, 40
#: Spectra that are fitted together, from all beginnings.
TOGETHER = 16


class CrystalFit:
    """Fits spectra of one bundle without a network.

    Parameters
    ----------
    card
        Its card, with `reading` and `refinement`.
    waves, equation
        Its graphs, `exafsd.inference.predictor.Waves` and `Equation`.
    weigh
        Larch's k window, from the reduction: this package does without Larch.

    Raises
    ------
    ValueError
        If the card lacks what a fit needs.
    """

    def __init__(self, card: Card, waves: WavesLike, equation: EquationLike, weigh: Weigh) -> None:
        about, reading, variables = card.refinement, card.reading, Variables.of(card)
        if about is None or reading is None or variables is None:
            raise ValueError(f"the card of {card.name} does not say how to fit its crystal")
        self.variables, self._waves, self._equation = variables, waves, equation
        self._reading = reading
        self._position = card.edge_position
        calibration = card.calibration
        scale = [calibration.std_scale.get(id_, 1.0) for id_ in variables.ids]
        self._scale: Floats = np.array(scale, dtype=np.float64)
        bias = np.array([calibration.bias.get(id_, 0.0) for id_ in variables.ids])
        relative = np.array([p.name == "n_s02" for p in card.parameters])
        self._share: Floats = 1.0 - np.where(relative, bias, 0.0)
        self._bias: Floats = np.where(relative, 0.0, bias)

        def prepared(k_end: float) -> Windows:
            autobk = card.recipe.autobk
            near = prepare(weigh, card.fit[0], about, k_end, autobk)
            whole = prepare(weigh, reading.window, about, k_end, autobk)
            return stacked(near, whole, reading.whole_weight), near, whole

        self._prepared = lru_cache(maxsize=OBJECTIVES)(prepared)
        self._card = card
        self.compare_with(())

    def compare_with(self, rivals: Sequence[Rival]) -> None:
        """Look for the phases of other models of the edge in what the fits leave over."""
        self._second = SecondPhase(self._card, rivals, lambda k_end: self._prepared(k_end)[0])

    @property
    def window(self) -> FitWindow:
        """Window of the fit."""
        return self._reading.window

    def __call__(
        self,
        chi_k2: NDArray[np.floating],
        k_end: float,
        epsilon_k: Sequence[float | None],
        e0_shift: Sequence[float | None],
    ) -> list[Prediction]:
        """Fit spectra with one data end.

        Parameters
        ----------
        chi_k2
            (b, 401) k^2 chi(k) on the contract grid, 1/angstrom^2, not masked at low k.
        k_end
            End of the data, 1/angstrom.
        epsilon_k
            Noise of chi(k) of each.
        e0_shift
            Where the material's zero of energy is, eV from each spectrum's E0; None if unknown.

        Returns
        -------
        predictions
            Their score is the R-factor beyond what noise explains. Where no fit has converged,
            they are not finite.
        """
        windows = self._prepared(k_end)
        inside = windows[0].goal.inside
        fitted: list[Prediction] = []
        for start in range(0, len(chi_k2), TOGETHER):
            rows = slice(start, start + TOGETHER)
            noise = [e if e and np.isfinite(e) else UNKNOWN_NOISE for e in epsilon_k[rows]]
            fitted += self._fits(
                k_end,
                np.asarray(chi_k2[rows][:, inside], dtype=np.float64),
                np.maximum(noise, LEAST_NOISE),
                [self._e0(shift) for shift in e0_shift[rows]],
            )
        return fitted

    def _e0(self, shift: float | None) -> tuple[float, float]:
        """Mean and standard deviation of E0, eV."""
        if shift is None or self._position is None:
            return self._reading.e0_prior
        return shift, self._position.zero_std

    def _fits(
        self, k_end: float, chi_k2: Floats, noise: Floats, e0: Sequence[tuple[float, float]]
    ) -> list[Prediction]:
        """Fits of spectra (b, m) at the points of the windows, which share one range in k."""
        prepared, near, whole = self._prepared(k_end)
        data = chi_k2 @ prepared.goal.matrix.T
        variables, starts = self.variables, np.array(self._reading.e0)
        spectra, count = len(data), len(starts)
        mean, std = (np.tile(x, (spectra, 1)) for x in (variables.mean, variables.std))
        mean[:, variables.e0], std[:, variables.e0] = np.array(e0).T
        power = np.mean((chi_k2 @ near.goal.matrix.T) ** 2, axis=1)
        size = np.sqrt(self._reading.floor * power + noise**2 * np.mean(np.diag(near.noise)))
        to_tails, white = weights(prepared.theory.tails, size)

        def fitted(start: Floats, of: NDArray[np.intp], evaluations: int) -> Minimum:
            """Where fits of the spectra `of` end that begin at `start`."""

            def evaluate(x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
                own = of[rows]
                chi, slopes, _ = prepared.signal(variables, self._waves, x)
                rest = (white[own] @ (chi - data[own])[..., None])[..., 0]
                held = np.eye(x.shape[1]) / std[own, :, None]
                residual = np.concatenate([rest, (x - mean[own]) / std[own]], axis=1)
                return residual, np.concatenate([white[own] @ slopes, held], axis=1)

            start = np.clip(start, variables.low, variables.high)
            begin = evaluate(start, np.arange(len(start)))
            total = np.full(len(start), CHI2_SCALE)
            bounds = variables.low, variables.high
            return minimize_batch(evaluate, start, begin, bounds, total, WORTH, evaluations)

        of = np.repeat(np.arange(spectra), count)
        start = mean[of]
        start[:, variables.e0] = np.tile(starts, spectra)
        first = fitted(start, of, FIRST)
        cost = np.where(np.isfinite(first.cost), first.cost, np.inf).reshape(spectra, count)
        best = np.argmin(cost, axis=1) + count * np.arange(spectra)
        end = fitted(first.x[best], np.arange(spectra), EVALUATIONS)
        x, inverse = end.x, end.inverse()
        chi, slopes, waves = prepared.signal(variables, self._waves, x)
        misfit = np.sum((chi - data) ** 2, axis=1)
        spread = prepared.theory(*waves)
        likely = spread @ np.swapaxes(spread, 1, 2) + noise[:, None, None] ** 2 * prepared.noise
        # what neither noise nor FEFF's usual errors explain may be in every direction
        beyond = np.maximum(misfit / np.trace(likely, axis1=1, axis2=2), 1.0)
        left = (white @ (data - chi)[..., None])[..., 0]
        second = self._second(k_end, white, left, white @ slopes, std)
        answer = inverse @ np.swapaxes(white @ slopes, 1, 2) @ white
        prior = inverse / std[:, None, :]
        cov = answer @ (beyond[:, None, None] * likely) @ np.swapaxes(answer, 1, 2)
        cov += prior @ np.swapaxes(prior, 1, 2)
        theta, to_theta = variables.theta(x)
        cov = to_theta @ cov @ np.swapaxes(to_theta, 1, 2) * np.outer(self._scale, self._scale)
        all_shells = chi_k2 @ whole.goal.matrix.T
        near_edge = (to_tails @ (data - chi)[..., None])[..., 0] @ whole.theory.tails.T
        rest = np.sum((waves[1].sum(-1) @ whole.matrix.T + near_edge - all_shells) ** 2, axis=1)
        r_factor = (rest - noise**2 * np.trace(whole.noise)) / np.sum(all_shells**2, axis=1)
        theta[~(end.converged & np.isfinite(end.cost))] = np.nan
        shown = np.asarray(self._equation(np.nan_to_num(theta))[0], dtype=float) * K_GRID**2
        theta = self._share * theta - self._bias
        return [
            Prediction(
                theta[i],
                cov[i],
                shown[i],
                shown[i],
                max(float(r_factor[i]), 0.0),
                tuple(
                    id_
                    for id_, at_bound in zip(variables.ids, end.bound[i], strict=True)
                    if at_bound
                ),
                second[i],
            )
            for i in range(spectra)
        ]


def weights(tails: Floats, size: Floats) -> tuple[Floats, Floats]:
    """How misfit is weighed if the near edge may do as much as is likely, and the rest is white.

    Parameters
    ----------
    tails
        (l, q) what the near edge does by way of the background, each of one sigma.
    size
        (b,) standard deviation of any other misfit.

    Returns
    -------
    to_tails, white
        (b, q, l), from misfit to the likeliest tails; (b, l, l), which makes misfit white.
    """
    likely = tails.T @ tails + size[:, None, None] ** 2 * np.eye(tails.shape[1])
    to_tails = np.linalg.solve(likely, tails.T)
    white = np.linalg.cholesky(np.eye(len(tails)) - tails @ to_tails, upper=True)
    return to_tails.astype(np.float64), white / size[:, None, None]


def stacked(near: Prepared, whole: Prepared, weight: float) -> Prepared:
    """Two windows of one range in k fitted together, the squares of the second times `weight`."""
    scale = np.sqrt(weight)

    def both(one: Floats, other: Floats) -> Floats:
        return np.concatenate([one, scale * other])

    goal = Objective(
        both(near.goal.matrix, whole.goal.matrix),
        both(near.goal.chi_matrix, whole.goal.chi_matrix),
        near.goal.inside,
        whole.goal.n_idp,
    )
    return Prepared(
        goal,
        both(near.matrix, whole.matrix),
        goal.chi_matrix @ goal.chi_matrix.T,
        near.theory.stacked(whole.theory, scale),
    )

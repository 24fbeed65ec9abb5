"""The refinement: all of a model's paths, weighed by noise and by FEFF's errors, with priors.

A fit of the nearest shell alone, without a third cumulant, is what Artemis users know; it is a
worse fit than it could be. This one varies everything the network reads, from the network's
answer, through ``refinement.onnx``. What it minimizes is chi^2 with the covariance of noise and
theory, and what is known beforehand, so that its error bars hold what it may be off by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.card import Card
from exafsd.inference.refinement.least_squares import RIDGE, Minimum
from exafsd.inference.refinement.polish import (
    OBJECTIVES,
    OFF,
    SPARE_POINTS,
    UNEXPLAINED,
    Fit,
    Polished,
    Status,
    Weigh,
    fittable,
)
from exafsd.inference.refinement.reference_fit import ReferenceFit
from exafsd.inference.refinement.theory import error_count
from exafsd.inference.refinement.trend import OWN_E0, Expected, Linear, Trend
from exafsd.inference.refinement.variables import VAGUE_E0, Variables
from exafsd.inference.refinement.weighed import (
    Goal,
    Prepared,
    Signal,
    WavesLike,
    WhitenedResiduals,
    prepare,
)
from exafsd.spectra import Floats, Prediction

#: Evaluations after which a refinement has failed. From the network's answer 44 measured spectra
#: took 4 at most, and 300 simulated ones of copper (100 to 1000 K, 1e5 to 1e8 photons) 2.
EVALUATIONS = 6
#: Trends of which it is remembered what they expect.
TRENDS = 16


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
        self.variables, self._waves, self._window = variables, waves, card.fit[0]
        position = card.edge_position
        self._e0_std = position.zero_std if position else VAGUE_E0
        self._like_feffit = ReferenceFit.of(card)
        self._floor = about.theory.floor

        def prepared(k_end: float) -> Prepared:
            return prepare(weigh, self._window, about, k_end, card.recipe.autobk)

        self._prepared = lru_cache(maxsize=OBJECTIVES)(prepared)
        self._expected: dict[tuple[int, float], tuple[Floats, Expected]] = {}

    def begin(self) -> Trend:
        """A trend before its first sweep."""
        groups = self._waves(self.variables.mean[None])[0].shape[-1]
        return Trend.begin(self.variables, error_count(groups), self._e0_std)

    def __call__(
        self,
        chi_k2: NDArray[np.floating],
        predictions: Sequence[Prediction],
        k_end: float,
        epsilon_k: Sequence[float | None],
        e0_shift: Sequence[float | None],
        trend: Trend | None = None,
        learn: bool = False,
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
        trend
            What other sweeps of the run have taught; None where there are none.
        learn
            Whether these teach it something.
        """
        if k_end - 0.5 <= self._window.k[0]:
            return [OFF] * len(chi_k2)
        prepared = self._prepared(k_end)
        free = len(self._like_feffit.ids) if self._like_feffit else len(self.variables.ids)
        if prepared.goal.n_idp - free < SPARE_POINTS:
            return [OFF] * len(chi_k2)
        n_idp, n_var = prepared.goal.n_idp, len(self.variables.ids)
        polished = [Polished("failed", n_idp, n_var)] * len(chi_k2)
        trend = trend or self.begin()
        for rows, placed in self._placed(fittable(chi_k2, predictions), e0_shift):
            mean = [e0_shift[i] if placed else self.variables.mean[self.variables.e0] for i in rows]
            job = _Job(
                trend,
                learn and placed,
                chi_k2[rows],
                [predictions[i] for i in rows],
                np.array([_finite(epsilon_k[i]) for i in rows]),
                np.array(mean, dtype=np.float64),
                OWN_E0 if placed else VAGUE_E0,
            )
            for i, (status, fit, evaluations) in zip(rows, self._fits(prepared, job), strict=True):
                polished[i] = Polished(status, n_idp, n_var, fit, evaluations)
        return polished

    @staticmethod
    def _placed(
        rows: Sequence[int], e0_shift: Sequence[float | None]
    ) -> Iterator[tuple[list[int], bool]]:
        """Spectra whose near edge says where E0 is, and those whose does not."""
        for placed in (True, False):
            alike = [i for i in rows if (e0_shift[i] is not None) is placed]
            if alike:
                yield alike, placed

    def _fits(self, prepared: Prepared, job: "_Job") -> Iterator[tuple[Status, Fit | None, int]]:
        """How each fit went."""
        variables, trend = self.variables, job.trend
        expected = self._expected_of(trend, job.e0_std)
        mean = np.tile(expected.mean, (len(job.chi_k2), 1))
        mean[:, variables.e0] += job.e0
        goal = Goal.of(prepared, expected, job.chi_k2, job.epsilon, mean, self._floor)
        start = variables.start(np.stack([p.theta for p in job.predictions]))
        shared = job.learn or trend.anchor is not None
        if shared:
            # what FEFF's errors do is taken from a better answer than the network's
            start = self._stepped(goal, start)
        end, linear, white = self._minimum(goal, job, start)
        theta, to_theta = variables.theta(end.x)
        inverse = to_theta @ end.inverse()
        cov = inverse @ np.swapaxes(to_theta, 1, 2)
        # how theta answers to a change of what is fitted, and thus to noise
        moved = end.jacobian[:, : goal.data.shape[1]]
        answer = inverse @ np.swapaxes(moved, 1, 2) @ white
        unit = prepared.noise * job.epsilon[:, None, None] ** 2
        noise_cov = answer @ unit @ np.swapaxes(answer, 1, 2)
        cost, size = np.sum(linear.misfit**2, axis=-1), np.sum(goal.data**2, axis=-1)
        noisy = np.trace(goal.noise, axis1=1, axis2=2)
        like_feffit = self._like_feffit_cov(linear.slopes, cost, prepared.goal.n_idp)
        change = trend.change(variables, linear) if shared else None
        own = np.ix_(variables.own, variables.own)
        trend_cov = np.full_like(cov, np.nan)
        for i, prediction in enumerate(job.predictions):
            if not (end.converged[i] and np.isfinite(cov[i]).all()):
                yield "failed", None, end.evaluations
                continue
            free = not end.bound[i].any()
            unexplained = max(float((cost[i] - noisy[i]) / size[i]), 0.0)
            if free and change is not None:
                theta[i, list(variables.own)] += change.shift[i]
                cov[i][own] += change.cov[i]
                trend_cov[i][own] = change.scatter[i]
                if job.learn and unexplained <= UNEXPLAINED:
                    trend.learn(variables, linear.of(i), float(prediction.theta[variables.sigma2]))
            fit = Fit(
                ids=variables.ids,
                value=theta[i],
                cov=cov[i],
                noise_cov=noise_cov[i],
                feffit_cov=like_feffit[i],
                trend_cov=trend_cov[i],
                bound=end.bound[i],
                r_factor=float(cost[i] / size[i]),
                whole=True,
                unexplained=unexplained,
            )
            yield "converged" if free else "at_bound", fit, end.evaluations

    def _expected_of(self, trend: Trend, e0_std: float) -> Expected:
        """What is likely of a sweep: the same until the trend learns again."""
        key = id(trend.cov), e0_std
        cov, expected = self._expected.get(key, (None, None))
        if expected is None or cov is not trend.cov:
            if len(self._expected) >= TRENDS:
                self._expected.clear()
            expected = trend.expected(self.variables, e0_std)
            self._expected[key] = trend.cov, expected
        return expected

    def _about(self, goal: Goal, start: Floats) -> WhitenedResiduals:
        """Fits about a start."""

        def modelled(x: Floats, rows: NDArray[np.intp]) -> Signal:
            return goal.prepared.signal(self.variables, self._waves, x)

        return WhitenedResiduals(modelled, goal, start)

    def _stepped(self, goal: Goal, start: Floats) -> Floats:
        """Variables (b, n) after one step from `start`, inside their bounds."""
        residual, jacobian = self._about(goal, start).begin
        turned = np.swapaxes(jacobian, 1, 2)
        step = np.linalg.solve(turned @ jacobian, turned @ residual[..., None])[..., 0]
        stepped = np.clip(start - step, self.variables.low, self.variables.high)
        return np.where(np.isfinite(stepped).all(axis=1, keepdims=True), stepped, start)

    def _minimum(self, goal: Goal, job: "_Job", start: Floats) -> tuple[Minimum, Linear, Floats]:
        """Least chi^2, the fits about it, and what made it white, (b, l, l).

        What FEFF's errors do is that of `start`, (b, n).
        """
        expected, about = goal.expected, self._about(goal, start)
        end = about.minimum((self.variables.low, self.variables.high), EVALUATIONS)
        fitted = slice(0, goal.data.shape[1])
        misfit = (about.colour @ end.residual[:, fitted, None])[..., 0]
        away = expected.errors + (end.x - goal.mean) @ expected.follow.T
        linear = Linear(
            x=end.x,
            e0=job.e0,
            e0_std=job.e0_std,
            misfit=misfit,
            rest=(about.errors @ away[..., None])[..., 0] - misfit,
            errors=about.errors,
            slopes=about.colour @ end.jacobian[:, fitted] - about.follow,
            noise=goal.noise,
            floor=goal.floor,
        )
        return end, linear, about.white

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
            scaled += RIDGE * np.eye(own.shape[2])
            inverse = np.linalg.inv(scaled) / (size[:, :, None] * size[:, None, :])
            cov[free] = inverse * (cost / (n_idp - len(reference.first)))[:, None, None]
        return cov


@dataclass(frozen=True)
class _Job:
    """Spectra to be fitted with one data end, all placed by their near edge or none.

    `epsilon` (b,) is NaN where noise is not known, `e0` (b,) the mean of E0 and `e0_std` how well
    it is known beyond what the trend shares, eV.
    """

    trend: Trend
    learn: bool
    chi_k2: NDArray[np.floating]
    predictions: Sequence[Prediction]
    epsilon: Floats
    e0: Floats
    e0_std: float


def _finite(epsilon: float | None) -> float:
    """Noise that is known; NaN if not."""
    return epsilon if epsilon and np.isfinite(epsilon) else np.nan

"""Chi^2 of what is fitted, weighed by noise and by FEFF's errors, beside what is likely beforehand.

The refinement of one phase and the fit of a mixture share it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.card import Refinement
from exafsd.contract.grid import K_GRID, K_STEP
from exafsd.contract.recipe import Autobk, FitWindow
from exafsd.inference.refinement.least_squares import Minimum, minimize_batch
from exafsd.inference.refinement.polish import Objective, Weigh, objective
from exafsd.inference.refinement.theory import TAILS, TheoryModes
from exafsd.inference.refinement.trend import Expected
from exafsd.reduction.background import remainder
from exafsd.spectra import Floats

#: theta (b, p) to complex chi (b, m, g), a pair, and the derivatives (b, m, p) of its sum
WavesLike = Callable[
    [Floats], tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
]
#: What is fitted (b, l) without FEFF's errors, its derivatives (b, l, n), and complex chi (b, m, g)
Signal = tuple[Floats, Floats, tuple[Floats, Floats]]
#: the signal at variables (a, n) of the fits `rows` (a,)
Modelled = Callable[[Floats, NDArray[np.intp]], Signal]
#: Noise of chi(k) at least, and where it is not known.
LEAST_NOISE, UNKNOWN_NOISE = 1e-6, 1e-3
#: Keeps `minimize_batch` from asking for more than chi^2 = 1 is worth: it scales by `total`.
CHI2_SCALE = 1e8
#: The same for its last step: below a seventh of an error bar, and made nevertheless, it leaves
#: an error of the second order.
WORTH = 0.1
#: Standard deviation of chi where no model has it, below 2 1/angstrom, and the longest bond that is
#: looked for in it, angstrom. Measured near edges have 0.1 to 0.3. Independent simulations of Cu,
#: ZnO, CuO and Cu2O were looked at.
NEAR_EDGE, NEAR_EDGE_R = 0.2, 4.0
#: Half path lengths of the waves that are drawn between the points of a graph, angstrom, and the
#: share of their variance by which they may miss its points.
WAVES_R, NUGGET = (0.5, 7.5), 1e-8


class VariablesLike(Protocol):
    """What is varied."""

    def theta(self, x: Floats) -> tuple[Floats, Floats]:
        """Theta (b, p) at x (b, n), and d theta / d x (b, p, n)."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What depends on the data's end only: data and graph to what is fitted, and its errors.

    `goal` is of the data, `matrix` (l, m) from chi at the points of the graph to the same numbers,
    `noise` (l, l) their covariance for noise of 1 in chi(k).
    """

    goal: Objective
    matrix: Floats
    noise: Floats
    theory: TheoryModes

    def signal(self, variables: VariablesLike, waves: WavesLike, x: Floats) -> Signal:
        """What a model makes of its variables (b, n)."""
        theta, slopes = variables.theta(x)
        real, imag, jacobian = (np.asarray(x, dtype=np.float64) for x in waves(theta))
        matrix = self.matrix
        return imag.sum(-1) @ matrix.T, (matrix @ jacobian) @ slopes, (real, imag)


def prepare(
    weigh: Weigh, window: FitWindow, about: Refinement, k_end: float, autobk: Autobk
) -> Prepared:
    """What is fitted in a window on data that end at `k_end`, 1/angstrom.

    Parameters
    ----------
    weigh, window, about
        Larch's k window, the fit's, and the card's refinement.
    autobk
        How the background was removed. It took some of the fine structure from the data; a model
        loses the same, and errors hold what the near edge adds.
    """
    k: Floats = about.k_min + about.k_step * np.arange(about.size, dtype=np.float64)
    goal = objective(weigh, window, k_end)
    from_chi = np.zeros((len(goal.chi_matrix), K_GRID.size))
    from_chi[:, goal.inside] = goal.chi_matrix
    left = remainder(autobk, min(k_end, float(K_GRID[-1])))
    from_data = from_chi[:, : len(left)]
    tails = from_data @ near_edge_leakage(left, about.k_min)
    from_chi[:, : len(left)] = from_data @ left
    matrix = from_chi @ onto_grid(about.k_min, about.k_step, about.size)
    noise = goal.chi_matrix @ goal.chi_matrix.T
    return Prepared(goal, matrix, noise, TheoryModes(matrix, k, about.theory, tails))


@lru_cache
def onto_grid(k_min: float, k_step: float, size: int) -> Floats:
    """From chi at the points of a graph (m,) to chi on the grid of data (401, m).

    Between points it is the likeliest course of waves of all half path lengths in `WAVES_R`, by
    Gaussian process regression; before the first and after the last it is zero.
    """
    k = k_min + k_step * np.arange(size, dtype=np.float64)
    own, across = (_covariance(x[:, None] - k) for x in (k, K_GRID))
    solved = np.linalg.solve(own + NUGGET * np.eye(size), across.T)
    weights = np.array(solved.T, dtype=np.float64)
    weights[(k[0] - 1e-6 > K_GRID) | (k[-1] + 1e-6 < K_GRID)] = 0.0
    weights.setflags(write=False)
    return weights


def _covariance(apart: Floats) -> Floats:
    """Covariance of waves at points of k that are `apart`, 1/angstrom."""
    (low, high), turn = WAVES_R, 2 * apart / np.pi
    return (high * np.sinc(high * turn) - low * np.sinc(low * turn)) / (high - low)


def near_edge_leakage(left: Floats, start: float) -> Floats:
    """What the near edge may do to chi(k) by way of the background, (m, q), each of one sigma.

    `left` (m, m) is what the background leaves of chi. A model begins at `start`, 1/angstrom; the
    background follows what is below as well.
    """
    below = K_GRID[: round(start / K_STEP)]
    turns = 2 * below[:, None] * np.linspace(0.0, NEAR_EDGE_R, len(below))
    # all fine structure of bonds up to that length, in equal parts
    waves = np.hstack([np.cos(turns), np.sin(turns)]) * NEAR_EDGE / np.sqrt(len(below))
    tails = (left - np.eye(len(left)))[:, : len(below)] @ waves
    directions, size, _ = np.linalg.svd(tails, full_matrices=False)
    return directions[:, :TAILS] * size[:TAILS]


@dataclass(frozen=True)
class Goal:
    """What is fitted: data (b, l), and what is likely of it.

    `mean` (b, n) is that of the variables; `noise` (b, l, l) a covariance, `floor` (b,) the
    variance of misfit of any other kind.
    """

    prepared: Prepared
    expected: Expected
    data: Floats
    mean: Floats
    noise: Floats
    floor: Floats

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        expected: Expected,
        chi_k2: NDArray[np.floating],
        epsilon: Floats,
        mean: Floats,
        floor_share: float,
    ) -> "Goal":
        """Goal of spectra.

        Parameters
        ----------
        prepared, expected
            For the data's end, and of the variables.
        chi_k2
            (b, 401) k^2 chi(k) on the contract grid, 1/angstrom^2.
        epsilon
            (b,) noise of chi(k), NaN where it is not known.
        mean
            (b, n) of the variables.
        floor_share
            Share of the signal's sum of squares that is misfit of any other kind.
        """
        data = chi_k2[:, prepared.goal.inside] @ prepared.goal.matrix.T
        noise = np.maximum(np.nan_to_num(epsilon, nan=UNKNOWN_NOISE), LEAST_NOISE)
        return cls(
            prepared,
            expected,
            data,
            mean,
            noise=np.asarray(noise[:, None, None] ** 2 * prepared.noise),
            floor=np.asarray(floor_share * np.mean(data**2, axis=-1)),
        )


class WhitenedResiduals:
    """Residuals of fits, with what FEFF's errors do at a start (b, n).

    `errors` (b, l, e) are that, `follow` (b, l, n) what they do as they follow the variables,
    `colour` (b, l, l) is a root of the covariance of misfit, and its inverse `white` makes misfit
    white. `begin` has residuals and derivatives there.
    """

    def __init__(self, modelled: Modelled, goal: Goal, start: Floats) -> None:
        self._modelled, self._goal, self._start = modelled, goal, start
        expected, every = goal.expected, np.arange(len(start))
        model, slopes, waves = modelled(start, every)
        self.errors = goal.prepared.theory(*waves)
        self.follow = self.errors @ expected.follow
        spread = self.errors @ expected.spread
        covariance = spread @ np.swapaxes(spread, 1, 2) + goal.noise
        covariance += goal.floor[:, None, None] * np.eye(model.shape[1])
        self.colour = np.linalg.cholesky(covariance).astype(np.float64)
        self.white = np.linalg.inv(self.colour).astype(np.float64)
        self._data = goal.data - self.errors @ expected.errors
        self._hold = expected.hold
        self._held = np.tile(self._hold, (len(start), 1, 1))
        self.begin = self._weighed(start, every, model, slopes)

    def minimum(self, bounds: tuple[Floats, Floats], evaluations: int) -> Minimum:
        """Where fits from the start end; of `bounds` and `evaluations` see `minimize_batch`."""
        total = np.full(len(self._start), CHI2_SCALE)
        return minimize_batch(
            self._evaluate, self._start, self.begin, bounds, total, WORTH, evaluations
        )

    def _evaluate(self, x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Residuals and derivatives at variables (a, n) of some fits."""
        return self._weighed(x, rows, *self._modelled(x, rows)[:2])

    def _weighed(
        self, x: Floats, rows: NDArray[np.intp], model: Floats, slopes: Floats
    ) -> tuple[Floats, Floats]:
        white, follow = self.white[rows], self.follow[rows]
        away = x - self._goal.mean[rows]
        rest = model + (follow @ away[..., None])[..., 0] - self._data[rows]
        rest = (white @ rest[..., None])[..., 0]
        residual = np.concatenate([rest, away @ self._hold.T], axis=1)
        jacobian = np.concatenate([white @ (slopes + follow), self._held[rows]], axis=1)
        return np.asarray(residual, np.float64), np.asarray(jacobian, np.float64)

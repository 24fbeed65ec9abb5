"""What the refinement in the daemon needs of a model: its graph, and what is likely.

The daemon fits all of a model's paths to chi(R), not the nearest shell alone, and weighs what it
fits by noise and by FEFF's errors. This module says how large these are and what a sample may be.
"""

import numpy as np
import tensorflow as tf

from exafsd import contract
from exafsd.contract.card import FarSigma2, Refinement, TheoryErrors
from exafsd.contract.recipe import FitWindow
from exafsd.inference.refinement.polish import objective
from exafsd.reduction.transform import END_MARGIN, fit_weight
from exafsd_training.simulation.simulate import error_groups
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import (
    EXPANSION_SCATTER,
    R_SCATTER,
    Parametrisation,
)
from exafsd_training.theory.priors import bond, vibrations
from exafsd_training.theory.thermal import DRAWS, draw_temperature, einstein_sigma2

#: Step of k, 1/angstrom. The daemon draws waves between the points, of half path lengths to 7.5
#: angstrom (`exafsd.inference.refinement.weighed.onto_grid`); `REACH` leaves room for expansion.
K_STEP, REACH = 0.15, 7.2
#: FEFF's errors. Set so that 90 % intervals hold on spectra of the independent simulator
#: (`exafsd_training.simulation.independent`) for Fe, Pt and CdS; Cu and ZnS judge it.
THEORY = TheoryErrors(constant=(0.027, 0.045), smooth=(0.008, 0.045), low=(0.2, 0.8), floor=0.001)
#: Standard deviation of a beyond the even distribution over its range, of the range's width.
BEYOND = 0.4
#: Least share of the nearest shell's signal that a path must have in the fit window.
SIGNIFICANT = 0.005
#: sigma2 about which far ratios are linear in the logarithm, angstrom^2, as in the card.
USUAL_SIGMA2 = 0.008


def refinement_of(par: Parametrisation) -> Refinement:
    """What a card says of the refinement of a phase."""
    k = refinement_k(par.window)
    nearest = bond(par.shells[0], 0, par.priors, par.priors.spread)
    still = einstein_sigma2(np.array([1e-3]), np.array([nearest.temperature]), nearest.mass)
    low, high = par.priors.anharmonicity
    return Refinement(
        k_min=round(float(k[0]), 6),
        k_step=K_STEP,
        size=len(k),
        anharmonicity=(
            round((low + high) / 2, 4), round((high - low) * float(np.hypot(12**-0.5, BEYOND)), 4)
        ),
        zero_point=round(float(still[0]), 6),
        far_sigma2=_far_sigma2(par),
        r_std=R_SCATTER,
        expansion_std=EXPANSION_SCATTER,
        theory=THEORY,
    )  # fmt: skip


def refinement_k(window: FitWindow) -> np.ndarray:
    """K of the graph, 1/angstrom: from a point of the contract's grid, where the window begins."""
    low, high = window.k[0] - window.dk / 2, window.k[1] + window.dk / 2
    first = max(np.ceil(low / contract.K_STEP - 1e-6), 2.0) * contract.K_STEP
    return first + K_STEP * np.arange(np.ceil((high - first) / K_STEP - 1e-6) + 1)


def significant_paths(par: Parametrisation) -> list[int]:
    """Paths of which the fit window shows more than `SIGNIFICANT` of what it shows of the nearest.

    All others together are far less than FEFF's errors of these, and cost as much time.
    """
    goal = objective(fit_weight, par.window, par.window.k[1] + END_MARGIN)
    waves, _ = Equation(par).waves_and_jacobian(tf.constant(par.prior_mean[None], tf.float32))
    shown = goal.chi_matrix @ np.float64(waves[1].numpy())[0, :, goal.inside].T
    size = np.linalg.norm(shown, axis=0)
    nearest = np.linalg.norm(shown[:, list(par.shells[0].paths)].sum(axis=1))
    return [int(i) for i in np.flatnonzero(size > SIGNIFICANT * nearest)]


class RefinementGraph(tf.Module):
    """theta to complex chi of groups of paths, and the derivatives of their sum."""

    def __init__(self, par: Parametrisation) -> None:
        super().__init__()
        significant = significant_paths(par)
        longest = max(par.table.paths[i].reff for i in significant)
        if longest > REACH:
            raise ValueError(
                f"a path of {longest:.2f} angstrom counts in the fit window, and the points of k"
                f" are only good for {REACH}: choose a window that ends at a smaller R"
            )
        self.equation = Equation(par.with_paths(significant), k=refinement_k(par.window))
        self.groups = tf.constant(error_groups(par.table, par.shells)[significant], tf.float32)
        self.size = self.equation.size

    def __call__(self, theta: tf.Tensor) -> dict[str, tf.Tensor]:
        """``real`` and ``imag`` (b, m, g) and ``jacobian`` (b, m, p) of theta (b, p)."""
        waves, jacobian = self.equation.waves_and_jacobian(theta)
        real, imag = (tf.matmul(wave, self.groups, transpose_a=True) for wave in waves)
        return {"real": real, "imag": imag, "jacobian": jacobian}


def _far_sigma2(par: Parametrisation) -> tuple[FarSigma2, ...]:
    """How the farther shells' sigma2 follow the nearest's in what training draws."""
    rng = np.random.default_rng(0)
    drawn = vibrations(rng, draw_temperature(rng, DRAWS), par.shells, par.priors)
    nearest = np.log(drawn[0].sigma2 / USUAL_SIGMA2)
    basis = np.stack([np.ones(DRAWS), nearest], axis=1)
    ties = []
    for shell, vibration in zip(par.shells[1:], drawn[1:], strict=True):
        ratio = np.log(vibration.sigma2 / drawn[0].sigma2)
        (level, slope), *_ = np.linalg.lstsq(basis, ratio, rcond=None)
        ties.append(
            FarSigma2(
                id=f"{par.phase}/{shell.number}/sigma2",
                level=round(float(level), 4),
                slope=round(float(slope), 4),
                std=round(float(np.std(ratio - basis @ (level, slope))), 4),
            )
        )
    return tuple(ties)

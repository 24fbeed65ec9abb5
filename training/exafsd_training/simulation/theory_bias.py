"""What a reference fit misreads because FEFF is not exact; training learns it as part of theta.

FEFF's errors are the same in every spectrum of a material, and a fit answers them with values
that everybody who fits the material gets. A network that took them for noise would answer with
other values. So it learns the truth plus what such a fit adds to it: one Gauss-Newton step on
feffit's own objective, from the truth, for the difference that FEFF's errors make.
"""

import numpy as np
import tensorflow as tf

from exafsd.inference.refinement.polish import objective
from exafsd.reduction.transform import fit_weight
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats

#: Ends of the data, 1/angstrom, for which it is computed; between them it is interpolated.
DATA_ENDS = (8.0, 9.5, 11.0, 12.5, 14.5)
#: Most that is learnt, in standard deviations of the prior: a short fit may fall anywhere.
MOST = 1.0
#: Spectra at once, and from how many on XLA, which takes a second to compile, pays.
BATCH, MANY = 500, 5_000


def theory_bias(parametrisation: Parametrisation, theta: Floats, error: Floats) -> Floats:
    """Fit minus truth (n, ends, p); zero for what is no variable of the reference fit.

    Parameters
    ----------
    parametrisation
        Of the model; its window and the shells in it are those of the fit.
    theta
        (n, p) truth.
    error
        (n, 401) what FEFF's errors add to k^2 chi, 1/angstrom^2.
    """
    par = parametrisation
    columns = [par.index("e0_shift"), par.index("1/n_s02")]
    columns += [par.index(f"{s.number}/{name}") for s in par.fitted for name in ("r", "sigma2")]
    equation = Equation(_in_window(par))
    goals = [objective(fit_weight, par.window, end) for end in DATA_ENDS]
    unit = par.prior_std[columns]
    by_xla = tf.function(equation.chi_and_jacobian, jit_compile=True)  # six times as fast
    of_batch = by_xla if len(theta) >= MANY else equation.chi_and_jacobian
    bias = np.zeros((len(theta), len(goals), len(par.parameters)), np.float32)
    for start in range(0, len(theta), BATCH):
        rows = slice(start, start + BATCH)
        _, jacobian = of_batch(tf.constant(theta[rows], tf.float32))
        slopes = np.float64(jacobian.numpy())[..., columns] * unit
        for place, goal in enumerate(goals):
            a = goal.chi_matrix @ slopes[:, goal.inside]
            b = error[rows, goal.inside] @ goal.matrix.T
            normal = np.swapaxes(a, 1, 2) @ a
            # keeps a direction that the data do not tell finite; far below any that they do
            ridge = 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(len(columns))
            step = np.linalg.solve(normal + ridge, np.swapaxes(a, 1, 2) @ b[..., None])[..., 0]
            bias[rows, place, :][:, columns] = np.clip(step, -MOST, MOST) * unit
    return bias


def at_end(bias: Floats, end: float) -> Floats:
    """`theory_bias` (n, ends, p) interpolated to data that end at `end`, 1/angstrom: (n, p)."""
    place = np.interp(end, DATA_ENDS, np.arange(len(DATA_ENDS)))
    below = min(int(place), len(DATA_ENDS) - 2)
    share = place - below
    return (1 - share) * bias[:, below] + share * bias[:, below + 1]


def _in_window(par: Parametrisation) -> Parametrisation:
    """The same parameters with nothing but the single scattering of the fit's shells."""
    return par.with_paths([i for shell in par.fitted for i in shell.paths])

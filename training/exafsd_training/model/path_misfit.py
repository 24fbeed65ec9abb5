"""How far a spectrum is from EXAFS(theta), in units of what may lie between them.

That is noise, and what path sums leave of simulated spectra: FEFF's errors, far shells and the
background, a Gaussian field of known covariance.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.simulation.simulate import K_MIN
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats

#: Half-band filter of spectra: every second point of the grid then says nearly what all of them
#: say. It weakens waves of a half path length of 2.6 angstrom by 0.1 %, of 4.5 by 0.7 and of 6.5 by
#: 3 %.
FILTER = np.array([-1, 0, 9, 16, 9, 0, -1]) / 32
REACH = len(FILTER) // 2
#: Points of the contract's grid that are compared, to 16 1/angstrom.
POINTS = np.arange(np.searchsorted(K_GRID, K_MIN - 1e-6) + REACH, 321, 2)
#: Directions in which path sums leave something of spectra.
DIRECTIONS = 40


def thinned(chi_k2: tf.Tensor) -> tf.Tensor:
    """Spectra (b, 401) filtered, at `POINTS`."""
    return tf.add_n(
        [
            weight * tf.gather(chi_k2, POINTS + place - REACH, axis=1)
            for place, weight in enumerate(FILTER)
            if weight
        ]
    )


class PathMisfit(tf.Module):
    """Normal equations of theta against spectra; nothing in it is trained.

    Parameters
    ----------
    parametrisation
        Of theta.
    paths
        Which of its paths count, by place in the table.
    """

    def __init__(self, parametrisation: Parametrisation, paths: Sequence[int]) -> None:
        super().__init__()
        self.equation = Equation(parametrisation.with_paths(paths), k=K_GRID[POINTS])
        # two thirds of the time without
        self._by_xla = tf.function(
            self.equation.chi_and_jacobian, jit_compile=True, autograph=False
        )
        self.unit = tf.constant(parametrisation.prior_std, tf.float32)
        self.k2 = tf.constant(K_GRID[POINTS] ** 2, tf.float32)
        self.rest = tf.Variable(tf.zeros((len(POINTS), DIRECTIONS)), trainable=False)
        self.floor = tf.Variable(tf.ones(len(POINTS)), trainable=False)

    def initialise(self, chi_k2: Floats, theta: Floats) -> None:
        """Take the covariance from spectra without noise.

        Parameters
        ----------
        chi_k2
            (n, 401) 1/angstrom^2.
        theta
            (n, p) what a fit should say of them.
        """
        chi = self.equation.chi(tf.constant(theta, tf.float32))
        left = np.float64((thinned(tf.constant(chi_k2, tf.float32)) - self.k2 * chi).numpy())
        # a few spectra that are far off must not decide
        size = np.linalg.norm(left, axis=1)
        left *= np.minimum(1, 2 * np.median(size) / size)[:, None]
        values, vectors = np.linalg.eigh(left.T @ left / len(left))
        rest = vectors[:, -DIRECTIONS:] * np.sqrt(values[-DIRECTIONS:])
        self.rest.assign(rest)
        floor = np.mean(left**2, axis=0) - np.sum(rest**2, axis=1)
        self.floor.assign(np.sqrt(np.maximum(floor, 1e-6)))

    def __call__(
        self, chi_k2: tf.Tensor, mask: tf.Tensor, noise: tf.Tensor, theta: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Squared misfit (b,), half its slope downwards (b, p) and half its curvature (b, p, p).

        Slope and curvature are those of Gauss and Newton, by theta in units of the prior's standard
        deviations.

        Parameters
        ----------
        chi_k2, mask
            (b, 401).
        noise
            (b,) of chi(k).
        theta
            (b, p).
        """
        chi, slopes = self._by_xla(theta)
        jacobian = slopes * (self.k2[:, tf.newaxis] * self.unit)
        off = thinned(chi_k2) - self.k2 * chi
        inside = tf.gather(mask, POINTS - REACH, axis=1) * tf.gather(mask, POINTS + REACH, axis=1)
        size = float(np.sqrt(np.sum(FILTER**2))) * noise[:, tf.newaxis] * self.k2
        weight = inside / (size**2 + self.floor**2)
        # Woodbury: noise and floor are diagonal, the rest has few directions
        points, directions = self.rest.shape
        pairs = tf.reshape(self.rest[:, :, None] * self.rest[:, None, :], (points, -1))
        inner = tf.reshape(weight @ pairs, (-1, directions, directions)) + tf.eye(directions)
        both = tf.concat([jacobian, off[..., tf.newaxis]], -1)
        weighted = both * weight[..., tf.newaxis]
        along = tf.matmul(tf.transpose(self.rest)[tf.newaxis], weighted)
        white = tf.linalg.triangular_solve(tf.linalg.cholesky(inner), along)
        square = tf.matmul(both, weighted, transpose_a=True)
        square -= tf.matmul(white, white, transpose_a=True)
        return square[:, -1, -1], square[:, :-1, -1], square[:, :-1, :-1]

    def linear(
        self, chi_k2: tf.Tensor, mask: tf.Tensor, noise: tf.Tensor, theta: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The same, and how it depends on theta to first order of Gauss and Newton.

        The paths themselves are then not differentiated a second time, which would take three times
        as long.
        """
        base = tf.stop_gradient(theta)
        square, pull, curvature = map(tf.stop_gradient, self(chi_k2, mask, noise, base))
        off = (theta - base) / self.unit  # zero, but not its slope
        return (
            square - 2 * tf.reduce_sum(pull * off, -1),
            pull - tf.linalg.matvec(curvature, off),
            curvature,
        )

"""The EXAFS equation of Larch in TensorFlow: differentiable, batched, exportable to ONNX.

The formula is that of ``FeffPathGroup._calc_chi`` in `larch.xafs.feffdat`, with ``ei`` and the
fourth cumulant zero. Complex numbers are kept as pairs, because ONNX has none.
"""

import numpy as np
import tensorflow as tf

from exafsd.contract import ETOK, K_GRID
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import KNOT_STEP, KNOTS, PathTable

#: Smallest q^2 in 1/angstrom^2, Larch's SMALL_ENERGY. Larch goes on to negative q below the
#: edge, where FEFF's tables mean nothing; here q stays at this limit.
SMALL_ENERGY = 1e-6

Pair = tuple[tf.Tensor, tf.Tensor]


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


class PathSum(tf.Module):
    """chi of every path, for any k and path parameters."""

    def __init__(self, table: PathTable, dtype: tf.DType = tf.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.n = len(table)
        self.reff = tf.constant(table.reff, dtype)
        self.degeneracy = tf.constant(table.degeneracy, dtype)
        first, coefficients = table.pieces()
        self.coefficients = tf.constant(coefficients, dtype, name="feff_tables")
        ends = np.append(first[1:], KNOTS)
        self.first = tf.constant(first, dtype)
        self.length = tf.constant(ends - first, dtype)
        #: which interval of the table begins at or before each knot
        self.interval = tf.constant(np.repeat(np.arange(len(first)), ends - first), tf.int32)

    def q(self, k: tf.Tensor, e0: tf.Tensor) -> tf.Tensor:
        """(b, m) wavenumber in FEFF's own scale, from k (1/angstrom) and e0 (eV)."""
        energy = k * k - e0 * tf.cast(ETOK, self.dtype)
        return tf.sqrt(tf.maximum(energy, tf.cast(SMALL_ENERGY, self.dtype)))

    def tables(self, q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """FEFF's quantities at q (b, m) and their slopes, both (b, m, 2 n + 2)."""
        position = q / KNOT_STEP
        held = tf.stop_gradient(tf.minimum(position, tf.cast(KNOTS - 1, self.dtype)))
        index = tf.gather(self.interval, tf.cast(held, tf.int32))
        length = tf.gather(self.length, index)[..., tf.newaxis]
        t = (position - tf.gather(self.first, index))[..., tf.newaxis] / length
        row = tf.gather(self.coefficients, index)
        c0, c1, c2, c3 = (row[..., i] for i in range(4))
        value = c0 + t * (c1 + t * (c2 + t * c3))
        slope = (c1 + t * (2 * c2 + 3 * t * c3)) / (KNOT_STEP * length)
        return value, slope

    def split(self, table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Phase and amplitude (b, m, n), momentum and mean free path (b, m, 1)."""
        n = self.n
        return (table[..., :n], table[..., n : 2 * n],
                table[..., 2 * n : 2 * n + 1], table[..., 2 * n + 1 :])  # fmt: skip

    def unit(
        self, q: tf.Tensor, table: tf.Tensor, deltar: tf.Tensor, sigma2: tf.Tensor, c3: tf.Tensor
    ) -> tuple[Pair, Pair]:
        """Complex chi of every path for amplitude 1, and the complex momentum p.

        Parameters
        ----------
        q
            (b, m) 1/angstrom.
        table
            (b, m, 2 n + 2) of `tables`.
        deltar, sigma2, c3
            (b, n) angstrom, angstrom^2, angstrom^3.
        """
        phase, _, rep, lam = self.split(table)
        p = (rep, 1 / lam)
        p2 = _times(p, p)
        deltar, sigma2, c3 = (x[:, tf.newaxis, :] for x in (deltar, sigma2, c3))
        shift = (deltar - 2 * sigma2 / self.reff - 2 / 3 * p2[0] * c3, -2 / 3 * p2[1] * c3)
        turn = _times(p, shift)
        real = -2 * self.reff * p[1] - 2 * p2[0] * sigma2 - 2 * turn[1]
        imag = 2 * q[..., tf.newaxis] * self.reff + phase - 2 * p2[1] * sigma2 + 2 * turn[0]
        size = self.degeneracy * tf.exp(real) / (q[..., tf.newaxis] * (self.reff + deltar) ** 2)
        return (size * tf.cos(imag), size * tf.sin(imag)), p

    def __call__(
        self, k: tf.Tensor, e0: tf.Tensor, deltar: tf.Tensor, sigma2: tf.Tensor, c3: tf.Tensor
    ) -> Pair:
        """Complex chi per path, a pair of (b, m, n); Larch's chi is the second of the pair.

        Parameters
        ----------
        k
            (m,) or (b, m) 1/angstrom.
        e0
            (b, 1) eV.
        deltar, sigma2, c3
            (b, n) angstrom, angstrom^2, angstrom^3.
        """
        q = self.q(k, e0)
        table, _ = self.tables(q)
        unit, _ = self.unit(q, table, deltar, sigma2, c3)
        amplitude = self.split(table)[1]
        return unit[0] * amplitude, unit[1] * amplitude


class Equation(tf.Module):
    """theta to chi(k), for the paths and ties of one phase.

    Parameters
    ----------
    parametrisation
        What theta means.
    k
        (m,) 1/angstrom; by default the contract's grid.
    """

    def __init__(
        self,
        parametrisation: Parametrisation,
        dtype: tf.DType = tf.float32,
        k: np.ndarray = K_GRID,
    ) -> None:
        super().__init__()
        self.paths = PathSum(parametrisation.table, dtype)
        self.dtype = dtype
        self.k_grid = tf.constant(k, dtype)
        ties = parametrisation.ties
        self.deltar, self.sigma2, self.c3 = (
            tf.constant(x, dtype) for x in (ties.deltar, ties.sigma2, ties.c3)
        )
        self.deltar_0 = tf.constant(ties.deltar_0, dtype)
        self.n_0 = tf.cast(parametrisation.degeneracy, dtype)
        names = [parameter.name for parameter in parametrisation.parameters]
        self.e0_index, self.n_index = names.index("e0_shift"), names.index("n_s02")
        self.size = len(names)

    def path_parameters(self, theta: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """e0 and amplitude (b, 1); deltar, sigma2 and C3 per path (b, n), all linear in theta."""
        e0 = theta[:, self.e0_index : self.e0_index + 1]
        amplitude = theta[:, self.n_index : self.n_index + 1] / self.n_0
        return (e0, amplitude, self.deltar_0 + theta @ self.deltar, theta @ self.sigma2,
                theta @ self.c3)  # fmt: skip

    def chi(self, theta: tf.Tensor, k: tf.Tensor | None = None) -> tf.Tensor:
        """Chi (b, m) at k (m,) or (b, m) in 1/angstrom, by default the contract's grid."""
        e0, amplitude, *rest = self.path_parameters(theta)
        _, chi = self.paths(self.k_grid if k is None else k, e0, *rest)
        return amplitude * tf.reduce_sum(chi, -1)

    def chi_k2(self, theta: tf.Tensor, k: tf.Tensor | None = None) -> tf.Tensor:
        """k^2 chi (b, m), 1/angstrom^2, at k as for `chi`."""
        k = self.k_grid if k is None else k
        return k * k * self.chi(theta, k)

    def curvature(self, theta: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """k^2 chi and its second derivative in k, both (b, m), at k (m,)."""
        # every spectrum has its own k: the derivative of a sum is then that of each term. Forward
        # accumulators do it without that, and take TensorFlow six times as long to compile
        own = tf.broadcast_to(k, (tf.shape(theta)[0], tf.shape(k)[0]))
        with tf.GradientTape() as outer:
            outer.watch(own)
            with tf.GradientTape() as inner:
                inner.watch(own)
                value = self.chi_k2(theta, own)
            first = inner.gradient(value, own)
        return value, outer.gradient(first, own)

    def chi_and_jacobian(self, theta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Chi (b, m) and d chi / d theta (b, m, p), sharing every exponential."""
        (_, imag), jacobian = self.waves_and_jacobian(theta)
        return tf.reduce_sum(imag, -1), jacobian

    def waves_and_jacobian(self, theta: tf.Tensor) -> tuple[Pair, tf.Tensor]:
        """Complex chi of every path, a pair of (b, m, n), and d chi / d theta (b, m, p)."""
        e0, amplitude, deltar, sigma2, c3 = self.path_parameters(theta)
        paths = self.paths
        q = paths.q(self.k_grid, e0)
        table, slope = paths.tables(q)
        unit, p = paths.unit(q, table, deltar, sigma2, c3)
        size = paths.split(table)[1] * amplitude[..., tf.newaxis]
        full = unit[0] * size, unit[1] * size
        p2, radius = _times(p, p), (paths.reff + deltar)[:, tf.newaxis, :]

        def imaginary(factor: Pair) -> tf.Tensor:
            return full[0] * factor[1] + full[1] * factor[0]

        # derivatives of log chi by each path parameter, as complex factors
        by_deltar = imaginary((-2 * p[1] - 2 / radius, 2 * p[0]))
        by_sigma2 = imaginary((-2 * p2[0] + 4 * p[1] / paths.reff,
                               -2 * p2[1] - 4 * p[0] / paths.reff))  # fmt: skip
        cube = _times(p, p2)
        by_c3 = imaginary((4 / 3 * cube[1], -4 / 3 * cube[0]))

        # e0 acts through q alone: d q / d e0 = -ETOK / 2 q, and nothing where q is held
        d_phase, d_amplitude, d_rep, d_lam = paths.split(slope)
        _, _, _, lam = paths.split(table)
        dp = (d_rep, -d_lam / lam**2)
        deltar, sigma2, c3 = (x[:, tf.newaxis, :] for x in (deltar, sigma2, c3))
        bracket = (-4 * p[0] * sigma2 + 4 * p2[1] * c3,
                   -4 * p[1] * sigma2 + 2 * (deltar - 2 * sigma2 / paths.reff)
                   - 4 * p2[0] * c3)  # fmt: skip
        inner = _times(dp, bracket)
        q_ = q[..., tf.newaxis]
        by_q = imaginary((inner[0] - 2 * paths.reff * dp[1] - 1 / q_,
                          inner[1] + 2 * paths.reff + d_phase))  # fmt: skip
        by_q += unit[1] * d_amplitude * amplitude[..., tf.newaxis]
        free = tf.cast(q * q > 1.5 * SMALL_ENERGY, self.dtype)
        by_e0 = tf.reduce_sum(by_q, -1) * free * tf.cast(-ETOK / 2, self.dtype) / q

        unit_vector = np.eye(self.size)
        jacobian = (
            by_deltar @ tf.transpose(self.deltar)
            + by_sigma2 @ tf.transpose(self.sigma2)
            + by_c3 @ tf.transpose(self.c3)
            + by_e0[..., tf.newaxis] * tf.constant(unit_vector[self.e0_index], self.dtype)
            + (tf.reduce_sum(unit[1] * paths.split(table)[1], -1) / self.n_0)[..., tf.newaxis]
            * tf.constant(unit_vector[self.n_index], self.dtype)
        )
        return full, jacobian

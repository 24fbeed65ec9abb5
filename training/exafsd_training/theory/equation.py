"""The EXAFS equation of Larch in TensorFlow: differentiable, batched, exportable to ONNX.

The formula is that of ``FeffPathGroup._calc_chi`` in `larch.xafs.feffdat`, with ``ei`` and the
fourth cumulant zero. Complex numbers are kept as pairs, because ONNX has none.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from exafsd.contract import ETOK, K_GRID
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import KNOT_STEP, KNOTS, PathTable

#: Smallest q^2 in 1/angstrom^2, Larch's SMALL_ENERGY. Larch goes on to negative q below the
#: edge, where FEFF's tables mean nothing; here q stays at this limit.
SMALL_ENERGY = 1e-6

Pair = tuple[tf.Tensor, tf.Tensor]
#: a complex number, its square and its cube
Powers = tuple[Pair, Pair, Pair]


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def log_amplitude_per_path_parameter(powers: Powers) -> tf.Tensor:
    """What multiplies R, sigma2 and C3 of any path in the logarithm of its size, (b, 3, m)."""
    p, p2, p3 = powers
    return tf.concat([-2 * p[1], -2 * p2[0], 4 / 3 * p3[1]], 1)


def phase_per_path_parameter(powers: Powers) -> tf.Tensor:
    """What multiplies R, sigma2 and C3 of any path in its phase, (b, 3, m)."""
    p, p2, p3 = powers
    return tf.concat([2 * p[0], -2 * p2[1], -4 / 3 * p3[0]], 1)


class Table(NamedTuple):
    """FEFF's quantities at some q, or their slopes.

    `phase` of the whole way, 2 q reff included, and `amplitude` of scattering (b, n, m); real part
    of the momentum `rep` and mean free path `lam` (b, 1, m).
    """

    phase: tf.Tensor
    amplitude: tf.Tensor
    rep: tf.Tensor
    lam: tf.Tensor

    def powers(self) -> Powers:
        """Of the complex momentum, (b, 1, m) each."""
        p = (self.rep, 1 / self.lam)
        p2 = _times(p, p)
        return p, p2, _times(p, p2)


class PathSum(tf.Module):
    """chi of every path, for any k and path parameters.

    k is the last axis: onnxruntime is several times slower where the last axis is short or 1.
    """

    def __init__(self, table: PathTable, dtype: tf.DType = tf.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.n = len(table)
        self.reff = tf.constant(table.reff[:, None], dtype)
        self.degeneracy = tf.constant(table.degeneracy[:, None], dtype)
        first, coefficients = table.pieces()
        length = np.append(first[1:], KNOTS) - first
        # the phase of the whole way, 2 q reff + FEFF's, is as much of a cubic
        coefficients[:, : self.n, 0] += 2 * table.reff * KNOT_STEP * first[:, None]
        coefficients[:, : self.n, 1] += 2 * table.reff * KNOT_STEP * length[:, None]
        #: a row for every interval: all quantities in turn, for each power
        rows = np.swapaxes(coefficients, 1, 2).reshape(len(first), -1)
        self.coefficients = tf.constant(rows, dtype, name="feff_tables")
        self.first = tf.constant(first, dtype)
        self.length = tf.constant(length, dtype)
        #: which interval of the table begins at or before each knot
        self.interval = tf.constant(np.repeat(np.arange(len(first)), length), tf.int32)

    def q(self, k: tf.Tensor, e0: tf.Tensor) -> tf.Tensor:
        """(b, m) wavenumber in FEFF's own scale, from k (1/angstrom) and e0 (eV)."""
        energy = k * k - e0 * tf.cast(ETOK, self.dtype)
        return tf.sqrt(tf.maximum(energy, tf.cast(SMALL_ENERGY, self.dtype)))

    def tables(self, q: tf.Tensor) -> tuple[Table, Table]:
        """FEFF's quantities at q (b, m), and their slopes."""
        position = q / KNOT_STEP
        held = tf.stop_gradient(tf.minimum(position, tf.cast(KNOTS - 1, self.dtype)))
        index = tf.gather(self.interval, tf.cast(held, tf.int32))
        length = tf.gather(self.length, index)
        t = tf.expand_dims((position - tf.gather(self.first, index)) / length, 1)
        row = tf.transpose(tf.gather(self.coefficients, index), (0, 2, 1))
        c0, c1, c2, c3 = tf.split(row, 4, axis=1)
        value = c0 + t * (c1 + t * (c2 + t * c3))
        slope = (c1 + t * (2 * c2 + 3 * t * c3)) * tf.expand_dims(1 / (KNOT_STEP * length), 1)
        return self._named(value), self._named(slope)

    def _named(self, rows: tf.Tensor) -> Table:
        return Table(*tf.split(rows, (self.n, self.n, 1, 1), axis=1))

    def size_and_phase(
        self, q: tf.Tensor, table: Table, deltar: tf.Tensor, sigma2: tf.Tensor, c3: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Size and phase (b, n, m) of chi of every path, but for the scattering amplitude.

        Parameters
        ----------
        q
            (b, m) 1/angstrom.
        table
            Of `tables`.
        deltar, sigma2, c3
            (b, n) angstrom, angstrom^2, angstrom^3.
        """
        powers, factors = table.powers(), self.momentum_factors(deltar, sigma2, c3)
        damping = factors @ log_amplitude_per_path_parameter(powers) - 2 * self.reff * powers[0][1]
        radius = self.reff + tf.expand_dims(deltar, -1)
        size = self.degeneracy / (radius * radius) * tf.exp(damping) * tf.expand_dims(1 / q, 1)
        return size, table.phase + factors @ phase_per_path_parameter(powers)

    def momentum_factors(self, deltar: tf.Tensor, sigma2: tf.Tensor, c3: tf.Tensor) -> tf.Tensor:
        """What parameters of paths (b, n) multiply powers of the momentum with: (b, n, 3)."""
        return tf.stack([deltar - 2 * sigma2 / self.reff[:, 0], sigma2, c3], -1)

    def __call__(
        self, k: tf.Tensor, e0: tf.Tensor, deltar: tf.Tensor, sigma2: tf.Tensor, c3: tf.Tensor
    ) -> Pair:
        """Complex chi per path, a pair of (b, n, m); Larch's chi is the second of the pair.

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
        size, phase = self.size_and_phase(q, table, deltar, sigma2, c3)
        size *= table.amplitude
        return size * tf.cos(phase), size * tf.sin(phase)


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
        unit_vector = np.eye(self.size)
        self.is_e0, self.is_n = (
            tf.constant(unit_vector[i][:, None], dtype) for i in (self.e0_index, self.n_index)
        )
        # a parameter is tied to one of R, sigma2 and C3 of paths, or to none: E0 and N S0^2
        by_kind = [ties.deltar, ties.sigma2, ties.c3]
        assert np.sum([x.any(axis=1) for x in by_kind], axis=0).max() <= 1
        #: (p, n) and (p, 3)
        self.ties = tf.constant(sum(by_kind), dtype)
        self.kinds = tf.constant(np.array([x.any(axis=1) for x in by_kind], float).T, dtype)
        self.sigma2_over_reff = tf.constant(ties.sigma2 / parametrisation.table.reff, dtype)

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
        return amplitude * tf.reduce_sum(chi, 1)

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
        return tf.reduce_sum(imag, 1), jacobian

    def waves_and_jacobian(self, theta: tf.Tensor) -> tuple[Pair, tf.Tensor]:
        """Complex chi of every path, a pair of (b, n, m), and d chi / d theta (b, m, p)."""
        e0, strength, deltar, sigma2, c3 = self.path_parameters(theta)
        paths = self.paths
        q = paths.q(self.k_grid, e0)
        table, slope = paths.tables(q)
        size, phase = paths.size_and_phase(q, table, deltar, sigma2, c3)
        sine = size * tf.sin(phase)
        real, imag = size * tf.cos(phase) * table.amplitude, sine * table.amplitude

        # d log chi by a path's parameters is powers of p times what the parameter has of a tie
        powers = table.powers()
        p, p2, _ = powers
        radius = paths.reff[:, 0] + deltar
        jacobian = (
            (self.ties @ imag) * (self.kinds @ log_amplitude_per_path_parameter(powers))
            + (self.ties @ real) * (self.kinds @ phase_per_path_parameter(powers))
            + (self.sigma2_over_reff @ imag) * (4 * p[1])
            - (self.sigma2_over_reff @ real) * (4 * p[0])
            - (2 * self.deltar / tf.expand_dims(radius, 1)) @ imag
        )

        # e0 acts through q alone: d q / d e0 = -ETOK / 2 q, and nothing where q is held
        dp = (slope.rep, -slope.lam * p[1] * p[1])
        d_powers = dp, _times((2 * p[0], 2 * p[1]), dp), _times((3 * p2[0], 3 * p2[1]), dp)
        factors = tf.transpose(paths.momentum_factors(deltar, sigma2, c3), (0, 2, 1))
        by_q = (factors @ imag) * log_amplitude_per_path_parameter(d_powers) + (
            factors @ real
        ) * phase_per_path_parameter(d_powers)
        by_q = tf.reduce_sum(by_q, 1, keepdims=True)
        by_q -= 2 * dp[1] * tf.reduce_sum(imag * paths.reff, 1, keepdims=True)
        by_q += tf.reduce_sum(real * slope.phase + sine * slope.amplitude, 1, keepdims=True)
        total, q = tf.reduce_sum(imag, 1, keepdims=True), tf.expand_dims(q, 1)
        free = tf.cast(q * q > 1.5 * SMALL_ENERGY, self.dtype)
        by_e0 = (by_q - total / q) * free * tf.cast(-ETOK / 2, self.dtype) / q

        strength = tf.expand_dims(strength, -1)
        jacobian = strength * (jacobian + self.is_e0 * by_e0) + self.is_n * (total / self.n_0)
        return (real * strength, imag * strength), tf.transpose(jacobian, (0, 2, 1))

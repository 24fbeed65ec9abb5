"""The network: an encoder, a structure head and a field that is a function of continuous k."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID, K_SIZE
from exafsd_training.model.dense import Dense
from exafsd_training.model.gauss_newton import GaussNewton
from exafsd_training.model.path_misfit import PathMisfit
from exafsd_training.simulation.simulate import K_MIN
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats

#: The mask is told to the encoder as its mean over this many stretches of k.
MASK_BINS = 20
#: tanh functions of k behind the field: centres 0.13 1/angstrom apart and 0.18 wide can draw
#: oscillations up to R = 8 angstrom.
CENTRES = 160
STEEPNESS = 5.5
#: Window in R of the out-of-domain score, angstrom, and where only noise is left.
OOD_R, NOISE_R = (1.0, 5.0), (15.0, 25.0)
#: R-factor above which no spectrum is believed: neighbours in the periodic table with another
#: structure (hcp Zn as Cu, Cu2S as Cu) have 0.19 and more.
LARGEST_R_FACTOR = 0.18
#: Hidden layers of the detector of other phases, and by how much its answer, the logarithm of the
#: odds, has to rise for the out-of-domain score to rise by a factor of e.
DETECTOR, SOFTNESS = (128, 64), 2.0
#: Sizes, relative to the signal, that count as 1 to the detector: of the signal in R, of what the
#: field leaves over, and of what EXAFS(theta) does.
USUAL_SIZE = (1.5, 0.17, 0.25)
#: Limit before calibration, logarithm of odds: nothing is above it.
NO_LIMIT = 1e3
#: Taper at both ends of the mask, 1/angstrom.
TAPER = 1.5
#: Nodes of the calibration of error bars: noise of chi(k), no unit, and data ends, 1/angstrom.
#: Between nodes it is interpolated, in the logarithm of the noise; outside it stays.
NOISE_NODES = (1e-4, 5e-4, 2e-3, 8e-3)
END_NODES = (8.0, 10.0, 12.0, 14.0, 16.0)


@dataclass(frozen=True)
class Sizes:
    """Widths of the layers; the bundle must stay below 3 MB."""

    encoder: tuple[int, ...] = (384, 384, 256)
    basis: int = 40


class Field(tf.Module):
    """field(z, k) = sum_i b_i(z) t_i(k), where t_i = sum_j tanh(s (k - c_j)) v_ji.

    v starts as the least-squares drawing of the leading principal components of simulated
    k^2 chi, so that the coefficients are well conditioned from the first step.
    """

    def __init__(self, basis: int) -> None:
        super().__init__()
        self.centres = tf.constant(np.linspace(-0.4, 20.4, CENTRES), tf.float32)
        self.v = tf.Variable(tf.zeros((CENTRES, basis)))

    def initialise(self, chi_k2: Floats, weight: Floats) -> None:
        """Set the components.

        Parameters
        ----------
        chi_k2
            (n, 401) simulated clean spectra, 1/angstrom^2.
        weight
            (401,) inverse of the size that counts as 1 at every k.
        """
        _, _, components = np.linalg.svd(chi_k2 * weight, full_matrices=False)
        drawn = components[: self.v.shape[1]] / weight * np.sqrt(K_SIZE)
        features = np.tanh(STEEPNESS * (K_GRID[:, None] - self.centres.numpy()))
        a = np.vstack([features * weight[:, None], 1e-3 * np.eye(CENTRES)])
        b = np.vstack([(drawn * weight).T, np.zeros((CENTRES, len(drawn)))])
        self.v.assign(np.linalg.lstsq(a, b, rcond=None)[0])

    def basis(self, k: tf.Tensor) -> tf.Tensor:
        """T (m, basis) at k (m,)."""
        return tf.tanh(STEEPNESS * (k[:, tf.newaxis] - self.centres)) @ self.v

    def curvature(self, k: tf.Tensor) -> tf.Tensor:
        """Second derivative of t in k (m, basis), analytically."""
        t = tf.tanh(STEEPNESS * (k[:, tf.newaxis] - self.centres))
        return (-2 * STEEPNESS**2 * t * (1 - t * t)) @ self.v


class Pinn(tf.Module):
    """Spectrum to parameters with covariance, predicted spectrum and out-of-domain score."""

    def __init__(
        self,
        parametrisation: Parametrisation,
        scale: Floats,
        unit: Floats,
        sizes: Sizes,
        seed: int = 0,
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.p = len(parametrisation.parameters)
        self.equation = Equation(parametrisation)
        self.scale = tf.constant(scale, tf.float32)
        bounds = parametrisation.bounds
        self.low = tf.constant(bounds[:, 0], tf.float32)
        self.span = tf.constant(bounds[:, 1] - bounds[:, 0], tf.float32)
        self.centre = tf.constant(parametrisation.prior_mean, tf.float32)
        #: (p,) what the Cholesky factor is in units of
        self.unit = tf.constant(unit, tf.float32)
        widths = [K_SIZE + MASK_BINS, *sizes.encoder]
        self.encoder = [Dense(rng, a, b) for a, b in pairwise(widths)]
        self.to_theta = Dense(rng, widths[-1], self.p, gain=0.3)
        self.to_cholesky = Dense(rng, widths[-1], self.p * (self.p + 1) // 2, gain=0.1)
        self.to_field = Dense(rng, widths[-1], sizes.basis)
        self.field = Field(sizes.basis)
        nodes = len(NOISE_NODES) * len(END_NODES)
        #: (nodes, p) logarithm of the factor of every error bar, by noise and data end
        self.log_scale = tf.Variable(tf.zeros((nodes, self.p)), trainable=False, name="log_scale")
        detector_widths = [3 * 2 * len(radii(OOD_R)) + self.p + 5, *DETECTOR, 1]
        own = np.random.default_rng((seed, 1))
        self.detector = [Dense(own, a, b) for a, b in pairwise(detector_widths)]
        #: (nodes,) answer of the detector above which nothing is read, by noise and data end
        self.detector_limit = tf.Variable(tf.fill((nodes,), NO_LIMIT), trainable=False)
        self.k = tf.constant(K_GRID, tf.float32)
        self.place, self.diagonal = triangle_places(self.p)
        #: of studies that put the EXAFS equation into the loss or into the last layer
        self.misfit: PathMisfit | None = None
        self.last_layer: GaussNewton | None = None

    @property
    def reading(self) -> tuple[tf.Variable, ...]:
        """Variables of everything but the detector, which is trained when they are."""
        detector = {id(v) for layer in self.detector for v in layer.variables}
        return tuple(v for v in self.trainable_variables if id(v) not in detector)

    def encode(self, chi_k2: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Encoding z (b, width) of the input (b, 401) and its mask (b, 401)."""
        x = limited(chi_k2 * mask, self.scale)
        z = tf.concat([x, coarse(mask)], 1)
        for layer in self.encoder:
            z = tf.tanh(layer(z))
        return z

    def structure(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Theta (b, p) inside its bounds, and Cholesky factor (b, p, p) in `unit`."""
        theta = self.low + self.span * tf.sigmoid(self.to_theta(z))
        return theta, triangle(self.to_cholesky(z), self.diagonal, self.place, self.p)

    def answer(
        self, z: tf.Tensor, chi_k2: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Theta and Cholesky factor of `structure`, after the last layer where there is one."""
        theta, cholesky = self.structure(z)
        if self.misfit is None or self.last_layer is None:
            return theta, cholesky
        noise = self.noise(chi_k2, mask)
        _, pull, curvature = self.misfit.linear(chi_k2 * mask, mask, noise, theta)
        stepped, cholesky = self.last_layer(z, theta, cholesky, pull, curvature)
        return tf.clip_by_value(stepped, self.low, self.low + self.span), cholesky

    def spectrum(self, z: tf.Tensor, basis: tf.Tensor) -> tf.Tensor:
        """Field (b, m) for a basis (m, n) of `Field.basis` or `Field.curvature`."""
        return tf.matmul(self.to_field(z), basis, transpose_b=True)

    def covariance(self, cholesky: tf.Tensor, nodes: tf.Tensor) -> tf.Tensor:
        """Covariance of theta (b, p, p) in the units of theta, calibrated.

        Parameters
        ----------
        cholesky
            (b, p, p) of `structure`.
        nodes
            (b, nodes) of `calibration_nodes`.
        """
        scale = self.unit * tf.exp(nodes @ self.log_scale)
        factor = cholesky * scale[..., tf.newaxis]
        return tf.matmul(factor, factor, transpose_b=True)

    def noise(self, chi_k2: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Noise of chi(k) (b,), from where no path is: the transform at `NOISE_R`.

        Exact for white noise; noise that neighbouring points share is underestimated.
        """
        window = self.taper(mask)
        chi = chi_k2 / tf.maximum(self.k**2, K_MIN**2)
        # `power` holds half of |transform|^2, divided by the square of the grid's size
        square = 2 * K_SIZE**2 * self.power(chi, window, NOISE_R)
        return tf.sqrt(square / (tf.reduce_sum(window**2, 1) + 1e-9) + 1e-14)

    def calibration_nodes(self, chi_k2: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Weights (b, nodes) of the calibration's nodes for every spectrum; they add up to 1."""
        level = tf.math.log(self.noise(chi_k2, mask))
        end = tf.reduce_max(mask * self.k, axis=1)
        by_noise = interpolation_weights(level, np.log(NOISE_NODES))
        by_end = interpolation_weights(end, np.array(END_NODES))
        both = by_noise[:, :, tf.newaxis] * by_end[:, tf.newaxis, :]
        return tf.reshape(both, (-1, len(NOISE_NODES) * len(END_NODES)))

    def taper(self, mask: tf.Tensor) -> tf.Tensor:
        """Fourier window (b, 401) with sine-squared sills inside the mask."""
        end = tf.reduce_max(mask * self.k, axis=1, keepdims=True)
        edge = tf.minimum(self.k - K_MIN, end - self.k) / TAPER
        return mask * tf.sin(np.pi / 2 * tf.clip_by_value(edge, 0.0, 1.0)) ** 2

    def wave(self, chi_k2: tf.Tensor, window: tf.Tensor, r: tuple[float, float]) -> tf.Tensor:
        """Transform of k^2 chi within an R range in angstrom, (b, 2 * radii): cosine, then sine."""
        angle = 2 * K_GRID[:, None] * radii(r)
        matrix = np.hstack([np.cos(angle), np.sin(angle)]) / K_SIZE
        return (chi_k2 * window) @ tf.constant(matrix, tf.float32)

    def power(self, chi_k2: tf.Tensor, window: tf.Tensor, r: tuple[float, float]) -> tf.Tensor:
        """Mean power (b,) of the transform of k^2 chi within an R range in angstrom."""
        return tf.reduce_mean(self.wave(chi_k2, window, r) ** 2, axis=1)

    def out_of_domain(
        self,
        chi_k2: tf.Tensor,
        mask: tf.Tensor,
        theta: tf.Tensor,
        exafs: tf.Tensor,
        field: tf.Tensor,
        nodes: tf.Tensor,
    ) -> tf.Tensor:
        """Score (b,); above 1 a spectrum is not to be read.

        The larger of two: the R-factor of EXAFS(theta) over `OOD_R` against `LARGEST_R_FACTOR`,
        with the square of the share of noise in the signal added, so that noise alone is not taken
        for a perfect spectrum; and the detector's odds that another phase is in the spectrum,
        against `detector_limit`. The second is 0 before calibration. The first is cubed: below its
        limit it says little, and the detector shall decide.
        """
        window = self.taper(mask)
        data = self.power(chi_k2, window, OOD_R) + 1e-12
        noise = self.power(chi_k2, window, NOISE_R)
        misfit = self.power(chi_k2 - exafs, window, OOD_R)
        r_factor = tf.maximum(misfit - noise, 0.0) / data + (noise / data) ** 2
        odds = self.odds(self.detector_features(chi_k2, mask, theta, exafs, field))
        above = odds - tf.linalg.matvec(nodes, self.detector_limit)
        # beyond the clip nothing is to be told apart
        mixed = tf.exp(tf.clip_by_value(above / SOFTNESS, -20.0, 4.0))
        return tf.maximum((r_factor / LARGEST_R_FACTOR) ** 3, mixed)

    def detector_features(
        self,
        chi_k2: tf.Tensor,
        mask: tf.Tensor,
        theta: tf.Tensor,
        exafs: tf.Tensor,
        field: tf.Tensor,
    ) -> tf.Tensor:
        """What the detector judges by (b, n), every column about 1 in size.

        The spectrum and what field and EXAFS(theta) leave of it, in R and relative to the signal;
        how large they and the noise are; where the data end; and theta.
        """
        window = self.taper(mask)
        parts = [self.wave(x, window, OOD_R) for x in (chi_k2, chi_k2 - field, chi_k2 - exafs)]
        rms = [tf.sqrt(tf.reduce_mean(part**2, 1, keepdims=True)) for part in parts]
        size = rms[0] + 1e-9
        noise = tf.sqrt(self.power(chi_k2, window, NOISE_R))[:, tf.newaxis]
        relative = [*(part / size for part in rms[1:]), noise / size]
        end = tf.reduce_max(mask * self.k, axis=1, keepdims=True)
        columns = [
            # soft limit: of what is far off, it only counts that it is
            *(
                3 * tf.tanh(x / (3 * usual * size))
                for x, usual in zip(parts, USUAL_SIZE, strict=True)
            ),
            *(tf.math.log(x + 1e-3) + 2 for x in relative),
            tf.math.log(size),
            (end - 12) / 4,
            0.5 * (theta - self.centre) / self.unit,
        ]
        return tf.concat(columns, 1)

    def odds(self, features: tf.Tensor, dropout: float = 0.0) -> tf.Tensor:
        """Logarithm of the odds (b,) that another phase is in the spectrum.

        `dropout` is the share of every hidden layer that is left out at random, in training.
        """
        first, second, last = self.detector
        hidden = tf.tanh(first(features))
        if dropout:
            hidden = tf.nn.dropout(hidden, dropout)
        hidden = tf.nn.relu(second(hidden))
        if dropout:
            hidden = tf.nn.dropout(hidden, dropout)
        return last(hidden)[:, 0]

    def __call__(self, chi_k2: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the bundle's ``pinn.onnx`` returns.

        Parameters
        ----------
        chi_k2, mask
            (b, 401) float32 of `exafsd.contract.to_grid`.
        """
        z = self.encode(chi_k2, mask)
        theta, cholesky = self.answer(z, chi_k2, mask)
        exafs = self.equation.chi_k2(theta)
        field = self.spectrum(z, self.field.basis(self.k))
        nodes = self.calibration_nodes(chi_k2, mask)
        return {
            "theta": theta,
            "theta_cov": self.covariance(cholesky, nodes),
            "chi_k2_pred": field,
            "chi_k2_exafs": exafs,
            "ood": self.out_of_domain(chi_k2 * mask, mask, theta, exafs, field, nodes),
        }


def limited(chi_k2: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Spectra (b, 401) in units of the input scale (401,), softly limited.

    Where noise is many times the signal, its size says nothing more.
    """
    return 3 * tf.tanh(chi_k2 / (3 * scale))


def coarse(mask: tf.Tensor) -> tf.Tensor:
    """Means (b, `MASK_BINS`) of a mask (b, 401) over stretches of k."""
    return tf.reduce_mean(tf.reshape(mask[:, 1:], (-1, MASK_BINS, K_SIZE // MASK_BINS)), -1)


def triangle_places(p: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the entries of a packed triangle are in a (p, p) matrix, and which are its diagonal.

    The first (entries, p * p) has 0 and 1: a product exports to ONNX where a scatter does not.
    """
    rows, columns = np.tril_indices(p)
    place = np.zeros((len(rows), p * p), np.float32)
    place[np.arange(len(rows)), rows * p + columns] = 1
    return tf.constant(place), tf.constant(rows == columns)


def triangle(
    packed: tf.Tensor, diagonal: tf.Tensor, place: tf.Tensor, p: int | tf.Tensor
) -> tf.Tensor:
    """Cholesky factors (b, p, p) of packed triangles (b, entries) of any values."""
    # exp keeps precision over decades of noise; 3e-3 of the prior's is below any real precision
    positive = 3e-3 + tf.exp(tf.clip_by_value(packed, -9.0, 3.0))
    return tf.reshape(tf.where(diagonal, positive, packed) @ place, (-1, p, p))


def radii(r: tuple[float, float]) -> Floats:
    """Points of a transform within an R range, angstrom."""
    return np.arange(r[0], r[1] + 1e-6, 0.1)


def interpolation_weights(x: tf.Tensor, nodes: Floats) -> tf.Tensor:
    """Weights (b, n) of linear interpolation at x (b,) between ascending nodes (n,)."""
    held = tf.clip_by_value(x, float(nodes[0]), float(nodes[-1]))[:, tf.newaxis]
    # every node's weight falls to zero at its neighbours; at the ends there is none
    gap = np.diff(nodes)
    before = tf.constant(np.concatenate([[1.0], gap]), tf.float32)
    after = tf.constant(np.concatenate([gap, [1.0]]), tf.float32)
    off = held - tf.constant(nodes, tf.float32)
    return tf.maximum(0.0, 1 - tf.where(off < 0, -off / before, off / after))


def input_scale(chi_k2: Floats) -> Floats:
    """(401,) size of simulated k^2 chi (n, 401) at every k, smoothed, never near zero."""
    rms = np.sqrt(np.mean(chi_k2**2, axis=0))
    smooth = np.convolve(np.pad(rms, 20, mode="edge"), np.ones(41) / 41, mode="valid")
    return np.maximum(smooth, 0.1 * smooth.max())

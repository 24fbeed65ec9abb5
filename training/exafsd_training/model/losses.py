"""The loss: data, physics and parameters, every term by name.

L = lambda_data L_data + lambda_pi (weights of the modes) L_PI + lambda_theta L_theta
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.model.network import Pinn
from exafsd_training.model.path_misfit import POINTS
from exafsd_training.simulation.corruption import corrupt
from exafsd_training.simulation.simulate import K_MIN

#: Collocation points in k per step, drawn anew for every step.
COLLOCATION = 32
#: One spectrum of so many answers for the physics at the collocation points: of all of them, the
#: second derivative of the path sum would take ten times as long as everything else in a step.
PHYSICS_STRIDE = 8
#: One spectrum of so many is compared with its path sum by `BY_MISFIT`.
MISFIT_STRIDE = 4
#: Copies of unlabelled spectra in a step, and what is added to them: noise of chi(k), log-uniform.
COPIES, COPY_NOISE = 16, (1e-4, 3e-3)
#: End of the collocation range, 1/angstrom.
COLLOCATION_END = 17.0


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; 0 switches a term off and saves its work.

    In the same time a network without the terms of physics becomes better, since these cost two
    thirds of every step (`exafsd-train ablate`; docs/explanation/physics.md). So they are off, and
    physics comes in with the simulated spectra and with EXAFS(theta) beside every answer.
    """

    data: float = 1.0
    theta: float = 0.3
    #: the paper's penalty on the second derivative; flattens real oscillations when large
    curvature: float = 0.0
    #: field against EXAFS(theta), value and scaled second derivative
    exafs_equation: float = 0.0
    #: EXAFS(theta) against unlabelled measured spectra
    measured: float = 0.0
    #: likelihood of theta after a Gauss-Newton step, which is then the network's answer
    gauss_newton: float = 0.0
    #: EXAFS(theta) against spectra with noise, unlabelled measured ones among them, whitened by the
    #: covariance of what may lie between them
    decoder: float = 0.0


#: Weights of the terms of physics where they are on.
PHYSICS = {
    "curvature": 1e-5, "exafs_equation": 0.05, "measured": 0.05, "gauss_newton": 0.1,
    "decoder": 0.03,
}  # fmt: skip
#: Terms that take `exafsd_training.model.path_misfit.PathMisfit`.
BY_MISFIT = ("gauss_newton", "decoder")


def negative_log_likelihood(
    theta: tf.Tensor, cholesky: tf.Tensor, truth: tf.Tensor, unit: tf.Tensor
) -> tf.Tensor:
    """Gaussian, full covariance, per spectrum (b,), without the constant.

    Parameters
    ----------
    theta, truth
        (b, p).
    cholesky
        (b, p, p) lower triangle in units of `unit` (p,).
    """
    residual = ((truth - theta) / unit)[..., tf.newaxis]
    white = tf.linalg.triangular_solve(cholesky, residual)[..., 0]
    # far outliers (noise only, glitches) must not steer the step: linear beyond 5 sigma
    square = tf.where(tf.abs(white) < 5, 0.5 * white**2, 5 * tf.abs(white) - 12.5)
    return tf.reduce_sum(square, -1) + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(cholesky)), -1)


def loss_terms(
    model: Pinn,
    chi_k2: tf.Tensor,
    mask: tf.Tensor,
    clean: tf.Tensor,
    truth: tf.Tensor,
    seed: tf.Tensor,
    weights: Weights,
    measured: tuple[tf.Tensor, tf.Tensor] | None = None,
    fit_r: tuple[float, float] = (1.4, 3.0),
) -> dict[str, tf.Tensor]:
    """Every term of the loss, and their weighted sum as ``total``.

    Parameters
    ----------
    model
        Network.
    chi_k2, mask, clean
        (b, 401) input, its mask and the uncorrupted spectrum.
    truth
        (b, p) parameters.
    seed
        (2,) int32 of collocation points and of noise.
    weights
        Weights of the terms.
    measured
        Unlabelled (n, 401) spectra and masks.
    fit_r
        R window of the fit that the parameters answer for, angstrom.
    """
    z = model.encode(chi_k2, mask)
    theta, cholesky = model.structure(z)
    k = collocation(seed)
    predicted = model.spectrum(z, model.field.basis(model.k))
    error = mask * (predicted - clean) / model.scale
    terms = {
        "data": tf.reduce_sum(error**2) / tf.reduce_sum(mask),
        "theta": tf.reduce_mean(negative_log_likelihood(theta, cholesky, truth, model.unit)),
    }
    few = z[::PHYSICS_STRIDE]
    # (2R)^2 is what two derivatives do to an oscillation in k
    frequency = (2 * model.equation.paths.reff[0]) ** 2
    if weights.curvature or weights.exafs_equation:
        curvature = model.spectrum(few, model.field.curvature(k)) / frequency
        terms["curvature"] = tf.reduce_mean(curvature**2)
    if weights.exafs_equation:
        value, second = model.equation.curvature(theta[::PHYSICS_STRIDE], k)
        at_k = tf.gather(model.scale, tf.cast(tf.round(k / 0.05), tf.int32))
        off = (model.spectrum(few, model.field.basis(k)) - value) / at_k
        bent = (curvature - second / frequency) / at_k
        terms["exafs_equation"] = tf.reduce_mean(off**2) + 0.1 * tf.reduce_mean(bent**2)
    if measured is not None and weights.measured:
        real, real_mask = measured
        answer, _ = model.structure(model.encode(real, real_mask))
        window = model.taper(real_mask)
        misfit = model.power(model.equation.chi_k2(answer) - real, window, fit_r)
        terms["measured"] = tf.reduce_mean(misfit / model.power(real, window, fit_r))
    if model.misfit is not None and (weights.gauss_newton or weights.decoder):
        inputs = [x[::MISFIT_STRIDE] for x in (chi_k2, mask, theta)]
        square, pull, curvature = _misfit(model, *inputs)
    if model.last_layer is not None and weights.gauss_newton:
        own, cholesky, true = (x[::MISFIT_STRIDE] for x in (theta, cholesky, truth))
        stepped = model.last_layer(z[::MISFIT_STRIDE], own, cholesky, pull, curvature)
        likelihood = negative_log_likelihood(*stepped, true, model.unit)
        terms["gauss_newton"] = tf.reduce_mean(likelihood)
    if weights.decoder:
        terms["decoder"] = _limited(square)
        if measured is not None:
            copies = _copies(*measured, seed)
            answer, _ = model.structure(model.encode(*copies))
            terms["decoder"] += _limited(_misfit(model, *copies, answer)[0])
    terms["total"] = tf.add_n([getattr(weights, name) * value for name, value in terms.items()])
    return terms


def _misfit(
    model: Pinn, chi_k2: tf.Tensor, mask: tf.Tensor, theta: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    assert model.misfit is not None  # `exafsd_training.fitting.fit.build` sets it for these terms
    return model.misfit.linear(chi_k2 * mask, mask, model.noise(chi_k2, mask), theta)


def _limited(square: tf.Tensor) -> tf.Tensor:
    """Mean of squared misfits (b,), as a likelihood whose scale is free: outliers count little."""
    points = len(POINTS)
    return 0.5 * points * tf.reduce_mean(tf.math.log1p(square / points))


def _copies(real: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`COPIES` of unlabelled spectra and masks (n, 401) with more noise, to other ends."""
    seeds = tf.unstack(tf.random.split(seed, 3))
    row = tf.random.stateless_uniform((COPIES,), seeds[0], 0, tf.shape(real)[0], tf.int32)
    low, high = np.log(COPY_NOISE)
    level = tf.exp(tf.random.stateless_uniform((COPIES,), seeds[1], low, high))
    end = tf.reduce_max(mask * tf.constant(K_GRID, tf.float32), axis=1)
    uncorrupted = tf.zeros(COPIES)
    return corrupt(tf.gather(real, row), tf.gather(end, row), uncorrupted, seeds[2], level)


def collocation(seed: tf.Tensor) -> tf.Tensor:
    """Random k (m,) in 1/angstrom for the physics terms."""
    return tf.random.stateless_uniform((COLLOCATION,), seed, K_MIN, COLLOCATION_END)

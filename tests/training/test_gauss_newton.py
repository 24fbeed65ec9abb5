"""The EXAFS equation in the loss and as the last layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.fitting.fit import Data, Settings, build, load, save
from exafsd_training.model.losses import PHYSICS, Weights, loss_terms
from exafsd_training.model.network import Pinn
from exafsd_training.model.path_misfit import FILTER, POINTS, PathMisfit, thinned
from exafsd_training.simulation.refinement import significant_paths
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation

NOISE = 1e-3


@pytest.fixture(scope="module")
def model(copper: Parametrisation, data: Data, settings: Settings) -> Pinn:
    return build(copper, data.direct, replace(settings, weights=Weights(**PHYSICS)))


@pytest.fixture(scope="module")
def misfit(model: Pinn) -> PathMisfit:
    assert model.misfit is not None
    return model.misfit


@pytest.fixture(scope="module")
def spectra(misfit: PathMisfit, copper: Parametrisation, data: Data) -> tuple[tf.Tensor, ...]:
    """k^2 chi of the misfit's own paths, masks to 13 1/angstrom, noise and theta."""
    theta = tf.constant(data.direct.theta[:6], tf.float32)
    whole = Equation(copper.with_paths(significant_paths(copper)))
    mask = tf.constant(np.tile(np.float32((K_GRID > 2.4) & (K_GRID < 13)), (6, 1)))
    return whole.chi_k2(theta) * mask, mask, tf.fill((6,), NOISE), theta


@pytest.mark.parametrize(("half_length", "less"), [(1.5, 2e-4), (2.6, 1e-3), (4.5, 7e-3)])
def test_the_filter_leaves_waves_as_they_are(half_length: float, less: float) -> None:
    wave = np.cos(2 * half_length * K_GRID + 0.4)
    filtered = thinned(tf.constant(wave[None], tf.float32)).numpy()[0]
    assert filtered == pytest.approx(wave[POINTS], abs=1.1 * less)


def test_the_misfit_is_that_of_the_whole_covariance(
    misfit: PathMisfit, spectra: tuple[tf.Tensor, ...]
) -> None:
    chi_k2, mask, noise, theta = spectra
    moved = theta + 0.1 * misfit.unit
    square, pull, curvature = (x.numpy() for x in misfit(chi_k2, mask, noise, moved))
    chi, slopes = (np.float64(x.numpy()) for x in misfit.equation.chi_and_jacobian(moved))
    k2, rest = K_GRID[POINTS] ** 2, np.float64(misfit.rest.numpy())
    white = np.sum(FILTER**2) * (NOISE * k2) ** 2 + np.float64(misfit.floor.numpy()) ** 2
    inside = np.flatnonzero(mask.numpy()[0]).max() - 3 >= POINTS
    covariance = (np.diag(white) + rest @ rest.T)[np.ix_(inside, inside)]
    for i in range(len(square)):
        off = (np.float64(thinned(chi_k2).numpy()[i]) - k2 * chi[i])[inside]
        by = (slopes[i] * k2[:, None] * misfit.unit.numpy())[inside]
        inverse = np.linalg.inv(covariance)
        assert square[i] == pytest.approx(off @ inverse @ off, rel=1e-3)
        assert pull[i] == pytest.approx(
            by.T @ inverse @ off, rel=5e-3, abs=float(1e-3 * abs(pull).max())
        )
        expected = by.T @ inverse @ by
        assert curvature[i] == pytest.approx(expected, rel=5e-3, abs=float(1e-3 * expected.max()))


def test_the_slope_of_the_misfit_is_its_pull(
    misfit: PathMisfit, spectra: tuple[tf.Tensor, ...]
) -> None:
    *about, theta = spectra
    moved = theta + 0.05 * misfit.unit
    with tf.GradientTape() as tape:
        tape.watch(moved)
        square, pull, _ = misfit.linear(*about, moved)
    slope = tape.gradient(square, moved) * misfit.unit
    assert slope.numpy() == pytest.approx(-2 * pull.numpy(), rel=1e-5)
    lower, upper = (misfit(*about, moved + x * misfit.unit)[0].numpy() for x in (-2e-3, 2e-3))
    along = tf.reduce_sum(slope, -1).numpy()
    assert (upper - lower) / 4e-3 == pytest.approx(
        along, rel=0.05, abs=float(0.02 * abs(along).max())
    )


def test_a_step_goes_to_the_spectrum_as_far_as_the_network_lets_it(
    model: Pinn, misfit: PathMisfit, spectra: tuple[tf.Tensor, ...]
) -> None:
    *about, theta = spectra
    assert model.last_layer is not None
    p = theta.shape[1]
    moved = theta + 0.05 * misfit.unit
    z = tf.zeros((len(theta), model.to_theta.w.shape[0]))
    _, pull, curvature = misfit.linear(*about, moved)
    reached = {}
    for size in (5e-4, 1.0):
        cholesky = size * tf.eye(p, batch_shape=[len(theta)])
        answer, factor = model.last_layer(z, moved, cholesky, pull, curvature)
        reached[size] = np.abs((answer - theta) / misfit.unit)
        deviation = np.sqrt(np.sum(factor.numpy() ** 2, axis=-1))
        assert np.isfinite(deviation).all() and (deviation > 0).all()
        # never less sure than the network, as it enters
        assert (deviation <= 1.001 * size * np.exp(model.last_layer.log_wider)).all()
    assert reached[5e-4] == pytest.approx(0.05, abs=5e-3)
    r, sigma2 = 2, 3
    assert reached[1.0][:, [r, sigma2]].max() < 0.02


def test_a_network_with_the_layer_is_saved_and_loaded(
    model: Pinn,
    copper: Parametrisation,
    settings: Settings,
    spectra: tuple[tf.Tensor, ...],
    tmp_path: Path,
) -> None:
    chi_k2, mask, _, _ = spectra
    save(tmp_path / "model.npz", model)
    own = replace(settings, weights=Weights(**PHYSICS))
    again = load(tmp_path / "model.npz", copper, own)
    for name, value in model(chi_k2, mask).items():
        np.testing.assert_array_equal(again(chi_k2, mask)[name], value)
    plain = model.structure(model.encode(chi_k2, mask))[0]
    assert np.abs(model(chi_k2, mask)["theta"] - plain).max() > 0


def test_what_is_measured_enters_without_its_parameters(
    model: Pinn, spectra: tuple[tf.Tensor, ...]
) -> None:
    chi_k2, mask, _, theta = spectra
    seed, weights = tf.constant([1, 2]), Weights(decoder=1.0)

    def decoder(truth: tf.Tensor, real: tuple[tf.Tensor, tf.Tensor] | None) -> float:
        terms = loss_terms(model, chi_k2, mask, chi_k2, truth, seed, weights, real)
        return float(terms["decoder"])

    alone, beside = decoder(theta, None), decoder(theta, (chi_k2, mask))
    assert beside > alone > 0
    assert decoder(theta + 0.1 * model.unit, (chi_k2, mask)) == beside
    assert decoder(theta, (2 * chi_k2, mask)) != beside

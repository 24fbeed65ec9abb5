"""Network, losses, and a training of some seconds that can be interrupted."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import HeldOutSpectra, calibrate, predict
from exafsd_training.fitting.fit import Data, Settings, batches, build, train
from exafsd_training.model.losses import PHYSICS, Weights, loss_terms, negative_log_likelihood
from exafsd_training.model.network import Pinn
from exafsd_training.theory.parametrisation import Parametrisation

TERMS = {"data", "theta", *PHYSICS, "total"}


@pytest.fixture(scope="module")
def fresh(copper: Parametrisation, data: Data, settings: Settings) -> Pinn:
    return build(copper, data.direct, settings)


def test_field_starts_with_the_shape_of_spectra(fresh: Pinn, data: Data) -> None:
    basis = fresh.field.basis(fresh.k).numpy()
    where = (K_GRID > 2.5) & (K_GRID < 18)
    weighted = (basis / fresh.scale.numpy()[:, None])[where]
    clean = (data.direct.clean[:200] / fresh.scale.numpy())[:, where].T
    rest = clean - weighted @ np.linalg.lstsq(weighted, clean, rcond=None)[0]
    # by 24 functions; what the far paths of each spectrum add is its own
    assert np.std(rest) / np.std(clean) < 0.15


def test_field_curvature_against_finite_differences(fresh: Pinn) -> None:
    k, h = np.linspace(3, 15, 9), 1e-2
    around = [fresh.field.basis(tf.constant(k + s, tf.float32)).numpy() for s in (-h, 0, h)]
    expected = (around[0] - 2 * around[1] + around[2]) / h**2
    curvature = fresh.field.curvature(tf.constant(k, tf.float32)).numpy()
    np.testing.assert_allclose(curvature, expected, atol=0.03 * np.abs(expected).max())


def test_outputs(fresh: Pinn, copper: Parametrisation, data: Data) -> None:
    chi_k2 = data.direct.clean[:5]
    mask = np.broadcast_to((K_GRID > 2.4) & (K_GRID < 13), chi_k2.shape).astype(np.float32)
    out = predict(fresh, chi_k2 * mask, mask)
    assert {name: value.shape for name, value in out.items()} == {
        "theta": (5, 9), "theta_cov": (5, 9, 9), "chi_k2_pred": (5, 401),
        "chi_k2_exafs": (5, 401), "ood": (5,),
    }  # fmt: skip
    low, high = copper.bounds.T
    assert ((out["theta"] > low) & (out["theta"] < high)).all()
    assert (np.linalg.eigvalsh(out["theta_cov"] / np.outer(*[copper.prior_std] * 2)) > 0).all()


def test_the_score_is_zero_for_exafs_itself_and_large_for_noise(fresh: Pinn, data: Data) -> None:
    theta = tf.constant(data.direct.theta[:20])
    exafs = fresh.equation.chi_k2(theta)
    mask = tf.constant(np.broadcast_to((K_GRID > 2.4) & (K_GRID < 13), (20, 401)), tf.float32)
    nodes = fresh.calibration_nodes(exafs, mask)
    assert fresh.out_of_domain(exafs * mask, mask, theta, exafs, exafs, nodes).numpy().max() < 0.1
    noise = tf.constant(np.random.default_rng(0).normal(0, 9, (20, 401)), tf.float32)
    far = fresh.out_of_domain(noise * mask, mask, theta, exafs, exafs, nodes)
    assert far.numpy().min() > 2


def test_likelihood_is_the_gaussian_one() -> None:
    unit = tf.constant([2.0, 0.5])
    cholesky = tf.constant([[[0.3, 0.0], [0.1, 0.2]]])
    off = np.array([0.2, -0.1])
    factor = np.diag(unit.numpy()) @ cholesky.numpy()[0]
    covariance = factor @ factor.T
    expected = 0.5 * off @ np.linalg.solve(covariance, off) + 0.5 * np.log(
        np.linalg.det(covariance)
    )
    theta = tf.constant([[1.0, 2.0]])
    truth = theta + tf.constant(off[None], tf.float32)
    likelihood = negative_log_likelihood(theta, cholesky, truth, unit).numpy()[0]
    assert likelihood + np.log(unit.numpy()).sum() == pytest.approx(expected, abs=1e-5)


def test_every_term_is_finite(
    copper: Parametrisation, data: Data, settings: Settings, fresh: Pinn
) -> None:
    pool = data.direct.take(slice(0, 16))
    arrays = [tf.constant(x, tf.float32) for x in (pool.clean, np.ones((16, 401)))]
    truth = tf.constant(pool.theta)
    seed, physics = tf.constant([0, 1]), Weights(**PHYSICS)
    model = build(copper, data.direct, replace(settings, weights=physics))
    terms = loss_terms(model, *arrays, arrays[0], truth, seed, physics, tuple(arrays))
    assert set(terms) == TERMS
    assert all(np.isfinite(value.numpy()) for value in terms.values())
    assert set(loss_terms(fresh, *arrays, arrays[0], truth, seed, Weights(), tuple(arrays))) == {
        "data", "theta", "total"
    }  # fmt: skip


def test_batches_depend_on_their_number_alone(fresh: Pinn, data: Data, settings: Settings) -> None:
    stream = iter(batches(fresh, data, settings))
    first, second, third = (next(stream) for _ in range(3))
    again = next(iter(batches(fresh, data, settings, start=2)))
    for one, other, another in zip(third, again, first, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(one, another)
    chi_k2, mask, clean, theta = (x.numpy() for x in second)
    assert chi_k2.shape == mask.shape == clean.shape == (settings.batch, 401)
    low, high = fresh.low.numpy(), (fresh.low + fresh.span).numpy()
    assert ((theta > low) & (theta < high)).all()


def test_training_ends_early_when_nothing_improves(
    copper: Parametrisation, data: Data, settings: Settings, tmp_path: Path
) -> None:
    model = build(copper, data.direct, settings)
    still = replace(settings, learning_rate=0.0, steps=10_000, epoch_steps=5, patience=2)
    assert train(model, data, still, tmp_path)["epochs"] <= 6


def test_training_learns_tracks_and_resumes(
    copper: Parametrisation, data: Data, settings: Settings, tmp_path: Path
) -> None:
    settings = replace(settings, weights=Weights(**PHYSICS))
    model = build(copper, data.direct, settings)
    first = replace(settings, steps=80)
    assert train(model, data, first, tmp_path)["steps"] == 80
    again = build(copper, data.direct, settings)
    summary = train(again, data, settings, tmp_path)
    assert (summary["steps"], summary["epochs"]) == (120, 3)
    with (tmp_path / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    for term in TERMS - {"measured"}:
        assert {term, f"validation/{term}"} <= set(rows[0])
    assert float(rows[-1]["validation/total"]) < float(rows[0]["validation/total"])
    assert float(rows[-1]["validation/data"]) < float(rows[0]["validation/data"])

    held = HeldOutSpectra.of(data.validation_direct, data.validation_instrument)
    calibrated = calibrate(again, copper, held)
    assert set(calibrated.std_scale) == {p.id for p in copper.parameters}
    assert np.mean(list(calibrated.coverage_90.values())) == pytest.approx(0.9, abs=0.12)

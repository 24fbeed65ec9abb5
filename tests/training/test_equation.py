"""The EXAFS equation against Larch's path sum, path by path, and its derivatives."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from larch.xafs import feffpath

from exafsd.contract import K_GRID
from exafsd_training.theory.equation import Equation, PathSum
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import (
    KNOT_STEP,
    KNOTS,
    PathTable,
    load_table,
    save_table,
    value,
)

K = (K_GRID >= 2) & (K_GRID <= 14)


def larch_chi(file: Path, **parameters: float) -> np.ndarray:
    path = feffpath(str(file), s02=1, **parameters)
    path._calc_chi(k=K_GRID.copy())
    return path.chi


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float64, 1e-5), (tf.float32, 1e-4)])
def test_every_path_equals_larch(
    all_paths: PathTable, feff_folder: Path, dtype: tf.DType, tolerance: float
) -> None:
    rng = np.random.default_rng(4)
    n = len(all_paths)
    assert n > 50
    paths = PathSum(all_paths, dtype)
    for _ in range(3):
        e0 = rng.uniform(-15, 15)
        deltar, sigma2 = rng.uniform(-0.1, 0.1, n), rng.uniform(0.001, 0.04, n)
        c3 = rng.uniform(-4e-4, 3e-3, n)
        arrays = (K_GRID, [[e0]], deltar[None], sigma2[None], c3[None])
        ours = paths(*(tf.constant(x, dtype) for x in arrays))[1].numpy()[0]
        for i, path in enumerate(all_paths.paths):
            expected = larch_chi(feff_folder / path.file, e0=e0, deltar=deltar[i],
                                 sigma2=sigma2[i], third=c3[i])  # fmt: skip
            worst = np.abs(ours[i] - expected)[K].max() / np.abs(expected[K]).max()
            assert worst <= tolerance, f"{path.label}: {worst:.1e}"


def thetas(copper: Parametrisation, n: int = 4) -> np.ndarray:
    low, high = copper.bounds.T
    return np.random.default_rng(5).uniform(low, high, (n, len(low)))


def test_theta_to_chi_is_the_tied_sum_of_paths(copper: Parametrisation, feff_folder: Path) -> None:
    theta = thetas(copper, 1)
    ties = copper.ties
    total = np.zeros(len(K_GRID))
    for i, path in enumerate(copper.table.paths):
        total += (
            theta[0, copper.index("1/n_s02")]
            / 12
            * larch_chi(
                feff_folder / path.file,
                e0=theta[0, copper.index("e0_shift")],
                deltar=ties.deltar_0[i] + (theta @ ties.deltar)[0, i],
                sigma2=(theta @ ties.sigma2)[0, i],
                third=(theta @ ties.c3)[0, i],
            )
        )
    ours = Equation(copper, tf.float64).chi(tf.constant(theta)).numpy()[0]
    np.testing.assert_allclose(ours[K], total[K], atol=1e-6 * np.abs(total[K]).max())


def test_jacobian_against_finite_differences(copper: Parametrisation) -> None:
    equation = Equation(copper, tf.float64)
    theta = thetas(copper)
    chi, jacobian = (x.numpy() for x in equation.chi_and_jacobian(tf.constant(theta)))
    np.testing.assert_allclose(chi, equation.chi(tf.constant(theta)).numpy(), rtol=1e-10, atol=1e-9)
    for i, (low, high) in enumerate(copper.bounds):
        step = np.zeros_like(theta)
        step[:, i] = 1e-6 * (high - low)
        above, below = (equation.chi(tf.constant(theta + s)).numpy() for s in (step, -step))
        expected = (above - below) / (2 * step[0, i])
        scale = np.abs(expected[:, K]).max()
        np.testing.assert_allclose(jacobian[:, K, i], expected[:, K], atol=1e-6 * scale)


def test_curvature_against_finite_differences(copper: Parametrisation) -> None:
    equation = Equation(copper, tf.float64)
    theta, k, h = tf.constant(thetas(copper)), np.linspace(4.03, 13.97, 21), 1e-3
    value, second = equation.curvature(theta, tf.constant(k))
    around = [equation.chi_k2(theta, tf.constant(k + s)).numpy() for s in np.arange(-2, 3) * h]
    np.testing.assert_allclose(value, around[2], rtol=1e-12)
    expected = np.tensordot([-1, 16, -30, 16, -1], around, 1) / (12 * h**2)
    np.testing.assert_allclose(second, expected, atol=1e-7 * np.abs(expected).max())


def test_table_survives_its_file(all_paths: PathTable, tmp_path: Path) -> None:
    save_table(all_paths, tmp_path / "t.npz")
    again = load_table(tmp_path / "t.npz")
    assert [p.label for p in again.paths] == [p.label for p in all_paths.paths]
    np.testing.assert_array_equal(again.coefficients(), all_paths.coefficients())


def test_a_table_keeps_feffs_own_intervals(all_paths: PathTable) -> None:
    """A spline through FEFF's coarse k is one cubic between them: nothing changes."""
    first, pieces = all_paths.pieces()
    assert len(first) < 60
    every = all_paths.coefficients()
    length = np.diff([*first, KNOTS])
    q = np.random.default_rng(0).uniform(0.1, 21.0, 500)
    knot = np.minimum(q / KNOT_STEP, KNOTS - 1)
    place = np.searchsorted(first, knot.astype(int), side="right") - 1
    share = (q / KNOT_STEP - first[place]) / length[place]
    powers = share[:, None] ** np.arange(4)
    ours = np.einsum("qcp,qp->qc", pieces[place], powers)
    expected = np.stack([value(every[:, i], q) for i in range(every.shape[1])], axis=1)
    scale = np.abs(expected).max(axis=0)
    np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-7)

"""Simulated spectra: shapes, reproducibility, masks."""

import numpy as np
import tensorflow as tf

from exafsd.contract import ETOK, K_GRID, K_SIZE
from exafsd_training.fitting.fit import Data
from exafsd_training.simulation.corruption import corrupt
from exafsd_training.simulation.instrument import Atom, absorption, instrument_pool
from exafsd_training.simulation.simulate import K_END, K_MIN, direct_pool
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import PathTable
from exafsd_training.theory.thermal import einstein_sigma2


def test_einstein_at_both_ends() -> None:
    hot = einstein_sigma2(np.array([1000.0]), np.array([232.0]), 31.773)[0]
    cold = einstein_sigma2(np.array([1.0]), np.array([232.0]), 31.773)[0]
    assert 0.0032 < cold < 0.0034
    # classical limit 2 T / theta times the zero-point value
    assert abs(hot / cold / (2 * 1000 / 232) - 1) < 0.01


def test_direct_pool_is_inside_bounds_and_reproducible(
    copper: Parametrisation, truth: PathTable
) -> None:
    one, two = (direct_pool(3, 150, copper, truth) for _ in range(2))
    np.testing.assert_array_equal(one.clean, two.clean)
    assert one.clean.shape == (150, K_SIZE)
    assert np.isfinite(one.clean).all()
    low, high = copper.bounds.T
    assert ((one.theta > low) & (one.theta < high)).all()
    assert not np.array_equal(one.clean, direct_pool(4, 150, copper, truth).clean)


def test_corrupt_masks_and_repeats(data: Data) -> None:
    pool = data.direct.take(slice(0, 200))
    inputs = [tf.constant(x, tf.float32) for x in (pool.noisy, pool.k_end, np.ones(200))]
    chi_k2, mask = (x.numpy() for x in corrupt(*inputs, tf.constant([1, 2])))
    again = corrupt(*inputs, tf.constant([1, 2]))[0].numpy()
    np.testing.assert_array_equal(chi_k2, again)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert (chi_k2[mask == 0] == 0).all()
    start = K_GRID[mask.argmax(1)]
    np.testing.assert_allclose(start, K_MIN)
    end = (K_GRID * mask).max(1)
    assert end.min() > K_END[0] - 0.1
    assert end.max() <= K_END[1] + 0.1


def test_instrument_pool(copper: Parametrisation, truth: PathTable, data: Data) -> None:
    one, two = (instrument_pool(9, 3, copper, truth, Atom("Cu", "K")) for _ in range(2))
    np.testing.assert_array_equal(one.noisy, two.noisy)
    pool = data.instrument
    assert len(pool) > 10
    # AUTOBK and normalisation give back what went in, apart from noise and near-edge trouble
    rest = []
    for clean, noisy, end in zip(pool.clean, pool.noisy, pool.k_end, strict=True):
        stop = min(10, end)
        where = (K_GRID > 4) & (stop > K_GRID)
        rest.append(np.std((noisy - clean)[where]) / np.std(clean[where]))
    assert np.median(rest) < 0.35


def test_scans_end_before_the_next_edge() -> None:
    assert Atom("Cu", "K").reach() == np.inf
    # L3 and L2 of platinum are 1709 eV apart, of cerium 441 eV
    assert 20.5 < Atom("Pt", "L3").reach() < 21.2
    assert 10.0 < Atom("Ce", "L3").reach() < 10.7


def test_a_near_edge_that_ends_at_20_ev_is_not_in_the_fit_window() -> None:
    """Fits take what is beyond 3 1/angstrom for fine structure, where bonds give 0.5 or so."""
    atom, origin = Atom("Cd", "K"), 5.0
    energy = atom.energy() + np.arange(-150.0, 900.0)
    k = np.sqrt(np.maximum(energy - atom.energy() - origin, 0.0) * ETOK)
    inside, low = k > 3.0, k[k > 3.0] < 5.0

    def remains(seed: int, near_edge: float) -> float:
        """Rms of k^2 times what no smooth background has, with no fine structure at all."""
        rng = np.random.default_rng(seed)
        nothing, quiet = np.zeros(K_SIZE), (1e-6, 1e-6)
        mu = absorption(rng, atom, energy, nothing, atom.energy() + origin, quiet, near_edge)
        smooth = np.polynomial.Polynomial.fit(energy[inside], mu[inside], 4)(energy[inside])
        return float(np.sqrt(np.mean(((mu[inside] - smooth) * k[inside] ** 2)[low] ** 2)))

    ended, wide = ([remains(seed, end) for seed in range(40)] for end in (20.0, 40.0))
    assert max(ended) < 0.05
    assert max(wide) > 0.3

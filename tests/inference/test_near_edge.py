"""Near edges beside that of the material: what is allowed for, and what is not."""

import numpy as np
import pytest
from scipy.special import voigt_profile

from exafsd.contract.card import NEAR_EDGE_BINS, NearEdge
from exafsd.inference.near_edge import CENTRES, Comparison, profile

EDGE, LIMIT = 9000.0, 0.0175
GRID = np.concatenate(
    [np.arange(8850.0, 8980.0, 5.0), np.arange(8980.0, 9040.0, 0.4), np.arange(9040.0, 9500.0, 1.5)]
)


def norm(energy=GRID, peak=5.0, height=8.0, shift=0.0, width=0.0, damping=0.0):
    """An edge and a white line as broad as the core hole and the monochromator, and EXAFS.

    Parameters
    ----------
    energy
        eV.
    peak, height
        Of the white line: eV above the edge, and area in eV.
    shift
        Of the edge, eV.
    width
        Standard deviation of the resolution, eV.
    damping
        What the fine structure loses, 1/eV.
    """
    fine = np.linspace(-300.0, 800.0, 11001)
    above = np.maximum(fine, 0.0)
    chi = 0.1 * np.sin(2 * 2.5 * np.sqrt(0.2625 * above)) * np.exp(-damping * above)
    line = height * np.exp(-damping * peak) * voigt_profile(fine - peak, 1.0, 1.0)
    mu = (fine > 0) * (1.0 + chi) + line
    kernel = voigt_profile(np.arange(-80.0, 80.1, 0.1), np.hypot(width, 0.5), 0.8)
    mu = np.convolve(mu, kernel / kernel.sum(), "same")
    return np.interp(energy - EDGE - shift, fine, mu)


@pytest.fixture(scope="module")
def comparison():
    shape, noise = profile(GRID, norm(), EDGE)
    assert shape.shape == CENTRES.shape == (NEAR_EDGE_BINS,)
    assert noise < 1e-3
    return Comparison(NearEdge(profile=tuple(shape), limit=LIMIT), EDGE)


def difference(comparison, energy, mu):
    return comparison.difference(*profile(energy, mu, EDGE))


@pytest.mark.parametrize(
    "same",
    [
        {}, {"shift": 3.0}, {"shift": -4.3}, {"width": 1.5}, {"damping": 3e-3},
        {"shift": 2.0, "width": 1.0, "damping": 2e-3},
    ],
)  # fmt: skip
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1.04, -0.02)])
def test_beamline_and_temperature_are_no_difference(comparison, same, scale, offset):
    mu = scale * norm(**same) + offset
    assert difference(comparison, GRID, mu) < 0.6 * LIMIT
    assert not comparison.differs(GRID, mu, EDGE)


def test_a_sharper_spectrum_than_the_reference_is_no_difference():
    shape, _ = profile(GRID, norm(width=1.8), EDGE)
    comparison = Comparison(NearEdge(profile=tuple(shape), limit=LIMIT), EDGE)
    assert not comparison.differs(GRID, norm(), EDGE)


@pytest.mark.parametrize("other", [{"peak": 15.0}, {"height": 2.0}, {"height": 16.0, "peak": 8.0}])
def test_three_tenths_of_another_near_edge_are_a_difference(comparison, other):
    assert comparison.differs(GRID, 0.7 * norm() + 0.3 * norm(**other), EDGE)


def test_any_grid_fine_enough_will_do(comparison):
    for step in (0.1, 1.0, 2.0):
        energy = np.arange(8900.0, 9500.0, step)
        assert difference(comparison, energy, norm(energy)) < 0.5 * LIMIT


def test_noise_is_no_difference_and_is_measured(comparison):
    rng = np.random.default_rng(4)
    for sigma in (0.003, 0.03):
        distances = []
        for _ in range(100):
            means, noise = profile(GRID, norm() + rng.normal(0, sigma, len(GRID)), EDGE)
            distances.append(comparison.difference(means, noise))
            # points 1.5 eV apart in bins of 2
            assert noise == pytest.approx(sigma * 0.75**0.5, rel=0.4)
        assert np.mean(np.array(distances) > LIMIT) <= 0.05


@pytest.mark.parametrize(
    "energy",
    [
        np.arange(8900.0, 9500.0, 4.0),  # too coarse
        np.arange(8985.0, 9500.0, 0.5),  # begins too late
        np.arange(8900.0, 9040.0, 0.5),  # ends too early
        np.arange(8900.0, 9500.0, 100.0),
        np.arange(10000.0, 10500.0, 1.0),  # another edge
    ],
)
def test_what_cannot_be_told_is_no_difference(comparison, energy):
    mu = norm(energy, peak=20.0)
    assert profile(energy, mu, EDGE) is None
    assert not comparison.differs(energy, mu, EDGE)


def test_without_a_step_there_is_no_near_edge():
    assert profile(GRID, np.zeros_like(GRID), EDGE) is None
    assert profile(GRID, np.ones_like(GRID), EDGE) is None

"""The middle of an edge: where it is, and what does not move it."""

import numpy as np
import pytest
from scipy.special import erf

from exafsd.reduction.edge_middle import edge_middle, edge_middles, rise

EDGE = 8979.0
ENERGY = np.concatenate(
    [np.arange(-180, -20, 5.0), np.arange(-20, 60, 0.5), np.arange(60, 800, 4.0)]
)


def mu(at=3.0, steps=((1.0, 0.0),)):
    """An edge in the middle at `at`, eV from the tabulated one, made of rises."""
    x = ENERGY - at
    total = sum(share * 0.5 * (1 + erf((x - off) / 1.5)) for share, off in steps)
    return 0.7 - 2e-4 * ENERGY + 1.3 * total * (1 + 5e-5 * np.maximum(x, 0))


def test_it_is_where_mu_has_risen_by_half():
    for at in (-12.0, 0.0, 3.3, 25.0):
        assert edge_middle(ENERGY + EDGE, mu(at), EDGE) == pytest.approx(EDGE + at, abs=0.2)


def test_scale_and_line_do_not_move_it():
    once = edge_middle(ENERGY + EDGE, mu(), EDGE)
    again = edge_middle(ENERGY + EDGE, 40.0 * mu() - 7.0 + 1e-3 * ENERGY, EDGE)
    assert again == pytest.approx(once, abs=1e-9)


def test_noise_moves_it_less_than_a_tenth_of_an_ev():
    """Of an edge with two equal rises, 6 eV apart, the steepest point is either."""
    rng = np.random.default_rng(0)
    double = mu(steps=((0.5, -3.0), (0.5, 3.0)))
    middles = [
        edge_middle(ENERGY + EDGE, double + 1e-3 * rng.normal(size=len(ENERGY)), EDGE)
        for _ in range(50)
    ]
    assert np.std(middles) < 0.1


@pytest.mark.parametrize(
    "part",
    [ENERGY > -10, ENERGY < 60, (ENERGY < -20) | (ENERGY > 100), np.arange(len(ENERGY)) < 3],
)
def test_a_scan_that_does_not_show_it(part):
    assert edge_middle((ENERGY + EDGE)[part], mu()[part], EDGE) is None


def test_a_falling_edge_has_none():
    assert rise(ENERGY + EDGE, -mu(), EDGE) is None
    assert edge_middle(ENERGY + EDGE, -mu(), EDGE) is None


def test_where_the_points_of_a_scan_lie_does_not_move_it():
    """Steps even in k have most points near the edge, where fine structure is not straight."""
    even = np.arange(-180.0, 800.0, 0.5)

    def wavy(x):
        k = np.sqrt(0.2625 * np.maximum(x - 3.0, 0.0))
        step = 0.5 * (1 + erf((x - 3.0) / 1.5))
        return 0.7 - 2e-4 * x + 1.3 * step * (1 + 0.15 * np.sin(4.6 * k) * np.exp(-0.03 * k**2))

    late = 3.0 + np.arange(3.6, 14.0, 0.05) ** 2 / 0.2625
    uneven = np.concatenate([np.arange(-180, -20, 10.0), np.arange(-20, 50, 0.5), late])
    middles = [edge_middle(x + EDGE, wavy(x), EDGE) for x in (even, uneven)]
    assert middles[0] == pytest.approx(middles[1], abs=0.03)


def test_several_at_once_are_each_on_its_own():
    rows = np.stack([mu(), mu(3.0), -mu(), 2 * mu(-4.0) + 1])
    middles = edge_middles(ENERGY + EDGE, rows, EDGE)
    expected = [edge_middle(ENERGY + EDGE, row, EDGE) for row in rows]
    assert middles[2] is expected[2] is None
    for i in (0, 1, 3):
        assert middles[i] == pytest.approx(expected[i], abs=1e-9)

"""E0 by the near edges of materials."""

import numpy as np
import pytest

from exafsd.inference.placement import STEP, Placement
from exafsd.inference.registry import read_card, shipped_folder
from exafsd.reduction.edge_middle import edge_middle
from exafsd.reduction.edges import edge_energy


def card(name):
    return read_card(shipped_folder() / name)


def near_edge(name, shift=0.0, noise=0.0, seed=0):
    """mu(E) that rises as a material's near edge does."""
    edge = edge_energy("Cu", "K")
    profile = np.array(card(name).thresholds.near_edge.profile)
    x = np.arange(-200.0, 600.0, 0.5)
    y = np.interp(x, np.linspace(-30.0, 70.0, len(profile)), profile, left=0.0, right=1.0)
    rng = np.random.default_rng(seed)
    return edge + x + shift, y + noise * rng.normal(size=len(x))


@pytest.mark.parametrize("name", ["cu-k-fcc", "cu-k-cu2o", "cu-k-cuo"])
def test_the_likest_material_says_where_e0_is(name):
    place = Placement([card(other) for other in ("cu-k-fcc", "cu-k-cu2o", "cu-k-cuo")])
    for shift in (-4.0, 0.0, 5.0):
        energy, mu = near_edge(name, shift)
        middle = edge_middle(energy, mu, edge_energy("Cu", "K"))
        offset = card(name).edge_position.e0
        assert place(energy, mu) == pytest.approx(middle + offset, abs=STEP / 2 + 1e-9)


def test_noise_does_not_move_it():
    place = Placement([card("cu-k-fcc"), card("cu-k-cuo")])
    quiet = place(*near_edge("cu-k-cuo"))
    noisy = {place(*near_edge("cu-k-cuo", noise=1e-3, seed=i)) for i in range(20)}
    assert all(abs(e0 - quiet) <= STEP for e0 in noisy)


def test_without_a_material_nobody_knows():
    assert Placement([])(*near_edge("cu-k-fcc")) is None
    older = card("cu-k-fcc").model_copy(update={"edge_position": None})
    assert Placement([older])(*near_edge("cu-k-fcc")) is None

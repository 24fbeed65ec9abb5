"""The near edge that a card gets from measured spectra."""

import pytest

from exafsd.contract.recipe import Recipe
from exafsd.inference.near_edge import Comparison, profile
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.engine import reduce_mu
from exafsd_training.studies.near_edge import KNOWN, usual_near_edge
from exafsd_training.studies.poor_fit import MARGIN
from exafsd_training.zoo import configurations
from synthetic import foil


@pytest.fixture(scope="module")
def spectra():
    return [reduce_mu(*foil(1200, noise=1e-4, seed=seed), Recipe()) for seed in (1, 2)]


def test_it_is_the_mean_of_measured_spectra(spectra):
    usual = usual_near_edge(spectra, "Cu", "K")
    profiles = [profile(s.energy, s.norm, s.e0)[0] for s in spectra]
    assert usual.profile == pytest.approx(sum(profiles) / 2, abs=1e-4)
    assert usual.limit == pytest.approx(MARGIN * KNOWN)
    compare = Comparison(usual, edge_energy("Cu", "K"))
    assert not any(compare.differs(s.energy, s.norm, s.e0) for s in spectra)


def test_spectra_that_differ_widen_the_limit(spectra):
    energy, mu = foil(1200, noise=1e-4, seed=3)
    peak = (energy > 8995) & (energy < 9005)
    other = reduce_mu(energy, mu + 0.3 * peak, Recipe())
    usual = usual_near_edge([*spectra, other], "Cu", "K")
    compare = Comparison(usual, edge_energy("Cu", "K"))
    largest = compare.difference(*profile(other.energy, other.norm, other.e0))
    assert largest > KNOWN
    assert usual.limit == pytest.approx(MARGIN * largest, rel=0.01)


def test_what_is_known_counts_where_nothing_was_measured(spectra):
    earlier = usual_near_edge(spectra, "Cu", "K").profile
    assert usual_near_edge([], "Cu", "K", earlier).profile == earlier
    assert usual_near_edge(spectra[:1], "Cu", "K", [0.5] * len(earlier)).profile != (0.5,) * 51
    assert usual_near_edge([], "Cu", "K") is None


def test_the_zoo_knows_near_edges_that_its_data_lack():
    for name in ("cu-k-cuo", "cu-k-cu2o"):
        config = configurations.load(name)
        usual = usual_near_edge([], config.absorber, config.edge, config.near_edge)
        assert usual == load_bundle(shipped_folder() / name).card.thresholds.near_edge

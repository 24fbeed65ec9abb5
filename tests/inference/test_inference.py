"""Bundles: checked, refused with a reason, chosen; theta to shells."""

import json
import shutil

import numpy as np
import pytest

from exafsd.contract import K_GRID, to_grid
from exafsd.inference.judgement import trust_score
from exafsd.inference.readout import Readout
from exafsd.inference.registry import BundleError, Registry, load_bundle, read_card, shipped_folder
from exafsd.spectra import Edge, Prediction

COPPER = Edge("Cu", "K")


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(shipped_folder() / "cu-k-fcc")


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped bundle that may be spoilt."""
    return shutil.copytree(shipped_folder() / "cu-k-fcc", tmp_path / "cu-k-fcc")


def spectrum(bundle):
    k = np.arange(0, 15.0, 0.05)
    return to_grid(k, np.sin(5 * k) * np.exp(-0.02 * k**2), bundle.card.k_grid.k_min, 15.0)


def test_shapes_and_repeatability_at_any_batch(bundle):
    chi_k2, mask = spectrum(bundle)
    p = len(bundle.card.parameters)
    (one,) = bundle.predictor.predict(chi_k2[None], mask[None])
    many = bundle.predictor.predict(np.stack([chi_k2] * 7), np.stack([mask] * 7))
    assert one.theta.shape == (p,)
    assert one.theta_cov.shape == (p, p)
    assert one.chi_k2_pred.shape == one.chi_k2_exafs.shape == K_GRID.shape
    assert (np.linalg.eigvalsh(one.theta_cov) > 0).all()
    for other in many:
        np.testing.assert_allclose(other.theta, one.theta, rtol=1e-4, atol=1e-6)
    low, high = np.array([x.bounds for x in bundle.card.parameters]).T
    assert ((one.theta >= low) & (one.theta <= high)).all()
    with pytest.raises(ValueError, match="401"):
        bundle.predictor.predict(chi_k2[None, :10], mask[None, :10])


def test_readout_follows_the_card(bundle):
    card = bundle.card
    p = len(card.parameters)
    theta = np.array([x.prior.mean for x in card.parameters])
    index = {x.id: i for i, x in enumerate(card.parameters)}
    theta[index["Cu/1/n_s02"]], theta[index["Cu/expansion"]] = 10.8, 0.01
    prediction = Prediction(theta, np.eye(p) * 1e-6, K_GRID, K_GRID, 0.0)
    phases, shells = Readout(card)(prediction)
    assert [x.phase for x in phases] == ["Cu"]
    assert phases[0].fraction.value == 1.0
    assert [x.id for x in shells] == ["Cu/1", "Cu/2", "Cu/3", "Cu/4"]
    assert [x.degeneracy for x in shells] == [12, 6, 24, 12]
    assert shells[1].n_s02.value == pytest.approx(5.4)  # crystallographic ratio
    assert shells[1].n_s02.std == pytest.approx(0.5e-3)
    assert shells[1].r.value == pytest.approx(1.01 * shells[1].r_eff)
    assert shells[0].n is None  # N is not known where only N S0^2 is
    assert shells[0].c3 is not None
    assert shells[1].c3 is None
    wide = Prediction(theta, np.diag([x.prior.std**2 for x in card.parameters]), K_GRID, K_GRID, 0)
    phases, shells = Readout(card)(wide)
    assert shells[0].prior_limited == ["n_s02", "r", "sigma2", "c3"]
    assert shells[1].prior_limited == ["n_s02", "r", "sigma2"]  # r follows the expansion
    assert phases[0].prior_limited == ["e0_shift"]


def test_trust_is_half_at_the_threshold(bundle):
    limit = bundle.card.thresholds.ood
    assert trust_score(bundle.card, limit) == pytest.approx(0.5)
    assert trust_score(bundle.card, 0.0) == 1.0
    assert trust_score(bundle.card, np.nan) == 0.0


def names(candidates):
    return [bundle.card.name for bundle in candidates[0]]


def test_models_are_found_by_edge_name_or_structure():
    registry = Registry.load()
    assert "cu-k-fcc" in names(registry.candidates(COPPER))
    assert names(registry.candidates(COPPER, name="cu-k-fcc")) == ["cu-k-fcc"]
    assert names(registry.candidates(COPPER, structure="Cu")) == ["cu-k-fcc"]
    for asked, says in (
        ({"name": "nobody"}, "nobody"),
        ({"structure": "CuO3"}, "CuO3"),
    ):
        bundles, reason = registry.candidates(COPPER, **asked)
        assert bundles == []
        assert says in reason
    assert "Ge K" in registry.candidates(Edge("Ge", "K"))[1]
    assert "for Cu K" in registry.candidates(Edge("Fe", "K"), name="cu-k-fcc")[1]


def spoil_hash(folder):
    graph = folder / "pinn.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    return "SHA-256"


def spoil_card(folder):
    (folder / "card.json").write_text("{}")
    return "not a valid card"


def spoil_field(folder):
    card = json.loads((folder / "card.json").read_text())
    card["recipe"]["surprise"] = 1  # elsewhere a later version may say more
    (folder / "card.json").write_text(json.dumps(card))
    return "surprise"


def lose_card(folder):
    (folder / "card.json").unlink()
    return "card.json"


def lose_graph(folder):
    (folder / "equation.onnx").unlink()
    return "missing"


def rename(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "name": "another"}))
    return "another"


@pytest.mark.parametrize(
    "spoil", [spoil_hash, spoil_card, spoil_field, lose_card, lose_graph, rename]
)
def test_a_spoilt_bundle_is_refused_with_the_reason(copy, spoil):
    says = spoil(copy)
    with pytest.raises(BundleError, match=says):
        load_bundle(copy)


@pytest.mark.expects_error_log
def test_the_daemon_runs_on_without_a_refused_bundle(copy):
    lose_graph(copy)
    registry = Registry.load([copy.parent])
    assert "missing" in registry.refused["cu-k-fcc"]
    assert registry.bundles["cu-k-fcc"].folder == shipped_folder() / "cu-k-fcc"


def test_a_bundle_of_ones_own_wins_over_the_shipped_one(copy):
    registry = Registry.load([copy.parent])
    assert registry.bundles["cu-k-fcc"].folder == copy
    assert read_card(copy).name == "cu-k-fcc"

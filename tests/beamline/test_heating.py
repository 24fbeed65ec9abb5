"""The simulated foil is what it says it is: Larch finds the truth again."""

from pathlib import Path

import numpy as np
import pytest
from larch import Group
from larch.fitting import param, param_group
from larch.xafs import feffit, feffit_dataset, feffit_transform, feffpath

from exafsd.contract import Recipe
from exafsd.inference.near_edge import Comparison
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.engine import reduce_mu
from exafsd.testing.heating import E0, INFLECTION, HeatedFoil, feff_paths, trajectory


@pytest.fixture(scope="module")
def foil(cache: Path) -> HeatedFoil:
    return HeatedFoil(cache / "exafsd", temperatures=(300.0, 900.0))


def feffit_of(group: Group, path: Path, c3: float) -> dict[str, tuple[float, float]]:
    """First-shell fit as DESIGN's reference, with the third cumulant known."""
    free = {"s02": 0.9, "e0": 3.0, "dr": 0.0, "s2": 0.006}
    parameters = param_group(
        **{name: param(value, vary=True) for name, value in free.items()}, c3=param(c3, vary=False)
    )
    window = feffit_transform(kmin=3, kmax=14, kw=2, dk=2, window="hanning", rmin=1.4, rmax=3.0)
    first = feffpath(str(path), s02="s02", e0="e0", deltar="dr", sigma2="s2", third="c3")
    fit = feffit(parameters, feffit_dataset(data=group, pathlist=[first], transform=window))
    return {name: (fit.params[name].value, fit.params[name].stderr) for name in free}


@pytest.mark.parametrize(("temperature", "bars"), [(300.0, 1.0), (450.0, 1.0), (900.0, 3.0)])
def test_feffit_recovers_the_truth(
    foil: HeatedFoil, cache: Path, temperature: float, bars: float
) -> None:
    """At 900 K the first shell is weak, and a one-shell fit is biased by the next shells."""
    rng = np.random.default_rng(7)
    counts = foil.sweep(temperature, "up", rng)
    reduced = reduce_mu(counts.energy, np.log(counts.i0 / counts.it), Recipe())
    path = feff_paths(cache / "exafsd")[0]
    group = Group(k=reduced.k, chi=reduced.chi)
    fitted = feffit_of(group, path, counts.truth["c3"])
    expected = {
        "s02": counts.truth["n_s02"] / 12,
        "dr": counts.truth["r"] - feffpath(str(path)).reff,
        "s2": counts.truth["sigma2"],
        "e0": counts.truth["e0"] - reduced.e0,
    }
    for name, value in expected.items():
        got, stderr = fitted[name]
        assert abs(got - value) <= bars * stderr, (name, got, stderr, value)


def test_the_near_edge_is_that_of_measured_copper(foil: HeatedFoil) -> None:
    card = load_bundle(shipped_folder() / "cu-k-fcc").card
    usual = card.thresholds.near_edge
    assert usual is not None
    comparison = Comparison(usual, edge_energy("Cu", "K"))
    for temperature in (300.0, 600.0, 900.0):
        counts = foil.sweep(temperature, "up", np.random.default_rng(9))
        reduced = reduce_mu(counts.energy, np.log(counts.i0 / counts.it), Recipe())
        assert not comparison.differs(reduced.energy, reduced.norm, reduced.e0)


def test_edge_is_stable(foil: HeatedFoil) -> None:
    rng = np.random.default_rng(8)
    for temperature in (300.0, 600.0, 900.0):
        counts = foil.sweep(temperature, "up", rng)
        e0 = find_e0(counts.energy, np.log(counts.i0 / counts.it))
        assert abs(e0 - INFLECTION) < 1.5
        reference = find_e0(counts.energy, np.log(counts.it / counts.ir))
        assert abs(reference - INFLECTION) < 1.5


def test_noise_is_that_of_photons(foil: HeatedFoil) -> None:
    rng = np.random.default_rng(9)
    many = np.array([foil.sweep(500.0, "up", rng).i0 for _ in range(300)])
    assert np.allclose(many.var(axis=0).mean() / many.mean(), 1.0, atol=0.05)
    assert (many == np.round(many)).all()


def test_directions_and_seeds(foil: HeatedFoil) -> None:
    up = foil.sweep(400.0, "up", np.random.default_rng(1))
    down = foil.sweep(400.0, "down", np.random.default_rng(1))
    assert np.array_equal(up.energy[::-1], down.energy)
    assert np.array_equal(up.it[::-1], down.it)
    assert (np.diff(up.energy) > 0).all()


def test_heat_expands_and_disorders(foil: HeatedFoil) -> None:
    cold, hot = foil.truth(300.0), foil.truth(900.0)
    assert hot["r"] - cold["r"] == pytest.approx(0.029, abs=0.003)
    assert cold["sigma2"] == pytest.approx(0.0090, abs=0.0005)
    assert hot["sigma2"] / cold["sigma2"] == pytest.approx(2.9, abs=0.2)
    assert hot["c3"] > 5 * cold["c3"]
    assert cold["e0"] == E0


def test_trajectory_reaches_far_enough() -> None:
    energy = trajectory(500)
    assert len(energy) == 500
    assert energy[-1] > E0 + 15.0**2 / 0.26247
    with pytest.raises(ValueError, match="200"):
        HeatedFoil(Path("unused"), points=50)

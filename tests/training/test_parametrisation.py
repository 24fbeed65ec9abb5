"""Shells from paths, what theta means, ties of multiple scattering, and priors."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystals import single_scattering
from exafsd.contract.recipe import FitWindow
from exafsd_training.simulation.simulate import sample
from exafsd_training.theory import structures
from exafsd_training.theory.parametrisation import Parametrisation, independent_points, parametrise
from exafsd_training.theory.paths import KNOTS, PathTable, ScatteringPath, cubics, read_paths
from exafsd_training.theory.priors import Priors, bond
from exafsd_training.theory.shells import Shell, group_shells, sigma2_ties
from exafsd_training.theory.thermal import (
    Bond,
    draw_temperature,
    einstein_sigma2,
    reduced_mass,
    third_cumulant,
    vibrate,
)
from exafsd_training.zoo import configurations

#: shells with an R of their own, all that have a sigma2, and the number of parameters
EXPECTED = {
    "cu-k-fcc": ([("Cu", 12, 2.556)], 4, 9),
    "pt-l3-fcc": ([("Pt", 12, 2.774)], 4, 9),
    "fe-k-bcc": ([("Fe", 8, 2.482), ("Fe", 6, 2.865)], 4, 10),
    "zn-k-zns": ([("S", 4, 2.342)], 4, 9),
    "zn-k-zno": ([("O", 4, 1.977), ("Zn", 12, 3.229)], 4, 10),
    "cd-k-cds": ([("S", 4, 2.528)], 4, 9),
    "cu-k-cuo": ([("O", 4, 1.956)], 3, 8),
    "cu-k-cu2o": ([("O", 2, 1.849), ("Cu", 12, 3.019)], 4, 10),
    "co-k-licoo2": ([("O", 6, 1.921), ("Co", 6, 2.816)], 4, 10),
}


@pytest.mark.parametrize("name", configurations.names())
def test_shells_and_parameters_of_every_model(name: str) -> None:
    config = configurations.load(name)
    par = parametrise(config.phase, single_scattering(name), config.fit, config.priors)
    fitted, shells, parameters = EXPECTED[name]
    assert [(s.scatterer, s.degeneracy) for s in par.fitted] == [entry[:2] for entry in fitted]
    np.testing.assert_allclose([s.reff for s in par.fitted], [e[2] for e in fitted], atol=0.001)
    assert (len(par.shells), len(par.parameters)) == (shells, parameters)
    assert len(par.parameters) <= independent_points(config.fit)
    assert all(p.bounds[0] < p.prior.mean < p.bounds[1] for p in par.parameters)
    assert len({p.id for p in par.parameters}) == len(par.parameters)


def test_a_weak_scatterer_beside_a_strong_one_makes_no_shell() -> None:
    table = single_scattering("co-k-licoo2")
    assert "Li" in [path.atoms[1] for path in table.paths if path.reff < 3]
    assert [s.scatterer for s in group_shells(table) if s.reff < 3] == ["O", "Co"]


def test_distances_of_one_shell_move_together() -> None:
    config = configurations.load("zn-k-zno")
    par = parametrise(config.phase, single_scattering("zn-k-zno"), config.fit)
    theta = np.array([p.prior.mean for p in par.parameters])
    theta[par.index("2/r")] = par.shells[1].reff + 0.03
    theta[par.index("2/sigma2")] = 0.0123
    moved = par.ties.deltar_0 + theta @ par.ties.deltar
    np.testing.assert_allclose(moved[list(par.shells[1].paths)], 0.03)
    np.testing.assert_allclose((theta @ par.ties.sigma2)[list(par.shells[1].paths)], 0.0123)
    lone = next(i for i, p in enumerate(par.table.paths) if p.atoms[1] == "O" and p.reff > 3.2)
    expected = par.table.paths[lone].reff * theta[par.index("expansion")]
    assert moved[lone] == pytest.approx(expected)


def test_a_window_must_hold_its_shells() -> None:
    table = single_scattering("fe-k-bcc")
    with pytest.raises(ValueError, match="too few for 2 shells"):
        parametrise("Fe", table, FitWindow(k=(3, 8), r=(1.9, 3.0)))
    with pytest.raises(ValueError, match="not in the fit window"):
        parametrise("Fe", table, FitWindow(r=(2.6, 4.4)))


def test_shells_of_copper(copper: Parametrisation) -> None:
    assert [shell.degeneracy for shell in copper.shells] == [12, 6, 24, 12]
    lattice = 3.61496
    expected = lattice * np.sqrt(np.arange(1, 5) / 2)
    np.testing.assert_allclose([s.reff for s in copper.shells], expected, atol=2e-4)


def test_ids_bounds_and_ties(copper: Parametrisation) -> None:
    ids = [p.id for p in copper.parameters]
    assert ids == ["Cu/e0_shift", "Cu/1/n_s02", "Cu/1/r", "Cu/1/sigma2", "Cu/1/c3",
                   "Cu/expansion", "Cu/2/sigma2", "Cu/3/sigma2", "Cu/4/sigma2"]  # fmt: skip
    assert len(copper.in_words()) == 4


def test_multiple_scattering_sigma2(all_paths: PathTable, copper: Parametrisation) -> None:
    by_kind: dict[float, list] = {}
    for path in copper.table.paths:
        by_kind.setdefault(round(path.reff, 2), []).append(sigma2_ties(path, copper.shells))
    triangle = by_kind[3.83][0]  # three independent bonds of the nearest distance
    np.testing.assert_allclose(triangle, [0.75, 0, 0, 0])
    focusing = [w for w in by_kind[5.11] if w[3] == 1]  # single, double and triple scattering
    assert len(focusing) == 3


def test_a_bond_is_matched_by_its_elements() -> None:
    config = configurations.load("zn-k-zno")
    shells = group_shells(single_scattering("zn-k-zno"))
    zn, o = [0.0, 0.0, 0.0], [1.98, 0.0, 0.0]
    # Zn-O-Zn: back over a neighbour at 3.1, nearer in length to Zn-Zn but for the first leg
    other = [2.4, 1.96, 0.0]
    positions = np.array([zn, o, other])
    reff = (1.98 + np.hypot(0.42, 1.96) + np.hypot(2.4, 1.96)) / 2
    path = ScatteringPath("", reff, 1, positions, ("Zn", "O", "Zn"), np.zeros((KNOTS, 2, 4)))
    weights = sigma2_ties(path, shells)
    assert config.phase == "ZnO"
    np.testing.assert_allclose(weights, [0.5, 0.25, 0, 0])


@pytest.mark.parametrize("name", ["zn-k-zno", "cu-k-cuo", "fe-k-bcc"])
def test_the_priors_of_a_card_are_what_is_drawn(name: str) -> None:
    config = configurations.load(name)
    table = single_scattering(name)
    par = parametrise(config.phase, table, config.fit, config.priors)
    theta = sample(np.random.default_rng(5), 20_000, par, table).theta
    low, high = par.bounds.T
    assert ((theta > low) & (theta < high)).all()
    for i, parameter in enumerate(par.parameters):
        mean, std = theta[:, i].mean(), theta[:, i].std()
        # bounds cut a little off
        assert abs(mean - parameter.prior.mean) < 0.08 * parameter.prior.std, parameter.id
        assert std == pytest.approx(parameter.prior.std, rel=0.08), parameter.id


def test_einstein_and_debye_of_larch(feff_folder: Path) -> None:
    from larch.xafs import feffpath
    from larch.xafs.sigma2_models import sigma2_debye, sigma2_eins

    path = feffpath(str(feff_folder / "feff0001.dat"))
    mass = reduced_mass("Cu", "Cu")
    (temperature,) = configurations.load("cu-k-fcc").priors.einstein
    for kelvin in (10.0, 300.0, 900.0):
        ours = einstein_sigma2(np.array([kelvin]), np.array([temperature]), mass)[0]
        assert ours == pytest.approx(sigma2_eins(kelvin, temperature, path), rel=2e-4)
    # the configuration says: Debye temperature of 315 K at 300 K
    ours = einstein_sigma2(np.array([300.0]), np.array([temperature]), mass)[0]
    assert ours == pytest.approx(sigma2_debye(300.0, 315.0, path), rel=0.01)


def test_third_cumulant_at_both_ends() -> None:
    # Van Hung and Rehr 1997: at zero temperature a third of a sigma_0^4, hot like T squared
    zero = np.array([0.003])
    assert third_cumulant(zero, zero, np.array([1.8]))[0] == pytest.approx(1.8 * 0.003**2 / 3)
    hot = third_cumulant(np.array([0.06]), zero, np.array([1.8]))[0]
    assert hot / third_cumulant(np.array([0.03]), zero, np.array([1.8]))[0] == pytest.approx(
        4, 0.01
    )


def test_a_bond_of_unknown_stiffness_is_as_stiff_as_copper() -> None:
    assert Bond(reduced_mass("Cu", "Cu")).temperature == pytest.approx(232, abs=0.1)
    assert Bond(reduced_mass("Cu", "O")).temperature > 360
    rng = np.random.default_rng(0)
    drawn = vibrate(rng, draw_temperature(rng, 2000), Bond(12.8, einstein=590.0))
    assert (drawn.sigma2 >= drawn.thermal).all()
    assert Priors().einstein == ()


def test_in_metals_disorder_is_as_skewed_as_vibration() -> None:
    def c3(shell: Shell, **kinds: float) -> float:
        bonds = bond(shell, 0, Priors(anharmonicity=(1.5, 1.5)), 0.1)
        drawn = vibrate(np.random.default_rng(1), np.full(4000, 300.0), replace(bonds, **kinds))
        assert drawn.static.max() > 0.002
        return float(np.sum(drawn.c3[drawn.static > 0.002]))

    metal = group_shells(single_scattering("cu-k-fcc"))[0]
    oxide = group_shells(single_scattering("cu-k-cu2o"))[0]
    assert c3(metal) > 1.3 * c3(metal, frozen_alike=False)
    assert c3(oxide) == c3(oxide, frozen_alike=False)


def test_averaged_sites_add_up(feff_folder: Path, all_paths: PathTable, tmp_path: Path) -> None:
    shares = {"site1": 0.25, "site2": 0.75}
    for name in shares:
        (tmp_path / name).mkdir()
        for file in feff_folder.glob("feff0*.dat"):
            shutil.copy(file, tmp_path / name)
    (tmp_path / structures.RECORD).write_text(json.dumps({"shares": shares}))
    merged = read_paths(tmp_path)
    assert len(merged) == 2 * len(all_paths)
    assert merged.degeneracy.sum() == pytest.approx(all_paths.degeneracy.sum())
    np.testing.assert_allclose(merged.paths[0].cubics, all_paths.paths[0].cubics, atol=1e-9)
    assert {path.file.split("/")[0] for path in merged.paths} == set(shares)
    # twelve neighbours are still one shell of twelve
    assert group_shells(merged)[0].degeneracy == pytest.approx(12)


def test_uneven_k_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        cubics(np.linspace(0, 20, 77), np.zeros(77))

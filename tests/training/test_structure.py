"""Structures, shells and what theta means."""

import numpy as np
import pytest

from exafsd_training import structures
from exafsd_training.parametrisation import Parametrisation, sigma2_ties
from exafsd_training.paths import PathTable, cubics


def test_shells_of_copper(copper: Parametrisation) -> None:
    assert [shell.degeneracy for shell in copper.shells] == [12, 6, 24, 12]
    lattice = 3.61496
    expected = lattice * np.sqrt(np.arange(1, 5) / 2)
    np.testing.assert_allclose([s.reff for s in copper.shells], expected, atol=2e-4)


def test_no_more_parameters_than_the_data_hold(copper: Parametrisation) -> None:
    independent = 2 * (14 - 3) * (3.0 - 1.4) / np.pi
    assert len(copper.parameters) <= independent


def test_ids_bounds_and_ties(copper: Parametrisation) -> None:
    ids = [p.id for p in copper.parameters]
    assert ids[:5] == ["Cu/e0_shift", "Cu/1/n_s02", "Cu/1/r", "Cu/1/sigma2", "Cu/1/c3"]
    assert all(p.bounds[0] < p.prior.mean < p.bounds[1] for p in copper.parameters)
    assert len(copper.in_words()) == 4


def test_multiple_scattering_sigma2(all_paths: PathTable, copper: Parametrisation) -> None:
    reff = [shell.reff for shell in copper.shells]
    by_kind = {}
    for path in copper.table.paths:
        by_kind.setdefault(round(path.reff, 2), []).append(sigma2_ties(path, reff))
    triangle = by_kind[3.83][0]  # three independent bonds of the nearest distance
    np.testing.assert_allclose(triangle, [0.75, 0, 0, 0])
    focusing = [w for w in by_kind[5.11] if w[3] == 1]  # single, double and triple scattering
    assert len(focusing) == 3


def test_a_structure_with_coinciding_atoms_is_refused() -> None:
    text = "ATOMS\n 0 0 0 0 Cu 0.0 * a 0\n 0 0 0.5 1 Cu 0.5 * a 1\n"
    with pytest.raises(structures.StructureError, match="atom position"):
        structures.check_shells(text)


def test_feff_input_does_not_depend_on_the_day() -> None:
    crystal = structures.from_amcsd(11145)
    text = structures.feff_input(crystal, "Cu", "K")
    assert "*  " not in text.split("ATOMS")[0]
    assert "202" not in text.split("POTENTIALS")[0]


def test_uneven_k_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        cubics(np.linspace(0, 20, 77), np.zeros(77))

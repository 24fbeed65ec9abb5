"""Structures: sites, sanity checks, and the shells of every model against crystallography."""

from pathlib import Path

import pytest

from crystals import neighbours
from exafsd_training.theory import structures
from exafsd_training.theory.structures import StructureError, StructureWarning
from exafsd_training.zoo import configurations

#: element, neighbours and distance (angstrom) of the nearest atoms, from lattice constants:
#: fcc a/sqrt(2), bcc a sqrt(3)/2 and a, zincblende a sqrt(3)/4, and so on
CRYSTALLOGRAPHY = {
    "cu-k-fcc": [("Cu", 12, 2.556), ("Cu", 6, 3.615)],
    "pt-l3-fcc": [("Pt", 12, 2.774), ("Pt", 6, 3.923)],
    "fe-k-bcc": [("Fe", 8, 2.482), ("Fe", 6, 2.865), ("Fe", 12, 4.052)],
    "zn-k-zns": [("S", 4, 2.342), ("Zn", 12, 3.825)],
    "zn-k-zno": [("O", 3, 1.974), ("O", 1, 1.988), ("Zn", 6, 3.208), ("O", 1, 3.215),
                 ("Zn", 6, 3.249)],
    "cd-k-cds": [("S", 1, 2.518), ("S", 3, 2.532), ("Cd", 6, 4.120), ("Cd", 6, 4.137)],
    "cu-k-cuo": [("O", 2, 1.951), ("O", 2, 1.961), ("O", 2, 2.784), ("Cu", 4, 2.901)],
    "cu-k-cu2o": [("O", 2, 1.849), ("Cu", 12, 3.019), ("O", 6, 3.540)],
    "co-k-licoo2": [("O", 6, 1.921), ("Co", 6, 2.816), ("Li", 6, 2.851)],
}  # fmt: skip

CELL = """
data_test
_chemical_formula_sum '{formula}'
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 4.2
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_operation_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


def cell(tmp_path: Path, *atoms: str, site: int = 1) -> structures.Crystal:
    file = tmp_path / "test.cif"
    file.write_text(CELL.format(formula="test").lstrip() + "\n".join(atoms) + "\n")
    return structures.from_cif(file, site)


@pytest.mark.parametrize("name", configurations.names())
def test_shells_against_crystallography(name: str) -> None:
    config = configurations.load(name)
    crystal = config.crystal()
    structures.check(crystal, config.absorber)  # a warning would fail the test
    expected = CRYSTALLOGRAPHY[name]
    rings = neighbours(structures.feff_input(crystal, config.absorber, config.edge))
    for (element, count, distance), (other, number, reff) in zip(rings, expected, strict=False):
        assert (element, count) == (other, number)
        assert distance == pytest.approx(reff, abs=0.001)


@pytest.mark.parametrize("ams_id, element", [(11555, "Zn"), (11540, "Cd")])
def test_odd_coordinates_of_the_database_are_said(ams_id: int, element: str) -> None:
    with pytest.warns(StructureWarning, match="wrong coordinate"):
        structures.check(structures.from_amcsd(ams_id), element)


def test_partial_occupancy_is_said() -> None:
    with pytest.warns(StructureWarning, match=r"shared sites \(Zn:0.73, Fe:0.27\)"):
        structures.check(structures.from_amcsd(18098), "Zn")


def test_shared_sites_are_filled_the_same_way_every_time() -> None:
    crystal = structures.from_amcsd(18098)
    one, two = (structures.feff_input(crystal, "Zn", "K") for _ in range(2))
    assert one == two
    assert " Fe " in one


def test_atoms_too_near_are_refused(tmp_path: Path) -> None:
    near = cell(tmp_path, "Cu1 Cu 0 0 0 1", "O1 O 0.2 0 0 1")
    with pytest.raises(StructureError, match=r"0\.84 angstrom apart.*position is wrong"):
        structures.check(near, "Cu")


def test_an_absent_absorber_is_refused() -> None:
    with pytest.raises(StructureError, match="no Ni, only Cu"):
        structures.check(structures.from_amcsd(11145), "Ni")


def test_the_database_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """larixite's own way in alters the file, or fetches another one: two at once would fail."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the database was written, or another one was looked for")

    monkeypatch.setattr("larixite.amcsd.get_amcsd", never)
    monkeypatch.setattr("larixite.get_amcsd", never)
    monkeypatch.setattr("larixite.amcsd.AMCSD.insert", never)
    assert structures.from_amcsd(11145).formula == "Cu"


def test_an_unknown_entry_is_refused() -> None:
    with pytest.raises(StructureError, match="no entry 999999"):
        structures.from_amcsd(999999)


#: two Fe sites: one in the corner, three in the face centres of a cube, N in the middle
NITRIDE = ("Fe1 Fe 0 0 0 1", "Fe2 Fe 0.5 0.5 0 1", "Fe3 Fe 0.5 0 0.5 1", "Fe4 Fe 0 0.5 0.5 1",
           "N1 N 0.5 0.5 0.5 1")  # fmt: skip


def test_several_sites_are_averaged_by_multiplicity(tmp_path: Path) -> None:
    crystal = cell(tmp_path, *NITRIDE, site=structures.ALL_SITES)
    structures.check(crystal, "Fe")
    chosen = structures.chosen_sites(crystal, "Fe")
    assert sorted((site.multiplicity, share) for site, share in chosen) == [(1, 0.25), (3, 0.75)]
    texts = [structures.feff_input(crystal, "Fe", "K", site) for site, _ in chosen]
    nearest = sorted(neighbours(text)[0] for text in texts)
    # the corner has 12 Fe at a/sqrt(2), a face centre two N at a/2
    assert nearest[0][:2] == ("Fe", 12)
    assert nearest[1] == ("N", 2, pytest.approx(2.1, abs=0.001))


def test_one_of_several_sites_is_said(tmp_path: Path) -> None:
    with pytest.warns(StructureWarning, match="2 sites"):
        structures.check(cell(tmp_path, *NITRIDE), "Fe")
    with pytest.raises(StructureError, match="2 sites of Fe, not 3"):
        structures.check(cell(tmp_path, *NITRIDE, site=3), "Fe")


def test_a_site_that_is_not_the_first_of_the_structure() -> None:
    crystal = structures.from_amcsd(12258)  # Li2 Co Ge3 O8: Ge comes before Co
    (site,) = structures.absorber_sites(crystal, "Co")
    assert site.index == 2
    text = structures.feff_input(crystal, "Co", "K")
    assert neighbours(text)[0][0] == "O"


def test_feff_input_does_not_depend_on_the_day() -> None:
    crystal = structures.from_amcsd(11145)
    text = structures.feff_input(crystal, "Cu", "K")
    assert "*  " not in text.split("ATOMS")[0]
    assert "202" not in text.split("POTENTIALS")[0]

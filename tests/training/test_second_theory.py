"""A second FEFF set-up: the same paths, the same meaning of E0, another scattering."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.simulation import second_theory
from exafsd_training.studies import theory_error
from exafsd_training.theory import structures
from exafsd_training.theory.equation import PathSum
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import KNOT_K, PathTable, value, with_momentum, with_origin
from exafsd_training.theory.structures import Crystal, FeffSetup

#: Without self-consistency FEFF takes seconds instead of half a minute.
QUICK = second_theory.NO_HOLE


@pytest.fixture(scope="module")
def crystal() -> Crystal:
    return structures.from_amcsd(11145)


@pytest.fixture(scope="module")
def second(truth: PathTable, feff_folder: Path, crystal: Crystal) -> PathTable:
    return second_theory.second_table(crystal, "Cu", "K", feff_folder.parent, truth, QUICK)


def test_cards_of_a_setup(crystal: Crystal) -> None:
    assert FeffSetup().cards() == "EXCHANGE  0     0.0  0.0"
    lines = structures.feff_input(crystal, "Cu", "K", setup=second_theory.SECOND).splitlines()
    standard = structures.feff_input(crystal, "Cu", "K").splitlines()
    assert set(lines) - set(standard) == {"SCF  4.00", "CRITERIA  1.00  0.50"}
    assert set(standard) <= set(lines)
    lines = structures.feff_input(
        crystal, "Cu", "K", setup=FeffSetup(exchange=1, core_hole=False)
    ).splitlines()
    assert set(lines) - set(standard) == {"EXCHANGE  1     0.0  0.0", "NOHOLE"}


def test_second_table_has_the_paths_of_the_first(truth: PathTable, second: PathTable) -> None:
    assert len(second) == len(truth)
    for one, other in zip(truth.paths, second.paths, strict=True):
        assert (one.file, one.atoms, one.reff, one.degeneracy) == (
            other.file, other.atoms, other.reff, other.degeneracy
        )  # fmt: skip
        assert not np.allclose(one.cubics, other.cubics)


def test_every_path_of_copper_is_in_the_second_run(
    truth: PathTable, second: PathTable, feff_folder: Path
) -> None:
    (folder,) = set(feff_folder.parent.glob("feff-Cu-K-*")) - {feff_folder}
    other = second_theory.read_paths(folder)
    pairs = second_theory.match(truth, other)
    assert len(pairs) == len(set(pairs.values())) == len(truth)
    # numbers of files differ between runs, so a match by place would be wrong
    assert any(truth.paths[i].file != other.paths[j].file for i, j in pairs.items())


def test_paths_match_turned_mirrored_and_reversed(truth: PathTable) -> None:
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, -1]])  # fmt: skip
    moved = []
    for path in reversed(truth.paths):
        order = [0, *range(path.nleg - 1, 0, -1)]
        atoms = tuple(path.atoms[i] for i in order)
        moved.append(replace(path, positions=path.positions[order] @ turn.T + 1e-4, atoms=atoms))
    pairs = second_theory.match(truth, PathTable(tuple(moved), truth.momentum))
    assert len(pairs) == len(truth)
    for i, j in pairs.items():
        assert moved[j].degeneracy == truth.paths[i].degeneracy


@pytest.mark.parametrize("change", ["longer", "element", "angle", "degeneracy"])
def test_another_path_does_not_match(truth: PathTable, change: str) -> None:
    # three legs, not in line
    path = next(path for path in truth.paths if path.nleg == 3)
    if change == "longer":
        other = replace(path, reff=path.reff + 0.002)
    elif change == "element":
        other = replace(path, atoms=(*path.atoms[:-1], "Ni"))
    elif change == "angle":
        other = replace(path, positions=path.positions * [1, 1, 1.1])
    else:
        other = replace(path, degeneracy=path.degeneracy / 2)
    assert not second_theory.match(
        PathTable((path,), truth.momentum), PathTable((other,), truth.momentum)
    )


def test_a_path_that_is_missing_keeps_its_scattering(truth: PathTable, second: PathTable) -> None:
    """In a table with other mean free paths, its amplitude at the crystal's distance is its own."""
    path = truth.paths[5]
    swapped = with_momentum(path, truth.momentum, second.momentum)
    k = KNOT_K[20:150]

    def size(cubic: np.ndarray, momentum: np.ndarray) -> np.ndarray:
        return value(cubic[:, 1], k) * np.exp(-2 * path.reff / value(momentum[:, 1], k))

    np.testing.assert_allclose(
        size(swapped.cubics, second.momentum), size(path.cubics, truth.momentum), rtol=1e-6
    )


def _chi(table: PathTable, e0: float) -> np.ndarray:
    n = len(table)
    zero = tf.zeros((1, n), tf.float64)
    sigma2 = tf.fill((1, n), tf.constant(0.006, tf.float64))
    k = tf.constant(K_GRID, tf.float64)
    paths = PathSum(table, tf.float64)
    return tf.reduce_sum(paths(k, tf.constant([[e0]], tf.float64), zero, sigma2, zero)[1], 1)[0]


@pytest.mark.parametrize("shift", [-4.0, 7.0])
def test_another_origin_is_another_e0(truth: PathTable, shift: float) -> None:
    here = np.array(_chi(truth, 1.0 + shift))
    there = np.array(_chi(with_origin(truth, shift), 1.0))
    inside = (K_GRID > 3) & (K_GRID < 18)
    assert np.abs(here - there)[inside].max() < 1e-3 * np.abs(here[inside]).max()


def test_origin_is_found_again(truth: PathTable) -> None:
    assert second_theory.origin(truth, with_origin(truth, 3.0)) == pytest.approx(-3.0, abs=0.05)


def test_difference_of_two_theories(
    copper: Parametrisation,
    truth: PathTable,
    feff_folder: Path,
    second: PathTable,
    crystal: Crystal,
) -> None:
    moved, rest = theory_error.difference(copper, truth)
    assert max(map(abs, moved.values())) < 1e-6
    assert rest < 1e-12

    model = SimpleNamespace(
        crystal=crystal, absorber="Cu", edge="K", feff_folder=feff_folder, parametrisation=copper
    )
    (difference,) = theory_error.compare_theories(model, (QUICK,))
    assert difference.matched == difference.paths == len(truth)
    # without a core hole the absorber's phase shift is smaller: R reads short
    assert -0.02 < difference.moved["1/r"] < -0.004
    assert abs(difference.moved["e0_shift"]) < 1.5 < abs(difference.origin)
    assert difference.rest < 0.005

"""Shells of the models' structures without a FEFF run."""

import numpy as np
from xraydb import atomic_number

from exafsd_training.theory import structures
from exafsd_training.theory.paths import KNOTS, PathTable, ScatteringPath
from exafsd_training.zoo import configurations

#: atoms at distances that differ by less are one path, angstrom; FEFF does the same
SAME = 0.002


def neighbours(text: str) -> list[tuple[str, int, float]]:
    """Element, number and distance (angstrom) of the shells of a feff.inp, nearest first."""
    rows = [row.split() for row in text.split("ATOMS", 1)[1].splitlines() if len(row.split()) > 5]
    rings: list[tuple[str, int, float]] = []
    for row in rows[1:]:
        element, distance = row[4], float(row[5])
        if rings and rings[-1][0] == element and distance - rings[-1][2] < SAME:
            rings[-1] = (element, rings[-1][1] + 1, rings[-1][2])
        else:
            rings.append((element, 1, distance))
    return rings


def single_scattering(name: str, reff_max: float = 6.0) -> PathTable:
    """Paths of a model's structure, every atom scattering as strongly as its charge."""
    config = configurations.load(name)
    text = structures.feff_input(config.crystal(), config.absorber, config.edge)
    paths = []
    for element, count, distance in neighbours(text):
        cubic = np.zeros((KNOTS, 2, 4))
        cubic[:, 1, 0] = atomic_number(element)
        positions = np.array([[0, 0, 0], [distance, 0, 0]])
        atoms = (config.absorber, element)
        paths.append(ScatteringPath("", distance, float(count), positions, atoms, cubic))
    return PathTable(tuple(paths), np.ones((KNOTS, 2, 4))).within(reff_max)

"""Shells of neighbours from scattering paths, and which shell a bond moves like."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from exafsd_training.theory.paths import Floats, PathTable, ScatteringPath

#: Shells nearer than pi / (2 dk) cannot be told apart; dk = 11 1/angstrom for k = 3 ... 14.
SHELL_RESOLUTION = np.pi / (2 * 11)
#: Shells with a sigma2 of their own; paths up to the last of them are in the equation.
MAX_SHELLS = 4
#: A bond between two neighbours is taken for the bond of a shell with the same two elements if
#: the lengths differ by less, angstrom.
SAME_BOND = 0.3


@dataclass(frozen=True)
class Shell:
    """Neighbours of one element at one distance, or at distances that data cannot tell apart."""

    number: int
    absorber: str
    scatterer: str
    reff: float
    degeneracy: float
    #: indices of its single-scattering paths
    paths: tuple[int, ...]
    #: variance of their distances, angstrom^2
    split: float = 0.0


def group_shells(table: PathTable, resolution: float = SHELL_RESOLUTION) -> tuple[Shell, ...]:
    """Shells of single scattering.

    Distances to one element that data cannot resolve, that differ by less than `resolution`
    (angstrom), are one shell.

    Where two elements are that near each other, only the stronger scatterer makes a shell; the
    other's path stays among those that are tied.
    """
    groups: list[list[int]] = []
    for index, path in enumerate(table.paths):
        if path.nleg != 2:
            continue
        for group in groups:
            first = table.paths[group[0]]
            if first.atoms == path.atoms and path.reff - first.reff < resolution:
                group.append(index)
                break
        else:
            groups.append([index])
    shells = sorted((_shell(table, group) for group in groups), key=lambda shell: shell.reff)
    strength = [sum(table.paths[i].strength for i in shell.paths) for shell in shells]
    separate = [
        shell
        for shell, own in zip(shells, strength, strict=True)
        if not any(
            other.scatterer != shell.scatterer
            and abs(other.reff - shell.reff) < SHELL_RESOLUTION
            and more > own
            for other, more in zip(shells, strength, strict=True)
        )
    ]
    return tuple(replace(s, number=n) for n, s in enumerate(separate[:MAX_SHELLS], start=1))


def _shell(table: PathTable, group: Sequence[int]) -> Shell:
    paths = [table.paths[i] for i in group]
    weights = [path.degeneracy for path in paths]
    distances = np.array([path.reff for path in paths])
    reff = float(np.average(distances, weights=weights))
    split = float(np.average((distances - reff) ** 2, weights=weights))
    absorber, scatterer = paths[0].atoms
    return Shell(0, absorber, scatterer, reff, float(sum(weights)), tuple(group), split)


def sigma2_ties(path: ScatteringPath, shells: Sequence[Shell]) -> Floats:
    """(shells,) weights of the shells' sigma2 in a path's.

    With bond lengths b that move independently and are traversed n_b times, half the path
    length varies by sum n_b^2 sigma_b^2 / 4. Atoms in line do not move independently: a path
    that only passes through an atom on its way has the variance of its farthest atom.
    """
    weights = np.zeros(len(shells))
    xyz = path.positions
    distance = np.linalg.norm(xyz - xyz[0], axis=1)
    far = int(distance.argmax())
    if abs(distance[far] - path.reff) < 0.01:
        weights[_shell_of_bond(shells, path.atoms[0], path.atoms[far], path.reff)] = 1.0
        return weights
    bonds: dict[tuple[int, int], int] = {}
    atoms = [next(j for j in range(i + 1) if np.allclose(xyz[j], xyz[i], atol=0.01))
             for i in range(len(xyz))]  # fmt: skip
    for start, end in zip(atoms, [*atoms[1:], atoms[0]], strict=True):
        bond = (min(start, end), max(start, end))
        bonds[bond] = bonds.get(bond, 0) + 1
    for (start, end), times in bonds.items():
        length = float(np.linalg.norm(xyz[start] - xyz[end]))
        place = _shell_of_bond(shells, path.atoms[start], path.atoms[end], length)
        weights[place] += times**2 / 4
    return weights


def _shell_of_bond(shells: Sequence[Shell], a: str, b: str, length: float) -> int:
    """Place of the shell that a bond moves like."""
    off = np.abs([shell.reff - length for shell in shells])
    other = [{shell.absorber, shell.scatterer} != {a, b} for shell in shells]
    same = np.where(other, np.inf, off)
    return int(same.argmin() if same.min() < SAME_BOND else off.argmin())

"""How the atoms of a crystal move together: a harmonic lattice of springs, solved in a supercell.

Training gives every shell an oscillator of its own and lets farther ones follow by a ratio. Here
nothing of that is assumed: springs between neighbours make the normal modes of a crystal, and the
modes make sigma2 of any path, the correlation of its atoms included.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd_training.theory.thermal import EINSTEIN

Floats = NDArray[np.float64]

#: k_B theta = hbar sqrt(spring / mass): theta in K of 1 N/m and 1 u.
KELVIN = 187.44
#: Least distance between an atom and its own image, angstrom, and the atoms that are affordable.
IMAGE, MOST_ATOMS = 13.0, 320
#: Distances that are one shell of neighbours, angstrom.
ONE_SHELL = 0.15
#: How far springs reach, angstrom.
NEIGHBOURS = 4.2
#: A path's atom and one of the lattice are the same within this, angstrom.
SAME_PLACE = 0.05
#: Modes below this share of the highest frequency are the crystal moving as a whole.
RIGID = 1e-4


@dataclass(frozen=True)
class Springs:
    """Force constants relative to that of the shortest bonds along themselves.

    `bending` acts across the shortest bonds; `second` along the distances of the next shell.
    """

    bending: float = 0.08
    second: float = 0.05


class Lattice:
    """Normal modes of a crystal about one absorber.

    Parameters
    ----------
    cif
        Text of the structure.
    absorber
        Element at the origin of paths.
    springs
        Of the bonds.
    site
        Place of the absorber among the atoms of that element in the cell, from 0.

    Raises
    ------
    ValueError
        If the springs do not hold the crystal together.
    """

    def __init__(self, cif: str, absorber: str, springs: Springs, site: int = 0) -> None:
        from larixite.cif_cluster import read_cif_structure

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cell = read_cif_structure(cif)
        times = [max(1, int(np.ceil(IMAGE / length))) for length in cell.lattice.abc]
        while np.prod(times) * len(cell) > MOST_ATOMS:
            times[int(np.argmax(np.array(times) * cell.lattice.abc))] -= 1
        crystal = cell.copy()
        crystal.make_supercell(times)
        masses = np.array([float(atom.specie.atomic_mass) for atom in crystal])
        self._places = np.array(crystal.cart_coords)
        self._vectors = np.array(crystal.lattice.matrix)
        own = [i for i, atom in enumerate(crystal) if atom.specie.symbol == absorber]
        self._absorber = own[site * int(np.prod(times))]
        self._bond, matrix = _force_constants(crystal, springs, self._absorber)
        root = np.repeat(np.sqrt(masses), 3)
        squares, modes = np.linalg.eigh(matrix / np.outer(root, root))
        moving = squares > RIGID**2 * squares[-1]
        if (squares < -(RIGID**2) * squares[-1]).any():
            raise ValueError(f"the springs {springs} do not hold the crystal together")
        self._theta = KELVIN * np.sqrt(squares[moving])
        self._modes = modes[:, moving] / root[:, None]
        self._spring_scale = 1.0

    def stiffened(self, sigma2: float, temperature: float) -> None:
        """Scale all springs so that the absorber's shortest bond has a sigma2, angstrom^2, at K."""
        bond = self.share(self._bond)
        low, high = 1e-3, 1e3
        for _ in range(60):  # sigma2 falls with stiffness
            self._spring_scale = float(np.sqrt(low * high))
            if self.variance(bond, np.array([temperature]))[0] > sigma2:
                low = self._spring_scale
            else:
                high = self._spring_scale

    def share(self, path: Floats) -> Floats:
        """Squared amplitude (modes,) of each mode in the half length of a path.

        Parameters
        ----------
        path
            (nleg, 3) positions in angstrom from the absorber, which is the first.
        """
        atoms = [self._at(place) for place in path]
        along = np.zeros(3 * len(self._places))
        for i, start in enumerate(atoms):
            j = (i + 1) % len(atoms)
            leg = path[j] - path[i]
            unit = leg / np.linalg.norm(leg)
            along[3 * atoms[j] : 3 * atoms[j] + 3] += unit / 2
            along[3 * start : 3 * start + 3] -= unit / 2
        return (along @ self._modes) ** 2

    def variance(self, share: Floats, temperature: Floats, stiffness: float = 1.0) -> Floats:
        """sigma2 (t,) in angstrom^2 of a path by `share`, at temperatures (t,) in K."""
        theta = self._theta * np.sqrt(self._spring_scale * stiffness)
        quanta = EINSTEIN / theta / np.tanh(theta / (2 * temperature[:, None]))
        return quanta @ share

    def _at(self, place: Floats) -> int:
        """The atom at a place relative to the absorber."""
        off = self._places - self._places[self._absorber] - place
        fraction = off @ np.linalg.inv(self._vectors)
        off = (fraction - np.round(fraction)) @ self._vectors
        distance = np.linalg.norm(off, axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] > SAME_PLACE:
            raise ValueError(f"no atom of the crystal at {place}, which a path has")
        return nearest


def _force_constants(crystal: Any, springs: Springs, absorber: int) -> tuple[Floats, Floats]:
    """One of the absorber's shortest bonds as a path (2, 3), and force constants (3 n, 3 n)."""
    n = len(crystal)
    matrix = np.zeros((n, 3, n, 3))
    bond: Sequence[Floats] = ()
    for i, atoms in enumerate(crystal.get_all_neighbors(NEIGHBOURS)):
        here = crystal[i]
        shells = _shells(atoms, here.coords)
        for order, shell in enumerate(shells[:2]):
            for atom in shell:
                leg = atom.coords - here.coords
                length = np.linalg.norm(leg)
                unit = leg / length
                line = np.outer(unit, unit)
                if order == 0:
                    spring = line + springs.bending * (np.eye(3) - line)
                    bond = (np.zeros(3), leg) if i == absorber else bond
                else:
                    spring = springs.second * line
                # half from either end: shells of unlike atoms need not be mutual
                j = atom.index
                for a, b in ((i, i), (j, j)):
                    matrix[a, :, b] += spring / 2
                for a, b in ((i, j), (j, i)):
                    matrix[a, :, b] -= spring / 2
    return np.array(bond), matrix.reshape(3 * n, 3 * n)


def _shells(atoms: Sequence, origin: Floats) -> list[list]:
    """Neighbours by distance, those within `ONE_SHELL` together."""
    shells: list[list] = []
    last = -np.inf
    for atom in sorted(atoms, key=lambda atom: float(np.linalg.norm(atom.coords - origin))):
        distance = float(np.linalg.norm(atom.coords - origin))
        if distance - last > ONE_SHELL:
            shells.append([])
            last = distance
        shells[-1].append(atom)
    return shells

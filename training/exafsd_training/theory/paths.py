"""Scattering paths of a FEFF run, as tables that reproduce Larch's splines exactly."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import UnivariateSpline

from exafsd.contract import ETOK
from exafsd_training.theory.structures import RECORD

Floats = NDArray[np.float64]

#: Distance of the table's knots in 1/angstrom. FEFF's k are multiples of it, so a cubic on
#: every interval of this length *is* the cubic spline that Larch draws through FEFF's k.
KNOT_STEP = 0.1
#: End of FEFF's k, 1/angstrom; beyond it the last cubic goes on, as in Larch.
KNOT_END = 20.0
KNOTS = round(KNOT_END / KNOT_STEP)
KNOT_K = np.arange(KNOTS + 1) * KNOT_STEP
#: A cubic that agrees with the next interval's to this share of a quantity's scale goes on there.
SAME_CUBIC = 1e-8
#: Smallest q looked up where the zero of energy is moved, 1/angstrom.
LEAST_Q = 0.2


@dataclass(frozen=True)
class ScatteringPath:
    """One path: what `larch.xafs.feffdat` takes from its ``feffNNNN.dat``."""

    file: str
    reff: float
    degeneracy: float
    #: (nleg, 3) positions in angstrom, the absorber first
    positions: Floats
    atoms: tuple[str, ...]
    #: (KNOTS, 2, 4) cubic coefficients of phase (rad) and amplitude on each interval
    cubics: Floats

    @property
    def nleg(self) -> int:
        """Number of legs; 2 is single scattering."""
        return len(self.atoms)

    @property
    def strength(self) -> float:
        """Mean of k^2 chi over k = 3 ... 14 1/angstrom, but for sigma2 and mean free path."""
        k = np.arange(30, 140) * KNOT_STEP
        return float(self.degeneracy * np.mean(k * self.cubics[30:140, 1, 0]) / self.reff**2)

    @property
    def label(self) -> str:
        """Name for people, for example ``Cu-Cu 3.834 (3 legs)``."""
        return f"{'-'.join(self.atoms[1:])} {self.reff:.3f} ({self.nleg} legs)"


@dataclass(frozen=True)
class PathTable:
    """All paths of one absorber and its photoelectron momentum."""

    paths: tuple[ScatteringPath, ...]
    #: (KNOTS, 2, 4) cubics of real momentum (1/angstrom) and mean free path (angstrom)
    momentum: Floats

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def reff(self) -> Floats:
        """(n,) half path lengths, angstrom."""
        return np.array([path.reff for path in self.paths])

    @property
    def degeneracy(self) -> Floats:
        """(n,) number of equivalent paths."""
        return np.array([path.degeneracy for path in self.paths])

    def within(self, reff_max: float) -> "PathTable":
        """Only the paths up to `reff_max` (angstrom)."""
        nearer = tuple(path for path in self.paths if path.reff <= reff_max)
        return PathTable(nearer, self.momentum)

    def coefficients(self) -> Floats:
        """(KNOTS, 2 n + 2, 4): phases, amplitudes, momentum, mean free path."""
        phase = [path.cubics[:, 0] for path in self.paths]
        amplitude = [path.cubics[:, 1] for path in self.paths]
        return np.stack([*phase, *amplitude, self.momentum[:, 0], self.momentum[:, 1]], axis=1)

    def pieces(self) -> tuple[NDArray[np.intp], Floats]:
        """First knots (s,) of the intervals on which all is one cubic, and `coefficients` there.

        FEFF's k are coarse beyond the near edge, so that there are 56 instead of `KNOTS` unless
        sites are averaged. The coefficients (s, 2 n + 2, 4) are in powers of the share of an
        interval.
        """
        cubes = self.coefficients()
        scale = np.abs(cubes[..., 0]).max(axis=0)[:, None]
        starts = [0]
        for knot in range(1, KNOTS):
            ahead = _shifted(cubes[starts[-1]], knot - starts[-1])
            if (np.abs(ahead - cubes[knot]) > SAME_CUBIC * scale).any():
                starts.append(knot)
        first = np.array(starts)
        length = np.diff([*starts, KNOTS])
        return first, cubes[first] * (length[:, None, None] ** np.arange(4.0))


def _shifted(cubic: Floats, knots: int) -> Floats:
    """Coefficients (..., 4) of the same cubics in powers of the distance from a later knot."""
    c0, c1, c2, c3 = np.moveaxis(cubic, -1, 0)
    d = float(knots)
    return np.stack(
        [c0 + d * (c1 + d * (c2 + d * c3)), c1 + d * (2 * c2 + 3 * d * c3), c2 + 3 * d * c3, c3],
        axis=-1,
    )


def cubics(k: Floats, values: Floats) -> Floats:
    """(KNOTS, 4) coefficients, in powers of (k - knot)/KNOT_STEP, of Larch's spline.

    Parameters
    ----------
    k, values
        (m,) FEFF's k in 1/angstrom and a quantity there.
    """
    if np.abs(k / KNOT_STEP - np.round(k / KNOT_STEP)).max() > 1e-6 or k[-1] < KNOT_END - 1e-6:
        raise ValueError(f"FEFF's k are not multiples of {KNOT_STEP} up to {KNOT_END} 1/angstrom")
    spline = UnivariateSpline(k, values, s=0)
    # in the middle of an interval no neighbouring cubic can be meant
    middle = (np.arange(KNOTS) + 0.5) * KNOT_STEP
    value, d1, d2, d3 = (spline.derivative(n)(middle) if n else spline(middle) for n in range(4))
    back = -0.5 * KNOT_STEP
    third = d3 / 6
    second = d2 / 2 + 3 * third * back
    first = d1 + d2 * back + 3 * third * back**2
    zeroth = value + d1 * back + d2 / 2 * back**2 + third * back**3
    scale = KNOT_STEP ** np.arange(4)
    return np.stack([zeroth, first, second, third], axis=1) * scale


def read_paths(folder: Path) -> PathTable:
    """Paths of a FEFF run, nearest first.

    Where sites of the absorber are averaged, every site's degeneracies are multiplied by its
    share. All paths then have the momentum and mean free path of the most frequent site. What
    the mean free paths differ by goes into the amplitudes, which is exact at the distances in
    the crystal; momenta act only on small shifts of distance and on sigma2.

    Parameters
    ----------
    folder
        Folder of `exafsd_training.theory.structures.run_feff`.
    """
    record = folder / RECORD
    shares = json.loads(record.read_text()).get("shares") if record.exists() else None
    tables = {name: _read_site(folder, name) for name in shares or {"": 1.0}}
    if not shares:
        return tables[""]
    momentum = tables[max(shares, key=lambda name: shares[name])].momentum
    merged = [
        replace(
            with_momentum(path, table.momentum, momentum), degeneracy=path.degeneracy * shares[name]
        )
        for name, table in tables.items()
        for path in table.paths
    ]
    return PathTable(tuple(sorted(merged, key=_nearest)), momentum)


def _nearest(path: ScatteringPath) -> tuple[float, int]:
    return path.reff, path.nleg


def with_momentum(path: ScatteringPath, own: Floats, common: Floats) -> ScatteringPath:
    """Path of a run with momentum `own`, for a table whose momentum is `common`.

    What the mean free paths differ by goes into the amplitude, exact for the crystal's distance.
    """
    cubes = path.cubics[:, 1], own[:, 1], common[:, 1]
    amplitude, own_length, length = (_at_knots(cube) for cube in cubes)
    amplitude = amplitude * np.exp(-2 * path.reff * (1 / own_length - 1 / length))
    scaled = path.cubics.copy()
    scaled[:, 1] = cubics(KNOT_K, amplitude)
    return replace(path, cubics=scaled)


def with_origin(table: PathTable, shift: float) -> PathTable:
    """The same paths for another zero of energy: at E0 = x they give chi of E0 = x + `shift`.

    Exact at the knots where k^2 exceeds `shift` (eV, in 1/angstrom^2) and for the crystal's
    distances; below that FEFF's tables have nothing to say.
    """
    q = np.sqrt(np.maximum(KNOT_K**2 - ETOK * shift, LEAST_Q**2))
    momentum = np.stack([cubics(KNOT_K, value(table.momentum[:, i], q)) for i in (0, 1)], axis=1)

    def moved(path: ScatteringPath) -> ScatteringPath:
        phase = value(path.cubics[:, 0], q) + 2 * path.reff * (q - KNOT_K)
        amplitude = value(path.cubics[:, 1], q) * KNOT_K / q
        cubes = np.stack([cubics(KNOT_K, phase), cubics(KNOT_K, amplitude)], axis=1)
        return replace(path, cubics=cubes)

    return PathTable(tuple(moved(path) for path in table.paths), momentum)


def value(cubic: Floats, q: Floats) -> Floats:
    """(m,) what (KNOTS, 4) cubics give at q, 1/angstrom."""
    place = np.minimum(q / KNOT_STEP, KNOTS - 1).astype(int)
    t = q / KNOT_STEP - place
    c0, c1, c2, c3 = cubic[place].T
    return c0 + t * (c1 + t * (c2 + t * c3))


def _at_knots(cubic: Floats) -> Floats:
    """(KNOTS + 1,) values of (KNOTS, 4) cubics."""
    return np.append(cubic[:, 0], cubic[-1].sum())


def _read_site(folder: Path, site: str) -> PathTable:
    from larch.xafs import feffpath

    paths, momentum = [], None
    for file in sorted((folder / site).glob("feff[0-9][0-9][0-9][0-9].dat")):
        data = feffpath(str(file))._feffdat
        own = np.stack([cubics(data.k, data.rep), cubics(data.k, data.lam)], axis=1)
        if momentum is not None and not np.allclose(own, momentum):
            raise ValueError(f"{file.name} has a momentum of its own: not a path of the same run")
        momentum = own
        paths.append(
            ScatteringPath(
                file=file.relative_to(folder).as_posix(),
                reff=float(data.reff),
                degeneracy=float(data.degen),
                positions=np.array([row[4:7] for row in data.geom], dtype=float),
                atoms=tuple(row[0] for row in data.geom),
                cubics=np.stack([cubics(data.k, data.pha), cubics(data.k, data.amp)], axis=1),
            )
        )
    if momentum is None:
        raise ValueError(f"no feffNNNN.dat in {folder / site}")
    return PathTable(tuple(sorted(paths, key=_nearest)), momentum)


def save_table(table: PathTable, file: Path) -> None:
    """Write a table as npz."""
    np.savez_compressed(
        file,
        momentum=table.momentum,
        cubics=np.stack([path.cubics for path in table.paths]),
        reff=table.reff,
        degeneracy=table.degeneracy,
        files=[path.file for path in table.paths],
        atoms=["/".join(path.atoms) for path in table.paths],
        positions=np.concatenate([path.positions for path in table.paths]),
    )


def load_table(file: Path) -> PathTable:
    """Read what `save_table` wrote."""
    with np.load(file) as data:
        atoms = [tuple(str(names).split("/")) for names in data["atoms"]]
        ends = np.cumsum([len(names) for names in atoms])[:-1]
        positions = np.split(data["positions"], ends)
        paths = tuple(
            ScatteringPath(str(name), float(reff), float(degeneracy), xyz, names, cubic)
            for name, reff, degeneracy, xyz, names, cubic in zip(
                data["files"],
                data["reff"],
                data["degeneracy"],
                positions,
                atoms,
                data["cubics"],
                strict=True,
            )
        )
        return PathTable(paths, data["momentum"])

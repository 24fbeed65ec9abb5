"""A second simulator, to judge by, which shares little with training's.

What differs: FEFF with self-consistent potentials, with the core hole or without; another
structure file where there is one; sigma2 of every path from the normal modes of a crystal
(`exafsd_training.simulation.lattice`); a third cumulant drawn evenly over what the literature has,
and beyond it; the crystal's own expansion, none, or contraction; the near edge and the background
of a measured spectrum of the material; reduction by Larch itself. What is common: FEFF8L, the law
by which C3 follows from sigma2, and the Einstein temperature of the nearest bond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline, UnivariateSpline

from exafsd.contract import ETOK, K_GRID
from exafsd_training.simulation.lattice import Lattice, Springs
from exafsd_training.theory.paths import Floats, PathTable, read_paths
from exafsd_training.theory.structures import Crystal, FeffSetup, run_feff
from exafsd_training.theory.thermal import einstein_sigma2, reduced_mass, third_cumulant

#: The two theories: potentials made self-consistent, about an atom with its core hole, and without.
THEORIES = (
    FeffSetup(scf_radius=4.0, criteria=(1.0, 0.5)),
    FeffSetup(scf_radius=4.0, core_hole=False, criteria=(1.0, 0.5)),
)
#: Farthest paths, angstrom.
REFF_MAX = 7.0
#: Lattices that samples are drawn from, and the ranges of their springs.
LATTICES, BENDING, SECOND = 6, (0.05, 0.15), (0.0, 0.10)
#: Spread of the logarithm of a sample's stiffness.
STIFFNESS = 0.12
#: Share of samples whose a in C3 = a (sigma^4 - 2/3 sigma_0^4) is drawn from a range that extends
#: beyond the literature's by so much of its width at either end.
BEYOND_SHARE, BEYOND = 0.25, 0.5
#: C3 of farther bonds over what the nearest's a would give them.
FAR_ANHARMONIC = 0.3
#: Share of samples with static disorder, Gaussian, and its mean, angstrom^2.
STATIC = (0.3, 0.0015)
#: Shares of samples that expand as their crystal does, not at all, and the other way.
EXPANDS = (0.7, 0.15, 0.15)
#: Standard deviation of a sample's lattice constant, relative.
STRAIN = 0.003
#: Temperatures of single spectra, K, and at which the crystal has its lattice constant.
TEMPERATURE, ROOM = (20.0, 700.0), 293.0
#: N S0^2 over the crystal's N.
S02 = (0.75, 1.0)
#: Noise of mu per point over the edge step, log-uniform, at steps of 0.05 1/angstrom.
NOISE = (5e-5, 1e-3)
#: Standard deviation, eV, of a monochromator's calibration and of FEFF's zero about the material's.
CALIBRATION, ZERO = 0.5, 0.7
#: Distances from the nearest neighbour's that are its shell, angstrom.
ONE_SHELL = 0.3
#: Least q^2, 1/angstrom^2, as of Larch.
SMALL_ENERGY = 1e-6
#: Where the measured near edge gives way to path sums, 1/angstrom.
JOIN = (1.5, 2.5)


@dataclass(frozen=True)
class MeasuredEdge:
    """A measured spectrum of the material without its EXAFS.

    `energy` (n,) eV from where mu has risen by half the edge step; `mu` and `background` (n,),
    pre-edge included, in units of the edge step that Larch finds.
    """

    energy: Floats
    mu: Floats
    background: Floats

    @classmethod
    def of(cls, energy: Floats, mu: Floats, edge: float) -> "MeasuredEdge":
        """From mu(E) about an edge in eV, by Larch.

        Raises
        ------
        ValueError
            If it has no edge that can be placed.
        """
        from larch import Group
        from larch.xafs import autobk, pre_edge

        from exafsd.reduction.edge_middle import edge_middle

        group = Group(energy=energy, mu=mu)
        pre_edge(group)
        autobk(group, rbkg=1.0, kweight=2)
        at = edge_middle(group.energy, group.norm, edge)
        if at is None:
            raise ValueError("the near edge is too coarse or too short")
        step = group.edge_step
        return cls(group.energy - at, group.mu / step, group.bkg / step)


@dataclass(frozen=True)
class Sample:
    """One sample on one beamline, at temperatures (t,) in K.

    `theory`, `lattice` and `edge` are places in the simulator's lists; `stiffness` multiplies all
    springs, `static` is in angstrom^2, `anharmonicity` in 1/angstrom; `strain` (t,) is relative,
    `n_s02` of the nearest shell, `noise` of mu per point over the edge step. `zero`, FEFF's zero of
    energy from half the edge step, and `calibration` are in eV.
    """

    temperatures: Floats
    theory: int
    lattice: int
    stiffness: float
    static: float
    anharmonicity: float
    strain: Floats
    n_s02: float
    zero: float
    edge: int
    noise: float
    calibration: float


@dataclass(frozen=True)
class Truth:
    """Of the nearest shell, (t,): distance in angstrom, sigma2 in angstrom^2, N S0^2.

    Where its bonds are of several lengths, R and sigma2 are their means.
    """

    r: Floats
    sigma2: Floats
    n_s02: Floats


class Simulator:
    """Simulated measurements of one material.

    Parameters
    ----------
    crystal, absorber, edge
        What it is made of.
    work
        Folder for FEFF's runs.
    einstein
        Einstein temperature of the nearest bond, K.
    expansion
        Linear, at high temperature, 1/K.
    anharmonicity
        What the literature has for it, a range, 1/angstrom.
    zero
        Zero of energy of the model's own FEFF from half the edge step, eV.
    origins
        How far each theory's zero is from that one, eV.
    edges
        Measured spectra of the material.
    position
        Energy of the edge, eV.
    """

    def __init__(
        self,
        crystal: Crystal,
        absorber: str,
        edge: str,
        work: Path,
        einstein: float,
        expansion: float,
        anharmonicity: tuple[float, float],
        zero: float,
        origins: Sequence[float],
        edges: Sequence[MeasuredEdge],
        position: float,
    ) -> None:
        self._zero, self._edges, self._anharmonicity = zero, edges, anharmonicity
        self._expansion, self._einstein, self._position = expansion, einstein, position
        folders = [run_feff(crystal, absorber, edge, work, setup) for setup in THEORIES]
        self._tables = [read_paths(folder).within(REFF_MAX) for folder in folders]
        self._waves = [
            Waves([folder / path.file for path in table.paths], origin)
            for folder, table, origin in zip(folders, self._tables, origins, strict=True)
        ]
        first = next(path for path in self._tables[0].paths if path.nleg == 2)
        self.reff, self.n = _nearest(self._tables[0])
        mass = reduced_mass(*first.atoms)
        usual = einstein_sigma2(np.array([300.0]), np.array([einstein]), mass)[0]
        rng = np.random.default_rng(0)
        self._lattices = []
        for _ in range(LATTICES):
            lattice = Lattice(
                crystal.cif, absorber, Springs(rng.uniform(*BENDING), rng.uniform(*SECOND))
            )
            lattice.stiffened(float(usual), 300.0)
            shares = [
                np.array([lattice.share(path.positions) for path in table.paths])
                for table in self._tables
            ]
            self._lattices.append((lattice, shares))

    def draw(
        self, rng: np.random.Generator, temperatures: Floats | None = None, own: bool = False
    ) -> Sample:
        """A sample; `own` says that it expands as its crystal does."""
        kelvin = np.array([rng.uniform(*TEMPERATURE)]) if temperatures is None else temperatures
        way = rng.choice((1.0, 0.0, -1.0), p=EXPANDS)
        low, high = self._anharmonicity
        more = BEYOND * (high - low) if rng.random() < BEYOND_SHARE else 0.0
        share, mean = STATIC
        static = rng.exponential(mean) if rng.random() < share else 0.0
        return Sample(
            temperatures=kelvin,
            theory=int(rng.integers(len(THEORIES))),
            lattice=int(rng.integers(LATTICES)),
            stiffness=float(np.exp(2 * rng.normal(0, STIFFNESS))),
            static=static,
            anharmonicity=float(rng.uniform(low - more, high + more)),
            strain=rng.normal(0, STRAIN) + (1.0 if own else way) * self._thermal_strain(kelvin),
            n_s02=float(rng.uniform(*S02)) * self.n,
            zero=self._zero + rng.normal(0, ZERO),
            edge=int(rng.integers(len(self._edges))),
            noise=float(np.exp(rng.uniform(*np.log(NOISE)))),
            calibration=rng.normal(0, CALIBRATION),
        )

    def measure(self, rng: np.random.Generator, sample: Sample) -> tuple[Floats, Floats, Truth]:
        """Energies (n,) in eV, mu (t, n), and what is true."""
        chi, truth = self.chi(sample)
        edge = self._edges[sample.edge]
        relative = edge.energy
        k = np.sqrt(np.maximum(relative - sample.zero, 0.0) * ETOK)
        late = np.clip((k - JOIN[0]) / (JOIN[1] - JOIN[0]), 0.0, 1.0)
        late = late**2 * (3 - 2 * late)
        rows = []
        for one in chi:
            fine = CubicSpline(K_GRID, one)(np.minimum(k, K_GRID[-1]))
            mu = edge.mu * (1 - late) + (edge.background + fine) * late
            rows.append(mu + sample.noise * rng.normal(0, 1, len(mu)))
        return self._position + relative + sample.calibration, np.array(rows), truth

    def chi(self, sample: Sample) -> tuple[Floats, Truth]:
        """chi(k) (t, 401) from FEFF's zero, and what is true."""
        lattice, shares = self._lattices[sample.lattice]
        share, table = shares[sample.theory], self._tables[sample.theory]
        kelvin, stiffness = sample.temperatures, sample.stiffness
        sigma2 = np.array([lattice.variance(one, kelvin, stiffness) for one in share])
        frozen = np.array([lattice.variance(one, np.array([1e-3]), stiffness) for one in share])
        c3 = third_cumulant(sigma2, frozen, np.array(sample.anharmonicity))
        nearest = table.reff < self.reff + ONE_SHELL
        single = np.array([path.nleg == 2 for path in table.paths])
        c3 *= np.where(nearest, 1.0, np.where(single, FAR_ANHARMONIC, 0.0))[:, None]
        sigma2 = sigma2 + sample.static
        waves = self._waves[sample.theory]
        chi = waves(table.reff[:, None] * sample.strain, sigma2, c3) * sample.n_s02 / self.n
        bonds = nearest & single
        ones = np.ones(len(kelvin))
        mean = np.average(sigma2[bonds], axis=0, weights=table.degeneracy[bonds])
        return chi, Truth(self.reff * (1 + sample.strain), mean, sample.n_s02 * ones)

    def _thermal_strain(self, kelvin: Floats) -> Floats:
        """Thermal strain (t,) by Grueneisen: in proportion to the energy of an oscillator."""
        theta = self._einstein

        def heat(at: Floats) -> Floats:
            return theta / np.expm1(theta / at)

        return self._expansion * (heat(kelvin) - heat(np.array([ROOM])))


class Waves:
    """Larch's sum of paths, for one zero of energy and many sets of path parameters.

    The formula is that of `larch.xafs.path2chi`; what depends on k alone is computed once.

    Parameters
    ----------
    files
        ``feffNNNN.dat`` of the paths.
    e0
        eV.
    """

    def __init__(self, files: Sequence[Path], e0: float) -> None:
        from larch.xafs import feffpath

        energy = K_GRID**2 - e0 * ETOK
        q = np.sqrt(np.maximum(energy, SMALL_ENERGY))
        paths = [feffpath(str(file))._feffdat for file in files]

        def at_q(name: str) -> Floats:
            return np.array([UnivariateSpline(p.k, getattr(p, name), s=0)(q) for p in paths])

        self._reff = np.array([[path.reff] for path in paths])
        degeneracy = np.array([[path.degen] for path in paths])
        p = at_q("rep") + 1j / at_q("lam")
        still = 1j * (2 * q * self._reff + at_q("pha")) - 2 * self._reff * p.imag
        self._unit = degeneracy * at_q("amp") / q * np.exp(still)
        self._by_deltar = 2j * p
        self._by_sigma2 = -2 * p**2 - 4j * p / self._reff
        self._by_c3 = -4j / 3 * p**3

    def __call__(self, deltar: Floats, sigma2: Floats, c3: Floats) -> Floats:
        """Chi (t, 401) for S0^2 = 1; arguments (paths, t) in angstrom, angstrom^2, angstrom^3."""
        rows = []
        for by_r, by_sigma2, by_c3 in zip(deltar.T, sigma2.T, c3.T, strict=True):
            turn = (
                self._by_deltar * by_r[:, None]
                + self._by_sigma2 * by_sigma2[:, None]
                + self._by_c3 * by_c3[:, None]
            )
            size = (self._reff + by_r[:, None]) ** 2
            rows.append(np.sum(self._unit / size * np.exp(turn), axis=0).imag)
        return np.array(rows)


def _nearest(table: PathTable) -> tuple[float, float]:
    """Mean distance and number of the nearest neighbours."""
    single = [path for path in table.paths if path.nleg == 2]
    near = [path for path in single if path.reff < single[0].reff + ONE_SHELL]
    number = [path.degeneracy for path in near]
    return float(np.average([path.reff for path in near], weights=number)), float(sum(number))

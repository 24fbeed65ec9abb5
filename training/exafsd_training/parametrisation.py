"""What theta means for one phase: parameters, bounds, and ties of paths to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exafsd.contract.card import Parameter, ParameterName, Prior, Tie
from exafsd_training.paths import Floats, PathTable, ScatteringPath

#: Shells nearer than pi / (2 dk) cannot be told apart; dk = 11 1/angstrom for k = 3 ... 14.
SHELL_RESOLUTION = np.pi / (2 * 11)
#: Shells with a sigma2 of their own; paths up to the last of them are in the equation.
MAX_SHELLS = 4
#: eV about Larch's E0. FEFF's threshold and the inflection point differ by up to 10 eV.
E0_BOUND = 15.0
#: N S0^2 relative to the crystal's N: from small clusters to overestimated S0^2.
N_RANGE = (0.15, 1.35)
N_PRIOR = (0.25, 1.25)
#: R about the crystal's, angstrom: strained nanoparticles to thermal expansion at 1000 K.
R_RANGE = (-0.10, 0.12)
R_PRIOR = (-0.08, 0.10)
#: angstrom^2 of the nearest shell; zero-point motion of stiff bonds to near the melting point.
SIGMA2_RANGE = (0.0005, 0.04)
#: angstrom^2 of farther shells, whose motion is less correlated.
SIGMA2_FAR_RANGE = (0.0005, 0.06)
#: angstrom^3, see `exafsd_training.simulate.sample_theta`.
C3_RANGE = (-0.0004, 0.003)
#: relative change of all farther distances.
EXPANSION_RANGE = (-0.045, 0.055)


@dataclass(frozen=True)
class Shell:
    """Neighbours at one distance, or at distances that data cannot tell apart."""

    number: int
    scatterer: str
    reff: float
    degeneracy: float
    #: indices of its single-scattering paths
    paths: tuple[int, ...]


@dataclass(frozen=True)
class Ties:
    """Path parameters as linear functions of theta: x = x_0 + theta @ x, each (p, n)."""

    deltar_0: Floats
    deltar: Floats
    sigma2: Floats
    c3: Floats


@dataclass(frozen=True)
class Parametrisation:
    """Parameters of one phase, and how every path follows from them."""

    phase: str
    table: PathTable
    shells: tuple[Shell, ...]
    parameters: tuple[Parameter, ...]
    ties: Ties

    @property
    def degeneracy(self) -> float:
        """Neighbours of the nearest shell in the crystal."""
        return self.shells[0].degeneracy

    @property
    def bounds(self) -> Floats:
        """(p, 2)."""
        return np.array([parameter.bounds for parameter in self.parameters])

    @property
    def prior_std(self) -> Floats:
        """(p,)."""
        return np.array([parameter.prior.std for parameter in self.parameters])

    def index(self, id_: str) -> int:
        """Place of a parameter in theta, by id without the phase, for example ``1/r``."""
        return [p.id for p in self.parameters].index(f"{self.phase}/{id_}")

    def in_words(self) -> list[Tie]:
        """The ties, for the card."""
        first = self.shells[0]
        return [
            Tie(
                target="amplitude of every path",
                expression=f"crystallographic degeneracy x {self.phase}/1/n_s02"
                f" / {first.degeneracy:g}",
            ),
            Tie(
                target="deltar of every path but the nearest shell's",
                expression=f"half path length in the crystal x {self.phase}/expansion",
            ),
            Tie(
                target="sigma2 of multiple scattering",
                expression="focusing paths whose half length is a shell's distance: that shell's"
                " sigma2; others: sum over distinct bonds of (times traversed)^2 sigma2(bond) / 4,"
                " with the sigma2 of the shell nearest in bond length",
            ),
            Tie(target="C3 of every path but the nearest shell's", expression="0"),
        ]


def group_shells(table: PathTable) -> tuple[Shell, ...]:
    """Shells from single-scattering paths; unresolved distances are merged."""
    shells: list[list[int]] = []
    for index, path in enumerate(table.paths):
        if path.nleg != 2:
            continue
        same = shells and path.reff - table.paths[shells[-1][0]].reff < SHELL_RESOLUTION
        if same and table.paths[shells[-1][0]].atoms == path.atoms:
            shells[-1].append(index)
        else:
            shells.append([index])
    made = []
    for number, indices in enumerate(shells[:MAX_SHELLS], start=1):
        paths = [table.paths[i] for i in indices]
        weights = [path.degeneracy for path in paths]
        reff = float(np.average([path.reff for path in paths], weights=weights))
        made.append(Shell(number, paths[0].atoms[1], reff, float(sum(weights)), tuple(indices)))
    return tuple(made)


def sigma2_ties(path: ScatteringPath, shell_reff: Sequence[float]) -> Floats:
    """(shells,) weights of the shells' sigma2 in a path's.

    With bond lengths b that move independently and are traversed n_b times, half the path
    length varies by sum n_b^2 sigma_b^2 / 4. Atoms in line do not move independently: a path
    that only passes through an atom on its way has the variance of its farthest atom.
    """
    reff = np.asarray(shell_reff)
    weights = np.zeros(len(reff))
    xyz = path.positions
    far = float(np.linalg.norm(xyz - xyz[0], axis=1).max())
    if abs(far - path.reff) < 0.01:
        weights[np.abs(reff - far).argmin()] = 1.0
        return weights
    bonds: dict[tuple[int, int], int] = {}
    atoms = [next(j for j in range(i + 1) if np.allclose(xyz[j], xyz[i], atol=0.01))
             for i in range(len(xyz))]  # fmt: skip
    for start, end in zip(atoms, [*atoms[1:], atoms[0]], strict=True):
        bond = (min(start, end), max(start, end))
        bonds[bond] = bonds.get(bond, 0) + 1
    for (start, end), times in bonds.items():
        length = float(np.linalg.norm(xyz[start] - xyz[end]))
        weights[np.abs(reff - length).argmin()] += times**2 / 4
    return weights


def parametrise(phase: str, table: PathTable) -> Parametrisation:
    """Parameters and ties of one phase.

    Parameters
    ----------
    phase
        Name in messages, for example ``Cu``.
    table
        All paths of the FEFF run; those up to the last shell are kept.
    """
    shells = group_shells(table)
    last = shells[-1].reff + SHELL_RESOLUTION / 2
    table = table.within(last)
    shells = group_shells(table)
    first = shells[0]

    def uniform(lo: float, hi: float) -> Prior:
        return Prior(
            kind="uniform", mean=round((lo + hi) / 2, 6), std=round((hi - lo) / 12**0.5, 6)
        )

    def of_shell(
        shell: Shell, name: ParameterName, unit: str, bounds: tuple[float, float], prior: Prior
    ) -> Parameter:
        return Parameter(
            id=f"{phase}/{shell.number}/{name}", name=name, unit=unit, bounds=bounds, prior=prior,
            phase=phase, shell=shell.number, scatterer=shell.scatterer,
            r_eff=round(shell.reff, 5), degeneracy=shell.degeneracy,
        )  # fmt: skip

    n_bounds, n_prior = (
        (round(lo * first.degeneracy, 3), round(hi * first.degeneracy, 3))
        for lo, hi in (N_RANGE, N_PRIOR)
    )
    r_bounds, r_prior = (
        (round(first.reff + lo, 4), round(first.reff + hi, 4)) for lo, hi in (R_RANGE, R_PRIOR)
    )
    parameters = [
        Parameter(id=f"{phase}/e0_shift", name="e0_shift", unit="eV", bounds=(-E0_BOUND, E0_BOUND),
                  prior=Prior(kind="normal", mean=2.8, std=6.1), phase=phase),
        of_shell(first, "n_s02", "", n_bounds, uniform(*n_prior)),
        of_shell(first, "r", "angstrom", r_bounds, uniform(*r_prior)),
        of_shell(first, "sigma2", "angstrom^2", SIGMA2_RANGE,
              Prior(kind="normal", mean=0.012, std=0.0096)),
        of_shell(first, "c3", "angstrom^3", C3_RANGE,
              Prior(kind="normal", mean=0.00026, std=0.0005)),
    ]  # fmt: skip
    if len(shells) > 1:
        parameters.append(
            Parameter(id=f"{phase}/expansion", name="expansion", unit="", bounds=EXPANSION_RANGE,
                      prior=Prior(kind="normal", mean=0.004, std=0.0205), phase=phase)
        )  # fmt: skip
    parameters += [
        of_shell(other, "sigma2", "angstrom^2", SIGMA2_FAR_RANGE,
              Prior(kind="normal", mean=0.0155, std=0.0127))
        for other in shells[1:]
    ]  # fmt: skip
    return Parametrisation(
        phase, table, shells, tuple(parameters), _ties(table, shells, parameters)
    )


def _ties(table: PathTable, shells: Sequence[Shell], parameters: Sequence[Parameter]) -> Ties:
    p, n = len(parameters), len(table)
    place = {(parameter.shell, parameter.name): i for i, parameter in enumerate(parameters)}
    deltar_0, deltar, sigma2, c3 = np.zeros(n), np.zeros((p, n)), np.zeros((p, n)), np.zeros((p, n))
    reff = [shell.reff for shell in shells]
    rows = [place[shell.number, "sigma2"] for shell in shells]
    for i, path in enumerate(table.paths):
        if i in shells[0].paths:
            deltar_0[i] = -shells[0].reff
            deltar[place[1, "r"], i] = 1.0
            c3[place[1, "c3"], i] = 1.0
        else:
            deltar[place[None, "expansion"], i] = path.reff
        sigma2[rows, i] = sigma2_ties(path, reff)
    return Ties(deltar_0, deltar, sigma2, c3)

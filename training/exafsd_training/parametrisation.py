"""What theta means for one phase: shells, parameters, bounds, and ties of paths to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exafsd.contract.card import Parameter, ParameterName, Prior, Tie
from exafsd.contract.recipe import FitWindow
from exafsd_training.paths import Floats, PathTable, ScatteringPath
from exafsd_training.thermal import (
    DRAWS,
    Bond,
    Vibration,
    draw_temperature,
    reduced_mass,
    vibrate,
)

#: Shells nearer than pi / (2 dk) cannot be told apart; dk = 11 1/angstrom for k = 3 ... 14.
SHELL_RESOLUTION = np.pi / (2 * 11)
#: Shells with a sigma2 of their own; paths up to the last of them are in the equation.
MAX_SHELLS = 4
#: A bond between two neighbours is taken for the bond of a shell with the same two elements if
#: the lengths differ by less, angstrom.
SAME_BOND = 0.3
#: eV about Larch's E0. FEFF's threshold and the inflection point differ by up to 10 eV.
E0_BOUND = 15.0
#: N S0^2 relative to the crystal's N: from small clusters to overestimated S0^2.
N_RANGE = (0.15, 1.35)
#: R about the crystal's, angstrom: strained nanoparticles to thermal expansion at 1000 K.
#: Farther shells have the same relative range.
R_RANGE = (-0.10, 0.12)
R_PRIOR = (-0.08, 0.10)
#: R of a farther shell in the window scatters about the nearest shell's strain, angstrom.
R_SCATTER = 0.02
#: angstrom^2 of the nearest shell; zero-point motion of stiff bonds to near the melting point.
SIGMA2_RANGE = (0.0005, 0.04)
#: angstrom^2 of farther shells, whose motion is less correlated.
SIGMA2_FAR_RANGE = (0.0005, 0.06)
#: angstrom^3, see `exafsd_training.thermal`.
C3_RANGE = (-0.0004, 0.003)
#: relative change of all farther distances.
EXPANSION_RANGE = (-0.045, 0.055)
#: Share of spectra whose E0 is anywhere in the bounds, less the margin a sigmoid cannot reach.
E0_ANYWHERE, E0_REACH = 0.3, 14.0
#: Spread of the logarithm of an Einstein temperature that is only a guess.
GUESS_SPREAD = 0.3
#: sigma2 of a farther shell of the same element over the nearest's, mean and standard
#: deviations: of all together, and of the logarithm of each.
FAR_RATIO = (1.25, 0.1, 0.12)


@dataclass(frozen=True)
class Priors:
    """What training draws from.

    `n_s02` is a range relative to the crystal's N; `e0` mean and standard deviation in eV of most
    spectra. `einstein` holds Einstein temperatures in K of the first shells, as many as are known,
    with `spread` the standard deviation of their logarithm. `anharmonicity` is that of
    `exafsd_training.thermal.Bond`, 1/angstrom.
    """

    n_s02: tuple[float, float] = (0.25, 1.25)
    e0: tuple[float, float] = (4.0, 4.5)
    einstein: tuple[float, ...] = ()
    spread: float = 0.18
    anharmonicity: tuple[float, float] = (0.0, 2.4)


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
    priors: Priors = field(default_factory=Priors)

    @property
    def fitted(self) -> tuple[Shell, ...]:
        """Shells with a distance of their own: those in the fit window."""
        own = {p.shell for p in self.parameters if p.name == "r"}
        return tuple(shell for shell in self.shells if shell.number in own)

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
                target="deltar of every path but those of shells with an R",
                expression=f"half path length in the crystal x {self.phase}/expansion",
            ),
            Tie(
                target="sigma2 of multiple scattering and of single scattering outside the shells",
                expression="paths whose half length is the distance of their farthest atom: the"
                " sigma2 of the shell of that element and distance; others: sum over distinct"
                " bonds of (times traversed)^2 sigma2(bond) / 4; a bond has the sigma2 of the"
                " shell with the same elements, else of the one nearest in length",
            ),
            Tie(target="C3 of every path but the nearest shell's", expression="0"),
        ]


def in_window(reff: float, window: FitWindow) -> bool:
    """Whether a shell belongs to a fit: by its distance in the crystal, as in the daemon."""
    return window.r[0] <= round(reff, 5) <= window.r[1]


def independent_points(window: FitWindow) -> float:
    """2 dk dR / pi, the parameters a window can hold."""
    return 2 * (window.k[1] - window.k[0]) * (window.r[1] - window.r[0]) / np.pi


def group_shells(table: PathTable) -> tuple[Shell, ...]:
    """Shells of single scattering.

    Distances to one element that data cannot resolve are one shell. Where two elements are that
    near each other, only the stronger scatterer makes a shell; the other's path stays among
    those that are tied.
    """
    groups: list[list[int]] = []
    for index, path in enumerate(table.paths):
        if path.nleg != 2:
            continue
        for group in groups:
            first = table.paths[group[0]]
            if first.atoms == path.atoms and path.reff - first.reff < SHELL_RESOLUTION:
                group.append(index)
                break
        else:
            groups.append([index])
    shells = sorted((_shell(table, group) for group in groups), key=lambda shell: shell.reff)
    strength = [sum(table.paths[i].strength for i in shell.paths) for shell in shells]
    kept = [
        shell
        for shell, own in zip(shells, strength, strict=True)
        if not any(
            other.scatterer != shell.scatterer
            and abs(other.reff - shell.reff) < SHELL_RESOLUTION
            and more > own
            for other, more in zip(shells, strength, strict=True)
        )
    ]
    return tuple(replace(s, number=n) for n, s in enumerate(kept[:MAX_SHELLS], start=1))


def _shell(table: PathTable, group: Sequence[int]) -> Shell:
    paths = [table.paths[i] for i in group]
    weights = [path.degeneracy for path in paths]
    reff = float(np.average([path.reff for path in paths], weights=weights))
    absorber, scatterer = paths[0].atoms
    return Shell(0, absorber, scatterer, reff, float(sum(weights)), tuple(group))


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


def vibrations(
    rng: np.random.Generator, temperature: Floats, shells: Sequence[Shell], priors: Priors
) -> list[Vibration]:
    """Draw what every shell does at each temperature (n,) in K.

    A shell whose Einstein temperature is known, the nearest, and the nearest of each other
    element are bonds of their own; farther shells of an element follow its nearest.
    """
    n = len(temperature)
    drawn: list[Vibration] = []
    nearest: dict[str, Vibration] = {}
    mean, common, own = FAR_RATIO
    together = rng.normal(mean, common, n)
    for place, shell in enumerate(shells):
        known = place < len(priors.einstein)
        if known or shell.scatterer not in nearest:
            bond = Bond(
                mass=reduced_mass(shell.absorber, shell.scatterer),
                einstein=priors.einstein[place] if known else None,
                spread=priors.spread if known or place == 0 else GUESS_SPREAD,
                anharmonicity=priors.anharmonicity,
            )
            found = vibrate(rng, temperature, bond)
            nearest.setdefault(shell.scatterer, found)
        else:
            thermal = nearest[shell.scatterer].thermal * together * np.exp(rng.normal(0, own, n))
            found = Vibration(thermal, np.zeros(n), np.zeros(n))
        if drawn:
            # disorder of one sample: the same spectra have it in every shell
            found = replace(found, static=drawn[0].static * rng.uniform(0.5, 2.5, n))
        drawn.append(found)
    return drawn


def parametrise(
    phase: str,
    table: PathTable,
    window: FitWindow | None = None,
    priors: Priors | None = None,
) -> Parametrisation:
    """Parameters and ties of one phase.

    Shells in the fit window have an R and a sigma2 of their own, further ones a sigma2 as long
    as the window's independent points allow; the distances of all other paths share one
    expansion.

    Parameters
    ----------
    phase
        Name in messages, for example ``Cu``.
    table
        All paths of the FEFF run; those up to the last shell are kept.
    window
        Of the fit; by default one about the nearest shell.
    priors
        What training draws from.

    Raises
    ------
    ValueError
        If the window does not hold the parameters of the shells in it, or not the nearest shell.
    """
    priors = priors or Priors()
    shells = group_shells(table)
    window = window or default_window(phase, shells[0].reff)
    if not in_window(shells[0].reff, window):
        raise ValueError(
            f"the nearest shell, {shells[0].scatterer} at {shells[0].reff:.3f} angstrom, is not in"
            f" the fit window {window.r[0]} to {window.r[1]}"
        )
    fitted = [shell for shell in shells if in_window(shell.reff, window)]
    # E0, N S0^2, C3 and the expansion, then R and sigma2 in the window, sigma2 beyond it
    most = int(independent_points(window)) - 4 - 2 * len(fitted) + len(fitted)
    if most < len(fitted):
        raise ValueError(
            f"the fit window holds {independent_points(window):.1f} independent points, too few"
            f" for {len(fitted)} shells"
        )
    shells = shells[:most]
    end = max(table.paths[i].reff for i in shells[-1].paths)
    table = table.within(max(end + 1e-6, shells[-1].reff + SHELL_RESOLUTION / 2))
    parameters = _parameters(phase, shells, table, window, priors)
    ties = _ties(table, shells, parameters)
    return Parametrisation(phase, table, shells, parameters, ties, priors)


#: R windows in angstrom, not phase corrected, of metals named by formula; of any other phase from
#: 1.1 below to 0.5 above the distance of its nearest shell.
FIT_R = {"Cu": (1.4, 3.0), "Fe": (1.4, 3.0), "Pt": (1.7, 3.3), "Au": (1.7, 3.4)}


def default_window(phase: str, reff: float) -> FitWindow:
    """Window of the reference fit of a phase whose nearest shell is at `reff`, angstrom."""
    return FitWindow(r=FIT_R.get(phase, (round(reff - 1.1, 1), round(reff + 0.5, 1))))


def _parameters(
    phase: str,
    shells: Sequence[Shell],
    table: PathTable,
    window: FitWindow,
    priors: Priors,
) -> tuple[Parameter, ...]:
    first = shells[0]
    fitted = [shell for shell in shells if in_window(shell.reff, window)]
    rng = np.random.default_rng(0)
    drawn = vibrations(rng, draw_temperature(rng, DRAWS), shells, priors)

    def of_shell(
        shell: Shell, name: ParameterName, unit: str, bounds: tuple[float, float], prior: Prior
    ) -> Parameter:
        return Parameter(
            id=f"{phase}/{shell.number}/{name}", name=name, unit=unit, bounds=bounds, prior=prior,
            phase=phase, shell=shell.number, scatterer=shell.scatterer,
            r_eff=round(shell.reff, 5), degeneracy=shell.degeneracy,
        )  # fmt: skip

    def distance(shell: Shell) -> Parameter:
        stretch = shell.reff / first.reff
        bounds, prior = (
            (round(shell.reff + stretch * lo, 4), round(shell.reff + stretch * hi, 4))
            for lo, hi in (R_RANGE, R_PRIOR)
        )
        if shell is first:
            return of_shell(shell, "r", "angstrom", bounds, _uniform(prior))
        std = np.hypot(_uniform(prior).std, R_SCATTER)
        return of_shell(shell, "r", "angstrom", bounds, _normal(sum(prior) / 2, std))

    def disorder(shell: Shell) -> Parameter:
        bounds = SIGMA2_RANGE if shell is first else SIGMA2_FAR_RANGE
        prior = _drawn(drawn[shell.number - 1].sigma2, bounds)
        return of_shell(shell, "sigma2", "angstrom^2", bounds, prior)

    n_bounds, n_prior = (
        (round(lo * first.degeneracy, 3), round(hi * first.degeneracy, 3))
        for lo, hi in (N_RANGE, priors.n_s02)
    )
    parameters = [
        Parameter(id=f"{phase}/e0_shift", name="e0_shift", unit="eV", bounds=(-E0_BOUND, E0_BOUND),
                  prior=_e0_prior(priors), phase=phase),
        of_shell(first, "n_s02", "", n_bounds, _uniform(n_prior)),
        distance(first),
        disorder(first),
        of_shell(first, "c3", "angstrom^3", C3_RANGE, _drawn(drawn[0].c3, C3_RANGE)),
    ]  # fmt: skip
    for shell in fitted[1:]:
        parameters += [distance(shell), disorder(shell)]
    if len(table) > sum(len(shell.paths) for shell in fitted):
        parameters.append(
            Parameter(id=f"{phase}/expansion", name="expansion", unit="", bounds=EXPANSION_RANGE,
                      prior=_normal(0.004, 0.0205), phase=phase)
        )  # fmt: skip
    parameters += [disorder(shell) for shell in shells if shell not in fitted]
    return tuple(parameters)


def _uniform(range_: tuple[float, float]) -> Prior:
    low, high = range_
    std = (high - low) / 12**0.5
    return Prior(kind="uniform", mean=round((low + high) / 2, 6), std=round(std, 6))


def _normal(mean: float, std: float) -> Prior:
    return Prior(kind="normal", mean=round(mean, 6), std=round(std, 6))


def _drawn(values: Floats, bounds: tuple[float, float]) -> Prior:
    """Mean and standard deviation of what training draws, inside the bounds."""
    clipped = np.clip(values, *bounds)
    return _normal(float(clipped.mean()), float(clipped.std()))


def _e0_prior(priors: Priors) -> Prior:
    """Of the mixture that `exafsd_training.simulate.sample` draws from."""
    centre, width = priors.e0
    usual = 1 - E0_ANYWHERE
    mean = usual * centre
    square = usual * (width**2 + centre**2) + E0_ANYWHERE * E0_REACH**2 / 3
    return _normal(mean, float(np.sqrt(square - mean**2)))


def _ties(table: PathTable, shells: Sequence[Shell], parameters: Sequence[Parameter]) -> Ties:
    p, n = len(parameters), len(table)
    place = {(parameter.shell, parameter.name): i for i, parameter in enumerate(parameters)}
    deltar_0, deltar, sigma2, c3 = np.zeros(n), np.zeros((p, n)), np.zeros((p, n)), np.zeros((p, n))
    rows = [place[shell.number, "sigma2"] for shell in shells]
    owner = {i: s for s in shells if (s.number, "r") in place for i in s.paths}
    for i, path in enumerate(table.paths):
        if i in owner:
            deltar_0[i] = -owner[i].reff
            deltar[place[owner[i].number, "r"], i] = 1.0
            # distances that are one shell share its sigma2
            sigma2[place[owner[i].number, "sigma2"], i] = 1.0
        else:
            deltar[place[None, "expansion"], i] = path.reff
            sigma2[rows, i] = sigma2_ties(path, shells)
        if i in shells[0].paths:
            c3[place[1, "c3"], i] = 1.0
    return Ties(deltar_0, deltar, sigma2, c3)

"""What theta means for one phase: parameters, bounds, and ties of paths to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exafsd.contract.card import Parameter, ParameterName, Prior, Tie
from exafsd.contract.recipe import FitWindow
from exafsd_training.theory.paths import Floats, PathTable
from exafsd_training.theory.priors import Priors, vibrations
from exafsd_training.theory.shells import SHELL_RESOLUTION, Shell, group_shells, sigma2_ties
from exafsd_training.theory.thermal import DRAWS, draw_temperature

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
#: angstrom^3, see `exafsd_training.theory.thermal`.
C3_RANGE = (-0.0004, 0.003)
#: The farther distances follow the nearest's strain but for this, relatively; their range is the
#: nearest's and so much more.
EXPANSION_SCATTER = 0.003
EXPANSION_MARGIN = 0.007
#: R windows in angstrom, not phase corrected, of metals named by formula; of any other phase from
#: 1.1 below to 0.5 above the distance of its nearest shell.
FIT_R = {"Cu": (1.4, 3.0), "Fe": (1.4, 3.0), "Pt": (1.7, 3.3), "Au": (1.7, 3.4)}


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
    #: of the reference fit
    window: FitWindow
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
    def prior_mean(self) -> Floats:
        """(p,)."""
        return np.array([parameter.prior.mean for parameter in self.parameters])

    @property
    def prior_std(self) -> Floats:
        """(p,)."""
        return np.array([parameter.prior.std for parameter in self.parameters])

    def with_paths(self, selected: Sequence[int]) -> "Parametrisation":
        """The same parameters with some of the paths, by place in the table."""
        paths, ties = list(selected), self.ties
        return replace(
            self,
            table=PathTable(tuple(self.table.paths[i] for i in paths), self.table.momentum),
            ties=Ties(
                ties.deltar_0[paths], *(x[:, paths] for x in (ties.deltar, ties.sigma2, ties.c3))
            ),
        )

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


def parametrise(
    phase: str,
    table: PathTable,
    window: FitWindow | None = None,
    priors: Priors | None = None,
    resolution: float = SHELL_RESOLUTION,
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
    resolution
        Of `exafsd_training.theory.shells.group_shells`.

    Raises
    ------
    ValueError
        If the window does not hold the parameters of the shells in it, or not the nearest shell.
    """
    priors = priors or Priors()
    shells = group_shells(table, resolution)
    window = window or default_window(phase, shells[0].reff)
    if not in_window(shells[0].reff, window):
        raise ValueError(
            f"the nearest shell, {shells[0].scatterer} at {shells[0].reff:.3f} angstrom, is not in"
            f" the fit window {window.r[0]} to {window.r[1]}"
        )
    fitted = [shell for shell in shells if in_window(shell.reff, window)]
    # E0, N S0^2, C3 and the expansion, then R and sigma2 in the window, sigma2 beyond it
    highest = int(independent_points(window)) - 4 - 2 * len(fitted) + len(fitted)
    if highest < len(fitted):
        raise ValueError(
            f"the fit window holds {independent_points(window):.1f} independent points, too few"
            f" for {len(fitted)} shells"
        )
    shells = shells[:highest]
    end = max(table.paths[i].reff for i in shells[-1].paths)
    table = table.within(max(end + 1e-6, shells[-1].reff + SHELL_RESOLUTION / 2))
    parameters = _parameters(phase, shells, table, window, priors)
    ties = _ties(table, shells, parameters)
    return Parametrisation(phase, table, shells, parameters, ties, window, priors)


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
            split=round(shell.split, 6) if name == "sigma2" else 0.0,
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
                  prior=_normal(*priors.e0_moments()), phase=phase),
        of_shell(first, "n_s02", "", n_bounds, _uniform(n_prior)),
        distance(first),
        disorder(first),
        of_shell(first, "c3", "angstrom^3", C3_RANGE, _drawn(drawn[0].c3, C3_RANGE)),
    ]  # fmt: skip
    for shell in fitted[1:]:
        parameters += [distance(shell), disorder(shell)]
    if len(table) > sum(len(shell.paths) for shell in fitted):
        parameters.append(
            Parameter(id=f"{phase}/expansion", name="expansion", unit="",
                      bounds=_expansion_bounds(first), prior=_expansion_prior(first), phase=phase)
        )  # fmt: skip
    parameters += [disorder(shell) for shell in shells if shell not in fitted]
    return tuple(parameters)


def _uniform(range_: tuple[float, float]) -> Prior:
    low, high = range_
    std = (high - low) / 12**0.5
    return Prior(kind="uniform", mean=round((low + high) / 2, 6), std=round(std, 6))


def _normal(mean: float, std: float) -> Prior:
    return Prior(kind="normal", mean=round(mean, 6), std=round(std, 6))


def _expansion_bounds(first: Shell) -> tuple[float, float]:
    low, high = (strain / first.reff for strain in R_RANGE)
    return round(low - EXPANSION_MARGIN, 4), round(high + EXPANSION_MARGIN, 4)


def _expansion_prior(first: Shell) -> Prior:
    strain = _uniform(R_PRIOR)
    std = np.hypot(strain.std / first.reff, EXPANSION_SCATTER)
    return _normal(strain.mean / first.reff, float(std))


def _drawn(values: Floats, bounds: tuple[float, float]) -> Prior:
    """Mean and standard deviation of what training draws, inside the bounds."""
    clipped = np.clip(values, *bounds)
    return _normal(float(clipped.mean()), float(clipped.std()))


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

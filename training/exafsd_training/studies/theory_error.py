"""Held-out simulations that do not share the training's theory: a second FEFF set-up.

Spectra made from the tables that a network is trained on flatter it: what FEFF itself gets wrong
is in none of them. Potentials made self-consistent, with the same paths, are a second opinion,
and how far the two are apart says about how much to believe of either.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from exafsd.contract import K_GRID
from exafsd_training.simulation.simulate import REFF_MAX
from exafsd_training.theory import structures
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import (
    Floats,
    PathTable,
    ScatteringPath,
    read_paths,
    value,
    with_momentum,
    with_origin,
)
from exafsd_training.theory.structures import Crystal, FeffSetup

if TYPE_CHECKING:
    from exafsd_training.fitting.workflow import Model

#: FEFF leaves out fewer weak paths than by default: those of the first run are wanted.
CRITERIA = (1.0, 0.5)
#: Self-consistent potentials of the nearest shells; training takes overlapped atomic ones.
SECOND = FeffSetup(scf_radius=4.0, criteria=CRITERIA)
#: Absorber in its ground state: farther off than any screening of the core hole could be.
NO_HOLE = FeffSetup(core_hole=False, criteria=CRITERIA)
#: Paths are the same if all distances between their atoms agree to this, angstrom.
SAME = 1e-3
#: k of the comparison of two theories, 1/angstrom, as of the reference fits.
FIT_K = (3.0, 14.0)
#: sigma2 of the spectra that are compared where two origins are brought together, angstrom^2.
USUAL_SIGMA2 = 0.006
THEORY = "theory.json"


def second_table(
    crystal: Crystal,
    absorber: str,
    edge: str,
    out: Path,
    table: PathTable,
    setup: FeffSetup | None = None,
) -> PathTable:
    """The paths of `table`, one by one, with the scattering of another FEFF run.

    Paths that the other run lacks keep their own scattering. E0 means what it means with
    `table`: each run counts energies from its own Fermi level, several eV apart, and the second
    is moved to where the nearest shell fits the first best.

    Parameters
    ----------
    crystal, absorber, edge, out
        As for `exafsd_training.theory.structures.run_feff`.
    table
        Paths of the first run.
    setup
        Of the second; `SECOND` by default.
    """
    return _compared(crystal, absorber, edge, out, table, setup or SECOND)[0]


def _compared(
    crystal: Crystal, absorber: str, edge: str, out: Path, table: PathTable, setup: FeffSetup
) -> tuple[PathTable, int, float]:
    """Second table, how many of the paths the run has, and how far it was moved in eV."""
    other = read_paths(structures.run_feff(crystal, absorber, edge, out, setup))
    pairs = match(table, other)
    paths = tuple(
        replace(path, cubics=other.paths[pairs[i]].cubics)
        if i in pairs
        else with_momentum(path, table.momentum, other.momentum)
        for i, path in enumerate(table.paths)
    )
    second = PathTable(paths, other.momentum)
    shift = origin(table, second)
    return with_origin(second, shift), len(pairs), shift


def match(table: PathTable, other: PathTable) -> dict[int, int]:
    """Which path of `other` is which of `table`: the same atoms at the same distances.

    A path may be turned, mirrored or reversed in the other run; all of these scatter the same.
    """
    left = list(range(len(other)))
    found = {}
    for i, path in enumerate(table.paths):
        for j in left:
            if _same(path, other.paths[j]):
                found[i] = j
                left.remove(j)
                break
    return found


def _same(one: ScatteringPath, other: ScatteringPath) -> bool:
    if (
        one.nleg != other.nleg
        or abs(one.reff - other.reff) > SAME
        or abs(one.degeneracy - other.degeneracy) > SAME
    ):
        return False
    forward = tuple(range(one.nleg))
    own, theirs = _distances(one), _distances(other)
    return any(
        one.atoms == tuple(other.atoms[i] for i in order)
        and np.allclose(own, theirs[np.ix_(order, order)], atol=SAME)
        for order in (forward, (0, *reversed(forward[1:])))
    )


def _distances(path: ScatteringPath) -> Floats:
    """(nleg, nleg) distances between the atoms of a path, angstrom."""
    return np.linalg.norm(path.positions[:, None] - path.positions[None], axis=-1)


def origin(table: PathTable, other: PathTable) -> float:
    """By what to move the zero of energy of `other`, eV, for the best fit of the nearest path.

    R, N and sigma2 of the fit are free, as they would be in a fit of a spectrum.
    """
    nearest = next(i for i, path in enumerate(table.paths) if path.nleg == 2)
    k = np.arange(*FIT_K, 0.1)
    own = _wave(PathTable((table.paths[nearest],), table.momentum), k)
    theirs = PathTable((other.paths[nearest],), other.momentum)
    # FEFF's phases may be off by whole turns
    damped = k**2 * np.exp(-2 * k**2 * USUAL_SIGMA2)

    def misfit(x: Floats) -> Floats:
        shift, deltar, amplitude, sigma2 = x * (1.0, 0.01, 1.0, 0.001)
        moved = np.exp(amplitude - 2 * k**2 * sigma2 + 2j * k * deltar)
        rest = damped * (_wave(with_origin(theirs, float(shift)), k) * moved - own)
        return np.concatenate([rest.real, rest.imag])

    return float(least_squares(misfit, np.zeros(4)).x[0])


def _wave(table: PathTable, k: Floats) -> Floats:
    """Complex chi (m,) of the first path but for exp(2 i k R) and constants."""
    path = table.paths[0]
    phase, amplitude, length = (
        value(cubic, k) for cubic in (path.cubics[:, 0], path.cubics[:, 1], table.momentum[:, 1])
    )
    return amplitude / k * np.exp(1j * phase - 2 * path.reff / length)


@dataclass(frozen=True)
class Difference:
    """What a fit with one theory misreads in a noiseless spectrum of another.

    `moved` is fit minus truth by parameter id without the phase; `rest` the share of the
    spectrum's power left over. `origin` is how far the two zeros of energy are apart, eV, before
    they were brought together; `matched` counts the paths that both runs have, of `paths`.
    """

    setup: FeffSetup
    moved: dict[str, float]
    rest: float
    origin: float
    matched: int
    paths: int


def difference(
    parametrisation: Parametrisation, other: PathTable
) -> tuple[dict[str, float], float]:
    """What a fit with the parametrisation's own theory misreads in a spectrum of `other`.

    All of theta but C3 is free; C3 keeps the truth, as in a reference fit.

    Parameters
    ----------
    parametrisation
        Of the fit.
    other
        Paths of `second_table`.

    Returns
    -------
    dict, float
        Fit minus truth by id without the phase, and the share of the power left over.
    """
    own = PathTable(other.paths[: len(parametrisation.table)], other.momentum)
    fit = Equation(parametrisation, tf.float64)
    truth = typical(parametrisation)
    inside = (FIT_K[0] < K_GRID) & (FIT_K[1] > K_GRID)
    spectrum = Equation(replace(parametrisation, table=own), tf.float64)
    clean = spectrum.chi_k2(tf.constant(truth[None])).numpy()[0, inside]
    free = [i for i, p in enumerate(parametrisation.parameters) if p.name != "c3"]
    unit = parametrisation.prior_std[free]

    def theta(x: Floats) -> tf.Tensor:
        full = truth.copy()
        full[free] += x * unit
        return tf.constant(full[None])

    def misfit(x: Floats) -> Floats:
        return fit.chi_k2(theta(x)).numpy()[0, inside] - clean

    def slopes(x: Floats) -> Floats:
        jacobian = fit.chi_and_jacobian(theta(x))[1].numpy()[0][inside][:, free]
        return jacobian * unit * K_GRID[inside, None] ** 2

    found = least_squares(misfit, np.zeros(len(free)), slopes)
    prefix = len(parametrisation.phase) + 1
    names = [parametrisation.parameters[i].id[prefix:] for i in free]
    moved = dict(zip(names, map(float, found.x * unit), strict=True))
    return moved, float(2 * found.cost / np.sum(clean**2))


def typical(parametrisation: Parametrisation) -> Floats:
    """Theta (p,) of the crystal's own distances, S0^2 = 0.9 and otherwise the prior's means."""
    theta = np.array([parameter.prior.mean for parameter in parametrisation.parameters])
    theta[parametrisation.index("1/n_s02")] = 0.9 * parametrisation.degeneracy
    for shell in parametrisation.fitted:
        theta[parametrisation.index(f"{shell.number}/r")] = shell.reff
    for i, parameter in enumerate(parametrisation.parameters):
        if parameter.name == "expansion":
            theta[i] = 0.0
    return theta


def compare_theories(model: "Model", setups: Sequence[FeffSetup]) -> list[Difference]:
    """How far FEFF with other set-ups is from the model's own theory."""
    folder = model.feff_folder.parent
    table = read_paths(model.feff_folder).within(REFF_MAX)
    found = []
    for setup in setups:
        other, matched, shift = _compared(
            model.crystal, model.absorber, model.edge, folder, table, setup
        )
        moved, rest = difference(model.parametrisation, other)
        found.append(Difference(setup, moved, rest, shift, matched, len(table)))
    return found


def measure_theory(folder: Path) -> list[Difference]:
    """Print how far `SECOND` and `NO_HOLE` are from the model's own theory; kept in its folder."""
    from exafsd_training.fitting.workflow import load_model

    found = compare_theories(load_model(folder), (SECOND, NO_HOLE))
    (folder / THEORY).write_text(json.dumps([asdict(one) for one in found], indent=1))
    Console(width=200).print(as_table(found))
    return found


def as_table(found: Sequence[Difference]) -> Table:
    """Differences, one set-up a row."""
    names = list(found[0].moved)
    title = "what a fit with the model's theory misreads in a spectrum of another"
    shown = Table("set-up", "paths", "origin, eV", *names, "left over", title=title)
    for one in found:
        words = "no core hole" if not one.setup.core_hole else "self-consistent"
        shown.add_row(
            words, f"{one.matched} of {one.paths}", f"{one.origin:+.2f}",
            *(f"{one.moved[name]:+.5f}" for name in names), f"{one.rest:.4f}",
        )  # fmt: skip
    return shown

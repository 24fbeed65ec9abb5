"""What a fit with the model's theory misreads in a spectrum of another FEFF set-up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from exafsd.contract import K_GRID
from exafsd_training.fitting.model_folder import Model, load_model, write_rows
from exafsd_training.simulation.second_theory import FIT_K, NO_HOLE, SECOND, matched_table
from exafsd_training.simulation.simulate import REFF_MAX
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats, PathTable, read_paths
from exafsd_training.theory.structures import FeffSetup

THEORY = "theory.json"


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

    solution = least_squares(misfit, np.zeros(len(free)), slopes)
    prefix = len(parametrisation.phase) + 1
    names = [parametrisation.parameters[i].id[prefix:] for i in free]
    moved = dict(zip(names, map(float, solution.x * unit), strict=True))
    return moved, float(2 * solution.cost / np.sum(clean**2))


def typical(parametrisation: Parametrisation) -> Floats:
    """Theta (p,) of the crystal's own distances, S0^2 = 0.9 and otherwise the prior's means."""
    theta = np.array([parameter.prior.mean for parameter in parametrisation.parameters])
    theta[parametrisation.index("1/n_s02")] = 0.9 * parametrisation.degeneracy
    for shell in parametrisation.fitted:
        theta[parametrisation.index(f"{shell.number}/r")] = shell.reff
    theta[[parameter.name == "expansion" for parameter in parametrisation.parameters]] = 0.0
    return theta


def compare_theories(model: Model, setups: Sequence[FeffSetup]) -> list[Difference]:
    """How far FEFF with other set-ups is from the model's own theory."""
    table = read_paths(model.feff_folder).within(REFF_MAX)
    differences = []
    for setup in setups:
        other, matched, shift = matched_table(
            model.crystal, model.absorber, model.edge, model.feff_folder.parent, table, setup
        )
        moved, rest = difference(model.parametrisation, other)
        differences.append(Difference(setup, moved, rest, shift, matched, len(table)))
    return differences


def measure_theory(folder: Path) -> list[Difference]:
    """Print how far `SECOND` and `NO_HOLE` are from the model's own theory; kept in its folder."""
    differences = compare_theories(load_model(folder), (SECOND, NO_HOLE))
    write_rows(differences, folder / THEORY)
    Console(width=200).print(as_table(differences))
    return differences


def as_table(differences: Sequence[Difference]) -> Table:
    """Differences, one set-up a row."""
    names = list(differences[0].moved)
    title = "what a fit with the model's theory misreads in a spectrum of another"
    shown = Table("set-up", "paths", "origin, eV", *names, "left over", title=title)
    for one in differences:
        words = "no core hole" if not one.setup.core_hole else "self-consistent"
        shown.add_row(
            words, f"{one.matched} of {one.paths}", f"{one.origin:+.2f}",
            *(f"{one.moved[name]:+.5f}" for name in names), f"{one.rest:.4f}",
        )  # fmt: skip
    return shown

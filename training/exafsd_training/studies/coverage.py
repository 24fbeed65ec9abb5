"""How often 90 % intervals hold the truth, and how wide they are, by noise and by data end.

The width is set beside two Cramér-Rao bounds for the same spectra, both with what training knows
beforehand about theta: one for the noise alone, and one for what the network is asked. That one
also counts what a path sum cannot describe (background, far shells) as noise of known covariance,
and adds what a reference fit misreads for FEFF's errors
(`exafsd_training.simulation.theory_bias`), since the network is to answer as such a fit does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from exafsd_training.fitting.calibrate import OOD_LIMIT, Z90, HeldOutSpectra, predict
from exafsd_training.fitting.model_folder import SimulationInputs, load_model, write_rows
from exafsd_training.fitting.workflow import held_out
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.theory_bias import at_end
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats

COVERAGE = "coverage.json"
#: Fresh spectra for the coverage table: 90 % of them are counted to 0.7 %.
COVERAGE_SPECTRA = 2000
#: Noise of chi(k), no unit, and data ends, 1/angstrom, that are looked at.
LEVELS = (1e-4, 5e-4, 2e-3, 8e-3)
ENDS = (8.0, 10.0, 12.0, 14.0)
#: The bound is the median over so many spectra; it takes a Jacobian each. Hot and cold samples
#: differ so much that the median of 150 was a quarter off for sigma2 of ZnS's farther shells.
BOUND_SPECTRA = 1000
#: Rounding of float32 spectra, 1/angstrom^2; keeps the misfit's covariance positive.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Row:
    """One parameter at one noise level and data end, on held-out simulations.

    `within_3` is the share within three standard deviations, of spectra that are not withheld;
    None where all are. `error` is the 68 % quantile of the absolute error, `std` the median said;
    both, and the two bounds, in the unit of the parameter.
    """

    noise: float
    k_max: float
    parameter: str
    coverage_90: float
    within_3: float | None
    std: float
    error: float
    bound_noise: float
    bound: float
    spectra: int


def measure_coverage(folder: Path, spectra: int = COVERAGE_SPECTRA, workers: int = 1) -> list[Row]:
    """Print coverage and width of error bars by noise and data end; kept in the model folder.

    On spectra that neither training nor calibration has seen.
    """
    model = load_model(folder)
    held = held_out(
        SimulationInputs.of(model, folder),
        model.crystal,
        folder,
        model.settings.seed + 4,
        spectra,
        workers,
    )
    rows = coverage(model.network, model.parametrisation, held)
    write_rows(rows, folder / COVERAGE)
    Console(width=200).print(as_table(rows))
    return rows


def coverage(
    model: Pinn,
    parametrisation: Parametrisation,
    held: HeldOutSpectra,
    levels: Sequence[float] = LEVELS,
    ends: Sequence[float] = ENDS,
) -> list[Row]:
    """Coverage and width of 90 % intervals for every parameter, noise level and data end.

    Parameters
    ----------
    model, parametrisation
        Trained and calibrated network, and what its theta means.
    held
        Spectra that neither training nor calibration has seen.
    levels, ends
        Noise of chi(k), and data ends in 1/angstrom.
    """
    theta = held.pool.theta
    few = np.random.default_rng(0).permutation(len(held))[:BOUND_SPECTRA]
    chi_jacobian = _jacobian(model, theta[few])
    prior = np.linalg.inv(np.cov(np.float64(theta).T))
    rows: list[Row] = []
    for end in ends:
        bias = at_end(held.pool.theory_bias, end)
        misfit = _misfit(model, held, theta + bias, end)
        beside = np.array([np.zeros(model.p), bias.std(0)])
        for place, level in enumerate(levels):
            chi_k2, mask = held.corrupted(31 + place, level, end)
            out = predict(model, chi_k2, mask)
            std = np.sqrt(np.diagonal(out["theta_cov"], axis1=1, axis2=2))
            error = np.abs(out["theta"] - theta)
            read = out["ood"] <= OOD_LIMIT
            inside = mask[0] > 0
            variance = (level * model.k.numpy()[inside] ** 2) ** 2 + ROUNDING**2
            alone, both = (
                np.hypot(_bound(chi_jacobian[:, inside], np.diag(variance) + more, prior), fixed)
                for more, fixed in zip((0.0, misfit), beside, strict=True)
            )
            for i, parameter in enumerate(parametrisation.parameters):
                rows.append(
                    Row(
                        noise=level,
                        k_max=end,
                        parameter=parameter.id,
                        coverage_90=round(float((error[:, i] < Z90 * std[:, i]).mean()), 4),
                        within_3=_share((error < 3 * std)[read, i]),
                        std=float(np.median(std[:, i])),
                        error=float(np.quantile(error[:, i], 0.68)),
                        bound_noise=float(alone[i]),
                        bound=float(both[i]),
                        spectra=len(held),
                    )
                )
    return rows


def as_table(rows: Sequence[Row]) -> Table:
    """Coverage in per cent and, after it, the std said over the bound, for every cell."""
    names = list(dict.fromkeys(row.parameter for row in rows))
    shares = [row.within_3 for row in rows if row.within_3 is not None]
    cells = {(row.k_max, row.noise, row.parameter): row for row in rows}
    shown = Table(
        "k max",
        "noise",
        *names,
        title="coverage of 90 % intervals, %; std / bound",
        caption=f"of what is not withheld, {np.mean(shares or 0):.1%} is within 3 std; the lowest"
        f" of all cells is {min(shares, default=0):.1%}",
    )
    for k_max, noise in dict.fromkeys((row.k_max, row.noise) for row in rows):
        cells_of_row = [cells[k_max, noise, name] for name in names]
        text = [f"{100 * row.coverage_90:.0f}  {row.std / row.bound:.2f}" for row in cells_of_row]
        shown.add_row(f"{k_max:g}", f"{noise:g}", *text)
    return shown


def _share(inside: Floats) -> float | None:
    return round(float(inside.mean()), 4) if len(inside) else None


def _misfit(model: Pinn, held: HeldOutSpectra, theta: Floats, end: float) -> Floats:
    """Covariance (m, m) over k inside the mask of what EXAFS(theta) leaves of noiseless spectra."""
    chi_k2, mask = held.corrupted(30, 0.0, end)
    inside = mask[0] > 0
    exafs = model.equation.chi_k2(tf.constant(theta, tf.float32)).numpy()
    rest = np.float64(chi_k2 - exafs)[:, inside]
    return rest.T @ rest / len(rest)


def _jacobian(model: Pinn, theta: Floats) -> Floats:
    """Derivatives of k^2 chi (n, 401, p)."""
    _, jacobian = model.equation.chi_and_jacobian(tf.constant(theta, tf.float32))
    return np.float64(jacobian.numpy()) * model.k.numpy()[:, None] ** 2


def _bound(jacobian: Floats, covariance: Floats, prior: Floats) -> Floats:
    """Median Cramér-Rao bound (p,) of spectra with Jacobians (n, m, p)."""
    white = np.linalg.inv(np.linalg.cholesky(covariance)) @ jacobian
    information = np.swapaxes(white, 1, 2) @ white + prior
    variance = np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)
    return np.median(np.sqrt(variance), axis=0)

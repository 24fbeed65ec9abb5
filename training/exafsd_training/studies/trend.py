"""Whether a temperature series gives the true slopes of R and sigma2.

A series is one sample on one beamline: E0, N S0^2, the error of the theory, background and energy
grid are the same at every temperature. What changes is known: sigma2 and C3 of an Einstein
oscillator, and a crystal that expands as copper does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import predict
from exafsd_training.fitting.model_folder import Model, load_model, write_rows
from exafsd_training.simulation.corruption import corrupt_arrays
from exafsd_training.simulation.instrument import QUIET_END, QUIET_NOISE, Atom, reduce_one
from exafsd_training.simulation.simulate import (
    K_END,
    REFF_MAX,
    Draw,
    error_groups,
    feff_errors,
    path_sums,
)
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats, PathTable, read_paths
from exafsd_training.theory.priors import FAR_RATIO, Priors, bond
from exafsd_training.theory.shells import Shell, sigma2_ties
from exafsd_training.theory.thermal import einstein_sigma2, third_cumulant

#: Linear expansion of copper, 1/K.
EXPANSION = 1.7e-5
#: Temperature at which the crystal has its lattice constant, K.
ROOM = 293.0
#: Lowest and highest temperature of a series in K, and how many there are.
TEMPERATURES = (100.0, 700.0, 13)
#: Noise of chi(k) and data end in 1/angstrom of every spectrum: a good scan of a foil.
NOISE, END = 5e-4, 14.0
#: FEFF's threshold above the tabulated edge, eV, for series through the instrument.
ORIGIN = (0.0, 10.0)
#: N S0^2 relative to the crystal's N, a range.
S02 = (0.75, 1.0)
TREND = "trend.json"


@dataclass(frozen=True)
class Slope:
    """Slope over temperature of one parameter, in its unit per K, of several series.

    `ratio` is the median of slope read over true slope, `spread` half the distance between its
    16 and 84 % quantiles, `within` the share of series within 5 % of the truth.
    """

    made: str
    parameter: str
    true: float
    ratio: float
    spread: float
    within: float
    series: int


@dataclass(frozen=True)
class Series:
    """Spectra of n samples at t temperatures: truth (n, t, p) and the network's input.

    E0 and N S0^2 in `theta` are those before an instrument: Larch finds its own E0 and edge step.
    """

    temperatures: Floats
    theta: Floats
    chi_k2: Floats
    mask: Floats


def truth_of(
    rng: np.random.Generator,
    parametrisation: Parametrisation,
    paths: PathTable,
    temperatures: Floats,
) -> Draw:
    """One sample at every temperature (t,) in K; `paths` begin with the parametrisation's own."""
    par, t = parametrisation, len(temperatures)
    theta = np.zeros((t, len(par.parameters)))
    expansion = EXPANSION * (temperatures - ROOM)
    stiffness = np.exp(rng.normal(0, par.priors.spread))
    sigma2 = _sigma2(par.shells, par.priors, temperatures, stiffness)
    zero_point = _sigma2(par.shells[:1], par.priors, np.full(t, 1e-3), stiffness)[0]
    c3 = third_cumulant(sigma2[0], zero_point, rng.uniform(*par.priors.anharmonicity))
    theta[:, par.index("e0_shift")] = np.clip(rng.normal(*par.priors.e0), -12, 12)
    theta[:, par.index("1/n_s02")] = rng.uniform(*S02) * par.degeneracy
    theta[:, par.index("1/c3")] = c3
    for shell, values in zip(par.shells, sigma2, strict=True):
        theta[:, par.index(f"{shell.number}/sigma2")] = values
    for shell in par.fitted:
        theta[:, par.index(f"{shell.number}/r")] = shell.reff * (1 + expansion)
    theta[:, [parameter.name == "expansion" for parameter in par.parameters]] = expansion[:, None]

    far = paths.paths[len(par.table) :]
    ties = np.array([sigma2_ties(path, par.shells) for path in far]).reshape(len(far), -1)
    groups = error_groups(paths, par.shells)
    # one sample: FEFF is wrong in the same way at every temperature
    errors = feff_errors(rng, 1, groups.shape[1])
    return Draw(
        theta,
        np.tile(theta[:, [par.index("1/n_s02")]] / par.degeneracy, (1, len(paths))),
        np.hstack([par.ties.deltar_0 + theta @ par.ties.deltar,
                   expansion[:, None] * paths.reff[len(par.table) :]]),
        np.hstack([theta @ par.ties.sigma2, np.transpose(sigma2) @ ties.T]),
        np.hstack([theta @ par.ties.c3, np.zeros((t, len(far)))]),
        groups,
        (np.repeat(errors[0], t, axis=0), np.repeat(errors[1], t, axis=0)),
    )  # fmt: skip


def _sigma2(
    shells: Sequence[Shell], priors: Priors, temperatures: Floats, stiffness: float
) -> list[Floats]:
    """sigma2 (t,) of every shell, as training draws them but without scatter."""
    columns: list[Floats] = []
    nearest: dict[str, Floats] = {}
    for place, shell in enumerate(shells):
        tabulated = place < len(priors.einstein)
        if tabulated or shell.scatterer not in nearest:
            own = bond(shell, place, priors, priors.spread)
            einstein = np.full(len(temperatures), own.temperature * stiffness)
            values = einstein_sigma2(temperatures, einstein, own.mass)
            nearest.setdefault(shell.scatterer, values)
        else:
            values = nearest[shell.scatterer] * FAR_RATIO[0]
        columns.append(values)
    return columns


def make_series(
    parametrisation: Parametrisation,
    paths: PathTable,
    temperatures: Floats,
    n: int,
    seed: int,
    atom: Atom | None = None,
    noise: float = NOISE,
    end: float = END,
) -> Series:
    """Simulate series; with an `atom` through the whole instrument.

    Parameters
    ----------
    parametrisation, paths
        What theta means, and the paths of the spectra, which begin with its own.
    temperatures
        (t,) K.
    n, seed
        Series tried (Larch may fail to reduce one), and of everything random.
    atom
        Absorber and edge.
    noise, end
        Noise of chi(k), and data end in 1/angstrom.
    """
    rng = np.random.default_rng(seed)
    draws = [truth_of(rng, parametrisation, paths, temperatures) for _ in range(n)]
    together = Draw.joined(draws)
    e0 = together.theta[:, parametrisation.index("e0_shift")]
    chi, _ = path_sums(together, paths, e0 if atom is None else np.zeros_like(e0))
    pairs = []
    for number, (draw, series) in enumerate(zip(draws, np.split(chi, n), strict=True)):
        chi_k2 = K_GRID**2 * series
        if atom is not None:
            origin = atom.energy() + rng.uniform(*ORIGIN)
            k_end = rng.uniform(*QUIET_END)
            done = [
                reduce_one((seed, number), atom, one, origin, k_end, QUIET_NOISE) for one in series
            ]
            good = [one[2][1:] for one in done if one is not None]
            if len(good) < len(done):
                continue
            chi_k2 = np.array(good)
        pairs.append((draw.theta, chi_k2))
    theta, chi_k2 = (np.array(part) for part in zip(*pairs, strict=True))
    # no leakage: of one sample it would not change from scan to scan
    flat = corrupt_arrays(
        chi_k2.reshape(-1, len(K_GRID)), K_END[1], 0.0, (seed, 17), noise, end, glitched=0.0
    )
    noisy, mask = (x.reshape(chi_k2.shape) for x in flat)
    return Series(temperatures, theta, noisy, mask)


def slopes(temperatures: Floats, values: Floats) -> Floats:
    """Slopes (n,) of straight lines through (n, t) values over temperatures (t,)."""
    centred = temperatures - temperatures.mean()
    return np.asarray(values @ centred / (centred @ centred))


def read_series(
    network: "tf.Module", parametrisation: Parametrisation, series: Series, source: str
) -> list[Slope]:
    """Slopes of R and sigma2 of every shell in the fit window, read beside true.

    Parameters
    ----------
    network, parametrisation
        Trained network, and what its theta means.
    series
        Spectra with their truth.
    source
        How, in a word for the table.
    """
    n, t, p = series.theta.shape
    flat = (x.reshape(n * t, -1) for x in (series.chi_k2, series.mask))
    read = predict(network, *flat)["theta"].reshape(n, t, p)
    rows = []
    for shell in parametrisation.fitted:
        for name in ("r", "sigma2"):
            i = parametrisation.index(f"{shell.number}/{name}")
            true = slopes(series.temperatures, series.theta[..., i])
            ratio = slopes(series.temperatures, read[..., i]) / true
            low, middle, high = np.quantile(ratio, (0.16, 0.5, 0.84))
            rows.append(
                Slope(
                    made=source,
                    parameter=parametrisation.parameters[i].id,
                    true=float(np.median(true)),
                    ratio=round(float(middle), 4),
                    spread=round(float(high - low) / 2, 4),
                    within=round(float((np.abs(ratio - 1) <= 0.05).mean()), 4),
                    series=n,
                )
            )
    return rows


def temperature_series(
    model: Model,
    temperatures: tuple[float, float, int] = TEMPERATURES,
    n: int = 40,
    through: int = 20,
    noise: float = NOISE,
    end: float = END,
) -> list[Slope]:
    """Read simulated temperature series with a network, and fit slopes.

    Parameters
    ----------
    model
        Trained model.
    temperatures
        Lowest and highest of every series in K, and how many.
    n, through
        Series as path sums, and through the whole instrument.
    noise, end
        Noise of chi(k), and data end in 1/angstrom.
    """
    kelvin = np.linspace(*temperatures)
    paths = read_paths(model.feff_folder).within(REFF_MAX)
    atom = Atom(model.absorber, model.edge)
    seed = model.settings.seed + 6  # nothing of training and calibration
    slopes = []
    for source, number, where in (("path sums", n, None), ("instrument", through, atom)):
        series = make_series(model.parametrisation, paths, kelvin, number, seed, where, noise, end)
        slopes += read_series(model.network, model.parametrisation, series, source)
    return slopes


def measure_trend(
    folder: Path,
    temperatures: tuple[float, float, int] = TEMPERATURES,
    n: int = 40,
    through: int = 20,
) -> list[Slope]:
    """Print slopes read over slopes put in; kept in the model folder."""
    slopes = temperature_series(load_model(folder), temperatures, n, through)
    write_rows(slopes, folder / TREND)
    shown = Table("made as", "parameter", "true, per K", "read / true", "spread", "within 5 %",
                  title=f"slopes from {temperatures[0]:g} to {temperatures[1]:g} K")  # fmt: skip
    for slope in slopes:
        shown.add_row(
            slope.made, slope.parameter, f"{slope.true:.3g}", f"{slope.ratio:.3f}",
            f"{slope.spread:.3f}", f"{100 * slope.within:.0f} % of {slope.series}",
        )  # fmt: skip
    Console(width=120).print(shown)
    return slopes

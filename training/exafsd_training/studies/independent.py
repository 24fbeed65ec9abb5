"""Network and refinement judged by spectra that training's simulator has no part in.

Every spectrum goes the daemon's way: reduced (by Larch itself), read, refined, judged. What is
counted is how often 90 % intervals hold the truth, how far the values are off, and whether the
slopes of temperature series are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd.contract import CARD_FILE, Card
from exafsd.contract.card import EdgePosition, IndependentRow
from exafsd.inference.placement import Placement
from exafsd.inference.reading import (
    Model,
    Question,
    Reader,
    Reading,
    Trends,
    answer,
    read,
    readers,
)
from exafsd.inference.registry import Bundle, load_bundle, read_card, shipped_folder
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.engine import by_larch
from exafsd.settings.analysis import Reduction
from exafsd.spectra import ReducedSpectrum, SpectrumError
from exafsd_training.fitting.calibrate import Z90
from exafsd_training.reference.feffit import read_mu
from exafsd_training.simulation.independent import THEORIES, MeasuredEdge, Simulator
from exafsd_training.simulation.second_theory import origin
from exafsd_training.studies.edge_position import measure_position
from exafsd_training.studies.trend import slopes
from exafsd_training.theory.paths import Floats, read_paths
from exafsd_training.theory.structures import from_amcsd, run_feff
from exafsd_training.zoo.configurations import ModelConfig

#: Temperatures of a series, K.
TEMPERATURES = np.linspace(100.0, 700.0, 13)
#: Spectra that are read together.
TOGETHER = 64
#: What is judged, of the nearest shell.
JUDGED = ("r", "sigma2", "n_s02")
WAYS = ("network", "polish")


@dataclass(frozen=True)
class Readings:
    """What was read of spectra beside the truth: (n, 3) each for `JUDGED`, NaN where nothing was.

    `value`, `std` and, against other sweeps of a series, `std_trend` by who read it.
    """

    truth: Floats
    value: dict[str, Floats]
    std: dict[str, Floats]
    std_trend: dict[str, Floats]


def simulator(
    bundle: Bundle, config: ModelConfig, measured: Sequence[Path], work: Path
) -> Simulator:
    """The independent simulator for a bundle's material.

    Parameters
    ----------
    bundle
        Where its card, or that of a model that ships under the configuration's name, does not know
        where the material has its zero of energy, this is measured with it.
    config
        What the model was trained by.
    measured
        Measured mu(E) of the material, XDI, for near edges and backgrounds.
    work
        Folder for FEFF's runs.

    Raises
    ------
    ValueError
        If no file shows an edge.
    """
    shipped = _measured_position(config.name)
    position = bundle.card.edge_position or shipped or measure_position(bundle, measured)
    absorber, edge = config.absorber, config.edge
    energy = edge_energy(absorber, edge)
    trained = config.crystal()
    judge = config.judge
    crystal = from_amcsd(judge.amcsd) if judge.amcsd else trained
    own = read_paths(run_feff(trained, absorber, edge, work))
    return Simulator(
        crystal,
        absorber,
        edge,
        work,
        einstein=config.prior.einstein[0],
        expansion=judge.expansion,
        anharmonicity=config.prior.anharmonicity,
        zero=position.zero,
        origins=[
            origin(own, read_paths(run_feff(crystal, absorber, edge, work, setup)))
            for setup in THEORIES
        ],
        edges=[MeasuredEdge.of(*read_mu(file), energy) for file in measured],
        position=energy,
    )


def _measured_position(name: str) -> EdgePosition | None:
    """Where the material of a model that ships has E0; a bundle read by fitting does not know."""
    folder = shipped_folder() / name
    return read_card(folder).edge_position if folder.is_dir() else None


def reduced_singles(
    bundle: Bundle,
    config: ModelConfig,
    measured: Sequence[Path],
    work: Path,
    spectra: int,
    seed: int,
) -> tuple[list[ReducedSpectrum], Floats]:
    """Spectra of as many samples as a model is given them, and the truth (n, 3) for `JUDGED`.

    Arguments are those of `simulator`; what cannot be reduced is left out.
    """
    own = simulator(bundle, config, measured, work)
    (reader,) = readers([_model(bundle)], Reduction())
    placed = Placement([bundle.card])
    rng = np.random.default_rng(seed)
    rows: list[tuple[ReducedSpectrum, list[float]]] = []
    for _ in range(spectra):
        energy, mus, true = own.measure(rng, own.draw(rng))
        unread = _reduced(reader, placed, energy, mus[0])
        if unread is not None:
            rows.append((unread.read, [getattr(true, name)[0] for name in JUDGED]))
    return [spectrum for spectrum, _ in rows], np.array([truth for _, truth in rows])


def read_single(model: Model, simulator: Simulator, spectra: int, seed: int) -> Readings:
    """Spectra of as many samples."""
    rng = np.random.default_rng(seed)
    measured = [simulator.measure(rng, simulator.draw(rng)) for _ in range(spectra)]
    return _read(model, measured)


def read_series(model: Model, simulator: Simulator, series: int, seed: int) -> Readings:
    """Samples that expand as their crystal does, each at every one of `TEMPERATURES`.

    Every second is cooled: the hottest is read first. Rows are in the order of temperatures.
    """
    rng = np.random.default_rng(seed)
    measured = [
        simulator.measure(rng, simulator.draw(rng, TEMPERATURES, own=True)) for _ in range(series)
    ]
    return _read(model, measured, [i % 2 == 1 for i in range(series)])


def rows_of(single: Readings, series: Readings) -> list[IndependentRow]:
    """Coverage, errors and slopes of network and refinement."""
    rows: list[IndependentRow] = []
    shape = (-1, len(TEMPERATURES))
    for way in WAYS:
        for i, name in enumerate(JUDGED):
            value, std, truth = single.value[way][:, i], single.std[way][:, i], single.truth[:, i]
            good = np.isfinite(value) & np.isfinite(std)
            error = (value - truth)[good]
            if name == "n_s02":
                error, std, value = error / truth[good], std / truth, value / truth
            trend: dict[str, float] = {}
            if name != "n_s02":
                trend = _trend_of(*(x[:, i].reshape(shape) for x in (
                    series.value[way], series.std_trend[way], series.truth,
                )))  # fmt: skip
            rows.append(
                IndependentRow(
                    answer=way,
                    parameter=name,
                    spectra=int(good.sum()),
                    coverage_90=round(float(np.mean(np.abs(error) < Z90 * std[good])), 3),
                    bias=float(f"{np.mean(error):.3g}"),
                    rms=float(f"{np.sqrt(np.mean(error**2)):.3g}"),
                    std=float(f"{np.median(std[good]):.3g}"),
                    **trend,
                )
            )
    return rows


def _trend_of(value: Floats, std: Floats, truth: Floats) -> dict[str, float]:
    """How slopes and differences of series (n, t) compare with the truth, by names of a row."""
    read, true = slopes(TEMPERATURES, value), slopes(TEMPERATURES, truth)
    whole = np.isfinite(read)
    trend = {
        "slope_ratio": round(float(np.mean(read[whole] / true[whole])), 3),
        "change_error": float(f"{np.mean(read[whole] - true[whole]) * np.ptp(TEMPERATURES):.3g}"),
    }
    error, variance = (value - truth)[whole], std[whole] ** 2
    i, j = np.triu_indices(len(TEMPERATURES), 1)
    both = variance[:, i] + variance[:, j]
    if np.isfinite(both).any():
        held = np.abs(error[:, i] - error[:, j]) < Z90 * np.sqrt(both)
        trend["differences_90"] = round(float(np.mean(held[np.isfinite(both)])), 3)
    lever = TEMPERATURES - TEMPERATURES.mean()
    slope_std = np.sqrt(variance @ lever**2) / (lever @ lever)
    sure = np.isfinite(slope_std)
    if sure.any():
        held = np.abs((read - true)[whole]) < Z90 * slope_std
        trend["slopes_90"] = round(float(np.mean(held[sure])), 3)
    return trend


def judge_bundle(
    folder: Path,
    config: ModelConfig,
    measured: Sequence[Path],
    work: Path,
    spectra: int = 300,
    series: int = 32,
    seed: int = 11,
) -> list[IndependentRow]:
    """Judge a bundle; print, and keep in its card."""
    bundle = load_bundle(folder)
    model, judge = _model(bundle), simulator(bundle, config, measured, work)
    rows = rows_of(
        read_single(model, judge, spectra, seed), read_series(model, judge, series, seed + 1)
    )
    card = Card.model_validate_json((folder / CARD_FILE).read_text())
    judged = card.model_copy(update={"independent": rows})
    (folder / CARD_FILE).write_text(judged.model_dump_json(by_alias=True, indent=1) + "\n")
    Console(width=110).print(as_table(rows, bundle.card.name))
    return rows


def _model(bundle: Bundle) -> Model:
    """A bundle at work, without what it knows of measured near edges: simulated ones differ."""
    limits = bundle.card.thresholds.model_copy(update={"near_edge": None, "edge_shift": None})
    return Model.of(replace(bundle, card=bundle.card.model_copy(update={"thresholds": limits})))


def as_table(rows: Sequence[IndependentRow], name: str) -> Table:
    """For people; N S0^2 relative to the truth."""
    shown = Table(
        "answer", "parameter", "spectra", "90 % hold, %", "bias", "rms", "std",
        "slope / true", "error of the change", "differences, %", "slopes, %",
        title=f"{name}: independent simulation; slopes over {TEMPERATURES[0]:g} to"
        f" {TEMPERATURES[-1]:g} K, and how often 90 % intervals by std_trend hold",
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            row.answer, row.parameter, str(row.spectra), f"{100 * row.coverage_90:.0f}",
            *[f"{x:.3g}" for x in (row.bias, row.rms, row.std)],
            _shown(row.slope_ratio, 1, ".3f"), _shown(row.change_error, 1, ".2g"),
            _shown(row.differences_90, 100, ".0f"), _shown(row.slopes_90, 100, ".0f"),
        )  # fmt: skip
    return shown


def _shown(number: float | None, scale: float, form: str) -> str:
    return "" if number is None else format(scale * number, form)


def _read(model: Model, measured: Sequence[tuple], cooled: Sequence[bool] = ()) -> Readings:
    """Read spectra as the daemon does; (energy, mu (t, n), truth) each.

    Parameters
    ----------
    cooled
        Of each series whether it is read from its end; empty where spectra are not series.
    """
    (reader,) = readers([model], Reduction())
    truth = [
        [getattr(true, name)[i] for name in JUDGED]
        for _, mus, true in measured
        for i in range(len(mus))
    ]
    value, std, std_trend = (
        {way: np.full((len(truth), len(JUDGED)), np.nan) for way in WAYS} for _ in range(3)
    )
    ids = [parameter.id for parameter in model.bundle.card.parameters]
    phase = model.bundle.card.structures[0].phase
    places = [ids.index(f"{phase}/1/{name}") for name in JUDGED]
    placed = Placement([model.bundle.card])
    questions: list[tuple[int, Question]] = []
    first = 0
    for number, (energy, mus, _) in enumerate(measured):
        order = range(len(mus))
        trends: Trends | None = {} if cooled else None
        for i in reversed(order) if cooled and cooled[number] else order:
            unread = _reduced(reader, placed, energy, mus[i])
            if unread is not None:
                questions.append((first + i, Question(read([unread]), trends=trends)))
        first += len(mus)
    for start in range(0, len(questions), TOGETHER):
        asked = questions[start : start + TOGETHER]
        answers = answer([question for _, question in asked])
        for (i, _), one in zip(asked, answers, strict=True):
            prediction, polished = one.reading.prediction, one.polished
            if prediction is not None and one.reading.reason is None:
                value["network"][i] = prediction.theta[places]
                std["network"][i] = np.sqrt(np.diag(prediction.theta_cov))[places]
            if polished is not None and polished.fit is not None:
                value["polish"][i] = polished.fit.value[places]
                std["polish"][i] = np.sqrt(np.diag(polished.fit.cov))[places]
                std_trend["polish"][i] = np.sqrt(np.diag(polished.fit.trend_cov))[places]
    return Readings(np.array(truth), value, std, std_trend)


def _reduced(reader: Reader, placed: Placement, energy: Floats, mu: Floats) -> Reading | None:
    e0 = placed(energy, mu) or find_e0(energy, mu)
    reduced = by_larch(energy, mu, e0, reader.read_by)
    return None if isinstance(reduced, SpectrumError) else Reading(reader, reduced, reduced, None)

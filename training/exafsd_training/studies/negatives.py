"""What a model must not read: how much of it the out-of-domain score keeps from being believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from xraydb import atomic_number

from exafsd.contract import K_GRID, K_SIZE, Card, to_grid
from exafsd.inference.judgement import fits_poorly, r_factor_denominator_floor
from exafsd_training.fitting.card import NOT_HASHED, make_card
from exafsd_training.fitting.model_folder import Model, SimulationInputs, load_model, write_rows
from exafsd_training.fitting.workflow import held_out
from exafsd_training.reference.feffit import Chi
from exafsd_training.reference.table import read_spectrum
from exafsd_training.simulation.corruption import corrupt_arrays
from exafsd_training.simulation.other_phases import Phase
from exafsd_training.simulation.simulate import K_END, K_MIN, clean_spectra, path_sums, sample
from exafsd_training.studies.poor_fit import misfits, noise_of
from exafsd_training.theory.parametrisation import E0_BOUND
from exafsd_training.theory.paths import Floats, PathTable
from exafsd_training.theory.thermal import draw_temperature
from exafsd_training.zoo import configurations

NEGATIVES = "negatives.json"
#: Spectra of each kind; noise of chi(k) and data end, 1/angstrom, of a usual good scan.
SPECTRA, NOISE, END = 400, 5e-4, 12.0
#: Share of another phase that must not go unseen; by how much E0 is beyond the bounds, eV.
SHARE, BEYOND = 0.3, (0.0, 5.0)
#: Structures of other elements that are tried, nearest in the periodic table first.
OTHERS = 2


@dataclass(frozen=True)
class Kind:
    """One kind of spectrum: the share withheld for its score, and the scores' median.

    `flagged` is the share withheld or with the flag ``poor_fit``.
    """

    name: str
    good: bool
    withheld: float
    flagged: float
    median: float
    spectra: int


def negatives(folder: Path, workers: int = 1, data: Path | None = None) -> list[Kind]:
    """Print and keep in the model folder how much of every kind is withheld.

    Other phases are those of the models that ship: all of the same element, and of the elements
    nearest to it. Their FEFF runs end up in the model folder.

    Parameters
    ----------
    folder
        Of a trained model.
    workers
        Processes that simulate.
    data
        Folder with measured spectra: those of the model, and of the others of its element, mixed.
    """
    model = load_model(folder)
    card = make_card(model, folder, NOT_HASHED)
    limit = card.thresholds.ood
    judged = []
    every = [*kinds(model, folder, workers), *(measured_kinds(model, data) if data else ())]
    for name, good, chi_k2, mask in every:
        score, poor = _judged(model, card, chi_k2, mask)
        withheld = score > limit
        flagged = withheld | poor
        shares = (round(float(np.mean(x)), 4) for x in (withheld, flagged))
        judged.append(Kind(name, good, *shares, round(float(np.median(score)), 5), len(score)))
    write_rows(judged, folder / NEGATIVES)
    Console(width=120).print(as_table(judged, limit))
    return judged


def _judged(model: Model, card: Card, chi_k2: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Scores (n,), and whether the spectra fit poorly."""
    ends = K_GRID[K_SIZE - 1 - np.argmax(mask[:, ::-1] > 0, axis=1)]
    score, poor = np.empty(len(ends)), np.empty(len(ends), bool)
    for end in np.unique(ends):
        rows = ends == end
        signals = (
            *misfits(
                model, chi_k2[rows], mask[rows][0], end, r_factor_denominator_floor(card, end)
            ),
            noise_of(chi_k2[rows], end),
        )
        score[rows] = signals[0]
        poor[rows] = [fits_poorly(card, *each, end) for each in zip(*signals, strict=True)]
    return score, poor


def kinds(model: Model, folder: Path, workers: int) -> Iterator[tuple[str, bool, Floats, Floats]]:
    """Name, whether it is to be believed, inputs and masks (n, 401) of every kind."""
    par, seed = model.parametrisation, model.settings.seed + 6
    inputs = SimulationInputs.of(model, folder)
    held = held_out(inputs, model.crystal, folder, seed, SPECTRA, workers)
    yield "good", True, *held.corrupted(1, NOISE, END)
    rng = np.random.default_rng(seed)
    # two phases of a sample are as hot
    kelvin = draw_temperature(rng, SPECTRA)
    own = clean_spectra(sample(rng, SPECTRA, par, inputs.table, kelvin), par, inputs.table)

    def scan(chi_k2: Floats) -> tuple[Floats, Floats]:
        return corrupt_arrays(chi_k2, K_GRID[-1], 1.0, (2, 9), NOISE, END, glitched=0.0)

    for config in other_phases(model):
        other = Phase.of(config, folder).spectra(rng, SPECTRA, kelvin)
        yield f"{config.name} instead", False, *scan(other)
        yield f"{SHARE:.0%} of {config.name}", False, *scan((1 - SHARE) * own + SHARE * other)
    yield "E0 beyond the bounds", False, *scan(_moved(model, inputs.table, seed))
    yield "noise only", False, *scan(np.zeros_like(own))


def measured_kinds(model: Model, data: Path) -> Iterator[tuple[str, bool, Floats, Floats]]:
    """The same of measured spectra: the model's own, and `SHARE` of others of the element."""
    own = (
        list(_measured(configurations.load(model.name), data))
        if model.name in configurations.names()
        else []
    )
    if not own:
        return
    yield "measured", True, *_on_grid([((one, 1.0),) for one in own])
    for config in other_phases(model):
        others = list(_measured(config, data)) if config.absorber == model.absorber else []
        mixed = [((one, 1 - SHARE), (other, SHARE)) for one in own for other in others]
        if mixed:
            yield f"measured, {SHARE:.0%} of {config.name}", False, *_on_grid(mixed)


def _measured(config: configurations.ModelConfig, data: Path) -> Iterator[Chi]:
    for measured in config.measured:
        spectrum, _ = read_spectrum(measured, data)
        if spectrum.k_data[1] >= K_END[0]:
            yield spectrum


def _on_grid(mixtures: Sequence[Sequence[tuple[Chi, float]]]) -> tuple[Floats, Floats]:
    """Sums of spectra with their shares, as far as all of them reach, and masks; (n, 401) each."""
    rows, masks = [], []
    for mixture in mixtures:
        end = min(spectrum.k_data[1] for spectrum, _ in mixture)
        parts = [to_grid(spectrum.k, spectrum.chi, K_MIN, end) for spectrum, _ in mixture]
        rows.append(sum(share * x for (x, _), (_, share) in zip(parts, mixture, strict=True)))
        masks.append(parts[0][1])
    return np.stack(rows), np.stack(masks)


def other_phases(model: Model) -> Sequence[configurations.ModelConfig]:
    """Models that ship: others of the same element, and `OTHERS` of its neighbours."""
    number = atomic_number(model.absorber)
    configs = [configurations.load(name) for name in configurations.names() if name != model.name]
    same = [config for config in configs if config.absorber == model.absorber]
    rest = [config for config in configs if config.absorber != model.absorber]
    rest.sort(key=lambda config: abs(atomic_number(config.absorber) - number))
    return [*same, *rest[:OTHERS]]


def _moved(model: Model, table: PathTable, seed: int) -> Floats:
    """Own spectra whose E0 is `BEYOND` the bounds, on either side."""
    par = model.parametrisation
    rng = np.random.default_rng(seed)
    draw = sample(rng, SPECTRA, par, table)
    away = (E0_BOUND + rng.uniform(*BEYOND, SPECTRA)) * rng.choice([-1, 1], SPECTRA)
    return K_GRID**2 * path_sums(draw, table, away)[0]


def as_table(kinds: Sequence[Kind], limit: float) -> Table:
    """One kind a row."""
    title = f"score above {limit:g}"
    shown = Table("spectra", "withheld", "or poor_fit", "median score", title=title)
    for kind in kinds:
        shares = (f"{kind.withheld:.1%}", f"{kind.flagged:.1%}")
        shown.add_row(kind.name, *shares, f"{kind.median:.4f}")
    return shown

"""Network and polish against Larch's feffit on measured spectra."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd.contract import Card, Recipe, to_grid
from exafsd.contract.card import AccuracyRow
from exafsd.inference.refinement.polish import Polisher
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction, ReducedSpectrum
from exafsd_training.fitting.calibrate import HeldOutSpectra, predict
from exafsd_training.fitting.card import ACCURACY, NEAR_EDGE, NOT_HASHED, POOR_FIT, make_card
from exafsd_training.fitting.model_folder import Model, SimulationInputs, load_model
from exafsd_training.reference.feffit import Chi, feffit_reference, reduce_file
from exafsd_training.reference.table import read_spectrum, too_short
from exafsd_training.simulation.simulate import K_MIN, direct_pool
from exafsd_training.studies.near_edge import usual_near_edge
from exafsd_training.studies.poor_fit import usual_misfits
from exafsd_training.zoo import configurations

#: Simulated spectra beside the measured ones for the limit of ``poor_fit``, and their seed.
SIMULATED, SEED = 300, 31


def compare(model: Model, card: Card, spectrum: Chi, label: str) -> tuple[list[AccuracyRow], float]:
    """Rows for the card, and the out-of-domain score.

    Parameters
    ----------
    model, card
        Trained model, and its card for the fit that the polish makes.
    spectrum
        Measured spectrum.
    label
        Its name in the table.
    """
    reference, whole = (
        feffit_reference(
            spectrum, model.parametrisation, model.feff_folder, model.window, whole=whole
        )
        for whole in (False, True)
    )
    chi_k2, mask = to_grid(spectrum.k, spectrum.chi, K_MIN, spectrum.k_data[1])
    answers = predict(model.network, chi_k2[None], mask[None])
    out = {name: value[0] for name, value in answers.items()}
    std = np.sqrt(np.diag(out["theta_cov"]))
    polished = _polish(model, card, spectrum, Prediction(**out | {"ood": float(out["ood"])}))
    rows = []
    for id_, value in reference.value.items():
        i = model.parametrisation.index(id_)
        parameter = model.parametrisation.parameters[i].id
        rows.append(
            AccuracyRow(
                spectrum=label,
                parameter=parameter,
                feffit=round(value, 5),
                feffit_stderr=round(reference.stderr[id_], 5),
                network=round(float(out["theta"][i]), 5),
                network_std=round(float(std[i]), 5),
                polish=polished.get(parameter),
                whole=round(whole.value[id_], 5),
                whole_stderr=round(whole.stderr[id_], 5),
            )
        )
    return rows, float(out["ood"])


def _polish(model: Model, card: Card, spectrum: Chi, prediction: Prediction) -> dict[str, float]:
    chi_k2, _ = to_grid(spectrum.k, spectrum.chi, 0.0, spectrum.k_data[1])
    polisher = Polisher(card, model.equation, fit_weight)
    (polished,) = polisher(chi_k2[None], [prediction], spectrum.k_data[1], [None])
    if polished.fit is None:
        return {}
    return {id_: round(float(x), 5) for id_, x in zip(polished.fit.ids, polished.fit.value,
                                                      strict=True)}  # fmt: skip


def evaluate(folder: Path, files: list[Path], data: Path | None = None) -> list[AccuracyRow]:
    """Print the comparison and keep it in the model folder.

    Parameters
    ----------
    folder
        Of a trained model.
    files
        XDI files.
    data
        Folder with the measured spectra that the model's configuration names, if it ships.
    """
    model = load_model(folder)
    card = make_card(model, folder, NOT_HASHED)
    shown = Table("spectrum", "ood", "parameter", "feffit", "network", "off", "in error bars",
                  "polish", "in error bars", "whole feffit", "network off")  # fmt: skip
    all_rows: list[AccuracyRow] = []
    fitted: list[Chi] = []
    for label, spectrum in _spectra(model, files, data):
        if reason := too_short(spectrum, model.parametrisation, model.window):
            shown.add_row(label, "", reason)
            continue
        rows, ood = compare(model, card, spectrum, label)
        all_rows += rows
        fitted.append(spectrum)
        for row in rows:
            bar = row.feffit_stderr
            polish = ("", "") if row.polish is None else (
                f"{row.polish:.5f}", f"{(row.polish - row.feffit) / bar:+.3f}"
            )  # fmt: skip
            shown.add_row(
                row.spectrum,
                f"{ood:.4f}",
                row.parameter,
                f"{row.feffit:.5f} ({bar:.5f})",
                f"{row.network:.5f} ({row.network_std:.5f})",
                f"{row.network - row.feffit:+.5f}",
                f"{(row.network - row.feffit) / bar:+.2f}",
                *polish,
                f"{row.whole:.5f} ({row.whole_stderr:.5f})",
                f"{row.network - (row.whole or 0.0):+.5f}",
            )
    (folder / ACCURACY).write_text(json.dumps([row.model_dump() for row in all_rows], indent=1))
    pool = direct_pool(
        SEED, SIMULATED, model.parametrisation, SimulationInputs.of(model, folder).table
    )
    if usual := usual_misfits(model, fitted, HeldOutSpectra(pool, np.ones(SIMULATED, np.float32))):
        (folder / POOR_FIT).write_text(usual.model_dump_json(indent=1))
    earlier = (
        configurations.load(model.name).near_edge if model.name in configurations.names() else None
    )
    with_edge = [spectrum for spectrum in fitted if isinstance(spectrum, ReducedSpectrum)]
    if shape := usual_near_edge(with_edge, model.absorber, model.edge, earlier):
        (folder / NEAR_EDGE).write_text(shape.model_dump_json(indent=1))
    Console(width=190).print(shown)
    return all_rows


def _spectra(model: Model, files: list[Path], data: Path | None) -> Iterator[tuple[str, Chi]]:
    for file in files:
        yield file.name, reduce_file(file, Recipe())
    if data and model.name in configurations.names():
        for measured in configurations.load(model.name).measured:
            yield Path(measured.file).name, read_spectrum(measured, data)[0]

"""Network against Larch's feffit on measured spectra."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd.contract import Recipe, to_grid
from exafsd.contract.card import AccuracyRow
from exafsd.spectra import ReducedSpectrum
from exafsd_training.calibrate import predict
from exafsd_training.oracle import feffit_reference, reduce_file
from exafsd_training.simulate import K_MIN
from exafsd_training.workflow import Model, load_model

ACCURACY = "accuracy.json"


def read(model: Model, reduced: ReducedSpectrum) -> dict[str, np.ndarray]:
    """Outputs of the network for one reduced spectrum, without the batch axis."""
    chi_k2, mask = to_grid(reduced.k, reduced.chi, K_MIN, reduced.k_data[1])
    out = predict(model.network, chi_k2[None], mask[None])
    return {name: value[0] for name, value in out.items()}


def compare(model: Model, reduced: ReducedSpectrum, label: str) -> tuple[list[AccuracyRow], float]:
    """Rows for the card, and the out-of-domain score."""
    reference = feffit_reference(reduced, model.parametrisation, model.feff_folder, model.window)
    out = read(model, reduced)
    std = np.sqrt(np.diag(out["theta_cov"]))
    rows = []
    for id_, value in reference.value.items():
        i = model.parametrisation.index(id_)
        rows.append(
            AccuracyRow(
                spectrum=label,
                parameter=model.parametrisation.parameters[i].id,
                feffit=round(value, 5),
                feffit_stderr=round(reference.stderr[id_], 5),
                network=round(float(out["theta"][i]), 5),
                network_std=round(float(std[i]), 5),
            )
        )
    return rows, float(out["ood"])


def evaluate(folder: Path, files: list[Path]) -> list[AccuracyRow]:
    """Print the comparison and keep it in the model folder."""
    model = load_model(folder)
    shown = Table("spectrum", "ood", "parameter", "feffit", "network", "difference")
    kept: list[AccuracyRow] = []
    for file in files:
        rows, ood = compare(model, reduce_file(file, Recipe()), file.name)
        kept += rows
        for row in rows:
            shown.add_row(
                row.spectrum,
                f"{ood:.4f}",
                row.parameter,
                f"{row.feffit:.5f} ({row.feffit_stderr:.5f})",
                f"{row.network:.5f} ({row.network_std:.5f})",
                f"{row.network - row.feffit:+.5f}",
            )
    (folder / ACCURACY).write_text(json.dumps([row.model_dump() for row in kept], indent=1))
    Console(width=140).print(shown)
    return kept

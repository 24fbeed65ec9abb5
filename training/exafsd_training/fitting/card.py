"""The model card: what a bundle says about itself."""

import importlib.metadata
import json
import platform
from pathlib import Path

from exafsd._version import __version__
from exafsd.contract import EQUATION_FILE, PINN_FILE, REFINEMENT_FILE, Card, Recipe
from exafsd.contract.card import (
    AccuracyRow,
    Calibration,
    KGrid,
    NearEdge,
    PoorFit,
    Structure,
    Thresholds,
    Training,
)
from exafsd_training.fitting.calibrate import simulated_scores
from exafsd_training.fitting.model_folder import Model
from exafsd_training.simulation.refinement import refinement_of
from exafsd_training.simulation.simulate import K_END, K_MIN

#: Table of `exafsd_training.studies.evaluation` in the model folder.
ACCURACY = "accuracy.json"
POOR_FIT = "poor_fit.json"
NEAR_EDGE = "near_edge.json"
#: Instead of hashes, for a card of which only the parameters are needed.
NOT_HASHED = {PINN_FILE: "", EQUATION_FILE: ""}
#: How far an edge may be from where the material has it, eV: monochromators are rarely off by more
#: than 5, and a change of oxidation state moves an edge as far.
EDGE_TOLERANCE = 8.0
PACKAGES = ("tensorflow", "tf2onnx", "onnx", "xraylarch", "larixite", "xraydb", "numpy")


def make_card(model: Model, folder: Path, hashes: dict[str, str]) -> Card:
    """The card of a trained model.

    Parameters
    ----------
    model, folder
        Trained model and where it lies; `folder` may hold what `exafsd-train evaluate` found.
    hashes
        SHA-256 by file name.
    """
    par, summary, crystal = model.parametrisation, model.summary, model.crystal
    calibration = summary["calibration"]
    accuracy = folder / ACCURACY
    rows = json.loads(accuracy.read_text()) if accuracy.exists() else []
    poor_fit, near_edge = folder / POOR_FIT, folder / NEAR_EDGE
    prefix = "validation/"
    return Card(
        name=model.name,
        description=f"{model.absorber} {model.edge} edge, {par.phase} ({crystal.space_group}),"
        f" first {len(par.shells)} shells with multiple scattering to"
        f" {par.table.reff.max():.2f} angstrom",
        absorber=model.absorber,
        edge=model.edge,
        structures=[
            Structure(
                phase=par.phase,
                formula=crystal.formula,
                source=crystal.source,
                cif_sha256=crystal.cif_sha256,
                absorber_site=crystal.absorber_site,
                space_group=crystal.space_group,
            )
        ],
        k_grid=KGrid(k_min=K_MIN, k_max_trained=K_END),
        recipe=Recipe(),
        fit=[model.window],
        parameters=list(par.parameters),
        ties=par.in_words(),
        training=Training(
            command=summary["command"],
            seed=model.settings.seed,
            spectra=summary["spectra"],
            through_instrument=summary["through_instrument"],
            epochs=summary["epochs"],
            minutes=round(summary["minutes"], 2),
            final_losses={
                name.removeprefix(prefix): value
                for name, value in summary.items()
                if name.startswith(prefix)
            },
        ),
        accuracy=[AccuracyRow(**row) for row in rows],
        calibration=Calibration(
            std_scale=calibration["std_scale"],
            coverage_90=calibration["coverage_90"],
            validation_spectra=calibration["spectra"],
        ),
        thresholds=Thresholds(
            ood=calibration["ood_limit"],
            ood_false_alarms=calibration["ood_false_alarms"],
            k_max_min=K_END[0],
            edge_shift=None
            if model.edge_shift is None
            else (model.edge_shift - EDGE_TOLERANCE, model.edge_shift + EDGE_TOLERANCE),
            poor_fit=PoorFit.model_validate_json(poor_fit.read_text())
            if poor_fit.exists()
            else simulated_scores(),
            near_edge=NearEdge.model_validate_json(near_edge.read_text())
            if near_edge.exists()
            else None,
        ),
        refinement=refinement_of(par) if REFINEMENT_FILE in hashes else None,
        software={"exafsd": __version__, "python": platform.python_version()} | versions(),
        sha256=hashes,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on."""
    # a machine that only trains may lack what exports
    by_distribution = {}
    for name in PACKAGES:
        try:
            by_distribution[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return by_distribution

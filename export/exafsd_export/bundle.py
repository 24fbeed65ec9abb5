"""The bundle: both graphs, proven, and the card that describes them."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf

from exafsd._version import __version__
from exafsd.contract import (
    CARD_FILE,
    EQUATION_FILE,
    PINN_FILE,
    Card,
    Recipe,
    file_sha256,
    to_grid,
)
from exafsd.contract.card import (
    CARD_SCHEMA,
    AccuracyRow,
    Calibration,
    KGrid,
    Structure,
    Thresholds,
    Training,
)
from exafsd_export.convert import convert, equation_function, pinn_function
from exafsd_export.prove import prove
from exafsd_training.evaluation import ACCURACY
from exafsd_training.oracle import reduce_file
from exafsd_training.simulate import K_END, K_MIN, direct_pool, spoil
from exafsd_training.workflow import Model, load_model

#: Bundles ship inside a wheel, MB.
LARGEST = 3.0
PACKAGES = ("tensorflow", "tf2onnx", "onnx", "xraylarch", "larixite", "xraydb", "numpy")
BATCHES = (1, 64)


def make_bundle(folder: Path, out: Path, measured: Sequence[Path] = ()) -> dict[str, float]:
    """Convert, prove and write the bundle of a trained model.

    Parameters
    ----------
    folder
        Of `exafsd_training.workflow.fit_model`.
    out
        Bundle folder; only touched when everything has been proven.
    measured
        XDI files that ONNX and TensorFlow must also agree on.

    Returns
    -------
    dict
        Largest difference between ONNX and TensorFlow by output name.
    """
    model = load_model(folder)
    spectra = [*_spectra(model), *map(_measured, measured)]
    pinn_module, pinn_tf = pinn_function(model.network)
    equation_module, equation_tf = equation_function(model.network.equation)
    pinn, equation = convert(pinn_module, pinn_tf), convert(equation_module, equation_tf)
    found = prove(pinn, pinn_tf, spectra) | prove(equation, equation_tf, _thetas(model))
    _name(pinn, {"card_schema": CARD_SCHEMA, "bundle": model.name})
    _name(equation, {"card_schema": CARD_SCHEMA, "bundle": model.name})
    size = (pinn.ByteSize() + equation.ByteSize()) / 1e6
    if size > LARGEST:
        raise ValueError(f"the bundle would have {size:.1f} MB; at most {LARGEST} MB are allowed")

    out.mkdir(parents=True, exist_ok=True)
    onnx.save(pinn, out / PINN_FILE)
    onnx.save(equation, out / EQUATION_FILE)
    hashes = {name: file_sha256(out / name) for name in (PINN_FILE, EQUATION_FILE)}
    made = card(model, folder, hashes)
    (out / CARD_FILE).write_text(made.model_dump_json(by_alias=True, indent=1) + "\n")
    return found


def card(model: Model, folder: Path, hashes: dict[str, str]) -> Card:
    """The card of a trained model.

    Parameters
    ----------
    model, folder
        Trained model and where it lies; `folder` may hold an accuracy table.
    hashes
        SHA-256 by file name.
    """
    par, summary, crystal = model.parametrisation, model.summary, model.crystal
    calibration = summary["calibration"]
    accuracy = folder / ACCURACY
    rows = json.loads(accuracy.read_text()) if accuracy.exists() else []
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
        ),
        software={"exafsd": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        sha256=hashes,
    )


def _name(graph: onnx.ModelProto, facts: dict[str, str]) -> None:
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)


def _spectra(model: Model) -> list[dict[str, np.ndarray]]:
    """Simulated spectra with noise, glitches and cut ends, and pure noise."""
    rng = np.random.default_rng(2)
    batches = []
    for n in BATCHES:
        pool = direct_pool(n, n, model.parametrisation, model.parametrisation.table)
        inputs = (pool.noisy, pool.k_end, np.ones(n))
        chi_k2, mask = spoil(*(tf.constant(x, tf.float32) for x in inputs), tf.constant([n, 1]))
        batches.append({"chi_k2": chi_k2.numpy(), "mask": mask.numpy()})
        noise = rng.normal(0, 1, chi_k2.shape).astype(np.float32) * mask.numpy()
        batches.append({"chi_k2": noise, "mask": mask.numpy()})
    return batches


def _measured(path: Path) -> dict[str, np.ndarray]:
    """A measured spectrum as the daemon would give it to the network."""
    reduced = reduce_file(path, Recipe())
    chi_k2, mask = to_grid(reduced.k, reduced.chi, K_MIN, reduced.k_data[1])
    return {"chi_k2": chi_k2[None], "mask": mask[None]}


def _thetas(model: Model) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    low, high = model.parametrisation.bounds.T
    return [{"theta": rng.uniform(low, high, (n, len(low))).astype(np.float32)} for n in BATCHES]

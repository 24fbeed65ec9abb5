"""The bundle: both graphs, proven, and the card that describes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from exafsd.contract import (
    CARD_FILE,
    EQUATION_FILE,
    PINN_FILE,
    Recipe,
    file_sha256,
    to_grid,
)
from exafsd.contract.card import CARD_SCHEMA
from exafsd_export.convert import convert, equation_function, pinn_function
from exafsd_export.prove import prove
from exafsd_training.fitting.card import make_card
from exafsd_training.fitting.model_folder import Model, load_model
from exafsd_training.reference.feffit import reduce_file
from exafsd_training.simulation.corruption import corrupted
from exafsd_training.simulation.simulate import K_MIN, direct_pool

#: Bundles ship inside a wheel, MB.
LARGEST = 3.0
BATCHES = (1, 64)


def make_bundle(folder: Path, out: Path, measured: Sequence[Path] = ()) -> dict[str, float]:
    """Convert, prove and write the bundle of a trained model.

    Parameters
    ----------
    folder
        Of `exafsd_training.fitting.workflow.fit_model`.
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
    made = make_card(model, folder, hashes)
    (out / CARD_FILE).write_text(made.model_dump_json(by_alias=True, indent=1) + "\n")
    return found


def _name(graph: onnx.ModelProto, facts: dict[str, str]) -> None:
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)


def _spectra(model: Model) -> list[dict[str, np.ndarray]]:
    """Simulated spectra with noise, glitches and cut ends, and pure noise."""
    rng = np.random.default_rng(2)
    batches = []
    for n in BATCHES:
        pool = direct_pool(n, n, model.parametrisation, model.parametrisation.table)
        chi_k2, mask = corrupted(pool.noisy, pool.k_end, 1.0, (n, 1))
        batches.append({"chi_k2": chi_k2, "mask": mask})
        noise = rng.normal(0, 1, chi_k2.shape).astype(np.float32) * mask
        batches.append({"chi_k2": noise, "mask": mask})
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

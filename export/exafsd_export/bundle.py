"""The bundle: both graphs, proven, and the card that describes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf

from exafsd.contract import (
    CARD_FILE,
    EQUATION_FILE,
    K_GRID,
    PINN_FILE,
    REFINEMENT_FILE,
    Card,
    Recipe,
    file_sha256,
    to_grid,
)
from exafsd.contract.card import CARD_SCHEMA
from exafsd.inference.registry import Bundle, load_bundle
from exafsd_export.convert import (
    convert,
    equation_function,
    pinn_function,
    refinement_function,
)
from exafsd_export.prove import NotEqualError, prove
from exafsd_training.fitting.card import make_card
from exafsd_training.fitting.model_folder import Model, load_model
from exafsd_training.reference.feffit import reduce_file
from exafsd_training.simulation.corruption import corrupt_arrays
from exafsd_training.simulation.refinement import RefinementGraph, refinement_k, refinement_of
from exafsd_training.simulation.simulate import K_MIN, direct_pool
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.structures import run_feff
from exafsd_training.zoo.configurations import ModelConfig

#: Bundles ship inside a wheel, MB.
LARGEST = 3.2
BATCHES = (1, 64)
#: Largest difference between FEFF's runs on two machines, of the scale of chi, and how far from
#: the start of the fit it is looked at, 1/angstrom: E0 of -15 eV takes q to below 0.3 there.
SAME_THEORY, FEFF_STARTS = 1e-3, 0.5


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
    pinn = convert(pinn_module, pinn_tf)
    equation = convert(equation_module, equation_tf)
    thetas = parameter_batches(model.parametrisation)
    differences = prove(pinn, pinn_tf, spectra) | prove(equation, equation_tf, thetas)
    refinement, proven = _refinement(model.parametrisation, model.name)
    differences |= {f"refinement {name}": value for name, value in proven.items()}
    graphs = {PINN_FILE: pinn, EQUATION_FILE: equation, REFINEMENT_FILE: refinement}
    for graph in (pinn, equation):
        _name(graph, {"card_schema": CARD_SCHEMA, "bundle": model.name})
    size = sum(graph.ByteSize() for graph in graphs.values()) / 1e6
    if size > LARGEST:
        raise ValueError(f"the bundle would have {size:.1f} MB; at most {LARGEST} MB are allowed")

    out.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs.items():
        onnx.save(graph, out / name)
    hashes = {name: file_sha256(out / name) for name in graphs}
    card = make_card(model, folder, hashes)
    (out / CARD_FILE).write_text(card.model_dump_json(by_alias=True, indent=1) + "\n")
    return differences


def _name(graph: onnx.ModelProto, facts: dict[str, str]) -> None:
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)


def _spectra(model: Model) -> list[dict[str, np.ndarray]]:
    """Simulated spectra with noise, glitches and cut ends, and pure noise."""
    rng = np.random.default_rng(2)
    batches = []
    for n in BATCHES:
        pool = direct_pool(n, n, model.parametrisation, model.parametrisation.table)
        chi_k2, mask = corrupt_arrays(pool.noisy, pool.k_end, 1.0, (n, 1))
        batches.append({"chi_k2": chi_k2, "mask": mask})
        noise = rng.normal(0, 1, chi_k2.shape).astype(np.float32) * mask
        batches.append({"chi_k2": noise, "mask": mask})
    return batches


def _measured(path: Path) -> dict[str, np.ndarray]:
    """A measured spectrum as the daemon would give it to the network."""
    reduced = reduce_file(path, Recipe())
    chi_k2, mask = to_grid(reduced.k, reduced.chi, K_MIN, reduced.k_data[1])
    return {"chi_k2": chi_k2[None], "mask": mask[None]}


def parameter_batches(par: Parametrisation) -> list[dict[str, np.ndarray]]:
    """Batches of parameters within their bounds, to prove graphs on."""
    rng = np.random.default_rng(3)
    low, high = par.bounds.T
    return [{"theta": rng.uniform(low, high, (n, len(low))).astype(np.float32)} for n in BATCHES]


def _refinement(par: Parametrisation, name: str) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The graph of the refinement, and how far it is from TensorFlow by output name."""
    module, function = refinement_function(RefinementGraph(par))
    graph = convert(module, function)
    proven = prove(graph, function, parameter_batches(par))
    _name(graph, {"card_schema": CARD_SCHEMA, "bundle": name})
    return graph, proven


def add_refinement(bundle: Path, config: ModelConfig, work: Path) -> dict[str, float]:
    """Give a bundle that was exported before there was one its refinement; the rest stays.

    Parameters
    ----------
    bundle
        Its folder; only touched when everything has been proven.
    config
        What it was trained by.
    work
        Folder for the run of FEFF.

    Returns
    -------
    dict
        Largest difference between ONNX and TensorFlow by output name, and of chi from that of the
        bundle's own equation, which shows that the paths are those it was trained with.

    Raises
    ------
    NotEqualError
        If they are not.
    """
    card = Card.model_validate_json((bundle / CARD_FILE).read_text())
    table = read_paths(run_feff(config.crystal(), config.absorber, config.edge, work))
    par = parametrise(config.phase, table, config.fit, config.priors)
    difference = _from_own_equation(load_bundle(bundle), par)
    if not difference <= SAME_THEORY:
        raise NotEqualError(
            f"{bundle} was trained with other paths: chi differs by {difference:.1e}"
        )
    graph, from_tensorflow = _refinement(par, card.name)
    onnx.save(graph, bundle / REFINEMENT_FILE)
    hashes = dict(card.sha256) | {REFINEMENT_FILE: file_sha256(bundle / REFINEMENT_FILE)}
    facts = card.model_dump(by_alias=True) | {
        "refinement": refinement_of(par).model_dump(), "sha256": hashes
    }  # fmt: skip
    with_refinement = Card.model_validate(facts)
    (bundle / CARD_FILE).write_text(with_refinement.model_dump_json(by_alias=True, indent=1) + "\n")
    return {"chi of the bundle's own equation": difference} | from_tensorflow


def _from_own_equation(bundle: Bundle, par: Parametrisation) -> float:
    """How far chi is from that of a bundle's own equation, of its scale, where it is fitted.

    FEFF's tables have no more than three points below 0.3 1/angstrom, and what is drawn through
    them differs from machine to machine.
    """
    (thetas,) = [one["theta"] for one in parameter_batches(par)[-1:]]
    fitted = refinement_k(par.window)[0] + FEFF_STARTS <= K_GRID
    own = bundle.equation(thetas)[0][:, fitted]
    again = Equation(par).chi(tf.constant(thetas)).numpy()[:, fitted]
    return float(np.abs(own - again).max() / np.abs(own).max())

"""Small bundles without training: their graphs say what a test wants, at any batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exafsd.contract import Card
from exafsd.contract.card import (
    CARD_FILE,
    CARD_SCHEMA,
    EQUATION_FILE,
    PINN_FILE,
    REFINEMENT_FILE,
    KGrid,
    Parameter,
    Prior,
    Structure,
    file_sha256,
)
from exafsd.inference.registry import read_card, shipped_folder

OPSET = 18


def copper(**changes: Any) -> Card:
    """Card of the shipped copper bundle with changes: no refinement; its mask begins at k = 0."""
    card = read_card(shipped_folder() / "cu-k-fcc")
    grid = KGrid(k_min=0.0, k_max_trained=card.k_grid.k_max_trained)
    older = {"refinement": None, "edge_position": None}
    return card.model_copy(update={"k_grid": grid, **older, **changes})


def structure(formula: str, space_group: str | None = None) -> Structure:
    """A phase that is named by its formula."""
    return Structure(
        phase=formula, formula=formula, source="test", cif_sha256="0" * 64, space_group=space_group
    )


def parameter(id_: str, std: float = 1.0, **more: Any) -> Parameter:
    """A parameter by its id, ``PHASE/name`` or ``PHASE/SHELL/name``."""
    phase, *shell, name = id_.split("/")
    return Parameter(
        id=id_, name=name, unit="", bounds=(-100.0, 100.0), phase=phase,  # type: ignore[arg-type]
        prior=Prior(kind="normal", mean=0.0, std=std), shell=int(shell[0]) if shell else None,
        scatterer="O" if shell else None, **more,
    )  # fmt: skip


def write(
    folder: Path,
    card: Card,
    explains: float = 1.0,
    ood: float = 0.0,
    theta: np.ndarray | None = None,
    cov: np.ndarray | None = None,
) -> Path:
    """Write a bundle below `folder`, under its card's name.

    Parameters
    ----------
    explains
        Share of the input that its EXAFS equation gives back: an R-factor of (1 - explains)^2.
    ood
        Its out-of-domain score, whatever the spectrum.
    theta, cov
        (p,) and (p, p) that it reads; by default the priors' means and hundredths of their std.
    """
    home = folder / card.name
    home.mkdir(parents=True)
    if theta is None:
        theta = np.array([p.prior.mean for p in card.parameters])
    if cov is None:
        cov = np.diag([(0.01 * p.prior.std) ** 2 for p in card.parameters])
    _save(_pinn(theta, cov, explains, ood), card, home / PINN_FILE)
    _save(_equation(len(theta)), card, home / EQUATION_FILE)
    _write_card(card, home)
    return home


def shipped_as(folder: Path, name: str, phase: Structure | None = None) -> Path:
    """Write a copy of the shipped copper bundle under another name, and of another phase."""
    home = folder / name
    home.mkdir(parents=True)
    card = read_card(shipped_folder() / "cu-k-fcc")
    for graph in card.sha256:
        model = onnx.load(shipped_folder() / "cu-k-fcc" / graph)
        del model.metadata_props[:]
        _name(model, name)
        onnx.save(model, home / graph)
    changes: dict[str, Any] = {"name": name}
    if phase is not None:
        parameters = [p.model_copy(update={"phase": phase.phase}) for p in card.parameters]
        changes |= {"structures": [phase], "parameters": parameters}
    _write_card(card.model_copy(update=changes), home)
    return home


def _write_card(card: Card, home: Path) -> None:
    names = [PINN_FILE, EQUATION_FILE] + ([REFINEMENT_FILE] if card.refinement else [])
    sha256 = {name: file_sha256(home / name) for name in names}
    own_card = card.model_copy(update={"sha256": sha256, "accuracy": []})
    (home / CARD_FILE).write_text(own_card.model_dump_json(by_alias=True))


def _name(model: onnx.ModelProto, name: str) -> None:
    for key, value in {"card_schema": CARD_SCHEMA, "bundle": name}.items():
        model.metadata_props.add(key=key, value=value)


def _save(graph: onnx.GraphProto, card: Card, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    _name(model, card.name)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _constant(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)


def _tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _pinn(theta: np.ndarray, cov: np.ndarray, explains: float, ood: float) -> onnx.GraphProto:
    p = len(theta)
    nodes = [
        helper.make_node("MatMul", ["chi_k2", "nothing"], ["column"]),  # zeros, (batch, 1)
        helper.make_node("Add", ["column", "theta0"], ["theta"]),
        helper.make_node("Add", ["column", "cov0"], ["cov_flat"]),
        helper.make_node("Reshape", ["cov_flat", "square"], ["theta_cov"]),
        helper.make_node("Mul", ["chi_k2", "share"], ["chi_k2_pred"]),
        helper.make_node("Mul", ["chi_k2", "share"], ["chi_k2_exafs"]),
        helper.make_node("Add", ["column", "score"], ["ood_column"]),
        helper.make_node("Reshape", ["ood_column", "flat"], ["ood"]),
    ]
    constants = [
        _constant("nothing", np.zeros((401, 1))),
        _constant("theta0", theta[None]),
        _constant("cov0", cov.reshape(1, -1)),
        _constant("share", explains),
        _constant("score", [[ood]]),
        numpy_helper.from_array(np.array([-1, p, p]), "square"),
        numpy_helper.from_array(np.array([-1]), "flat"),
    ]
    outputs = [
        _tensor("theta", p), _tensor("theta_cov", p, p), _tensor("chi_k2_pred", 401),
        _tensor("chi_k2_exafs", 401), _tensor("ood"),
    ]  # fmt: skip
    inputs = [_tensor("chi_k2", 401), _tensor("mask", 401)]
    return helper.make_graph(nodes, "pinn", inputs, outputs, constants)


def _equation(p: int) -> onnx.GraphProto:
    """chi(k) linear in theta: a damped wave of its own for each parameter."""
    k = np.arange(401) * 0.05
    waves = np.sin(2 * np.outer(1.5 + 0.3 * np.arange(p), k)) * np.exp(-0.02 * k**2)
    nodes = [
        helper.make_node("MatMul", ["theta", "waves"], ["chi"]),
        helper.make_node("Unsqueeze", ["chi", "last"], ["chi3"]),
        helper.make_node("Mul", ["chi3", "nothing"], ["zeros"]),  # (batch, 401, 1)
        helper.make_node("Add", ["zeros", "slopes"], ["jacobian"]),
    ]
    constants = [
        _constant("waves", waves),
        _constant("nothing", 0.0),
        _constant("slopes", waves.T[None]),
        numpy_helper.from_array(np.array([2]), "last"),
    ]
    outputs = [_tensor("chi", 401), _tensor("jacobian", 401, p)]
    return helper.make_graph(nodes, "equation", [_tensor("theta", p)], outputs, constants)

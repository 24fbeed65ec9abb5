"""The network as ONNX through onnxruntime: one thread, no spinning."""

from functools import cached_property

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from exafsd.contract.card import Card
from exafsd.contract.grid import K_SIZE
from exafsd.spectra import Prediction

Rows = NDArray[np.float32]
#: spectra that are read at once: what the equation makes of more leaves the cache
TOGETHER = 16
#: Passes of onnxruntime that are switched off: they move transpositions behind the products that
#: are fast because k is their last axis.
DISABLED_OPTIMIZERS = ["TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"]


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """Session of a graph that leaves the other core to the reduction."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # spinning threads slow their neighbours more than they win here
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # else it guesses, and its own format may name weights in other files by other means
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
    )


def checked_session(
    graph: bytes, card: Card, outputs: tuple[str, ...], counted: str
) -> onnxruntime.InferenceSession:
    """Session of a graph that is the one its card describes.

    Parameters
    ----------
    graph
        Content of its file.
    outputs
        Names it must give.
    counted
        The output whose last axis is the card's parameters.

    Raises
    ------
    ValueError
        If it is another graph.
    """
    runner = session(graph)
    metadata = runner.get_modelmeta().custom_metadata_map
    if metadata.get("card_schema") != card.schema_ or metadata.get("bundle") != card.name:
        said = f"{metadata.get('bundle')!r} of {metadata.get('card_schema')!r}"
        raise ValueError(f"the graph says it is {said}, its card {card.name!r} of {card.schema_!r}")
    names = {output.name: output.shape for output in runner.get_outputs()}
    missing = [name for name in outputs if name not in names]
    if missing:
        raise ValueError(f"the graph has no output {missing}")
    if names[counted][-1] not in (len(card.parameters), None):
        raise ValueError(
            f"the graph gives {names[counted][-1]} parameters, its card has {len(card.parameters)}"
        )
    return runner


class _Graph:
    """A graph of a bundle, started at once or, `later`, by its first use.

    Raises
    ------
    ValueError
        When it is started, if the graph is not the one its card describes.
    """

    outputs: tuple[str, ...]
    #: the output whose last axis is the card's parameters
    counted: str

    def __init__(self, graph: bytes, card: Card, later: bool = False) -> None:
        self._graph, self._card = graph, card
        if not later:
            _ = self._session

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return checked_session(self._graph, self._card, self.outputs, self.counted)


class Predictor(_Graph):
    """Runs ``pinn.onnx`` of one bundle."""

    outputs = ("theta", "theta_cov", "chi_k2_pred", "chi_k2_exafs", "ood")
    counted = "theta"

    def predict(self, chi_k2: NDArray[np.float32], mask: NDArray[np.float32]) -> list[Prediction]:
        """Read a batch.

        Parameters
        ----------
        chi_k2, mask
            (batch, 401) float32, as made by `exafsd.contract.to_grid`.
        """
        if chi_k2.shape != mask.shape or chi_k2.shape[1:] != (K_SIZE,):
            raise ValueError(f"shapes {chi_k2.shape} and {mask.shape} are not (batch, {K_SIZE})")
        predictions: list[Prediction] = []
        for begin in range(0, len(chi_k2), TOGETHER):
            part = slice(begin, begin + TOGETHER)
            given = {"chi_k2": chi_k2[part], "mask": mask[part]}
            rows = self._session.run(list(self.outputs), given)
            theta, cov, pred, exafs, ood = (np.asarray(array, dtype=float) for array in rows)
            predictions += map(Prediction, theta, cov, pred, exafs, ood.tolist())
        return predictions


class Equation(_Graph):
    """Runs ``equation.onnx`` of one bundle."""

    outputs = ("chi", "jacobian")
    counted = "jacobian"

    def __call__(self, theta: NDArray[np.floating]) -> tuple[Rows, Rows]:
        """chi(k), without a k weight, and its derivatives.

        Parameters
        ----------
        theta
            (b, p).

        Returns
        -------
        chi, jacobian
            (b, 401) and (b, 401, p) float32 on the contract grid.
        """
        chi, jacobian = self._session.run(list(self.outputs), {"theta": theta.astype(np.float32)})
        return np.asarray(chi), np.asarray(jacobian)


class Waves(_Graph):
    """Runs ``refinement.onnx`` of one bundle."""

    outputs = ("real", "imag", "jacobian")
    counted = "jacobian"

    def __call__(self, theta: NDArray[np.floating]) -> tuple[Rows, Rows, Rows]:
        """Complex chi(k) of groups of paths, and the derivatives of their sum.

        Parameters
        ----------
        theta
            (b, p).

        Returns
        -------
        real, imag, jacobian
            (b, m, g), (b, m, g) and (b, m, p) float32 on the grid of the card's refinement; chi is
            the sum of `imag`.
        """
        arrays = self._session.run(list(self.outputs), {"theta": theta.astype(np.float32)})
        real, imag, jacobian = (np.asarray(array) for array in arrays)
        return real, imag, jacobian

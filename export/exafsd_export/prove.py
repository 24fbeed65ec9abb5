"""Proof that an ONNX graph computes what TensorFlow computes."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import tensorflow as tf

from exafsd.inference.predictor import session

#: Largest difference allowed, relative to the scale of the output.
TOLERANCE = 1e-4


class NotEqualError(AssertionError):
    """TensorFlow and onnxruntime disagree."""


def differences(
    graph: onnx.ModelProto,
    function: tf.types.experimental.PolymorphicFunction,
    inputs: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """Largest relative difference by output name.

    The scale is the largest size, over all batches, of every column of the last axis for
    parameters, covariances and Jacobians, whose columns have different units; and of the whole
    output for spectra and scores. Inputs may have any batch size.

    Parameters
    ----------
    graph
        ONNX.
    function
        TensorFlow, called with the same named arguments.
    inputs
        Batches, name to array.
    """
    run = session(graph.SerializeToString())
    names = [output.name for output in run.get_outputs()]
    pairs_of: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for batch in inputs:
        expected = function(**{name: tf.constant(x) for name, x in batch.items()})
        for name, got in zip(names, run.run(names, dict(batch)), strict=True):
            pairs_of[name].append((expected[name].numpy(), got))
    result = {}
    for name, pairs in pairs_of.items():
        tf_, onnx_ = (np.concatenate(x) for x in zip(*pairs, strict=True))
        if tf_.shape != onnx_.shape or not np.isfinite(onnx_).all():
            raise NotEqualError(f"{name}: shape {onnx_.shape} for {tf_.shape}, or not finite")
        axes: tuple[int, ...] | None = None
        if name in ("theta", "jacobian"):
            axes = tuple(range(tf_.ndim - 1))
        elif name == "theta_cov":
            axes = (0,)
        scale = np.maximum(np.abs(tf_).max(axis=axes, keepdims=True), 1e-30)
        result[name] = float((np.abs(tf_ - onnx_) / scale).max())
    return result


def prove(
    graph: onnx.ModelProto,
    function: tf.types.experimental.PolymorphicFunction,
    inputs: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """`differences`, refused above `TOLERANCE`.

    Raises
    ------
    NotEqualError
        Naming every output that differs.
    """
    errors = differences(graph, function, inputs)
    bad = {name: value for name, value in errors.items() if not value <= TOLERANCE}
    if bad:
        raise NotEqualError(f"ONNX differs from TensorFlow by more than {TOLERANCE}: {bad}")
    return errors

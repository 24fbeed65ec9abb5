"""TensorFlow to ONNX, through a SavedModel and tf2onnx."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx import tf_loader

from exafsd.contract import K_SIZE
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.refinement import RefinementGraph
from exafsd_training.theory.equation import Equation

#: The highest opset that tf2onnx writes; nothing here needs a later one.
OPSET = 18


@contextmanager
def _without_advice() -> Iterator[None]:
    """TensorFlow advises against calls of its first version, which tf2onnx makes."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def convert(
    module: tf.Module, function: tf.types.experimental.PolymorphicFunction
) -> onnx.ModelProto:
    """ONNX graph of a function of a module.

    Parameters
    ----------
    module
        Holder of the variables.
    function
        A `tf.function` with an input signature that returns a dict; its argument names and
        the dict's keys become the names of inputs and outputs.
    """
    # a SavedModel, because tf2onnx's from_function turns captured constants into inputs
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        tf.saved_model.save(module, folder, signatures=function.get_concrete_function())
        graph, inputs, outputs, names = tf_loader.from_saved_model(
            folder, None, None, return_tensors_to_rename=True
        )
        model, _ = tf2onnx.convert.from_graph_def(
            graph, input_names=inputs, output_names=outputs, opset=OPSET, tensors_to_rename=names
        )
    model.graph.doc_string = ""  # where tf2onnx had it from
    onnx.checker.check_model(model)
    return model


def pinn_function(network: Pinn) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """The network as ``pinn.onnx`` computes it."""
    module = tf.Module()
    module.network = network
    spec = [tf.TensorSpec((None, K_SIZE), tf.float32, name=name) for name in ("chi_k2", "mask")]

    @tf.function(autograph=False, input_signature=spec)
    def pinn(chi_k2: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return network(chi_k2, mask)

    return module, pinn


def equation_function(
    equation: Equation,
) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """The EXAFS equation and its Jacobian as ``equation.onnx`` computes them."""
    module = tf.Module()
    module.equation = equation

    spec = [tf.TensorSpec((None, equation.size), tf.float32, name="theta")]

    @tf.function(autograph=False, input_signature=spec)
    def chi(theta: tf.Tensor) -> dict[str, tf.Tensor]:
        value, jacobian = equation.chi_and_jacobian(theta)
        return {"chi": value, "jacobian": jacobian}

    return module, chi


def refinement_function(
    graph: RefinementGraph,
) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """Groups of paths and the Jacobian as ``refinement.onnx`` computes them."""
    module = tf.Module()
    module.graph = graph

    spec = [tf.TensorSpec((None, graph.size), tf.float32, name="theta")]

    @tf.function(autograph=False, input_signature=spec)
    def waves(theta: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph(theta)

    return module, waves

"""TensorFlow to ONNX, through a SavedModel and tf2onnx's own command."""

import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import tensorflow as tf

from exafsd.contract import K_SIZE
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.refinement import RefinementGraph
from exafsd_training.theory.equation import Equation

#: The highest opset that tf2onnx writes; nothing here needs a later one.
OPSET = 18


class ConversionError(RuntimeError):
    """tf2onnx failed; the text is the end of what it said."""


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
    with tempfile.TemporaryDirectory() as folder:
        saved, graph = Path(folder, "saved"), Path(folder, "graph.onnx")
        tf.saved_model.save(module, str(saved), signatures=function.get_concrete_function())
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(saved),
                   "--output", str(graph), "--opset", str(OPSET)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not graph.exists():
            raise ConversionError(f"tf2onnx failed: {done.stderr[-2000:]}")
        model = onnx.load(graph)
    # tf2onnx writes the folder's name into it, and the same network would get another hash
    model.graph.doc_string = ""
    onnx.checker.check_model(model)
    return model


def pinn_function(network: Pinn) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """The network as ``pinn.onnx`` computes it."""
    module = tf.Module()
    module.network = network
    spec = [tf.TensorSpec((None, K_SIZE), tf.float32, name=name) for name in ("chi_k2", "mask")]

    @tf.function(input_signature=spec)
    def pinn(chi_k2: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return network(chi_k2, mask)

    return module, pinn


def equation_function(
    equation: Equation,
) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """The EXAFS equation and its Jacobian as ``equation.onnx`` computes them."""
    module = tf.Module()
    module.equation = equation

    @tf.function(input_signature=[tf.TensorSpec((None, equation.size), tf.float32, name="theta")])
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

    @tf.function(input_signature=[tf.TensorSpec((None, graph.size), tf.float32, name="theta")])
    def waves(theta: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph(theta)

    return module, waves

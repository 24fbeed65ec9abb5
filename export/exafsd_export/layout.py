"""Layout of the network's graph: paths before k.

TensorFlow has the waves of the EXAFS equation as (spectra, k, paths), and tf2onnx keeps that. With
a dozen paths as the last axis onnxruntime spends its time on beginning loops; with k as the last
one the same numbers take half the time (decision 0040).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from exafsd.contract import K_SIZE

#: Operators for which the order of axes does not matter.
ELEMENTWISE = {"Add", "Cos", "Div", "Exp", "Mul", "Neg", "Pow", "Reciprocal", "Sin", "Sub"}
#: The axes in their new order.
SWAPPED = (0, 2, 1)


class LayoutError(ValueError):
    """A graph that is not what this module knows; the text names the operator."""


def paths_before_k(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with what is summed over paths laid out as (spectra, paths, k).

    Raises
    ------
    LayoutError
        If the graph has operators there that tf2onnx did not write when this was made.
    """
    return _swapped(_coefficients_apart(model))


def _coefficients_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """Look up each coefficient of FEFF's tables in a table of its own, not all and then split."""
    constants = _constants(model)
    looked_up: dict[str, Sequence[str]] = {}
    slices: dict[str, tuple[str, int]] = {}
    nodes: list[onnx.NodeProto] = []
    tables: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        source = node.input[0]
        if node.op_type == "Gather" and np.ndim(constants.get(source)) == 3:
            looked_up[node.output[0]] = node.input
        elif node.op_type == "Slice" and source in looked_up:
            slices[node.output[0]] = source, int(constants[node.input[1]][0])
        elif node.op_type == "Squeeze" and source in slices:
            whole, place = slices[source]
            table, index = looked_up[whole]
            name = f"{table}/{place}"
            tables[name] = constants[table][:, :, place]
            nodes.append(helper.make_node("Gather", [name, index], node.output, node.name, axis=0))
        else:
            nodes.append(node)
    return _rebuilt(model, nodes, tables)


def _swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Exchange the last two axes of all that is computed before a sum over paths."""
    constants, shapes = _constants(model), _shapes(model)
    inside = _before_sums(model.graph.node, shapes)
    nodes: list[onnx.NodeProto] = []
    columns: dict[str, np.ndarray] = {}
    turned: dict[str, str] = {}

    def turn(name: str) -> str:
        """The name of a tensor from outside, turned."""
        if name not in turned:
            turned[name] = f"{name}/turned"
            nodes.append(
                helper.make_node("Transpose", [name], [turned[name]], turned[name], perm=SWAPPED)
            )
        return turned[name]

    def new_axes(node: onnx.NodeProto, place: int) -> None:
        """Let the input of a node that names axes name the new ones."""
        axes = constants[node.input[place]]
        name = f"{node.name}/axes"
        columns[name] = np.array([SWAPPED[axis % 3] for axis in axes], axes.dtype)
        node.input[place] = name

    for old in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        within = old.output[0] in inside
        if within and old.op_type in ELEMENTWISE:
            for place, name in enumerate(old.input):
                if name in constants and constants[name].size > 1:
                    node.input[place] = f"{name}/column"
                    columns[node.input[place]] = constants[name].reshape(-1, 1)
        elif within and old.op_type == "Slice" and len(old.input) > 3:
            if old.input[0] not in inside:
                node.input[0] = turn(old.input[0])
            new_axes(node, 3)
        elif within and old.op_type == "Unsqueeze":
            new_axes(node, 1)
        elif old.op_type == "ReduceSum" and old.input[0] in inside:
            new_axes(node, 1)
        elif within or inside.intersection(old.input):
            raise LayoutError(f"{old.op_type} {old.name} among the waves of paths")
        nodes.append(node)
    return _rebuilt(model, nodes, columns)


def _before_sums(nodes: Iterable[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]) -> set[str]:
    """Tensors with three axes that go element by element into a sum over the last, beside k."""
    inside: set[str] = set()
    for node in nodes:
        shape = shapes.get(node.input[0], ())
        if node.op_type == "ReduceSum" and len(shape) == 3 and shape[1] == K_SIZE:
            inside.add(node.input[0])
    grown = True
    while grown:
        before = len(inside)
        for node in nodes:
            names = {n for n in (*node.input, *node.output) if len(shapes.get(n, ())) == 3}
            if node.op_type in ELEMENTWISE and names & inside:
                inside |= names
        grown = len(inside) > before
    return inside


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors but constants; sizes that are not fixed are 0."""
    graph = shape_inference.infer_shapes(model).graph
    return {
        one.name: tuple(size.dim_value for size in one.type.tensor_type.shape.dim)
        for one in (*graph.value_info, *graph.input, *graph.output)
    }


def _rebuilt(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, Any]
) -> onnx.ModelProto:
    """A model with these nodes, and of its constants and of these what they use."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    for field in (new.graph.node, new.graph.value_info, new.graph.initializer):
        del field[:]
    new.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    new.graph.initializer.extend(one for one in model.graph.initializer if one.name in used)
    new.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in constants.items()
    )
    onnx.checker.check_model(new)
    return new

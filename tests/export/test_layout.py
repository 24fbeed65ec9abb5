"""The layout of the network's graph: other axes, the same numbers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exafsd_export.layout import LayoutError, paths_before_k
from exafsd_export.prove import session

PATHS, ENTRIES = 5, 30


def graph(between: str = "Sin") -> onnx.ModelProto:
    """A sum over paths as tf2onnx writes it: a table of cubics, and numbers of each path."""
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.normal(size=(ENTRIES, PATHS + 1, 4)).astype(np.float32),
        "degeneracy": rng.uniform(1, 12, PATHS).astype(np.float32),
        **{str(n): np.array([n]) for n in range(5)},
        "paths": np.array([PATHS]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["row"], axis=0),
        *(
            node
            for i in range(2)
            for node in (
                helper.make_node("Slice", ["row", str(i), str(i + 1), "3"], [f"slice{i}"]),
                helper.make_node("Squeeze", [f"slice{i}", "3"], [f"c{i}"]),
            )
        ),
        helper.make_node("Add", ["c0", "c1"], ["value"]),
        helper.make_node("Slice", ["value", "0", "paths", "2"], ["phase"]),
        helper.make_node("Unsqueeze", ["theta", "1"], ["radius"]),
        helper.make_node("Unsqueeze", ["q", "2"], ["of_k"]),
        helper.make_node("Mul", ["of_k", "radius"], ["turn"]),
        helper.make_node("Add", ["turn", "phase"], ["angle"]),
        helper.make_node(between, ["angle"], ["wave"]),
        helper.make_node("Mul", ["wave", "degeneracy"], ["waves"]),
        helper.make_node("ReduceSum", ["waves", "2"], ["chi"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("index", TensorProto.INT32, [None, 401]),
        helper.make_tensor_value_info("q", TensorProto.FLOAT, [None, 401]),
        helper.make_tensor_value_info("theta", TensorProto.FLOAT, [None, PATHS]),
    ]
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}{place}"
    output = helper.make_tensor_value_info("chi", TensorProto.FLOAT, [None, 401])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    body = helper.make_graph(nodes, "sum", inputs, [output], tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_the_numbers_are_the_same() -> None:
    rng = np.random.default_rng(1)
    old, new = graph(), paths_before_k(graph())
    for count in (1, 7):
        given = {
            "index": rng.integers(0, ENTRIES, (count, 401)).astype(np.int32),
            "q": rng.uniform(0, 20, (count, 401)).astype(np.float32),
            "theta": rng.uniform(2, 6, (count, PATHS)).astype(np.float32),
        }
        (expected,), (got,) = (session(one).run(None, given) for one in (old, new))
        np.testing.assert_allclose(got, expected, atol=2e-6 * np.abs(expected).max())


def test_k_is_the_last_axis_of_waves() -> None:
    inferred = onnx.shape_inference.infer_shapes(paths_before_k(graph())).graph
    sizes = {
        one.name: [size.dim_value for size in one.type.tensor_type.shape.dim]
        for one in inferred.value_info
    }
    assert sizes["waves"][1:] == [PATHS, 401]
    # each coefficient has a table of its own, and the whole one is gone
    assert [node.op_type for node in inferred.node].count("Gather") == 2
    assert "table" not in {one.name for one in inferred.initializer}


def test_twice_is_once() -> None:
    once = paths_before_k(graph())
    assert paths_before_k(once).SerializeToString() == once.SerializeToString()


def test_an_unknown_operator_is_refused_by_name() -> None:
    with pytest.raises(LayoutError, match="Tan Tan"):
        paths_before_k(graph("Tan"))

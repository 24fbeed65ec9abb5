"""Graphs of a bundle: all of their weights are under the card's hash, and what runs was checked."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bundles import OPSET
from exafsd.contract import file_sha256
from exafsd.inference import registry
from exafsd.inference.predictor import Predictor, session
from exafsd.inference.registry import BundleError, load_bundle, read_card, shipped_folder

SHIPPED = shipped_folder() / "cu-k-fcc"


@pytest.fixture
def copy(tmp_path):
    """A copy of the shipped bundle that may be spoilt."""
    return shutil.copytree(SHIPPED, tmp_path / "cu-k-fcc")


def assert_reads_as_shipped(bundle):
    chi_k2 = np.sin(np.arange(401, dtype="f4") / 5)[None]
    readings = [
        b.predictor.predict(chi_k2, np.ones_like(chi_k2))[0] for b in (bundle, load_bundle(SHIPPED))
    ]
    assert (readings[0].theta == readings[1].theta).all()


def written_anew(folder, graph="pinn.onnx"):
    """The card has the hash of a graph that was changed."""
    card = json.loads((folder / "card.json").read_text())
    card["sha256"][graph] = file_sha256(folder / graph)
    (folder / "card.json").write_text(json.dumps(card))


def outside(name="w", location="weights.bin"):
    """Four weights in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    return tensor


def graph_of(nodes, **more):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    return helper.make_graph(nodes, "graph", [x], [y], **more)


def constant(**attribute):
    return helper.make_node("Constant", [], ["w"], **attribute)


ADD = helper.make_node("Add", ["x", "w"], ["y"])
SPARSE = onnx.SparseTensorProto(values=outside(), dims=[4])
SUBGRAPH = graph_of([constant(value=outside()), ADD])
PLACES = {
    "initializer": graph_of([ADD], initializer=[outside()]),
    "other folder": graph_of([ADD], initializer=[outside(location="../weights.bin")]),
    "memory": graph_of([ADD], initializer=[outside(location="*/_ORT_MEM_ADDR_/*")]),
    "sparse initializer": graph_of([ADD], sparse_initializer=[SPARSE]),
    "constant": graph_of([constant(value=outside()), ADD]),
    "sparse constant": graph_of([constant(sparse_value=SPARSE), ADD]),
    "if": graph_of([helper.make_node("If", ["c"], ["y"], then_branch=SUBGRAPH)]),
    "loop in if": graph_of(
        [helper.make_node("If", ["c"], ["y"], then_branch=graph_of(
            [helper.make_node("Loop", ["n", "c"], ["y"], body=SUBGRAPH)]))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", [*PLACES, "function"])
def test_weights_in_another_file_are_refused_wherever_they_are(copy, place, monkeypatch):
    graph = PLACES.get(place) or graph_of([helper.make_node("F", ["x"], ["y"], domain="own")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    if place == "function":
        imports = [helper.make_opsetid("", OPSET)]
        nodes = [constant(value=outside()), ADD]
        model.functions.append(helper.make_function("own", "F", ["x"], ["y"], nodes, imports))
    (copy / "pinn.onnx").write_bytes(model.SerializeToString())
    written_anew(copy)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # it is not even opened
    with pytest.raises(BundleError, match=r"pinn\.onnx has weights in another file .* inside"):
        load_bundle(copy)
    with pytest.raises(BundleError, match="another file"):
        read_card(copy)


@pytest.mark.parametrize("graph", ["pinn.onnx", "equation.onnx"])
def test_the_weights_of_a_shipped_graph_in_another_file_are_refused(copy, graph, monkeypatch):
    model = onnx.load(copy / graph)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    (copy / graph).unlink()
    onnx.save_model(model, copy / graph, **options)
    written_anew(copy, graph)
    monkeypatch.chdir(copy)  # where onnxruntime looks for them
    with pytest.raises(BundleError, match=f"{graph} has weights in another file"):
        load_bundle(copy)


def field(number, content, length=None):
    """A field of protobuf whose length may be written with more bytes than it needs."""
    return bytes([number << 3 | 2]) + (length or bytes([len(content)])) + content


@pytest.mark.parametrize("length", [b"\x08", b"\x88\x00", b"\x88\x80\x00", b"\x88\x80\x80\x80\x00"])
@pytest.mark.parametrize("order", [1, -1])
def test_another_way_to_write_the_same_graph_is_refused_too(copy, length, order, monkeypatch):
    entry = b"".join([field(1, b"location", length), field(2, b"weights.bin")][::order])
    tensor = outside()
    del tensor.external_data[0]
    graph = graph_of([ADD])
    tensor = tensor.SerializeToString() + field(13, entry)
    graph = graph.SerializeToString() + field(5, tensor)
    model = helper.make_model(graph_of([ADD]), opset_imports=[helper.make_opsetid("", OPSET)])
    model.ClearField("graph")
    model.ir_version = 9
    content = model.SerializeToString() + field(
        7, graph, bytes([len(graph) & 127 | 128, len(graph) >> 7])
    )
    monkeypatch.chdir(copy)
    np.arange(4, dtype="<f4").tofile("weights.bin")
    assert (
        onnx.load_model_from_string(content).graph.initializer[0].external_data[1].key == "location"
    )
    (copy / "pinn.onnx").write_bytes(content)
    written_anew(copy)
    with pytest.raises(BundleError, match="another file"):
        load_bundle(copy)


def test_a_name_that_has_the_key_in_it_is_no_other_file(copy):
    model = onnx.load(copy / "pinn.onnx")
    model.graph.name = "my/location"
    model.graph.doc_string = "location_of_atoms, allocation"
    onnx.save(model, copy / "pinn.onnx")
    written_anew(copy)
    assert_reads_as_shipped(load_bundle(copy))


def test_a_graph_in_onnxruntimes_own_format_is_refused(copy):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(copy / "own.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(copy / "pinn.onnx", options)
    (copy / "own.ort").rename(copy / "pinn.onnx")
    written_anew(copy)
    with pytest.raises(BundleError, match=r"pinn\.onnx cannot be run"):
        load_bundle(copy)


def test_what_runs_is_what_was_checked(copy, monkeypatch):
    def changed_meanwhile(graph, card):
        for path in copy.glob("*.onnx"):
            path.write_bytes(b"changed after it was checked")
        return Predictor(graph, card)

    monkeypatch.setattr(registry, "Predictor", changed_meanwhile)
    assert_reads_as_shipped(load_bundle(copy))
    monkeypatch.undo()
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["../pinn.onnx", "/etc/passwd", "weights.bin", "sub/pinn.onnx"])
def test_a_card_names_no_other_files(copy, name):
    card = json.loads((copy / "card.json").read_text())
    card["sha256"][name] = "0" * 64
    (copy / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="not a valid card"):
        load_bundle(copy)


def test_transpositions_stay_where_the_graph_has_them(tmp_path, monkeypatch):
    # else a refinement takes twice as long: onnxruntime moves them behind the products
    optimized = tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions

    def writing():
        own = options()
        own.optimized_model_filepath = str(optimized)
        return own

    monkeypatch.setattr(onnxruntime, "SessionOptions", writing)
    graph = SHIPPED / "refinement.onnx"
    session(graph.read_bytes())
    before, after = (
        [node.op_type for node in onnx.load(file).graph.node].count("Transpose")
        for file in (graph, optimized)
    )
    assert after <= before <= 5

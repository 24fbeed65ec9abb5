"""Published codes are in the vocabulary; readers take codes and fields of later versions."""

import ast
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import exafsd
from exafsd.client import Follower, rows
from exafsd.commands.terminal import ResultTable, Screen
from exafsd.contract.answers import read_reply
from exafsd.contract.card import CARD_FILE, Card
from exafsd.contract.frames import decode, encode
from exafsd.contract.schemas import schemas
from exafsd.contract.vocabulary import Flag, Problem, Reason
from exafsd.dashboard import words
from exafsd.dashboard.state import State
from exafsd.inference.registry import shipped_folder
from exafsd.publishing import Publisher
from messages import ARRAYS, collect, rejected, result, status

SOURCE = Path(exafsd.__file__).parent
VOCABULARIES = (Flag, Reason, Problem)
#: calls whose first argument is a code
CODED = {"SpectrumError", "Trouble", "RefusedFrame", "report", "_report", "_fail"}


def calls():
    """Every call in the daemon, with its file and the name of what is called."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 1:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                yield path, name, node


def test_every_code_that_is_produced_is_a_member():
    """Types say the same (pyright), but only where a code is not put together from text."""
    codes = 0
    for path, name, node in calls():
        if name in CODED and "client" not in path.parts:
            text = isinstance(node.args[0], ast.Constant | ast.JoinedStr)
            assert not text, f"{path}:{node.lineno}: a code that is no member of a vocabulary"
            codes += 1
    assert codes > 50


def test_every_member_is_used():
    source = "\n".join(p.read_text() for p in SOURCE.rglob("*.py") if p.name != "vocabulary.py")
    for vocabulary in VOCABULARIES:
        used = set(re.findall(rf"\b{vocabulary.__name__}\.([A-Z0-9_]+)", source))
        unused = {code.name for code in vocabulary} - used
        # a run's settings and energies are refused as its sweeps are, under the same code; the
        # codec has no document any more that it cannot encode, and codes are never taken away
        assert unused <= {"BAD_SETTINGS", "ENERGY_UNIT", "UNSERIALISABLE"}, vocabulary


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_code_is_explained(vocabulary):
    for code in vocabulary:
        assert code.words and code.meaning
        assert vocabulary.explain(code.value) == code.words
    assert vocabulary.explain("of_a_later_version") == "of_a_later_version"


def test_codes_of_signals():
    code = Flag.SATURATED.of("iff")
    assert (code, code.words) == ("saturated_iff", "iff is saturated")
    assert words.flag("low_flux_i0") == "i0 has few counts"


def future(message, arrays=None):
    """Frames of a later version: unknown fields, codes, arrays' fields and states everywhere."""
    topic, header, *buffers = encode(message, arrays)
    content = json.loads(header)
    content |= {"dose": {"unit": "MGy"}, "revision": 2}
    for name, value in (("quality", "of_a_later_version"), ("guessed", "crystal")):
        if name in content:
            content[name] = [*content[name], value]
    for name, value in (
        ("channel", "electron_yield"), ("direction", "sideways"), ("e0_policy", "model"),
        ("reason", "too_bright"), ("state", "degraded"), ("best", "refinement"),
    ):  # fmt: skip
        if name in content:
            content[name] = value
    if content["kind"] == "result":
        content["trust"]["state"] = "flagged"
        content["shells"][0]["r"]["std_trend"] = 0.001
        content["xanes"]["pre_edge"] = {"value": 0.2, "std": 0.1}
        for spec in content["arrays"]:
            spec["compression"] = None
    return [topic, json.dumps(content).encode(), *buffers]


MESSAGES = {
    "result": (result(), ARRAYS),
    "rejected": (rejected(), None),
    "status": (status(), None),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_the_future_is_valid_and_shown(kind):
    message = decode(future(*MESSAGES[kind]))
    jsonschema.validate(message.header, schemas()[f"message.{kind}.json"])
    state, screen, table = State(), Screen(), ResultTable()
    state.take(message)
    screen.take(message)
    screen.render()
    words.health_line(state.health())
    if kind == "status":
        assert rows([message]) == []
        return
    (row,) = rows([message])
    assert row["channel"] == "electron_yield"
    table.add(message.header, "run")
    (key,) = state.keys("run")
    glance = state.glance(key)
    assert "of_a_later_version" in words.remarks(glance.point, glance.newest.header)
    assert words.readout(glance.point, glance.newest.header)


def test_a_follower_hands_out_messages_of_the_future():
    publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)

    def send(message, arrays=None):
        """Publish as a later version would, by the socket and the ring of today's."""
        publisher._seq[f"{message.kind}."] += 1
        message.publisher, message.seq = publisher.uuid, publisher._seq[f"{message.kind}."]
        frames = future(message, arrays)
        publisher.ring.add(frames[0].decode(), message, frames)
        publisher._socket.send_multipart(frames)

    send(result(), ARRAYS)
    with Follower(publisher.address) as follower:
        (message,) = collect(follower, lambda m: m.header["kind"] == "result")
        assert message.header["trust"]["state"] == "flagged"
        np.testing.assert_allclose(message.arrays["energy"], ARRAYS["energy"])
        send(rejected(2))
        messages = collect(follower, lambda m: m.header["kind"] == "rejected")
        assert messages[-1].header["reason"] == "too_bright"
    publisher.close()


def test_replies_of_the_future_are_read():
    content = {"schema": "exafsd/1", "kind": "reply.error", "reason": "busy", "detail": "later",
            "retry_after": 2.0}  # fmt: skip
    assert read_reply(json.dumps(content).encode()).reason == "busy"
    jsonschema.validate(content | {"id": "", "publisher": "", "time": 0.0},
                        schemas()["reply.error.json"])  # fmt: skip


def test_a_card_that_says_more_is_read_but_not_another_reduction():
    content = json.loads((shipped_folder() / "cu-k-fcc" / CARD_FILE).read_text())
    jsonschema.validate(content | {"trained_by": "somebody"}, schemas()["card.json"])
    assert Card.model_validate(content | {"trained_by": "somebody"}).name == "cu-k-fcc"
    content["recipe"]["autobk"]["spline_order"] = 5  # would be other numbers
    with pytest.raises(ValueError, match="spline_order"):
        Card.model_validate(content)


def test_schemas_list_todays_codes_and_close_nothing():
    reason = schemas()["message.rejected.json"]["properties"]["reason"]
    assert "no_edge" in reason["x-known-values"]
    flags = schemas()["message.result.json"]["properties"]["quality"]
    assert {code.value for code in Flag} == set(flags["x-known-values"])
    for name, schema in schemas().items():
        if not name.startswith("ask."):
            text = json.dumps(schema)
            assert '"enum"' not in text, name
            assert '"additionalProperties": false' not in text, name

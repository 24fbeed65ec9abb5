"""Payloads of Kafka by the strict codec, and the account of what may be committed."""

import pickle

import msgpack
import msgpack_numpy
import numpy as np
import pytest

from exafsd import codec
from exafsd.documents import kafka_payload
from exafsd.documents.offsets import Mark, Offsets, Place

PARTITION = ("bluesky", 0)


def packed(document):
    return msgpack.packb(("event", document), default=msgpack_numpy.encode)


def test_documents_of_bluesky_kafka_are_read():
    document = {
        "data": {"e": np.arange(6.0).reshape(2, 3), "n": [np.array([1, 2], "i4")]},
        "one": np.float32(1.5),
        "text": np.array(["a", "bc"]),
        "empty": np.zeros(0),
    }
    name, back = kafka_payload.loads(packed(document))
    assert name == "event"
    np.testing.assert_array_equal(back["data"]["e"], document["data"]["e"])
    assert back["data"]["n"][0].dtype == "i4" and back["one"] == 1.5
    assert back["text"].tolist() == ["a", "bc"] and back["empty"].shape == (0,)


def test_our_own_payloads_are_read():
    name, back = kafka_payload.loads(codec.dumps(["event", {"a": np.arange(3)}]))
    assert name == "event" and back["a"].tolist() == [0, 1, 2]


def nested(levels):
    value = {b"nd": True}
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x92",
        msgpack.packb("event"),
        msgpack.packb(["event"]),
        msgpack.packb([1, {}]),
        packed({"a": np.array([{"x": 1}], dtype=object)}),  # a pickle in it
        packed({"a": np.zeros(2, [("x", "f8")])}),
        msgpack.packb(["event", {b"nd": True, b"type": "<f8", b"data": b"12345678"}]),
        msgpack.packb(["event", {b"nd": True, b"type": "<f8", b"shape": [2**70 % 2**60] * 9,
                                 b"data": b"12345678"}]),
        msgpack.packb(["event", {b"nd": True, b"type": "<f8", b"shape": [-1], b"data": b""}]),
        msgpack.packb(["event", {b"nd": True, b"type": "O", b"shape": [1],
                                 b"data": pickle.dumps(print)}]),
        msgpack.packb(["event", {b"nd": False, b"type": "<f8", b"data": b"1234"}]),
        msgpack.packb(["event", nested(400)]),
        packed({"a": np.arange(9.0)})[:-9],
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(payload):
    with pytest.raises(codec.CodecError):
        kafka_payload.loads(payload)


def place(offset, turn=0):
    return Place(PARTITION, offset, turn)


def committed(offsets):
    """What is committed once it has settled."""
    offsets.due()
    return offsets.due().get(PARTITION)


def test_an_offset_never_passes_the_start_of_the_oldest_open_run():
    offsets = Offsets()
    offsets.assign(PARTITION, 0, 0, 0)
    assert not offsets.began("a", place(0))
    assert not offsets.began("b", place(1))
    for n in range(10):
        offsets.passed(place(n))
    assert committed(offsets) == Mark(0, 10)
    offsets.ended("b")
    assert committed(offsets) is None  # a is open still
    offsets.began("c", place(10))
    offsets.passed(place(10))
    offsets.ended("a")
    assert committed(offsets) == Mark(10, 11)
    assert offsets.open_runs() == {"c"}
    offsets.ended("c")
    offsets.ended("unknown")
    assert committed(offsets) == Mark(11, 11)


def test_what_was_sent_just_now_is_not_committed_yet():
    offsets = Offsets()
    offsets.assign(PARTITION, 0, 0, 0)
    offsets.began("a", place(0))
    offsets.passed(place(0))
    assert offsets.due() == {}
    offsets.ended("a")
    assert offsets.due() == {PARTITION: Mark(0, 1)}
    assert offsets.due() == {PARTITION: Mark(1, 1)}
    assert offsets.due() == {}


def test_a_successor_knows_which_runs_had_ended_and_which_may_have_been_sent():
    offsets = Offsets()
    offsets.assign(PARTITION, begin=5, reached=20, end=30)
    assert offsets.of_ended_run(place(19)) and not offsets.of_ended_run(place(20))
    assert offsets.began("old", place(5)) and not offsets.began("new", place(30))
    offsets.passed(place(5))
    assert committed(offsets) == Mark(5, 20)  # what was reached is not forgotten


def test_documents_of_a_partition_given_up_are_not_for_us():
    offsets = Offsets()
    offsets.assign(PARTITION, 0, 0, 0)
    offsets.began("a", place(0))
    assert offsets.holds(place(0))
    assert offsets.revoke(PARTITION) == ["a"] and offsets.revoke(PARTITION) == []
    assert not offsets.holds(place(0)) and not offsets.open_runs()
    offsets.ended("a")
    offsets.assign(PARTITION, 0, 0, 9)
    assert not offsets.holds(place(0)) and offsets.holds(place(0, turn=offsets.turn(PARTITION)))

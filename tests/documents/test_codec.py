"""Whatever a plan's documents hold is sent; whatever arrives takes little memory and time."""

import logging
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exafsd import codec
from odd import VALUES

MEGA = 1_000_000


@pytest.mark.parametrize("name", VALUES)
def test_odd_values_go_as_text_and_the_others_as_they_are(name):
    value, arriving = VALUES[name]
    array = np.arange(3.0)
    back = codec.loads(codec.dumps({"odd": value, "seven": 7, "array": array}))
    assert back["seven"] == 7
    np.testing.assert_array_equal(back["array"], array)
    if arriving is not None:
        assert back["odd"] == arriving
    copied = codec.plain({"odd": value, "array": array})
    assert copied["array"] is array
    assert codec.loads(msgpack.packb(codec.plain({"seven": 7}))) == {"seven": 7}


def test_what_is_masked_does_not_arrive_as_a_number():
    back = codec.loads(codec.dumps(VALUES["masked"][0]))
    np.testing.assert_array_equal(back, [1.0, np.nan])


def test_a_type_that_goes_as_text_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(codec, "_as_text", set())
    with caplog.at_level(logging.WARNING, "exafsd.codec"):
        for _ in range(3):
            codec.dumps([VALUES["decimal"][0], VALUES["uuid"][0]])
    types = sorted(record.exafsd_fields["type"] for record in caplog.records)
    assert types == ["decimal.Decimal", "uuid.UUID"]


anything = st.recursive(
    st.sampled_from([value for name, (value, _) in VALUES.items() if name != "mute"])
    | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary() | st.none(),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.integers() | st.text(max_size=3) | st.tuples(st.integers()), inner),
    max_leaves=8,
)  # fmt: skip


@given(anything)
def test_whatever_is_sent_can_be_read(value):
    codec.loads(codec.dumps({"value": value}))


def array32(item, count):
    return b"\xdd" + struct.pack(">I", count) + item * count


def extension(data):
    return msgpack.packb(msgpack.ExtType(codec.ARRAY_EXT, data))


BOMBS = {
    "empty maps": array32(b"\x80", 20 * MEGA),
    "empty lists": array32(b"\x90", 20 * MEGA),
    "short strings": array32(b"\xa2ab", 7 * MEGA),
    "numbers": array32(b"\x01", 40 * MEGA),
    "maps of one": array32(b"\x81\x01\x02", 7 * MEGA),
    "nested": b"\x91" * MEGA,
    "fields": extension(msgpack.packb(("f8," * MEGA, (1,), bytes(8)))),
    "long dtype": extension(msgpack.packb(("<f8" + " " * 40, (1,), bytes(8)))),
    "subarray": extension(msgpack.packb(("(1000,1000)f8", (1,), bytes(8)))),
    "objects": extension(msgpack.packb(("|O8", (1,), bytes(8)))),
    "dimensions": extension(msgpack.packb(("<f8", (1,) * MEGA, bytes(8)))),
    "maps for an array": extension(array32(b"\x80", 20 * MEGA)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_that_would_grow_is_refused_at_once(name):
    bomb = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(codec.CodecError):
            codec.loads(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < max(10 * len(bomb), 32 * MEGA)


@pytest.mark.parametrize(
    "document",
    [
        {"data": {f"x{n}": list(np.arange(1000.0)) for n in range(50)}},
        {"metadata": {f"key{n}": "text " * 10 for n in range(5000)}},
        {"data": {"image": np.zeros((1000, 1000))}, "more": [{"a": [1, -5, 300, 70000, 2**40]}]},
        {"uid": [f"{n:032d}" for n in range(20_000)], "blob": b"\xc1" * 300_000, "t": "ä" * 9000},
    ],
)  # fmt: skip
def test_large_documents_are_read(document):
    data = codec.dumps(document)
    assert len(data) > codec.COUNTED
    back = codec.loads(data)
    np.testing.assert_equal(back, document)

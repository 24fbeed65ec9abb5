"""Bytes in: the strict codec, the pickle allow-list, the proxy source."""

import pickle
import time
from contextlib import suppress

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from exafsd import codec
from exafsd.documents import inbox as waiting
from exafsd.documents import unpickle
from exafsd.documents.inbox import Arrival, Inbox
from exafsd.documents.items import Trouble
from exafsd.documents.proxy import ProxySource


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit",))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=15,
)  # fmt: skip


@given(json_like)
def test_codec_round_trips_documents(value):
    assert codec.loads(codec.dumps(value)) == value


@given(nps.arrays(st.sampled_from(["f8", "f4", "i8", "u2", "?"]), nps.array_shapes(max_dims=2)))
def test_codec_round_trips_arrays(array):
    back = codec.loads(codec.dumps({"a": array}))["a"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.binary(max_size=200))
def test_codec_gives_a_codec_error_on_any_bytes_or_a_value(data):
    with suppress(codec.CodecError):
        codec.loads(data)


def test_unpickle_allows_arrays_and_refuses_code():
    document = {"uid": "x", "a": np.arange(3.0), "b": np.float64(2), "c": (1, {2}), "d": 1j}
    for protocol in (4, 5):
        back = unpickle.loads(pickle.dumps(document, protocol=protocol))
        np.testing.assert_array_equal(back["a"], document["a"])
        assert back["b"] == 2
    for bad in (Evil(), {"a": Evil()}, np.array([Evil()], dtype=object), print):
        with pytest.raises(ValueError, match="refused"):
            unpickle.loads(pickle.dumps(bad))
    with pytest.raises(ValueError, match="refused"):
        unpickle.loads(b"\x80\x04garbage")


@pytest.fixture
def publisher():
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    yield socket, f"tcp://127.0.0.1:{port}"
    socket.close(linger=0)
    context.term()


def arrivals(inbox, count):
    items = []
    end = time.monotonic() + 5
    while len(items) < count and time.monotonic() < end:
        item = inbox.get(0.1)
        if item is not None:
            items.append(item)
    return items


def receive(publisher, frames, **options):
    socket, address = publisher
    inbox = Inbox(100)
    source = ProxySource(inbox, address, **options)
    source.start()
    try:
        for _ in range(100):  # PUB drops until the subscriber is there
            socket.send(b" probe " + codec.dumps({}))
            if inbox.get(0.02) is not None:
                break
        time.sleep(0.05)
        while inbox.get(0) is not None:
            pass
        for frame in frames:
            socket.send(frame)
        return arrivals(inbox, len(frames)), inbox
    finally:
        source.stop()


def test_proxy_source_reports_bad_frames_and_reads_the_next(publisher):
    good = b" start " + codec.dumps({"uid": "x"})
    frames = [
        b"",
        b"start",
        b" start ",
        good[:-1],
        b" start " + pickle.dumps({"uid": "pickled"}),
        b" start \xc1\xc1",
        good,
    ]
    items, inbox = receive(publisher, frames)
    assert isinstance(items[-1], Arrival)
    assert items[-1].document == {"uid": "x"}
    problems = [f for f in items if isinstance(f, Trouble)]
    assert [p.reason for p in problems] == ["bad_frame"] * 4 + ["pickle", "bad_frame"]
    assert "serializer" in problems[4].detail
    assert inbox.drops == {"bad_frame": 5, "pickle": 1}


def test_proxy_source_reads_pickle_only_when_allowed(publisher):
    frames = [b" start " + pickle.dumps({"uid": "p"}), b" start " + pickle.dumps(Evil())]
    items, _ = receive(publisher, frames, allow_pickle=True)
    assert items[0].document == {"uid": "p"}
    assert items[1].reason == "bad_frame"


def test_a_full_inbox_counts_what_it_drops():
    inbox = Inbox(2)
    for i in range(5):
        inbox.put("event", {"i": i})
    assert len(inbox) == 2
    assert inbox.drops == {"inbox_full": 3}


def test_large_frames_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(waiting, "MOST_BYTES", 100)
    inbox, frames = Inbox(1000), [b"x" * 40] * 3
    inbox.attach(Frames(frames))
    assert inbox.pump() == 3
    assert len(inbox) == 2
    assert inbox.drops == {"inbox_full": 1}
    assert [inbox.get(0).document for _ in range(2)] == [frames[0]] * 2
    inbox.pump()  # there is room again
    assert len(inbox) == 2


class Frames:
    """A source that has the same frames again and again."""

    def __init__(self, frames):
        self._frames = frames

    keeps = False

    def pump(self, timeout):
        return self._frames

    def decode(self, frame):
        return "event", frame

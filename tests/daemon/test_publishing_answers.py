"""The ROUTER: requests over real sockets, malformed ones, peers that do not read."""

import hashlib
import json
import threading
import time

import jsonschema
import numpy as np
import pytest
import zmq

from exafsd.client import Answers, NoAnswer, Subscriber
from exafsd.contract.answers import LONGEST, answers_address
from exafsd.contract.card import Card
from exafsd.contract.frames import encode
from exafsd.contract.schemas import schemas
from exafsd.publishing import AddressError, Publisher, Ring
from exafsd.publishing.answers import HIGH_WATER
from exafsd.service import wiring
from exafsd.settings.analysis import Analysis, Reduction
from exafsd.settings.settings import load
from messages import ARRAYS, collect, joined, rejected, result, run_start, status, until


@pytest.fixture
def publisher():
    one = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    yield one
    one.close()


@pytest.fixture
def ask(publisher):
    with Answers(publisher.address) as one:
        yield one


@pytest.fixture
def raw(publisher):
    """A DEALER that sends whatever it is told to and gives back headers and frames."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(publisher.answers)

    def exchange(*frames):
        socket.send_multipart(frames)
        assert socket.poll(10_000), "no reply"
        header, *rest = socket.recv_multipart()
        if not header:  # an empty request looks like a REQ's envelope, and comes back as one
            header, *rest = rest
        return json.loads(header), rest

    yield exchange
    socket.close()
    context.term()


def test_snapshot_brings_the_state_as_it_was_published(publisher, ask):
    publisher.send(run_start())
    for sweep in (1, 2, 3):
        publisher.send(result(sweep), ARRAYS)
    publisher.send(rejected(4))
    publisher.send(status())
    got = {m.topic: m for m in ask.snapshot()}
    assert set(got) == {"run.start.", "result.Cu.K.", "rejected.Cu.K.", "status."}
    latest = got["result.Cu.K."]
    assert latest.header["sweep"] == 3
    assert latest.header["seq"] == 3
    np.testing.assert_array_equal(latest.arrays["k"], ARRAYS["k"].astype("<f4"))
    assert ask.topics("result.") == {"result.Cu.K.": (1, 3)}
    assert [m.topic for m in ask.snapshot("rejected.")] == ["rejected.Cu.K."]
    assert ask.snapshot("result.", arrays=False)[0].arrays == {}


def test_replay_gives_the_same_bytes_as_the_wire(publisher, raw):
    with Subscriber(publisher.address, ("result.", "status.")) as subscriber:
        joined(publisher, subscriber)
        for sweep in (1, 2):
            publisher.send(result(sweep), ARRAYS)
        wire = [subscriber._socket.recv_multipart() for _ in range(2)]
    request = {"ask": "replay", "topic": "result.Cu.K.", "from": 1, "to": 2, "id": "x"}
    header, frames = raw(json.dumps(request).encode())
    assert header["id"] == "x"
    assert header["frames"] == [11, 11]
    assert [frames[:11], frames[11:]] == wire


def test_a_long_replay_comes_in_pages_and_says_what_is_gone(publisher, ask, raw):
    publisher.ring = publisher._answers._ring = Ring(150)
    for sweep in range(1, 201):
        publisher.send(result(sweep), ARRAYS)
    assert [m.header["seq"] for m in ask.replay("result.Cu.K.", 20, 180)] == list(range(51, 181))
    request = {"ask": "replay", "topic": "result.Cu.K.", "from": 20, "to": 180}
    header, frames = raw(json.dumps(request).encode())
    assert header["missing"] == {"first": 20, "last": 50}
    assert header["next"] == 51 + len(header["frames"])
    assert sum(map(len, frames)) < 1_000_000


def test_a_rep_style_client_is_answered_too(publisher):
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.connect(answers_address(publisher.address))
    publisher.send(result(1), ARRAYS)
    for _ in range(3):
        socket.send_string('{"ask": "snapshot", "topic": "result."}')
        assert socket.poll(10_000)
        header, *frames = socket.recv_multipart()
        assert json.loads(header)["frames"] == [11]
        assert len(frames) == 11
    socket.close(linger=0)
    context.term()


def test_replies_are_valid_by_their_schemas(publisher, raw):
    publisher.send(result(1))
    by_file = schemas()
    for request in (
        {"ask": "snapshot"},
        {"ask": "replay", "topic": "result.Cu.K.", "from": 1, "to": 5},
        {"ask": "schema", "name": "message.result.json"},
        {"ask": "schema", "name": "nothing.json"},
    ):
        jsonschema.validate(request, by_file[f"ask.{request['ask']}.json"])
        header, frames = raw(json.dumps(request).encode())
        jsonschema.validate(header, by_file[f"{header['kind']}.json"])
        if header["kind"] == "reply.document":
            assert json.loads(frames[0]) == by_file["message.result.json"]
    assert header["reason"] == "unknown"


@pytest.mark.parametrize(
    "frames",
    [
        [b"garbage"],
        [b""],
        [b"[]"],
        [b"null"],
        [b"\xff\xfe"],
        [b"[" * 9000],
        [b'{"ask": "nothing"}'],
        [b'{"ask": "replay", "topic": "result.Cu.K.", "from": 0, "to": 5}'],
        [b'{"ask": "replay", "topic": "result.Cu.K.", "from": "all", "to": 5}'],
        [b'{"ask": "replay", "topic": 3, "from": 1, "to": 5}'],
        [b'{"ask": "snapshot", "surprise": 1}'],
        [b'{"ask": "snapshot"}', b"and more"],
    ],
)
def test_malformed_requests_get_an_error_and_disturb_nothing(publisher, raw, frames):
    header, rest = raw(*frames)
    assert header["kind"] == "reply.error"
    assert header["reason"] == "bad_request"
    assert header["detail"]
    assert rest == []
    publisher.send(result(1))
    assert raw(b'{"ask": "snapshot", "id": "after"}')[0]["id"] == "after"


def test_a_request_that_is_too_long_only_costs_its_connection(publisher, ask):
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(publisher.answers)
    socket.send(b"x" * (LONGEST + 2))
    assert not socket.poll(300)
    socket.close(linger=0)
    context.term()
    publisher.send(result(1))
    assert len(ask.snapshot()) == 1


def test_a_replay_of_another_publisher_is_refused(publisher, raw):
    publisher.send(result(1))
    request = {"ask": "replay", "topic": "result.Cu.K.", "from": 1, "to": 1, "publisher": "old"}
    assert raw(json.dumps(request).encode())[0]["reason"] == "other_publisher"


def test_a_peer_that_asks_and_does_not_read_is_dropped(publisher, ask):
    """It costs some pages of memory; everybody else is served, and it is counted."""
    for sweep in range(1, 201):
        publisher.send(result(sweep), ARRAYS)
    context = zmq.Context()
    greedy = context.socket(zmq.DEALER)
    greedy.rcvhwm = 1
    greedy.connect(publisher.answers)
    request = json.dumps({"ask": "replay", "topic": "result.Cu.K.", "from": 1, "to": 200}).encode()

    def dropped():
        for _ in range(20):
            greedy.send(request)
        assert len(ask.snapshot("result.")) == 1
        return publisher._answers.drops["reply"] > 10

    until(dropped)
    with Subscriber(publisher.address, "status.") as subscriber:
        joined(publisher, subscriber)
        publisher.send(status(drops={"bad_frame": 1}))
        newest = collect(subscriber, lambda m: True)[-1].header
    assert newest["drops"]["reply"] > 10
    assert newest["drops"]["bad_frame"] == 1
    greedy.close(linger=0)
    context.term()
    assert HIGH_WATER * 1_000_000 < 10_000_000


def test_answering_does_not_stop_publishing(publisher):
    """Messages sent while a client replays the ring again and again are all there, in order."""
    for sweep in range(1, 501):
        publisher.send(result(sweep), ARRAYS)
    stop = threading.Event()
    pages = []

    def replay():
        with Answers(publisher.address) as one:
            while not stop.is_set():
                pages.append(sum(1 for _ in one.replay("result.Cu.K.", 1, 500)))

    thread = threading.Thread(target=replay)
    thread.start()
    with Subscriber(publisher.address, ("result.", "status.")) as subscriber:
        joined(publisher, subscriber)
        got = []
        for sweep in range(501, 801):
            publisher.send(result(sweep), ARRAYS)
            got.append(subscriber.receive(5).header["seq"])
    stop.set()
    thread.join()
    assert got == list(range(501, 801))
    assert pages
    assert set(pages) == {500}


def test_status_says_where_to_ask_and_what_was_sent_last(publisher):
    with Subscriber(publisher.address, "status.") as subscriber:
        joined(publisher, subscriber)
        publisher.send(result(1))
        publisher.send(result(2))
        publisher.send(status())
        header = collect(subscriber, lambda m: True)[-1].header
    assert header["answers"] == publisher.answers == answers_address(publisher.address)
    assert header["seqs"] == {"result.Cu.K.": 2}
    assert header["heartbeat"] == 0.1


def test_the_answers_may_be_elsewhere():
    one = Publisher("tcp://127.0.0.1:*", answers="tcp://127.0.0.1:*")
    try:
        one.send(result(1))
        with Answers(one.address, answers=one.answers) as ask:
            assert len(ask.snapshot()) == 1
        with pytest.raises(AddressError, match=r"publish\.answers"):
            Publisher("tcp://127.0.0.1:*", answers=one.answers)
    finally:
        one.close()
    with pytest.raises(AddressError, match=r"publish\.answers.*loopback"):
        Publisher("tcp://127.0.0.1:*", answers="tcp://0.0.0.0:*")


def test_arrays_on_one_result_in_three_of_a_channel():
    one = Publisher("tcp://127.0.0.1:*", array_every=3)
    try:
        for sweep in range(1, 8):
            for channel in ("transmission", "reference"):
                one.send(result(sweep, channel=channel), ARRAYS)
        with Answers(one.address) as ask:
            got = list(ask.replay("result.Cu.K."))
    finally:
        one.close()
    for channel in ("transmission", "reference"):
        of_channel = [m for m in got if m.header["channel"] == channel]
        assert [bool(m.arrays) for m in of_channel] == [
            True,
            False,
            False,
            True,
            False,
            False,
            True,
        ]
        assert [len(m.header["arrays"]) for m in of_channel] == [9, 0, 0, 9, 0, 0, 9]
        assert all(m.header["shells"] for m in of_channel)


def test_settings_and_card_behind_a_result_by_their_hashes():
    settings = load(publish={"address": "tcp://127.0.0.1:*"})
    one = wiring.make_publisher(settings)
    special = Analysis(reduction=Reduction(e0_policy="auto"))
    one.library.keep_settings(special)
    try:
        with Answers(one.address) as ask:
            for analysis in (settings.analysis, special):
                answer = ask.settings(analysis.sha256)
                assert answer["reduction"]["e0_policy"] == analysis.reduction.e0_policy
                text = json.dumps(answer, sort_keys=True, separators=(",", ":")).encode()
                assert hashlib.sha256(text).hexdigest() == analysis.sha256
            cards = list(wiring.read_cards(settings))
            assert cards
            for sha256 in cards:
                assert Card.model_validate(ask.card(sha256)).model_sha256 == sha256
            with pytest.raises(NoAnswer, match="no settings"):
                ask.settings("0" * 64)
    finally:
        one.close()


def test_nobody_there_is_said():
    with (
        Answers("tcp://127.0.0.1:9", timeout=0.2) as ask,
        pytest.raises(NoAnswer, match="nothing at"),
    ):
        ask.snapshot()


def test_closing_is_quick_and_leaves_no_thread(publisher):
    before = threading.active_count()
    one = Publisher("tcp://127.0.0.1:*")
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < 1
    assert threading.active_count() == before
    assert encode(result(1))  # the contract itself needs no sockets

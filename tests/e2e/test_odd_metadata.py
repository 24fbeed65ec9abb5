"""A real RunEngine with whatever people put into metadata: no scan stops, all is read."""

import time

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import zmq
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

import exafsd
from exafsd.client import Subscriber
from exafsd.codec import loads
from exafsd.settings import load
from exafsd.testing.devices import SweepDetector
from odd import VALUES
from synthetic import METADATA, sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0)
#: what the RunEngine itself refuses: it copies metadata and makes JSON of it
REFUSED = ("circle", "keys", "mute", "proxy", "generator")
ACCEPTED = [value for name, (value, _) in VALUES.items() if name not in REFUSED]


def detector():
    one = SweepDetector(len(ENERGY))
    values = {"energy": ENERGY, **COLUMNS}
    one.read = lambda: {k: {"value": v, "timestamp": 0.0} for k, v in values.items()}
    one.describe = lambda: {
        k: {"source": "sim", "dtype": "array", "shape": list(np.shape(v))}
        for k, v in values.items()
    }
    return one


def plan(device, value):
    yield from bps.open_run(
        md={**METADATA, "sample": {"what": value}, "proposal": {"inner": [value]}}
    )
    yield from bps.trigger_and_read([device])
    yield from bps.close_run()


@pytest.fixture
def engine():
    return RunEngine({}, context_managers=[], call_returns_result=False)


def test_live_takes_any_metadata_and_the_plan_goes_on(engine, tmp_path):
    settings = load(
        publish={"address": "tcp://127.0.0.1:*"},
        reduction={"channels": ["transmission"]},
        inference={"enabled": False},
        journal={"folder": str(tmp_path / "journal")},
    )
    live = exafsd.Live(settings)
    subscriber = Subscriber(live._service._publisher.address, "")
    device = detector()
    try:
        engine.subscribe(live)
        subscriber.receive(5)
        for value in ACCEPTED:
            engine(plan(device, value))  # an exception in a callback would be raised here
        results, end = 0, time.monotonic() + 60
        while results < len(ACCEPTED) and time.monotonic() < end:
            message = subscriber.receive(0.5)
            results += message is not None and message.header["kind"] == "result"
        assert results == len(ACCEPTED)
        assert not live._service._problem_counts
    finally:
        live.close()
        subscriber.close()
    assert len(list((tmp_path / "journal").glob("*.msgpack"))) == len(ACCEPTED)


def test_the_publisher_of_the_howto_takes_any_metadata(engine):
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"")
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    publisher = Publisher(f"127.0.0.1:{port}", serializer=exafsd.dumps)
    try:
        for _ in range(50):  # PUB drops until the subscriber is there
            publisher("probe", {})
            if socket.poll(100):
                break
        engine.subscribe(publisher)
        device = detector()
        for value in ACCEPTED:
            engine(plan(device, value))
        starts = []
        while socket.poll(500):
            _, name, payload = socket.recv().split(b" ", 2)
            if name == b"start":
                starts.append(loads(payload))
        assert [start["element"] for start in starts] == ["Cu"] * len(ACCEPTED)
    finally:
        publisher.close()
        socket.close(0)
        context.term()

"""The daemon on a tiled server with a streaming cache, which a `TiledWriter` writes to."""

import gc
import json
import threading
import time

import pytest
from bluesky_tiled_plugins import TiledWriter
from test_keeping import port  # noqa: F401  # a fixture
from tiled.client import from_uri

from exafsd.client import Follower
from exafsd.pipeline import Outcome
from exafsd.service import wiring
from exafsd.service.intake import Intake
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from simulated import shapes
from synthetic import METADATA, sweep_columns

# the client of tiled leaves connections to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
SWEEPS = [sweep_columns(n, points=300) for n in range(4)]
#: for shapes of which each point is written for itself
SHORT = [sweep_columns(n, points=120) for n in range(2)]
TYPES = {"XAFS_HDF5": "application/x-hdf5"}


@pytest.fixture(autouse=True)
def collected():
    """No connection is left for the collector in a test of another module."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(scope="module")
def server(tmp_path_factory, assets):
    with CatalogServer(tmp_path_factory.mktemp("catalog"), [assets], streaming=True) as server:
        yield server


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    client = from_uri(server.uri, api_key=server.api_key)
    yield client
    client.context.close()


@pytest.fixture
def write(client):
    """Writes documents as a beamline does, each row at once."""
    writer = TiledWriter(client, batch_size=1, spec_to_mimetype=TYPES)

    def write(documents):
        for name, document in documents:
            writer(name, document)

    return write


class Daemon:
    """A service in a thread of this process, that follows the server's catalog."""

    def __init__(self, server, folder=None, **more):
        journal = {"enabled": False} if folder is None else {"folder": folder / "journal"}
        self.settings = load(
            source={"tiled": {"catalog": server.uri}, "asset_patience": 1.0},
            publish={"address": "tcp://127.0.0.1:*", "heartbeat": 0.1},
            journal=journal,
            backfill={"wait": 5.0},
            reduction={"channels": ["transmission"]},
            inference={"model": None, "polish": "off"},
            composition={"enabled": "off"},
            service={"audit_every": 0, "models_every": 0},
            **more,
        )
        self.intake = Intake.open(self.settings)
        self.service, self.inbox = wiring.make_service(self.settings, intake=self.intake)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()
        self.follower = Follower(self.service._publisher.address, start="ring")

    def __enter__(self):
        self.collect(lambda h: h["kind"] == "status" and h["source"]["connected"])
        return self

    def collect(self, condition, timeout=60):
        headers = []
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.follower.receive(0.1)
            if message is not None:
                headers.append(message.header)
                if condition(message.header):
                    return headers
        pytest.fail(f"nothing came; last: {headers[-2:]}")

    def run(self, uid):
        """Headers up to the end of a run, those of it alone; its status afterwards."""
        headers = self.collect(lambda h: h["kind"] == "run.stop" and h["run_uid"] == uid)
        (status,) = self.collect(lambda h: h["kind"] == "status")[-1:]
        return [h for h in headers if h.get("run_uid") == uid], status

    def __exit__(self, *_):
        self.follower.close()
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.service._healing._backfill.stop(10.0)


def expected(daemon, documents, roots=()):
    """Outcomes of the documents as they come through 0MQ, by id."""
    settings = daemon.settings
    session = wiring.make_session(settings, wiring.make_pipeline(settings), roots)
    events = session.replay(documents)
    return {e.message.id: e.message for e in events if isinstance(e, Outcome)}


def compare(headers, messages):
    """Same ids, each once, and the same numbers."""
    outcomes = {h["id"]: h for h in headers if "id" in h}
    assert sorted(h["id"] for h in headers if "id" in h) == sorted(messages)
    for uid, message in messages.items():
        header, theirs = outcomes[uid], json.loads(message.model_dump_json())
        assert header["kind"] == theirs["kind"]
        if header["kind"] == "result":
            for name in ("e0", "edge_step", "epsilon_k"):
                assert header[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-7), name
            assert header["quality"] == theirs["quality"]


SHAPES = {
    "event": SHORT, "page": SHORT, "array": SWEEPS, "monitor": SHORT, "resource": SWEEPS,
    "stream": SWEEPS,
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_results_of_each_shape_are_those_through_0mq(server, write, assets, shape):
    uid = f"shape-{shape}"
    about = {**METADATA, "uid": uid, "time": time.time()}
    documents = list(shapes.SHAPES[shape](SHAPES[shape], about, assets))
    with Daemon(server) as daemon:
        write(documents)
        headers, status = daemon.run(uid)
        compare(headers, expected(daemon, documents, (assets,)))
    assert not status["degraded"] and not status["drops"]
    assert status["source"]["address"] == server.uri

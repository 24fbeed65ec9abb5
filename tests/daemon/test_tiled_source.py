"""The daemon on a tiled server with a streaming cache, which a `TiledWriter` writes to."""

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from exafsd.archive.catalog import documents as stored_documents
from exafsd.archive.followed_run import REMEMBERED, RowMemory
from exafsd.archive.journaled import read_journal
from exafsd.client import Follower
from exafsd.contract.vocabulary import Problem
from exafsd.outcome import Outcome
from exafsd.service import wiring
from exafsd.service.intake import Intake
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from exafsd.testing.processes import proxy
from messages import collect_headers
from simulated import shapes
from synthetic import METADATA, sweep_columns

# the client of tiled leaves connections to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
SWEEPS = [sweep_columns(n, points=300) for n in range(4)]
#: for shapes of which each point is a row
SHORT = [sweep_columns(n, points=80) for n in range(2)]
#: as `TiledWriter` has it by default
BATCH_SIZE = 10_000
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
    """Writes documents as a beamline does, each row at once unless said."""
    writers = {}

    def write(documents, batch=1):
        if batch not in writers:
            writers[batch] = TiledWriter(client, batch_size=batch, spec_to_mimetype=TYPES)
        for name, document in documents:
            writers[batch](name, document)

    return write


class Daemon:
    """A service in a thread of this process, that follows the server's catalog."""

    def __init__(self, uri, folder=None, source=None):
        journal = {"enabled": False} if folder is None else {"folder": folder / "journal"}
        self.settings = load(
            source=source or {"tiled": {"catalog": uri}, "asset_patience": 1.0},
            publish={"address": "tcp://127.0.0.1:*", "heartbeat": 0.1},
            journal=journal,
            backfill={"wait": 3.0},
            reduction={"channels": ["transmission"]},
            # nothing that is left out under load
            inference={"polish": "off", "model": "cu-k-fcc"},
            composition={"enabled": "off"},
            service={"audit_every": 0, "models_every": 0},
        )
        self.intake = Intake.open(self.settings)
        self.service, self.inbox = wiring.make_service(self.settings, intake=self.intake)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()
        self.follower = Follower(self.service._publisher.address, start="ring")

    def __enter__(self):
        return self

    def connected(self):
        self.collect(lambda h: h["kind"] == "status" and h["source"]["connected"])
        return self

    def collect(self, condition, timeout=60):
        return collect_headers(self.follower, condition, timeout)

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
        if (backfill := self.service._gap_filling_feed._backfill) is not None:
            backfill.stop(10.0)


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


#: sweeps, and rows that are written at once: a writer needs some 0.1 s each time
SHAPES = {
    "event": (SHORT[:1], 1), "page": (SHORT, 30), "monitor": (SHORT, 30), "array": (SWEEPS, 1),
    "resource": (SWEEPS, 1), "stream": (SWEEPS, 1),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_results_of_each_shape_are_those_through_0mq(server, write, assets, shape):
    uid = f"shape-{shape}"
    about = {**METADATA, "uid": uid, "time": time.time()}
    sweeps, batch = SHAPES[shape]
    documents = list(shapes.SHAPES[shape](sweeps, about, assets))
    with Daemon(server.uri) as daemon:
        daemon.connected()
        write(documents, batch)
        headers, status = daemon.run(uid)
        compare(headers, expected(daemon, documents, (assets,)))
    assert not status["degraded"] and not status["drops"]
    assert status["source"]["address"] == server.uri


def array_run(uid, **more):
    return list(shapes.array_events(SWEEPS, {**METADATA, "uid": uid, "time": time.time(), **more}))


def test_a_plan_that_went_back_to_a_checkpoint(server, client, write):
    """It measures a row again; the columns of rows after it are not moved, live or in a replay."""
    documents = array_run("went-back")
    at = [place for place, (name, _) in enumerate(documents) if name == "event"]
    again = dict(documents[at[1]][1], uid="again", time=documents[at[1]][1]["time"] + 1e-6)
    documents.insert(at[1] + 1, ("event", again))
    with Daemon(server.uri) as daemon:
        daemon.connected()
        write(documents)
        headers, _ = daemon.run("went-back")
        messages = expected(daemon, documents)
        compare(once(headers, "went-back"), messages)
        archived = list(stored_documents(client["went-back"]))
        assert [d["seq_num"] for n, d in archived if n == "event"] == [1, 2, 2, 3, 4]
        replayed = expected(daemon, archived)
    assert {uid: m.e0 for uid, m in replayed.items()} == pytest.approx(
        {uid: m.e0 for uid, m in messages.items()}, rel=1e-6
    )


def test_results_come_while_the_run_is_written(server, write):
    documents = array_run("live-run")
    with Daemon(server.uri) as daemon:
        daemon.connected()
        for number, document in enumerate(documents[:-1]):
            write([document])
            if number >= 2:
                daemon.collect(lambda h, n=number - 1: h.get("sweep") == n)
        write(documents[-1:])
        headers, _ = daemon.run("live-run")
    assert not [h for h in headers if "id" in h]  # all were there before the end


def test_a_run_comes_at_its_end_where_rows_are_written_in_batches(server, write):
    documents = array_run("batched-run")
    with Daemon(server.uri) as daemon:
        daemon.connected()
        write(documents[:-1], BATCH_SIZE)
        headers = daemon.collect(lambda h: h["kind"] == "status" and h["queues"]["runs"])
        write(documents[-1:], BATCH_SIZE)
        more, status = daemon.run("batched-run")
        compare(more, expected(daemon, documents))
    assert not [h for h in headers if "id" in h] and not status["drops"]


def test_a_server_that_is_killed_loses_and_repeats_nothing(tmp_path, monkeypatch):
    """Its memory of messages is gone, too: what came meanwhile is read."""
    documents = array_run("killed-server")
    with CatalogServer(tmp_path / "catalog", streaming=True) as server:
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        client = from_uri(server.uri, api_key=server.api_key)
        writer = TiledWriter(client, batch_size=1)
        with Daemon(server.uri) as daemon:
            daemon.connected()
            for name, document in documents[:4]:
                writer(name, document)
            headers = daemon.collect(lambda h: h.get("sweep") == 2)
            server.kill()
            rest = threading.Timer(0.5, lambda: [writer(*one) for one in documents[4:]])
            rest.start()
            headers += daemon.collect(lambda h: h["kind"] == "status" and h["degraded"])
            assert headers[-1]["source"]["connected"] is False
            assert "no tiled server answers" in headers[-1]["degraded"][0]
            server.start()
            more, status = daemon.run("killed-server")
            rest.join()
            compare(headers + more, expected(daemon, documents))
        client.context.close()
    assert status["source"]["connected"] and not status["drops"]


def test_an_open_run_is_taken_up_from_its_first_document(server, write):
    documents = array_run("open-before")
    write(documents[:4])
    write(array_run("ended-before"))
    with Daemon(server.uri) as daemon:
        headers = daemon.collect(lambda h: h.get("sweep") == 2)
        write(documents[4:])
        more, _ = daemon.run("open-before")
        compare([h for h in headers if h.get("run_uid") == "open-before"] + more,
                expected(daemon, documents))  # fmt: skip
    assert "ended-before" not in {h.get("run_uid") for h in headers + more}


def once(headers, uid):
    """Outcomes of a run as a follower of both daemons gets them: a new one gets former ones, too.

    A daemon with a journal also fetches runs that ended shortly before, which other tests wrote.
    """
    outcomes = {h["id"]: h for h in headers if "id" in h and h["run_uid"] == uid}
    return list(outcomes.values())


def test_a_daemon_goes_on_where_the_one_before_was(server, write, tmp_path):
    """With its journal; what was written while none was there is not missing."""
    documents = array_run("two-daemons")
    with Daemon(server.uri, tmp_path) as daemon:
        daemon.connected()
        write(documents[:4])
        headers = daemon.collect(lambda h: h.get("sweep") == 2)
    write(documents[4:5])
    with Daemon(server.uri, tmp_path) as daemon:
        headers += daemon.collect(lambda h: h.get("sweep") == 3)
        write(documents[5:])
        more, _ = daemon.run("two-daemons")
        compare(once(headers + more, "two-daemons"), expected(daemon, documents))
    (journaled,) = read_journal(tmp_path / "journal", uid="two-daemons")
    names = [name for name, _ in journaled.documents()]
    assert names == [name for name, _ in documents]


def test_a_run_that_ended_without_a_daemon_is_completed(server, write, tmp_path):
    documents = array_run("ended-without")
    with Daemon(server.uri, tmp_path) as daemon:
        daemon.connected()
        write(documents[:4])
        headers = daemon.collect(lambda h: h.get("sweep") == 2)
    write(documents[4:])
    with Daemon(server.uri, tmp_path) as daemon:
        more, _ = daemon.run("ended-without")
        compare(once(headers + more, "ended-without"), expected(daemon, documents))


def test_runs_of_our_own_results_are_left_out(server, write):
    with Daemon(server.uri) as daemon:
        daemon.connected()
        write(array_run("own-results", plan_name="exafsd"))
        write(array_run("raw-after-own"))
        headers = daemon.collect(lambda h: h["kind"] == "run.stop")
    assert {h["run_uid"] for h in headers if "run_uid" in h} == {"raw-after-own"}


def test_a_file_that_is_gone_is_told_with_what_heals_it(server, write, assets, monkeypatch):
    """The run ends all the same, and others go on."""
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_TIMEOUT", 2.0)  # s
    about = {**METADATA, "uid": "file-is-gone", "time": time.time()}
    documents = list(shapes.stream_assets(SWEEPS, about, assets))
    (resource, *_) = [document for name, document in documents if name == "stream_resource"]
    Path(resource["uri"].removeprefix("file://localhost")).unlink()
    with Daemon(server.uri) as daemon:
        daemon.connected()
        write(documents)
        headers, status = daemon.run("file-is-gone")
        write(array_run("after-the-file"))
        others, _ = daemon.run("after-the-file")
    heal = f"exafsd replay {server.uri} --uid file-is-gone"
    assert sum(heal in problem for problem in status["problems"]) >= 1, status["problems"]
    assert status["drops"][Problem.TILED_UNREAD] == 1
    assert not [h for h in headers if "id" in h]
    assert len([h for h in others if "id" in h]) == len(SWEEPS)


def test_a_server_that_does_not_stream_or_refuses_is_told(tmp_path, monkeypatch):
    with CatalogServer(tmp_path / "catalog") as server:
        monkeypatch.setenv("TILED_API_KEY", "wrong")
        with Daemon(server.uri) as daemon:
            (status,) = daemon.collect(lambda h: h["kind"] == "status" and h["degraded"])[-1:]
        assert "401" in status["degraded"][0], status["degraded"]
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        with Daemon(server.uri) as daemon:
            (status,) = daemon.collect(lambda h: h["kind"] == "status" and h["degraded"])[-1:]
    assert not status["source"]["connected"]
    assert f"source.tiled.catalog {server.uri}: it does not stream" in status["degraded"][0]


def test_a_run_engine_that_archives_and_publishes_gives_both_the_same(
    server, tmp_path, monkeypatch
):
    """Two daemons, one behind the proxy, one behind tiled, and a beamline in its own process."""
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    with proxy(tmp_path) as (into, out):
        live = {"address": out}
        with Daemon(server.uri) as tiled, Daemon(server.uri, source=live) as plain:
            tiled.connected()
            plain.connected()
            options = ["--shape", "array", "--sweeps", "6", "--rate", "4", "--points", "300"]
            command = ["-m", "exafsd.testing.beamline", "--proxy", into, "--tiled", server.uri]
            beamline = [sys.executable, *command, "--tiled-batch", "1", *options]
            subprocess.run(beamline, check=True, timeout=120)
            ours = tiled.collect(lambda h: h["kind"] == "run.stop")
            theirs = plain.collect(lambda h: h["kind"] == "run.stop")
    by_id = [{h["id"]: h for h in headers if "id" in h} for headers in (ours, theirs)]
    assert by_id[0].keys() == by_id[1].keys() and len(by_id[1]) == 6
    for uid, header in by_id[0].items():
        other = by_id[1][uid]
        assert header["e0"] == pytest.approx(other["e0"], rel=1e-5)
        assert [s["r"]["value"] for s in header["shells"]] == pytest.approx(
            [s["r"]["value"] for s in other["shells"]], rel=1e-5
        )


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="a daemon has one source"):
        load(
            source={
                "tiled": {"catalog": "http://127.0.0.1:1"},
                "kafka": {"servers": ["127.0.0.1:9"], "topics": ["t"]},
            }
        )


def test_rows_are_remembered_as_long_as_a_writer_may_write_them_again():
    rows = RowMemory()
    for number in range(1, 3 * REMEMBERED):
        rows.add((number, 10.0 + number))
    assert (1, 11.0) in rows and (3 * REMEMBERED - 1, 9.0 + 3 * REMEMBERED) in rows
    assert (3 * REMEMBERED, 0.0) not in rows  # a row that is new, however early
    assert (3 * REMEMBERED - 1, 1e9) not in rows  # the plan has gone back

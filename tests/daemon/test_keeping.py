"""A daemon that ends in mid-run: the next one goes on, and everything that is lost is told."""

import json
import resource
import socket
import threading
import time
from contextlib import suppress

import h5py
import pytest
from typer.testing import CliRunner

from exafsd.archive.journaled import JournaledRun, read_journal
from exafsd.archive.outcome_log import folder_beside, read_log, read_state
from exafsd.cli import app
from exafsd.client import Follower
from exafsd.service import wiring
from exafsd.service.intake import Intake
from exafsd.settings.settings import load
from exafsd.testing.parts import free_ports
from messages import collect_headers
from simulated import shapes
from synthetic import METADATA, sweep_columns

SWEEPS = [sweep_columns(n, points=300) for n in range(12)]


class Daemon:
    """A service in a thread of this process."""

    def __init__(self, folder, port, **more):
        self.settings = load(
            publish={"address": f"tcp://127.0.0.1:{port}", "heartbeat": 0.1},
            journal={"folder": folder / "journal"},
            reduction={"channels": ["transmission"]},
            inference={"polish": "off"},
            composition={"enabled": "off"},
            **more,
        )
        self.service, self.inbox = wiring.make_service(self.settings, proxy=False)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()

    def feed(self, documents):
        for name, document in documents:
            self.inbox.put(name, document)

    def stop(self):
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


class Mute:
    """A socket that sends nothing."""

    def __init__(self, socket):
        self.close = socket.close

    def send_multipart(self, frames, copy=False):
        pass


@pytest.fixture
def port():
    """One that is free, as the next is, where requests are answered."""
    while True:
        (one,) = free_ports(1)
        with suppress(OSError, OverflowError), socket.socket() as answers:
            answers.bind(("127.0.0.1", one + 1))
            return one


def ids(headers):
    return [h["id"] for h in headers if "id" in h]


def logged(folder):
    return [e for p in folder_beside(folder / "journal").glob("*.log") for e in read_log(p)]


def test_a_run_goes_on_after_a_restart(tmp_path, port):
    documents = list(shapes.array_events(SWEEPS, {**METADATA, "uid": "one"}))
    first = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        collect_headers(follower, lambda h: h["kind"] == "status")
        first.feed(documents[:7])
        headers = collect_headers(follower, lambda h: h.get("sweep") == 5)
        first.stop()
        second = Daemon(tmp_path, port)
        second.feed(documents[7:])
        headers += collect_headers(follower, lambda h: h["kind"] == "run.stop")
        headers += collect_headers(follower, lambda h: h["kind"] == "status" and h["uptime"] > 3)
        second.stop()
    expected = [f"one/primary/transmission/K/{n}" for n in range(1, 13)]
    assert ids(headers) == expected
    starts = [h["delivery"] for h in headers if h["kind"] == "run.start"]
    assert starts == ["live", "resumed"]
    (stop,) = [h for h in headers if h["kind"] == "run.stop"]
    assert (stop["results"], stop["exit_status"]) == (12, "success")
    assert [e.id for e in logged(tmp_path) if e.id] == expected
    left = folder_beside(tmp_path / "journal")
    assert {path.suffix for path in left.iterdir()} == {".log"}  # nothing to go on with
    statuses = [h for h in headers if h["kind"] == "status" and h["former"]]
    assert statuses and statuses[-1]["former"][0]["last"]["result.Cu.K."] == 5


def test_a_fast_run_is_saved_by_its_sweeps(tmp_path, port, monkeypatch):
    monkeypatch.setattr("exafsd.service.run_store.SWEEPS", 4)
    daemon = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        daemon.feed(list(shapes.array_events(SWEEPS, {**METADATA, "uid": "fast"}))[:10])
        collect_headers(follower, lambda h: h.get("sweep") == 8)
        collect_headers(follower, lambda h: h["kind"] == "status")
        (state,) = folder_beside(tmp_path / "journal").glob("*.state")
        saved = read_state(state.parent, state.stem)  # long before the 30 s
        daemon.stop()
    assert saved is not None and saved.journal > 0


def test_what_was_not_sent_is_sent_once(tmp_path, port):
    """Killed between the log and the socket: the former publisher's message is asked for."""
    documents = list(shapes.array_events(SWEEPS, {**METADATA, "uid": "one"}))
    first = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        collect_headers(follower, lambda h: h["kind"] == "status")
        first.feed(documents[:5])
        headers = collect_headers(follower, lambda h: h.get("sweep") == 3)
        publisher = first.service._publisher
        publisher._socket = Mute(publisher._socket)  # what a kill does
        first.feed(documents[5:8])
        end = time.monotonic() + 20
        while len([e for e in logged(tmp_path) if e.id]) < 6 and time.monotonic() < end:
            time.sleep(0.05)
        first.stop()
        second = Daemon(tmp_path, port)
        second.feed(documents[8:])
        headers += collect_headers(follower, lambda h: h["kind"] == "run.stop")
        headers += collect_headers(follower, lambda h: h["kind"] == "status" and h["uptime"] > 3)
        second.stop()
    found = ids(headers)
    assert sorted(found, key=lambda one: int(one.rpartition("/")[2])) == [
        f"one/primary/transmission/K/{n}" for n in range(1, 13)
    ]


def test_a_state_that_is_damaged_is_told_and_the_run_made_again_from_its_documents(tmp_path, port):
    documents = list(shapes.array_events(SWEEPS, {**METADATA, "uid": "one"}))
    first = Daemon(tmp_path, port)
    first.feed(documents[:7])
    end = time.monotonic() + 30
    while len(logged(tmp_path)) < 7 and time.monotonic() < end:
        time.sleep(0.05)
    first.stop()
    (state,) = folder_beside(tmp_path / "journal").glob("*.state")
    raw = bytearray(state.read_bytes())
    raw[len(raw) // 2] ^= 1
    state.write_bytes(raw)
    second = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        second.feed(documents[7:])
        headers = collect_headers(follower, lambda h: h["kind"] == "run.stop")
        headers += collect_headers(follower, lambda h: h["kind"] == "status")
        second.stop()
    assert sorted(e.key for e in logged(tmp_path) if e.id) == sorted(
        (f"one/primary/transmission/K/{n}", 1) for n in range(1, 13)
    )
    status = [h for h in headers if h["kind"] == "status"][-1]
    assert any(text.startswith("journal_damaged") for text in status["problems"])
    assert status["state"] == "degraded" and status["losses"]["journal_damaged"]


def test_a_run_that_ends_the_daemon_again_and_again_is_left_alone(tmp_path, port):
    documents = list(shapes.array_events(SWEEPS, {**METADATA, "uid": "bad"}))
    first = Daemon(tmp_path, port)
    first.feed(documents[:4])
    time.sleep(0.5)
    first.stop()
    (state,) = folder_beside(tmp_path / "journal").glob("*.state")
    state.with_suffix(".tries").write_bytes(b".....")
    second = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        (*_, status) = collect_headers(follower, lambda h: h.get("problems"))
    second.stop()
    assert "left alone" in status["problems"][0]
    assert not state.exists() and not state.with_suffix(".tries").exists()


def test_nobody_at_the_source_is_told_within_three_seconds(port):
    (nobody,) = free_ports(1)
    settings = load(
        source={"address": f"tcp://127.0.0.1:{nobody}"},
        publish={"address": f"tcp://127.0.0.1:{port}", "heartbeat": 0.2},
    )
    service, _ = wiring.make_service(settings)
    thread = threading.Thread(target=service.run)
    thread.start()
    began = time.monotonic()
    try:
        with Follower(f"tcp://127.0.0.1:{port}", "status.") as follower:
            (*_, status) = collect_headers(follower, lambda h: h["state"] == "degraded", 10)
            took = time.monotonic() - began
            done = CliRunner().invoke(app, ["status", f"tcp://127.0.0.1:{port}"])
    finally:
        service.stop()
        thread.join(20)
    assert took < 3.0
    assert status["source"]["connected"] is False
    assert f"nobody listens at source.address tcp://127.0.0.1:{nobody}" in status["degraded"]
    assert done.exit_code == 4 and "nobody listens" in done.output


def test_a_full_disk_is_told_and_results_go_on(tmp_path, port):
    daemon = Daemon(tmp_path, port)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        collect_headers(follower, lambda h: h.get("state") == "ready")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            daemon.feed(shapes.array_events(SWEEPS, {**METADATA, "uid": "full"}))
            headers = collect_headers(follower, lambda h: h["kind"] == "run.stop")
            headers += collect_headers(follower, lambda h: h["kind"] == "status" and h["losses"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        status = headers[-1]
        daemon.stop()
    assert len(ids(headers)) == 12
    assert status["state"] == "degraded"
    assert status["losses"]["disk"]["documents"] == status["drops"]["disk"] >= 5
    assert status["losses"]["outcome_log"]["sweeps"] >= 5


def test_the_last_of_a_disk_is_for_documents(tmp_path, port, monkeypatch):
    monkeypatch.setattr("exafsd.archive.outcome_log.RESERVED", 10**18)  # more than there is
    monkeypatch.setattr("exafsd.archive.outcome_log.SHARE", 1.0)
    documents = list(shapes.array_events(SWEEPS, {**METADATA, "uid": "low"}))
    daemon = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        collect_headers(follower, lambda h: h.get("state") == "ready")
        daemon.feed(documents)
        headers = collect_headers(follower, lambda h: h["kind"] == "run.stop")
        status = collect_headers(follower, lambda h: h["kind"] == "status" and h["losses"])[-1]
        daemon.stop()
    assert len(ids(headers)) == 12
    assert set(status["losses"]) == {"outcome_log"} and status["state"] == "degraded"
    (journaled,) = read_journal(tmp_path / "journal")
    assert len(list(journaled.documents())) == len(documents)
    assert not logged(tmp_path)


def test_results_are_read_from_the_log(tmp_path, port):
    daemon = Daemon(tmp_path, port)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        daemon.feed(shapes.array_events(SWEEPS[:4], {**METADATA, "uid": "kept"}))
        headers = collect_headers(follower, lambda h: h["kind"] == "run.stop")
    daemon.stop()
    journal = ["--journal", str(tmp_path / "journal")]
    run = CliRunner()
    done = run.invoke(app, ["results", "list", *journal])
    assert done.exit_code == 0 and "kept" in done.output and "success" in done.output
    done = run.invoke(app, ["results", "show", "kept", "--json", *journal])
    shown = [json.loads(line) for line in done.output.splitlines()]
    assert [row["id"] for row in shown] == ids(headers)
    sent = {h["id"]: h for h in headers if "id" in h}
    assert shown[0]["e0"] == sent[shown[0]["id"]]["e0"] and len(shown[0]["arrays"]["k"]) == 401
    path = tmp_path / "kept.h5"
    done = run.invoke(app, ["results", "export", "kept", "--to", str(path), *journal])
    assert done.exit_code == 0, done.output
    with h5py.File(path) as file:
        assert file.attrs["creator"].startswith("exafsd")
    (log,) = folder_beside(tmp_path / "journal").glob("*.log")
    raw = bytearray(log.read_bytes())
    raw[len(raw) // 2] ^= 4
    log.write_bytes(raw)
    for command in (["list"], ["show", "kept"], ["export", "kept", "--to", str(path) + ".h5"]):
        done = run.invoke(app, ["results", *command, *journal])
        assert done.exit_code == 1 and log.name in done.output, command


def test_two_daemons_do_not_share_a_journal(tmp_path, port):
    daemon = Daemon(tmp_path, port)
    config = tmp_path / "exafsd.toml"
    config.write_text(f'[journal]\nfolder = "{tmp_path / "journal"}"\n')
    done = CliRunner().invoke(app, ["run", "--config", str(config)])
    daemon.stop()
    assert done.exit_code == 1
    assert "another exafsd writes to the journal" in done.output


def test_documents_are_written_down_while_the_worker_is_at_work(tmp_path):
    """What came more than 0.1 s before a kill is in the journal, whatever the worker does."""
    settings = load(journal={"folder": tmp_path / "journal"})
    intake = Intake.open(settings, proxy=False)
    intake.start()
    try:
        assert intake.inbox.get(0.01) is None  # and from here on it is busy
        documents = list(shapes.array_events(SWEEPS[:3], {**METADATA, "uid": "ahead"}))
        for name, document in documents:
            intake.inbox.put(name, document)
        time.sleep(0.1)
        (path,) = (tmp_path / "journal").glob("*-ahead.msgpack")
        names = [name for name, _ in JournaledRun(path).documents(pytest.fail)]
        assert names == [name for name, _ in documents]
        taken = [intake.inbox.get(0.1) for _ in documents]
        assert [one.name for one in taken] == names
        ends = [one.place.end for one in taken]
        assert ends == sorted(ends) and ends[-1] == path.stat().st_size
    finally:
        intake.stop()


def test_a_journal_is_kept_by_default_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("EXAFSD_DATA", str(tmp_path / "data"))
    settings = load()
    folder = settings.journal_folder
    assert folder == tmp_path / "data" / "journal"
    intake = Intake.open(settings, proxy=False, folder=folder)
    for name, document in shapes.array_events(SWEEPS[:3], {**METADATA, "uid": "open"}):
        intake.inbox.put(name, document)
        intake.inbox.get(0.1)
        if name == "event":
            break
    second = Intake.open(settings, proxy=False, folder=folder)  # starts without one, and says so
    assert second.journal is None and "another exafsd" in second.unkept
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 0 and f"{folder}, 1 runs" in done.output, done.output
    intake.journal.close()
    (path,) = folder.glob("*-open.msgpack")
    path.write_bytes(path.read_bytes()[:-5])
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 1 and path.name in done.output and "incomplete" in done.output
    monkeypatch.setenv("EXAFSD_JOURNAL__ENABLED", "false")
    assert load().journal_folder is None

"""``exafsd replay``: the same numbers from everywhere, resume, processes, failures, comparison."""

import contextlib
import io
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from heated_runs import RUNS, SWEEPS, read_back, renamed

from exafsd.archive.catalog import CatalogError
from exafsd.archive.results import find_result_run, result_runs
from exafsd.archive.sources import JournalSource
from exafsd.client import Subscriber
from exafsd.commands.replay import analysis
from exafsd.commands.replay.analysis import in_real_time
from exafsd.commands.replay.outputs import Options
from exafsd.commands.replay.runs import Selection, replay
from exafsd.contract.frames import ARRAY_UNITS, Message
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer, write_profile

#: times of this replay; all else is the same each time
UNSTABLE = {"time", "timing_ms", "publisher", "seq"}
OUTCOMES = 2 * SWEEPS


def stable(header: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name not in UNSTABLE}


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def from_journal(journal_folder: Path) -> list[dict[str, Any]]:
    """Outcomes of all runs, replayed from the journal by this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert replay(str(journal_folder), Selection(), load(), Options(lines=True))
    return [stable(json.loads(line)) for line in out.getvalue().splitlines()]


def test_journal(from_journal: list[dict[str, Any]]) -> None:
    assert len(from_journal) == RUNS * OUTCOMES
    assert [h["run_uid"] for h in from_journal[::OUTCOMES]] == [f"raw-run-{n}" for n in range(RUNS)]
    good = [h for h in from_journal if h["kind"] == "result"]
    assert len(good) == RUNS * 2 * (SWEEPS - 1)
    assert all(h["shells"] for h in good if h["channel"] == "transmission")


def test_server_gives_the_same(
    catalog_server: CatalogServer,
    from_journal: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert replay(catalog_server.uri, Selection(), load(), Options(lines=True))
    assert_same(from_journal, lines(capsys))


#: in a process of its own, because an embedded catalog runs a whole server in it
EMBEDDED = """
import sys
import threading
from bluesky_tiled_plugins import TiledWriter
from exafsd.archive.catalog import open_catalog
from exafsd.archive.sources import open_source
from exafsd.commands.replay.outputs import Options
from exafsd.commands.replay.runs import Selection, replay
from exafsd.settings.settings import load

catalog = open_catalog("embedded")
writer = TiledWriter(catalog)
for document in open_source(sys.argv[1]).run("raw-run-0").documents():
    writer(*document)
catalog.context.close()
assert replay("embedded", Selection(), load(), Options(lines=True, write="embedded"))
"""


def test_embedded_catalog_gives_the_same_and_takes_results(
    journal_folder: Path, from_journal: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_profile(tmp_path / "catalog", "embedded", tmp_path / "profiles")
    environment = os.environ | {"TILED_PROFILES": str(tmp_path / "profiles")}
    environment.pop("TILED_API_KEY", None)
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(journal_folder)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(from_journal[:OUTCOMES], [json.loads(line) for line in done.stdout.splitlines()])
    with sqlite3.connect(tmp_path / "catalog" / "catalog.db") as database:
        (stored,) = database.execute(
            "select count(*) from nodes where metadata like '%original_run_uid%raw-run-0%'"
        ).fetchone()
    database.close()
    assert stored == 1


def assert_same(expected: list[dict[str, Any]], headers: list[dict[str, Any]]) -> None:
    """Ids, order, and numbers to the last digit: the documents carry the same float64."""
    assert [h["id"] for h in headers] == [h["id"] for h in expected]
    for one, other in zip(expected, headers, strict=True):
        assert stable(other) == one


def test_write_resume_and_write_again(
    catalog_server: CatalogServer,
    client: Any,
    journal_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = len(result_runs(client, "raw-run-1"))
    options = Options(write=catalog_server.uri, lines=True, resume=True)
    assert replay(str(journal_folder), Selection(uid="raw-run-1"), load(), options)
    written = lines(capsys)
    assert len(result_runs(client, "raw-run-1")) == before + 1
    stored = read_back(find_result_run(client, "raw-run-1"))
    assert [stable(m.header) for m in stored] == [stable(m.header) for m in wire(written)]
    # done: not again; with other settings: again, beside it
    assert replay(str(journal_folder), Selection(uid="raw-run-1"), load(), options)
    assert "1 of 1 runs are done" in capsys.readouterr().err
    assert len(result_runs(client, "raw-run-1")) == before + 1
    other = load(reduction={"engine": "larch"})
    assert replay(str(journal_folder), Selection(uid="raw-run-1"), other, options)
    runs = result_runs(client, "raw-run-1")
    assert len(runs) == before + 2
    shas = {run.metadata["start"]["analysis"]["settings_sha256"] for run in runs[-2:]}
    assert shas == {load().analysis.sha256, other.analysis.sha256}


def wire(written: list[dict[str, Any]]) -> list[Message]:
    """Lines of --json as messages: there the arrays stand in the place of their description."""
    stored = []
    for line in written:
        header = dict(line)
        if header["kind"] == "result":
            header["arrays"] = [
                {"name": n, "dtype": "<f8" if n == "energy" else "<f4", "shape": [len(a)],
                 "unit": ARRAY_UNITS[n]}
                for n, a in line["arrays"].items()
            ]  # fmt: skip
        stored.append(Message("", header, {}))
    return stored


def test_beside_the_stored_one(
    catalog_server: CatalogServer,
    client: Any,
    journal_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same analysis differs by nothing, another recipe by what both say themselves."""
    chosen, uri = Selection(uid="raw-run-0"), catalog_server.uri
    assert replay(str(journal_folder), chosen, load(), Options(write=uri, lines=True))
    old = {h["id"]: h for h in lines(capsys)}
    assert replay(str(journal_folder), chosen, load(), Options(compare=uri, lines=True))
    same = lines(capsys)
    assert {line["difference"] for line in same} == {0.0}
    changed = load(reduction={"e0_policy": "fixed", "e0": 8981.0})
    assert replay(str(journal_folder), chosen, changed, Options(lines=True))
    new = {h["id"]: h for h in lines(capsys)}
    assert replay(str(journal_folder), chosen, changed, Options(compare=uri, lines=True))
    report = lines(capsys)
    checked = 0
    for line in report:
        if line["parameter"] == "Cu/1/r" and line["new"] is not None:
            first, second = old[line["id"]]["shells"][0], new[line["id"]]["shells"][0]
            assert line["old"] == first["r"]["value"]
            assert line["new"] == second["r"]["value"]
            assert line["old_std"] == first["r"]["std"]
            assert line["difference"] == second["r"]["value"] - first["r"]["value"] != 0
            checked += 1
        if line["parameter"] == "e0":
            assert line["new"] == 8981.0
    assert checked >= SWEEPS - 1
    assert replay(str(journal_folder), chosen, changed, Options(compare=uri))
    shown = " ".join(capsys.readouterr().out.split())
    assert load().analysis.sha256[:8] in shown
    assert changed.analysis.sha256[:8] in shown
    assert "Cu/1/r" in shown
    assert "0 outcomes only in the old" in shown


def test_nothing_to_compare_with_is_said(
    catalog_server: CatalogServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    journal_folder: Path,
) -> None:
    renamed(journal_folder, tmp_path, "raw-run-x")
    options = Options(compare=catalog_server.uri)
    assert not replay(str(tmp_path), Selection(), load(), options)
    assert "raw-run-x has no stored results" in capsys.readouterr().err


BREAKING = """
from exafsd.archive import sources
from exafsd.commands.cli import app

class Broken(sources.JournalSource):
    def run(self, uid):
        if uid == "raw-run-1":
            raise OSError("the disk is gone")
        return super().run(uid)

sources.JournalSource = Broken
if __name__ == "__main__":
    app(["replay", {folder!r}, "--json", "--processes", "2"])
"""


def test_processes_give_the_same_in_order_without_a_run_that_fails(
    journal_folder: Path, from_journal: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The run between two others cannot be read any more; each process runs this script again."""
    script = tmp_path / "breaking.py"
    script.write_text(BREAKING.replace("{folder!r}", repr(str(journal_folder))))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "raw-run-1" in done.stderr
    assert "the disk is gone" in done.stderr
    expected = [header for header in from_journal if header["run_uid"] != "raw-run-1"]
    assert_same(expected, [json.loads(line) for line in done.stdout.splitlines()])


def test_a_process_does_not_wait_for_the_runs_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on until so many bytes wait that memory would grow."""

    def sender(count: int) -> tuple[analysis.SentAhead, threading.Thread]:
        ours, theirs = multiprocessing.Pipe(duplex=False)

        def send() -> None:
            for number in range(count):
                theirs.send((number, b"x" * 10_000))
            theirs.close()

        thread = threading.Thread(target=send)
        thread.start()
        return analysis.SentAhead(ours), thread

    ahead, thread = sender(100)  # 1 MB, of which a pipe holds 64 kB
    thread.join(30)
    assert not thread.is_alive()
    assert [ahead.take()[0] for _ in range(100)] == list(range(100))
    with pytest.raises(EOFError):
        ahead.take()
    ahead.close()
    monkeypatch.setattr(analysis, "AHEAD", 100_000)
    ahead, thread = sender(100)
    thread.join(1.0)
    assert thread.is_alive()
    assert [ahead.take()[0] for _ in range(100)] == list(range(100))
    thread.join(30)
    ahead.close()


def test_failures_of_this_process(
    journal_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same without processes."""
    real = JournalSource.run

    def broken(self: JournalSource, uid: str) -> Any:
        if uid == "raw-run-1":
            raise OSError("the disk is gone")
        return real(self, uid)

    monkeypatch.setattr(JournalSource, "run", broken)
    assert not replay(str(journal_folder), Selection(), load(), Options(lines=True))
    captured = capsys.readouterr()
    assert "the disk is gone" in captured.err
    uids = [json.loads(line)["run_uid"] for line in captured.out.splitlines()]
    assert uids == ["raw-run-0"] * OUTCOMES + ["raw-run-2"] * OUTCOMES


def test_a_file_cut_off_is_as_a_run_that_did_not_end(
    journal_folder: Path, tmp_path: Path, catalog_server: CatalogServer, client: Any
) -> None:
    """What is there is analysed, and the loss told; its result run does not count as done."""
    path = renamed(journal_folder, tmp_path, "raw-run-c")
    text = path.read_bytes()
    path.write_bytes(text[: len(text) * 2 // 3])
    options = Options(write=catalog_server.uri, resume=True)
    for number in (1, 2):
        assert not replay(str(tmp_path), Selection(), load(), options)
        assert len(result_runs(client, "raw-run-c")) == number
        stop = find_result_run(client, "raw-run-c").metadata["stop"]
        assert stop["exit_status"] == "abort"
        assert 0 < stop["results"] < 2 * (SWEEPS - 1)


def test_published(journal_folder: Path, tmp_path: Path) -> None:
    """Results, and the begin and end of each run, come over ZeroMQ as in a live daemon."""
    address = tmp_path / "address"
    environment = os.environ | {
        "EXAFSD_PUBLISH__ADDRESS": "tcp://127.0.0.1:*",
        "EXAFSD_PUBLISH__ADDRESS_FILE": str(address),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "exafsd.cli", "replay", str(journal_folder), "--publish"],
        env=environment,
    )
    try:
        while not address.exists():
            assert process.poll() is None
            time.sleep(0.02)
        kinds = []
        with Subscriber(address.read_text().strip()) as subscriber:
            while len(kinds) < RUNS * (OUTCOMES + 2):
                message = subscriber.receive(30.0)
                assert message is not None
                kinds.append(message.header["kind"])
    finally:
        assert process.wait(60) == 0
    assert kinds[0] == "run.start"
    assert kinds[-1] == "run.stop"
    assert kinds.count("run.start") == kinds.count("run.stop") == RUNS


def test_realtime_keeps_the_pauses() -> None:
    times = [1e9, 1e9 + 0.1, [1e9 + 0.1, 1e9 + 0.3], None]
    began = time.monotonic()
    paced = list(in_real_time(("event", {"time": at}) for at in times))
    assert time.monotonic() - began >= 0.3
    assert [document["time"] for _, document in paced] == times


def test_what_does_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, word in (
        (Options(resume=True), "--write"),
        (Options(realtime=True, processes=2), "one process"),
    ):
        with pytest.raises(ValueError, match=word):
            replay(str(tmp_path), Selection(), load(), options)
    with pytest.raises(CatalogError, match="no tiled profile"):
        replay(str(tmp_path), Selection(), load(), Options(write="no-such-profile"))
    monkeypatch.setattr(JournalSource, "shared", False)  # as an embedded catalog is not
    with pytest.raises(CatalogError, match="tiled serve config"):
        replay(str(tmp_path), Selection(), load(), Options(processes=2))

"""Archives over a Dask cluster of worker processes: the same numbers as one process, in order."""

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from heated_runs import RUNS, renamed
from typer.testing import CliRunner

from exafsd.archive.results import result_runs
from exafsd.cli import app
from exafsd.commands.replay import cluster as on_cluster
from exafsd.commands.replay.outputs import Options
from exafsd.commands.replay.runs import Selection, replay
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer

#: times of this replay; all else is the same each time
UNSTABLE = {"time", "timing_ms", "publisher", "seq"}


@pytest.fixture(autouse=True)
def logs_after_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's threads may log when the stream that a command logged to has been closed."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(scope="module")
def workers():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", protocol="tcp"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def journal(journal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More runs than workers."""
    folder = tmp_path_factory.mktemp("many") / "journal"
    shutil.copytree(journal_folder, folder)
    for number in range(3):
        renamed(journal_folder, folder, f"again-r-{number}")
    return folder


def outcomes(text: str) -> list[dict[str, Any]]:
    headers = [json.loads(line) for line in text.splitlines()]
    return [{n: v for n, v in h.items() if n not in UNSTABLE} for h in headers]


@pytest.mark.usefixtures("logging_restored")
def test_workers_give_what_one_process_gives(workers, journal, capsys, monkeypatch):
    assert replay(str(journal), Selection(), load(), Options(lines=True))
    expected = outcomes(capsys.readouterr().out)
    assert len({h["run_uid"] for h in expected}) == RUNS + 3
    monkeypatch.chdir(journal.parent)
    command = ["replay", "journal", "--json", "--scheduler", workers.scheduler_address]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert outcomes(answer.stdout) == expected


def test_a_worker_that_dies_takes_no_run_with_it(workers, journal, capsys):
    assert replay(str(journal), Selection(), load(), Options(lines=True))
    expected = outcomes(capsys.readouterr().out)
    killed = []

    def kill():
        """Kill a worker that has work, as soon as there is one."""
        while not killed:
            time.sleep(0.005)
            for nanny in workers.workers.values():
                worker = workers.scheduler.workers.get(nanny.worker_address)
                if worker is not None and worker.processing and not killed:
                    killed.append(nanny.process.pid)
                    os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    options = Options(lines=True, scheduler=workers.scheduler_address)
    assert replay(str(journal), Selection(), load(), options)
    killer.join()
    assert outcomes(capsys.readouterr().out) == expected
    assert killed


def test_a_replay_over_workers_resumes(
    workers, catalog_server: CatalogServer, client: Any, journal, tmp_path, capsys
):
    for number in range(4):
        renamed(journal, tmp_path, f"spread-0{number}")
    options = Options(
        write=catalog_server.uri, resume=True, scheduler=workers.scheduler_address
    )  # fmt: skip
    assert replay(str(tmp_path), Selection(uid="spread-01"), load(), options)
    capsys.readouterr()
    assert replay(str(tmp_path), Selection(), load(), options)
    assert "1 of 4 runs are done already" in capsys.readouterr().err
    assert [len(result_runs(client, f"spread-0{number}")) for number in range(4)] == [1] * 4


def test_a_run_that_fails_on_a_worker_is_told(workers, journal, capsys, monkeypatch):
    monkeypatch.setattr(on_cluster, "__version__", "0.0.0")
    options = Options(lines=True, scheduler=workers.scheduler_address)
    assert not replay(str(journal), Selection(last=2), load(), options)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("this worker has exafsd") == 2


@pytest.mark.usefixtures("logging_restored")
def test_what_cannot_be_is_said(journal, monkeypatch):
    def invoke(*options):
        answer = CliRunner().invoke(app, ["replay", str(journal), *options])
        assert answer.exit_code == 1
        return answer.output

    assert "goes without" in invoke("--scheduler", "tcp://127.0.0.1:1", "--processes", "2")
    monkeypatch.setattr(on_cluster, "PATIENCE", 0.5)
    assert "127.0.0.1:1" in invoke("--scheduler", "tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    assert "pip install 'exafsd[dask]'" in invoke("--scheduler", "tcp://127.0.0.1:1")

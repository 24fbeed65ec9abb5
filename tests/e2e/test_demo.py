"""`exafsd demo` until Ctrl-C: what it published is in the catalog, and replays to the same."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exafsd.client import Follower
from exafsd.contract.frames import Message
from exafsd.testing.parts import free_ports

#: outcomes to wait for before Ctrl-C
ENOUGH = 16
#: in a process of its own, because an embedded catalog runs a whole server in it
READ = """
import pickle, sys
from exafsd.archive.catalog import open_catalog
from exafsd.archive.results import find_result_run, messages

catalog = open_catalog("exafsd-demo")
run = find_result_run(catalog, sys.argv[1])
found = run.metadata, [(m.header, m.arrays) for m in messages(run)]
catalog.context.close()
pickle.dump(found, sys.stdout.buffer)
"""


@dataclass(frozen=True)
class Shown:
    """A demo that is over: what it printed and published, and what it left."""

    folder: Path
    printed: str
    wire: list[Message]
    status: dict[str, Any]
    environment: dict[str, str]

    def python(self, *arguments: str) -> bytes:
        """What Python prints; the demo's catalog can be opened in it."""
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, timeout=120, env=self.environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def until_ctrl_c(process: subprocess.Popen[bytes], follower: Follower, page: str) -> list[Message]:
    """What a demo publishes from its begin to its end; Ctrl-C when it is enough."""
    wire: list[Message] = []
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        message = follower.receive(0.2)
        if message is None:
            continue
        wire.append(message)
        if len(wire) == ENOUGH:
            with urllib.request.urlopen(page, timeout=20) as answer:
                assert b"exafsd" in answer.read()
            process.send_signal(signal.SIGINT)
    return wire


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    publish, answers, port = free_ports(3)
    address, asked = f"tcp://127.0.0.1:{publish}", f"tcp://127.0.0.1:{answers}"
    environment = {
        **os.environ,
        "COLUMNS": "200",
        # live equals replay where nothing was shed, and this machine may be slow
        "EXAFSD_INFERENCE__POLISH": "always",
        "EXAFSD_COMPOSITION__ENABLED": "always",
        "TILED_PROFILES": str(folder / "profiles"),
    }
    with (folder / "printed").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "exafsd.cli", "demo", "--seconds", "0", "--publish", address,
             "--answers", asked, "--port", str(port), "--folder", str(folder)],
            stdout=out, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    topics = ["result.", "rejected."]
    try:
        with Follower(address, topics, start="ring", answers=asked) as follower:
            wire = until_ctrl_c(process, follower, f"http://127.0.0.1:{port}/")
            status = follower.status
    finally:
        if process.poll() is None:
            process.terminate()
        ended = process.wait(60)
    printed = (folder / "printed").read_text()
    assert ended == 0, printed
    assert status is not None
    return Shown(folder, printed, wire, status, environment)


def test_it_says_where_to_look_and_ends_in_order(shown: Shown) -> None:
    for word in ("exafsd watch tcp://127.0.0.1:", "http://127.0.0.1:", f"{shown.folder}/journal"):
        assert word in shown.printed
    assert shown.wire[-1].header["run_uid"] in shown.printed
    assert shown.status["state"] == "stopped"
    assert shown.status["results"] + shown.status["rejected"] == len(shown.wire)
    # all that was measured was written before the daemon ended
    assert set(shown.status["queues"].values()) == {0}
    # the dashboard may have ended before it had the reply to its latest request
    assert set(shown.status["drops"]) <= {"reply"}


def test_shares_are_those_that_were_put_in(shown: Shown) -> None:
    headers = [m.header for m in shown.wire if m.header["channel"] == "transmission"]
    assert headers
    for header in headers:
        assert header["composition"]["in_domain"], header["composition"]["reason"]
        read = {one["phase"]: one["value"] for one in header["composition"]["fractions"]}
        for phase in ("Cu", "Cu2O", "CuO"):
            true = header["truth"][f"share_{phase}"]
            assert read.get(phase, 0.0) == pytest.approx(true, abs=0.03)


def test_live_result_runs_are_found_by_the_raw_uid_and_equal_the_wire(shown: Shown) -> None:
    (uid,) = {message.header["run_uid"] for message in shown.wire}
    metadata, stored = pickle.loads(shown.python("-c", READ, uid))
    assert metadata["start"]["original_run_uid"] == uid
    assert metadata["stop"]["exit_status"] == "success"
    assert len(shown.wire) >= ENOUGH
    assert [header for header, _ in stored] == [message.header for message in shown.wire]
    for (_, arrays), message in zip(stored, shown.wire, strict=True):
        assert set(arrays) == set(message.arrays)
        for name, array in message.arrays.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_replayed_they_are_the_same_numbers(shown: Shown) -> None:
    """From the catalog, beside the stored ones; test_whole_way does it from server and journal."""
    lines = shown.python(
        "-m", "exafsd.cli", "replay", "exafsd-demo", "--compare", "exafsd-demo", "--json",
        "--config", str(shown.folder / "exafsd.toml"),
    ).splitlines()  # fmt: skip
    results = [json.loads(line) for line in lines]
    assert {line["id"] for line in results} == {message.header["id"] for message in shown.wire}
    for line in results:  # spectra that came together were multiplied together: other rounding
        assert line["new"] == pytest.approx(line["old"], rel=1e-5, abs=1e-9), line

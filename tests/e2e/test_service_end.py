"""SIGTERM beside a catalog that does not answer, and a source whose host nobody knows."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from exafsd import codec
from exafsd.client import Follower
from exafsd.service import wiring
from exafsd.settings.settings import load
from exafsd.testing.processes import daemon
from simulated import shapes
from synthetic import METADATA, sweep_columns
from typed_commands import exafsd

#: of design section 6; the tests allow more, because this machine may be busy
PROMISED, ALLOWED = 5.0, 10.0


@pytest.fixture
def silent() -> Iterator[str]:
    """URI of a server that takes connections and requests, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def hold() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:  # closed
                    return

        thread = threading.Thread(target=hold)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api/v1"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in held:
            one.close()


def publish(documents: zmq.Socket[bytes], follower: Follower) -> dict[str, object]:
    """Send a run until one has come through whole; its stop."""
    end = time.monotonic() + 60
    while time.monotonic() < end:  # PUB drops what it sends before the daemon is there
        for name, document in shapes.array_events([sweep_columns(0, points=500)], METADATA):
            documents.send(b" ".join([b"", name.encode(), codec.dumps(document)]))
        until = time.monotonic() + 2
        while (left := until - time.monotonic()) > 0:
            message = follower.receive(left)
            if message is not None and message.header["kind"] == "run.stop":
                return message.header
    pytest.fail("nothing came through")


def test_a_catalog_that_does_not_answer_is_said_and_not_waited_for(
    silent: str, tmp_path: Path
) -> None:
    catalog = SimpleNamespace(uri=silent, api_key="none")
    context = zmq.Context()
    documents = context.socket(zmq.PUB)
    port = documents.bind_to_random_port("tcp://127.0.0.1")
    source = f"tcp://127.0.0.1:{port}"
    with (
        daemon(
            tmp_path, source, "tcp://127.0.0.1:*", tmp_path / "journal", tmp_path, results=catalog
        ) as (running, address),
        Follower(address, start="ring") as follower,
    ):
        stop = publish(documents, follower)
        results = stop["results"] + stop["rejected"]
        waiting = (follower.status or {})["queues"]
        assert {"results", "result_runs"} <= set(waiting)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        while follower.status["state"] != "stopped":
            assert time.monotonic() - began < ALLOWED
            follower.receive(0.1)
        assert running.process.wait(ALLOWED) == 0
        took = time.monotonic() - began
        drops, problems = follower.status["drops"], follower.status["problems"]
    documents.close(linger=0)
    context.term()
    assert took < ALLOWED, f"{PROMISED} s are promised"
    assert results == 2
    assert drops["results_shutdown"] == follower.status["results"]
    (problem,) = [text for text in problems if text.startswith("results: ")]
    assert stop["run_uid"] in problem
    assert "exafsd replay --write" in problem
    log = running.log.read_text()
    assert problem.removeprefix("results: ") in log
    assert "Traceback" not in log


def test_documents_without_time_are_counted_and_troubles_among_them_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = load(publish={"address": "tcp://127.0.0.1:*"}, service={"shutdown": 1e-6})
    service, inbox = wiring.make_service(settings, proxy=False)
    documents = list(shapes.array_events([sweep_columns(0, points=500)], METADATA))
    for name, document in documents:
        inbox.put(name, document)
    inbox.report("disk", "the journal is full")
    service.stop()
    service.run()
    assert inbox.drops == {"shutdown": len(documents), "disk": 1}
    assert len(inbox) == 0
    said = [record.getMessage() for record in caplog.records]
    assert f"stopping before all documents were processed left={len(documents)}" in said
    assert "problem reason=disk detail=the journal is full" in said


KILLED = """
import os, signal, sys
from pathlib import Path
from exafsd.testing.parts import python_process, wait_for

code = "import time; print('up', flush=True); time.sleep(600)"
with python_process("child", Path(sys.argv[1]), "-c", code) as child:
    wait_for(lambda: "up" in child.tail(), child, "word")
    print(child.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_parts_end_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    status = Path("/proc") / done.stdout.decode().strip() / "stat"
    end = time.monotonic() + 30
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_host_that_nobody_knows_is_said(tmp_path: Path) -> None:
    """By `exafsd check`, which does not fail, and by the daemon, which runs."""
    source = "tcp://no-such-host.invalid:5578"
    with (
        daemon(tmp_path, source, "tcp://127.0.0.1:*", tmp_path / "journal", tmp_path) as (
            running,
            address,
        ),
        Follower(address, "status.") as follower,
    ):
        end = time.monotonic() + 60
        while not (follower.status or {}).get("problems"):
            assert time.monotonic() < end
            follower.receive(0.2)
        status = follower.status
        assert running.process.poll() is None
    assert status["drops"] == {"source": 1}
    assert "source.address" in status["problems"][0]
    assert "no-such-host.invalid" in status["problems"][0]
    checked = exafsd("check", "--config", tmp_path / "exafsd.toml")
    assert "warning   source.address tcp://no-such-host.invalid" in checked.stdout

"""`exafsd status` and what `exafsd watch` draws."""

import io
import json
import select
import subprocess
import sys
import threading

import pytest
from rich.console import Console
from typer.testing import CliRunner

from exafsd.client import Event, Follower
from exafsd.commands.cli import app
from exafsd.commands.terminal import TRENDS, Screen, sparkline
from exafsd.contract.frames import decode, encode
from exafsd.publishing import Publisher
from messages import ARRAYS, SHELL, rejected, result, status, value
from typed_commands import exafsd


class Beating:
    """A publisher with a heartbeat."""

    def __init__(self, state="ready", **changes):
        self._stop = threading.Event()
        self._told = lambda: status(state, **changes)
        self._publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.05)
        self.address = self._publisher.address
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def _beat(self):
        while not self._stop.wait(0.05):
            self._publisher.send(self._told())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._publisher.close()


def drawn(screen):
    console = Console(width=140, file=io.StringIO())
    console.print(screen.render())
    return console.file.getvalue()


def received(message, arrays=None):
    return decode(encode(message, arrays))


def test_status_in_plain_words_and_exit_0():
    fields = {
        "results": 12, "rejected": 3, "rate": 4.56, "lag": 0.123, "uptime": 3725.0,
        "rejections": {"no_edge": 3}, "drops": {"bad_frame": 2}, "queues": {"inbox": 7},
        "audit": {"spectra": 10, "worst": 1.5e-7}, "refused_models": {"old": "its hash is wrong"},
        "problems": ["bad_frame: 12 bytes were dropped"],
    }  # fmt: skip
    with Beating(**fields) as one:
        done = exafsd("status", one.address)
        as_json = exafsd("status", one.address, "--json")
    for words in (
        "ready", "1:02:05", "12 results, 3 rejected", "4.6 a second", "0.12 s", "inbox 7",
        "no edge 3", "bad frame 2", "worst 1.5e-07", "cu", "exafsd 0", "its hash is wrong",
        "12 bytes were dropped",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert json.loads(as_json.stdout)["results"] == 12


def test_status_of_a_daemon_that_is_not_ready_or_not_there():
    with Beating("overloaded") as one:
        done = exafsd("status", one.address, expect=3)
        address = one.address
    assert "overloaded" in done.stdout
    gone = exafsd("status", address, "--timeout", "0.5", expect=1)
    assert "no daemon answers" in gone.stderr


@pytest.mark.parametrize("command", ["status", "keys", "watch"])
def test_commands_have_help(command):
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0


def test_wrong_keys_are_said(tmp_path):
    for command in ("status", "watch"):
        done = exafsd(command, "tcp://127.0.0.1:9", "--keys", tmp_path, expect=1)
        assert "not the folder of a client" in done.stderr


def test_sparkline_goes_from_the_least_to_the_largest():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.5, 2.5, float("nan")]) == "▁▁"
    assert sparkline([]) == ""


def test_the_screen_has_trends_of_a_few_series():
    screen = Screen()
    for sweep in range(1, 30):
        shell = {**SHELL, "r": value(2.5 + 0.001 * sweep), "sigma2": value(0.01 - 1e-4 * sweep)}
        screen.take(received(result(sweep, shells=[shell]), ARRAYS))
        screen.take(received(rejected(sweep)))
        screen.take(received(result(sweep, element="Zn", shells=None, phases=None)))
    text = drawn(screen)
    (line,) = [line for line in text.splitlines() if "σ² 0." in line and "▁" in line]
    assert line.startswith("Cu K trans Cu/1  R 2.501 ▁")
    assert "█ 2.529" in line
    assert "0.0071" in line
    for number in range(3 * TRENDS):
        for sweep in (1, 2):
            shell = {**SHELL, "id": f"Cu/{number}"}
            screen.take(received(result(sweep, shells=[shell])))
    assert sum("▁" in line for line in drawn(screen).splitlines()) == TRENDS


def test_the_screen_is_drawn_while_messages_come():
    screen = Screen()
    done = threading.Event()
    failed = []

    def draw():
        while not done.is_set():
            try:
                screen.render()
            except RuntimeError as error:
                failed.append(error)
                return

    thread = threading.Thread(target=draw)
    thread.start()
    message = received(result())
    for _ in range(200):
        screen.take(message)
    done.set()
    thread.join()
    assert not failed


def test_the_screen_says_how_the_daemon_is_whatever_topic_is_watched():
    screen = Screen()
    assert "waiting for the daemon" in drawn(screen)
    publisher = Publisher("tcp://127.0.0.1:*")
    try:
        with Follower(publisher.address, "result.Cu.", start="now") as follower:
            while follower.status is None:
                publisher.send(status("overloaded", drops={"bad_frame": 2}))
                assert follower.receive(0.05) is None
            screen.take_status(follower.status)
    finally:
        publisher.close()
    assert "overloaded" in drawn(screen)
    assert "2 bad_frame" in drawn(screen)
    screen.take_event(Event("recovered", "", "result.Cu.K.", 3, 7))
    assert "5 recovered" in drawn(screen)


def test_watch_as_json_is_what_was_published():
    publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    command = [sys.executable, "-m", "exafsd.cli", "watch", publisher.address, "--json"]
    process = subprocess.Popen([*command, "--topic", "result."], stdout=subprocess.PIPE, text=True)
    try:
        printed(publisher, process)
        line = json.loads(process.stdout.readline())
        assert line["kind"] == "result"
        assert len(line["arrays"]["k"]) == 401
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        publisher.close()


def printed(publisher, process):
    """Send results until the watcher has printed the first."""
    for _ in range(400):
        publisher.send(result(1), ARRAYS)
        if select.select([process.stdout], [], [], 0.05)[0]:
            return
    pytest.fail("nothing was printed")

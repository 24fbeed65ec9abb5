"""One page in a real browser that follows two real daemons, one of which is killed."""

import os
import re
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from bluesky.callbacks.zmq import Publisher
from playwright.sync_api import sync_playwright

from exafsd.codec import dumps
from exafsd.testing.parts import python_process
from exafsd.testing.processes import daemon, proxy
from messages import adjacent_ports, until
from simulated import shapes
from synthetic import METADATA, sweep_columns

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
REQUIRED = os.environ.get("EXAFSD_REQUIRE_BROWSER") == "1"
#: ms that a busy machine may take for what takes a moment
PATIENCE = 60_000
pytestmark = pytest.mark.skipif(
    not REQUIRED and not Path(CHROMIUM).exists(), reason="no chromium (apt-get install chromium)"
)


class Beamline:
    """A proxy and its daemon."""

    def __init__(self, folder, stack):
        folder.mkdir()
        into, out = stack.enter_context(proxy(folder))
        self.address = f"tcp://127.0.0.1:{adjacent_ports()}"
        self.daemon, _ = stack.enter_context(
            daemon(folder, out, self.address, folder / "journal", folder)
        )
        self._publisher = Publisher(into, serializer=dumps)
        stack.callback(self._publisher.close)

    def measure(self, uid, sample):
        sweeps = [sweep_columns(n, points=250) for n in range(2)]
        about = {**METADATA, "uid": uid, "sample": {"name": sample}}
        for name, document in shapes.array_events(sweeps, about):
            self._publisher(name, document)


@pytest.fixture
def two(tmp_path):
    with ExitStack() as stack:
        beamlines = [Beamline(tmp_path / name, stack) for name in ("one", "two")]
        command = ("-m", "exafsd.cli", "dashboard", *(b.address for b in beamlines), "--port", "0")
        dashboard = stack.enter_context(python_process("dashboard", tmp_path, *command))
        match = until(lambda: re.search(r"dashboard at (\S+),", dashboard.tail()), 60)
        yield beamlines, match[1]
        assert "Traceback" not in dashboard.tail()


def test_runs_name_their_daemon_and_the_one_that_is_killed_is_said(two):
    beamlines, url = two
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_function("window.exafsd && Bokeh.documents.length == 1")
        for address in (b.address for b in beamlines):
            page.wait_for_function(
                "address => exafsd.model('health').text.split(address)[1]"
                "?.includes('the daemon is running')", arg=address
            )  # fmt: skip
        for beamline, sample in zip(beamlines, ("gold", "iron"), strict=True):
            beamline.measure(f"run-of-{sample}", sample)
        for beamline, sample in zip(beamlines, ("gold", "iron"), strict=True):
            page.wait_for_function(
                "([sample, address]) => exafsd.model('run').options"
                ".some(([_, label]) => label.includes(sample) && label.endsWith(address))",
                arg=[sample, beamline.address],
            )
        lost, other = (b.address for b in beamlines)
        beamlines[0].daemon.process.send_signal(signal.SIGKILL)
        page.wait_for_function(
            "address => exafsd.model('alert').text.includes(`The daemon at ${address} is silent`)",
            arg=lost,
        )
        assert other not in page.evaluate("exafsd.model('alert').text")
        beamlines[1].measure("run-of-zinc", "zinc")
        page.wait_for_function(
            "address => exafsd.model('run').options"
            ".some(([_, label]) => label.includes('zinc') && label.endsWith(address))",
            arg=other,
        )
        browser.close()

"""``exafsd demo``: simulated beamline, proxy, catalog server, daemon and table on this machine."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from exafsd.archive.embedded import CatalogServer, write_profile
from exafsd.client import Message, Subscriber
from exafsd.terminal import REFRESH, Screen

#: s that the daemon, the proxy or the beamline may take to start on a busy machine
START_DEADLINE = 90.0
#: s the beamline may go on beyond what was asked: first FEFF run, writing to the catalog
END_DEADLINE = 120.0
#: s that a process may take to end when asked to
STOP_DEADLINE = 10.0
#: profile name under which the demo's catalog can be opened afterwards
PROFILE = "exafsd-demo"


class DemoError(RuntimeError):
    """A part of the demo did not do its work; the text says which and where its log is."""


@dataclass
class Part:
    """A process of the demo and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            raise DemoError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """Last words of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> int:
        """Ask it to end, and make it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def part(
    name: str, folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[Part]:
    """Run a Python module as a process for as long as the context lasts."""
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    running = Part(name, process, log)
    try:
        yield running
    finally:
        running.stop()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def proxy(folder: Path) -> Iterator[tuple[str, str]]:
    """``bluesky-0MQ-proxy`` on free loopback ports; its addresses to publish to and subscribe."""
    ports = free_ports(2)
    into, out = (f"tcp://127.0.0.1:{port}" for port in ports)
    code = "from bluesky.commandline.zmq_proxy import main; main()"
    arguments = ("-c", code, "--in-address", into, "--out-address", out)
    with part("proxy", folder, *arguments) as running:
        for port in ports:
            _wait_for(lambda port=port: _listens(port), running, f"port {port}")
        yield into, out


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(condition: Any, running: Part, what: str) -> None:
    end = time.monotonic() + START_DEADLINE
    while not condition():
        running.check()
        if time.monotonic() > end:
            raise DemoError(f"{running.name}: no {what} after {START_DEADLINE:.0f} s")
        time.sleep(0.05)


@contextmanager
def daemon(
    folder: Path, source: str, publish: str, journal: Path, assets: Path
) -> Iterator[tuple[Part, str]]:
    """``exafsd run`` with settings written into `folder`; its process and bound address."""
    address_file = folder / "address"
    config = folder / "exafsd.toml"
    config.write_text(
        "# settings of the demo's daemon\n"
        f'[source]\naddress = "{source}"\nasset_roots = ["{assets}"]\n'
        f'[publish]\naddress = "{publish}"\naddress_file = "{address_file}"\n'
        f'[journal]\nfolder = "{journal}"\n'
    )
    with part("daemon", folder, "-m", "exafsd.cli", "run", "--config", str(config)) as running:
        _wait_for(address_file.exists, running, "address")
        yield running, address_file.read_text().strip()


def wait_until_ready(subscriber: Subscriber, running: Part) -> None:
    """Wait for the daemon's first status that says ready."""
    end = time.monotonic() + START_DEADLINE
    while time.monotonic() < end:
        running.check()
        message = subscriber.receive(0.2)
        if message and message.header["kind"] == "status" and message.header["state"] == "ready":
            return
    raise DemoError(f"the daemon was not ready after {START_DEADLINE:.0f} s:\n{running.tail()}")


def run_demo(
    seconds: float, rate: float, publish: str, shape: str, folder: Path | None, rows: int = 18
) -> None:
    """Measure for `seconds`, publish, show, and end cleanly.

    Raises
    ------
    DemoError
        If a part fails or no result was published.
    """
    console = Console()
    folder = folder or Path(tempfile.mkdtemp(prefix="exafsd-demo-"))
    assets, journal, catalog = folder / "assets", folder / "journal", folder / "catalog"
    assets.mkdir(parents=True, exist_ok=True)
    screen = Screen(rows)
    with ExitStack() as stack:
        with console.status("starting proxy, catalog and daemon"):
            into, out = stack.enter_context(proxy(folder))
            server = stack.enter_context(CatalogServer(catalog, [assets]))
            running, address = stack.enter_context(daemon(folder, out, publish, journal, assets))
            subscriber = stack.enter_context(Subscriber(address))
            wait_until_ready(subscriber, running)
        console.print(f"results at {address}; `exafsd watch {address}` follows them")
        beamline = stack.enter_context(
            part(
                "beamline", folder, "-m", "exafsd.testing.beamline",
                "--proxy", into, "--shape", shape, "--seconds", str(seconds), "--rate", str(rate),
                "--assets", str(assets), "--tiled", server.uri,
                environment={"TILED_API_KEY": server.api_key},
            )
        )  # fmt: skip
        with Live(get_renderable=screen.render, console=console, refresh_per_second=REFRESH):
            last = _follow(subscriber, screen, beamline, running, seconds)
        if running.stop() != 0:
            raise DemoError(f"the daemon did not end cleanly:\n{running.tail()}")
    if beamline.process.returncode != 0:
        raise DemoError(f"the beamline failed:\n{beamline.tail()}")
    if screen.table.results == 0:
        raise DemoError(f"no result was published; last status: {last}; logs are in {folder}")
    console.print()
    write_profile(catalog, PROFILE, folder / "profiles", [assets])
    console.print(
        f"{screen.table.results} results, {screen.table.rejected} rejected. Again, from the"
        f" journal:\n  exafsd replay {journal} --last 1\nor from the catalog, without a server:\n"
        f"  TILED_PROFILES={folder / 'profiles'} exafsd replay {PROFILE} --last 1",
        soft_wrap=True,
    )


def _follow(
    subscriber: Subscriber, screen: Screen, beamline: Part, running: Part, seconds: float
) -> dict[str, Any] | None:
    """Show messages until the beamline has ended and every run has stopped; the last status."""
    end = time.monotonic() + seconds + END_DEADLINE
    open_runs: set[str] = set()
    status = None
    while time.monotonic() < end:
        message: Message | None = subscriber.receive(0.2)
        if message is not None:
            screen.take(message)
            header = message.header
            if header["kind"] == "run.start":
                open_runs.add(header["run_uid"])
            elif header["kind"] == "run.stop":
                open_runs.discard(header["run_uid"])
            elif header["kind"] == "status":
                status = header
        running.check()
        if message is None and beamline.process.poll() is not None and not open_runs:
            return status
    raise DemoError(
        f"the beamline was not done {END_DEADLINE:.0f} s after its time:\n{beamline.tail()}"
    )

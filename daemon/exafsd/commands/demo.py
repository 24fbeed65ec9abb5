"""``exafsd demo``: simulated beamline, proxy, catalog, daemon, dashboard and table, all here."""

import importlib.util
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.live import Live

from exafsd.client import Message, Subscriber
from exafsd.commands.terminal import REFRESH, Screen
from exafsd.testing.catalog_server import CatalogServer, write_profile
from exafsd.testing.parts import (
    START_DEADLINE,
    PartError,
    PythonProcess,
    free_ports,
    python_process,
    wait_for_port,
)
from exafsd.testing.processes import NOT_COMPARED, daemon, proxy

#: s the beamline may go on beyond what was asked, for its first FEFF run and writing to the
#: catalog; and the daemon beyond the beamline, for result runs
END_DEADLINE = 120.0
#: s that a run takes in a demo without an end: after it its results are in the catalog
RUN_SECONDS = 60.0
Scenario = Literal["reduction", "heating"]
#: settings that a scenario needs: what a sample may be made of, and what is put into it
SETTINGS = {
    "heating": NOT_COMPARED,
    "reduction": '[composition]\nphases = ["Cu", "Cu2O", "CuO"]\n[adapter.truth]\n'
    + "".join(
        f'{name}_{phase} = "truth_{name}_{phase}"\n'
        for phase in ("Cu", "Cu2O", "CuO")
        for name in ("share", "r", "sigma2")
    ),
}
#: profile name under which the demo's catalog can be opened afterwards
PROFILE = "exafsd-demo"


class DemoError(RuntimeError):
    """A part of the demo did not do its work; the text says which and where its log is."""


@dataclass(frozen=True)
class Options:
    """What the demo measures, and where it can be looked at."""

    #: 0: until Ctrl-C
    seconds: float = 60.0
    #: sweeps a second
    rate: float = 5.0
    #: shape of the documents
    shape: str = "array"
    publish: str = "tcp://127.0.0.1:*"
    #: None: the port after that of `publish`
    answers: str | None = None
    #: of the dashboard; None: a free one
    port: int | None = None
    #: keeps everything; None: a new one
    folder: Path | None = None
    scenario: Scenario = "reduction"


def run_demo(options: Options, rows: int = 18) -> None:
    """Measure, publish, show, and end cleanly: after so many seconds, on SIGINT or on SIGTERM.

    Raises
    ------
    DemoError
        If a part fails or no result was published.
    """
    console = Console()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="exafsd-demo-"))
    assets, journal, catalog = folder / "assets", folder / "journal", folder / "catalog"
    assets.mkdir(parents=True, exist_ok=True)
    viewer = _Seen(Screen(rows))
    try:
        with ExitStack() as stack:
            stopped = stack.enter_context(_stopping())
            with console.status("starting proxy, catalog, daemon and dashboard"):
                into, out = stack.enter_context(proxy(folder))
                server = stack.enter_context(CatalogServer(catalog, [assets]))
                running, address = stack.enter_context(
                    daemon(folder, out, options.publish, journal, assets,
                           answers=options.answers, results=server,
                           settings=SETTINGS[options.scenario])
                )  # fmt: skip
                page = stack.enter_context(_dashboard(folder, address, options))
                subscriber = stack.enter_context(Subscriber(address))
                _wait_until_ready(subscriber, running)
            console.print(how_to_look(address, options.answers, page), soft_wrap=True)
            beamline = stack.enter_context(_beamline(folder, into, assets, server, options))
            stopped.of = beamline
            with Live(
                get_renderable=viewer.screen.render, console=console, refresh_per_second=REFRESH
            ):
                _follow(subscriber, viewer, beamline, running, options.seconds)
            if running.stop() != 0:
                raise DemoError(f"the daemon did not end cleanly:\n{running.tail()}")
    except PartError as error:
        raise DemoError(error) from None
    if not stopped.asked and beamline.process.returncode != 0:
        raise DemoError(f"the beamline failed:\n{beamline.tail()}")
    if not stopped.asked and viewer.screen.table.results == 0:
        raise DemoError(f"no result was published; last: {viewer.status}; logs are in {folder}")
    profiles = folder / "profiles"
    write_profile(catalog, PROFILE, profiles, [assets])
    console.print(_what_is_left(viewer, journal, profiles), soft_wrap=True)


@dataclass
class _Stopping:
    """Which part ends the demo when it ends, and whether it was asked to."""

    of: PythonProcess | None = None
    asked: bool = False

    def __call__(self, *_: object) -> None:
        """Take a signal. Before there is a beamline, or the second time, there is no order."""
        if self.of is None or self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.of.ask_to_end()


@contextmanager
def _stopping() -> Iterator[_Stopping]:
    """Ctrl-C and the like end the beamline first, so that what was measured is kept."""
    stopping = _Stopping()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stopping) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _dashboard(folder: Path, address: str, options: Options) -> Iterator[str | None]:
    """``exafsd dashboard``, where it is installed; the address of its page."""
    if importlib.util.find_spec("bokeh") is None:
        if options.port is not None:
            raise DemoError("--port is for the dashboard: pip install 'exafsd[dashboard]'")
        yield None
        return
    port = options.port or free_ports(1)[0]
    command = ["-m", "exafsd.cli", "dashboard", address, "--port", str(port)]
    if options.answers is not None:
        command += ["--answers", options.answers]
    with python_process("dashboard", folder, *command) as running:
        wait_for_port(port, running)
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def _beamline(
    folder: Path, into: str, assets: Path, server: CatalogServer, options: Options
) -> Iterator[PythonProcess]:
    arguments = [
        "-m", "exafsd.testing.beamline", "--proxy", into, "--assets", str(assets),
        "--tiled", server.uri, "--shape", options.shape, "--rate", str(options.rate),
        "--scenario", options.scenario, "--seconds", str(options.seconds or math.inf),
    ]  # fmt: skip
    if not options.seconds:
        arguments += ["--sweeps", str(math.ceil(RUN_SECONDS * options.rate))]
    environment = {"TILED_API_KEY": server.api_key}
    with python_process("beamline", folder, *arguments, environment=environment) as running:
        yield running


def _wait_until_ready(subscriber: Subscriber, running: PythonProcess) -> None:
    """Wait for the daemon's first status that says ready."""
    end = time.monotonic() + START_DEADLINE
    while time.monotonic() < end:
        running.check()
        message = subscriber.receive(0.2)
        if message and message.header["kind"] == "status" and message.header["state"] == "ready":
            return
    raise DemoError(f"the daemon was not ready after {START_DEADLINE:.0f} s:\n{running.tail()}")


@dataclass
class _Seen:
    """What has come over the wire."""

    screen: Screen
    #: raw runs, and those that have not stopped
    uids: list[str] = field(default_factory=list[str])
    open_runs: set[str] = field(default_factory=set[str])
    #: header of the last status, if it came after the last stop
    status: dict[str, Any] | None = None

    def take(self, message: Message) -> None:
        """Take a message."""
        self.screen.take(message)
        header = message.header
        if header["kind"] == "run.start":
            self.uids.append(header["run_uid"])
            self.open_runs.add(header["run_uid"])
        elif header["kind"] == "run.stop":
            self.open_runs.discard(header["run_uid"])
            self.status = None
        elif header["kind"] == "status":
            self.status = header

    @property
    def done(self) -> bool:
        """Whether all runs are over, and their results in the catalog or given up."""
        written = self.status is not None and self.status["queues"]["result_runs"] == 0
        return written and not self.open_runs


def _follow(
    subscriber: Subscriber,
    viewer: _Seen,
    beamline: PythonProcess,
    running: PythonProcess,
    seconds: float,
) -> None:
    """Show messages until the beamline has ended, and the daemon is done with its runs."""
    end = time.monotonic() + (seconds or math.inf) + END_DEADLINE
    measuring = True
    while time.monotonic() < end:
        message = subscriber.receive(0.2)
        if message is not None:
            viewer.take(message)
        running.check()
        if measuring and beamline.process.poll() is not None:
            measuring, end = False, time.monotonic() + END_DEADLINE
        if not measuring and message is None and viewer.done:
            return
    if measuring:
        raise DemoError(
            f"the beamline had not finished {END_DEADLINE:.0f} s after its time:\n{beamline.tail()}"
        )
    raise DemoError(
        f"the daemon had not finished {END_DEADLINE:.0f} s after the beamline:\n{running.tail()}"
    )


def how_to_look(address: str, answers: str | None, page: str | None) -> str:
    """Return what to type or to open while the demo runs."""
    argument = f", answers={answers!r}" if answers else ""
    browser = page or "needs pip install 'exafsd[dashboard]'"
    return (
        f"Results are published at {address}. Look at them from elsewhere on this machine:\n"
        f"  in a browser     {browser}\n"
        f"  in a terminal    exafsd watch {address}\n"
        f"  in Python        from exafsd.client import Follower\n"
        f'                   with Follower("{address}", "result."{argument}) as results:\n'
        f"                       for message in results:\n"
        f'                           print(message.header["id"])'
    )


def _what_is_left(viewer: _Seen, journal: Path, profiles: Path) -> str:
    """Return how to find again what was measured."""
    table = viewer.screen.table
    counts = f"\n{table.results} results, {table.rejected} rejected."
    if not viewer.uids:
        return counts
    drops: dict[str, int] = viewer.status["drops"] if viewer.status else {}
    lost = sum(count for reason, count in drops.items() if reason.startswith("results_"))
    in_catalog = f"All but {lost}" if lost else "They"
    with_profile = f"TILED_PROFILES={profiles} exafsd"
    return (
        f"{counts} {in_catalog} are stored in a catalog (tiled)."
        " To read those of a run, give its uid:\n"
        f"  {with_profile} export {PROFILE} --uid {viewer.uids[-1]} --to results.h5\n"
        "Analyse the run again, from the journal or from the catalog:\n"
        f"  exafsd replay {journal} --last 1\n"
        f"  {with_profile} replay {PROFILE} --last 1"
    )

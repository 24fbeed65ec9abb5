"""Documents through a real bluesky-0MQ-proxy to `exafsd run` and on to a subscriber."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from documents import Load
from exafsd.testing.parts import PythonProcess, python_process
from exafsd.testing.processes import proxy

HERE = Path(__file__).parent
#: s that a process may take to start, and a run to end after its last document
START, END = 90.0, 60.0
STAGES = ("assembled", "reduced", "inferred", "published")


class Unfinished(RuntimeError):
    """A run whose end never came through."""


@dataclass(frozen=True)
class Site:
    """A proxy and what listens behind it: the daemon, or the forwarder of the control."""

    folder: Path
    into: str
    address: str
    listener: PythonProcess


@dataclass(frozen=True)
class Measured:
    """What one run gave. Times in ms, `per_second` sweeps as outcomes came."""

    sent: dict[str, Any]
    run_stop: dict[str, Any]
    latency: np.ndarray
    stages: np.ndarray
    lost: int
    per_second: float
    drain: float  # from the last document to the last outcome
    cpu: float  # s of the listener per outcome
    cores: float  # share of a core that the listener used while it received

    @property
    def p50(self) -> float:
        """Median latency."""
        return float(np.median(self.latency))

    @property
    def p99(self) -> float:
        """Latency that one in a hundred exceeds."""
        return float(np.percentile(self.latency, 99))

    @property
    def points_per_second(self) -> float:
        """Points as outcomes came."""
        return self.per_second * self.sent["points"] / self.sent["sweeps"]


def _wait(condition: Any, running: PythonProcess) -> None:
    end = time.monotonic() + START
    while not condition():
        running.check()
        if time.monotonic() > end:
            sys.exit(f"{running.name} did not start:\n{running.tail()}")
        time.sleep(0.02)


@contextmanager
def daemon_site(
    folder: Path,
    channels: Sequence[str] = ("transmission",),
    journal: bool | None = False,
    more: str = "",
    checkout: Path | None = None,
) -> Iterator[Site]:
    """Proxy and daemon with default settings but for the channels, the model and the journal.

    The model is named, as a beamline that knows its sample does: of an edge with three models the
    daemon otherwise asks all of them. `more` are further settings, with those of the journal where
    `journal` is None; `checkout` holds the code of another commit, whose settings know no journal
    that is on by default.
    """
    keeping = (
        f'[journal]\nfolder = "{folder / "journal"}"\n' if journal
        else "" if checkout or journal is None else "[journal]\nenabled = false\n"
    )  # fmt: skip
    environment = {} if checkout is None else {"PYTHONPATH": str(checkout / "daemon")}
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        into, out = stack.enter_context(proxy(folder))
        address_file, config = folder / "address", folder / "exafsd.toml"
        config.write_text(
            f'[source]\naddress = "{out}"\n'
            f"[reduction]\nchannels = {json.dumps(list(channels))}\n"
            f'[publish]\naddress = "tcp://127.0.0.1:*"\naddress_file = "{address_file}"\n'
            + '[inference]\nmodel = "cu-k-fcc"\n'
            + keeping
            + more
        )
        command = ("-m", "exafsd.cli", "run", "--config", str(config))
        running = stack.enter_context(
            python_process("daemon", folder, *command, environment=environment)
        )
        _wait(address_file.exists, running)
        site = Site(folder, into, address_file.read_text().strip(), running)
        measure(site, Load(), sweeps=100, window=8)  # everything is loaded then
        yield site


@contextmanager
def control_site(folder: Path, sizes: Sequence[int]) -> Iterator[Site]:
    """Proxy and a process that publishes as many bytes without any analysis."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        into, out = stack.enter_context(proxy(folder))
        address_file = folder / "address"
        script = str(HERE / "forwarder.py")
        running = stack.enter_context(
            python_process(
                "forwarder", folder, script, out, str(address_file), json.dumps(list(sizes))
            )
        )
        _wait(address_file.exists, running)
        site = Site(folder, into, address_file.read_text().strip(), running)
        measure(site, Load(), sweeps=100, window=8)
        yield site


def measure(
    site: Site,
    load: Load,
    seconds: float = 1e9,
    sweeps: float = 1e9,
    rate: float | None = None,
    window: int = 64,
    channels: int = 1,
) -> Measured:
    """One run of documents, and what came of it.

    Parameters
    ----------
    seconds, sweeps
        Whichever is reached first ends the run.
    rate
        Documents per second; None sends as fast as results come, `window` sweeps under way.
    channels
        Outcomes that a sweep must have.
    """
    ready, arrived, times = (site.folder / name for name in ("ready", "arrived.npy", "times.npy"))
    ready.unlink(missing_ok=True)
    subscriber = _script("subscriber.py", site.address, str(ready), str(arrived))
    _wait(ready.exists, site.listener)
    pace = ["--results", site.address, "--window", str(window), "--channels", str(channels)]
    if rate is not None:
        pace = ["--rate", str(rate)]
    sender = _script(
        "sender.py", site.into, json.dumps(asdict(load)), "--seconds", str(seconds),
        "--sweeps", str(sweeps), "--times", str(times), *pace,
    )  # fmt: skip
    process = psutil.Process(site.listener.process.pid)
    before = sum(process.cpu_times()[:2])
    sent = _answer(sender, seconds + END)
    run_stop = _answer(subscriber, END)
    used = sum(process.cpu_times()[:2]) - before
    site.listener.check()
    if run_stop["run"] != sent["uid"]:
        sys.exit(f"the run did not come to its end: {run_stop}\n{site.listener.tail()}")
    rows = np.load(arrived)
    complete = np.load(times)
    complete_rows = rows[rows[:, 0] <= len(complete)]
    outcomes = run_stop["results"] + sum(run_stop["rejected"].values())
    last = run_stop["last"] or np.nan
    lasted = last - sent["began"]
    return Measured(
        sent=sent,
        run_stop=run_stop,
        latency=(complete_rows[:, 1] - complete[complete_rows[:, 0].astype(int) - 1]) * 1e3,
        stages=complete_rows[:, 2:],
        lost=sent["sweeps"] * channels - outcomes,
        per_second=outcomes / channels / lasted,
        drain=(last - sent["ended"]) * 1e3,
        cpu=used / max(outcomes, 1),
        cores=used / lasted,
    )


def _script(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / name), *arguments], stdout=subprocess.PIPE, text=True
    )


def _answer(process: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
    try:
        out, _ = process.communicate(timeout=min(timeout, 1e6))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Unfinished(f"{process.args[1]} did not end") from None
    if process.returncode:
        sys.exit(f"{process.args[1]} failed with {process.returncode}")
    return json.loads(out)

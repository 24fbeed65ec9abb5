"""Whether people who look slow the daemon: nobody, a dashboard, and a dashboard with two browsers.

``python tests/bench/bench.py dashboard [--quick]``; `measure_viewers` gives the numbers. Started
with a URL it is the two browsers, until its standard input is closed.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
from rates import START, Measured, Site, daemon_site, measure

from documents import Load
from exafsd.testing.parts import python_process

CASES = ("nobody", "dashboard", "dashboard, 2 browsers")
BROWSERS = 2
CHROMIUM = shutil.which("chromium")
#: per cent of a core that a dashboard takes at most while nothing happens
QUIET = 15.0
#: Who looks has a core of their own, as if on another machine: what is left is what the daemon does
#: for them.
CORES = sorted(os.sched_getaffinity(0))
DAEMON_CORE, LOOKING_CORE = CORES[0], CORES[-1]
#: sweeps per second of the latencies
RATE = 100


def look(url: str) -> None:
    """Open the page in browsers and keep it open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        pages = []
        for _ in range(BROWSERS):
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(url)
            page.wait_for_function("window.Bokeh && Bokeh.documents.length == 1")
            pages.append(page)
        print("open", flush=True)
        sys.stdin.read()
        shown = "exafsd.model('r').renderers[0].data_source.get_length()"
        print(min(page.evaluate(shown) for page in pages), flush=True)


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Have what is started meanwhile run on one core only, and this process as well."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settle(pid: int) -> None:
    """Wait until the dashboard has taken over the history that the daemon keeps."""
    process = psutil.Process(pid)
    end = time.monotonic() + START
    while process.cpu_percent(1.0) > QUIET and time.monotonic() < end:
        pass


@contextmanager
def viewers(site: Site, case: str) -> Iterator[None]:
    """Have somebody look for as long as the context lasts."""
    if case == "nobody":
        yield
        return
    with ExitStack() as stack:
        folder = site.folder / f"look{time.monotonic_ns()}"
        folder.mkdir()
        stack.enter_context(on_core(LOOKING_CORE))
        page = stack.enter_context(
            python_process("dashboard", folder, "-m", "exafsd.cli", "dashboard", site.address,
                 "--port", "0")
        )  # fmt: skip
        end = time.monotonic() + START
        while (address := re.search(r"dashboard at (\S+),", page.tail())) is None:
            page.check()
            if time.monotonic() > end:
                sys.exit(f"no dashboard:\n{page.tail()}")
            time.sleep(0.05)
        if "browsers" not in case:
            settle(page.process.pid)
            with on_core(DAEMON_CORE):
                yield
            return
        looking = subprocess.Popen(
            [sys.executable, __file__, address[1]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert looking.stdin is not None
        assert looking.stdout is not None
        if looking.stdout.readline().strip() != "open":
            sys.exit("the browsers did not open")
        settle(page.process.pid)
        with on_core(DAEMON_CORE):
            yield
        looking.stdin.close()
        if int(looking.stdout.readline() or 0) < 1:
            sys.exit("the browsers saw nothing")
        looking.wait()


def measure_viewers(folder: Path, quick: bool) -> dict[str, list[Measured]]:
    """For every case, in turn, runs at a fixed rate."""
    seconds, repeats = (8, 1) if quick else (30, 3)
    by_case: dict[str, list[Measured]] = {case: [] for case in CASES}
    with on_core(DAEMON_CORE), daemon_site(folder / "daemon") as site:
        for number in range(repeats):
            for case in CASES:
                with viewers(site, case):
                    one = measure(site, Load(), seconds=seconds, rate=RATE)
                by_case[case].append(one)
                print(f"viewers {number + 1}/{repeats} {case}: p50 {one.p50:.2f} p99 {one.p99:.2f}"
                      f" ms, lost {one.lost}, {one.per_second:.1f} sweeps/s,"
                      f" {one.cpu * 1e3:.2f} ms of a core each", flush=True)  # fmt: skip
    return by_case


def report(by_case: dict[str, list[Measured]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table; medians of the repeats, ratios to nobody looking."""

    def median(case: str, name: str) -> float:
        return float(np.median([getattr(one, name) for one in by_case[case]]))

    head = ["looking", "p50 ms", "p99 ms", "lost", "sweeps/s", "daemon, ms of a core",
            "ratio of p50", "of sweeps/s", "of the daemon's time"]  # fmt: skip
    rows = []
    for case in CASES:
        p50, p99, rate, cpu = (median(case, name) for name in ("p50", "p99", "per_second", "cpu"))
        lost = sum(one.lost for one in by_case[case])
        ratios = (median(case, name) / median(CASES[0], name)
                  for name in ("p50", "per_second", "cpu"))  # fmt: skip
        rows.append([
            case, f"{p50:.2f}", f"{p99:.2f}", str(lost), f"{rate:.1f}", f"{cpu * 1e3:.2f}",
            *(f"{ratio:.2f}" for ratio in ratios),
        ])  # fmt: skip
    return head, rows


if __name__ == "__main__":
    look(sys.argv[1])

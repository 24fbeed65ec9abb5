"""Benchmarks: ``make bench``. Prints tables and puts them into docs/benchmarks.md.

Not collected by pytest. What is compared is measured in turn in one run; of three runs the best
counts, since other work on the machine only makes things slower. `--quick` is for trying: few and
short runs, nothing is written.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
from memory import measure_memory
from rates import STAGES, Measured, Unfinished, control_site, daemon_site, measure
from versus import BASE, measure_versus, rows_of
from versus import HEAD as HEADING
from viewers import CHROMIUM, measure_viewers
from viewers import report as looked
from wire import measure_wire, report

from documents import Load

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `make bench` and `make bench-memory`; do not edit. Every section was measured in one run of
its command. Times depend on the machine; ratios within a table much less.
"""
#: s for the drain of a rate that counts as sustained
DRAINED = 0.25


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def bar(met: bool, text: str) -> str:
    """What is to be reached, and whether it was."""
    return f"{text}: {'met' if met else 'missed'}"


def machine() -> str:
    """What this was measured on, in general words."""
    names = ("numpy", "scipy", "xraylarch", "rexafs", "onnxruntime", "pyzmq", "bluesky")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    cores = os.cpu_count()
    python = platform.python_version()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=True)
    return (
        f"{cores} shared cores ({platform.machine()}), Python {python}, {versions}; commit"
        f" {commit.stdout.strip()}."
    )


def reduction(folder: Path, quick: bool) -> str:
    """Plan against Larch and rexafs."""
    command = [sys.executable, str(HERE / "compare.py"), "--spectra", "4" if quick else "32"]
    single = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=single, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    timings = json.loads(done.stdout)
    parts = [
        "From mu(E) to chi(R), per spectrum, on one core with one BLAS thread: `pre_edge`, `autobk`"
        " and `xftf` of Larch, the compiled plan, which adds the noise of chi(k) and of the edge"
        " step, and rexafs with its default solver. `As much as rexafs` is the plan without the"
        " noise of chi(k), which rexafs does not estimate. Copper foil with photon noise, the same"
        " spectra for all, in turn, best of three. `E0 given` leaves out the search for E0; a plan"
        " has it compiled in, as in a run. `New energies` has other energies in every spectrum, as"
        " an encoder gives them, and a plan for one use each: from mu(E) to chi(R) and its noise.",
    ]
    for points, one in timings.items():
        ms = one["ms"]
        batch, bare = (name for name in ms if "batch" in name)
        rows = [
            (name, f"{took:.3f}", *(f"{ms[other] / took:.1f}" for other in
             ("Larch", "Larch, E0 given", "rexafs", "rexafs, E0 given")))
            for name, took in ms.items()
        ]  # fmt: skip
        plan = "plan, one spectrum"
        sentences = [
            bar(ms[slow] >= least * ms[quick_one],
                f"{quick_one} at least {least} times {slow} ({ms[slow] / ms[quick_one]:.1f})")
            for quick_one, least, slow in (
                (batch, 100, "Larch, E0 given"),
                (plan, 20, "Larch, E0 given"),
                (batch, 5, "rexafs"),
                (bare, 5, "rexafs, E0 given"),
            )
        ]  # fmt: skip
        new, peer = ms["new energies"], ms["rexafs, E0 given, new energies"]
        limit = 4.0 if int(points) < 1000 else 1.0
        sentences.append(
            bar(
                new <= limit * peer,
                f"new energies at most {limit:g} times rexafs, E0 given ({new / peer:.2f})",
            )
        )
        differ = ", ".join(f"{name} {value:.1e}" for name, value in one["difference"].items())
        head = ("", "ms", "x Larch", "x Larch, E0 given", "x rexafs", "x rexafs, E0 given")
        parts += [
            f"### {points} points",
            table(head, rows),
            f"Median relative difference of k^2 chi(k) from Larch's: {differ}.",
            "; ".join(sentences) + ".",
        ]
    return "\n\n".join(parts)


def _stages(one: Measured) -> str:
    medians = np.nanmedian(one.stages, axis=0)
    return ", ".join(f"{name} {at:.2f}" for name, at in zip(STAGES, medians, strict=True))


def _quickest(runs: Sequence[Measured]) -> Measured:
    """Of the runs with the fewest lost, the one with the lowest p99."""
    return min(runs, key=lambda one: (one.lost, one.p99))


def latency(folder: Path, quick: bool) -> str:
    """Array events at 100 sweeps/s, beside the control."""
    seconds, repeats = (5, 1) if quick else (60, 3)
    runs: dict[str, list[Measured]] = {"daemon": [], "control": [], "daemon, journal": []}
    with ExitStack() as stack:
        sites = {"daemon": stack.enter_context(daemon_site(folder / "daemon"))}
        sizes = measure(sites["daemon"], Load(), sweeps=50, rate=50).run_stop["sizes"]
        sites["control"] = stack.enter_context(control_site(folder / "control", sizes))
        sites["daemon, journal"] = stack.enter_context(
            daemon_site(folder / "journal", journal=True)
        )
        for number in range(repeats):
            for name, site in sites.items():
                one = measure(site, Load(), seconds=seconds, rate=100)
                runs[name].append(one)
                print(f"latency {number + 1}/{repeats} {name}: p50 {one.p50:.2f} p99 {one.p99:.2f}"
                      f" ms, lost {one.lost}", flush=True)  # fmt: skip
    best = {name: _quickest(of_name) for name, of_name in runs.items()}
    rows = [
        (
            name,
            f"{best[name].p50:.2f}",
            f"{best[name].p99:.2f}",
            f"{best[name].latency.max():.1f}",
            f"{best[name].lost} of {best[name].sent['sweeps']}",
            f"{best[name].cores:.2f}",
            "; ".join(f"{one.p50:.2f}, {one.p99:.2f}" for one in of_name),
        )
        for name, of_name in runs.items()
    ]
    daemon = best["daemon"]
    return "\n\n".join((
        f"Array events of 500 points, energy and 3 columns, 100 sweeps/s for {seconds} s: sender,"
        " `bluesky-0MQ-proxy`, `exafsd run`, subscriber, each a process of its own on one machine."
        " From the moment before the document that completes the sweep is sent to the arrival of"
        " its result with all arrays. Transmission, shipped model. The control publishes"
        f" messages of the same size ({sum(sizes)} bytes) as soon as a document comes, without"
        f" looking into it. Best of {repeats} by p99.",
        table(("", "p50 ms", "p99 ms", "worst ms", "lost", "cores used", "p50, p99 of each run"),
              rows),
        f"Daemon, median ms since the document was received: {_stages(daemon)}."
        f" The sender was {daemon.sent['late'] * 1e3:.1f} ms late at worst.",
        "; ".join((
            bar(daemon.p50 <= 5, "p50 at most 5 ms"), bar(daemon.p99 <= 20, "p99 at most 20 ms"),
            bar(daemon.lost == 0, "nothing lost"),
        )) + ".",
    ))  # fmt: skip


def rates(folder: Path, quick: bool) -> str:
    """Highest sustained rates, and whether those to be reached are kept up without loss."""
    seconds, repeats = (3, 1) if quick else (15, 3)
    both = ("transmission", "reference")
    rows = []

    def note(what: str, how: str, one: Measured, value: float, least: float, unit: str) -> None:
        good = value >= least and one.lost == 0
        rows.append((what, how, f"{value:,.0f} {unit}", f"{one.per_second:,.0f}", one.lost,
                     f"{one.p50:.1f}, {one.p99:.1f}", f"{one.drain:.0f}", f"{one.cores:.2f}",
                     bar(good, f"{least:,.0f}") if least else ""))  # fmt: skip
        print("rates", *rows[-1], flush=True)

    def highest(site: object, load: Load, window: int, channels: int = 1) -> Measured:
        rates = [
            measure(site, load, seconds=seconds, window=window, channels=channels)
            for _ in range(repeats)
        ]
        return min(rates, key=lambda one: (one.lost > 0, -one.per_second))

    fast = "as fast as results come"
    with ExitStack() as stack:
        site = stack.enter_context(daemon_site(folder / "daemon"))
        one = highest(site, Load(), 64)
        note("array events, 500 points", fast, one, one.per_second, 500, "sweeps/s")
        one = _quickest([measure(site, Load(), seconds=seconds, rate=500) for _ in range(repeats)])
        note("array events, 500 points", "500 a second", one, one.per_second, 0, "sweeps/s")
        one = _events(site, seconds, repeats)
        note("scalar events, 500 a sweep", "highest rate tried without loss", one,
             one.sent["rate"], 20_000, "events/s")  # fmt: skip
        pages = "pages of 10,000"
        for what, load, window, least in (
            (f"{pages}, 500 points a sweep", Load("page"), 60, 1_000_000),
            ("the same, columns as arrays", Load("page", lists=False), 60, 1_000_000),
            ("the same, encoder noise", Load("page", noise=0.02, lists=False), 60, 0),
            (f"{pages}, 10,000 points a sweep, encoder noise", Load("page", 10_000, noise=0.02),
             6, 1_000_000),
            ("the same, columns as arrays", Load("page", 10_000, noise=0.02, lists=False),
             6, 1_000_000),
        ):  # fmt: skip
            one = highest(site, load, window)
            note(what, fast, one, one.points_per_second, least, "points/s")
        journal = stack.enter_context(daemon_site(folder / "journal", journal=True))
        one = highest(journal, Load(), 64)
        note("array events, 500 points, journal on", fast, one, one.per_second, 0, "sweeps/s")
        channels = stack.enter_context(daemon_site(folder / "both", channels=both))
        one = highest(channels, Load(), 64, channels=2)
        note("array events, 500 points, transmission and reference", fast, one,
             one.per_second, 0, "sweeps/s")  # fmt: skip
    head = ("documents", "sent", "rate", "sweeps/s", "lost", "p50, p99 ms", "drain ms",
            "cores used", "to reach")  # fmt: skip
    return "\n\n".join((
        f"Through the same processes, {seconds} s each, best of {repeats}. Transmission unless"
        " said; shipped model, named; journal off unless said. `As fast as results come` keeps so"
        " many sweeps under way that the daemon always has work and no queue grows: 64 array"
        " events, 60 or 6 sweeps in pages. Scalar events are sent at a rate that is raised until in"
        " every try"
        f" something is lost or the daemon is more than {DRAINED * 1e3:.0f} ms behind at the end."
        " `drain` is the time from the last document to the last outcome. Encoder noise is"
        " 0.02 eV: then no two sweeps have the same energies. `cores used` are those of the daemon,"
        " while sender, proxy and subscriber need some too.",
        table(head, rows),
    ))  # fmt: skip


def _events(site: object, seconds: float, repeats: int) -> Measured:
    """Raise the rate of scalar events as long as one try in `repeats` keeps up."""
    rate, best = 10_000.0, None
    while True:
        one = next((one for one in _tries(site, seconds, rate, repeats) if one is not None), None)
        if one is None:
            if best is None:
                raise Unfinished(f"scalar events are not kept up with at {rate:.0f} a second")
            return best
        one.sent["rate"] = one.sent["documents"] / (one.sent["ended"] - one.sent["began"])
        if one.sent["rate"] < 0.95 * rate:  # the sender cannot do more
            return one
        rate, best = rate * 1.2, one


def _tries(site: object, seconds: float, rate: float, repeats: int) -> Iterator[Measured | None]:
    """Measure a rate of scalar events again and again; None where it was not kept up with."""
    for _ in range(repeats):
        try:
            one = measure(site, Load("event"), seconds=seconds, rate=rate)
        except Unfinished:  # the proxy has lost the end of the run
            yield None
            continue
        print(f"events at {rate:.0f}/s: lost {one.lost}, drain {one.drain:.0f} ms", flush=True)
        kept_up = one.lost == 0 and one.drain <= DRAINED * 1e3 and not one.run_stop["rejected"]
        yield one if kept_up else None


def cost(folder: Path, quick: bool) -> str:
    """Cost against points per spectrum, and against spectra per second."""
    seconds = 3 if quick else 10
    by_points, by_rate = [], []
    with daemon_site(folder / "daemon") as site:
        for points in (250, 500, 1000, 2000, 4000):
            one = measure(site, Load(points=points), seconds=seconds)
            slow = measure(site, Load(points=points), seconds=seconds, rate=20)
            by_points.append((points, f"{one.per_second:,.0f}", f"{one.cpu * 1e3:.2f}",
                              f"{slow.p50:.2f}", one.lost + slow.lost))  # fmt: skip
            print("cost", *by_points[-1], flush=True)
        for rate in (10, 50, 100, 200, 500):
            one = measure(site, Load(), seconds=seconds, rate=rate)
            by_rate.append((rate, f"{one.cores:.2f}", f"{one.cpu * 1e3:.2f}", f"{one.p50:.2f}",
                            f"{one.p99:.2f}", one.lost))  # fmt: skip
            print("cost", *by_rate[-1], flush=True)
    return "\n\n".join((
        f"Array events, transmission, shipped model, {seconds} s each; processor time is that of"
        " the daemon's process. Energies as in a step scan up to 1,000 points, evenly spaced"
        " beyond.",
        table(("points a spectrum", "highest spectra/s", "processor ms a spectrum at that rate",
               "p50 ms at 20 spectra/s", "lost"), by_points),
        table(("spectra/s of 500 points", "cores used", "processor ms a spectrum", "p50 ms",
               "p99 ms", "lost"), by_rate),
    ))  # fmt: skip


def wire(folder: Path, quick: bool) -> str:
    """Late joiners, recovery, and the others beside a frozen subscriber."""
    return "\n\n".join((
        "The publisher with messages of a real result's size, in a process of its own, and"
        " subscribers: best of three runs by p99. The control is the same without the frozen one.",
        report(measure_wire(quick)),
    ))  # fmt: skip


def memory(folder: Path, spectra: int) -> str:
    """Resident size over many spectra."""
    figures = measure_memory(folder / "daemon", spectra)
    head = ("when", "MB")
    rows = [
        ("first results", f"{figures['start']:.1f}"),
        ("after a tenth of the spectra", f"{figures['warm']:.1f}"),
        ("most after that", f"{figures['most']:.1f}"),
        ("at the end", f"{figures['end']:.1f}"),
    ]
    return "\n\n".join((
        f"Resident size of the daemon over {figures['spectra']:,} spectra of 500 points in"
        f" {figures['seconds']:.0f} s, array events in runs, with composition and components of"
        f" every spectrum, {figures['lost']} lost. Larch's"
        f" process for the audit has its own {figures['children']:.0f} MB.",
        table(head, rows),
        bar(figures["growth"] <= 20, f"at most 20 MB more after the first tenth"
            f" ({figures['growth']:.1f} MB)") + ".",
    ))  # fmt: skip


def versus(folder: Path, quick: bool) -> str:
    """The pipeline beside that of the first edition."""
    rows = rows_of(measure_versus(quick=quick))
    return "\n\n".join((
        f"From sweeps to frames, in turn with commit {BASE}, which compiles a plan for every energy"
        " grid and validates every part of a message. One process on one core, without documents"
        " and sockets; transmission unless said; model named; without refinement and composition"
        " unless said. Ratios are the median of three rounds. Encoder noise is 0.02 eV. What came"
        " after that commit, E0 by the near edge and whether the sample changes, takes time in the"
        " second column alone.",
        table(HEADING, rows),
    ))  # fmt: skip


def encoders(folder: Path, quick: bool) -> str:
    """Energies that never repeat through the proxy, and pages of a dispersive detector."""
    seconds, rate = (5, 100) if quick else (60, 100)
    rows = []

    def note(what: str, one: Measured, limit: str = "") -> None:
        settled = np.percentile(one.latency[2 * rate :], 99)
        rows.append((what, f"{one.per_second:,.0f}", one.lost, f"{one.p50:.1f}", f"{one.p99:.1f}",
                     f"{settled:.1f}", f"{one.drain:.0f}", f"{one.cores:.2f}", limit))  # fmt: skip
        print("encoders", *rows[-1], flush=True)

    with daemon_site(folder / "daemon") as site:
        for points in (500, 4000):
            load = Load(points=points, noise=0.02)
            one = measure(site, load, seconds=seconds, rate=rate)
            note(f"array events, {points:,} points, {rate} a second", one,
                 bar(one.lost == 0 and one.p99 <= 25, "p99 25"))  # fmt: skip
            one = measure(site, load, seconds=seconds / 4)
            note(f"array events, {points:,} points, as fast as results come", one)
        one = measure(site, Load("dispersive", 1000, page=100), sweeps=2000, window=300)
        note("pages of 100 spectra of 1,000 points, as fast as results come", one)
    return "\n\n".join((
        "Sender, `bluesky-0MQ-proxy`, `exafsd run`, subscriber. Encoder noise of 0.02 eV: no two"
        f" sweeps have the same energies. {seconds} s at {rate} a second, a quarter of it as fast"
        " as results come; 2,000 spectra in pages, which have the same energies as of a dispersive"
        " detector. Transmission; model named; all arrays in every message. A run's first spectra"
        f" are refined and compared with references until its pace is known: `settled` is p99"
        f" without the first {2 * rate} spectra.",
        table(("documents", "spectra/s", "lost", "p50 ms", "p99 ms", "settled p99 ms", "drain ms",
               "cores used", "to reach"), rows),
    ))  # fmt: skip


#: title of a section and what makes it
def dashboard(folder: Path, quick: bool) -> str:
    """Two browsers that look."""
    if CHROMIUM is None:
        return "Not measured: there is no chromium."
    head, rows = looked(measure_viewers(folder, quick))
    return "\n\n".join((
        "The daemon while nobody looks, while `exafsd dashboard` follows, and while two browsers"
        " show its page, in turn on one machine, at 100 sweeps/s as above; processor time of the"
        " daemon per sweep. Sender, proxy, daemon and subscriber have one core, the dashboard and"
        " browsers the other, as if they were on another machine: what is compared is what the"
        " daemon does for them. (Browsers that draw on the daemon's own cores take them from it.)"
        " Medians.",
        table(head, rows),
    ))  # fmt: skip


PARTS: dict[str, tuple[str, Callable[[Path, bool], str]]] = {
    "reduction": ("Reduction alone", reduction),
    "versus": ("Beside the first edition", versus),
    "encoders": ("Energies that never repeat", encoders),
    "latency": ("From document to result", latency),
    "rates": ("Highest sustained rates", rates),
    "cost": ("What a spectrum costs", cost),
    "wire": ("What subscribers wait for", wire),
    "dashboard": ("People who look", dashboard),
}
MEMORY = "Memory over a long time"
ORDER = [*(title for title, _ in PARTS.values()), MEMORY]


def write(sections: dict[str, str]) -> None:
    """Put sections into the page; others stay as they are."""
    old = PAGE.read_text() if PAGE.exists() else ""
    old_sections = dict(re.findall(r"^## (.*?)\n+(.*?)\n*(?=^## |\Z)", old, re.M | re.S))
    old_sections |= sections
    body = "\n\n".join(
        f"## {title}\n\n{old_sections[title]}" for title in ORDER if title in old_sections
    )
    PAGE.write_text(f"{HEAD}\n{body}\n")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "memory", []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="short, and nothing is written")
    parser.add_argument("--spectra", type=int, default=360_000, help="for memory")
    asked = parser.parse_args()
    where = machine()  # a package that is missing is not noticed after an hour
    for part in asked.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="exafsd-bench-") as name:
            if part == "memory":
                title, command = MEMORY, f"make bench-memory SPECTRA={asked.spectra}"
                text = memory(Path(name), asked.spectra)
            else:
                title, make = PARTS[part]
                command = f"tests/bench/bench.py {part}"
                text = make(Path(name), asked.quick)
        section = f"`{command}` on {where}\n\n{text}"
        print(f"\n## {title}\n\n{section}\n", flush=True)
        if not asked.quick:
            write({title: section})


if __name__ == "__main__":
    main()

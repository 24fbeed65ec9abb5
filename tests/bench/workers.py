"""An archive by two processes of `exafsd replay`, and by two Dask workers, beside two plain ones.

In turn in one run. Prints JSON. `waiting` is `exafsd replay` as it was before what a process has
ahead of its turn was taken off its pipe.

Each plain process analyses half of the runs and throws the outcomes away; outcomes of workers or of
`exafsd replay` come to the process that asked, in order. Rates begin after the first runs, so that
starting processes and loading models does not count on either side.

    python tests/bench/workers.py [--runs 30] [--sweeps 60] [--rounds 3] [--only processes]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distributed import LocalCluster

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from exafsd.archive.journal import Journal  # noqa: E402
from exafsd.archive.sources import open_source  # noqa: E402
from exafsd.commands.replay import analysis  # noqa: E402
from exafsd.commands.replay.analysis import in_processes, in_turn  # noqa: E402
from exafsd.commands.replay.cluster import on_workers  # noqa: E402
from exafsd.outcome import Outcome  # noqa: E402
from exafsd.settings.settings import load  # noqa: E402
from simulated import shapes  # noqa: E402
from synthetic import METADATA, sweep_columns  # noqa: E402

#: as docs/howto/replay.md starts workers: Dask's own value of the first gives memory back to the
#: system after every spectrum, and takes it again
MEMORY = {"MALLOC_TRIM_THRESHOLD_": "134217728", "MALLOC_MMAP_THRESHOLD_": "33554432"}
#: runs of each process or worker before the clock begins
WARM = 2


def write_archive(folder: Path, runs: int, sweeps: int) -> list[str]:
    """Journal of runs with an array event for each sweep of 400 points; their uids."""
    columns = [sweep_columns(number) for number in range(sweeps)]
    journal = Journal(folder)
    uids = [f"run-{number:04}" for number in range(runs)]
    for number, uid in enumerate(uids):
        about = {**METADATA, "uid": uid, "time": 1.7e9 + number}
        for name, document in shapes.array_events(columns, about):
            journal.write(name, document)
    journal.close()
    return uids


def rate(runs: Iterable[tuple[str, Iterable[Any]]]) -> tuple[float, int]:
    """Outcomes per second after the first runs, and how many there were in all."""
    began, before, outcomes = 0.0, 0, 0
    for number, (_, items) in enumerate(runs):
        outcomes += sum(isinstance(item, Outcome) for item in items)
        if number == 2 * WARM - 1:
            began, before = time.perf_counter(), outcomes
    return (outcomes - before) / (time.perf_counter() - began), outcomes


def plain_process(archive: str, uids: list[str], both: Any, counts: Any) -> None:
    """Analyse runs, the first of them before both processes begin to count."""
    outcomes = 0
    runs = in_turn(open_source(archive), uids, load(), realtime=False)
    for number, (_, items) in enumerate(runs):
        outcomes += sum(isinstance(item, Outcome) for item in items)
        if number == WARM - 1:
            before = outcomes
            both.wait()
    both.wait()
    counts.put((outcomes, outcomes - before))


def plain_rate(archive: str, uids: list[str]) -> tuple[float, int]:
    """Outcomes per second of two plain processes after the first runs, and how many in all."""
    context = multiprocessing.get_context("spawn")
    both, counts = context.Barrier(3), context.SimpleQueue()
    running = [
        context.Process(target=plain_process, args=(archive, uids[number::2], both, counts))
        for number in range(2)
    ]
    for process in running:
        process.start()
    both.wait()
    began = time.perf_counter()
    both.wait()
    took = time.perf_counter() - began
    reports = [counts.get() for _ in running]
    for process in running:
        process.join()
    return sum(after for _, after in reports) / took, sum(total for total, _ in reports)


def dask_rate(archive: str, uids: list[str]) -> tuple[float, int]:
    """`rate` of two workers."""
    os.environ.update(MEMORY)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=40
    ) as cluster:
        for name in MEMORY:
            os.environ.pop(name)
        return rate(on_workers(archive, uids, load(), cluster.scheduler_address))


def replay_rate(archive: str, uids: list[str], ahead: int) -> tuple[float, int]:
    """`rate` of two processes of `exafsd replay` that may be so many bytes ahead."""
    before, analysis.AHEAD = analysis.AHEAD, ahead
    try:
        return rate(in_processes(archive, uids, load(), 2))
    finally:
        analysis.AHEAD = before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("processes", "workers"), action="append")
    asked = parser.parse_args()
    ways: dict[str, Callable[[str, list[str]], tuple[float, int]]] = {"plain": plain_rate}
    only = asked.only or ["processes", "workers"]
    if "processes" in only:
        ways["waiting"] = lambda archive, uids: replay_rate(archive, uids, 1)
        ways["processes"] = lambda archive, uids: replay_rate(archive, uids, analysis.AHEAD)
    if "workers" in only:
        ways["workers"] = dask_rate
    rates: dict[str, list[float]] = {way: [] for way in ways}
    counts = set()
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder) / "journal")
        uids = write_archive(Path(archive), asked.runs, asked.sweeps)
        for _ in range(asked.rounds):
            for way, measured in ways.items():
                one, outcomes = measured(archive, uids)
                rates[way].append(one)
                counts.add(outcomes)
    plain = rates["plain"]
    ratios = {
        way: [one / other for one, other in zip(these, plain, strict=True)]
        for way, these in rates.items()
    }
    report = {
        "per_s": {way: [round(one, 1) for one in these] for way, these in rates.items()},
        "ratios": {way: [round(one, 2) for one in these] for way, these in ratios.items()},
        "ratio": {way: round(statistics.median(these), 3) for way, these in ratios.items()},
        "outcomes": sorted(counts),
        "met": len(counts) == 1
        and all(statistics.median(ratios[way]) >= 0.85 for way in ("processes", "workers")
                if way in ways),
    }  # fmt: skip
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

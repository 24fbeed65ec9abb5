"""An archive over two Dask workers beside two plain processes, in turn in one run. Prints JSON.

Each plain process analyses half of the runs and throws the outcomes away; outcomes of workers come
to the process that asked, in order. Rates begin after the first runs, so that starting processes
and loading models does not count on either side.

    python tests/bench/workers.py [--runs 30] [--sweeps 60] [--rounds 3]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distributed import LocalCluster

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from exafsd.archive.journal import Journal  # noqa: E402
from exafsd.archive.sources import open_source  # noqa: E402
from exafsd.commands.replay.analysis import in_turn  # noqa: E402
from exafsd.commands.replay.cluster import on_workers  # noqa: E402
from exafsd.pipeline import Outcome  # noqa: E402
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    settings = load()
    processes, workers, counts = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder) / "journal")
        uids = write_archive(Path(archive), asked.runs, asked.sweeps)
        for _ in range(asked.rounds):
            plain, outcomes = plain_rate(archive, uids)
            processes.append(plain)
            counts.add(outcomes)
            os.environ.update(MEMORY)
            with LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=40
            ) as cluster:
                for name in MEMORY:
                    os.environ.pop(name)
                spread, outcomes = rate(
                    on_workers(archive, uids, settings, cluster.scheduler_address)
                )
            workers.append(spread)
            counts.add(outcomes)
    ratios = [one / other for one, other in zip(workers, processes, strict=True)]
    report = {
        "two_processes_per_s": [round(one, 1) for one in processes],
        "two_workers_per_s": [round(one, 1) for one in workers],
        "ratio": round(statistics.median(ratios), 3),
        "outcomes": sorted(counts),
        "met": statistics.median(ratios) >= 0.85 and len(counts) == 1,
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

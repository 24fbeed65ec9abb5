"""Sweeps a second through the pipeline of the code on PYTHONPATH, whatever commit that is.

``sweep_rate.py SWEEPS.npz --batch 1 --count 200`` prints JSON. From sweeps to frames that are ready
to be sent: preparation, reduction, reading and message, without documents and sockets. With
`--room` refinement and composition are made as well. It is run by `versus.py`.
"""
# ruff: noqa: E402 the clock starts before anything is loaded

import time

BEGAN = time.perf_counter()

import argparse
import json

import numpy as np

from exafsd.contract.frames import ARRAY_UNITS, encode
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.spectra import Edge, Run, Sweep

#: sweeps before the clock starts, so that all is loaded and the run's ranges are settled
WARM = 70

try:  # commits before the settings' own package
    from exafsd.analysis import Analysis, Inference, Reduction

    BEFORE = True
except ImportError:
    from exafsd.settings.analysis import Analysis, Inference, Reduction

    BEFORE = False


def pipeline() -> Pipeline:
    """With the references that come with exafsd, where there are any."""
    registry = Registry.load([])
    try:
        from exafsd.composition import references
        from exafsd.composition.composer import Composer

        loaded, _ = references.load([references.shipped_folder()])
        return Pipeline(registry, tuple(ARRAY_UNITS), composer=Composer(loaded))
    except ImportError:
        return Pipeline(registry, tuple(ARRAY_UNITS))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", help="npz of energies, i0, it and ir, (sweeps, 4, points)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--room", action="store_true")
    parser.add_argument("--channels", nargs="+", default=["transmission"])
    asked = parser.parse_args()
    columns = np.load(asked.sweeps)["sweeps"]
    analysis = Analysis(
        reduction=Reduction(channels=tuple(asked.channels)), inference=Inference(model="cu-k-fcc")
    )
    run = {"uid": "bench", "edges": (Edge("Cu", "K"),)}
    run = Run(**run) if BEFORE else Run(**run, analysis=analysis)
    names = ("energy", "i0", "it", "ir")

    def sweep(number: int) -> Sweep:
        energy, *signals = columns[number % len(columns)]
        return Sweep(
            run, "primary", number + 1, energy, dict(zip(names[1:], signals, strict=True)),
            direction="up" if energy[-1] > energy[0] else "down", received=time.perf_counter(),
        )  # fmt: skip

    pipe = pipeline()
    results, first = 0, None

    def process(begin: int, end: int) -> None:
        nonlocal results, first
        for number in range(begin, end, asked.batch):
            batch = [sweep(i) for i in range(number, min(number + asked.batch, end))]
            given = [(one, analysis) for one in batch] if BEFORE else batch
            for outcomes in pipe.process_many(given, asked.room):
                for outcome in outcomes:
                    encode(outcome.message, outcome.arrays)
                    results += outcome.message.kind == "result"
            first = first or time.perf_counter() - BEGAN

    process(0, WARM)
    results = 0
    if not BEFORE:  # as `exafsd run` does
        from exafsd.service.garbage import settle

        settle()
    started, cpu = time.perf_counter(), time.process_time()
    process(WARM, WARM + asked.count)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        json.dumps(
            {
                "per_second": asked.count / took,
                "cpu_ms": 1e3 * cpu / asked.count,
                "results": results,
                "first_s": first,
            }
        )
    )


if __name__ == "__main__":
    main()

"""Benchmarks, as ratios measured side by side in one run: ``make bench``.

Not collected by pytest; prints a table. Milliseconds are the best of three.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from larch import Group
from larch.xafs import autobk, pre_edge, xftf

from exafsd.analysis import Analysis, Reduction
from exafsd.contract.frames import ARRAY_UNITS, encode
from exafsd.documents import Router
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.spectra import Sweep
from exafsd.testing import shapes
from synthetic import foil

METADATA = {"element": "Cu", "edge": "K", "sample": {"name": "foil"}}


def best(work, repeats=3):
    """Best of `repeats`, in ms."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e3)
    return min(times)


def bench(points, sweeps=20):
    """Whole pipeline against Larch alone, on the same spectra in turn."""
    spectra = [foil(points, noise=1e-4, seed=i) for i in range(sweeps)]
    i0 = np.full(points, 1e6)
    data = [(e, {"I0": i0, "It": i0 * np.exp(-mu)}, {"temperature": 300.0}) for e, mu in spectra]
    documents = list(shapes.array_events(data, METADATA))
    analysis = Analysis(reduction=Reduction(channels=("transmission",)))
    pipeline = Pipeline(Registry.load(), tuple(ARRAY_UNITS))
    cut: list[Sweep] = []

    def larch():
        for energy, mu in spectra:
            group = Group(energy=energy, mu=mu)
            pre_edge(group)
            autobk(group, rbkg=1.0, kweight=2)
            xftf(group, kmin=3, kmax=14, dk=2, window="hanning")

    def assemble():
        cut.clear()
        router = Router(analysis, clock=time.monotonic)
        for name, document in documents:
            cut.extend(i for i in router.feed(name, document) if isinstance(i, Sweep))
        assert len(cut) == sweeps

    def whole():
        assemble()
        for sweep in cut:
            for outcome in pipeline.process(sweep, analysis):
                assert outcome.message.kind == "result"
                encode(outcome.message, outcome.arrays)
        pipeline.end(cut[0].run.uid)

    rows = {"Larch alone": best(larch), "assemble": best(assemble), "whole pipeline": best(whole)}
    for name, total in rows.items():
        print(f"{points:5d} points  {name:15s} {total / sweeps:8.2f} ms a spectrum"
              f"  {total / rows['Larch alone']:.2f} x Larch")  # fmt: skip


if __name__ == "__main__":
    for size in (400, 4000):
        bench(size)

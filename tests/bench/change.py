"""Numbers of a near edge and whether it changes, beside the reduction of the same spectrum.

Run ``python tests/bench/change.py``; each number is the least of five.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import BATCH, milliseconds

from exafsd.composition.near_edges import NearEdges
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.xanes import near_edge_numbers
from exafsd.contract.recipe import Recipe
from exafsd.reduction.engine import Plans, by_plan
from exafsd.spectra import Edge, Run, Spectrum, SpectrumId, Sweep

EDGE = 8979.0
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


def main() -> None:
    """Print the numbers, all that a result gets, and the reduction, one spectrum at a time."""
    copper = next(one for one in load([shipped_folder()])[0] if one.name == "Cu2O")
    mu = np.interp(ENERGY, copper.energy, copper.mu)
    mus = mu + 1e-3 * np.random.default_rng(0).normal(size=(BATCH, len(mu)))
    run = Run("run", edges=(Edge("Cu", "K"),))
    spectra = [
        Spectrum(
            SpectrumId(Sweep(run, "primary", i, ENERGY, {}), "transmission", run.edges[0]),
            ENERGY,
            one,
        )
        for i, one in enumerate(mus)
    ]
    series = NearEdges()
    plan = Plans().get(ENERGY, EDGE, Recipe())
    reduced = milliseconds(lambda: [by_plan(plan, [one]) for one in mus])
    numbers = milliseconds(lambda: [near_edge_numbers(ENERGY, one, EDGE) for one in mus])
    whole = milliseconds(
        lambda: [series.follow([one], series.measure([(one, EDGE)])) for one in spectra]
    )
    sys.stdout.write(
        f"numbers {numbers:.3f} ms, with change {whole:.3f} ms: {whole / reduced:.2f} of the"
        f" reduction ({reduced:.3f} ms)\n"
    )


if __name__ == "__main__":
    main()

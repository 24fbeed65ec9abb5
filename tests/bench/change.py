"""Numbers of a near edge and whether it changes, beside the reduction of the same spectrum.

Run ``python tests/bench/change.py``; each number is the least of five.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import BATCH, milliseconds

from exafsd.composition.change import ChangeDetector
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.xanes import near_edge_numbers
from exafsd.contract.recipe import Recipe
from exafsd.reduction.engine import Plans, by_plan

EDGE = 8979.0
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


def main() -> None:
    """Print both parts and the reduction, one spectrum after the other."""
    copper = next(one for one in load([shipped_folder()])[0] if one.name == "Cu2O")
    mu = np.interp(ENERGY, copper.energy, copper.mu)
    mus = mu + 1e-3 * np.random.default_rng(0).normal(size=(BATCH, len(mu)))
    numbers = [near_edge_numbers(ENERGY, one, EDGE) for one in mus]
    detector = ChangeDetector()

    def follow() -> None:
        for sweep, one in enumerate(numbers):
            assert one is not None
            detector.distances(one)
            detector.take(one, sweep)

    plan = Plans().get(ENERGY, EDGE, Recipe())
    reduced = milliseconds(lambda: [by_plan(plan, [one]) for one in mus])
    first = milliseconds(lambda: [near_edge_numbers(ENERGY, one, EDGE) for one in mus])
    then = milliseconds(follow)
    sys.stdout.write(
        f"numbers {first:.3f} ms, change {then:.3f} ms, together {(first + then) / reduced:.2f} of"
        f" the reduction ({reduced:.3f} ms)\n"
    )


if __name__ == "__main__":
    main()

"""How often the components of a series are counted wrong: 40 simulated series of each kind.

Run ``python tests/bench/component_counts.py``; pairs are the counts by noise and by structure.
"""

import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))  # for helpers that the tests use, too

import numpy as np

from exafsd.composition.components import count_all
from exafsd.composition.xanes import near_edges
from near_edge_runs import measured, smooth_references

SAMPLES = (["Cu"], ["CuO"], ["ZnS"], ["CuO", "Cu"], ["CuO", "Cu2O", "Cu"])


def main() -> None:
    """Print the counts of series of 8 and 60 sweeps, with jitter of 0.1 and 0.2 eV."""
    shapes = smooth_references()
    for jitter in (0.1, 0.2):
        for names in SAMPLES:
            for sweeps in (8, 60):
                counts: Counter[tuple[int, int]] = Counter()
                for seed in range(40):
                    rng = np.random.default_rng(seed)
                    shares = rng.dirichlet(np.ones(len(names)), sweeps)
                    spectra = measured(shapes, names, shares, rng, jitter=jitter, heat=0.006)
                    counted = count_all(near_edges(*spectra))
                    counts[counted.by_noise, counted.by_structure] += 1
                sys.stdout.write(f"{jitter} eV, {'-'.join(names)}, {sweeps}: {dict(counts)}\n")


if __name__ == "__main__":
    main()

"""Linear combination of near edges, in batches of 64 spectra, beside scipy's nnls one by one.

Run ``python tests/bench/composition.py``; each number is the least of five.
"""

import os
import sys
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import nnls
from timing import BATCH, milliseconds

from exafsd.composition.combination import SHIFT_ALONE, Combination
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.window import Ranges, near_edge

EDGE = 8979.0
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


def main() -> None:
    """Print binning, combination and plain nnls."""
    references = [one for one in load([shipped_folder()])[0] if one.edge.element == "Cu"]
    ranges = Ranges.of(ENERGY, EDGE)
    for one in references:
        ranges = ranges.shared(one.ranges)
    binned = [near_edge(one.energy, one.mu, ranges) for one in references]
    combine = Combination(binned, ranges.centres, EDGE)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(len(references)), size=BATCH)
    columns = np.array([np.interp(ENERGY, one.energy, one.mu) for one in references])
    mus = shares @ columns + 1e-3 * rng.normal(size=(BATCH, len(ENERGY)))
    samples = [near_edge(ENERGY, mu, ranges) for mu in mus]
    matrix = np.array([one.flat for one in binned]).T
    bins = milliseconds(lambda: [near_edge(ENERGY, mu, ranges) for mu in mus])
    whole = milliseconds(partial(combine, samples, SHIFT_ALONE, fluorescent=False))
    plain = milliseconds(lambda: [nnls(matrix, one.flat) for one in samples])
    sys.stdout.write(
        f"{len(references)} references: binning {bins:.2f} ms, combination {whole:.2f} ms a"
        f" spectrum; nnls with nothing allowed for {plain:.2f} ms\n"
    )


if __name__ == "__main__":
    main()

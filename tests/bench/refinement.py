"""Refinement and the fit of the nearest shells, side by side, in batches of 64 spectra.

Run ``python tests/bench/refinement.py [MODEL ...]``; each number is the least of five.
"""

import os
import sys
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import BATCH, milliseconds

from exafsd.contract import K_GRID
from exafsd.inference.reading import Model
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.spectra import Prediction

NOISE, K_END = 3e-4, 14.5


def main() -> None:
    """Print a line per model."""
    names = sys.argv[1:] or ["cu-k-fcc", "zn-k-zns", "cd-k-cds", "cu-k-cuo"]
    for name in names:
        model = Model.of(load_bundle(shipped_folder() / name))
        variables = Variables.of(model.bundle.card)
        truth = variables.theta(variables.mean[None])[0]
        chi = model.bundle.equation(truth)[0].astype(float)
        rng = np.random.default_rng(0)
        noisy = chi + NOISE * rng.normal(size=(BATCH, K_GRID.size))
        rows = np.where(K_END >= K_GRID, noisy * K_GRID**2, 0.0)
        read = [Prediction(truth[0], np.eye(truth.size), K_GRID, chi[0] * K_GRID**2, 0.0)] * BATCH
        noise, zeros = [NOISE] * BATCH, [float(truth[0, 0])] * BATCH
        refined = milliseconds(partial(model.refiner, rows, read, K_END, noise, zeros))
        trend = model.refiner.begin()
        for i in range(3):
            model.refiner(rows[i : i + 1], read[:1], K_END, noise[:1], zeros[:1], trend, True)
        in_run = milliseconds(
            partial(model.refiner, rows, read, K_END, noise, zeros, trend, learn=False)
        )
        nearest = milliseconds(partial(model.polisher, rows, read, K_END, noise))
        sys.stdout.write(
            f"{name}: refinement {refined:.2f} ms, in a run that has taught {in_run:.2f} ms,"
            f" nearest shells {nearest:.2f} ms a spectrum,"
            f" ratios {refined / nearest:.2f}, {in_run / nearest:.2f}\n"
        )


if __name__ == "__main__":
    main()

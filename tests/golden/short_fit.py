"""A short seeded training; prints a digest of everything that it learned.

``python tests/golden/golden_record.py compare BASE --fit`` runs it in both checkouts.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from exafsd_training.fitting import workflow
from exafsd_training.fitting.fit import Settings
from exafsd_training.fitting.model_folder import WEIGHTS
from exafsd_training.model.network import Sizes
from exafsd_training.simulation import other_phases, second_theory
from exafsd_training.theory import structures
from exafsd_training.zoo import configurations

SETTINGS = Settings(
    seed=1, steps=120, batch=64, epoch_steps=40, validation=100, sizes=Sizes((96, 96), 24),
    direct_spectra=1000, instrument_spectra=24, held_out=60,
    detector_examples=400, detector_spectra=4096, detector_steps=300,
)  # fmt: skip
COPPER = 11145


def short_fit(out: Path) -> None:
    """Train in a folder; FEFF runs that take long are left out."""
    tf.random.set_seed(7)  # the dropout of the detector has no seed of its own
    second_theory.SECOND = second_theory.NO_HOLE
    other_phases.others = lambda crystal: [configurations.load("cu-k-cu2o")]
    workflow.fit_model(structures.from_amcsd(COPPER), "Cu", "K", "smoke", out, SETTINGS)


def digest(out: Path) -> str:
    """Hash of weights, losses and simulated spectra, without how long it took."""
    total = hashlib.sha256((out / "history.csv").read_bytes())
    for path in [out / WEIGHTS, *sorted(out.glob("*-1-*.npz"))]:
        with np.load(path) as arrays:
            for name in sorted(set(arrays.files) - {"progress"}):
                total.update(name.encode() + arrays[name].tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        short_fit(Path(folder) / "smoke")
        sys.stdout.write(digest(Path(folder) / "smoke") + "\n")

"""What takes long to build is built once for all workers of a test session."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def built_once(
    temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], object]
) -> Path:
    """A copy, of one's own, of the folder that `build` fills; another worker may have built it."""
    root = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # every worker has a folder in that of the session
        root = root.parent
    folder, unfinished = root / f"{name}-built-once", root / f"{name}-unfinished"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of a build that failed
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(folder)
    return shutil.copytree(folder, temporary.mktemp(name), dirs_exist_ok=True)


def train_short_model(out: Path) -> None:
    """Fill the folder of a model, copper's, as `exafsd-train fit` does; it is hardly trained."""
    from exafsd_training.fitting import workflow
    from exafsd_training.fitting.fit import Settings
    from exafsd_training.model.network import Sizes
    from exafsd_training.simulation import other_phases, second_theory
    from exafsd_training.theory import structures
    from exafsd_training.zoo import configurations

    settings = Settings(
        steps=60, batch=64, epoch_steps=40, validation=100, sizes=Sizes((96, 96), 24),
        direct_spectra=1000, instrument_spectra=24, held_out=60,
        detector_examples=400, detector_spectra=4096, detector_steps=300,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # without self-consistency the second FEFF run takes seconds instead of half a minute
        patch.setattr(second_theory, "SECOND", second_theory.NO_HOLE)
        # one other phase will do: every one takes a FEFF run
        patch.setattr(other_phases, "others", lambda crystal: [configurations.load("cu-k-cu2o")])
        workflow.fit_model(structures.from_amcsd(11145), "Cu", "K", "smoke", out, settings)

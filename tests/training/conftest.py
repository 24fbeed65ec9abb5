"""A fresh FEFF run on Cu, small pools, and a network trained for a few seconds."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

from exafsd_training.fitting import workflow
from exafsd_training.fitting.fit import Data, Settings
from exafsd_training.model.network import Sizes
from exafsd_training.simulation import other_phases, second_theory
from exafsd_training.simulation.instrument import Atom, instrument_pool
from exafsd_training.simulation.simulate import REFF_MAX, direct_pool
from exafsd_training.theory import structures
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import PathTable, read_paths
from exafsd_training.zoo import configurations

#: AMCSD 11145: Cu, Wyckoff 1963, a = 3.61496 angstrom
COPPER = 11145
MEASURED = Path(__file__).resolve().parents[3] / "shared" / "data" / "xas"


@pytest.fixture(scope="session")
def feff_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    crystal = structures.from_amcsd(COPPER)
    return structures.run_feff(crystal, "Cu", "K", tmp_path_factory.mktemp("feff"))


@pytest.fixture(scope="session")
def all_paths(feff_folder: Path) -> PathTable:
    return read_paths(feff_folder)


@pytest.fixture(scope="session")
def truth(all_paths: PathTable) -> PathTable:
    return all_paths.within(REFF_MAX)


@pytest.fixture(scope="session")
def copper(truth: PathTable) -> Parametrisation:
    return parametrise("Cu", truth)


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(
        steps=120, batch=64, epoch_steps=40, validation=100, sizes=Sizes((96, 96), 24),
        direct_spectra=2000, instrument_spectra=24, held_out=60,
        detector_examples=400, detector_spectra=4096, detector_steps=300,
    )  # fmt: skip


@pytest.fixture(scope="session")
def data(copper: Parametrisation, truth: PathTable, settings: Settings) -> Data:
    direct = direct_pool(1, settings.direct_spectra, copper, truth)
    instrument = instrument_pool(2, settings.instrument_spectra, copper, truth, Atom("Cu", "K"))
    return Data.split(direct, instrument, settings.validation)


@pytest.fixture(scope="session")
def short_model(
    settings: Settings, feff_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a model with everything that `exafsd-train fit` leaves, hardly trained."""
    out = tmp_path_factory.mktemp("model")
    shutil.copytree(feff_folder, out / feff_folder.name)
    short = replace(settings, steps=60, direct_spectra=1000)
    with pytest.MonkeyPatch.context() as patch:
        # without self-consistency the second FEFF run takes seconds instead of half a minute
        patch.setattr(second_theory, "SECOND", second_theory.NO_HOLE)
        # one other phase will do: every one takes a FEFF run
        patch.setattr(other_phases, "others", lambda crystal: [configurations.load("cu-k-cu2o")])
        workflow.fit_model(structures.from_amcsd(COPPER), "Cu", "K", "smoke", out, short)
    return out


@pytest.fixture
def measured() -> Path:
    if not MEASURED.is_dir():
        pytest.skip("measured spectra are not here")
    return MEASURED

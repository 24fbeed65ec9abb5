"""A fresh FEFF run on Cu, small pools, and a network trained for a few seconds."""

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

from builds import built_once, train_short_model
from exafsd_training.fitting.fit import Data, Settings
from exafsd_training.model.network import Sizes
from exafsd_training.simulation.instrument import Atom, instrument_pool
from exafsd_training.simulation.simulate import REFF_MAX, Pool, direct_pool
from exafsd_training.theory import structures
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import PathTable, read_paths

#: AMCSD 11145: Cu, Wyckoff 1963, a = 3.61496 angstrom
COPPER = 11145
MEASURED = Path(__file__).resolve().parents[3] / "shared" / "data" / "xas"


@pytest.fixture(scope="session")
def feff_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    crystal = structures.from_amcsd(COPPER)

    def build(folder: Path) -> None:
        structures.run_feff(crystal, "Cu", "K", folder)

    # the run is found there
    work = built_once(tmp_path_factory, "feff", build)
    return structures.run_feff(crystal, "Cu", "K", work)


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
def data(
    copper: Parametrisation,
    truth: PathTable,
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Data:
    def build(folder: Path) -> None:
        direct_pool(1, settings.direct_spectra, copper, truth).save(folder / "direct.npz")
        instrument_pool(
            2, settings.instrument_spectra, copper, truth, Atom("Cu", "K")
        ).save(folder / "instrument.npz")  # fmt: skip

    folder = built_once(tmp_path_factory, "pools", build)
    pools = (Pool.load(folder / f"{name}.npz") for name in ("direct", "instrument"))
    return Data.split(*pools, settings.validation)


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with everything that `exafsd-train fit` leaves, hardly trained."""
    return built_once(tmp_path_factory, "short-model", train_short_model)


@pytest.fixture
def measured() -> Path:
    if not MEASURED.is_dir():
        pytest.skip("measured spectra are not here")
    return MEASURED

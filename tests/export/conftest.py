"""A trained model folder, made in some seconds through the same function as the real one."""

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from exafsd_training.fitting import workflow
from exafsd_training.fitting.fit import Settings
from exafsd_training.model.network import Sizes
from exafsd_training.simulation import other_phases, second_theory
from exafsd_training.theory import structures
from exafsd_training.zoo import configurations

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "daemon" / "exafsd" / "models" / "cu-k-fcc"
MEASURED = REPOSITORY.parent / "shared" / "data" / "xas"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    settings = Settings(
        steps=40, batch=64, epoch_steps=20, validation=200, sizes=Sizes((64,), 16),
        direct_spectra=1000, instrument_spectra=20, held_out=60,
        detector_examples=100, detector_spectra=1024, detector_steps=50,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # without self-consistency the second FEFF run takes seconds instead of half a minute
        patch.setattr(second_theory, "SECOND", second_theory.NO_HOLE)
        # one other phase will do: every one takes a FEFF run
        patch.setattr(other_phases, "others", lambda crystal: [configurations.load("cu-k-cu2o")])
        workflow.fit_model(structures.from_amcsd(11145), "Cu", "K", "smoke", folder, settings)
    return folder


@pytest.fixture
def shipped() -> Path:
    if not (SHIPPED / "card.json").exists():
        pytest.skip("no bundle is shipped")
    return SHIPPED


@pytest.fixture
def measured() -> Path:
    if not MEASURED.is_dir():
        pytest.skip("measured spectra are not here")
    return MEASURED

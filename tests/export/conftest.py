"""A trained model folder, made in some seconds through the same function as the real one."""

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

from builds import built_once, train_short_model

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "daemon" / "exafsd" / "models" / "cu-k-fcc"
MEASURED = REPOSITORY.parent / "shared" / "data" / "xas"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_once(tmp_path_factory, "short-model", train_short_model)


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

"""FEFF's paths of copper, once for all tests of the polish."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def feff_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with FEFF's paths for copper; about 3 s."""
    from exafsd.testing.heating import feff_paths

    folder = tmp_path_factory.mktemp("feff")
    feff_paths(folder)
    return folder

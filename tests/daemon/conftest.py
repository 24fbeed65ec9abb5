"""What several tests of the pipeline begin with."""

import pytest

from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.testing.heating import HeatedFoil, cache_folder


@pytest.fixture(scope="session")
def foil():
    """Copper between 20 and 600 K."""
    return HeatedFoil(cache_folder(), 400, (20.0, 600.0))


@pytest.fixture(scope="session")
def shipped():
    """The shipped model of copper."""
    return load_bundle(shipped_folder() / "cu-k-fcc")

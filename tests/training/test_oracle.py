"""The reference fit on a measured Cu foil, to the digits it is quoted with."""

from pathlib import Path

import pytest

from exafsd.contract import Recipe
from exafsd_training.oracle import feffit_reference, fit_window, reduce_file
from exafsd_training.parametrisation import Parametrisation


@pytest.mark.measured
def test_copper_foil(measured: Path, copper: Parametrisation, feff_folder: Path) -> None:
    reduced = reduce_file(measured / "Cu" / "cu_metal_rt.xdi", Recipe())
    found = feffit_reference(reduced, copper, feff_folder, fit_window("Cu", 2.556))
    assert found.value["1/n_s02"] / 12 == pytest.approx(0.929, abs=0.001)
    assert found.stderr["1/n_s02"] / 12 == pytest.approx(0.039, abs=0.001)
    assert found.value["e0_shift"] == pytest.approx(5.5, abs=0.1)
    assert found.stderr["e0_shift"] == pytest.approx(0.5, abs=0.05)
    assert found.value["1/r"] == pytest.approx(2.544, abs=0.001)
    assert found.stderr["1/r"] == pytest.approx(0.003, abs=0.0005)
    assert found.value["1/sigma2"] == pytest.approx(0.0089, abs=0.0001)
    assert found.stderr["1/sigma2"] == pytest.approx(0.0003, abs=0.0001)
    assert found.r_factor < 0.01

"""A quick bundle with flat priors reads measured spectra as Larch's feffit does."""

from pathlib import Path

import pytest

pytest.importorskip("tf2onnx")

from exafsd.testing.heating import cache_folder
from exafsd_export.equality import compare
from exafsd_export.quick import REFF_MAX, Material, write_uncalibrated
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.structures import from_amcsd, run_feff

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "xas"
#: absorber, edge, AMCSD number, measured spectra
CASES = [
    ("Cu", "K", 11145, ("Cu/cu_metal_rt.xdi", "Cu/Cu_Foil_rt_2016Foils.xdi")),
    ("Fe", "K", 8169, ("Fe/Fe_metal_rt_01.xdi", "Fe/Fe_Foil_rt_2016Foils.xdi")),
    ("Pt", "L3", 11157, ("Pt/pt_metal_rt.xdi",)),
    ("Zn", "K", 110, ("Zn/Chorover13BM_Zn_sphalerite_rt_01.xdi",)),
]


@pytest.mark.measured
@pytest.mark.parametrize(("absorber", "edge", "amcsd", "files"), CASES)
def test_flat_priors_are_feffit(absorber, edge, amcsd, files, tmp_path):
    crystal, work = from_amcsd(amcsd), cache_folder()
    table = read_paths(run_feff(crystal, absorber, edge, work)).within(REFF_MAX)
    folder = tmp_path / "bundle"
    write_uncalibrated(Material(crystal, absorber, edge, "any"), table, folder)
    rows = compare(folder, [DATA / file for file in files], work)
    assert len(rows) == len(files) * len({row.parameter for row in rows}) >= 4
    for row in rows:
        assert row.equal, row

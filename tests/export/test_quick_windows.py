"""What a fit about a crystal sees: the shells that the model has, and loose farther ligands."""

import numpy as np
import pytest

pytest.importorskip("tf2onnx")

from crystals import single_scattering
from exafsd.contract import Recipe
from exafsd_export.quick import fit_window, parametrisation
from exafsd_training.simulation.refinement import refinement_of
from exafsd_training.zoo import configurations


def crystal(name: str):
    return configurations.load(name).crystal()


@pytest.mark.parametrize("name", ["cu-k-fcc", "zn-k-zno", "zn-k-zns"])
def test_the_window_ends_behind_the_last_shells_peak_and_before_the_next(name: str) -> None:
    table = single_scattering(name)
    par = parametrisation(crystal(name), table)
    low, high = fit_window(par).r
    last = par.shells[-1].reff
    assert last - 0.25 < high < last
    beyond = [path.reff for path in table.paths if path.reff > last + 0.3]
    assert not beyond or high < min(beyond) - 0.3
    assert low == par.window.r[0]


def test_below_rbkg_there_is_no_window() -> None:
    """Zinc's oxygens are at 1.98 angstrom: the window began at 0.9, where the spline has been."""
    par = parametrisation(crystal("zn-k-zno"), single_scattering("zn-k-zno"))
    assert par.window.r[0] == Recipe().autobk.rbkg == 1.0
    assert fit_window(par).r[0] == 1.0


def test_farther_ligands_are_looser_in_a_compound_than_in_a_metal() -> None:
    def ratios(name: str) -> dict[str, tuple[float, float]]:
        par = parametrisation(crystal(name), single_scattering(name))
        nearest = par.shells[0].scatterer
        scatterers = {f"{par.phase}/{s.number}/sigma2": s.scatterer for s in par.shells}
        return {
            tie.id: (float(np.exp(tie.level)), tie.std)
            for tie in refinement_of(par).far_sigma2
            if scatterers[tie.id] == nearest
        }

    for ratio, std in ratios("cu-k-fcc").values():
        assert ratio == pytest.approx(1.25, abs=0.05)
        assert std < 0.2
    oxide = ratios("zn-k-zno")
    assert oxide
    for ratio, std in oxide.values():
        assert ratio == pytest.approx(2.1, abs=0.2)
        assert 0.3 < std < 0.45

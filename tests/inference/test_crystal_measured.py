"""Measured foils of elements without a network, through the daemon's own way."""

from pathlib import Path

import pytest

from exafsd.outcome import Outcome
from exafsd.service.wiring import make_pipeline, make_session
from exafsd.settings.settings import load

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "xas"
#: file, model, and R of a foil at room temperature by its lattice constant, angstrom
FOILS = (
    ("Co/co_metal_rt.xdi", "co-k-hcp", 2.502),
    ("V/V_foil.xdi", "v-k-bcc", 2.619),
)


@pytest.fixture(scope="module")
def session():
    settings = load(reduction={"channels": ["transmission", "fluorescence"]})
    return make_session(settings, make_pipeline(settings)), settings


def result(session, file: str):
    own, settings = session
    events = list(own.file(DATA / file, settings.analysis, None))
    return next(e.message for e in events if isinstance(e, Outcome) and e.message.kind == "result")


@pytest.mark.measured
@pytest.mark.parametrize(("file", "model", "r"), FOILS)
def test_foils_are_read_by_fit(session, file, model, r):
    message = result(session, file)
    assert message.model.name == model
    assert message.read_by == "fit"
    assert message.trust.state == "trusted"
    nearest = message.shells[0]
    assert nearest.r.value == pytest.approx(r, abs=0.015)
    assert abs(nearest.r.value - r) < 2 * nearest.r.std
    assert 0.6 < nearest.n_s02.value / nearest.degeneracy < 1.1
    assert message.models_sha256


@pytest.mark.measured
def test_other_compounds_of_the_edge_are_withheld_with_a_reason(session):
    for file in ("Cr/cr2s3_rt_001.xdi", "Ni/NiS_rt_01.xdi", "W/WO3_rt_01.xdi"):
        message = result(session, file)
        if message.model is not None and message.model.name.rsplit("-", 1)[-1] in ("bcc", "fcc"):
            assert message.shells is None
            assert message.trust.reason


@pytest.mark.measured
def test_e0_of_a_fit_is_not_that_of_the_metal_whose_network_asks_first(session):
    """The network of iron places E0; magnetite was reduced 9 eV below its own, and withheld."""
    message = result(session, "Fe/Fe3O4_rt_01.xdi")
    assert (message.model.name, message.read_by) == ("fe-k-fe3o4", "fit")
    assert message.e0 == pytest.approx(7123.5, abs=0.5)  # Larch's
    assert message.shells[0].r.value == pytest.approx(2.0, abs=0.03)


@pytest.mark.measured
def test_a_molecular_crystal_is_read_in_the_cold(session):
    """Beyond the last shell of the model, arsenolite has a peak as high as the nearest's."""
    message = result(session, "As/as2o3_10K_scan1.xdi")
    assert message.model.name == "as-k-as2o3"
    assert message.shells[0].r.value == pytest.approx(1.787, abs=0.015)


@pytest.mark.measured
def test_a_network_that_is_sure_is_not_doubled_by_fits(session):
    message = result(session, "Cu/cu_metal_rt.xdi")
    assert message.read_by == "network"
    assert message.model.name == "cu-k-fcc"


@pytest.mark.measured
@pytest.mark.parametrize(("file", "model", "r"), FOILS)
def test_the_polish_is_feffits_own_fit(session, file, model, r, tmp_path):
    """With flat priors and feffit's variables the numbers are feffit's."""
    pytest.importorskip("exafsd_training")
    from exafsd.contract import Recipe
    from exafsd.inference.registry import read_card, shipped_folder
    from exafsd_export.quick import parametrisation
    from exafsd_training.reference.feffit import feffit_reference, reduce_file
    from exafsd_training.theory.paths import read_paths
    from exafsd_training.theory.structures import run_feff
    from exafsd_training.zoo.crystals import zoo

    entry = zoo()[model]
    crystal = entry.crystal()
    folder = run_feff(crystal, entry.absorber, entry.edge, tmp_path)
    par = parametrisation(crystal, read_paths(folder).within(7.0))
    window = read_card(shipped_folder() / model).fit[0]
    expected = feffit_reference(reduce_file(DATA / file, Recipe()), par, folder, window)
    polish = result(session, file).polish
    assert polish.status == "converged"
    nearest = polish.shells[0]
    assert nearest.r.value == pytest.approx(expected.value["1/r"], abs=0.001)
    assert nearest.sigma2.value == pytest.approx(expected.value["1/sigma2"], abs=0.0002)
    assert nearest.n_s02.value == pytest.approx(expected.value["1/n_s02"], rel=0.02)
    assert polish.phases[0].e0_shift.value == pytest.approx(expected.value["e0_shift"], abs=0.3)

"""The reference fits: the committed table, its page, and two fits done again."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from crystals import single_scattering
from exafsd.contract import K_GRID
from exafsd.reduction.transform import END_MARGIN
from exafsd_training.reference import table
from exafsd_training.reference.feffit import GivenChi, feffit_reference, read_chi_k2
from exafsd_training.reference.table import Material, fit_entry, largest_difference, markdown
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import PathTable
from exafsd_training.theory.priors import FAR_RATIO, bond
from exafsd_training.theory.thermal import einstein_sigma2, third_cumulant
from exafsd_training.zoo import configurations

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "reference-fits.md"
FOILS = ("cu_metal_rt.xdi", "Cu_Foil_rt_2016Foils.xdi")


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads(table.TABLE.read_text())


def entry(committed: dict[str, Any], file: str) -> dict[str, Any]:
    (matching,) = [fit for fit in committed["fits"] if fit["spectrum"].endswith(file)]
    return matching


@pytest.fixture(scope="module")
def copper_model(all_paths: PathTable, feff_folder: Path) -> Material:
    config = configurations.load("cu-k-fcc")
    par = parametrise(config.phase, all_paths, config.fit, config.priors)
    return Material(config, par, feff_folder)


def test_the_table_has_every_measured_spectrum(committed: dict[str, Any]) -> None:
    listed = [
        (name, m.file)
        for name in configurations.names()
        for m in configurations.load(name).measured
    ]
    assert [(fit["model"], fit["spectrum"]) for fit in committed["fits"]] == listed
    for fit in committed["fits"]:
        if "skipped" in fit:
            continue
        assert fit["n_idp"] - fit["n_var"] >= 1
        assert fit["window"]["k"][1] <= fit["k_end"] - END_MARGIN + 1e-3
        assert 0 < fit["r_factor"] < 0.1
        assert 0 < fit["whole"]["r_factor"] < 0.12
        assert fit["whole"]["values"].keys() == fit["values"].keys()
        for number in [*fit["values"].values(), *fit["whole"]["values"].values()]:
            assert number["stderr"] > 0


def test_the_table_belongs_to_the_configurations(committed: dict[str, Any]) -> None:
    for name, model in committed["models"].items():
        config = configurations.load(name)
        crystal = config.crystal()
        assert model["structure"] == crystal.source
        assert model["cif_sha256"] == crystal.cif_sha256
        for fit in committed["fits"]:
            if fit["model"] == name and "window" in fit:
                assert tuple(fit["window"]["r"]) == config.fit.r


def test_priors_and_bounds_hold_what_was_measured(committed: dict[str, Any]) -> None:
    for name in committed["models"]:
        config = configurations.load(name)
        par = parametrise(config.phase, single_scattering(name), config.fit, config.priors)
        fits = [f for f in committed["fits"] if f["model"] == name and "values" in f]
        for fit in fits:
            for id_, number in fit["values"].items():
                parameter = par.parameters[par.index(id_)]
                low, high = parameter.bounds
                assert low < number["value"] < high
                off = abs(number["value"] - parameter.prior.mean) / parameter.prior.std
                assert off < 2, (fit["spectrum"], id_)


def test_the_page_shows_the_table(committed: dict[str, Any]) -> None:
    assert markdown(committed) in PAGE.read_text()


def test_the_example_of_the_design(committed: dict[str, Any]) -> None:
    """cu_metal_rt.xdi: N S0^2 / 12 0.929(39), E0 5.5(5), R 2.544(3), sigma2 0.0089(3)."""
    values = entry(committed, "cu_metal_rt.xdi")["values"]
    for id_, scale, value, stderr, last in (
        ("1/n_s02", 12, 0.929, 0.039, 0.001),
        ("e0_shift", 1, 5.5, 0.5, 0.1),
        ("1/r", 1, 2.544, 0.003, 0.001),
        ("1/sigma2", 1, 0.0089, 0.0003, 0.0001),
    ):
        assert values[id_]["value"] / scale == pytest.approx(value, abs=last)
        assert values[id_]["stderr"] / scale == pytest.approx(stderr, abs=last)


@pytest.mark.measured
@pytest.mark.parametrize("file", FOILS)
def test_a_fit_done_again(
    committed: dict[str, Any], measured: Path, copper_model: Material, file: str
) -> None:
    (spectrum,) = [m for m in copper_model.config.measured if m.file.endswith(file)]
    again = fit_entry(copper_model, spectrum, measured.parent)
    before = entry(committed, file)
    assert largest_difference({"fits": [again]}, {"fits": [before]}) < table.SAME


def test_a_simulated_spectrum_gives_back_what_went_in(copper_model: Material) -> None:
    from larch.xafs import feffpath

    par, feff = copper_model.parametrisation, copper_model.feff
    k = np.arange(0, 16.01, 0.05)
    path = feffpath(str(feff / par.table.paths[0].file), s02=0.85, e0=4.0, deltar=-0.01,
                    sigma2=0.0075)  # fmt: skip
    path._calc_chi(k=k)
    spectrum = GivenChi(k, path.chi, (0.0, 16.0))
    fit = feffit_reference(spectrum, par, feff, copper_model.config.fit)
    expected = {"1/n_s02": 12 * 0.85, "e0_shift": 4.0, "1/sigma2": 0.0075,
                "1/r": par.shells[0].reff - 0.01}  # fmt: skip
    for id_, value in expected.items():
        assert fit.value[id_] == pytest.approx(value, rel=1e-3)
    assert (fit.n_var, fit.k) == (4, (3.0, 14.0))
    assert fit.correlation["1/n_s02 1/sigma2"] > 0.8


def test_data_too_short_are_skipped(copper_model: Material, tmp_path: Path) -> None:
    k = np.arange(0, 6.01, 0.05)
    np.savetxt(tmp_path / "short.dat", np.column_stack([k, k**2 * np.sin(5 * k)]))
    spectrum = configurations.Measured(file="short.dat", kind="chi_k2", sample="made up")
    result = fit_entry(copper_model, spectrum, tmp_path)
    assert "4 variables" in result["skipped"]
    assert read_chi_k2(tmp_path / "short.dat").chi[-1] == pytest.approx(np.sin(30))


def test_a_change_of_the_table_is_seen(committed: dict[str, Any]) -> None:
    changed = deepcopy(committed)
    changed["fits"][0]["values"]["1/r"]["value"] += 1e-4
    assert largest_difference(committed, committed) == 0
    assert 1e-5 < largest_difference(changed, committed) < 1e-4
    changed["fits"].pop()
    assert largest_difference(changed, committed) == float("inf")


def test_the_default_of_a_fit_is_the_shells_in_the_window(copper: Parametrisation) -> None:
    assert [shell.number for shell in copper.fitted] == [1]


def test_the_whole_fit_gives_back_what_the_reference_misreads(copper_model: Material) -> None:
    par, config = copper_model.parametrisation, copper_model.config
    sigma2, stretch = 0.009, -0.008
    nearest = bond(par.shells[0], 0, par.priors, par.priors.spread)
    at_zero = einstein_sigma2(np.array([1e-3]), np.array([nearest.temperature]), nearest.mass)
    anharmonicity = np.array([np.mean(nearest.anharmonicity)])
    truth = {
        "e0_shift": 4.0,
        "1/n_s02": 10.2,
        "1/r": par.shells[0].reff + stretch,
        "1/sigma2": sigma2,
        "1/c3": float(third_cumulant(np.array([sigma2]), at_zero, anharmonicity)[0]),
        "expansion": stretch / par.shells[0].reff,
    }
    truth |= {f"{shell.number}/sigma2": FAR_RATIO[0] * sigma2 for shell in par.shells[1:]}
    theta = np.zeros((1, len(par.parameters)))
    for id_, value in truth.items():
        theta[0, par.index(id_)] = value
    chi = Equation(par, tf.float64).chi(tf.constant(theta)).numpy()[0]
    spectrum = GivenChi(K_GRID, chi, (0.0, 16.0))
    reference, whole = (
        feffit_reference(spectrum, par, copper_model.feff, config.fit, whole=whole)
        for whole in (False, True)
    )
    for id_, value in whole.value.items():
        assert value == pytest.approx(truth[id_], rel=1e-3), id_
    assert whole.r_factor < 1e-5
    assert reference.value["1/r"] < truth["1/r"] - 0.005
    assert reference.r_factor > 1e-3

"""What a trained model is judged by: spectra that it must not read, and how it denoises."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import HeldOutSpectra, simulated_scores
from exafsd_training.fitting.card import NOT_HASHED, make_card
from exafsd_training.fitting.model_folder import load_model
from exafsd_training.reference.feffit import GivenChi
from exafsd_training.simulation import second_theory
from exafsd_training.simulation.simulate import direct_pool
from exafsd_training.studies import denoise, poor_fit
from exafsd_training.studies import negatives as module
from exafsd_training.studies.negatives import NEGATIVES, measured_kinds, negatives, other_phases
from exafsd_training.studies.poor_fit import (
    LEAST,
    LEAST_R,
    MARGIN,
    SIGNAL_LEFT,
    SIMULATED_UP_TO,
    misfits,
    usual_misfits,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second FEFF run that `short_model` has already made."""
    monkeypatch.setattr(second_theory, "SECOND", second_theory.NO_HOLE)


def test_other_phases_are_of_the_element_and_its_neighbours(short_model: Path) -> None:
    names = [config.name for config in other_phases(load_model(short_model))]
    assert {"cu-k-fcc", "cu-k-cuo", "cu-k-cu2o"} <= set(names)
    assert len(names) == 5
    assert "pt-l3-fcc" not in names


def test_counts_of_every_kind(short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPECTRA", 30)
    # the phase whose FEFF run `short_model` has made
    oxide = [c for c in other_phases(load_model(short_model)) if c.name == "cu-k-cu2o"]
    monkeypatch.setattr(module, "other_phases", lambda model: oxide)
    kinds = {kind.name: kind for kind in negatives(short_model)}
    assert list(kinds) == [
        "good", "cu-k-cu2o instead", "30% of cu-k-cu2o", "E0 beyond the bounds", "noise only"
    ]  # fmt: skip
    assert [kind.good for kind in kinds.values()] == [True, False, False, False, False]
    assert all(kind.spectra > 20 and np.isfinite(kind.median) for kind in kinds.values())
    assert kinds["noise only"].withheld == 1.0
    assert all(kind.flagged >= kind.withheld for kind in kinds.values())
    assert kinds["cu-k-cu2o instead"].median > kinds["good"].median
    assert len(json.loads((short_model / NEGATIVES).read_text())) == len(kinds)


@pytest.mark.measured
def test_measured_spectra_of_other_phases_are_mixed_in(measured: Path) -> None:
    model = SimpleNamespace(name="zn-k-zns", absorber="Zn")
    own, mixed = measured_kinds(model, measured.parent)  # type: ignore[arg-type]
    (name, good, chi_k2, mask), (mixed_name, mixed_good, _, _) = own, mixed
    assert (name, good, len(chi_k2)) == ("measured", True, 4)
    assert (mixed_name, mixed_good, len(mixed[2])) == ("measured, 30% of zn-k-zno", False, 20)
    assert (chi_k2[mask == 0] == 0).all()
    difference = np.sum((mixed[2][0] - 0.7 * chi_k2[0]) ** 2)
    assert 0 < difference < np.sum(chi_k2[0] ** 2)


def test_usual_misfits_of_measured_spectra(
    short_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(short_model)
    pool = direct_pool(3, 60, model.parametrisation, model.parametrisation.table)
    noisy = pool.clean + 3e-4 * K_GRID**2 * np.random.default_rng(1).normal(size=pool.clean.shape)
    spectra = [GivenChi(K_GRID, x / K_GRID.clip(0.05) ** 2, (0.0, 13.5)) for x in noisy[:2]]
    held = HeldOutSpectra(pool, np.ones(60, np.float32))
    model.summary["calibration"]["ood_limit"] = 0.0
    assert usual_misfits(model, spectra, held) is None  # it believes nothing
    model.summary["calibration"]["ood_limit"] = 1e6
    misfits_of = usual_misfits(model, spectra, held)
    assert misfits_of is not None
    limits = np.array(misfits_of.limit)
    assert limits.shape == (len(misfits_of.noise), len(misfits_of.k_end))
    assert limits.min() >= LEAST
    r_factors = np.array(misfits_of.r_factor)
    assert r_factors.shape == limits.shape
    assert r_factors.min() >= LEAST_R
    # where there is no more noise than they have, both spectra stay below it by the margin
    quietest = list(misfits_of.noise).index(5e-4), list(misfits_of.k_end).index(14.0)
    mask = np.float32((K_GRID >= 2.5) & (K_GRID <= 13.5))
    assert misfits_of.signal is not None
    least = misfits_of.signal[quietest[1]]
    plain, judged, usual = (
        misfits(model, noisy[:2], mask, 13.5, signal)[1]
        for signal in (0.0, least, least / SIGNAL_LEFT)
    )
    assert r_factors[quietest] > 0.99 * max(MARGIN * judged.max(), LEAST_R)
    assert (judged <= 1.001 * plain).all()
    # one of both has the usual signal; the other has less, and is judged as if it had it
    assert np.isclose(usual, plain, rtol=1e-3).sum() == 1
    assert (np.diff(r_factors, axis=0) >= 0).all()  # noise only adds to it
    assert usual_misfits(model, [], held) is None
    # without measured spectra beyond 13.5, the last data end that they reach counts
    monkeypatch.setattr(poor_fit, "_median", lambda *_: 0.0)
    again = usual_misfits(model, spectra, held)
    assert again is not None
    measured = np.array(again.limit)
    assert (measured[:, -1] == measured[:, list(misfits_of.k_end).index(14.0)]).all()
    assert (measured <= limits).all()
    assert (limits <= np.maximum(measured, MARGIN * SIMULATED_UP_TO) + 1e-4).all()


def test_without_measured_spectra_simulated_ones_say_what_is_usual(short_model: Path) -> None:
    (short_model / "poor_fit.json").unlink(missing_ok=True)
    model = load_model(short_model)
    assert make_card(model, short_model, NOT_HASHED).thresholds.poor_fit == simulated_scores()


def test_all_three_comparisons(short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "SPECTRA", 40)
    # three scans of one sample, with much noise
    model = load_model(short_model)
    clean = direct_pool(5, 1, model.parametrisation, model.parametrisation.table).clean[0]
    noise = 0.02 * np.random.default_rng(2).normal(size=(3, len(K_GRID)))
    scans = [GivenChi(K_GRID, clean / K_GRID.clip(0.05) ** 2 + x, (0.0, 14.0)) for x in noise]
    named = [(f"foil_{number}.xdi", scan) for number, scan in enumerate(scans)]
    monkeypatch.setattr(denoise, "_measured", lambda model, data: named)

    cleaned, repeated, rebuilt = denoise.denoising(short_model, short_model)
    one, *measured = cleaned
    assert [comparison.spectra for comparison in measured] == [name for name, _ in named]
    assert one.spectra == "simulated"
    assert 0 < one.noise < 0.1
    assert 0 < one.filtered < one.raw
    assert 0 <= one.beats_filter <= 1
    (scan,) = repeated
    assert (scan.spectra, scan.count) == ("foil*.xdi", 3)
    assert 0 < scan.filtered < scan.single
    assert 0 < scan.network < 10  # hardly trained
    assert 0 < scan.polish < scan.single
    assert rebuilt[0].whole <= rebuilt[0].network * 1.5
    assert set(json.loads((short_model / denoise.DENOISING).read_text())) == {
        "cleaned", "repeated", "rebuilt"
    }  # fmt: skip

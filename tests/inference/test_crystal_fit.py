"""Spectra read by fitting a crystal, where no network has been trained."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.contract import Card
from exafsd.contract.card import FIT_SCHEMA
from exafsd.contract.grid import K_GRID
from exafsd.contract.vocabulary import Flag
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.judgement import Judge
from exafsd.inference.reading import NOT_FITTED
from exafsd.inference.registry import BundleError, load_bundle, read_card, shipped_folder
from exafsd.reduction.transform import fit_weight
from exafsd.service import wiring
from exafsd.settings.settings import load
from exafsd.spectra import Edge, Run, Sweep
from synthetic import foil

K_END = 14.0
NOISE = 3e-4


@pytest.fixture(scope="module")
def nickel():
    bundle = load_bundle(shipped_folder() / "ni-k-fcc")
    return bundle, CrystalFit(bundle.card, bundle.waves, bundle.equation, fit_weight)


def truth(card: Card, **moved: float) -> np.ndarray:
    """Parameters of a room temperature metal, with changes by name, of the nearest shell."""
    theta = np.array([p.prior.mean for p in card.parameters])
    usual = {"n_s02": 10.2, "r": 2.49, "sigma2": 0.006, "c3": 5e-5, "e0_shift": 5.0, **moved}
    for i, p in enumerate(card.parameters):
        if p.name in usual and p.shell in (None, 1):
            theta[i] = usual[p.name]
        elif p.name == "sigma2":
            theta[i] = 0.008
        elif p.name == "expansion":
            theta[i] = usual["r"] / 2.4918 - 1
    return theta


def spectrum(bundle, theta: np.ndarray, seed: int = 0, noise: float = NOISE) -> np.ndarray:
    chi, _ = bundle.equation(theta[None])
    rng = np.random.default_rng(seed)
    data = (chi[0] + noise * rng.normal(size=K_GRID.size)) * K_GRID**2
    return np.where(K_END >= K_GRID, data, 0.0)


def places(card: Card) -> dict[str, int]:
    return {p.name: i for i, p in enumerate(card.parameters) if p.shell in (None, 1)}


def test_what_was_put_in_is_read(nickel):
    bundle, fit = nickel
    at = places(bundle.card)
    rows = np.array([spectrum(bundle, truth(bundle.card), seed) for seed in range(8)])
    for one in fit(rows, K_END, [NOISE] * 8, [None] * 8):
        off = one.theta - truth(bundle.card)
        std = np.sqrt(np.diag(one.theta_cov))
        assert abs(off[at["r"]]) < 0.005
        assert abs(off[at["n_s02"]]) < 0.03 * 10.2
        assert abs(off[at["sigma2"]]) < 0.0004
        for name in ("r", "n_s02", "sigma2", "e0_shift"):
            assert abs(off[at[name]]) < 3 * std[at[name]]
        assert one.ood < 0.01
        assert one.bound == ()


@settings(max_examples=25, deadline=None)
@given(
    r=st.floats(2.45, 2.55),
    n=st.floats(8.0, 13.0),
    sigma2=st.floats(0.003, 0.015),
    e0=st.floats(-3.0, 11.0),
)
def test_the_minimum_is_met_from_anywhere(nickel, r, n, sigma2, e0):
    bundle, fit = nickel
    at = places(bundle.card)
    theta = truth(bundle.card, r=r, n_s02=n, sigma2=sigma2, e0_shift=e0)
    (one,) = fit(spectrum(bundle, theta, noise=1e-5)[None], K_END, [1e-5], [None])
    off = one.theta - theta
    assert abs(off[at["r"]]) < 0.012
    assert abs(off[at["n_s02"]]) < 0.08 * n
    assert abs(off[at["e0_shift"]]) < 2.0


#: fits a spectrum of nickel by another kernel of BLAS, which adds in another order
ELSEWHERE = """
import sys
import numpy as np
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.transform import fit_weight
bundle = load_bundle(shipped_folder() / "ni-k-fcc")
fit = CrystalFit(bundle.card, bundle.waves, bundle.equation, fit_weight)
(one,) = fit(np.load(sys.argv[1]), float(sys.argv[2]), [float(sys.argv[3])], [None])
np.savez(sys.argv[4], theta=one.theta, cov=one.theta_cov)
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="OpenBLAS has no second kernel to ask for"
)
def test_numbers_do_not_depend_on_the_processor(nickel, tmp_path):
    bundle, fit = nickel
    rows = spectrum(bundle, truth(bundle.card), 3)[None]
    (here,) = fit(rows, K_END, [NOISE], [None])
    np.save(tmp_path / "rows.npy", rows)
    words = [tmp_path / "rows.npy", K_END, NOISE, tmp_path / "there.npz"]
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, words)],
        env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}, check=True,
    )  # fmt: skip
    there = np.load(tmp_path / "there.npz")
    std = np.sqrt(np.diag(here.theta_cov))
    assert np.abs(there["theta"] - here.theta).max() > 0  # it was another kernel
    assert (np.abs(there["theta"] - here.theta) < 1e-3 * std).all()
    np.testing.assert_allclose(np.sqrt(np.diag(there["cov"])), std, rtol=1e-3)


def test_numbers_do_not_depend_on_the_batch(nickel):
    bundle, fit = nickel
    rows = np.array([spectrum(bundle, truth(bundle.card, r=2.47 + 0.01 * i), i) for i in range(20)])
    together = fit(rows, K_END, [NOISE] * 20, [None] * 20)
    for i in (0, 7, 19):
        (alone,) = fit(rows[i : i + 1], K_END, [NOISE], [None])
        np.testing.assert_allclose(alone.theta, together[i].theta, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(alone.theta_cov, together[i].theta_cov, rtol=1e-3, atol=1e-12)


def test_what_fits_misread_on_average_is_taken_off(nickel):
    bundle, _ = nickel
    at = places(bundle.card)
    bias = {"Ni/1/r": 0.004, "Ni/1/n_s02": 0.05}
    calibration = bundle.card.calibration.model_copy(update={"bias": bias})
    card = bundle.card.model_copy(update={"calibration": calibration})
    assert card.model_sha256 != bundle.card.model_sha256  # it decides numbers
    data = spectrum(bundle, truth(card))[None]
    (plain,) = CrystalFit(
        bundle.card.model_copy(
            update={"calibration": calibration.model_copy(update={"bias": {}})}
        ),
        bundle.waves, bundle.equation, fit_weight,
    )(data, K_END, [NOISE], [None])  # fmt: skip
    (less,) = CrystalFit(card, bundle.waves, bundle.equation, fit_weight)(
        data, K_END, [NOISE], [None]
    )
    assert less.theta[at["r"]] == pytest.approx(plain.theta[at["r"]] - 0.004)
    assert less.theta[at["n_s02"]] == pytest.approx(0.95 * plain.theta[at["n_s02"]])
    assert less.theta[at["sigma2"]] == plain.theta[at["sigma2"]]
    np.testing.assert_array_equal(less.chi_k2_pred, plain.chi_k2_pred)  # what was fitted is shown


def test_noise_makes_error_bars_wider_and_is_no_misfit(nickel):
    bundle, fit = nickel
    at = places(bundle.card)["r"]
    rows = np.array([spectrum(bundle, truth(bundle.card), 1, n) for n in (1e-4, 4e-3)])
    quiet, noisy = fit(rows, K_END, [1e-4, 4e-3], [None] * 2)
    assert noisy.theta_cov[at, at] > 1.05 * quiet.theta_cov[at, at]  # the rest is FEFF's error
    assert noisy.ood < 0.05


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ({"r": 2.37}, "from that of"),
        ({"n_s02": 5.0}, "of the crystal's N"),
        ({"n_s02": 17.9}, "of the crystal's N"),
    ],
)
def test_what_is_far_from_the_crystal_is_withheld(nickel, moved, said):
    bundle, fit = nickel
    at = places(bundle.card)
    (one,) = fit(spectrum(bundle, truth(bundle.card))[None], K_END, [NOISE], [None])
    theta = one.theta.copy()
    for name, value in moved.items():
        theta[at[name]] = value
    judge = Judge(bundle.card)
    assert judge._crystal.distrust(one) is None
    assert said in judge._crystal.distrust(replace(one, theta=theta))


def test_a_number_that_may_be_inside_the_limits_is_a_doubt(nickel):
    bundle, fit = nickel
    at = places(bundle.card)["n_s02"]
    (one,) = fit(spectrum(bundle, truth(bundle.card))[None], K_END, [NOISE], [None])
    judge, theta, cov = Judge(bundle.card), one.theta.copy(), one.theta_cov.copy()
    theta[at], cov[at, at] = 0.58 * 12, (0.03 * 12) ** 2
    doubtful = replace(one, theta=theta, theta_cov=cov)
    assert judge._crystal.distrust(doubtful) is None
    assert judge._crystal.flags(doubtful) == [Flag.OFF_CRYSTAL]
    cov[at, at] = (0.01 * 12) ** 2
    assert "0.58(1) of the crystal's N" in judge._crystal.distrust(doubtful)


def test_bounds_and_unusual_values_are_told(nickel):
    bundle, fit = nickel
    at = places(bundle.card)
    (one,) = fit(spectrum(bundle, truth(bundle.card))[None], K_END, [NOISE], [None])
    judge = Judge(bundle.card)
    held = replace(one, bound=("Ni/e0_shift",))
    assert "bound of Ni/e0_shift" in judge._crystal.distrust(held)
    assert judge._crystal.flags(one) == []
    theta = one.theta.copy()
    theta[at["r"]] += 0.05
    assert judge._crystal.flags(replace(one, theta=theta)) == [Flag.OFF_CRYSTAL]
    assert judge._crystal.flags(replace(one, ood=0.07)) == [Flag.POOR_FIT]


@pytest.mark.parametrize("change", [0.02, -0.02])
def test_atoms_elsewhere_in_the_cell_are_told(nickel, change):
    """As of Ni(OH)2 with oxygen where an old structure file has it: R was 0.04 angstrom off."""
    bundle, fit = nickel
    at, crystal = places(bundle.card), truth(bundle.card)
    (one,) = fit(spectrum(bundle, crystal)[None], K_END, [NOISE], [None])
    judge, theta = Judge(bundle.card), one.theta.copy()
    theta[at["expansion"]] += change  # of the farther shells alone
    assert judge._crystal.flags(replace(one, theta=theta)) == [Flag.OFF_CRYSTAL]
    theta[at["r"]] *= 1 + change / 2  # 0.025 angstrom
    assert judge._crystal.flags(replace(one, theta=theta)) == []


def test_noise_alone_and_another_metal_are_not_believed(nickel):
    bundle, fit = nickel
    judge = Judge(bundle.card)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(4, K_GRID.size)) * 2e-2 * K_GRID**2
    iron = load_bundle(shipped_folder() / "cr-k-bcc")
    other = spectrum(iron, np.array([p.prior.mean for p in iron.card.parameters]))[None]
    for one in fit(np.concatenate([noise, other]), K_END, [1e-4] * 5, [None] * 5):
        finite = np.isfinite(one.theta).all()
        limit = bundle.card.thresholds.ood
        assert not finite or one.ood > limit or judge._crystal.distrust(one) is not None


def test_a_card_says_whether_there_is_a_network(tmp_path):
    card = read_card(shipped_folder() / "ni-k-fcc")
    assert card.schema_ == FIT_SCHEMA
    assert card.training is None
    facts = json.loads((shipped_folder() / "ni-k-fcc" / "card.json").read_text())
    with pytest.raises(ValueError, match="reading"):
        Card.model_validate(facts | {"reading": None})
    with pytest.raises(ValueError, match="reading"):
        Card.model_validate(facts | {"schema": "exafsd.card/1"})
    wider = facts | {"reading": facts["reading"] | {"e0_prior": [4.0, 9.0]}}
    assert Card.model_validate(wider).model_sha256 != card.model_sha256  # priors decide numbers
    trained = read_card(shipped_folder() / "cu-k-fcc")
    assert trained.model_sha256 == trained.sha256["pinn.onnx"]


def test_a_changed_graph_is_refused(tmp_path):
    home = tmp_path / "ni-k-fcc"
    shutil.copytree(shipped_folder() / "ni-k-fcc", home)
    with Path(home / "refinement.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(home)


def test_without_time_a_spectrum_is_published_and_says_that_replay_fits_it():
    settings = load(reduction={"channels": ["transmission"]}, composition={"enabled": "off"})
    pipeline = wiring.make_pipeline(settings)
    energy, mu = foil(500, e0=8333.0, low=8150.0, high=9200.0, noise=1e-4)
    run = Run(uid="run", edges=(Edge("Ni", "K"),), analysis=settings.analysis)
    sweep = Sweep(run, "primary", 1, energy, {"mutrans": mu})
    ((late,),) = pipeline.process_many([sweep], room=False)
    assert late.message.shells is None
    assert late.message.read_by is None
    assert late.message.trust.reason == NOT_FITTED
    assert {c.score for c in late.message.candidates} == {None}
    ((fitted,),) = pipeline.process_many([sweep], room=True)
    assert fitted.message.trust.reason != NOT_FITTED
    pipeline.close()

"""What becomes of a polish: status, message, and which answer to show."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from exafsd.contract import K_GRID, FitWindow
from exafsd.contract.card import IndependentRow
from exafsd.contract.messages import Polish
from exafsd.inference.predictor import Equation
from exafsd.inference.refinement.polish import OFF, SHED, Fit, Polished, Polisher
from exafsd.inference.refinement.polish_message import best_of, polish_message
from exafsd.inference.refinement.reference_fit import ReferenceFit, shells_in_window
from exafsd.inference.refinement.refiner import Refiner
from exafsd.inference.registry import BundleError, load_bundle, shipped_folder
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction
from exafsd.testing.heating import HeatedFoil
from polishing import Spectrum, noisy, simulated

K_END, EPSILON = 14.5, 1e-3
FREE = ("Cu/e0_shift", "Cu/1/n_s02", "Cu/1/r", "Cu/1/sigma2")


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(shipped_folder() / "cu-k-fcc")


@pytest.fixture(scope="module")
def card(bundle):
    return bundle.card


@pytest.fixture(scope="module")
def polisher(bundle):
    return Polisher(bundle.card, bundle.equation, fit_weight)


@pytest.fixture(scope="module")
def typical(card):
    """Parameters of copper near room temperature, without what the reference leaves out."""
    theta = np.array([p.prior.mean for p in card.parameters])
    theta[[0, 1, 2, 3]] = 4.0, 11.0, 2.55, 0.009
    theta[[4, 5]] = 0.0, 100.0
    return theta


def polish(bundle, polisher, truth, start, epsilon=EPSILON, seed=1):
    """Polish a spectrum of the equation at `truth`, from what a network says is `start`."""
    chi, _ = bundle.equation(np.stack([truth, start]))
    rows = noisy(chi[0], epsilon, 1, K_END, seed)
    read = Prediction(start, np.eye(len(start)), K_GRID, chi[1] * K_GRID**2, 0.0)
    return polisher(rows, [read], K_END, [epsilon])[0]


def test_what_is_free_and_what_is_held(card):
    reference = ReferenceFit.of(card)
    assert reference.ids == FREE
    assert reference.shells == (1,)
    held = dict(zip([p.id for p in card.parameters], reference.base, strict=True))
    assert held["Cu/1/c3"] == 0.0
    assert held["Cu/expansion"] > 10


def test_the_equation_is_left_with_the_nearest_shell(bundle, typical):
    near, nearer = typical.copy(), typical.copy()
    nearer[5] = 10_000.0
    nearer[6:] = 0.001
    chi, slopes = bundle.equation(np.stack([near, nearer]))
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(chi[0], chi[1], atol=1e-7 * np.abs(chi[0]).max())


@pytest.mark.parametrize(
    ("window", "shells"),
    [((1.4, 3.0), (1,)), ((1.4, 3.7), (1, 2)), ((1.0, 4.5), (1, 2, 3)), ((2.7, 3.5), ())],
)
def test_shells_in_the_window(card, window, shells):
    wide = card.model_copy(update={"fit": [FitWindow(r=window)]})
    assert shells_in_window(wide) == shells


def test_the_message_of_a_fit(bundle, card, polisher, typical):
    truth = typical + np.array([0.5, -0.3, 0.002, 0.0003, 0, 0, 0, 0, 0])
    polished = polish(bundle, polisher, truth, typical)
    wire = TypeAdapter(Polish)
    message = wire.validate_json(wire.dump_json(polish_message(card, polished)))
    assert message.status == "converged"
    assert message.n_var == 4
    assert message.n_idp == pytest.approx(1 + 2 * 1.6 * 11 / np.pi)
    (phase,), (shell,) = message.phases, message.shells
    assert (phase.phase, phase.fraction.value, shell.id, shell.c3) == ("Cu", 1.0, "Cu/1", None)
    for value, true in zip((phase.e0_shift, shell.n_s02, shell.r, shell.sigma2), truth[:4],
                           strict=True):  # fmt: skip
        assert abs(value.value - true) < 5 * value.std
        assert value.std_feffit > 0
    assert message.correlation.parameters == list(FREE)
    matrix = np.array(message.correlation.matrix)
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    assert matrix[1, 3] > 0.8  # N and sigma2
    assert matrix[0, 2] > 0.8  # E0 and R
    assert 0 < message.r_factor < 0.1


def test_a_second_shell_follows_the_first_in_the_crystals_ratio(card):
    far = next(p for p in card.parameters if p.id == "Cu/2/sigma2")
    wide = card.model_copy(
        update={
            "parameters": [*card.parameters, far.model_copy(update={"id": "Cu/2/r", "name": "r"})],
            "fit": [FitWindow(r=(1.4, 3.7))],
        }
    )
    ids = ReferenceFit.of(wide).ids
    assert set(ids) == {*FREE, "Cu/2/r", "Cu/2/sigma2"}
    fit = Fit(
        ids, np.arange(1.0, 7.0), np.eye(6), np.eye(6), 4 * np.eye(6), 9 * np.eye(6),
        np.zeros(6, dtype=bool), r_factor=0.1,
    )  # fmt: skip
    first, second = polish_message(wide, Polished("converged", 9.0, 6, fit)).shells
    assert second.n_s02.value == first.n_s02.value / 2
    bars = second.n_s02.std, second.n_s02.std_feffit, second.n_s02.std_trend
    assert bars == (0.5, 1.0, 1.5)
    assert second.r.value == 1.0 + ids.index("Cu/2/r")


def test_without_noise_there_is_no_std(bundle, card, polisher, typical):
    polished = polish(bundle, polisher, typical, typical, epsilon=0.0)
    assert polished.status == "converged"  # float32 is no reason not to be done
    chi_k2 = noisy(bundle.equation(typical[None])[0][0], EPSILON, 1, K_END)
    read = Prediction(typical, np.eye(9), K_GRID, K_GRID, 0.0)
    for unknown in (None, np.nan):
        message = polish_message(card, polisher(chi_k2, [read], K_END, [unknown])[0])
        assert message.shells[0].r.std is None
        assert message.shells[0].r.std_feffit is not None


def test_at_a_bound(bundle, card, polisher, typical):
    truth = typical.copy()
    truth[1] = card.parameters[1].bounds[1] * 1.3
    polished = polish(bundle, polisher, truth, typical)
    message = polish_message(card, polished)
    assert message.status == "at_bound"
    assert message.shells[0].n_s02.value == card.parameters[1].bounds[1]
    assert message.shells[0].n_s02.std is None
    assert message.shells[0].n_s02.std_feffit is None
    assert message.shells[0].r.std > 0
    assert message.correlation.parameters == ["Cu/e0_shift", "Cu/1/r", "Cu/1/sigma2"]
    assert best_of(bundle.card, polished) == "network"


def test_a_spoilt_spectrum_fails_and_its_neighbours_do_not(bundle, card, polisher, typical):
    chi = bundle.equation(typical[None])[0][0]
    rows = noisy(chi, EPSILON, 4, K_END)
    rows[0, 100] = np.nan
    rows[1] = 0.0
    read = [Prediction(typical.copy(), np.eye(9), K_GRID, K_GRID, 0.0) for _ in rows]
    read[2].theta[0] = np.inf
    fits = polisher(rows, read, K_END, [EPSILON] * 4)
    assert [one.status for one in fits] == ["failed"] * 3 + ["converged"]
    message = polish_message(card, fits[0])
    assert (message.phases, message.shells, message.correlation) == ([], [], None)
    assert message.r_factor is None
    assert best_of(card, fits[0]) == "network"


def test_what_is_no_copper_never_raises(polisher, typical):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, K_GRID.size)) * 10.0 ** rng.uniform(-6, 6, size=(40, 1))
    read = [Prediction(typical, np.eye(9), K_GRID, K_GRID, 0.0)] * len(rows)
    fits = polisher(rows, read, K_END, [EPSILON] * len(rows))
    assert {one.status for one in fits} <= {"converged", "at_bound", "failed"}
    assert "at_bound" in {one.status for one in fits}


def test_not_polished(bundle, card, polisher, typical):
    read = [Prediction(typical, np.eye(9), K_GRID, K_GRID, 0.0)]
    row = np.ones((1, K_GRID.size))
    assert polisher(row, read, 3.2, [EPSILON]) == [OFF]  # nothing in the window
    assert polisher(row, read, 6.0, [EPSILON]) == [OFF]  # 3.5 independent points
    no_r = [p for p in card.parameters if p.id != "Cu/1/r"]
    two = [*card.structures, card.structures[0].model_copy(update={"phase": "CuO"})]
    for change in ({"parameters": no_r}, {"structures": two}):
        other = Polisher(card.model_copy(update=change), bundle.equation, fit_weight)
        assert other(row, read, K_END, [EPSILON]) == [OFF]
    for skipped in (OFF, SHED):
        message = polish_message(card, skipped)
        assert message.status == skipped.status
        assert message.shells == []
        assert best_of(card, skipped) == "network"


def test_the_fit_of_the_nearest_shells_alone_is_never_the_best(bundle, polisher, typical):
    """Its error bars are noise only: it is for comparison with fits made elsewhere."""
    good = polish(bundle, polisher, typical, typical)
    assert good.status == "converged"
    assert best_of(bundle.card, good) == "network"
    whole = replace(good, fit=replace(good.fit, whole=True))
    assert best_of(bundle.card, whole) == "polish"
    assert best_of(bundle.card, replace(whole, status="at_bound")) == "network"
    flawed = replace(whole, fit=replace(whole.fit, unexplained=0.06))
    assert best_of(bundle.card, flawed) == "network"
    unjudged = bundle.card.model_copy(update={"independent": []})
    assert best_of(unjudged, whole) == "network"


@pytest.mark.parametrize(
    "coverage, rms, refined",
    [
        # intervals that are too wide are better than those that are too narrow
        ({"network": (0.84, 0.89, 0.97), "polish": (0.89, 0.99, 1.0)}, (1.0, 1.0), True),
        ({"network": (0.92, 0.95, 0.91), "polish": (0.90, 0.89, 0.90)}, (1.0, 0.5), False),
        # none is too narrow: smaller errors
        ({"network": (1.0, 0.98, 0.99), "polish": (0.99, 1.0, 1.0)}, (1.0, 0.5), True),
        ({"network": (1.0, 0.98, 0.99), "polish": (0.90, 0.9, 0.9)}, (0.5, 1.0), False),
    ],
)
def test_too_seldom_counts_and_too_often_does_not(card, coverage, rms, refined):
    rows = [
        IndependentRow(
            answer=answer, parameter=name, spectra=300, coverage_90=share, bias=0.0, rms=error,
            std=1.0,
        )
        for (answer, shares), error in zip(coverage.items(), rms, strict=True)
        for name, share in zip(("r", "sigma2", "n_s02"), shares, strict=True)
    ]  # fmt: skip
    assert card.model_copy(update={"independent": rows}).refinement_holds is refined


def test_hot_metal_is_refined_right_where_one_shell_is_not(bundle, polisher, feff_cache):
    """feffit without a third cumulant reads R short."""
    foil = HeatedFoil(feff_cache, temperatures=(590.0, 610.0))
    counts = foil.sweep(600.0, "up", np.random.default_rng(2))
    spectrum = Spectrum.of(simulated(counts), bundle)
    polished = spectrum.polished(polisher)
    short = counts.truth["r"] - polished.fit.value[2]
    assert short > 0.02
    assert abs(spectrum.prediction.theta[2] - counts.truth["r"]) < short / 3
    assert best_of(bundle.card, polished) == "network"
    refiner = Refiner(bundle.card, bundle.waves, fit_weight)
    (refined,) = refiner(
        spectrum.chi_k2[None], [spectrum.prediction], spectrum.k_end, [spectrum.epsilon_k], [None]
    )
    i = refined.fit.ids.index("Cu/1/r")
    off = abs(refined.fit.value[i] - counts.truth["r"])
    assert off < short / 3
    assert off < 2 * refined.fit.cov[i, i] ** 0.5


def test_another_equation_is_refused(bundle, tmp_path, card):
    with pytest.raises(ValueError, match="output"):
        Equation((bundle.folder / "pinn.onnx").read_bytes(), card)
    with pytest.raises(ValueError, match="parameters"):
        Equation(
            (bundle.folder / "equation.onnx").read_bytes(),
            card.model_copy(update={"parameters": card.parameters[:-1]}),
        )
    (tmp_path / "cu-k-fcc").mkdir()
    pinn = (bundle.folder / "pinn.onnx").read_bytes()
    for name in ("pinn.onnx", "equation.onnx"):
        (tmp_path / "cu-k-fcc" / name).write_bytes(pinn)
    sha256 = dict.fromkeys(("pinn.onnx", "equation.onnx"), card.sha256["pinn.onnx"])
    other_card = card.model_copy(update={"sha256": sha256}).model_dump_json(by_alias=True)
    (tmp_path / "cu-k-fcc" / "card.json").write_text(other_card)
    with pytest.raises(BundleError, match=r"equation\.onnx"):
        load_bundle(tmp_path / "cu-k-fcc")

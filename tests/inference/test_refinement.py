"""The refinement: all paths, weighed by noise and theory, with priors."""

from dataclasses import replace

import numpy as np
import pytest

from exafsd.contract import K_GRID
from exafsd.contract.card import TheoryErrors
from exafsd.inference.reading import Model
from exafsd.inference.refinement.polish import OFF
from exafsd.inference.refinement.polish_message import best_of, polish_message
from exafsd.inference.refinement.refiner import Refiner
from exafsd.inference.refinement.theory import TheoryModes, error_shapes, error_sizes
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction
from polishing import noisy

K_END, NOISE = 14.5, 3e-4
#: of the networks; what is read by fitting has no refinement beside it
NAMES = sorted(p.name for p in shipped_folder().iterdir() if (p / "pinn.onnx").exists())


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(shipped_folder() / "cu-k-fcc")


@pytest.fixture(scope="module")
def refiner(bundle):
    return Refiner(bundle.card, bundle.waves, fit_weight)


@pytest.fixture(scope="module")
def typical(bundle):
    """Copper at room temperature, farther shells and expansion as is usual."""
    variables = Variables.of(bundle.card)
    x = variables.mean.copy()
    x[[0, 1, 2, 3]] = 5.0, 10.5, 2.555, 0.0088
    return variables.theta(x[None])[0][0]


def refine(bundle, refiner, truth, start, noise=NOISE, e0=5.0, n=1, seed=0):
    chi, _ = bundle.equation(np.stack([truth, start]))
    rows = noisy(chi[0], noise, n, K_END, seed)
    read = Prediction(start, np.eye(len(start)), K_GRID, chi[1] * K_GRID**2, 0.0)
    return refiner(rows, [read] * n, K_END, [noise] * n, [e0] * n)


@pytest.mark.parametrize("name", NAMES)
def test_variables_and_theta_are_each_others_inverse(name):
    card = load_bundle(shipped_folder() / name).card
    variables = Variables.of(card)
    rng = np.random.default_rng(3)
    x = np.clip(
        variables.mean + 0.3 * variables.std * rng.normal(size=(20, len(variables.ids))),
        variables.low, variables.high,
    )  # fmt: skip
    x[:, variables.sigma2] = rng.uniform(0.006, 0.02, 20)
    theta, slopes = variables.theta(x)
    np.testing.assert_allclose(variables.start(theta), x, rtol=1e-9, atol=1e-9)
    for j in range(x.shape[1]):
        step = np.zeros(x.shape[1])
        step[j] = 1e-6 * max(variables.std[j], 1e-4)
        change = (variables.theta(x + step)[0] - variables.theta(x - step)[0]) / (2 * step[j])
        np.testing.assert_allclose(slopes[:, :, j], change, rtol=1e-4, atol=1e-7)


def test_a_far_start_and_a_near_one_end_alike(bundle, refiner, typical):
    """Weights follow the start, since FEFF's errors do, so not to the last digit."""
    far = typical + np.array([2.0, 1.0, 0.015, 0.001, 0, 0.004, 0.001, 0, 0])
    ends = [refine(bundle, refiner, typical, start)[0] for start in (typical, far)]
    assert [one.status for one in ends] == ["converged"] * 2
    apart = np.abs(ends[0].fit.value - ends[1].fit.value)
    assert (apart < 0.25 * np.sqrt(np.diag(ends[0].fit.cov))).all()


def test_noise_scatters_the_values_by_their_std_noise(bundle, refiner, typical):
    fits = [one.fit for one in refine(bundle, refiner, typical, typical, n=200)]
    scatter = np.std([fit.value for fit in fits], axis=0)
    said = np.sqrt(np.diag(fits[0].noise_cov))
    for name in ("Cu/1/r", "Cu/1/sigma2", "Cu/1/n_s02", "Cu/e0_shift"):
        i = fits[0].ids.index(name)
        assert scatter[i] == pytest.approx(said[i], rel=0.25)
        assert said[i] < np.sqrt(fits[0].cov[i, i])


def test_errors_of_feff_are_in_the_error_bars(bundle, typical):
    """Were FEFF exact, more would be known."""
    card = bundle.card
    exact = TheoryErrors(constant=(1e-6,) * 2, smooth=(1e-6,) * 2, low=(1e-6,) * 2, floor=1e-4)
    better = card.model_copy(
        update={"refinement": card.refinement.model_copy(update={"theory": exact})}
    )
    as_it_is, sure = (
        refine(bundle, Refiner(c, bundle.waves, fit_weight), typical, typical)[0].fit
        for c in (card, better)
    )
    i = as_it_is.ids.index("Cu/1/r")
    assert as_it_is.cov[i, i] > 4 * sure.cov[i, i]


def test_a_known_e0_holds_r(bundle, refiner, typical):
    """E0 and R are correlated: a spectrum whose E0 is off by 3 eV must not be read as it is."""
    moved = typical.copy()
    moved[0] += 3.0
    held = refine(bundle, refiner, moved, moved, e0=5.0)[0].fit
    free = refine(bundle, refiner, moved, moved, e0=None)[0].fit
    assert abs(held.value[0] - 5.0) < abs(free.value[0] - 5.0)
    assert held.cov[0, 0] < free.cov[0, 0]


def test_the_covariance_of_theory_is_that_of_drawn_errors():
    rng = np.random.default_rng(1)
    theory = TheoryErrors(constant=(0.03, 0.02), smooth=(0.01, 0.03), low=(0.2, 0.5), floor=0.0)
    k = np.arange(3.0, 8.0, 0.1)
    matrix = rng.normal(size=(4, len(k)))
    real, imag = rng.normal(size=(2, 1, len(k), 2))
    modes = TheoryModes(matrix, k, theory, tails=np.zeros((4, 1)))(real, imag)[0]
    covariance = modes @ modes.T
    shapes, size = error_shapes(k), error_sizes(theory)
    drawn = []
    for _ in range(20_000):
        total = 0.0
        common = rng.normal(size=size.shape)
        for g in range(2):
            gain, phase = ((common + rng.normal(size=size.shape)) / np.sqrt(2) * size).T @ shapes
            total = total + matrix @ (gain * imag[0, :, g] + phase * real[0, :, g])
        drawn.append(total)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(np.transpose(drawn)) / scale, covariance / scale, atol=0.05)


def test_the_message_has_three_error_bars_and_the_third_cumulant(bundle, refiner, typical):
    polished = refine(bundle, refiner, typical, typical)[0]
    message = polish_message(bundle.card, polished)
    (shell,) = message.shells
    assert best_of(bundle.card, polished) == "polish"
    assert shell.c3.value == pytest.approx(typical[4], rel=0.5)
    for value in (shell.r, shell.sigma2, shell.n_s02, message.phases[0].e0_shift):
        assert value.std > value.std_noise > 0
        assert value.std_feffit > 0
    assert shell.c3.std_feffit is None  # the reference fit has none
    assert len(message.correlation.parameters) == message.n_var == len(bundle.card.parameters)


def test_spoilt_spectra_fail_and_their_neighbours_do_not(bundle, refiner, typical):
    chi = bundle.equation(typical[None])[0][0]
    rows = noisy(chi, NOISE, 4, K_END)
    rows[0, 100] = np.nan
    rows[1] = 0.0
    read = [Prediction(typical.copy(), np.eye(9), K_GRID, K_GRID, 0.0) for _ in rows]
    read[2].theta[0] = np.inf
    fits = refiner(rows, read, K_END, [NOISE] * 4, [5.0] * 4)
    assert [one.status for one in fits] == ["failed"] * 3 + ["converged"]
    assert refiner(rows, read, 3.2, [NOISE] * 4, [5.0] * 4) == [OFF] * 4


def test_what_is_no_copper_never_raises(refiner, typical):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, K_GRID.size)) * 10.0 ** rng.uniform(-6, 6, size=(40, 1))
    read = [Prediction(typical, np.eye(9), K_GRID, K_GRID, 0.0)] * len(rows)
    fits = refiner(
        rows, read, K_END, [None, NOISE, 0.0, np.nan] * 10, [None, 5.0, -20.0, 40.0] * 10
    )
    assert {one.status for one in fits} <= {"converged", "at_bound", "failed"}


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_bundle_has_one(name):
    model = Model.of(load_bundle(shipped_folder() / name))
    assert model.refiner is not None
    about = model.bundle.card.refinement
    assert about.size * about.k_step > 8


def test_an_older_bundle_keeps_the_fit_of_the_nearest_shells(bundle):
    older = replace(bundle, waves=None, card=bundle.card.model_copy(update={"refinement": None}))
    assert Model.of(older).refiner is None

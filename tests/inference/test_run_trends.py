"""What the sweeps of a run share: temperature series, constant samples, steps, and saving it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from tests.resuming import session
from tests.synthetic import foil

from exafsd.contract import K_GRID
from exafsd.contract.vocabulary import Flag
from exafsd.inference.reading import Model, Question, Reading, answer, readers
from exafsd.inference.refinement.theory import error_shapes, error_sizes
from exafsd.inference.refinement.trend import LESSONS, Trend
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.refinement.weighed import onto_grid
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.engine import reduce_mu
from exafsd.service.run_state import RunState
from exafsd.settings.analysis import Reduction
from exafsd.spectra import Prediction

K_END, NOISE, E0 = 14.5, 2e-4, 5.0
#: temperatures of a series stand for sigma2 of copper from 100 to 700 K, angstrom^2
SIGMA2 = np.linspace(0.004, 0.018, 12)


@pytest.fixture(scope="module")
def model():
    return Model.of(load_bundle(shipped_folder() / "cu-k-fcc"))


@pytest.fixture(scope="module")
def variables(model):
    return Variables.of(model.bundle.card)


class Sample:
    """Copper whose theory is wrong in a way of its own, the same in every sweep."""

    def __init__(self, model, variables, rng):
        self.model, self.variables, self.rng = model, variables, rng
        about = model.bundle.card.refinement
        self.k = about.k_min + about.k_step * np.arange(about.size)
        self.onto = onto_grid(about.k_min, about.k_step, about.size)
        groups = model.bundle.waves(variables.mean[None])[0].shape[-1]
        sizes, shapes = error_sizes(about.theory), error_shapes(self.k)
        drawn = rng.normal(size=(groups, 2, len(sizes))) * sizes.T
        common = rng.normal(size=(2, len(sizes))) * sizes.T
        self.errors = (drawn + common) / np.sqrt(2) @ shapes  # (g, 2, m)
        self.x = variables.mean.copy()
        self.x[[variables.e0, 1]] = E0 + rng.normal(0, 0.7), 10.5
        self.x[variables.c3] += variables.std[variables.c3] * rng.normal()

    def sweep(self, r, sigma2, noise=NOISE):
        """k^2 chi (401,), and theta."""
        x = self.x.copy()
        x[[self.variables.r, self.variables.sigma2]] = r, sigma2
        theta = self.variables.theta(x[None])[0]
        real, imag, _ = (array[0] for array in self.model.bundle.waves(theta))
        gain, phase = self.errors[:, 0].T, self.errors[:, 1].T
        chi = np.sum(imag * (1 + gain) + real * phase, axis=1)
        chi = self.onto @ chi + noise * self.rng.normal(size=K_GRID.size)
        return chi * K_GRID**2 * (K_END >= K_GRID), theta[0]

    def read(self, sweeps, trend=None, learn=True, noise=NOISE):
        """Fits of sweeps (r, sigma2), one after the other."""
        fits = []
        for r, sigma2 in sweeps:
            row, theta = self.sweep(r, sigma2, noise)
            start = Prediction(theta + np.array([1.0, 0.3, 0.004, 3e-4, *[0] * 5]), np.eye(9),
                               K_GRID, K_GRID, 0.0)  # fmt: skip
            fits += self.model.refiner(row[None], [start], K_END, [noise], [E0], trend, learn)
        return [one.fit for one in fits]


def of(fits, variables, cov=None):
    """R, or its error bars."""
    if cov is None:
        return np.array([fit.value[variables.r] for fit in fits])
    return np.array([getattr(fit, cov)[variables.r, variables.r] ** 0.5 for fit in fits])


@pytest.mark.parametrize("way", [1, -1])
def test_a_series_knows_its_change_far_better_than_one_spectrum_does(model, variables, way):
    rng = np.random.default_rng(5)
    truth = 2.545 + 2.0 * (SIGMA2[::way] - SIGMA2[0])
    ratios, alone, held = [], [], []
    for _ in range(12):
        sample = Sample(model, variables, rng)
        sweeps = list(zip(truth, SIGMA2[::way], strict=True))
        fits = sample.read(sweeps, model.refiner.begin())
        ratios.append(np.polyfit(truth, of(fits, variables), 1)[0])
        alone.append(np.polyfit(truth, of(sample.read(sweeps, None, False), variables), 1)[0])
        error, std = of(fits, variables) - truth, of(fits, variables, "trend_cov")
        i, j = np.triu_indices(len(truth), 1)
        held.append(np.abs(error[i] - error[j]) < 1.645 * np.hypot(std[i], std[j]))
        assert (std < of(fits, variables, "cov")).all()
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)
    assert np.std(ratios) < np.std(alone) / 2
    assert np.mean(held) > 0.84


def test_two_hundred_constant_sweeps_have_no_trend(model, variables):
    sample = Sample(model, variables, np.random.default_rng(1))
    trend = model.refiner.begin()
    fits = []
    for _ in range(200):
        fits += sample.read([(2.55, 0.0085)], trend, trend.teaches(0.0085))
    r, std = of(fits, variables), of(fits, variables, "trend_cov")
    number = np.arange(200) - 99.5
    slope = number @ r / (number @ number)
    assert abs(slope) < 2 * np.std(r) / np.sqrt(number @ number)
    assert abs(r[-50:].mean() - r[:50].mean()) < std[0]
    assert np.std(r) < 2 * np.median(std)
    assert not trend.teaches(0.0085)


def test_a_step_is_not_smoothed_away(model, variables):
    sample = Sample(model, variables, np.random.default_rng(2))
    trend = model.refiner.begin()
    sweeps = [(2.55, 0.0085)] * 20 + [(2.555, 0.0085)] * 5
    r = of(sample.read(sweeps, trend), variables)
    assert r[20] - r[19] == pytest.approx(0.005, abs=0.0005)
    assert r[20:].mean() - r[:20].mean() == pytest.approx(0.005, abs=0.0003)


@pytest.mark.parametrize(("noise", "least", "greatest"), [(1e-4, 1, 1), (2e-3, 5, 400)])
def test_what_is_learned_of_one_state_is_limited(model, variables, noise, least, greatest):
    sample = Sample(model, variables, np.random.default_rng(3))
    trend = model.refiner.begin()
    taught = 0
    while trend.teaches(0.0085):
        sample.read([(2.55, 0.0085)], trend, noise=noise)
        taught += 1
    assert least <= taught <= greatest
    assert trend.lessons[next(iter(trend.lessons))] >= LESSONS
    assert trend.teaches(0.012)


def test_a_misfit_that_is_always_the_same_moves_no_value(model, variables):
    """What no error of FEFF explains must not be taken for one, the surer the oftener it comes."""
    sample = Sample(model, variables, np.random.default_rng(6))
    ripple = 0.05 * np.sin(2 * 2.4 * K_GRID) * np.exp(-(((K_GRID - 9) / 2) ** 2)) * K_GRID
    trend = model.refiner.begin()
    n = []
    for _ in range(30):
        row, theta = sample.sweep(2.55, 0.0085, 1e-3)
        start = Prediction(theta, np.eye(9), K_GRID, K_GRID, 0.0)
        (one,) = model.refiner(
            (row + ripple)[None], [start], K_END, [1e-3], [E0], trend, trend.teaches(0.0085)
        )
        n.append(one.fit.value[variables.own[0]])
    assert np.ptp(n[20:]) < 0.05 * n[0]
    assert np.mean(n[20:]) == pytest.approx(n[0], rel=0.04)


@pytest.fixture
def unread(model, variables):
    """A series of spectra as they come out of the reduction, read; near edges are not judged."""
    limits = model.bundle.card.thresholds.model_copy(update={"near_edge": None})
    card = model.bundle.card.model_copy(update={"thresholds": limits})
    plain = Model.of(replace(model.bundle, card=card))
    (reader,) = readers([plain], Reduction())
    reduced = reduce_mu(*foil(), reader.read_by)
    sample = Sample(model, variables, np.random.default_rng(4))
    sample.x[variables.e0] = plain.judge.e0_shift(reduced)
    readings = []
    for sigma2 in np.repeat(SIGMA2[::2], 3):
        row, theta = sample.sweep(2.55 + 2 * (sigma2 - 0.008), sigma2)
        chi = row / np.maximum(K_GRID, 1e-9) ** 2
        one = replace(reduced, k=K_GRID, chi=chi, epsilon_k=NOISE, k_data=(0.0, K_END), quality=())
        prediction = Prediction(theta, np.eye(9) * 1e-4, row, row, 0.0)
        readings.append(Reading(reader, one, one, None, prediction, 1.0, 0.0, 0.0))
    return readings


def values(answers):
    return np.array([one.polished.fit.value for one in answers])


def test_the_numbers_do_not_depend_on_the_batch(unread):
    trends, one_by_one = {}, {}
    together = answer([Question([one], None, trends) for one in unread])
    alone = [answer([Question([one], None, one_by_one)])[0] for one in unread]
    np.testing.assert_allclose(values(together), values(alone), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(trends["cu-k-fcc"].mean, one_by_one["cu-k-fcc"].mean, atol=1e-6)
    assert np.isfinite([one.polished.fit.trend_cov[2, 2] for one in together]).all()


def test_spectra_with_doubts_teach_nothing(unread):
    trends = {}
    doubtful = [replace(one, read=replace(one.read, quality=(Flag.OUTLIER,))) for one in unread[:3]]
    answer([Question([one], None, trends) for one in doubtful])
    assert trends["cu-k-fcc"].anchor is None
    assert trends["cu-k-fcc"].lessons == {}


def test_a_trend_goes_on_from_a_saved_state(unread):
    trends = {}
    answer([Question([one], None, trends) for one in unread[:9]])
    host = session()
    run = next(iter(host.feed("start", {"uid": "a", "time": 0.0}))).run
    state = host.save(run.uid)
    state.trends = {("primary", "transmission", "Cu K"): trends}
    loaded = RunState.load(state.dump(0.0), 0.0).trends["primary", "transmission", "Cu K"]
    assert isinstance(loaded["cu-k-fcc"], Trend)
    rest = [[Question([one], None, saved) for one in unread[9:]] for saved in (trends, loaded)]
    np.testing.assert_array_equal(*(values(answer(questions)) for questions in rest))
    assert len(pickle.dumps(loaded)) < 200_000


def test_a_revised_or_cut_sweep_teaches_nothing(unread):
    trends = {}
    answer([Question([one], None, trends, teaches=False) for one in unread[:2]])
    cut = [replace(one, read=replace(one.read, quality=(Flag.PARTIAL,))) for one in unread[:2]]
    answer([Question([one], None, trends) for one in cut])
    assert trends["cu-k-fcc"].anchor is None


def test_noise_that_is_not_finite_is_not_known(model, variables):
    sample = Sample(model, variables, np.random.default_rng(8))
    row, theta = sample.sweep(2.55, 0.0085)
    start = Prediction(theta, np.eye(9), K_GRID, K_GRID, 0.0)
    noises = [np.inf, np.nan, NOISE]
    fits = model.refiner(np.stack([row] * 3), [start] * 3, K_END, noises, [E0] * 3)
    assert [one.status for one in fits] == ["converged"] * 3

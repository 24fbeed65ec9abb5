"""The compiled plan against Larch, choice by choice and on every measured spectrum."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from larch import Group
from larch.xafs import autobk, estimate_noise, pre_edge, xftf
from larch.xafs import find_e0 as larch_find_e0

from exafsd.contract import Autobk, PreEdge, Recipe, Xftf
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.engine import Plans, reduce_mu
from exafsd.reduction.plan import Plan
from exafsd.reduction.transform import cut_to_data
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Spectrum, SpectrumError
from reducing import Preparation, sweeps_of_file
from synthetic import foil

E0 = 8979.0


def larch(energy, mu, recipe, e0=None):
    """Group as a user of Larch would make it."""
    group = Group(energy=energy, mu=mu)
    pre_edge(group, e0=e0, **recipe.pre_edge.model_dump())
    autobk(group, ek0=group.e0, **recipe.autobk.model_dump())
    k_end = group.autobk_details.kmax
    xftf(group, **cut_to_data(recipe.xftf, k_end).model_dump())
    return group


def difference(chi, group):
    """k^2-weighted relative L2 above 2 1/angstrom."""
    weight = group.k**2 * (group.k > 2)
    return np.linalg.norm((chi - group.chi) * weight) / np.linalg.norm(group.chi * weight)


def compare(energy, mu, recipe, e0=E0, limit=1e-4):  # leastsq stops early
    group = larch(energy, mu, recipe, e0)
    plan = Plan.compile(energy, e0, recipe)
    batch = plan.reduce(mu[None])
    np.testing.assert_array_equal(plan.k, group.k)
    np.testing.assert_allclose(plan.r, group.r, rtol=1e-14)
    # Larch's coefficients of energy^5 cancel to some nine digits
    assert batch.edge_step[0] == pytest.approx(group.edge_step, rel=1e-8)
    np.testing.assert_allclose(batch.norm[0], group.norm, atol=1e-8)
    np.testing.assert_allclose(batch.flat[0], group.flat, atol=1e-8)
    assert batch.objective[0] <= group.autobk_details.chisqr * (1 + 1e-9)
    assert difference(batch.chi[0], group) < limit
    np.testing.assert_allclose(
        batch.chir_mag[0], group.chir_mag, atol=3 * limit * group.chir_mag.max()
    )
    for name in ("pre1", "pre2", "norm1", "norm2", "nnorm"):
        assert getattr(plan.recipe.pre_edge, name) == pytest.approx(
            getattr(group.pre_edge_details, name), abs=1e-9
        )
    assert plan.recipe.autobk.kmax == group.autobk_details.kmax


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(autobk=Autobk(rbkg=1.4, kweight=1)),
        Recipe(autobk=Autobk(kweight=3, kmin=1.0)),
        Recipe(autobk=Autobk(kmax=12.03, dk=1.0, win="kaiser")),
        Recipe(autobk=Autobk(clamp_lo=1.0, clamp_hi=5.0, nclamp=5)),
        Recipe(autobk=Autobk(nclamp=0)),
        Recipe(autobk=Autobk(clamp_hi=0.0)),
        Recipe(autobk=Autobk(kweight=0, rbkg=0.7)),
        Recipe(pre_edge=PreEdge(pre1=-150, pre2=-40, norm1=120, norm2=700, nnorm=1)),
        Recipe(pre_edge=PreEdge(npre=0, nnorm=3)),
        Recipe(pre_edge=PreEdge(nvict=2, norm2=-50.0, nnorm=5)),
        Recipe(pre_edge=PreEdge(pre1=-10, pre2=-5, norm1=40, norm2=42)),
        Recipe(xftf=Xftf(kmin=2.2, kmax=30.0, kweight=3, window="kaiser", dk=4, rmax_out=10)),
        Recipe(xftf=Xftf(kmin=4.0, kmax=11.0, kweight=1, window="sine", dk=0)),
    ],
)
def test_every_choice_is_larchs(recipe):
    compare(*foil(noise=1e-3), recipe)


@pytest.mark.parametrize("points", [120, 250, 1000, 4000])
def test_every_length_is_larchs(points):
    compare(*foil(points, noise=1e-3), Recipe())


def test_uneven_and_short_grids_are_larchs():
    energy, mu = foil(4000, noise=1e-4)
    near = np.abs(energy - E0) < 40
    chosen = near | (np.arange(4000) % 9 == 0)
    compare(energy[chosen], mu[chosen], Recipe())
    compare(energy[energy < E0 + 250], mu[energy < E0 + 250], Recipe())
    compare(energy[energy > E0 - 30], mu[energy > E0 - 30], Recipe())
    compare(energy, mu, Recipe(), e0=E0 + 3.3)  # between two points


def test_any_unit_of_mu():
    energy, mu = foil(noise=1e-4)
    plan = Plan.compile(energy, E0, Recipe())
    usual = plan.reduce(mu[None])
    for scale in (1e-4, 0.1, 30.0, 1e5):
        scaled = plan.reduce(scale * mu[None])
        assert scaled.edge_step[0] == pytest.approx(scale * usual.edge_step[0], rel=1e-10)
        weight = plan.k**2
        change = np.linalg.norm((scaled.chi - usual.chi) * weight)
        assert change < 2e-3 * np.linalg.norm(usual.chi * weight)
    # Larch at an edge step of 20 000 stops where its objective is far from the minimum
    group = larch(energy, 1e4 * mu, Recipe(), E0)
    assert difference(usual.chi[0], group) > 0.01


def test_a_batch_is_its_spectra():
    spectra = np.array([foil(noise=1e-2, seed=i)[1] * (1 + i) for i in range(12)])
    plan = Plan.compile(foil()[0], E0, Recipe())
    batch = plan.reduce(spectra)
    for i, mu in enumerate(spectra):
        single = plan.reduce(mu[None])
        for name in ("norm", "flat", "chi", "chir_mag"):
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(single, name)[0], atol=1e-9)
        assert batch.epsilon_k[i] == pytest.approx(single.epsilon_k[0])
        assert batch.edge_step_std[i] == pytest.approx(single.edge_step_std[0])


def test_directions_that_only_the_clamps_see_follow_them():
    """With one Fourier component for five coefficients the objective is still the least."""
    energy, mu = foil(noise=1e-3)
    recipe = Recipe(autobk=Autobk(kweight=0, rbkg=0.02))
    objective = Plan.compile(energy, E0, recipe).reduce(mu[None]).objective[0]
    assert objective < 1e-6  # Larch stops at 3e-9 of 0.02 without the clamps


@settings(deadline=None, max_examples=25)
@given(
    scale=st.floats(0.01, 3.0),
    noise=st.floats(0, 0.05),
    rbkg=st.floats(0.3, 2.0),
    clamp=st.floats(0, 100),
    seed=st.integers(0, 99),
)
def test_the_objective_is_never_above_larchs(scale, noise, rbkg, clamp, seed):
    energy, mu = foil(300, noise=noise, seed=seed)
    recipe = Recipe(autobk=Autobk(rbkg=rbkg, clamp_hi=clamp, clamp_lo=clamp / 2))
    try:
        group = larch(energy, scale * mu, recipe, E0)
    except TypeError:  # Larch stumbles where its minimiser gives no covariance
        assume(False)
    assume(np.isfinite(group.chi).all())  # too many knots for the points: the plan refuses
    objective = Plan.compile(energy, E0, recipe).reduce(scale * mu[None]).objective[0]
    assert objective <= group.autobk_details.chisqr * (1 + 1e-9)


def test_noise_is_larchs_estimate():
    energy, mu = foil(900, noise=1e-2)
    plan = Plan.compile(energy, E0, Recipe())
    chi = plan.reduce(mu[None])
    group = Group()
    estimate_noise(
        plan.k, chi.chi[0], group=group, kmin=2.0, kmax=plan.k_end, kweight=1, rmin=15.0, rmax=30.0
    )
    assert chi.epsilon_k[0] == pytest.approx(group.epsilon_k, rel=1e-10)


def test_larch_engine_gives_the_same_fields():
    energy, mu = foil(noise=1e-3)
    plan, reference = (reduce_mu(energy, mu, Recipe(), engine=e) for e in ("plan", "larch"))
    assert plan.e0 == reference.e0
    for name in ("edge_step", "edge_step_std", "epsilon_k", "objective"):
        assert getattr(plan, name) == pytest.approx(getattr(reference, name), rel=1e-6)
    for name in ("norm", "flat", "k", "chi", "r", "chir_mag"):
        np.testing.assert_allclose(getattr(plan, name), getattr(reference, name), atol=1e-6)
    assert plan.k_data == reference.k_data
    raw = [reduce_mu(energy, 1e5 * mu, Recipe(), engine=e) for e in ("plan", "larch")]
    np.testing.assert_allclose(raw[0].chi, raw[1].chi, atol=1e-6)


@pytest.mark.parametrize("points", [45, 90, 130, 400, 2500])
def test_e0_is_larchs_on_any_grid(points):
    for seed in range(10):
        energy, mu = foil(points, noise=0.01 * (seed % 3), seed=seed)
        assert find_e0(energy, mu) == larch_e0(energy, mu)


def larch_e0(energy, mu):
    with warnings.catch_warnings():  # of a short scan Larch takes the mean of no steps
        warnings.simplefilter("ignore")
        return larch_find_e0(energy, mu=mu, group=Group())


def test_what_cannot_be_compiled_says_why():
    energy, mu = foil()
    with pytest.raises(SpectrumError, match="kmin = 16"):
        reduce_mu(energy, mu, Recipe(autobk=Autobk(kmin=16.0)))
    few = np.concatenate([energy[energy < E0 + 5], [E0 + 40, E0 + 900]])
    with pytest.raises(SpectrumError, match="too few points above E0"):
        reduce_mu(few, np.interp(few, energy, mu), Recipe(), E0)
    with pytest.raises(SpectrumError, match="not inside the scan"):
        reduce_mu(energy, mu, Recipe(), 12000.0)
    with pytest.raises(SpectrumError, match="mu falls"):
        reduce_mu(energy, -mu, Recipe(), E0)


def test_plans_are_kept_and_bounded():
    plans = Plans(size=2)
    grids = [foil(points)[0] for points in (100, 120, 140)]
    first = plans.get(grids[0], E0, Recipe())
    assert plans.get(grids[0].copy(), E0, Recipe()) is first
    assert plans.compiled == 1
    plans.get(grids[1], E0, Recipe())
    plans.get(grids[2], E0, Recipe())
    assert plans.get(grids[0], E0, Recipe()) is not first
    assert len(plans._plans) == 2


@pytest.mark.measured
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_parity_on_every_measured_spectrum(data):
    """Larch's e0 and edge_step on all; chi and objective on all that reach k of 8."""
    recipe, parity, worst = Recipe(), [], -np.inf
    for path in sorted((data / "xas").glob("*/*.xdi")):
        analysis = Analysis()
        for sweep in sweeps_of_file(path, analysis.adapter):
            for spectrum in Preparation().spectra(sweep, analysis):
                if not isinstance(spectrum, Spectrum):
                    continue
                try:
                    group = larch(spectrum.energy, spectrum.mu, recipe)
                    reduced = reduce_mu(spectrum.energy, spectrum.mu, recipe)
                except (SpectrumError, TypeError, IndexError):
                    continue
                assert reduced.e0 == pytest.approx(group.e0, rel=1e-12), path
                assert reduced.edge_step == pytest.approx(group.edge_step, rel=1e-10), path
                if reduced.k_data[1] >= 8:
                    parity.append(difference(reduced.chi, group))
                    worst = max(worst, reduced.objective / group.autobk_details.chisqr - 1)
    assert len(parity) > 90
    assert np.mean(np.array(parity) <= 1e-4) >= 0.95
    assert np.median(parity) < 1e-6
    assert worst < 1e-6

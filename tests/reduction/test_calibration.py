"""The foil: how well its shift is found, and how it is followed through a run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from larch import Group
from larch.xafs import pre_edge
from larch.xafs.pre_edge import energy_align
from test_rebin import EDGE, curve, swung

import synthetic
from exafsd.contract.recipe import Recipe
from exafsd.reduction.calibration import STEP, Tracker
from exafsd.reduction.engine import by_plan
from exafsd.reduction.foil import FoilTemplate
from exafsd.reduction.plan import Plan
from exafsd.settings.analysis import Analysis, Calibration, Rebin, Reduction
from exafsd.spectra import Edge, Run, Spectrum, Sweep
from reducing import Preparation, sweeps_of_file

WINDOW = (-30.0, 40.0)
MAX_SHIFT = 15.0


def foil(step=0.5, shift=0.0, noise=0.0, seed=0, phase=0.0, low=8850.0, high=9250.0):
    """Foil whose energies need `shift` to be right."""
    rng = np.random.default_rng(seed)
    energy = np.arange(low, high, step) + phase * step
    return energy - shift, curve(energy) + noise * rng.normal(size=len(energy))


def reference(**kws):
    built = FoilTemplate.of(*foil(**kws), (EDGE,), WINDOW)
    assert built is not None
    return built


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-14, 14),
    st.floats(0.2, 5),
    st.floats(-2, 2),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.floats(0, 1),
)
def test_any_shift_is_found_on_any_grid_and_intensity(shift, scale, offset, step, phase):
    energy, mu = foil(step, shift, phase=phase)
    matched = reference().match(energy, offset + scale * mu, MAX_SHIFT)
    assert matched is not None
    assert matched.shift == pytest.approx(shift, abs=0.03 * step)


@pytest.mark.parametrize("noise", [1e-2, 3e-2])
def test_the_error_bar_is_the_scatter(noise):
    rng = np.random.default_rng(1)
    against = reference()
    errors, stds = [], []
    for seed in range(60):
        shift = rng.uniform(-5, 5)
        energy, mu = foil(0.5, shift, noise, seed, phase=rng.uniform())
        matched = against.match(energy, mu, MAX_SHIFT)
        errors.append(matched.shift - shift)
        stds.append(matched.std)
    scatter = np.sqrt(np.mean(np.square(errors)))
    assert scatter < 1.5 * noise  # eV for a step of 2
    assert np.mean(stds) == pytest.approx(scatter, rel=0.35)
    assert abs(np.mean(errors)) < 4 * scatter / np.sqrt(60)


def test_what_is_no_foil_has_no_shift():
    against = reference()
    rng = np.random.default_rng(2)
    energy, mu = foil()
    for _ in range(50):
        assert against.match(energy, rng.normal(size=len(energy)), MAX_SHIFT) is None
        assert FoilTemplate.of(energy, rng.normal(size=len(energy)), (), WINDOW) is None
    assert against.match(energy, -mu, MAX_SHIFT) is None
    assert against.match(energy, np.ones(len(energy)), MAX_SHIFT) is None
    assert against.match(energy[:60], mu[:60], MAX_SHIFT) is None  # ends below the edge
    assert FoilTemplate.of(energy[:60], mu[:60], (EDGE,), WINDOW) is None


def test_a_glitch_is_not_taken_for_the_edge():
    energy, mu = foil()
    mu[100:103] += 2.0
    built = FoilTemplate.of(energy, mu, (), WINDOW)
    assert built.e0 == pytest.approx(reference().e0, abs=0.01)


def test_the_foil_of_another_element_is_found():
    """With the edge of the sample, 330 eV away, named but not in the reference channel."""
    assert FoilTemplate.of(*foil(high=9400.0), (EDGE + 330.0,), WINDOW).e0 == pytest.approx(
        reference().e0, abs=0.01
    )


@pytest.mark.measured
def test_shifts_of_measured_foils(data):
    """A measured foil on another grid and scaled; the truth is what was put in."""
    worst = 0.0
    for path in ["Cu/cu_metal_rt.xdi", "Cu/Cu_Foil_rt_2016Foils.xdi"]:
        (sweep,) = sweeps_of_file(data / "xas" / path, Analysis().adapter)
        foil_spectrum = Preparation().spectra(sweep, Analysis())[0]
        energy, mu = foil_spectrum.energy, foil_spectrum.mu
        against = FoilTemplate.of(energy, mu, (EDGE,), WINDOW)
        other = np.arange(energy[0] + 1, energy[-1] - 1, 0.37)
        for shift in np.linspace(-7, 7, 15):
            matched = against.match(other - shift, 2 + 3 * np.interp(other, energy, mu), MAX_SHIFT)
            worst = max(worst, abs(matched.shift - shift))
    assert worst < 0.02


def test_larch_aligns_by_what_comes_after_the_edge():
    """`energy_align` begins at e0 - emin, which with its emin = -15 is 15 eV above the edge."""
    moved, other = foil(shift=3.0, noise=2e-2, seed=3)
    assert reference().match(moved, other, MAX_SHIFT).shift == pytest.approx(3.0, abs=0.05)

    def by_larch(without_edge=False, **window):
        theirs, against = (Group(energy=e, mu=m) for e, m in ((moved, other), foil()))
        pre_edge(theirs, e0=EDGE - 3.0)
        pre_edge(against, e0=EDGE)
        against.dmude = np.gradient(against.mu) / np.gradient(against.energy)
        if without_edge:
            against.dmude[against.energy < EDGE + 14] = 0.0
        return energy_align(theirs, against, **window)

    assert abs(by_larch() - 3.0) > 0.5
    assert by_larch(without_edge=True) == by_larch()  # the edge is not looked at
    assert by_larch(emin=15) == pytest.approx(3.0, abs=0.2)  # with the sign turned round it is


def follow(tracker, shifts, noise=2e-3, first=1, start_seed=0, both=True):
    """Shift applied and flags for sweeps that need `shifts`, every other one downwards."""
    drifts = []
    for i, shift in enumerate(shifts):
        foil_scan = (
            None if shift is None else foil(0.5, shift, noise, start_seed + i, phase=0.3 * i % 1)
        )
        direction = "down" if both and i % 2 else "up"
        drifts.append(tracker.follow(first + i, direction, foil_scan, whole=True))
    return drifts


def applied(drifts):
    return np.array([np.nan if one.shift is None else one.shift.value for one in drifts])


@pytest.mark.parametrize("noise", [2e-3, 2e-2])
@pytest.mark.parametrize(
    "drift",
    [
        lambda i: 0.02 * i,
        lambda i: 1.0 * np.sin(2 * np.pi * i / 200),
        lambda i: 0.0 * i,
    ],
    ids=["steady", "to and fro", "none"],
)
def test_a_drift_is_followed_and_the_directions_agree(drift, noise):
    """Within 0.05 eV, with a backlash of 1.3 eV, from the first sweep on."""
    number = np.arange(80)
    needed = drift(number) + 1.3 * (number % 2)
    drifts = follow(Tracker(Calibration(), (EDGE,)), needed, noise)
    error = applied(drifts) - needed
    assert all(one.flags == () for one in drifts)
    error -= error.mean()  # the first sweep's own noise moves them all alike
    assert np.sqrt(np.mean(error**2)) < (0.01 if noise < 0.01 else 0.025)
    assert np.quantile(np.abs(error), 0.95) < 0.05
    assert abs(error[::2].mean() - error[1::2].mean()) < 0.01


def test_a_slow_drift_needs_few_sets_of_energies():
    """A plan serves one set of energies: shifts come in steps, which many sweeps share."""
    drifts = follow(Tracker(Calibration(), (EDGE,)), 5e-4 * np.arange(60), both=False)
    steps = applied(drifts) / STEP
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert len(np.unique(applied(drifts))) <= 10


def test_half_a_step_of_the_shift_is_far_below_the_noise():
    energy, mu = synthetic.foil(500, noise=1e-3)
    moved = energy + STEP / 2
    at, beside = (by_plan(Plan.compile(e, 8979.0, Recipe()), [mu])[0] for e in (energy, moved))
    inside = (at.k > 3.0) & (at.k < 14.0)  # what is fitted
    difference = np.sqrt(np.mean((at.chi - beside.chi)[inside] ** 2))
    assert 0 < difference < 0.1 * at.epsilon_k


def test_smoothing_makes_it_quieter():
    needed = np.zeros(60)
    rough, smooth = (
        np.std(applied(follow(Tracker(Calibration(smoothing=n), (EDGE,)), needed, 2e-2))[20:])
        for n in (1, 8)
    )
    assert smooth < 0.8 * rough


@pytest.mark.parametrize("both", [True, False], ids=["up and down", "up"])
@pytest.mark.parametrize("size", [1.0, -4.0])
def test_a_jump_is_told_and_followed_within_three_sweeps(size, both):
    number = np.arange(40)
    needed = 0.01 * number + size * (number >= 20) + (0.8 * (number % 2) if both else 0)
    drifts = follow(Tracker(Calibration(), (EDGE,)), needed, both=both)
    flags = [one.flags for one in drifts]
    assert flags[20] == ("foil_outlier",)
    assert flags[21] == ("energy_jump",)
    assert all(flag == () for flag in flags[:20] + flags[22:])
    error = np.abs(applied(drifts) - needed)
    assert np.max(error[:20]) < 0.05
    assert np.max(error[21:]) < 0.05


def test_a_single_outlier_is_not_followed():
    needed = np.zeros(30)
    measured = needed.copy()
    measured[[12, 19]] = 3.0, -2.0
    drifts = follow(Tracker(Calibration(), (EDGE,)), measured)
    assert {i for i, one in enumerate(drifts) if one.flags} == {12, 19}
    assert drifts[12].flags == ("foil_outlier",)
    assert np.max(np.abs(applied(drifts))) < 0.05


def test_without_a_foil_the_last_shift_holds():
    drifts = follow(Tracker(Calibration(), (EDGE,)), [None, 0.0, None, 0.0, 0.0, None], both=False)
    assert drifts[0] == (None, ("foil_missing",))
    assert [one.flags for one in drifts[1:]] == [(), ("foil_missing",), (), (), ("foil_missing",)]
    assert drifts[5].shift == drifts[4].shift


def test_a_foil_too_far_away_is_lost():
    tracker = Tracker(Calibration(max_shift=5.0), (EDGE,))
    drifts = follow(tracker, [0.0, 0.0, 8.0, 0.0])
    assert [one.flags for one in drifts] == [(), (), ("foil_lost",), ()]
    assert abs(drifts[2].shift.value) < 0.05


def test_the_foil_is_moved_to_the_energy_given():
    energy_given = reference().e0 + 2.0
    tracker = Tracker(Calibration(foil_e0=energy_given), ())
    needed = np.where(np.arange(12) % 2, 1.0, 0.0)
    drifts = follow(tracker, needed)
    assert np.max(np.abs(applied(drifts) - needed - 2.0)) < 0.05
    assert [one.flags for one in drifts] == [()] * 12
    far = Tracker(Calibration(foil_e0=energy_given + 1e6), ())
    assert {one.flags for one in follow(far, needed)} == {("foil_lost",)}


def a_sweep(number, shift, noise=1e-3, run="r", flown=True):
    energy, mu = swung(4000, number, noise, shift=shift)
    _, of_foil = swung(4000, number, noise, shift=shift)
    it = np.exp(-mu)
    signals = {"i0": np.ones(len(mu)), "it": it, "ir": it * np.exp(-of_foil)}
    return Sweep(
        Run(run, edges=(Edge("Cu", "K"),)), "primary", number, energy, signals,
        direction="down" if number % 2 else "up", flown=flown,
    )  # fmt: skip


@pytest.mark.parametrize("source", ["settings", "policy"])
def test_up_and_down_agree_after_correction_and_rebinning(source):
    """The edges of a swinging mono with 1.7 eV of backlash and a drift, within 0.05 eV."""
    reduction = Reduction(calibration=Calibration(source="foil"), rebin=Rebin(method="boxcar"))
    if source == "policy":
        reduction = Reduction(e0_policy="foil", rebin=Rebin(method="boxcar"))
    analysis, preparation = Analysis(reduction=reduction), Preparation()
    against = None
    shifts = []
    for number in range(1, 25):
        shift = 1.7 * (number % 2) + 0.03 * number
        spectra = preparation.spectra(a_sweep(number, shift), analysis)
        assert [one.id.channel for one in spectra] == ["transmission", "reference"]
        one = spectra[0]
        assert isinstance(one, Spectrum)
        assert one.energy_shift.value == pytest.approx(shift - 1.73, abs=0.05)
        np.testing.assert_array_equal(one.energy, spectra[1].energy)
        if against is None:
            grid, against = one.energy, FoilTemplate.of(one.energy, one.mu, (EDGE,), WINDOW)
        np.testing.assert_array_equal(one.energy, grid)  # the compiled plan holds for all
        shifts.append(against.match(one.energy, one.mu, MAX_SHIFT).shift)
    assert np.ptp(shifts) < 0.05


def test_a_run_without_foil_says_so():
    analysis = Analysis(reduction=Reduction(calibration=Calibration(source="foil")))
    sweep = a_sweep(1, 0.0)
    signals = {name: sweep.signals[name] for name in ("i0", "it")}
    bare = Sweep(sweep.run, "primary", 1, sweep.energy, signals)
    (one,) = Preparation().spectra(bare, analysis)
    assert one.quality == ("foil_missing",)
    assert one.energy_shift is None

"""Running averages, and what stands out from a series."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebin import curve

from exafsd.contract.vocabulary import Flag
from exafsd.publishing.outcomes import identity
from exafsd.reduction.average import RunningAverage
from exafsd.reduction.series import ENOUGH, HOPELESS, LASTING, Series
from exafsd.settings.analysis import Analysis, Average, Reduction
from exafsd.spectra import Averaged, Edge, Run, Shift, Spectrum, SpectrumId, Sweep
from reducing import Preparation

CU = Edge("Cu", "K")
RUN = Run("r", edges=(CU,))
ENERGY = np.linspace(8800.0, 9900.0, 600)


def a_sweep(number, mu=None, energy=ENERGY, flags=(), **kws):
    mu = curve(energy) if mu is None else mu
    return Sweep(
        RUN, "primary", number, energy, {"mutrans": mu}, flags=flags,
        direction="up" if number % 2 else "down", acquired=(10.0 * number, 10.0 * number + 5),
        context={"temperature": {"value": 300.0 + number}}, **kws,
    )  # fmt: skip


def spectrum(number, mu=None, energy=ENERGY, quality=(), **kws):
    sweep = a_sweep(number, mu, energy)
    mu = sweep.signals["mutrans"]
    return Spectrum(SpectrumId(sweep, "transmission", CU), energy, mu, quality, **kws)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 1000))
def test_the_mean_of_the_last_n(n, count, seed):
    rng = np.random.default_rng(seed)
    running = RunningAverage(Average(n=n))
    mus = rng.normal(1, 5, (count, len(ENERGY)))
    for i, mu in enumerate(mus, start=1):
        mean = running.add(spectrum(i, mu))
        if i == 1:
            assert mean is None
            continue
        first = max(i - n, 0) + 1
        assert mean.averaged == Averaged(i - first + 1, first, i)
        np.testing.assert_allclose(mean.mu, mus[first - 1 : i].mean(axis=0), atol=1e-12)
        assert mean.id.sweep.acquired == (10.0 * first, 10.0 * i + 5)
        assert mean.id.sweep.context["temperature"]["value"] == 300.0 + i


def test_noise_falls_with_the_average():
    rng = np.random.default_rng(0)
    running = RunningAverage(Average(n=16))
    for i in range(1, 41):
        mean = running.add(spectrum(i, curve(ENERGY) + 0.01 * rng.normal(size=len(ENERGY))))
    assert np.std(mean.mu - curve(ENERGY)) == pytest.approx(0.01 / 4, rel=0.1)


@pytest.mark.parametrize("flag", [Flag.PARTIAL, Flag.GAP, Flag.ENERGY_UNSORTED])
def test_unfinished_sweeps_stay_out(flag):
    running = RunningAverage(Average(n=4))
    running.add(spectrum(1))
    assert running.add(spectrum(2, curve(ENERGY) + 9, quality=(flag,))) is None
    assert running.add(spectrum(3)).averaged == Averaged(2, 1, 3)


def test_other_grids_come_onto_the_first_and_the_common_range():
    running = RunningAverage(Average(n=4))
    running.add(spectrum(1))
    other = np.linspace(8806.0, 9893.0, 721)
    mean = running.add(spectrum(2, energy=other))
    inside = (other[0] <= ENERGY) & (other[-1] >= ENERGY)
    np.testing.assert_array_equal(mean.energy, ENERGY[inside])
    far = np.abs(mean.energy - 8980) > 15  # points are 1.8 eV apart, too few for the edge itself
    np.testing.assert_allclose(mean.mu[far], curve(mean.energy)[far], atol=1e-3)
    for number in range(3, 7):  # the shorter one has left
        mean = running.add(spectrum(number))
    np.testing.assert_array_equal(mean.energy, ENERGY)


def test_another_range_begins_another_average():
    running = RunningAverage(Average(n=4))
    running.add(spectrum(1))
    longer = np.linspace(8800.0, 10100.0, 700)
    assert running.add(spectrum(2, energy=longer)) is None
    assert running.add(spectrum(3, energy=longer)).averaged == Averaged(2, 2, 3)


def test_what_happened_to_one_is_said_of_the_mean():
    running = RunningAverage(Average(n=4))
    running.add(spectrum(1, quality=("a",), energy_shift=Shift(0.2, 0.1), removed=(9000.0,)))
    mean = running.add(spectrum(2, quality=("b", "a"), energy_shift=Shift(0.4, 0.1)))
    assert mean.quality == ("a", "b")
    assert mean.energy_shift == Shift(pytest.approx(0.3), pytest.approx(0.1))
    assert mean.removed == (9000.0,)
    assert mean.raw is None


def ids(average, numbers=range(1, 7), flags=None):
    analysis = Analysis(reduction=Reduction(average=average))
    preparation = Preparation()
    return [
        [
            identity(one.id, one.quality, one.averaged)["id"].rsplit("/", 1)[-1]
            for one in preparation.spectra(a_sweep(n, flags=(flags or {}).get(n, ())), analysis)
        ]
        for n in numbers
    ]


def test_ids_of_averages_are_their_own():
    assert ids(Average()) == [["1"], ["2"], ["3"], ["4"], ["5"], ["6"]]
    assert ids(Average(n=2)) == [
        ["1"],
        ["2"],
        ["3", "1-3"],
        ["4", "2-4"],
        ["5", "3-5"],
        ["6", "4-6"],
    ]
    together = ids(Average(n=3, directions="together"))
    assert together == [["1"], ["2", "1-2"], ["3", "1-3"], ["4", "2-4"], ["5", "3-5"], ["6", "4-6"]]


def test_without_singles_there_is_one_outcome_a_sweep():
    average = Average(n=3, directions="together", singles=False)
    assert ids(average, flags={4: (Flag.PARTIAL,)}) == [
        ["1"], ["1-2"], ["1-3"], ["4"], ["2-5"], ["3-6"],
    ]  # fmt: skip


def test_the_message_says_what_is_averaged():
    running = RunningAverage(Average(n=4, directions="together"))
    running.add(spectrum(7))
    mean = running.add(spectrum(8))
    fields = identity(mean.id, (), mean.averaged)
    assert asdict(fields["averaged"]) == {"n": 2, "first": 7, "last": 8}
    assert fields["sweep"] == 8
    assert fields["direction"] is None
    assert asdict(fields["acquired"]) == {"start": 70.0, "mid": 77.5, "end": 85.0}


def norms(count, drift=0.0, noise=1e-3, seed=0):
    rng = np.random.default_rng(seed)
    shape, change = curve(ENERGY), np.sin(ENERGY / 30)
    for i in range(count):
        yield shape + drift * i * change + noise * rng.normal(size=len(ENERGY))


@pytest.mark.parametrize("drift", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_steady_series_has_no_outlier(drift, noise):
    series = Series(8.0)
    assert not any(series.check(norm) for norm in norms(300, drift, noise))


def test_an_outlier_is_told_and_leaves_no_trace():
    series, untouched = Series(8.0), Series(8.0)
    outliers = []
    for i, norm in enumerate(norms(100)):
        if i in (30, 31, 60):
            outliers.append(series.check(norm + 0.05 * (i + 1) * np.cos(ENERGY / 9)))
        else:
            assert series.check(norm) == untouched.check(norm) is False
    assert outliers == [True] * 3


def test_nothing_stands_out_before_there_is_a_series():
    series = Series(8.0)
    for i, norm in enumerate(norms(ENOUGH)):
        assert not series.check(norm if i != 4 else 2 * norm)


def test_a_lasting_change_is_accepted():
    series = Series(8.0)
    for norm in norms(20):
        series.check(norm)
    outliers = [series.check(norm + 0.3 * np.sin(ENERGY / 50)) for norm in norms(20, seed=1)]
    assert outliers == [True] * LASTING + [False] * (20 - LASTING)


def test_a_series_that_is_no_more_begins_anew():
    series = Series(8.0)
    for norm in norms(20):
        series.check(norm)
    wild = [norm * (2 + i % 3) for i, norm in enumerate(norms(40, noise=0.3))]
    outliers = [series.check(norm) for norm in wild]
    assert outliers == [True] * HOPELESS + [False] * (40 - HOPELESS)


def test_another_grid_begins_another_series():
    series = Series(8.0)
    for norm in norms(20):
        series.check(norm)
    assert not any(series.check(norm[::2] * 3) for norm in norms(20))

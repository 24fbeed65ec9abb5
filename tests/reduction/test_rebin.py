"""Fast scans onto few points: where the edge is, how the noise falls, what is left of the curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.contract import Recipe
from exafsd.contract.grid import ETOK
from exafsd.reduction.engine import reduce_mu
from exafsd.reduction.foil import FoilTemplate
from exafsd.reduction.rebin import (
    BLOCK,
    LONGER,
    CommonGrid,
    covered,
    interpolate,
    rebin,
    xas_grid,
)
from exafsd.settings.analysis import Rebin
from exafsd.spectra import SpectrumError

EDGE = 8979.0
GRID = xas_grid(EDGE, Rebin())
METHODS = ["boxcar", "gaussian"]


def curve(energy, e0=EDGE):
    """mu(E) of a foil with an edge as sharp as they are: arctan of 1.5 eV, white line, EXAFS."""
    above = np.maximum(energy - e0, 0)
    k = np.sqrt(ETOK * above)
    chi = 1.5 * np.sin(2 * 2.25 * k) * np.exp(-2 * 0.008 * k**2) * k / (k**2 + 9)
    edge = 0.5 + np.arctan((energy - e0) / 1.5) / np.pi
    line = 0.3 * np.exp(-(((energy - e0 - 6) / 2.5) ** 2))
    return 0.3 + 2 * edge * (1 + chi * (energy > e0)) - 2e-4 * (energy - e0) + line


def swung(points, seed=0, noise=0.0, low=8800.0, high=9900.0, shift=0.0):
    """A sweep of a swinging mono, sorted: (energy as read, mu); `shift` is what to add to it."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(-0.5, 0.5, points) + rng.uniform(-0.5, 0.5) / points
    energy = (low + high) / 2 + (high - low) / 2 * np.sin(np.pi * phase)
    energy = np.sort(energy + rng.normal(0, 0.02, points))
    energy = energy[np.concatenate([[True], np.diff(energy) > 1e-3])]
    return energy - shift, curve(energy) + noise * rng.normal(size=len(energy))


def whole(energy):
    first, last = covered(GRID, energy)
    return first + 1, last - 1


def rebinned(energy, mu, method="boxcar"):
    bins = whole(energy)
    return GRID.centres[slice(*bins)], rebin(energy, mu, GRID, bins, method).mu


def test_the_grid_has_the_steps_asked_for():
    edges = GRID.edges - EDGE
    np.testing.assert_allclose(np.diff(edges[edges <= -30]), 5.0)
    np.testing.assert_allclose(np.diff(edges[(edges >= -30) & (edges <= 50)]), 0.5)
    np.testing.assert_allclose(np.diff(np.sqrt(ETOK * edges[edges > 49.9])), 0.04)
    assert (np.diff(GRID.centres) > 0).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"xanes": (50.0, -30.0)},
        {"xanes": (-1e9, 50.0)},
        {"xanes": (-30.0, 1e9)},
        {"xanes": (-30.0, float("nan"))},
        {"xanes_step": 1e-9},
        {"k_step": 1e-9},
        {"pre_step": 1e-9},
    ],
)
def test_a_grid_that_cannot_be_is_refused(bad):
    with pytest.raises(SpectrumError, match=r"reduction\.rebin"):
        xas_grid(EDGE, Rebin(**bad))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METHODS))
def test_a_straight_line_stays_one_however_the_points_lie(seed, method):
    rng = np.random.default_rng(seed)
    energy = np.sort(rng.uniform(8900, 9300, 4000))
    energy = energy[np.concatenate([[True], np.diff(energy) > 1e-3])]
    binned = rebin(energy, 3 - 0.01 * (energy - EDGE), GRID, whole(energy), method)
    centres = GRID.centres[slice(*whole(energy))]
    if binned.empty == 0:
        np.testing.assert_allclose(binned.mu, 3 - 0.01 * (centres - EDGE), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_noise_falls_as_the_root_of_the_points(method):
    energy, _ = swung(16000)
    bins = whole(energy)
    count = np.diff(np.searchsorted(energy, GRID.edges[bins[0] : bins[1] + 1]))
    noise = [
        rebin(energy, np.random.default_rng(seed).normal(size=len(energy)), GRID, bins, method).mu
        for seed in range(60)
    ]
    share = np.std(noise, axis=0) * np.sqrt(count)
    # a Gaussian of the bin's width takes in 1.5 bins' points, unequally
    expected = {"boxcar": 1.0, "gaussian": (2 * np.log(2) / np.pi) ** 0.25}[method]
    assert np.median(share) == pytest.approx(expected, rel=0.08)
    assert np.quantile(share, 0.99) < 1.5 * expected


@pytest.mark.parametrize("method", METHODS)
def test_the_edge_stays_where_it_is(method):
    """Within 0.01 eV; with the nominal centres of the bins it moves from sweep to sweep."""
    fine = np.arange(8800, 9900, 0.1)
    truth = FoilTemplate.of(fine, curve(fine), (EDGE,), (-30.0, 40.0))
    moved, nominal = [], []
    for seed in range(8):
        energy, mu = swung(4000, seed)
        moved.append(truth.match(*rebinned(energy, mu, method), 15.0).shift)
        centres, _ = rebinned(energy, mu)
        bins = whole(energy)
        ends = np.searchsorted(energy, GRID.edges[bins[0] : bins[1] + 1])
        means = np.add.reduceat(mu[: ends[-1]], ends[:-1]) / np.diff(ends)
        nominal.append(truth.match(centres, means, 15.0).shift)
    assert np.max(np.abs(moved)) < 0.01
    assert np.max(np.abs(nominal)) > 2 * np.max(np.abs(moved))


@pytest.mark.parametrize(("method", "share"), [("boxcar", 1 / 24), ("gaussian", 0.18 / 2)])
def test_what_is_left_is_the_broadening_of_the_bin(method, share):
    """mu is too high by w^2 mu''/24 with the box-car: 1.0 % of a wave as long as 2 pi bins."""
    step = 0.5
    energy = np.arange(8960, 9020, 0.011)
    at, binned = rebinned(energy, np.sin(energy / (2 * step)), method)
    inner = (at > 8965) & (at < 9015)
    lost = 1 - np.ptp(binned[inner]) / 2
    assert lost == pytest.approx(share / 4, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_chi_of_a_rebinned_scan_by_larch(method):
    """k^2 chi(k) between 2 and 14 1/angstrom moves by 1.5 %, by Larch's own polynomials.

    They weigh every point alike, and the points now lie elsewhere: the edge step moves by 1.4 %.
    But for one factor chi(k) changes by 0.04 % with the box-car and 0.06 % with the Gaussian.
    """
    recipe = Recipe()
    recipe = recipe.model_copy(update={"autobk": recipe.autobk.model_copy(update={"kmax": 14.5})})
    energy, mu = swung(4000)
    raw = reduce_mu(energy, mu, recipe, EDGE, "larch")
    new = reduce_mu(*rebinned(energy, mu, method), recipe, EDGE, "larch")
    used = (raw.k > 2) & (raw.k < 14)
    before, after = (one.chi[used] * raw.k[used] ** 2 for one in (raw, new))
    factor = before @ after / (before @ before)
    assert factor == pytest.approx(raw.edge_step / new.edge_step, abs=0.004)
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)
    assert np.linalg.norm(after - factor * before) < 0.001 * np.linalg.norm(before)


def test_few_empty_bins_are_filled_and_many_are_not():
    energy, mu = swung(4000)
    gap = np.abs(energy - 9100) > 1.2
    at, _ = rebinned(energy, mu)
    binned = rebin(energy[gap], mu[gap], GRID, whole(energy))
    assert 0 < binned.empty < 0.02
    np.testing.assert_allclose(binned.mu, curve(at), atol=0.015)  # at the edge, by its broadening
    assert rebin(energy[::20], mu[::20], GRID, whole(energy)) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 3), st.integers(-3, 9)), min_size=1, max_size=20))
def test_sweeps_of_about_one_length_share_few_grids(jitter):
    common = CommonGrid(GRID)
    first = common.choose((500, 900), True)
    for low, high in jitter:
        own = 500 - low, 900 - high
        chosen = common.choose(own, False)
        assert own[0] <= chosen[0]
        assert chosen[1] <= own[1]
        assert all((a - b) % BLOCK == 0 for a, b in zip(chosen, first, strict=True))
        assert own[0] > first[0] or own[1] < first[1] or chosen == first
    assert common.bins == first


def test_a_stump_does_not_decide_the_grid_and_a_longer_sweep_does():
    common = CommonGrid(GRID)
    assert common.choose((500, 700), whole=False) == (501, 699)
    assert common.bins is None
    assert common.choose((500, 700), whole=True) == (501, 699)
    assert common.choose((500, 690), whole=True) == (501, 699 - 3 * BLOCK)
    assert common.choose((500, 700 + LONGER), whole=True) == (501, 699 + LONGER)


def test_interpolation_keeps_the_points_and_is_not_thrown_off_by_two_close_ones():
    rng = np.random.default_rng(0)
    x = np.arange(0, 60, 0.5) + rng.uniform(-0.15, 0.15, 120)
    y = np.sin(x / 3)
    np.testing.assert_allclose(interpolate(x, y, x), y, atol=1e-12)
    at = np.linspace(2, 58, 900)
    assert np.max(np.abs(interpolate(x, y, at) - np.sin(at / 3))) < 5e-4
    x[61] = x[60] + 0.002
    y = np.sin(x / 3) + 1e-2 * rng.normal(size=120)
    assert np.max(np.abs(interpolate(x, y, at) - np.sin(at / 3))) < 6e-2

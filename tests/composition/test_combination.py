"""Mixtures of measured near edges, with what beamlines and temperatures do to them."""

from functools import partial

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from exafsd.composition.combination import (
    LEAST,
    SHIFT,
    SHIFT_ALONE,
    Combination,
    _expanded,
    _Model,
    _prior,
)
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.window import Ranges, near_edge
from exafsd.contract.grid import ETOK
from exafsd.spectra import SpectrumError

EDGE = 8979.0
#: 0.7 eV near the edge, as a quick scan
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


@pytest.fixture(scope="module")
def references():
    loaded, refused = load([shipped_folder()])
    assert not refused
    return {one.name: one for one in loaded if one.edge.element == "Cu"}


@pytest.fixture(scope="module")
def ranges(references):
    shared = Ranges.of(ENERGY, EDGE)
    for one in references.values():
        shared = shared.shared(one.ranges)
    return shared


def combination(references, names, ranges):
    binned = [near_edge(references[n].energy, references[n].mu, ranges) for n in names]
    return Combination(binned, ranges.centres, EDGE)


def mixture(references, shares, noise=1e-3, shift=0.0, heat=0.0, width=0.0, thick=0.0, rng=None):
    """Mu of a mixture; `heat` is more sigma2 of its first part, angstrom^2, `width` in eV."""
    rng = rng or np.random.default_rng(0)
    mu = np.zeros(len(ENERGY))
    for i, (name, share) in enumerate(shares.items()):
        one = references[name]
        part = np.interp(ENERGY - shift, one.energy, one.mu)
        if heat and i == 0:
            above = np.maximum(ENERGY - EDGE, 0.0)
            part = np.where(above > 0, 1 + (part - 1) * np.exp(-2 * ETOK * above * heat), part)
        mu += share * part
    if width:
        fine = np.arange(ENERGY[0], ENERGY[-1], 0.1)
        broad = gaussian_filter1d(np.interp(fine, ENERGY, mu), width / 0.1, mode="nearest")
        mu = np.interp(ENERGY, fine, broad)
    mu = mu * (1 + thick) / (1 + thick * mu)
    mu = mu + noise * rng.normal(size=len(mu))
    return 0.8 * mu + 0.2 - 1e-4 * (ENERGY - ENERGY[0])


def fractions(fit, names):
    return {names[place]: value for place, value in zip(fit.places, fit.value, strict=True)}


@pytest.mark.parametrize(
    "nuisance",
    [{}, {"shift": 0.3}, {"heat": 0.006}, {"heat": 0.012}, {"width": 1.0}, {"noise": 4e-3}],
)
def test_shares_are_right_whatever_differs_between_scans(references, ranges, nuisance):
    names = ["Cu", "Cu2O", "CuO"]
    combine = combination(references, names, ranges)
    rng = np.random.default_rng(1)
    truth, samples = [], []
    for i in range(30):
        chosen = rng.choice(names, 1 + i % 3, replace=False)
        shares = dict(zip(chosen, rng.dirichlet(np.full(len(chosen), 1.5)), strict=True))
        truth.append([shares.get(name, 0.0) for name in names])
        mu = mixture(references, shares, rng=rng, **nuisance)
        samples.append(near_edge(ENERGY, mu, ranges))
    fits = combine(samples, SHIFT_ALONE, fluorescent=False)
    value = np.array([[fractions(fit, names).get(name, 0.0) for name in names] for fit in fits])
    std = np.array([fit.std for fit in fits])
    error = value - np.array(truth)
    assert np.sqrt(np.mean(error**2)) < 0.015
    assert np.mean(np.abs(error) < 1.645 * std) > 0.8
    assert np.abs(value.sum(axis=1) - 1).max() < 1e-9
    assert not any(fit.other for fit in fits)


def test_over_absorption_is_allowed_for_in_fluorescence(references, ranges):
    names = ["Cu", "Cu2O", "CuO"]
    combine = combination(references, names, ranges)
    mu = mixture(references, {"Cu": 0.4, "CuO": 0.6}, thick=0.2)
    sample = near_edge(ENERGY, mu, ranges)
    (fit,) = combine([sample], SHIFT, fluorescent=True)
    assert fractions(fit, names)["CuO"] == pytest.approx(0.6, abs=0.03)
    assert fit.pulls["over_absorption"] > 0.5
    (blind,) = combine([sample], SHIFT, fluorescent=False)
    assert abs(fractions(blind, names)["CuO"] - 0.6) > 0.05 or blind.other


def test_the_energy_shift_is_the_samples(references, ranges):
    combine = combination(references, ["Cu", "CuO"], ranges)
    mu = mixture(references, {"Cu": 0.5, "CuO": 0.5}, shift=0.4)
    (fit,) = combine([near_edge(ENERGY, mu, ranges)], SHIFT_ALONE, fluorescent=False)
    assert fit.shift == pytest.approx(0.4, abs=0.05)
    assert abs(fit.shift - 0.4) < 3 * fit.shift_std


def test_what_no_reference_is_like_is_told(references, ranges):
    combine = combination(references, ["Cu", "Cu2O"], ranges)
    rng = np.random.default_rng(2)

    def flagged(share):
        mus = [mixture(references, {"Cu": 1 - share, "CuO": share}, rng=rng) for _ in range(20)]
        samples = [near_edge(ENERGY, mu, ranges) for mu in mus]
        return np.mean([fit.other for fit in combine(samples, SHIFT_ALONE, fluorescent=False)])

    assert flagged(0.0) <= 0.05
    assert flagged(0.2) >= 0.95


def test_of_many_references_the_likeliest_are_compared(references, ranges):
    names = sorted(references)
    more = {**references, **{f"{n} again": references[n] for n in ("Cu2S",)}}
    rng = np.random.default_rng(5)
    for i in range(2):  # two that look like nothing here
        one = references["CuO"]
        odd = one.mu + 0.1 * np.sin((one.energy - EDGE) / (4 + i)) * (one.energy > EDGE)
        more[f"odd{i}"] = type(one)(f"odd{i}", one.edge, one.energy, odd, one.file)
    every = sorted(more)
    combine = combination(more, every, ranges)
    mu = mixture(references, {"Cu": 0.5, "Cu2O": 0.3, "CuO": 0.2}, noise=5e-4, rng=rng)
    (fit,) = combine([near_edge(ENERGY, mu, ranges)], SHIFT_ALONE, fluorescent=False)
    assert len(names) + 3 == len(every) > 5
    shares = fractions(fit, every)
    for name, share in (("Cu", 0.5), ("Cu2O", 0.3), ("CuO", 0.2)):
        assert shares[name] == pytest.approx(share, abs=0.04)


def test_one_by_one_and_together_are_the_same(references, ranges):
    combine = combination(references, ["Cu", "Cu2O", "Cu2S", "CuO"], ranges)
    rng = np.random.default_rng(3)
    samples = [
        near_edge(ENERGY, mixture(references, {"Cu": x, "Cu2S": 1 - x}, rng=rng), ranges)
        for x in np.linspace(0, 1, 9)
    ]
    together = combine(samples, SHIFT, fluorescent=False)
    for sample, fit in zip(samples, together, strict=True):
        (alone,) = combine([sample], SHIFT, fluorescent=False)
        assert alone.places == fit.places
        np.testing.assert_allclose(alone.value, fit.value, atol=1e-8)


def test_a_fit_that_goes_on_moves_no_share_by_half_of_its_least_error(
    references, ranges, monkeypatch
):
    names = ["Cu", "Cu2O", "Cu2S", "CuO"]
    rng = np.random.default_rng(4)
    samples = [
        near_edge(
            ENERGY,
            mixture(
                references,
                dict(zip(names, rng.dirichlet(np.full(4, 0.5)), strict=True)),
                shift=rng.normal(0, SHIFT), heat=rng.uniform(0, 0.006), width=rng.uniform(0.3, 1.3),
                noise=1e-4, rng=rng,
            ),
            ranges,
        )
        for _ in range(40)
    ]  # fmt: skip
    combine = combination(references, names, ranges)
    first = combine(samples, SHIFT, fluorescent=False)
    small = partial(_prior.__wrapped__, small=0.0)
    monkeypatch.setattr("exafsd.composition.combination._prior", small)
    monkeypatch.setattr("exafsd.composition.combination.TOLERANCE", 1e-3)
    last = combine(samples, SHIFT, fluorescent=False)
    moved = [np.abs(a.value - b.value).max() for a, b in zip(first, last, strict=True)]
    assert 0 < max(moved) < LEAST / 2


@pytest.mark.parametrize("fluorescent", [False, True])
def test_derivatives_of_the_model_are_its_differences(references, ranges, fluorescent):
    names = list(references)
    binned = np.array([near_edge(one.energy, one.mu, ranges).flat for one in references.values()])
    after = np.linspace(0, 1, binned.shape[1])
    model = _Model(_expanded(binned), np.linspace(0, 20, binned.shape[1]), after, fluorescent)
    rng = np.random.default_rng(0)
    m = len(names)
    x = np.concatenate(
        [
            rng.dirichlet(np.ones(m), 3), rng.normal(0, 0.3, (3, 1)), rng.normal(0, 0.01, (3, 2)),
            rng.uniform(0, 1.5, (3, 1)), rng.normal(0, 5e-3, (3, m)), rng.uniform(0, 0.2, (3, 1)),
        ],
        axis=1,
    )[:, : None if fluorescent else -1]  # fmt: skip
    slopes = np.empty((3, x.shape[1], binned.shape[1]))
    unused = np.empty_like(slopes)
    model(x, slopes)
    for i in range(x.shape[1]):
        step = np.zeros(x.shape[1])
        step[i] = 1e-6
        numeric = (model(x + step, unused) - model(x - step, unused)) / 2e-6
        np.testing.assert_allclose(slopes[:, i], numeric, atol=1e-6)


def white_line(energy):
    """Edge with a white line 2.5 eV wide, as of selenites, and some fine structure."""
    x = energy - EDGE
    line = 1.5 / (1 + ((x - 6) / 1.25) ** 2)
    wiggles = np.where(x > 0, 0.1 * np.sin(1.2 * np.sqrt(np.maximum(x, 0.0))), 0.0)
    return 0.5 + np.arctan((x - 2) / 1.0) / np.pi + line + wiggles * np.clip(x / 20, 0, 1)


@pytest.mark.parametrize("step", [0.25, 0.5, 0.7, 1.0, 1.5, 2.0])
def test_a_coarse_scan_of_a_sharp_white_line_is_no_other_phase(references, ranges, step):
    fine = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.2)])
    binned = [near_edge(references[n].energy, references[n].mu, ranges) for n in ("Cu", "Cu2O")]
    combine = Combination(
        [near_edge(fine, white_line(fine), ranges), *binned], ranges.centres, EDGE
    )
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(50):
        first = 8960.0 + rng.uniform(0, step)
        energy = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(first, 9340.0, step)])
        samples.append(near_edge(energy, white_line(energy - rng.normal(0, 0.15)), ranges))
    fits = combine(samples, SHIFT_ALONE, fluorescent=False)
    assert not any(fit.other for fit in fits)
    assert min(fit.value[0] for fit in fits) > (0.99 if step < 2 else 0.97)


def test_a_coarse_scan_still_shows_what_no_reference_is_like(references, ranges):
    combine = combination(references, ["Cu", "Cu2O"], ranges)
    for step in (0.5, 1.0, 2.0):
        energy = np.arange(8840.0, 9340.0, step)
        mu = np.interp(energy, references["CuO"].energy, references["CuO"].mu)
        (fit,) = combine([near_edge(energy, mu, ranges)], SHIFT_ALONE, fluorescent=False)
        assert fit.other


def test_the_grid_of_a_scan_does_not_move_its_normalisation(references, ranges):
    """A scan with most of its points near the edge, and one with equal steps."""
    one = references["Cu"]
    even = np.arange(8840.0, 9345.0, 0.5)
    uneven = np.concatenate([np.arange(8840.0, 8960.0, 10.0), np.arange(8960.0, 9060.0, 0.5),
                             np.arange(9060.0, 9345.0, 4.0)])  # fmt: skip
    flats = [near_edge(e, np.interp(e, one.energy, one.mu), ranges).flat for e in (even, uneven)]
    assert np.abs(flats[0] - flats[1]).max() < 0.004


@pytest.mark.parametrize(
    ("energy", "why"),
    [
        (np.arange(8960.0, 9300.0, 1.0), "must reach from"),
        (np.arange(8840.0, 9050.0, 1.0), "must reach from"),
        (np.arange(8840.0, 9340.0, 3.0), "too coarse"),
    ],
)
def test_scans_that_cannot_be_compared_say_why(references, energy, why):
    one = references["Cu"]
    mu = np.interp(energy, one.energy, one.mu)
    with pytest.raises(SpectrumError, match=why):
        near_edge(energy, mu, Ranges.of(energy, EDGE))


def test_no_edge_is_no_near_edge():
    with pytest.raises(SpectrumError, match="does not rise"):
        near_edge(ENERGY, 1 - 1e-4 * (ENERGY - 8800), Ranges.of(ENERGY, EDGE))


@pytest.mark.parametrize("fluorescent", [False, True])
def test_noise_without_a_spectrum_never_raises(references, ranges, fluorescent):
    combine = combination(references, ["Cu", "Cu2O", "CuO"], ranges)
    rng = np.random.default_rng(4)
    one = references["Cu"]
    samples = []
    for scale in 10.0 ** rng.uniform(-3, 2, size=40):
        mu = np.interp(ENERGY, one.energy, one.mu) + scale * rng.normal(size=len(ENERGY))
        try:
            samples.append(near_edge(ENERGY, mu, ranges))
        except SpectrumError:
            continue
    assert len(combine(samples, SHIFT, fluorescent)) == len(samples) > 10

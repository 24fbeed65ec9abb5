"""Glitches go, everything else stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebin import EDGE, curve

from exafsd.reduction import edges
from exafsd.reduction.deglitch import EDGE_REGION, WIDEST, deglitch
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Spectrum
from reducing import Preparation, sweeps_of_file

#: the number that the documentation recommends
THRESHOLD = 10.0
ENERGY = np.concatenate([np.arange(8800, 8940, 5.0), np.arange(8940, 9040, 0.5)])
ENERGY = np.concatenate([ENERGY, EDGE + np.arange(4.01, 15, 0.05) ** 2 / 0.2625])


def noisy(seed, noise=5e-4):
    return curve(ENERGY) + noise * np.random.default_rng(seed).normal(size=len(ENERGY))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(240, len(ENERGY) - 10),
    st.integers(1, WIDEST),
    st.sampled_from([-0.1, 0.05, 0.2]),
)
def test_a_glitch_goes_and_only_it(seed, at, width, size):
    mu = noisy(seed)
    broken = mu.copy()
    broken[at : at + width] += size
    mended, removed = deglitch(ENERGY, broken, EDGE, THRESHOLD)
    assert removed == tuple(ENERGY[at : at + width])
    outside = np.delete(np.arange(len(ENERGY)), np.arange(at, at + width))
    np.testing.assert_array_equal(mended[outside], mu[outside])
    np.testing.assert_allclose(mended, curve(ENERGY), atol=0.01)


def test_noise_is_no_glitch():
    lost = [len(deglitch(ENERGY, noisy(seed, 5e-3), EDGE, THRESHOLD)[1]) for seed in range(50)]
    assert sum(lost) == 0


def test_the_edge_is_left_alone():
    mu = noisy(0)
    near = np.flatnonzero((EDGE + EDGE_REGION[0] < ENERGY) & (EDGE + EDGE_REGION[1] > ENERGY))
    mu[near[::9]] += 0.2
    mended, removed = deglitch(ENERGY, mu, EDGE, THRESHOLD)
    assert removed == ()
    assert mended is mu


def test_what_is_wider_is_left_alone():
    mu = noisy(0)
    mu[300:306] += 0.2
    assert deglitch(ENERGY, mu, EDGE, THRESHOLD)[1] == ()


def test_a_spectrum_full_of_spikes_is_refused():
    mu = noisy(0)
    mu[250::12] += 0.2
    assert deglitch(ENERGY, mu, EDGE, THRESHOLD) is None


def test_short_and_flat_scans():
    for mu in (np.ones(400), np.zeros(400), np.arange(400.0)):
        assert deglitch(np.arange(9000.0, 9400.0), mu, EDGE, THRESHOLD)[1] == ()
    assert deglitch(ENERGY[:20], noisy(0)[:20], EDGE, THRESHOLD)[1] == ()


@pytest.mark.measured
def test_hardly_anything_goes_from_measured_spectra(data):
    """40 of 49,629 points as this was written; those of one sample come again scan by scan."""
    points = lost = spectra = 0
    for path in sorted((data / "xas").glob("*/*.xdi")):
        for sweep in sweeps_of_file(path, Analysis().adapter):
            for one in Preparation().spectra(sweep, Analysis()):
                if not isinstance(one, Spectrum) or one.id.channel == "reference":
                    continue
                position = edges.edge_energy(one.id.edge.element, one.id.edge.edge)
                mended, removed = deglitch(one.energy, one.mu, position, THRESHOLD)
                points, lost, spectra = (
                    points + len(one.mu), lost + len(removed), spectra + bool(removed)
                )  # fmt: skip
                near = np.abs(one.energy - position) < 50
                np.testing.assert_array_equal(mended[near], one.mu[near])
    assert points > 40_000
    assert lost < 0.0012 * points
    assert spectra < 30

"""Columns and pre-edge ranges that cannot be right, by the spectra themselves."""

import numpy as np
import pytest

from exafsd.contract.vocabulary import Flag
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, ReducedSpectrum, Run, Sweep
from reducing import Preparation, Reducing
from synthetic import foil

RUN = Run(uid="run", edges=(Edge("Cu", "K"),))
ENERGY, FOIL = foil(800, noise=1e-4)
SAMPLE = foil(800, noise=1e-4, e0=8983.0, seed=1)[1]
MONITOR = 1e6 * (1 - 1e-4 * (ENERGY - ENERGY[0]) + 0.01 * np.sin(ENERGY / 90))


def flags(signals, energy=ENERGY, number=1, reducing=None):
    """Flags of the first channel of a sweep."""
    (reducing, preparation) = reducing or (Reducing(), Preparation())
    sweep = Sweep(RUN, "primary", number, energy, signals)
    spectrum, *_ = preparation.spectra(sweep, Analysis())
    (reduced,) = reducing.reduce([spectrum])
    assert isinstance(reduced, ReducedSpectrum), reduced
    return {*reduced.quality}


@pytest.mark.parametrize("channel", ["it", "iff"])
def test_counts_behind_the_sample_that_are_taken_for_i0(channel, data_of_channel):
    right, wrong = data_of_channel[channel]
    assert Flag.I0_LIKE_MU not in flags(right)
    assert Flag.I0_LIKE_MU in flags(wrong)
    assert Flag.I0_LIKE_MU in flags(
        {name: counts[::-1] for name, counts in wrong.items()}, ENERGY[::-1]
    )


@pytest.fixture
def data_of_channel():
    behind = MONITOR * np.exp(-SAMPLE)
    fluorescence = MONITOR * (0.001 + 0.02 * SAMPLE)
    return {
        "it": (
            {"i0": MONITOR, "it": behind},
            {"i0": behind, "it": behind * np.exp(-FOIL)},  # one column to the right
        ),
        "iff": ({"i0": MONITOR, "iff": fluorescence}, {"i0": behind, "iff": fluorescence}),
    }


def test_the_first_whole_sweep_decides_for_the_columns_of_its_run():
    wrong = {"i0": MONITOR * np.exp(-SAMPLE), "it": MONITOR * np.exp(-SAMPLE - FOIL)}
    reducing = Reducing(), Preparation()
    for number in (1, 2, 3):
        assert Flag.I0_LIKE_MU in flags(wrong, number=number, reducing=reducing)


@pytest.mark.parametrize(("edge_before", "off"), [(0.0, False), (0.02, True)])
def test_an_edge_in_the_pre_edge_range_moves_the_line_off_mu(edge_before, off):
    energy, mu = foil(1200, noise=1e-4, low=8100.0)
    mu = mu + edge_before * 2.0 * 3 * (0.5 + np.arctan(energy - 8333.0) / np.pi)
    assert (Flag.PRE_EDGE_OFF in flags({"mutrans": mu}, energy)) == off

"""Energies that never repeat: nothing is compiled for them, and the numbers are the same."""

from dataclasses import replace

import numpy as np
import pytest
from test_plan import difference, larch
from test_rebin import EDGE, curve, swung

from exafsd.contract import Autobk, Recipe
from exafsd.reduction.clamps import lowest
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.engine import reduce_mu
from exafsd.reduction.plan import Plan
from exafsd.settings.analysis import Analysis, Rebin, Reduction
from exafsd.spectra import Edge, Run, Spectrum, SpectrumId, Sweep
from reducing import Preparation, Reducing, sweeps_of_file
from synthetic import foil

RUN = Run("r", edges=(Edge("Cu", "K"),))
E0 = 8979.0


@pytest.mark.parametrize("points", [120, 400, 4000])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(autobk=Autobk(kmax=12.03, clamp_lo=1.0, nclamp=5)),
        Recipe(autobk=Autobk(clamp_hi=0.0)),
        Recipe(autobk=Autobk(kweight=0, rbkg=0.02)),
    ],
)
def test_a_plan_for_one_use_gives_what_a_compiled_one_gives(points, recipe):
    energy, mu = foil(points, noise=1e-3)
    once = Plan.compile(energy, E0, recipe, once=True).reduce(mu[None])
    often = Plan.compile(energy, E0, recipe).reduce(np.stack([mu, mu]))
    for name in ("chi", "norm", "flat", "chir_mag"):
        expected = getattr(often, name)[0]
        limit = 1e-9 * np.abs(expected).max()
        np.testing.assert_allclose(getattr(once, name)[0], expected, atol=limit)
    for name in ("edge_step", "edge_step_std", "epsilon_k", "objective"):
        assert getattr(once, name)[0] == pytest.approx(getattr(often, name)[0], rel=1e-7)


def test_the_clamps_of_one_spectrum_are_those_of_many():
    rng = np.random.default_rng(0)
    q0, rest = 10.0 ** rng.uniform(-8, 4, 200), 10.0 ** rng.uniform(-9, 2, 200)
    u2, strength = 10.0 ** rng.uniform(-9, 3, (200, 3)), np.array([0.3, 1e-2, 1e-6])
    x, objective = lowest(q0, rest, u2, strength, 10 / 60)
    for i in range(200):
        own = lowest(q0[[i]], rest[[i]], u2[[i]], strength, 10 / 60)
        assert own[0][0] == pytest.approx(x[i], rel=1e-6)
        assert own[1][0] == pytest.approx(objective[i], rel=1e-12)


def spectrum_on(energy, number):
    mu = np.interp(energy, *foil(4000))
    sweep = Sweep(RUN, "primary", number, energy, {})
    return Spectrum(SpectrumId(sweep, "transmission", RUN.edges[0]), energy, mu)


def test_nothing_is_compiled_for_energies_that_come_once():
    rng, reducing = np.random.default_rng(0), Reducing()
    energy, _ = foil(400)
    for number in range(5):
        own = energy + rng.normal(0, 0.02, len(energy))
        (one,) = reducing.reduce([spectrum_on(own, number)])
        again = reduce_mu(own, one.norm, Recipe(), one.e0)
        np.testing.assert_allclose(one.chi, again.chi, atol=1e-3 * np.abs(one.chi).max())
    plans = reducing.reducer._plans
    assert plans.compiled == 0
    for number in range(5, 9):
        reducing.reduce([spectrum_on(energy, number)])
    assert plans.compiled == 1
    reducing.reduce([spectrum_on(energy + 0.5, number) for number in range(9, 12)])
    assert plans.compiled == 2  # of several at once one is compiled at once


def array_sweep(number, energy, **more):
    direction = "down" if number % 2 else "up"
    energy = energy[::-1] if number % 2 else energy
    return Sweep(RUN, "primary", number, energy, {"mutrans": curve(energy)}, direction, **more)


def rebinned(preparation, sweep, **reduction):
    settings = Analysis(reduction=Reduction(channels=("transmission",), **reduction))
    (one,) = preparation.spectra(sweep, settings)
    return one.raw is not None


def test_arrays_of_an_encoder_are_rebinned_as_its_stream_is():
    preparation, stream = Preparation(), Preparation()
    for number in range(1, 8):
        energy, _ = swung(4000, number)
        sweep = array_sweep(number, energy)
        # of each direction the first has nothing to differ from
        assert rebinned(preparation, sweep) == (number > 2)
        assert rebinned(stream, replace(sweep, flown=True))
    of_arrays, of_stream = (
        one.spectra(sweep, Analysis(reduction=Reduction(channels=("transmission",))))[0]
        for one, sweep in ((preparation, sweep), (stream, replace(sweep, flown=True)))
    )
    shared = np.isin(of_arrays.energy, of_stream.energy)
    assert shared.mean() > 0.9
    np.testing.assert_allclose(
        of_arrays.mu[shared], of_stream.mu[np.isin(of_stream.energy, of_arrays.energy)]
    )


def test_arrays_with_the_same_energies_stay_as_they_are():
    preparation = Preparation()
    up, _ = swung(4000, 1)
    down = up + 0.3  # the play of a gear
    for number in range(1, 9):
        energy = down if number % 2 else up
        if number == 5:
            energy = np.delete(energy, [100, 2000])
        assert not rebinned(preparation, array_sweep(number, energy))
    short = up[up < EDGE + 300]
    assert not rebinned(preparation, array_sweep(10, short))
    assert not rebinned(preparation, array_sweep(12, swung(4000, 2)[0], flags=("partial",)))
    assert not rebinned(Preparation(), array_sweep(2, up), rebin=Rebin(method="off"))


@pytest.mark.measured
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_parity_of_measured_spectra_on_energies_of_an_encoder(data):
    """Every fifth, with twice its points, each moved by a tenth of the step."""
    parity, rng = [], np.random.default_rng(0)
    for path in sorted((data / "xas").glob("*/*.xdi"))[::5]:
        analysis = Analysis()
        for sweep in sweeps_of_file(path, analysis.adapter):
            for spectrum in Preparation().spectra(sweep, analysis):
                if not isinstance(spectrum, Spectrum) or spectrum.energy[-1] < 300:
                    continue
                step = np.diff(spectrum.energy)
                between = spectrum.energy[:-1] + 0.5 * step
                energy = np.sort(np.concatenate([spectrum.energy[:-1], between]))
                energy[1:-1] += 0.1 * rng.uniform(-1, 1, len(energy) - 2) * np.repeat(step, 2)[1:-1]
                mu = np.interp(energy, spectrum.energy, spectrum.mu)
                mu += 1e-4 * np.ptp(mu) * rng.normal(size=len(mu))
                try:
                    group = larch(energy, mu, Recipe(), find_e0(energy, mu))
                    reduced = reduce_mu(energy, mu, Recipe(), group.e0)
                except (ValueError, TypeError, IndexError):
                    continue
                if reduced.k_data[1] >= 8:
                    parity.append(difference(reduced.chi, group))
    assert len(parity) > 15
    assert np.median(parity) < 1e-6
    assert np.mean(np.array(parity) <= 1e-4) >= 0.9

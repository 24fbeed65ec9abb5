"""From a sweep to spectra: what is done in which order, what is said, and what is remembered."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebin import EDGE, curve, swung

from exafsd.contract.vocabulary import Reason
from exafsd.reduction.preparation import refuse
from exafsd.settings.analysis import (
    Analysis,
    Average,
    Calibration,
    Quality,
    Rebin,
    Reduction,
    adapter,
)
from exafsd.spectra import Edge, Rejected, Run, Spectrum, SpectrumError, Sweep
from reducing import Preparation, analysed, sweeps_of_file

RUN = Run("r", edges=(Edge("Cu", "K"),))
OFF = Rebin(method="off")


def a_sweep(number=1, points=4000, seed=None, shift=0.0, noise=1e-3, flown=True, run=RUN, **kws):
    energy, mu = swung(points, number if seed is None else seed, noise, shift=shift)
    it = 1e5 * np.exp(-mu)
    signals = {"i0": np.full(len(mu), 1e5), "it": it, "ir": it * np.exp(-curve(energy + shift))}
    if number % 2:
        energy, signals = energy[::-1], {name: column[::-1] for name, column in signals.items()}
    direction = "down" if number % 2 else "up"
    return Sweep(
        run, "primary", number, energy, signals, direction=direction, flown=flown, **kws
    )  # fmt: skip


def analysis(**kws):
    return Analysis(reduction=Reduction(channels=("transmission",), **kws))


def spectrum(sweep, settings, preparation=None):
    (one,) = (preparation or Preparation()).spectra(sweep, settings)
    assert isinstance(one, Spectrum), one
    return one


def test_with_all_off_the_measured_points_come_out():
    sweep = a_sweep(2, flown=False)
    for without in (analysis(rebin=OFF), analysis()):
        one = spectrum(sweep, without)
        assert np.shares_memory(one.energy, sweep.energy)
        np.testing.assert_array_equal(one.mu, np.log(1e5 / sweep.signals["it"]))
        assert (one.raw, one.energy_shift, one.removed, one.averaged) == (None, None, (), None)
        assert one.quality == ()


def test_auto_rebins_what_was_flown_and_has_the_points():
    assert len(spectrum(a_sweep(1, 300), analysis()).energy) < 300  # too few to be averaged
    assert spectrum(a_sweep(1, flown=False), analysis()).raw is None
    one = spectrum(a_sweep(1), analysis())
    assert 300 < len(one.energy) < 600
    np.testing.assert_allclose(one.raw[0], np.sort(a_sweep(1).energy))
    far = np.abs(one.energy - EDGE) > 20
    np.testing.assert_allclose(one.mu[far], curve(one.energy)[far], atol=5e-3)


def test_few_points_of_an_encoder_come_onto_the_energies_of_the_first_sweep():
    preparation, grids = Preparation(), set()
    for number in range(1, 30):
        one = spectrum(a_sweep(number, 300, noise=0.0), analysis(), preparation)
        energy, mu = one.raw
        if number == 1:  # the first is as it was measured
            same = np.isin(energy, one.energy)
            assert same.sum() == len(one.energy)
            np.testing.assert_allclose(one.mu, mu[same], rtol=1e-12)
        grids.add(one.energy.tobytes())
        far = np.abs(one.energy - EDGE) > 100  # 300 points do not resolve the edge itself
        np.testing.assert_allclose(one.mu[far], curve(one.energy)[far], atol=5e-3)
    assert len(grids) <= 4  # and not 29: of some the last points are missing


@pytest.mark.parametrize("method", ["boxcar", "gaussian"])
def test_all_sweeps_of_a_run_come_onto_one_grid(method):
    preparation, settings = Preparation(), analysis(rebin=Rebin(method=method))
    grids = {
        spectrum(a_sweep(number), settings, preparation).energy.tobytes() for number in range(1, 20)
    }
    assert len(grids) == 1


def test_what_cannot_be_rebinned_is_said():
    sparse = a_sweep(1, 300)
    one = spectrum(sparse, analysis(rebin=Rebin(method="boxcar")))
    assert one.quality == ("rebin_sparse",)
    assert one.raw is None
    energy, mu = swung(4000, 1)
    gap = np.abs(energy - 9100) > 1.2
    holed = Sweep(RUN, "primary", 1, energy[gap], {"mutrans": mu[gap]}, flown=True)
    assert spectrum(holed, analysis()).quality == ("rebin_filled",)
    (refused,) = Preparation().spectra(a_sweep(1), analysis(rebin=Rebin(xanes=(9.0, -9.0))))
    assert isinstance(refused, Rejected)
    assert refused.error.reason == "bad_settings"


def test_a_stump_does_not_decide_the_grid():
    preparation, settings = Preparation(), analysis()
    energy, mu = swung(4000, 1)
    stump = Sweep(
        RUN, "primary", 1, energy[:2600], {"mutrans": mu[:2600]}, flown=True, flags=("partial",)
    )
    short = spectrum(stump, settings, preparation)
    long = spectrum(a_sweep(2), settings, preparation)
    assert len(long.energy) > len(short.energy) + 50
    np.testing.assert_array_equal(long.energy, spectrum(a_sweep(2), settings).energy)


def test_glitches_are_named():
    settings = analysis(rebin=OFF, quality=Quality(deglitch=10.0))
    energy = np.linspace(8800, 9900, 600)
    mu = curve(energy) + 1e-4 * np.random.default_rng(0).normal(size=600)
    mu[400] += 0.3
    sweep = Sweep(RUN, "primary", 1, energy, {"mutrans": mu})
    one = spectrum(sweep, settings)
    assert one.quality == ("deglitched",)
    assert one.removed == (energy[400],)
    assert abs(one.mu[400] - curve(energy)[400]) < 0.01
    mu[200::18] += 0.3
    assert spectrum(sweep, settings).quality == ("glitchy",)
    assert spectrum(sweep, analysis(rebin=OFF)).quality == ()  # off by default


def test_dim_and_saturated_signals_are_flagged():
    dim = Analysis(adapter=adapter(low_flux={"i0": 2e5, "ir": 1.0}, saturation={"i0": 1e5}))
    spectra = Preparation().spectra(a_sweep(1, flown=False), dim)
    assert [one.quality for one in spectra] == [("saturated_i0", "low_flux_i0"), ()]
    bright = Analysis(adapter=adapter(low_flux={"i0": 9e4}))
    assert Preparation().spectra(a_sweep(1, flown=False), bright)[0].quality == ()


def test_jitter_of_an_encoder_is_no_disorder():
    """Every third step backwards where the mono is slow; another order is disorder."""
    rng = np.random.default_rng(0)
    energy, mu = swung(8000, 1)
    read = energy + rng.normal(0, 0.3, len(energy))
    assert np.mean(np.diff(read) < 0) > 0.2
    for points in (slice(None), slice(None, None, -1)):
        sweep = Sweep(RUN, "primary", 1, read[points], {"mutrans": mu[points]}, flown=True)
        assert "energy_unsorted" not in spectrum(sweep, analysis()).quality
    order = np.concatenate([np.arange(0, 8000, 2), np.arange(1, 8000, 2)])
    order = order[order < len(energy)]
    sweep = Sweep(RUN, "primary", 1, energy[order], {"mutrans": mu[order]})
    assert "energy_unsorted" in spectrum(sweep, analysis()).quality


ALL = analysis(
    calibration=Calibration(source="foil", jump=0.3),
    average=Average(n=3),
    quality=Quality(deglitch=10.0),
)


def summary(items):
    return [
        (one.id.sweep.number, one.averaged, one.quality, one.energy.tobytes(), one.mu.tobytes())
        if isinstance(one, Spectrum)
        else (one.id.sweep.number, one.error.reason)
        for one in items
    ]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(["good", "moved", "dark", "short", "broken"]), min_size=1, max_size=8)
)
def test_other_runs_and_refusals_leave_no_trace(kinds):
    """The same sweeps give the same bytes, alone or between those of another run."""
    alone, among = Preparation(), Preparation()
    for number, kind in enumerate(kinds, start=1):
        sweep = a_sweep(number, points=2500, shift=2.0 if kind == "moved" else 0.01 * number)
        if kind == "dark":
            sweep = replace(sweep, signals={**sweep.signals, "ir": 0 * sweep.signals["ir"]})
        if kind == "short":
            sweep = replace(sweep, flags=("partial",))
        if kind == "broken":
            sweep = replace(sweep, broken=SpectrumError("asset_missing", "late"))
        among.spectra(a_sweep(number, points=2500, shift=-1.0, run=replace(RUN, uid="other")), ALL)
        list(refuse(analysed(a_sweep(number), ALL), SpectrumError(Reason.OVERLOAD, "too slow")))
        assert summary(alone.spectra(sweep, ALL)) == summary(among.spectra(sweep, ALL))


def test_a_run_is_forgotten_at_its_end():
    preparation = Preparation()
    first = summary(preparation.spectra(a_sweep(2), ALL))
    preparation.spectra(a_sweep(4, shift=3.0), ALL)
    preparation.memories.clear()
    assert summary(preparation.spectra(a_sweep(2), ALL)) == first


def test_refusal_reads_no_data():
    two = replace(RUN, edges=(Edge("Ni", "K"), Edge("Cu", "K")))
    sweep = Sweep(two, "primary", 3, None, {"i0": None, "it": None, "ir": None})
    overload = SpectrumError(Reason.OVERLOAD, "too slow")
    rejections = list(refuse(sweep, overload))
    assert [(one.id.channel, one.id.edge.element, one.error.reason) for one in rejections] == [
        ("transmission", "Ni", "overload"), ("transmission", "Cu", "overload"),
        ("reference", "Ni", "overload"), ("reference", "Cu", "overload"),
    ]  # fmt: skip
    nothing = replace(sweep, run=Run("r"), signals={})
    (one,) = refuse(nothing, overload)
    assert (one.id.edge, one.error.detail) == (Edge("unknown", "unknown"), "too slow")


def test_dark_and_gain_hold_for_files_as_well(tmp_path):
    energy, mu = np.linspace(8800, 9900, 300), curve(np.linspace(8800, 9900, 300))
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["energy"], file["I0"] = energy, np.full(300, 1e5) * 4 + 50
        file["It"] = 1e5 * np.exp(-mu) + 7
        file["a"], file["b"] = 1e4 * mu + 3, 2e4 * mu + 3
        file.attrs["it_dark"], file.attrs["element"], file.attrs["edge"] = 7.0, "Cu", "K"
    names = adapter(iff=["a", "b"], dark={"i0": 50.0, "it": "it_dark", "iff": 3.0}, gain={"i0": 4})
    (sweep,) = sweeps_of_file(path, names)
    transmission, fluorescence = Preparation().spectra(sweep, Analysis(adapter=names))
    np.testing.assert_allclose(transmission.mu, mu, rtol=1e-12)
    np.testing.assert_allclose(fluorescence.mu, 0.3 * mu, rtol=1e-12)
    with pytest.raises(SpectrumError, match=r"scan\.h5.*adapter\.dark\.it"):
        sweeps_of_file(path, adapter(dark={"it": "not_there"}))
    xdi = tmp_path / "scan.xdi"
    header = "# XDI/1.0\n# Element.symbol: Cu\n# Element.edge: K\n# Detector.it_dark: 7\n"
    header += (
        "# Column.1: energy eV\n# Column.2: i0\n# Column.3: it\n# Mono.d_spacing: 3.13\n#---\n"
    )
    rows = np.column_stack([energy, np.full(300, 1e5), 1e5 * np.exp(-mu) + 7])
    xdi.write_text(
        header + "#---\n" + "\n".join(" ".join(f"{v:.12g}" for v in row) for row in rows) + "\n"
    )
    for key in ("XDI.Detector.it_dark", "detector.it_dark"):
        (sweep,) = sweeps_of_file(xdi, adapter(dark={"it": key}))
        np.testing.assert_allclose(spectrum(sweep, analysis()).mu, mu, rtol=1e-8)

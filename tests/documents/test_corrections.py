"""Readings to counts: dark current, gain and delay, in every shape of documents."""

import copy

import numpy as np
import pytest

from documents_in import SWEEPS, feed, problems_of, sweeps_of
from exafsd.documents.corrections import corrections
from exafsd.settings.analysis import Analysis, adapter
from exafsd.spectra import SpectrumError
from simulated import shapes
from synthetic import METADATA

SHAPES = ["events", "event_pages", "array_events", "monitors", "resource_datum", "stream_assets"]
DARK, GAIN = {"i0": 50.0, "it": "detectors.it_dark"}, {"i0": 2.0, "it": "gain_it", "iff": 4.0}


def documents_of(shape, sweeps, folder, **metadata):
    arguments = (folder,) if shape in ("resource_datum", "stream_assets") else ()
    return list(getattr(shapes, shape)(sweeps, {**METADATA, **metadata}, *arguments))


def analysis(**changes):
    return Analysis(adapter=adapter(**changes))


@pytest.mark.parametrize("shape", SHAPES)
def test_dark_and_gain_give_the_counts_back(shape, tmp_path):
    """Readings made from counts, with numbers in the settings and in the metadata."""
    with_two = [(e, {**c, "If": c["Ir"], "if2": 3 * c["Ir"]}, x) for e, c, x in SWEEPS]
    raw = [
        (
            energy,
            {
                "I0": columns["I0"] * 2.0 + 50.0,
                "It": columns["It"] * 1e-3 + 7.0,
                "Ir": columns["Ir"],
                "If": columns["If"] * 4.0,
                "if2": columns["if2"] * 4.0,
            },
            extras,
        )
        for energy, columns, extras in with_two
    ]
    # numbers as strings, as some beamlines write them
    documents = documents_of(shape, raw, tmp_path, detectors={"it_dark": "7.0"}, gain_it=1e-3)
    changed = analysis(dark=DARK, gain=GAIN, iff=["If", "if2"])
    sweeps = sweeps_of(feed(documents, roots=[tmp_path], analysis=changed))
    plain = documents_of(shape, with_two, tmp_path)
    expected = sweeps_of(feed(plain, roots=[tmp_path], analysis=analysis(iff=["If", "if2"])))
    assert len(sweeps) == len(expected) == 4
    for a, b in zip(sweeps, expected, strict=True):
        assert a.broken is None
        assert set(a.signals) == {"i0", "it", "ir", "iff"}
        for name in a.signals:
            np.testing.assert_allclose(a.signals[name], b.signals[name], rtol=1e-9)
        np.testing.assert_array_equal(a.energy, b.energy)


@pytest.mark.parametrize("shape", ["events", "array_events", "monitors"])
@pytest.mark.parametrize("metadata", [{}, {"gain_it": "high"}, {"gain_it": 0}, {"gain_it": [1]}])
def test_a_number_that_the_metadata_lack_rejects_every_sweep(shape, metadata, tmp_path):
    documents = documents_of(shape, SWEEPS, tmp_path, **metadata)
    items = feed(documents, analysis=analysis(gain={"it": "gain_it"}))
    assert {s.broken.reason for s in sweeps_of(items)} == {"bad_settings"}
    assert "gain_it" in sweeps_of(items)[0].broken.detail
    assert [p.reason for p in problems_of(items)] == ["bad_settings"]


def test_corrections_for_those_who_read_files():
    header = {"dark": 3}
    counts = corrections(adapter(dark={"i0": "dark"}, gain={"i0": 2}), header.get)
    np.testing.assert_array_equal(counts.counts("i0", np.array([[3.0, 5.0]])), [[0.0, 1.0]])
    untouched = np.array([1.0])
    assert counts.counts("it", untouched) is untouched
    with pytest.raises(SpectrumError, match="dark"):
        corrections(adapter(dark={"i0": "dark"}), {}.get)


LAG = 7.3  # points


def lagging(sweeps):
    """One pass up and down after the other; It tells the energy `LAG` points before it is read."""
    energy = np.concatenate([e for e, _, _ in sweeps])
    index = np.arange(energy.size)
    columns = {"I0": np.ones(energy.size), "It": np.interp(index - LAG, index, energy)}
    return [(energy, columns, {})]


@pytest.mark.parametrize("shape", ["events", "event_pages", "monitors"])
def test_a_lagging_signal_is_brought_back_to_its_energies(shape, tmp_path):
    documents = documents_of(shape, lagging(SWEEPS), tmp_path)
    late = sweeps_of(feed(documents, analysis=analysis()))
    sweeps = sweeps_of(feed(documents, analysis=analysis(delay={"it": LAG * shapes.DWELL})))
    assert [s.number for s in sweeps] == [1, 2, 3, 4]
    step = SWEEPS[0][0][1] - SWEEPS[0][0][0]
    for sweep, wrong in zip(sweeps, late, strict=True):
        assert "delay_ignored" not in sweep.flags
        inner = slice(10, -10)  # at a turn the energy does not go on in a line
        np.testing.assert_allclose(sweep.signals["it"][inner], sweep.energy[inner], atol=0.01)
        off = np.abs(wrong.signals["it"] - wrong.energy)[inner]
        np.testing.assert_allclose(off, LAG * step, atol=0.01 * step)
    # the last points have no partner, nothing else is lost
    lost = sum(len(s.energy) for s in late) - sum(len(s.energy) for s in sweeps)
    assert LAG - 1 <= lost <= LAG + 2


def test_a_lag_is_the_same_for_pages_of_any_size(tmp_path):
    changed = analysis(delay={"it": 0.0073, "i0": -0.001})
    raw = lagging(SWEEPS)
    whole = sweeps_of(feed(shapes.event_pages(raw, METADATA, 480), analysis=changed))
    for size in (1, 7, 33, 200):
        paged = sweeps_of(feed(shapes.event_pages(raw, METADATA, size), analysis=changed))
        for a, b in zip(whole, paged, strict=True):
            np.testing.assert_array_equal(a.energy, b.energy)
            # the times of two runs differ, and so their rounding
            np.testing.assert_allclose(a.signals["it"], b.signals["it"], atol=0.01)


@pytest.mark.parametrize("shape", ["array_events", "resource_datum", "stream_assets"])
def test_a_lag_without_times_of_points_is_said(shape, tmp_path):
    documents = documents_of(shape, SWEEPS, tmp_path)
    sweeps = sweeps_of(feed(documents, roots=[tmp_path], analysis=analysis(delay={"it": 0.01})))
    assert [s.flags for s in sweeps] == [("delay_ignored",)] * 4
    other = sweeps_of(feed(documents, roots=[tmp_path], analysis=analysis(delay={"iff": 0.01})))
    assert [s.flags for s in other] == [()] * 4


def test_points_without_times_keep_their_lag_and_say_so():
    documents = []
    for name, doc in shapes.events(SWEEPS, METADATA):
        doc = copy.deepcopy(doc)
        if name == "event":  # as the archive gives back rows of a file
            doc["timestamps"] = {}
        documents.append((name, doc))
    sweeps = sweeps_of(feed(documents, analysis=analysis(delay={"it": 0.01})))
    assert [s.flags for s in sweeps] == [("delay_ignored",)] * 4
    np.testing.assert_array_equal(
        sweeps[0].signals["it"], sweeps_of(feed(documents))[0].signals["it"]
    )

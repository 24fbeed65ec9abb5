"""Streams without a shared clock: joined to the slowest, averaged, the same however they come."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents_in import SWEEPS, feed, problems_of, sweeps_of
from exafsd.documents.joiner import READINGS, Joiner
from simulated import shapes
from synthetic import METADATA


def joined(parts, streams, delays=None):
    """Points of `parts`, (stream, columns), concatenated, and the stream that set them."""
    joiner = Joiner()
    for name, roles in streams.items():
        joiner.add_stream(name, roles, delays)
    out = [joiner.push(name, columns) for name, columns in parts]
    out.append(joiner.finish())
    out = [points for points in out if points is not None]
    return {k: np.concatenate([o[k] for o in out]) for k in out[0]}, joiner.base


def chunks(data, name, columns):
    """Parts of a stream, cut at random places."""
    size = len(columns["time"])
    cuts = sorted(data.draw(st.lists(st.integers(1, size - 1), max_size=6)))
    pieces = {key: np.split(array, cuts) for key, array in columns.items()}
    parts = [{k: v[i] for k, v in pieces.items()} for i in range(len(cuts) + 1)]
    return [(name, part) for part in parts if len(part["time"])]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_points_are_the_same_bit_by_bit_however_the_streams_arrive(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    slow, fast = data.draw(st.sampled_from([(0.11, 0.01), (0.11, 0.1), (0.02, 0.13)]))
    t_mono = np.cumsum(rng.uniform(0.5, 1.5, 150)) * slow
    t_det = 0.03 + np.cumsum(rng.uniform(0.5, 1.5, int(150 * slow / fast))) * fast
    mono = {"time": t_mono, "energy": 9000 + rng.normal(size=t_mono.size)}
    det = {"time": t_det, "i0": rng.normal(size=t_det.size)}
    if data.draw(st.booleans()):
        det["i0"][5] = np.nan
    streams = {"mono": ["energy"], "det": ["i0"]}
    whole, base = joined([("mono", mono), ("det", det)], streams)
    queues = [chunks(data, "mono", mono), chunks(data, "det", det)]
    mixed = []
    while any(queues):
        waiting = [q for q in queues if q]
        mixed.append(waiting[data.draw(st.integers(0, len(waiting) - 1))].pop(0))
    again, same = joined(mixed, streams)
    assert same == base
    for key, array in whole.items():
        np.testing.assert_array_equal(again[key], array)


@pytest.mark.parametrize(
    ("mono", "det", "base"), [(10.0, 1000.0, "mono"), (1000.0, 50.0, "det"), (100.0, 105.0, "det")]
)
def test_the_slowest_stream_sets_the_points_and_detectors_do_where_rates_are_alike(mono, det, base):
    t_mono, t_det = np.arange(0, 6, 1 / mono), np.arange(0.001, 6, 1 / det)
    t_mono[0] = t_det[0] = -500.0  # a monitor's first value has been there for long
    points, which = joined(
        [
            ("mono", {"time": t_mono, "energy": 9000 + 10 * t_mono}),
            ("det", {"time": t_det, "i0": 5 * t_det}),
        ],
        {"mono": ["energy"], "det": ["i0"]},
    )
    assert which == base
    inner = points["time"] > 0.5
    np.testing.assert_allclose(points["energy"][inner], 9000 + 10 * points["time"][inner])
    np.testing.assert_allclose(points["i0"][inner], 5 * points["time"][inner], atol=1e-9)
    own = {"mono": t_mono, "det": t_det}[base]
    assert len(points["time"]) >= len(own) - 3


def test_no_counts_are_thrown_away():
    """Shot noise of 100 readings a point falls tenfold, and the counts add up."""
    rng = np.random.default_rng(1)
    t_mono, t_det = np.arange(0, 30, 0.1), np.arange(0, 30, 0.001)
    counts = rng.poisson(1000, t_det.size).astype(float)
    points, base = joined(
        [
            ("det", {"time": t_det, "i0": counts}),
            ("mono", {"time": t_mono, "energy": 9000 + t_mono}),
        ],
        {"det": ["i0"], "mono": ["energy"]},
    )
    assert base == "mono"
    assert np.std(points["i0"][1:-1]) == pytest.approx(np.sqrt(1000) / 10, rel=0.12)
    assert np.mean(points["i0"][1:-1]) * 298 == pytest.approx(
        counts[(t_det > 0.05) & (t_det < 29.85)].sum() / 100, rel=1e-4
    )


def test_a_reading_that_is_no_number_spoils_only_its_own_points():
    t_mono, t_det = np.arange(0, 10, 0.1), np.arange(0, 10, 0.01)
    i0 = np.ones(t_det.size)
    i0[505] = np.nan
    points, _ = joined(
        [
            ("det", {"time": t_det, "i0": i0}),
            ("mono", {"time": t_mono, "energy": 9000 + t_mono}),
        ],
        {"det": ["i0"], "mono": ["energy"]},
    )
    assert np.isnan(points["i0"]).sum() in (1, 2)
    np.testing.assert_allclose(points["i0"][np.isfinite(points["i0"])], 1.0)


def test_a_delayed_signal_is_moved_back_and_one_that_never_came_is_left_out():
    t_mono, t_det = np.arange(0, 10, 0.01), np.arange(0.003, 10, 0.01)
    lag = 0.25
    points, base = joined(
        [
            ("mono", {"time": t_mono, "energy": 9000 + 10 * t_mono}),
            ("det", {"time": t_det, "i0": 5 * t_det, "it": 5 * (t_det - lag)}),
        ],
        {"mono": ["energy"], "det": ["i0", "it"], "dead": ["ir"]},
        delays={"it": lag},
    )
    assert base == "det"
    assert "ir" not in points
    np.testing.assert_allclose(points["i0"], (points["energy"] - 9000) / 2)
    np.testing.assert_allclose(points["it"], points["i0"], atol=1e-9)


def test_readings_that_go_back_in_time_are_left_out():
    time = np.arange(0, 5, 0.01)
    jumps = time.copy()
    jumps[200:210] = 0.5
    jumps[300] = np.nan
    points, _ = joined(
        [
            ("mono", {"time": jumps, "energy": 9000 + time}),
            ("det", {"time": time, "i0": time}),
        ],
        {"mono": ["energy"], "det": ["i0"]},
    )
    np.testing.assert_allclose(points["energy"] - 9000, points["i0"], atol=1e-9)


def test_a_stream_without_partner_holds_a_bounded_number(monkeypatch):
    monkeypatch.setattr("exafsd.documents.joiner.HELD_POINTS", 1000)
    joiner = Joiner()
    joiner.add_stream("mono", ["energy"])
    for i in range(100):
        time = i + np.arange(100) / 100
        assert joiner.push("mono", {"time": time, "energy": time}) is None
    joiner.add_stream("det", ["i0"])
    time = np.linspace(80, 99, 10 * READINGS)
    points = joiner.push("det", {"time": time, "i0": time})
    assert points["time"][0] >= 90


def monitors(**changes):
    return [(n, copy.deepcopy(d)) for n, d in shapes.monitors(SWEEPS, {**METADATA, **changes})]


def test_joined_sweeps_are_flown_and_rows_that_are_missing_flag_theirs():
    whole = sweeps_of(feed(monitors()))
    assert [s.flown for s in whole] == [True] * 4
    assert [s.flags for s in whole] == [()] * 4
    documents, rows = [], 0
    for name, doc in monitors():
        if name == "event" and "I0" in doc["data"]:
            rows += 1
            if 180 < rows < 190:  # in the second sweep
                continue
        documents.append((name, doc))
    items = feed(documents)
    flags = [(), ("gap",), ("renumbered",), ("renumbered",)]
    assert [s.flags for s in sweeps_of(items)] == flags
    assert {p.reason for p in problems_of(items)} == {"gap"}

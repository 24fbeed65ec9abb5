"""Turning points of a noisy encoder: found where they truly are, none invented, live."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents_in import feed, make_router, sweeps_of
from exafsd.documents.splitter import BLOCK, TurningSplitter
from exafsd.spectra import Sweep
from simulated import shapes
from simulated.encoder import Motion, read, score
from synthetic import METADATA

TURN = 20.0
SPAN = 1000.0
DISTURBED = {"backlash": 20.0, "dwell": 0.05, "drift": 0.1, "wobble": 0.05, "phase": 0.4}
MOTIONS = [
    Motion(shape=shape, points=points, **more)
    for shape in ("sine", "triangle")
    for points in (500, 1000, 4000)
    for more in ({}, {"backlash": 5.0}, {"dwell": 0.3}, {"drift": 0.1}, {"wobble": 0.05}, DISTURBED)
] + [
    Motion(shape="sawtooth", points=points, flyback=readings, drift=0.05)
    for points in (500, 4000)
    for readings in (0, 3, 6)
]


def cuts_of(energy, chunks=()):
    splitter = TurningSplitter(TURN)
    parts = []
    for part in np.split(np.asarray(energy, float), list(chunks)):
        parts += splitter.push({"energy": part})
    parts += splitter.finish()
    joined = np.concatenate([part.columns["energy"] for part in parts])
    np.testing.assert_array_equal(joined, energy)  # no point lost, none twice
    return np.cumsum([len(part.columns["energy"]) for part in parts])[:-1]


@pytest.mark.parametrize("share", [0.01, 0.001, 0.00002, 0.0], ids="noise {} of span".format)
def test_turning_points_are_found_to_within_the_noise_and_none_invented(share):
    """3,378 turns for each noise; right is within its standard deviation in true energy."""
    noise = share * SPAN
    turns = right_turns = invented = missed_by_far = 0
    for seed, motion in enumerate(MOTIONS):
        legs = 75_000 // motion.points
        reading = read(Motion(**{**vars(motion), "noise": noise}), legs, seed)
        cuts = cuts_of(reading.energy)
        turns += legs - 1
        right, wrong = score(cuts, reading, max(noise, 2 * SPAN / motion.points))
        right_turns, invented = right_turns + right, invented + wrong
        far, extra = score(cuts, reading, 3 * noise + 3 * SPAN / motion.points)
        missed_by_far += legs - 1 - far + extra
    assert turns > 3000
    assert right_turns >= 0.999 * turns
    assert missed_by_far == 0  # every turn has its cut, and every cut its turn
    assert invented == turns - right_turns  # the cuts that are a little off


def test_the_score_itself_sees_misses_and_inventions():
    reading = read(Motion(points=200), 6)
    truth = reading.turns[:, 0] + 1
    assert score(truth, reading, 5.0) == (5, 0)
    assert score(truth[1:], reading, 5.0) == (4, 0)
    assert score(np.append(truth, truth[-1] + 90), reading, 5.0) == (5, 1)
    assert score(np.sort(np.append(truth, truth + 1)), reading, 5.0) == (5, 5)
    assert score(truth + 40, reading, 5.0) == (0, 5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chunking_cuts_the_same(data):
    motion = Motion(
        shape=data.draw(st.sampled_from(["sine", "triangle", "sawtooth"])),
        points=data.draw(st.integers(30, 400)),
        noise=data.draw(st.sampled_from([0.0, 0.5, 10.0, 60.0])),
        dwell=data.draw(st.sampled_from([0.0, 0.2])),
        flyback=data.draw(st.integers(0, 6)),
    )
    energy = read(motion, data.draw(st.integers(1, 8)), data.draw(st.integers(0, 99))).energy
    for bad in data.draw(st.lists(st.integers(0, energy.size - 1), max_size=5)):
        energy[bad] = data.draw(st.sampled_from([np.nan, np.inf, 0.0, 1e300]))
    chunks = sorted(data.draw(st.lists(st.integers(1, energy.size), max_size=40)))
    np.testing.assert_array_equal(cuts_of(energy), cuts_of(energy, chunks))


@pytest.mark.parametrize("points", [24, 40, 60])
def test_steps_larger_than_the_turn_are_no_obstacle(points):
    up = np.linspace(8800.0, 9800.0, points)  # 17 to 43 eV a step
    both = np.concatenate([up, up[::-1], up])
    np.testing.assert_array_equal(cuts_of(both), [points, 2 * points])
    np.testing.assert_array_equal(cuts_of(np.tile(up, 3)), [points, 2 * points])


def test_glitches_of_the_encoder_and_unsorted_points_are_no_turns():
    rng = np.random.default_rng(0)
    for motion in (Motion(points=800), Motion(points=800, noise=10.0, dwell=0.3)):
        reading = read(motion, 40, 2)
        spoilt = reading.energy.copy()
        at = rng.choice(spoilt.size - 1, 100, replace=False)
        spoilt[at] = spoilt[at + 1] = rng.choice([0.0, 1e5, np.nan], 100)
        assert score(cuts_of(spoilt), reading, max(motion.noise * 2, 10.0)) == (39, 0)
    for seed in range(20):
        points = int(rng.integers(50, 2000))
        shuffled = np.random.default_rng(seed).permutation(np.linspace(8800, 9800, points))
        assert len(cuts_of(shuffled)) == 0


def test_a_monochromator_that_rests_gives_no_sweep_and_does_not_fill_the_memory(monkeypatch):
    rng = np.random.default_rng(5)
    still = 9000.0 + rng.normal(0, 10.0, 200_000)
    assert len(cuts_of(still)) == 0
    monkeypatch.setattr("exafsd.documents.splitter.LONGEST", 5000)
    expected = np.arange(5000, 200_000, 5000)
    np.testing.assert_array_equal(cuts_of(still), expected)
    np.testing.assert_array_equal(cuts_of(still, range(777, 200_000, 777)), expected)


def documents_of(motion, legs, seed=0, page=None):
    """Documents of one run over an encoder, whose events are 0.5 ms apart."""
    reading = read(motion, legs, seed)
    signals = {"I0": np.full(reading.energy.size, 1e6), "It": 1e6 - 50 * (reading.truth - 8800)}
    sweep = (reading.energy, signals, {})
    if page is None:
        return reading, list(shapes.events([sweep], METADATA))
    return reading, list(shapes.event_pages([sweep], METADATA, page))


def test_each_sweep_comes_while_the_run_goes_on_with_its_direction():
    motion = Motion(points=400, noise=10.0)
    _, documents = documents_of(motion, 8)
    router = make_router()
    late = []
    read_so_far, sweeps = 0, []
    for name, document in documents:
        read_so_far += name == "event"
        for item in router.feed(name, document):
            if isinstance(item, Sweep):
                sweeps.append(item)
                late.append(read_so_far - sum(len(s.energy) for s in sweeps))
    assert [s.direction for s in sweeps] == ["up", "down"] * 4
    assert all(s.flown for s in sweeps)
    assert [s.number for s in sweeps] == list(range(1, 9))
    # the first waits for the second; a sine needs 64 of 400 points to come back by 6 % of its span
    assert max(late[1:-1]) < 64 + 2 * BLOCK + 20


def test_events_received_together_or_apart_give_the_same_sweeps():
    _, documents = documents_of(Motion(points=400, noise=10.0), 6)

    def cut(together):
        router = make_router()
        return [
            item
            for i, (name, document) in enumerate(documents)
            for item in router.feed(name, document, received=float(i // together))
            if isinstance(item, Sweep)
        ]

    apart = cut(1)
    assert len(apart) == 6
    for together in (7, 100, 2000):
        for one, other in zip(cut(together), apart, strict=True):
            np.testing.assert_array_equal(one.energy, other.energy)
            assert one.number == other.number


def test_partial_first_and_last_sweeps_are_flagged():
    motion = Motion(points=500, noise=10.0, phase=0.6)
    _, documents = documents_of(motion, 6)
    stop_early = [d for d in documents if d[0] != "event"]
    events = [d for d in documents if d[0] == "event"][:-200]
    sweeps = sweeps_of(feed([*stop_early[:2], *events, stop_early[-1]]))
    assert [s.flags for s in sweeps] == [("partial",), (), (), (), (), ("partial",)]
    whole = sweeps_of(feed(documents_of(Motion(points=500, noise=10.0), 6)[1]))
    assert [s.flags for s in whole] == [()] * 6


def test_an_amplitude_that_has_changed_flags_no_sweep_for_ever():
    wide, narrow = read(Motion(points=300), 6).energy, read(Motion(points=300, high=9500.0), 20)
    energy = np.concatenate([wide, narrow.energy])
    signals = {"I0": np.ones(energy.size), "It": np.ones(energy.size)}
    sweeps = sweeps_of(feed(shapes.event_pages([(energy, signals, {})], METADATA)))
    flagged = [s.number for s in sweeps if "partial" in s.flags]
    assert flagged == list(range(7, 7 + 8))[: len(flagged)]
    assert len(flagged) < 9


def test_a_slow_scan_is_not_held_back(monkeypatch):
    monkeypatch.setattr("exafsd.documents.stream.HELD_SECONDS", 0.1)  # points are 1 ms apart
    _, documents = documents_of(Motion(points=400), 3)
    router = make_router()
    arrivals = []
    for i, (name, document) in enumerate(documents):
        arrivals += [i for item in router.feed(name, document) if isinstance(item, Sweep)]
    assert arrivals[0] < 600


def test_one_step_scan_is_not_flown():
    energy = np.concatenate([np.arange(8800.0, 8960.0, 10), np.arange(8960.0, 9100.0, 0.5)])
    columns = {"I0": np.ones(energy.size), "It": np.ones(energy.size)}
    (sweep,) = sweeps_of(feed(shapes.events([(energy, columns, {})], METADATA)))
    assert not sweep.flown
    assert sweep.flags == ()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3000))
def test_pages_of_any_size_give_the_sweeps_of_a_noisy_encoder(size):
    motion = Motion(points=300, noise=10.0, **DISTURBED)
    whole = sweeps_of(feed(documents_of(motion, 6, page=5000)[1]))
    paged = sweeps_of(feed(documents_of(motion, 6, page=size)[1]))
    for a, b in zip(whole, paged, strict=True):
        np.testing.assert_array_equal(a.energy, b.energy)
        np.testing.assert_array_equal(a.signals["it"], b.signals["it"])
        assert (a.number, a.direction, a.flags, a.flown) == (
            b.number,
            b.direction,
            b.flags,
            b.flown,
        )

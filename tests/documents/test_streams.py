"""Streams as beamlines have them: measured again, described anew, from 0, with inverted signs."""

import time

import numpy as np
import pytest
from event_model import compose_run

from documents_in import feed, problems_of, sweeps_of
from exafsd.contract.vocabulary import Flag, Problem
from exafsd.documents.energy import HC
from exafsd.settings.analysis import Analysis, adapter
from synthetic import METADATA, sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=120)
I0, IT = COLUMNS["I0"], COLUMNS["It"]
NUMBERS = np.arange(1, 121)


def key(units="", shape=()):
    dtype = "array" if shape else "number"
    return {"source": "x", "dtype": dtype, "shape": list(shape), "units": units}


KEYS = {"energy": key("eV"), "I0": key(), "It": key()}


class Plan:
    """Documents of a run, event by event."""

    def __init__(self, **metadata):
        self.run = compose_run(metadata={**METADATA, **metadata})
        self.documents = [("start", self.run.start_doc)]

    def stream(self, keys=KEYS, name="primary", **more):
        stream = self.run.compose_descriptor(name=name, data_keys=keys, **more)
        self.documents.append(("descriptor", stream.descriptor_doc))
        return stream

    def event(self, stream, seq, data, at=None):
        event = stream.compose_event(
            data=data, timestamps=dict.fromkeys(data, at or time.time()), validate=False
        )
        at = {} if at is None else {"time": at}
        self.documents.append(("event", {**event, "seq_num": int(seq), **at}))

    def points(self, stream, seqs, energy=ENERGY, i0=I0, it=IT, names=("energy", "I0", "It")):
        for seq in seqs:
            values = (energy[seq - 1], i0[seq - 1], it[seq - 1])
            self.event(stream, seq, dict(zip(names, map(float, values), strict=True)))

    def page(self, stream, seqs, **columns):
        data = {name: [float(values[n - 1]) for n in seqs] for name, values in columns.items()}
        page = stream.compose_event_page(
            data=data, timestamps={n: [0.0] * len(seqs) for n in data},
            seq_num=list(map(int, seqs)), time=[0.0] * len(seqs), validate=False,
        )  # fmt: skip
        self.documents.append(("event_page", page))

    def stopped(self):
        """Documents with a stop, which counts numbers, not documents."""
        numbers = [d["seq_num"] for name, d in self.documents if name == "event"]
        stop = self.run.compose_stop()
        if len(stop["num_events"]) == 1 and numbers:
            stop["num_events"] = {"primary": len(set(numbers))}
        return [*self.documents, ("stop", stop)]


def whole(sweep, energy=ENERGY, i0=I0, it=IT):
    np.testing.assert_allclose(sweep.energy, energy, atol=1e-6)
    np.testing.assert_allclose(sweep.signals["i0"], i0)
    np.testing.assert_allclose(sweep.signals["it"], it)


DARK = np.where((NUMBERS > 50) & (NUMBERS < 70), 3.0, I0)


@pytest.mark.parametrize("first", [range(51, 60), range(51, 52), range(40, 70)])
def test_after_a_rewind_the_later_readings_count(first):
    plan = Plan()
    stream = plan.stream()
    plan.points(stream, range(1, first[0]))
    plan.points(stream, first, i0=DARK)  # no beam; then the plan goes back to its checkpoint
    plan.points(stream, range(first[0], 121))
    items = feed(plan.stopped())
    (sweep,) = sweeps_of(items)
    whole(sweep)
    assert sweep.flags == () and sweep.revision == 1
    assert problems_of(items) == []


def test_a_rewind_in_pages(seqs=((1, 80), (60, 100), (90, 121))):
    plan = Plan()
    stream = plan.stream()
    for i, (begin, end) in enumerate(seqs):
        bad = I0 if i == len(seqs) - 1 else np.where(seqs[i + 1][0] <= NUMBERS, 3.0, I0)
        plan.page(stream, range(begin, end), energy=ENERGY, I0=bad, It=IT)
    (sweep,) = sweeps_of(feed(plan.stopped()))
    whole(sweep)


def test_a_sweep_that_is_out_is_given_out_again_as_a_revision():
    up, n = np.concatenate([ENERGY, ENERGY[::-1], ENERGY]), 120
    i0, it = np.tile(I0, 3), np.concatenate([IT, IT[::-1], IT])
    bad = np.where(np.arange(3 * n) == 238, 3.0, i0)  # the end of the second sweep
    plan = Plan()
    stream = plan.stream()
    plan.points(stream, range(1, 301), energy=up, i0=bad, it=it)
    plan.points(stream, range(235, 361), energy=up, i0=i0, it=it)
    items = feed(plan.stopped())
    sweeps = sweeps_of(items)
    assert [(s.number, s.revision) for s in sweeps] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert 3.0 in sweeps[1].signals["i0"]
    assert not any(3.0 in s.signals["i0"] for s in (sweeps[2], sweeps[3]))
    assert len(sweeps[1].energy) == len(sweeps[2].energy)
    assert problems_of(items) == []


@pytest.mark.parametrize("apart", [True, False])
def test_where_the_later_reading_cannot_count_the_sweep_is_flagged(apart):
    plan = Plan()
    names = [["energy"], ["I0", "It"]] if apart else [["energy", "I0", "It"]]
    streams = [
        plan.stream({n: KEYS[n] for n in part}, name=f"s{i}") for i, part in enumerate(names)
    ]
    rows = [*range(1, 61), *range(50, 121)]
    for place, seq in enumerate(rows):
        values = {"energy": ENERGY[seq - 1], "I0": I0[seq - 1], "It": IT[seq - 1]}
        for stream, part in zip(streams, names, strict=True):
            data = {name: float(values[name]) for name in part}
            plan.event(stream, seq, data, at=1e9 + 0.1 * place)
    delayed = adapter() if apart else adapter(delay={"it": 0.01})
    items = feed(plan.stopped(), analysis=Analysis(adapter=delayed))
    assert any(Flag.REMEASURED in sweep.flags for sweep in sweeps_of(items))
    assert Problem.REPEATED in {problem.reason for problem in problems_of(items)}


def test_what_only_came_twice_is_told_and_nothing_is_given_out_again():
    plan = Plan()
    stream = plan.stream()
    plan.points(stream, range(1, 121))
    repeated = [d for d in plan.documents if d[0] == "event"][40:60]
    items = feed([*plan.documents, *repeated, ("stop", plan.run.compose_stop())])
    (sweep,) = sweeps_of(items)
    whole(sweep)
    assert {p.reason for p in problems_of(items)} == {Problem.REPEATED}


ARRAYS = {"energy": key("eV", (120,)), "I0": key("", (120,)), "It": key("", (120,))}


def test_a_row_that_is_measured_again_is_a_revision_of_its_sweep():
    plan = Plan()
    stream = plan.stream(ARRAYS)
    for seq, it in ((1, IT), (2, IT * 0.5), (2, IT), (3, IT), (2, IT)):
        plan.event(stream, seq, {"energy": ENERGY, "I0": I0, "It": it})
    items = feed(plan.stopped())
    revisions = [(s.number, s.revision) for s in sweeps_of(items)]
    assert revisions == [(1, 1), (2, 1), (2, 2), (3, 1)]  # the last one only came twice
    whole(sweeps_of(items)[2])
    assert [p.reason for p in problems_of(items)] == [Problem.REPEATED]


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_may_begin_at_0(first):
    plan = Plan()
    stream = plan.stream()
    for n in range(120):
        values = {"energy": ENERGY[n], "I0": I0[n], "It": IT[n]}
        plan.event(stream, n + first, {name: float(value) for name, value in values.items()})
    items = feed(plan.stopped())
    whole(sweeps_of(items)[0])
    assert problems_of(items) == []
    rows = Plan()
    stream = rows.stream(ARRAYS)
    for seq in (first, first + 1):
        rows.event(stream, seq, {"energy": ENERGY, "I0": I0, "It": IT})
    assert [s.number for s in sweeps_of(feed(rows.stopped()))] == [first, first + 1]


@pytest.mark.parametrize("as_one", [lambda x: [x], lambda x: np.array([x]), lambda x: (x,)])
def test_scalars_may_come_as_arrays_of_one(as_one):
    keys = {"energy": key("eV", (1,)), "I0": key("", (1,)), "It": key("", (1,))}
    plan = Plan()
    stream = plan.stream(keys)
    for n in range(120):
        data = {"energy": as_one(ENERGY[n]), "I0": as_one(I0[n]), "It": as_one(IT[n])}
        plan.event(stream, n + 1, data)
    items = feed(plan.stopped())
    whole(sweeps_of(items)[0])
    assert problems_of(items) == []


def test_a_stream_described_anew_keeps_each_row_under_its_own_descriptor():
    plan = Plan()
    kev = {**KEYS, "energy": key("keV")}
    first = plan.stream()
    plan.points(first, range(1, 50))
    second = plan.stream(kev)
    plan.points(second, range(50, 70), energy=ENERGY / 1e3)
    plan.points(first, range(70, 75))  # an event that was on its way
    plan.points(second, range(75, 100), energy=ENERGY / 1e3)
    plan.points(plan.stream(), range(100, 121))
    items = feed(plan.stopped())
    (sweep,) = sweeps_of(items)
    whole(sweep)
    assert problems_of(items) == []


D = 3.1356


@pytest.mark.parametrize("sign", [1, -1])
def test_an_encoder_may_count_downwards(sign):
    offset = 0.05
    counts = (np.degrees(np.arcsin(HC / (2 * D * ENERGY))) + offset) * 360000
    energy = {"key": "enc", "unit": "pulses", "d_spacing": "d", "angle_offset": "offset"}
    plan = Plan(d=D, offset=offset)
    stream = plan.stream({"enc": key("", (120,)), "I0": key("", (120,)), "It": key("", (120,))})
    plan.event(stream, 1, {"enc": sign * counts, "I0": I0, "It": IT})
    items = feed(plan.stopped(), analysis=Analysis(adapter=adapter(energy=energy)))
    whole(sweeps_of(items)[0])


@pytest.mark.parametrize("fill", [np.nan, 0.0])
def test_arrays_that_are_longer_than_the_sweep_lose_their_empty_end(fill):
    plan = Plan()
    stream = plan.stream({name: key("eV" if name == "energy" else "", (150,)) for name in KEYS})
    empty = np.full(30, fill)
    for seq, columns in enumerate(
        [(ENERGY, I0, IT), (ENERGY, np.where(NUMBERS == 60, fill, I0), IT)], start=1
    ):
        energy, i0, it = (np.concatenate([values, empty]) for values in columns)
        plan.event(stream, seq, {"energy": energy, "I0": i0, "It": it})
    first, second = sweeps_of(feed(plan.stopped()))
    whole(first)
    assert first.flags == second.flags == (Flag.PADDED,)
    assert len(second.energy) == 120  # an empty cell in the middle is no end


def test_context_of_other_streams_reaches_every_sweep():
    names = adapter(context=["temperature", "pressure", "valve"])
    plan = Plan()
    baseline = plan.stream({"valve": key()}, name="baseline")
    plan.event(baseline, 1, {"valve": 7.0}, at=0.5)
    oven = plan.stream({"temperature": key("K")}, name="oven_monitor")
    gauge = plan.stream({"pressure": key("bar", (1,))}, name="gauge_monitor")
    primary = plan.stream(ARRAYS)
    plan.event(gauge, 1, {"pressure": [2.0]}, at=0.6)
    for seq in range(1, 5):
        plan.event(oven, seq, {"temperature": 300.0 + seq}, at=float(seq))
        plan.event(primary, seq, {"energy": ENERGY, "I0": I0, "It": IT}, at=seq + 0.5)
    plan.event(oven, 5, {"temperature": 999.0}, at=9.0)
    items = feed(plan.stopped(), analysis=Analysis(adapter=names))
    read = [{n: c["value"] for n, c in sweep.context.items()} for sweep in sweeps_of(items)]
    assert read == [
        {"temperature": 300.0 + seq, "pressure": 2.0, "valve": 7.0} for seq in range(1, 5)
    ]


def test_the_sample_may_be_named_in_a_column():
    plan = Plan(sample="of the run")
    stream = plan.stream({**ARRAYS, "sample_name": {**key(), "dtype": "string"}})
    for seq, name in ((1, "ZnO"), (2, "ZnS")):
        data = {"energy": ENERGY, "I0": I0, "It": IT, "sample_name": name}
        plan.event(stream, seq, data)
    assert [sweep.sample for sweep in sweeps_of(feed(plan.stopped()))] == ["ZnO", "ZnS"]
    robot = Plan()
    other = robot.stream({"sample": {**key(), "dtype": "string"}}, name="robot")
    robot.event(other, 1, {"sample": "from the robot"}, at=0.1)
    robot.event(robot.stream(ARRAYS), 1, {"energy": ENERGY, "I0": I0, "It": IT}, at=0.2)
    assert [sweep.sample for sweep in sweeps_of(feed(robot.stopped()))] == ["from the robot"]

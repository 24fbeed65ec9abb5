"""Documents that are valid one by one but wrong together: nothing lost, nothing twice, no shift."""

import copy

import h5py
import msgpack
import numpy as np
import pytest

from documents_in import SWEEPS, feed, problems_of, sweeps_of
from exafsd import codec
from exafsd.documents.items import Ended
from simulated import shapes
from synthetic import METADATA, sweep_columns

ARRAYS = [sweep_columns(i, points=60) for i in range(4)]


def reasons(items):
    return [problem.reason for problem in problems_of(items)]


def edited(documents, name, change):
    """Documents with every one of a name changed by `change(index, document)`; None drops it."""
    out, index = [], 0
    for kind, document in documents:
        if kind == name:
            document = change(index, copy.deepcopy(document))
            index += 1
        if document is not None:
            out.append((kind, document))
    return out


def test_a_ragged_page_is_refused_and_never_shifts_energy_against_counts():
    def cut(index, page):
        if index == 0:
            page["data"]["energy"] = page["data"]["energy"][:-1]
        return page

    items = feed(edited(shapes.event_pages(SWEEPS, METADATA, page_size=50), "event_page", cut))
    assert "bad_document" in reasons(items)
    assert "gap" in reasons(items)
    sweeps = sweeps_of(items)
    assert "gap" in sweeps[0].flags
    for sweep in sweeps:
        energy, columns, _ = SWEEPS[(sweep.number - 1) % 4]
        order = np.argsort(energy)
        inner = slice(2, -2)
        expected = np.interp(sweep.energy, energy[order], columns["It"][order])
        np.testing.assert_allclose(sweep.signals["it"][inner], expected[inner])


def test_points_missing_inside_a_block_are_said_and_flagged():
    whole = shapes.events(SWEEPS, METADATA)
    lost = edited(whole, "event", lambda i, event: None if 30 < i < 37 else event)
    lost = edited(lost, "stop", lambda i, stop: {**stop, "num_events": {}})
    items = feed(lost)
    assert reasons(items) == ["gap"]
    assert [("gap" in s.flags) for s in sweeps_of(items)] == [True, False, False, False]


def test_overlapping_pages_give_no_sweep_twice():
    documents = list(shapes.array_events(ARRAYS, METADATA))
    events = [d for n, d in documents if n == "event"]

    def page(rows):
        data = {key: [row["data"][key] for row in rows] for key in rows[0]["data"]}
        stamps = {key: [row["timestamps"][key] for row in rows] for key in data}
        head = {"descriptor": rows[0]["descriptor"], "uid": ["x"] * len(rows)}
        times, numbers = [r["time"] for r in rows], [r["seq_num"] for r in rows]
        return "event_page", {
            **head, "data": data, "timestamps": stamps, "time": times, "seq_num": numbers
        }  # fmt: skip

    start, stop = documents[:2], documents[-1:]
    items = feed([*start, page(events[:2]), page(events[1:]), *stop])
    assert [s.number for s in sweeps_of(items)] == [1, 2, 3, 4]
    assert reasons(items) == ["repeated"]


def test_swapped_array_events_are_both_analysed():
    documents = list(shapes.array_events(ARRAYS, METADATA))
    at = [i for i, (name, _) in enumerate(documents) if name == "event"]
    documents[at[1]], documents[at[2]] = documents[at[2]], documents[at[1]]
    assert sorted(s.number for s in sweeps_of(feed(documents))) == [1, 2, 3, 4]


def test_an_absurd_sequence_number_does_not_silence_the_run():
    def absurd(index, event):
        return {**event, "seq_num": 10**12} if index == 0 else event

    items = feed(edited(shapes.array_events(ARRAYS, METADATA), "event", absurd))
    assert [s.number for s in sweeps_of(items)] == [2, 3, 4]
    assert "bad_document" in reasons(items)


def test_rows_go_on_through_several_files(tmp_path):
    """ophyd-async opens a new file in mid-run: indices begin anew, sequence numbers go on."""
    first = list(shapes.stream_assets(ARRAYS[:2], METADATA, tmp_path))
    second = list(shapes.stream_assets(ARRAYS[2:], METADATA, tmp_path))
    start, descriptor = first[0][1], first[1][1]
    moved = []
    for name, doc in second:
        doc = copy.deepcopy(doc)
        if name == "stream_resource":
            moved.append((name, {**doc, "run_start": start["uid"]}))
        if name == "stream_datum":
            shifted = {end: number + 2 for end, number in doc["seq_nums"].items()}
            moved.append((name, {**doc, "descriptor": descriptor["uid"], "seq_nums": shifted}))
    stop = {k: v for k, v in first[-1][1].items() if k != "num_events"}
    items = feed([*first[:-1], *moved, ("stop", stop)], roots=[tmp_path])
    sweeps = sweeps_of(items)
    assert [s.number for s in sweeps] == [1, 2, 3, 4]
    for sweep, (energy, columns, _) in zip(sweeps, ARRAYS, strict=True):
        np.testing.assert_array_equal(sweep.energy, energy)
        np.testing.assert_array_equal(sweep.signals["it"], columns["It"])


def test_a_file_that_is_not_hdf5_is_given_up(tmp_path):
    documents = list(shapes.stream_assets(ARRAYS, METADATA, tmp_path))
    (path,) = tmp_path.glob("*.h5")
    path.write_bytes(b"nothing of the kind")
    items = feed(documents, roots=[tmp_path], patience=0.1)
    assert {s.broken.reason for s in sweeps_of(items)} == {"asset_missing"}
    assert isinstance(items[-1], Ended)


def test_a_dataset_without_rows_is_given_up(tmp_path):
    documents = list(shapes.stream_assets(ARRAYS, METADATA, tmp_path))
    (path,) = tmp_path.glob("*.h5")
    with h5py.File(path, "w") as file:
        for key in ("energy", "I0", "It", "Ir", "temperature"):
            file[f"entry/{key}"] = 1.0
    items = feed(documents, roots=[tmp_path], patience=0.1)
    assert {s.broken.reason for s in sweeps_of(items)} == {"asset_missing"}


def test_a_bad_stop_still_ends_its_run():
    bad = edited(shapes.array_events(ARRAYS, METADATA), "stop", lambda i, s: {**s, "num_events": 3})
    items = feed(bad)
    assert len(sweeps_of(items)) == 4
    assert isinstance(items[-1], Ended)


def test_arrays_of_nothing_cannot_hold_up_the_worker():
    nothing = msgpack.packb(("<f8", (10**12, 0), b""))
    with pytest.raises(codec.CodecError, match="without data"):
        codec.loads(msgpack.packb(msgpack.ExtType(codec.ARRAY_EXT, nothing)))
    assert codec.loads(codec.dumps(np.empty(0))).shape == (0,)


@pytest.mark.parametrize(
    ("element", "edge", "expected"),
    [
        ("cu", "k", [("Cu", "K")]),
        ("Au", ["L3", "L2"], [("Au", "L3"), ("Au", "L2")]),
        (["Cu", "Cu"], ["K", "K"], [("Cu", "K")]),
        (["Ni", "Cu"], "K", [("Ni", "K"), ("Cu", "K")]),
        (None, None, []),
    ],
)
def test_elements_and_edges_as_people_write_them(element, edge, expected):
    metadata = {k: v for k, v in (("element", element), ("edge", edge)) if v is not None}
    (first, *_) = sweeps_of(feed(shapes.array_events(ARRAYS[:1], metadata)))
    assert [(e.element, e.edge) for e in first.run.edges] == expected


def test_a_run_may_correct_its_element():
    asked = {**METADATA, "exafsd": {"element": "Zn", "edge": "K"}}
    (first, *_) = sweeps_of(feed(shapes.array_events(ARRAYS[:1], asked)))
    assert first.run.edges[0].element == "Zn"


def test_context_in_the_detectors_own_stream():
    documents = []
    for name, doc in shapes.monitors(SWEEPS, METADATA):
        doc = copy.deepcopy(doc)
        if name == "descriptor" and "I0" in doc["data_keys"]:
            doc["data_keys"]["temperature"] = {**doc["data_keys"]["I0"], "units": "K"}
        if name == "event" and "I0" in doc["data"]:
            doc["data"]["temperature"] = 321.0
            doc["timestamps"]["temperature"] = doc["time"]
        documents.append((name, doc))
    for sweep in sweeps_of(feed(documents)):
        assert sweep.context["temperature"]["value"] == 321.0
        assert sweep.context["temperature"]["unit"] == "K"

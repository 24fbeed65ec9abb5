"""Malformed documents: whatever arrives, the next good spectrum must still come out."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from simulated.shapes import SweepData, array_events, event_pages, events

Documents = list[tuple[Any, Any]]
#: Energies of the small sweeps here.
POINTS = 60
#: Nesting that overflows a recursive reader, and a length that a reader must not trust.
DEEP, HUGE = 5_000, 10**12
#: What may stand where a document is expected.
NOT_DOCUMENTS: tuple[Any, ...] = (None, 17, "start", b"\x00", [], [("uid", "x")], {}, np.zeros(3))


def small_sweep() -> SweepData:
    """Return an edge of `POINTS` energies in eV, with a temperature in K."""
    energy = np.linspace(8900.0, 9200.0, POINTS)
    i0 = np.full(POINTS, 1e5)
    mu = 0.3 + 1.0 / (1.0 + np.exp(-(energy - 8979.0) / 1.5))
    return energy, {"I0": i0, "It": i0 * np.exp(-mu)}, {"temperature": 300.0}


def corpus() -> Iterator[tuple[str, Documents]]:
    """Title and documents of every case; each case is a run, or pieces of one."""
    yield from _not_documents()
    yield from _out_of_order()
    yield from _wrong_fields()
    yield from _wrong_values()


def _good(maker: Any = array_events) -> Documents:
    return copy.deepcopy(list(maker([small_sweep(), small_sweep()], {"element": "Cu"})))


def _not_documents() -> Iterator[tuple[str, Documents]]:
    names = ("start", "descriptor", "event", "event_page", "resource", "datum", "datum_page",
             "stream_resource", "stream_datum", "bulk_events", "stop")  # fmt: skip
    for bad in NOT_DOCUMENTS:
        yield f"{type(bad).__name__} {bad!r} as every document", [(name, bad) for name in names]
    good = _good()
    yield "unknown document name", [*good[:2], ("surprise", {"uid": "x"}), *good[2:]]
    yield "name that is no string", [*good[:2], (None, {}), (7, {}), *good[2:]]
    yield "every document empty", [(name, {}) for name, _ in good]


def _out_of_order() -> Iterator[tuple[str, Documents]]:
    good = _good()
    start, descriptor, first, second, stop = good
    yield "descriptor before start", [descriptor, start, first, second, stop]
    yield "event before descriptor", [start, first, descriptor, second, stop]
    yield "stop without start", [stop]
    yield "events without anything", [first, second]
    yield "start twice", [start, start, descriptor, first, second, stop]
    yield "descriptor twice", [start, descriptor, descriptor, first, second, stop]
    yield "event twice", [start, descriptor, first, first, second, stop]
    yield "stop twice", [*good, stop]
    yield "event after stop", [start, descriptor, first, stop, second]
    yield "run without stop", good[:-1]
    yield "empty run", [start, stop]
    yield "descriptor without events", [start, descriptor, stop]
    yield "gap in seq_num", [start, descriptor, second, stop]
    yield "whole run backwards", good[::-1]
    datum = {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"index": 0}}
    yield "datum of an unknown resource", [start, descriptor, ("datum", datum), stop]
    stream_datum = {"uid": "d", "stream_resource": "nowhere",
                    "descriptor": descriptor[1]["uid"],
                    "indices": {"start": 0, "stop": 1},
                    "seq_nums": {"start": 1, "stop": 2}}  # fmt: skip
    yield "stream_datum of nowhere", [start, descriptor, ("stream_datum", stream_datum), stop]


def _wrong_fields() -> Iterator[tuple[str, Documents]]:
    for position, name in enumerate(("start", "descriptor", "event")):
        for key in _good()[position][1]:
            documents = _good()
            del documents[position][1][key]
            yield f"{name} without {key}", documents
            documents = _good()
            documents[position][1][key] = None
            yield f"{name} with {key} null", documents
    for key in ("data", "timestamps"):
        documents = _good()
        del documents[2][1][key]["energy"]
        yield f"event without energy in {key}", documents
    documents = _good()
    documents[2][1]["descriptor"] = "nobody"
    yield "event of an unknown descriptor", documents
    documents = _good()
    documents[1][1]["run_start"] = "nobody"
    yield "descriptor of an unknown run", documents
    for uid in ("../../escape", "/absolute", "", "a" * 5000, "nul\x00", "\ud800", 17, ["x"]):
        documents = _good()
        documents[0][1]["uid"] = uid
        documents[1][1]["run_start"] = uid
        documents[-1][1]["run_start"] = uid
        yield f"run called {str(uid)[:20]!r}", documents


def _wrong_values() -> Iterator[tuple[str, Documents]]:
    nan = np.full(POINTS, np.nan)
    columns: dict[str, Any] = {
        "NaN": nan,
        "infinity": nan * 0 + np.inf,
        "zeros": np.zeros(POINTS),
        "negative": np.full(POINTS, -1.0),
        "text": "not numbers",
        "text array": np.array(["x"] * POINTS),
        "complex": np.ones(POINTS, complex),
        "integers": np.arange(POINTS),
        "booleans": np.ones(POINTS, bool),
        "a number": 1.0,
        "null": None,
        "empty": np.array([]),
        "too short": np.ones(POINTS - 1),
        "too long": np.ones(POINTS + 1),
        "two-dimensional": np.ones((POINTS, 2)),
        "ragged": [1.0, [2.0, 3.0]],
        "a dictionary": {"value": 1.0},
        "10 MB": np.ones(1_250_000),
        "denormal": np.full(POINTS, 5e-324),
        "overflowing": np.full(POINTS, 1e308),
    }
    for key in ("energy", "I0"):
        for title, column in columns.items():
            documents = _good()
            documents[2][1]["data"][key] = column
            yield f"{key} is {title}", documents
    for title, value in {"null": None, "text": "x", "NaN": np.nan, "negative": -1}.items():
        documents = _good()
        documents[2][1]["time"] = documents[2][1]["seq_num"] = value
        yield f"time and seq_num {title}", documents
    deep: Any = 0
    for _ in range(DEEP):
        deep = [deep]
    documents = _good()
    documents[0][1]["sample"] = deep
    yield "deeply nested metadata", documents
    documents = _good()
    documents[0][1]["sample"] = {"blob": "x" * 5_000_000}
    yield "5 MB of metadata", documents
    documents = _good(event_pages)
    documents[2][1]["data"]["energy"] = documents[2][1]["data"]["energy"][:-3]
    yield "page with columns of different length", documents
    documents = _good(event_pages)
    documents[2][1]["seq_num"] = documents[2][1]["seq_num"][:1]
    yield "page with too few seq_num", documents
    documents = _good(events)
    for _, document in documents[2:-1:2]:
        document["data"] = {}
    yield "every second event empty", documents
    start, descriptor, *_, stop = _good()
    resource = {"uid": "r", "run_start": start[1]["uid"], "data_key": "energy",
                "mimetype": "application/x-hdf5", "uri": "file://localhost/etc/passwd",
                "parameters": {"dataset": "/entry/energy", "chunk_shape": [1, POINTS]}}  # fmt: skip
    datum = {"uid": "r/0", "stream_resource": "r",
             "descriptor": descriptor[1]["uid"],
             "indices": {"start": 0, "stop": HUGE},
             "seq_nums": {"start": 1, "stop": HUGE + 1}}  # fmt: skip
    stream: Documents = [start, descriptor, ("stream_resource", resource), ("stream_datum", datum)]
    yield "a file outside the asset roots, 1e12 rows", [*stream, stop]

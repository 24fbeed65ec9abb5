"""A run that is saved in the middle and loaded in another process goes on undisturbed."""

import io
import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from exafsd.archive.journal import Journal
from exafsd.documents.assembler import describe
from exafsd.helper_process import HelperProcess
from exafsd.service.run_state import HEAD, RunState, StateError, _OwnClasses
from resuming import outcomes_of, resumed, session
from simulated.shapes import SHAPES
from synthetic import METADATA, sweep_columns

SWEEPS = [sweep_columns(number, points=300, e0=8979.0 + 0.1 * number) for number in range(7)]
#: places at which each run is cut, besides its very beginning and end
CUTS = 3


@pytest.fixture(scope="module")
def elsewhere():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_goes_on_in_another_process(shape, batch, elsewhere, tmp_path):
    documents = list(SHAPES[shape](SWEEPS, METADATA, tmp_path))
    undisturbed = outcomes_of(session([tmp_path], batch).replay(documents))
    assert sum(line[0].startswith(b"result.") for line in undisturbed if len(line) > 2) > 20
    rng = np.random.default_rng(sum(map(ord, shape)) + batch)
    cuts = {1, len(documents) - 1, *rng.integers(2, len(documents) - 1, CUTS).tolist()}
    for cut in cuts:
        first = session([tmp_path], batch)
        events = [e for d in documents[:cut] for e in first.feed(*d, time.perf_counter())]
        data = first.save(documents[0][1]["uid"]).dump(time.monotonic())
        rest = elsewhere.submit(resumed, data, documents[cut:], [tmp_path], batch).result(120)
        assert outcomes_of(events) + rest == undisturbed, (
            f"cut after {cut} of {len(documents)} documents"
        )


def saved():
    first = session()
    for document in SHAPES["array"](SWEEPS[:2], METADATA, None):
        if document[0] == "start":
            uid = document[1]["uid"]
        if document[0] != "stop":
            list(first.feed(*document))
    return first.save(uid).dump(0.0)


def test_a_run_is_forgotten_at_its_end(tmp_path):
    one = session([tmp_path])
    first = outcomes_of(one.replay(list(SHAPES["array"](SWEEPS, METADATA, tmp_path))))
    assert one._pipeline._memories == one._counts == one._router._runs == one._router._owner == {}
    again = outcomes_of(one.replay(list(SHAPES["array"](SWEEPS, METADATA, tmp_path))))
    assert [line[2:] for line in again] == [line[2:] for line in first]  # arrays, bit for bit


def test_a_deadline_counts_on_the_clock_of_the_process_that_goes_on(tmp_path):
    """A sweep whose file is late gets the rest of its patience, however the clocks differ."""
    documents = list(SHAPES["resource"](SWEEPS[:2], METADATA, tmp_path))
    (path,) = tmp_path.glob("*.h5")
    path.rename(tmp_path / "away")
    first = session([tmp_path])
    for document in documents[:-1]:
        list(first.feed(*document))
    data = first.save(documents[0][1]["uid"]).dump(time.monotonic())
    later = RunState.load(data, time.monotonic() + 1e6)
    (stream,) = later.assembler._streams.values()
    waits = [row.deadline - (time.monotonic() + 1e6) for row in stream.external._waiting]
    assert waits and all(0 < wait <= 5.0 for wait in waits)


@pytest.mark.parametrize("place", [len(HEAD) + 1, len(HEAD) + 100, -1])
def test_a_damaged_state_is_refused(place):
    data = bytearray(saved())
    data[place] ^= 1
    with pytest.raises(StateError, match="checksum"):
        RunState.load(bytes(data), 0.0)


def test_a_state_of_another_version_and_half_a_state_are_refused():
    data = saved()
    with pytest.raises(StateError, match="another version"):
        RunState.load(data.replace(b"run-state/1", b"run-state/2"), 0.0)
    with pytest.raises(StateError, match="checksum"):
        RunState.load(data[: len(data) // 2], 0.0)
    with pytest.raises(StateError):
        RunState.load(b"", 0.0)


class Harm:
    """Something that a call makes when it is loaded."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (print, r"builtins\.print"),
        (pickle.loads, r"_pickle\.loads"),
        # classes of our own that do something: start a process, make a folder
        (HelperProcess, r"exafsd\.helper_process\.HelperProcess"),
        (Journal, r"exafsd\.archive\.journal\.Journal"),
        # a function of a module whose classes are allowed
        (describe, r"exafsd\.documents\.assembler\.describe"),
    ],
)
def test_nothing_but_a_state_is_made_of_bytes(call, named):
    state = RunState.load(saved(), 0.0)
    state.counts["result"] = Harm(call, "harm")
    with pytest.raises(StateError, match=f"{named} does not belong"):
        RunState.load(state.dump(0.0), 0.0)


def test_no_class_is_reached_through_a_module_that_imports_it():
    """A dotted name would lead from an allowed module to whatever that imports."""
    unpickler = _OwnClasses(io.BytesIO(b""))
    unpickler.proto = 5
    for module, name in (
        ("exafsd.documents.assembler", "Path"),
        ("exafsd.documents.assembler", "assets.h5py.File"),
        ("exafsd.spectra", "Analysis"),
    ):
        with pytest.raises((pickle.UnpicklingError, AttributeError)):
            unpickler.find_class(module, name)

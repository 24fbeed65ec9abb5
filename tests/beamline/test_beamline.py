"""The simulated beamline speaks Bluesky's documents in all six shapes, through a real proxy."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from beamline_wire import SHAPES, Documents, Wire
from event_model import DocumentNames, schema_validators
from tiled.server import SimpleTiledServer

from exafsd.archive.catalog import documents, open_catalog, runs

POINTS, SWEEPS = 250, 2
COLUMNS = ("energy", "I0", "It", "Ir")
TRUTH = ("truth_r", "truth_sigma2", "truth_n_s02", "truth_e0", "truth_c3", "temperature")
NAMES: dict[str, dict[str, int]] = {
    "array": {"event": SWEEPS},
    "event": {"event": SWEEPS * POINTS},
    "page": {"event_page": SWEEPS * 3},
    "monitor": {"event": SWEEPS * POINTS * 2},
    "resource": {"resource": 4, "datum": SWEEPS * 4, "event": SWEEPS},
    "stream": {"stream_resource": 10, "stream_datum": SWEEPS * 10},
}


def of(run: Documents, name: str) -> list[dict[str, Any]]:
    return [document for n, document in run if n == name]


@pytest.mark.parametrize("shape", SHAPES)
def test_documents_are_complete_and_valid(
    published: dict[str, list[Documents]], shape: str
) -> None:
    first, second = published[shape]
    for run in (first, second):
        assert run[0][0] == "start"
        assert run[-1][0] == "stop"
        descriptors = 2 if shape == "monitor" else 1
        expected = Counter(start=1, stop=1, descriptor=descriptors, **NAMES[shape])
        assert Counter(name for name, _ in run) == expected
        for name, document in run:
            schema_validators[DocumentNames[name]].validate(document)
        start = run[0][1]
        assert (start["element"], start["edge"], start["plan_name"]) == ("Cu", "K", "qexafs")
        assert start["sample"] == {"name": "Cu foil"}
        assert run[-1][1]["exit_status"] == "success"
    assert second[0][1]["scan_id"] - first[0][1]["scan_id"] == len(SHAPES)


@pytest.mark.parametrize("shape", ["event", "page", "monitor"])
def test_runs_of_points_tell_the_truth_at_their_start(
    published: dict[str, list[Documents]], shape: str
) -> None:
    cold, hot = (run[0][1] for run in published[shape])
    assert 300.0 <= cold["temperature"] < hot["temperature"] <= 900.0
    assert hot["truth"]["r"] > cold["truth"]["r"]


def test_array_events_alternate(published: dict[str, list[Documents]]) -> None:
    first, second = (of(run, "event") for run in published["array"])
    for number, event in enumerate([*first, *second]):
        assert set(event["data"]) == {*COLUMNS, *TRUTH}
        steps = np.diff(event["data"]["energy"])
        assert (steps > 0).all() if number % 2 == 0 else (steps < 0).all()
    step = 600.0 / (2 * SWEEPS * len(SHAPES) - 1)
    temperatures = [event["data"]["temperature"] for event in first]
    assert temperatures == pytest.approx([300.0, 300.0 + step])


def test_oscillation_turns(published: dict[str, list[Documents]]) -> None:
    for run in published["page"]:
        energy = np.concatenate([page["data"]["energy"] for page in of(run, "event_page")])
        assert np.argmax(energy) in (POINTS - 1, POINTS)
        assert energy[0] == energy[-1] == energy.min()


def test_monitors_share_no_clock(published: dict[str, list[Documents]]) -> None:
    run = published["monitor"][0]
    names = {d["uid"]: d["name"] for d in of(run, "descriptor")}
    assert set(names.values()) == {"energy_monitor", "ic_monitor"}
    stamps: dict[str, list[float]] = {name: [] for name in names.values()}
    for event in of(run, "event"):
        stamps[names[event["descriptor"]]].append(next(iter(event["timestamps"].values())))
    mono, chambers = np.array(stamps["energy_monitor"]), np.array(stamps["ic_monitor"])
    assert (np.diff(mono) > 0).all()
    assert (np.diff(chambers) > 0).all()
    assert not set(mono) & set(chambers)
    assert np.median(mono - chambers) == pytest.approx(0.5 / 10 / POINTS, rel=0.01)


def test_external_files_hold_the_columns(published: dict[str, list[Documents]]) -> None:
    run = published["resource"][0]
    resource = of(run, "resource")[0]
    assert resource["spec"] == "XAFS_HDF5"
    with h5py.File(Path(resource["root"]) / resource["resource_path"], swmr=True) as file:
        assert file[resource["resource_kwargs"]["dataset"]].shape == (SWEEPS, POINTS)
    assert [d["datum_kwargs"]["index"] for d in of(run, "datum")] == [0] * 4 + [1] * 4

    run = published["stream"][0]
    for resource in of(run, "stream_resource"):
        assert resource["mimetype"] == "application/x-hdf5"
        path = resource["uri"].removeprefix("file://localhost")
        with h5py.File(path, swmr=True) as file:
            shape = (SWEEPS, POINTS) if resource["data_key"] in COLUMNS else (SWEEPS,)
            assert file[resource["parameters"]["dataset"]].shape == shape


def test_sigterm_ends_the_run_and_the_archive_is_complete(
    start: Callable[..., subprocess.Popen[bytes]],
    wire: Wire,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SimpleTiledServer(directory=tmp_path / "catalog") as server:
        uri, _, key = server.uri.partition("?api_key=")
        monkeypatch.setenv("TILED_API_KEY", key)
        process = start("--seconds", "100", "--rate", "20", "--tiled", uri)
        live: Documents = []
        while sum(name == "event" for name, _ in live) < 3:
            got = wire.receive(60.0)
            assert got is not None
            live.append(got)
        os.kill(process.pid, signal.SIGTERM)
        live += wire.until(lambda: process.poll() is not None)
        assert process.returncode == 0
        assert [name for name, _ in live[:2]] == ["start", "descriptor"]
        assert live[-1][0] == "stop"
        assert live[-1][1]["exit_status"] == "success"

        catalog = open_catalog(uri)
        (run,) = runs(catalog)
        replayed = list(documents(run))
        catalog.context.close()
        assert [name for name, _ in replayed] == [name for name, _ in live]
        assert replayed[0] == live[0]
        for before, after in zip(of(live, "event"), of(replayed, "event"), strict=True):
            assert before["seq_num"] == after["seq_num"]
            assert before["time"] == after["time"]
            assert before["timestamps"] == after["timestamps"]
            for key, value in before["data"].items():
                assert np.array_equal(value, after["data"][key])

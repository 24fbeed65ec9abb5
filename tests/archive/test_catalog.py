"""What tiled archived comes back as the documents it was: all six shapes, served and embedded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import DocumentNames, schema_validators
from tiled.client import from_uri

from exafsd.archive import catalog as catalog_module
from exafsd.archive.catalog import CatalogError, documents, open_catalog, runs
from exafsd.archive.sources import open_source
from exafsd.testing.catalog_server import CatalogServer, configuration, write_profile
from simulated import shapes

Documents = list[tuple[str, dict[str, Any]]]
POINTS, SWEEPS = 40, 3


def sweeps() -> list[shapes.SweepData]:
    rng = np.random.default_rng(3)
    energy = np.linspace(8900.0, 9300.0, POINTS)
    return [
        (
            energy[:: -1 if number % 2 else 1],
            {"I0": rng.random(POINTS), "It": rng.random(POINTS)},
            {"temperature": 300.0 + number, "truth_r": 2.55 + 0.01 * number},
        )
        for number in range(SWEEPS)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("catalog")


@pytest.fixture(scope="module")
def live(folder: Path) -> dict[str, Documents]:
    (folder / "assets").mkdir()
    started = iter(range(10))

    def metadata() -> dict[str, Any]:
        number = next(started)
        return {"time": 1e9 + number, "scan_id": number, "element": "Cu", "sample": {"name": "Cu"}}

    generators = {
        "events": shapes.events(sweeps(), metadata()),
        "event_pages": shapes.event_pages(sweeps(), metadata(), page_size=50),
        "array_events": shapes.array_events(sweeps(), metadata()),
        "monitors": shapes.monitors(sweeps(), metadata()),
        "resource_datum": shapes.resource_datum(sweeps(), metadata(), folder / "assets"),
        "stream_assets": shapes.stream_assets(sweeps(), metadata(), folder / "assets"),
    }
    return {shape: list(generator) for shape, generator in generators.items()}


@pytest.fixture(scope="module")
def server(folder: Path, live: dict[str, Documents]) -> Iterator[CatalogServer]:
    """A tiled server with all runs, one that never stopped, and one result run of ours."""
    with CatalogServer(folder) as server:
        client = from_uri(server.uri, api_key=server.api_key)
        types = {"XAFS_HDF5": "application/x-hdf5"}
        writer = TiledWriter(client, spec_to_mimetype=types)
        for run in live.values():
            for name, document in run:
                writer(name, document)
        cut = list(shapes.array_events(sweeps(), {"time": 1e9 + 20, "uid": "cut-off-in-mid-run"}))
        short = TiledWriter(client, batch_size=2)
        for name, document in cut[:-2]:
            short(name, document)
        result = {"time": 1e9 + 30, "uid": "result-of-ours", "plan_name": "exafsd"}
        for name, document in shapes.array_events(sweeps(), result):
            writer(name, document)
        yield server
        client.context.close()


@pytest.fixture(scope="module")
def catalog(server: CatalogServer) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILED_API_KEY", server.api_key)
        catalog = open_catalog(server.uri)
        yield catalog
        catalog.context.close()


def rows(run: Documents) -> dict[str, list[tuple[int, dict[str, list[float]]]]]:
    """Stream to sequence number and columns, as an assembler sees them."""
    names = {d["uid"]: d["name"] for n, d in run if n == "descriptor"}
    by_stream: dict[str, list[tuple[int, dict[str, list[float]]]]] = {n: [] for n in names.values()}
    for name, doc in run:
        if name == "event":
            data = {k: np.ravel(v).tolist() for k, v in sorted(doc["data"].items())}
            by_stream[names[doc["descriptor"]]].append((doc["seq_num"], data))
    return by_stream


def as_arrays() -> dict[str, list[tuple[int, dict[str, list[float]]]]]:
    """What shapes with external data must come back as."""
    expected = []
    for number, (energy, signals, numbers) in enumerate(sweeps(), start=1):
        columns = {"energy": energy, **signals, **numbers}
        data = {key: np.ravel(column).tolist() for key, column in sorted(columns.items())}
        expected.append((number, data))
    return {"primary": expected}


def as_points() -> dict[str, list[tuple[int, dict[str, list[float]]]]]:
    flat = [
        {"energy": [e], **{k: [c[i]] for k, c in signals.items()}, **{k: [v] for k, v in n.items()}}
        for energy, signals, n in sweeps()
        for i, e in enumerate(energy)
    ]
    return {"primary": [(i, dict(sorted(data.items()))) for i, data in enumerate(flat, start=1)]}


@pytest.mark.parametrize(
    "shape",
    ["events", "event_pages", "array_events", "monitors", "resource_datum", "stream_assets"],
)
def test_replay_equals_live(catalog: Any, live: dict[str, Documents], shape: str) -> None:
    (run,) = runs(catalog, uid=live[shape][0][1]["uid"])
    replayed = list(documents(run))
    for name, document in replayed:
        plain = document
        if name == "event":  # the schema knows no arrays
            plain = {**document, "data": {k: 0 for k in document["data"]}}
        schema_validators[DocumentNames[name]].validate(plain)
    assert replayed[0] == live[shape][0]
    assert replayed[-1] == live[shape][-1]
    if shape in ("events", "array_events", "monitors"):
        expected = rows(live[shape])
    else:
        expected = as_points() if shape == "event_pages" else as_arrays()
    assert rows(replayed) == expected
    for _, document in replayed[1:-1]:
        for spec in document.get("data_keys", {}).values():
            assert "external" not in spec


@pytest.mark.parametrize("shape", ["events", "monitors", "array_events"])
def test_order_and_times_are_kept(catalog: Any, live: dict[str, Documents], shape: str) -> None:
    (run,) = runs(catalog, uid=live[shape][0][1]["uid"])
    before = [d for n, d in live[shape] if n == "event"]
    after = [d for n, d in documents(run) if n == "event"]
    for one, other in zip(before, after, strict=True):
        for key in ("descriptor", "seq_num", "time", "timestamps"):
            assert one[key] == other[key]


def test_slices(catalog: Any, live: dict[str, Documents], monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are read in slices, and a run in slices is the same run."""
    monkeypatch.setattr(catalog_module, "SLICE_BYTES", 2 * POINTS * 8)
    for shape in ("array_events", "resource_datum", "stream_assets"):
        (run,) = runs(catalog, uid=live[shape][0][1]["uid"])
        assert rows(list(documents(run))) == as_arrays()


def test_selection(catalog: Any, live: dict[str, Documents], server: CatalogServer) -> None:
    uids = [run[0][1]["uid"] for run in live.values()]

    def selected(**chosen: Any) -> list[str]:
        return [run.metadata["start"]["uid"] for run in runs(catalog, **chosen)]

    assert selected() == [*uids, "cut-off-in-mid-run"]
    assert selected(last=3) == [*uids[-2:], "cut-off-in-mid-run"]
    assert selected(uid=uids[2][:8]) == [uids[2]]
    assert selected(uid="result-of-ours") == ["result-of-ours"]
    assert selected(since=1e9 + 2, until=1e9 + 4) == uids[2:4]
    assert selected(search={"scan_id": 4, "sample.name": "Cu"}) == [uids[4]]
    assert selected(search={"element": "Fe"}) == []
    source = open_source(server.uri)
    (run,) = source.runs(search={"scan_id": "4"})
    assert next(run.documents())[1]["uid"] == run.start["uid"] == uids[4]
    assert source.run(uids[4]).start == run.start
    assert source.shared
    source.close()
    with pytest.raises(CatalogError, match="no run"):
        list(runs(catalog, uid="no-such-run"))


def test_a_run_without_a_stop(catalog: Any) -> None:
    """What its writer had flushed is there, and no stop is invented."""
    (run,) = runs(catalog, uid="cut-off-in-mid-run")
    assert [name for name, _ in documents(run)] == ["start", "descriptor", "event", "event"]


def test_a_lost_file_is_named(
    catalog: Any,
    live: dict[str, Documents],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    (resource,) = {d["resource_path"] for n, d in live["resource_datum"] if n == "resource"}
    (run,) = runs(catalog, uid=live["resource_datum"][0][1]["uid"])
    path = (folder / "assets" / resource).rename(tmp_path / resource)
    try:
        with pytest.raises(CatalogError, match=r"column '.*' of stream 'primary' cannot be"):
            list(documents(run))
    finally:
        path.rename(folder / "assets" / resource)


def test_no_server() -> None:
    with pytest.raises(CatalogError, match="no tiled profile"):
        open_catalog("no-such-profile")


def test_tables_are_made_where_there_are_none(
    server: CatalogServer, folder: Path, tmp_path: Path
) -> None:
    def asked(folder: Path) -> bool:
        (tree,) = configuration(folder)["trees"]
        return tree["args"]["init_if_not_exists"]

    assert not asked(folder)
    assert asked(tmp_path)
    (tmp_path / "catalog.db").touch()
    assert asked(tmp_path)


def test_server_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "tables.duckdb").write_text("not a database")
    (tmp_path / "catalog.db").write_text("not a database either" * 100)
    with pytest.raises(CatalogError, match="did not start"), CatalogServer(tmp_path):
        pass


READER = """
import json, sys, numpy as np
from exafsd.archive.catalog import documents, is_embedded, open_catalog, runs
catalog = open_catalog("kept")
assert is_embedded(catalog)
found = {}
for run in runs(catalog):
    events = [d for n, d in documents(run) if n == "event"]
    found[run.metadata["start"]["uid"]] = [float(np.sum(e["data"].get("I0", 0))) for e in events]
json.dump(found, sys.stdout)
"""


def test_embedded_after_the_server(
    server: CatalogServer, live: dict[str, Documents], folder: Path, tmp_path: Path
) -> None:
    """The storage a server has left is opened by a profile, in one process and without a server."""
    server.stop()
    write_profile(folder, "kept", tmp_path / "profiles")
    environment = os.environ | {"TILED_PROFILES": str(tmp_path / "profiles")}
    environment.pop("TILED_API_KEY", None)
    done = subprocess.run(
        [sys.executable, "-c", READER], env=environment, capture_output=True, check=True
    )
    by_run = json.loads(done.stdout)
    assert list(by_run) == [*(run[0][1]["uid"] for run in live.values()), "cut-off-in-mid-run"]
    expected = [float(signals["I0"].sum()) for _, signals, _ in sweeps()]
    for shape in ("array_events", "resource_datum", "stream_assets"):
        assert by_run[live[shape][0][1]["uid"]] == pytest.approx(expected)

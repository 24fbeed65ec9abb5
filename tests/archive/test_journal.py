"""The journal gives back what it was given, and nothing that is written to it raises."""

import resource
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.archive.catalog import CatalogError
from exafsd.archive.journal import MAX_OPEN, ORPHANS, Journal, read_journal, safe_name
from exafsd.archive.sources import open_source
from simulated import shapes
from simulated.hostile import corpus, small_sweep

MAKERS: dict[str, Callable[..., Iterator[Any]]] = {
    "events": shapes.events,
    "event_pages": shapes.event_pages,
    "array_events": shapes.array_events,
    "monitors": shapes.monitors,
    "resource_datum": shapes.resource_datum,
    "stream_assets": shapes.stream_assets,
}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


def run_of(uid: str, at: float = 1e9, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    documents = list(shapes.array_events([small_sweep()] * 2, {"uid": uid, **more}))
    documents[0][1]["time"] = at
    return documents


def write(journal: Journal, documents: list[tuple[str, dict[str, Any]]]) -> None:
    for name, document in documents:
        journal.write(name, document)


@pytest.mark.parametrize("shape", MAKERS)
def test_interleaved_runs_come_back_apart(shape: str, tmp_path: Path) -> None:
    assets = {"folder": tmp_path} if shape in ("resource_datum", "stream_assets") else {}
    generators = [
        list(MAKERS[shape]([small_sweep()] * 2, {"uid": f"run-{n}"}, **assets)) for n in range(2)
    ]
    journal = Journal(tmp_path / "journal")
    for pair in zip(*generators, strict=True):
        write(journal, list(pair))
    journaled = list(read_journal(tmp_path / "journal"))
    assert [run.start["uid"] for run in journaled] == ["run-0", "run-1"]
    for run, documents in zip(journaled, generators, strict=True):
        assert same(list(run.documents(pytest.fail)), documents)
    assert not journal.failures


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary() | st.lists(st.floats(), max_size=5).map(np.array),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(metadata=st.dictionaries(st.text(), VALUES, max_size=5), uid=st.text())
def test_round_trip(
    metadata: dict[str, Any], uid: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    start = {**metadata, "uid": uid, "time": 1e9}
    stop = {"run_start": uid, "uid": "stop"}
    journal = Journal(folder)
    write(journal, [("start", start), ("stop", stop)])
    (run,) = read_journal(folder)
    assert same(list(run.documents(pytest.fail)), [("start", start), ("stop", stop)])
    assert run.path.parent == folder


@settings(deadline=None)
@given(st.text(max_size=300))
def test_names_are_harmless(uid: str) -> None:
    name = safe_name(uid)
    assert name
    assert len(name) <= 100
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_names_stay_apart() -> None:
    assert len({safe_name(uid) for uid in ("a/b", "a_b", "a\\b", "", "..", "../a")}) == 6


def test_hostile_documents_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "journal"
    reasons: list[str] = []
    journal = Journal(folder, report=lambda reason, detail: reasons.append(reason))
    for _, documents in corpus():
        write(journal, documents)  # type: ignore[arg-type]
    write(journal, run_of("good", at=2e9))
    journal.close()
    assert {path.parent for path in tmp_path.rglob("*.msgpack")} == {folder}
    assert set(reasons) == set(journal.failures) == {"malformed"}
    (good,) = read_journal(folder, uid="good")
    assert len(list(good.documents(pytest.fail))) == 5
    for run in read_journal(folder):
        assert list(run.documents(pytest.fail))


def test_documents_of_nobody_are_kept_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    start, descriptor, event, *_ = run_of("a")
    journal.write("event", {**event[1], "descriptor": "unknown"})
    write(journal, [start, descriptor, event])
    journal.write("event", {**event[1], "descriptor": "unknown"})
    nameless = {"uid": "r", "spec": "X", "root": "/", "resource_path": "x", "resource_kwargs": {}}
    journal.write("resource", nameless)
    journal.write("datum", {"resource": "r", "datum_id": "r/0", "datum_kwargs": {}})
    journal.close()
    (run,) = read_journal(tmp_path)
    assert [name for name, _ in run.documents()] == [
        "start", "descriptor", "event", "resource", "datum",
    ]  # fmt: skip
    assert (tmp_path / ORPHANS).stat().st_size > 0


@pytest.mark.parametrize("cut", [1, 7, 500])
def test_a_torn_record_is_reported(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    write(journal, run_of("torn"))
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    said: list[str] = []
    (run,) = read_journal(tmp_path)
    documents = list(run.documents(said.append))
    assert 3 <= len(documents) <= 4
    assert documents[0][1]["uid"] == "torn"
    assert len(said) == 1
    assert "incomplete" in said[0]


def test_full_disk(tmp_path: Path) -> None:
    """A limit of the process on file sizes stands for the disk: writes end half-way as well."""
    said: list[str] = []
    journal = Journal(tmp_path, report=lambda reason, detail: said.append(reason))
    documents = run_of("big")
    journal.write(*documents[0])
    journal.write(*documents[1])
    (path,) = tmp_path.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        journal.write(*documents[2])
        journal.write(*documents[3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.write(*documents[4])
    assert journal.failures == {"disk": 2}
    assert said == ["disk"]
    (run,) = read_journal(tmp_path)
    assert [n for n, _ in run.documents(pytest.fail)] == ["start", "descriptor", "stop"]


def test_retention_deletes_the_oldest(tmp_path: Path) -> None:
    write(Journal(tmp_path), run_of("first"))
    size = next(tmp_path.iterdir()).stat().st_size
    journal = Journal(tmp_path, max_bytes=int(2.5 * size), fsync="stop")
    for number in range(5):
        write(journal, run_of(f"run-{number}", at=2e9 + number))
    left = [run.start["uid"] for run in read_journal(tmp_path)]
    assert left == ["run-3", "run-4"]


def test_runs_that_never_stop_do_not_hold_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, fsync="always")
    for number in range(100):
        write(journal, run_of(f"run-{number}")[:3])
    assert len(list(read_journal(tmp_path))) == 100
    assert len(journal._open) <= MAX_OPEN < 100
    journal.close()


def test_selection(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number, element in enumerate(("Cu", "Fe", "Cu", "Cu")):
        write(journal, run_of(f"run-{number}", 2e9 + number, element=element, scan_id=number,
                              sample={"name": "foil"}))  # fmt: skip

    def selected(**chosen: Any) -> list[str]:
        runs = open_source(str(tmp_path)).runs(**chosen)
        return [next(run.documents())[1]["uid"][-1] for run in runs]

    assert selected() == ["0", "1", "2", "3"]
    assert selected(uid="run-2") == ["2"]
    assert selected(last=2) == ["2", "3"]
    assert selected(since=2e9 + 1, until=2e9 + 3) == ["1", "2"]
    assert selected(search={"element": "Cu", "sample.name": "foil"}) == ["0", "2", "3"]
    assert selected(search={"scan_id": "1"}) == ["1"]
    assert selected(search={"element": "Cu"}, last=1) == ["3"]
    assert selected(search={"sample.name.more": "x"}) == []
    assert open_source(str(tmp_path)).run("run-2").start["uid"] == "run-2"
    with pytest.raises(CatalogError, match="no run"):
        open_source(str(tmp_path)).run("2")


def test_files_sort_by_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for at in (1.7e9, 1.6e9, 1.8e9):
        write(journal, run_of(f"at-{at:.0f}", at=at))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0].startswith("20200913T122640-at-1600000000")
    times = [run.time for run in read_journal(tmp_path)]
    assert all(a < b for a, b in pairwise(times))

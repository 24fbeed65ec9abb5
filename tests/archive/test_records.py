"""Whatever is cut off or flipped in a file of records: what is read was written, or it is told."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exafsd.archive.journal import Journal, JournalError, mend, read_journal
from exafsd.archive.journaled import JOURNAL, JournaledRun, find_run
from exafsd.archive.records import (
    DamagedError,
    Format,
    FormatError,
    RecordFile,
    latest_records,
    read_records,
)
from exafsd.codec import dumps
from simulated import shapes
from simulated.hostile import small_sweep

CONTENTS = st.lists(st.binary(max_size=300), max_size=6)
FORMAT = Format("exafsd.journal", 2)


def written(folder: Path, contents: list[bytes]) -> Path:
    path = folder / "one.msgpack"
    path.unlink(missing_ok=True)
    file = RecordFile(path, FORMAT)
    for content in contents:
        file.append(content)
    file.close()
    return path


def read(path: Path) -> tuple[list[bytes], str | None]:
    contents: list[bytes] = []
    try:
        contents.extend(record.content for record in read_records(path, FORMAT))
    except (DamagedError, FormatError) as error:
        return contents, str(error)
    return contents, None


@settings(max_examples=150, deadline=None)
@given(contents=CONTENTS, drawn=st.data())
def test_a_cut_leaves_a_prefix(
    contents: list[bytes], drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), contents)
    size = path.stat().st_size
    length = drawn.draw(st.integers(0, size))
    os.truncate(path, length)
    found, told = read(path)
    assert found == contents[: len(found)]
    if told is None:  # cut between two records
        whole = len(FORMAT.line) + sum(len(content) + 12 for content in found)
        assert length in (whole, 0)
    else:
        assert path.name in told


@settings(max_examples=200, deadline=None)
@given(contents=CONTENTS, drawn=st.data())
def test_a_flipped_byte_is_told(
    contents: list[bytes], drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), contents)
    raw = bytearray(path.read_bytes())
    place = drawn.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= drawn.draw(st.integers(1, 255))
    path.write_bytes(raw)
    found, told = read(path)
    assert told is not None and path.name in told
    assert found == contents[: len(found)]


@settings(max_examples=100, deadline=None)
@given(contents=CONTENTS, later=CONTENTS, lost=st.integers(1, 200))
@example(contents=[b"a"], later=[b"b"], lost=3)
def test_a_file_that_was_cut_goes_on(
    contents: list[bytes], later: list[bytes], lost: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp(), contents)
    os.truncate(path, max(path.stat().st_size - lost, len(FORMAT.line)))
    before, told = read(path)
    _, wrong = mend(path)
    assert (wrong is None) == (told is None)
    file = RecordFile(path, FORMAT)
    for content in later:
        file.append(content)
    file.close()
    assert read(path) == (before + later, None)
    assert list(latest_records(path, FORMAT)) == (before + later)[::-1]


def test_what_is_cut_off_is_kept_beside(tmp_path: Path) -> None:
    path = written(tmp_path, [b"first", b"second", b"third"])
    raw = bytearray(path.read_bytes())
    at = raw.index(b"second")
    raw[at] ^= 1
    path.write_bytes(raw)
    end, wrong = mend(path)
    assert wrong is not None and "one.msgpack.cut" in wrong
    assert read(path) == ([b"first"], None)
    beside = path.with_name("one.msgpack.cut")
    assert path.read_bytes() + beside.read_bytes() == bytes(raw) and path.stat().st_size == end


def test_a_later_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.msgpack"
    path.write_bytes(b"exafsd.journal/3\nwhatever comes then")
    with pytest.raises(FormatError, match=r"journal/3, .* reads up to exafsd.journal/2"):
        list(read_records(path, FORMAT))
    with pytest.raises(FormatError):
        mend(path)
    assert path.read_bytes().endswith(b"comes then")


def run_of(uid: str) -> list[tuple[str, dict]]:
    documents = list(shapes.array_events([small_sweep()] * 2, {"uid": uid}))
    documents[0][1]["time"] = 1e9
    return documents


def test_the_first_version_is_read(tmp_path: Path) -> None:
    documents = run_of("old")
    path = tmp_path / "20010909T014640-old.msgpack"
    path.write_bytes(b"".join(dumps(list(document)) for document in documents))
    (run,) = read_journal(tmp_path)
    assert [name for name, _ in run.documents(pytest.fail)] == [name for name, _ in documents]
    damage: list[str] = []
    path.write_bytes(path.read_bytes()[:-5])
    assert len(list(JournaledRun(path).documents(damage.append))) == len(documents) - 1
    assert path.name in damage[0]
    # the same run again: a file is of one format
    journal = Journal(tmp_path)
    for name, document in documents:
        journal.write(name, document)
    assert sorted(p.name for p in tmp_path.glob("*-old*.msgpack")) == [
        "20010909T014640-old-again.msgpack", "20010909T014640-old.msgpack",
    ]  # fmt: skip


def test_a_run_that_comes_again_follows_in_its_file(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path)
        for name, document in run_of("twice"):
            journal.write(name, document)
        journal.close()
        (path,) = tmp_path.glob("*.msgpack")
        os.truncate(path, path.stat().st_size - 3)  # the end of its stop
    run = find_run(tmp_path, "twice")
    assert run is not None
    damage: list[str] = []
    names = [name for name, _ in run.documents(damage.append)]
    assert names == ["start", "descriptor", "event", "event"] * 2 and len(damage) == 1


def test_a_journal_is_for_its_owner_and_one_daemon(tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "journal"
    before = os.umask(0)
    try:
        journal = Journal(folder)
        for name, document in run_of("mine"):
            journal.write(name, document)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with pytest.raises(JournalError, match="another exafsd writes to the journal"):
        Journal(folder)
    journal.close()
    Journal(folder).close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(tmp_path / "journal")


def test_a_start_looks_at_no_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting the oldest run costs its own files, however many there are."""
    for number in range(300):
        (tmp_path / f"20010101T000000-{number:04d}.msgpack").write_bytes(JOURNAL.line + bytes(500))
    journal = Journal(tmp_path, max_bytes=300 * 517)
    touched: list[object] = []
    for name in ("scandir", "stat", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, **k: (touched.append(a), real(*a, **k))[1]
        )
    for uid in ("a", "b", "c"):
        for name, document in run_of(uid):
            journal.write(name, document)
    assert len(touched) < 20
    left = sorted(path.name for path in tmp_path.glob("20010101*"))
    assert left and left[-1].endswith("0299.msgpack") and len(left) < 300
    assert journal.retention.total <= 300 * 517 + 10_000

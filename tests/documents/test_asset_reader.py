"""External files: read in a process of its own, which nothing in a file can make a danger."""

import os
import signal
import time

import h5py
import numpy as np
import pytest

from documents_in import SWEEPS, feed, make_router, problems_of, sweeps_of
from exafsd.contract.vocabulary import Problem, Reason
from exafsd.documents import asset_files
from exafsd.documents.asset_files import Request, read_all
from exafsd.documents.asset_reader import READER, AssetReader
from simulated import shapes
from synthetic import METADATA

VALUES = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def written(path, change=None):
    with h5py.File(path, "w") as file:
        file["entry/data"] = VALUES
        if change is not None:
            change(file)
    return path


def ask(path, root, dataset="/entry/data", rows=(0, 4), spec=""):
    (answer,) = read_all([Request(str(path), (str(root),), dataset, *rows, spec)])
    return answer


def test_rows_of_an_honest_file(root):
    path = written(root / "a.h5", lambda f: f.__setitem__("link", h5py.SoftLink("/entry")))
    for dataset in ("/entry/data", "entry/data", "/link/data"):
        np.testing.assert_array_equal(ask(path, root, dataset, (1, 3)).value, VALUES[1:3])
    assert ask(path, root, "/entry/other").kind == "not_yet"
    assert ask(path, root, rows=(0, 5)).kind == "not_yet"
    assert ask(root / "later.h5", root).kind == "not_yet"


def test_a_folder_that_is_a_link_is_a_root(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    path = written(root / "a.h5")
    assert ask(tmp_path / "link" / "a.h5", tmp_path / "link").kind == "rows"
    assert ask(path, tmp_path / "link").kind == "rows"


@pytest.mark.parametrize("way", ["beside", "dots", "link", "folder"])
def test_nothing_outside_of_the_roots_is_read(way, root, tmp_path):
    outside = written(tmp_path / "outside.h5")
    (root / "link.h5").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    path = {
        "beside": outside,
        "dots": root / ".." / "outside.h5",
        "link": root / "link.h5",
        "folder": root / "folder" / "outside.h5",
    }[way]
    answer = ask(path, root)
    assert answer.kind == "outside"
    assert "source.asset_roots" in answer.text


def outer_link(file):
    file["link"] = h5py.ExternalLink("../outside.h5", "/entry")


def soft_outer_link(file):
    outer_link(file)
    file["soft"] = h5py.SoftLink("/link/data")


def storage(file):
    file.create_dataset("raw", (4, 8), "u1", external=[("../secret", 0, 32)])


def virtual(file):
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource("../outside.h5", "entry/data", (4, 3))
    file.create_virtual_dataset("virtual", layout)


def huge(file):
    file.create_dataset("huge", (4, 200_000_000), "f8", chunks=(1, 1_000_000), compression="gzip")


def chunk(file):
    file.create_dataset("chunk", (4_000_000_000, 3), "f8", chunks=(20_000_000, 3))


def texts(file):
    file["texts"] = ["a"] * 4


def circle(file):
    file["one"], file["two"] = h5py.SoftLink("/two"), h5py.SoftLink("/one")


@pytest.mark.parametrize(
    ("change", "dataset"),
    [
        (outer_link, "/link/data"), (soft_outer_link, "/soft"), (storage, "/raw"),
        (virtual, "/virtual"), (huge, "/huge"), (chunk, "/chunk"), (texts, "/texts"),
        (circle, "/one"), (None, "/entry"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_do(change, dataset, root, tmp_path):
    written(tmp_path / "outside.h5")
    (tmp_path / "secret").write_bytes(b"s" * 32)
    assert ask(written(root / "a.h5", change), root, dataset).kind == "refused"


def test_only_regular_files_are_opened(root):
    os.mkfifo(root / "pipe")
    started = time.monotonic()
    assert ask(root / "pipe", root).kind == "refused"
    assert ask(root, root).kind == "refused"
    assert ask("/dev/zero", "/dev").kind == "refused"
    assert time.monotonic() - started < 1


def test_a_broken_file_is_not_the_end(root):
    path = written(root / "a.h5")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        spoilt = bytearray(whole[: rng.integers(9, len(whole))])
        for place in rng.integers(8, len(spoilt), 10):
            spoilt[place] = rng.integers(256)
        path.write_bytes(spoilt)
        assert ask(path, root).kind in ("not_yet", "refused", "rows")


def test_many_rows_are_read_in_parts(root, monkeypatch):
    monkeypatch.setattr(asset_files, "AT_ONCE", 48)
    path = written(root / "a.h5")
    answer = ask(path, root)
    assert (answer.kind, answer.value) == ("fewer", 2)
    assert ask(path, root, rows=(0, 2)).kind == "rows"


def test_a_process_that_hangs_is_left_and_others_go_on(root, monkeypatch):
    reader = AssetReader()
    first, second = (written(root / name) for name in ("a.h5", "b.h5"))
    requests = [[Request(str(path), (str(root),), "/entry/data", 0, 4)] for path in (first, second)]
    try:
        assert reader.read(requests[0])[0].kind == "rows"
        pid = reader.pid
        os.kill(pid, signal.SIGSTOP)  # as a file system that does not answer
        started = time.monotonic()
        with monkeypatch.context() as patch:  # only here: a process may take longer to start
            patch.setattr("exafsd.documents.asset_reader.PATIENCE", 0.5)
            assert reader.read(requests[0])[0].kind == "not_yet"
        assert time.monotonic() - started < 3
        assert reader.read(requests[0])[0].kind == "not_yet"  # left alone for a while
        assert reader.read(requests[1])[0].kind == "rows"
        assert reader.pid != pid
        os.kill(reader.pid, signal.SIGKILL)
        assert reader.read(requests[1])[0].kind == "rows"  # asked once more
        assert len(reader.troubles) == 2
        assert "a.h5" in reader.troubles[0]
    finally:
        reader.close()


def test_a_reader_that_died_is_told_and_no_row_is_lost(root):
    documents = list(shapes.stream_assets(SWEEPS, METADATA, root))
    READER.start()
    feed(documents, roots=[root], patience=5)
    os.kill(READER.pid, signal.SIGKILL)
    READER._left_alone.clear()
    try:
        items = feed(documents, roots=[root], patience=30)
    finally:
        READER._left_alone.clear()
        READER._resting = 0.0
    assert [sweep.broken for sweep in sweeps_of(items)] == [None] * len(SWEEPS)
    assert {problem.reason for problem in problems_of(items)} == {Problem.ASSET_READER}


def test_a_run_that_is_given_up_loses_no_row_however_long_reading_takes(root, monkeypatch):
    monkeypatch.setattr("exafsd.documents.external.AT_ONCE", 0.0)  # one look reads nothing
    monkeypatch.setattr("exafsd.documents.external.BLOCK_ROWS", 1)
    router = make_router(roots=[root], patience=60)
    READER.start()
    items = []
    for name, document in shapes.stream_assets(SWEEPS, METADATA, root):
        items += router.feed(name, document) if name != "stop" else []
    monkeypatch.setattr("exafsd.documents.external.AT_ONCE", 1e-4)  # a row or two at a look
    items += router.close()
    assert [sweep.number for sweep in sweeps_of(items)] == [1, 2, 3, 4]


def test_a_file_outside_is_told_once_and_its_sweeps_are_rejected(root, tmp_path):
    items = feed(shapes.stream_assets(SWEEPS, METADATA, tmp_path), roots=[root])
    assert {sweep.broken.reason for sweep in sweeps_of(items)} == {Reason.ASSET_MISSING}
    refused = [p.detail for p in problems_of(items) if p.reason is Problem.ASSET_REFUSED]
    assert len(refused) == len(set(refused)) > 0

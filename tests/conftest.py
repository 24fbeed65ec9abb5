"""What all tests share: measured data, and checks after every test."""

import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: measured spectra live beside the checkout and are never copied into it
DATA = ROOT.parent / "shared" / "data"

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# as the exafsd command does, before numpy is imported: with two BLAS threads sums end in other
# last digits, and tests compare with other processes bit by bit
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# daemons with default settings keep nothing of theirs at home
os.environ.setdefault("EXAFSD_DATA", tempfile.mkdtemp(prefix="exafsd-tests-"))
# a shell that starts the tests in the background has SIGINT ignored, and every process that they
# start and interrupt would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


#: folders as workers are given their files (Makefile): long files first, so that no worker is left
#: alone with one at the end. A folder's files follow each other, as some share a server.
ORDER = (
    "e2e", "docs", "training", "export", "archive", "beamline", "daemon", "golden", "dashboard",
    "client", "composition", "inference", "reduction", "documents", "contract",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put long files first, and skip what needs measured spectra where there are none."""
    place = {folder: number for number, folder in enumerate(ORDER)}
    items.sort(key=lambda item: place.get(item.path.relative_to(ROOT / "tests").parts[0], -1))
    if DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="no measured spectra in ../shared/data")
    for item in items:
        if "measured" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of measured spectra."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def shipped_models_once():
    """The models that ship are loaded once for all tests: 0.6 s of each daemon's start."""
    from exafsd.inference import registry

    load, shipped = registry.load_bundle, registry.shipped_folder()
    load_once = functools.cache(load)

    def cached(folder: Path, later: bool = False) -> registry.Bundle:
        return load_once(folder, later) if folder.parent == shipped else load(folder, later)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_bundle", cached)
        yield


@pytest.fixture(scope="session", autouse=True)
def catalogs_initialised_once(tmp_path_factory):
    """Servers of catalogs begin with a copy of empty tables, whose making takes 3 s each.

    Demos and profiles, which are processes, have tiled make them.
    """
    from exafsd.testing.catalog_server import CatalogServer

    start = CatalogServer.start

    @functools.cache
    def tables() -> Path:
        file = tmp_path_factory.mktemp("tables") / "catalog.db"
        command = ["-m", "tiled", "catalog", "init", f"sqlite:///{file}"]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return file

    def begun(server: CatalogServer) -> None:
        file = server.folder / "catalog.db"
        if not file.exists():
            server.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tables(), file)
        start(server)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CatalogServer, "start", begun)
        yield


@pytest.fixture(autouse=True)
def no_error_logged(caplog, request):
    """An ERROR line that a test does not expect fails it."""
    yield
    if "expects_error_log" in request.keywords:
        return
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert not errors


@pytest.fixture
def logging_restored():
    """Loggers that `exafsd.logs.configure` changes are as before afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("exafsd")]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers, one.level, one.propagate = handlers, level, propagate
        one.manager._clear_cache()  # which level is enabled

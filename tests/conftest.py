"""What all tests share: measured data, and checks after every test."""

import logging
import os
import signal
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


def pytest_collection_modifyitems(items):
    """Skip what needs measured spectra where there are none."""
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


@pytest.fixture(autouse=True)
def no_error_logged(caplog, request):
    """An ERROR line that a test does not expect fails it."""
    yield
    if "expects_error_log" in request.keywords:
        return
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert not errors

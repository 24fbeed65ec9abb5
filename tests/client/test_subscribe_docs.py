"""Every Python block in the docs about subscribing is run against a publisher, as it stands."""

import re
import select
import subprocess
import sys
import time

import pytest

from exafsd.publishing import Library, Publisher, ServerKeys, make_keys
from exafsd.settings.analysis import Analysis
from messages import ARRAYS, result, run_start, status
from synthetic import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PAGES = ("howto/subscribe.md", "howto/secure.md", "reference/messages.md", "../README.md")
#: what each block prints
PRINTED = {
    "howto/subscribe.md": [
        "1 2.54 0.01 0.009", "run/primary/transmission/K/1", "(401,)", "model", None,
    ],
    "howto/secure.md": ["run/primary/transmission/K/1", "result.Cu.K."],
    "reference/messages.md": ["run/primary/transmission/K/1"],
    "../README.md": ["1 {'value': 2.54"],
}  # fmt: skip


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text())


def test_the_plain_subscriber_in_the_docs_is_the_one_that_is_tested():
    plain = (ROOT / "tests" / "e2e" / "plain_subscriber.py").read_text()
    assert plain in blocks("howto/subscribe.md")
    assert len(plain.splitlines()) <= 30


def test_all_blocks_are_known():
    assert {page: len(blocks(page)) for page in PAGES} == {p: len(n) for p, n in PRINTED.items()}


@pytest.fixture
def publisher(tmp_path):
    publishers = []

    def make(secure):
        make_keys(tmp_path / "keys", ["alice"])
        (tmp_path / "keys" / "clients" / "alice").rename(tmp_path / "alice")
        server = ServerKeys.load(tmp_path / "keys" / "server.key_secret", tmp_path / "keys/allowed")
        library = Library()
        library.keep_settings(Analysis())
        publishers.append(
            Publisher("tcp://127.0.0.1:*", keys=server if secure else None, library=library)
        )
        return publishers[-1]

    yield make
    for one in publishers:
        one.close()


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, n) for page in PAGES for n, words in enumerate(PRINTED[page]) if words],
)
def test_the_blocks_print_what_they_should(publisher, tmp_path, page, number):
    one = publisher(secure=page.endswith("secure.md"))
    code = blocks(page)[number]
    for written, real in (
        ("tcp://127.0.0.1:5580", one.address),
        ("tcp://127.0.0.1:5581", one.answers),
        ("tcp://daq1:5580", one.address),
    ):
        code = code.replace(written, real)
    one.send(run_start())
    one.send(result(1, settings_sha256=Analysis().sha256), ARRAYS)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    try:
        printed, end = "", time.monotonic() + 30
        while PRINTED[page][number] not in printed and time.monotonic() < end:
            one.send(status())
            one.send(result(1, settings_sha256=Analysis().sha256), ARRAYS)
            if select.select([process.stdout], [], [], 0.1)[0]:
                printed += process.stdout.readline()
            if process.poll() is not None:
                printed += process.stdout.read()
                break
        process.kill()
        assert PRINTED[page][number] in printed, process.stderr.read()
    finally:
        process.kill()
        process.communicate()

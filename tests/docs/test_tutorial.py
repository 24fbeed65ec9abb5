"""A newcomer types the tutorial word for word into terminals of a fresh copy of this repository.

With EXAFSD_TUTORIAL=fresh (`make tutorial-test`) `make demo` installs an environment of its own,
as it does for a newcomer. Otherwise it finds this Python's environment set up.
"""

import os
import re
import urllib.request

import pytest
from tutorial_copy import Terminal, blocks, clone, free_port, lend_environment

from exafsd.client import Follower
from synthetic import ROOT

PAGE = ROOT / "docs" / "tutorial" / "first-subscriber.md"
FRESH = os.environ.get("EXAFSD_TUTORIAL") == "fresh"
#: s for pip, which a newcomer waits for
SET_UP = 900 if FRESH else 0
#: s for processes to start on a busy machine
PATIENCE = 90
LINES = 20
PRINTED = re.compile(r"sweep (\d+): R = ([\d.]+) ± ([\d.]+) Å, sigma2 = ([\d.]+) ± ([\d.]+) Å²\s")


@pytest.fixture
def newcomer(tmp_path):
    """Folder of a fresh copy, and terminals by name."""
    folder = tmp_path / "exafsd"
    folder.mkdir()
    clone(folder)
    if not FRESH:
        lend_environment(folder)
    terminals = {}

    def terminal(name):
        if name not in terminals:
            terminals[name] = Terminal(folder, tmp_path / f"{name}.log")
        return terminals[name]

    yield folder, terminal
    for one in reversed(terminals.values()):
        one.close()


def steps():
    """Blocks of the tutorial; ports that are taken here are replaced by free ones."""
    ports = {"5580": str(free_port(5580)), "5100": str(free_port(5100))}
    for block in blocks(PAGE):
        text = re.sub(r"\b(5580|5100)\b", lambda match: ports[match[0]], block.text)
        yield block.title, text, ports


@pytest.mark.timeout(SET_UP + 300)
def test_word_for_word(newcomer):
    folder, terminal = newcomer
    todo = steps()

    name, text, ports = next(todo)  # make demo
    first = terminal(name)
    first.type(text)
    shown = re.search(r"(\d+) results, 0 rejected\. They are stored in", first.prompt(SET_UP + 120))
    assert int(shown[1]) > 10
    assert first.status() == 0

    name, text, _ = next(todo)  # exafsd demo
    assert terminal(name) is first
    first.type(text)
    first.see("Results are published at", PATIENCE)
    first.see("trans Cu K", PATIENCE)

    with first.left_alone():
        follow(folder, terminal, todo, ports)

    first.shell.sendintr()
    assert "They are stored in a catalog" in first.prompt(PATIENCE)
    assert first.status() == 0
    assert next(todo, None) is None, "the tutorial has a block that is not tried"


def follow(folder, terminal, todo, ports):
    """What is typed, opened and written while the demo runs in terminal 1."""
    name, text, _ = next(todo)  # exafsd status
    second = terminal(name)
    second.type(text)
    assert "ready" in second.prompt(PATIENCE)
    assert second.status() == 0

    name, text, _ = next(todo)  # exafsd watch
    terminal(name).type(text)
    assert "trans Cu K" in second.prompt(PATIENCE)

    assert "<http://127.0.0.1:5100/>" in PAGE.read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['5100']}/", timeout=30) as page:
        assert page.status == 200

    name, text, _ = next(todo)  # the subscriber
    (folder / name).write_text(text)
    name, text, _ = next(todo)
    terminal(name).type(text)
    read = [second.see(PRINTED.pattern).groups() for _ in range(LINES)]
    second.shell.sendintr()
    second.prompt()
    agrees_with_the_demo(read, f"tcp://127.0.0.1:{ports['5580']}")


def agrees_with_the_demo(read, address):
    """What was printed is what was published, and that is what the simulation put in."""
    expected = {int(sweep): values for sweep, *values in read}
    headers = {}
    with Follower(address, "result.Cu.K.", start="ring") as results:
        while not expected.keys() <= headers.keys():
            message = results.receive(10)
            assert message is not None, "results that were printed are not in the ring"
            if message.header["channel"] == "transmission":
                headers.setdefault(message.header["sweep"], []).append(message.header)
    for sweep, (r, r_std, sigma2, sigma2_std) in expected.items():
        # a demo that goes on has several runs, each with sweeps from 1
        (header,) = [h for h in headers[sweep] if f"{h['shells'][0]['r']['value']:.4f}" == r]
        truth = header["truth"]
        assert abs(float(r) - truth["r"]) < max(4 * float(r_std), 0.005)
        assert abs(float(sigma2) - truth["sigma2"]) < max(4 * float(sigma2_std), 0.0005)

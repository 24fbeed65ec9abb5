"""What stands in a code block of the documentation works: commands, Python and settings are run.

A block that cannot be run here has a comment before it: ``<!-- not run here: why -->``, or
``<!-- run by FILE -->``. Names that a reader has to replace are replaced by those of a demo's
archive.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from code_blocks import MARK, PYTHON_ELSEWHERE, by_page, everything

from exafsd.inference.registry import shipped_folder
from exafsd.publishing import Publisher, ServerKeys
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from exafsd.testing.heating import HeatedFoil, cache_folder
from messages import result
from synthetic import ROOT

HERE = Path(__file__).parent
#: what a block is written in; text is to be read, and console comes from the generated pages
LANGUAGES = {"sh", "python", "toml", "text", "console"}
SH, PYTHON, TOML = by_page("sh"), by_page("python"), by_page("toml")
#: what Python blocks take for granted, and what must be true after them
PRELUDE = """
import bluesky.plan_stubs as bps
from bluesky import RunEngine
from exafsd.settings.analysis import RunOverride

def scan(*_):
    yield from bps.open_run()
    yield from bps.close_run()

RE, plan, started = RunEngine(), scan(), []
RE.subscribe(lambda name, doc: started.append(doc), "start")
"""
AFTER = """
for doc in started:
    RunOverride.model_validate(doc.get("exafsd", {}))
"""
AFTER_PAGE = {
    # events without energies become a sweep, through the codec that they are published with
    "docs/howto/adapter.md": """
import time
from exafsd.settings.analysis import Analysis
from exafsd.codec import loads
from exafsd.documents.router import Router
from exafsd.spectra import Sweep
from simulated import shapes

energy, counts = np.linspace(8800.0, 9000.0, 120), np.arange(1.0, 121.0)
scan = {"first": 8800.0, "last": 9000.0, "points": 120}
router, found, translate = Router(Analysis(), clock=time.monotonic), [], with_energy()
for name, doc in shapes.array_events(
    [(energy, {"I0": counts, "It": counts}, {})], {"element": "Cu", "edge": "K", "scan": scan}
):
    for part in ("data_keys", "data", "timestamps"):
        if part in doc:
            doc = {**doc, part: {k: v for k, v in doc[part].items() if k != "energy"}}
    found += router.feed(name, loads(dumps(translate(name, doc))))
(sweep,) = [one for one in (*found, *router.close()) if isinstance(one, Sweep)]
assert sweep.broken is None and np.array_equal(sweep.energy, energy)
""",
    # a file of the new format is analysed, and the others still are
    "docs/developer/add-a-file-format.md": """
from pathlib import Path
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.service.wiring import make_pipeline, make_session
from exafsd.settings import load
from synthetic import foil

energy, mu = foil(noise=1e-4)
path = Path("scan.csv")
path.write_text("energy,xmu\\n" + "\\n".join(f"{e},{m}" for e, m in zip(energy, mu)))
settings = load(inference={"enabled": False})
session = make_session(settings, make_pipeline(settings, Registry({}, {})))
_, outcome, _ = session.file(path, settings.analysis, None)
assert outcome.message.kind == "result" and outcome.message.element == "Cu"
path.write_text("energy,xmu\\n1,x")
try:
    list(session.file(path, settings.analysis, None))
except SpectrumError as error:
    assert str(path) in error.detail
np.savetxt("scan.dat", np.column_stack([energy, mu]), header="energy xmu")
assert list(session.file(Path("scan.dat"), settings.analysis, None))[1].message.kind == "result"
""",
    # events with text become a sweep
    "docs/developer/add-a-document-shape.md": """
import time
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Sweep
from simulated.shapes import SHAPES
from synthetic import METADATA, sweep_columns

way, found = router.Router(Analysis(), clock=time.monotonic), []
for name, doc in SHAPES["event"]([sweep_columns()], METADATA, None):
    if name == "event":
        name, doc = "text_event", {**doc, "data": {k: str(v) for k, v in doc["data"].items()}}
    found += way.feed(name, doc)
(sweep,) = [one for one in found if isinstance(one, Sweep)]
assert len(sweep.energy) == 400 and sweep.broken is None
""",
    "docs/developer/add-a-flag.md": """
assert Flag("cold") is Flag.COLD and Flag.explain("cold").startswith("the sample is colder")
""",
    # spectra go the whole way through the new kind of model
    "docs/developer/add-a-kind-of-model.md": """
from dataclasses import replace
from exafsd.contract.frames import ARRAY_UNITS
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.spectra import Edge, Run, Sweep
from synthetic import sweep_columns

bundle = replace(bundle, predictor=predictor)
energy, columns, _ = sweep_columns()
signals = {name.lower(): column for name, column in columns.items() if name != "Ir"}
sweep = Sweep(Run("r", edges=(Edge("Cu", "K"),)), "primary", 1, energy, signals)
pipeline = Pipeline(Registry({bundle.card.name: bundle}), tuple(ARRAY_UNITS))
(outcome,) = pipeline.process(sweep)
r = next(p.prior.mean for p in bundle.card.parameters if p.name == "r")
assert outcome.message.shells[0].r.value == r
""",
    # the daemon delivers to the new output
    "docs/developer/add-an-output.md": """
import time
from exafsd.inference.registry import Registry
from exafsd.service import wiring
from exafsd.service.sink import deliver
from exafsd.settings import load
from simulated.shapes import SHAPES
from synthetic import METADATA, sweep_columns

path, settings = Path("hutch.txt"), load()
session = wiring.make_session(settings, wiring.make_pipeline(settings))
sink, told = LastResult(path, lambda *words: told.append(words)), []
for event in session.replay(SHAPES["array"]([sweep_columns()], METADATA, None)):
    deliver(event, sink)
assert path.read_text().startswith(("R = ", "run "))
service, inbox = wiring.make_service(load(publish={"address": "tcp://127.0.0.1:*"}), proxy=False)
service._sinks.append(sink)
path.unlink()
for document in SHAPES["array"]([sweep_columns()], METADATA, None):
    inbox.put(*document)
service.stop()
service.run()
assert path.is_file() and told == []
broken = LastResult(Path("no/such/folder"), lambda *words: told.append(words))
broken._show("nothing")
assert "no/such/folder" in told[0][1] and broken.lost.total() == 1
""",
    "docs/howto/connect.md": "assert len(started) == 1",
    "docs/howto/coordination.md": "assert started[0]['exafsd'] == {'fluorescence': 'dilute'}",
    "docs/howto/find-results.md": "assert len(results['Cu_1_r']) == len(results['sweep']) > 5",
}


def test_every_block_is_run_or_says_why_not():
    assert {block.language for block in everything()} <= LANGUAGES
    for block in everything():
        reason = block.mark and MARK.fullmatch(block.mark)
        assert reason is None or reason[2] is None or (ROOT / reason[2]).is_file(), block
    for page, test in PYTHON_ELSEWHERE.items():
        assert page.removeprefix("docs/") in (ROOT / test).read_text()
    pages = {**SH, **PYTHON, **TOML}
    assert {"docs/howto/connect.md", "docs/howto/replay.md", "docs/howto/secure.md"} <= set(pages)


@dataclass(frozen=True)
class Archive:
    """What a demo leaves behind."""

    journal: Path
    uid: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A short demo's journal and catalog, the catalog on a server with the profile ``beamline``."""
    folder = tmp_path_factory.mktemp("archive")
    command = [
        sys.executable,
        "-m",
        "exafsd.cli",
        "demo",
        "--scenario",
        "heating",
        "--seconds",
        "3",
        "--folder",
    ]
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    profiles = folder / "tiled"
    profiles.mkdir()
    with CatalogServer(folder / "catalog", [folder / "assets"]) as server:
        (profiles / "beamline.yml").write_text(json.dumps({"beamline": {"uri": server.uri}}))
        environment = {
            "TILED_PROFILES": str(profiles),
            "TILED_API_KEY": server.api_key,
            "EXAFSD_DATA": str(folder),
        }
        uid = re.search(r"--uid (\S+)", done.stdout)[1]
        yield Archive(folder / "journal", uid, environment)


@pytest.fixture(scope="module")
def foil():
    """A copper foil near room temperature."""
    return HeatedFoil(cache_folder(), temperatures=(300.0, 320.0))


@pytest.fixture
def desk(tmp_path, foil):
    """A folder with the files that the pages speak of."""
    shutil.copytree(shipped_folder() / "cu-k-fcc", tmp_path / "models" / "cu-k-fcc")
    counts = foil.sweep(300.0, "up", np.random.default_rng(1))
    for name, keys, unit in (
        ("foil.xdi", ("energy", "i0", "itrans"), 1.0),
        ("scan.dat", ("mono_energy", "ring_i0", "it_a"), 1.0),
        ("escan.dat", ("E", "I0", "I1"), 1e3),
    ):
        table = np.column_stack([counts.energy / unit, counts.i0, counts.it])
        np.savetxt(tmp_path / name, table, header=" ".join(keys))
    return tmp_path


def as_here(text, archive, desk):
    """Replace what a reader would replace, and dates by those of the demo."""
    day = 86400
    yesterday, tomorrow = (
        time.strftime("%Y-%m-%d", time.localtime(time.time() + days * day)) for days in (-1, 1)
    )
    for written, meant in (
        (r"\b(ARCHIVE|JOURNAL)\b", archive.journal),
        (r"\bR(AW|UN)_UID\b", archive.uid),
        (r"\b3f1c2b\b", archive.uid[:6]),
        (r"/etc/exafsd", desk),
        (r"(?<=--since )[\d-]+", yesterday),
        (r"(?<=--until )[\dT:-]+", tomorrow),
        (r"scan_id=17", "scan_id=1"),
    ):
        text = re.sub(written, str(meant), text)
    return text


def run(arguments, desk, archive, typed=None):
    """Run Python in the folder `desk` with what the archive needs; what it printed."""
    environment = {
        **os.environ,
        **archive.environment,
        "PYTHONPATH": str(ROOT / "tests"),  # checks use helpers of other tests
        "EXAFSD_PUBLISH__ADDRESS": "tcp://127.0.0.1:*",
    }
    done = subprocess.run(
        [sys.executable, *arguments], input=typed, capture_output=True, text=True, timeout=200,
        cwd=desk, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", SH)
def test_commands(page, archive, desk):
    lines = "".join(block.text for block in SH[page])
    if page.endswith("secure.md"):
        lines = SH[page][0].text  # the other one watches: see below
    if "config init" not in lines:
        for name in ("exafsd.toml", "other.toml"):
            (desk / name).write_text(config_of(page, desk))
    shown = run([HERE / "typed.py"], desk, archive, as_here(lines, archive, desk))
    assert shown.count("$ exafsd") == len(re.findall(r"^exafsd", lines, re.MULTILINE))


def config_of(page, desk):
    """Settings that the commands of a page are given."""
    if page.endswith("adapter.md"):
        return '[adapter]\nenergy = "mono_energy"\ni0 = "ring_i0"\nit = "it_a"\nelement = "x"\n'
    return f'models = ["{desk}/models"]\n'


def test_watch_with_keys(archive, desk):
    """The second block of the page about keys, at a publisher with the keys of the first."""
    page = "docs/howto/secure.md"
    make, watch = (as_here(block.text, archive, desk) for block in SH[page])
    run([HERE / "typed.py"], desk, archive, make)
    (desk / "keys" / "clients" / "alice").rename(desk / "alice")
    keys = ServerKeys.load(desk / "keys" / "server.key_secret", desk / "keys" / "allowed")
    publisher = Publisher("tcp://127.0.0.1:*", keys=keys)
    command = watch.replace("tcp://daq1:5580", publisher.address).replace(
        "~/alice", f"{desk}/alice"
    )
    watcher = subprocess.Popen(
        [sys.executable, "-m", *f"exafsd.cli {command.removeprefix('exafsd ')} --json".split()],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end, shown = time.monotonic() + 60, ""
        while "run/primary" not in shown and time.monotonic() < end:
            publisher.send(result(1))
            if select.select([watcher.stdout], [], [], 0.1)[0]:
                shown += watcher.stdout.readline()
        assert "run/primary/transmission/K/1" in shown
    finally:
        watcher.kill()
        watcher.communicate()
        publisher.close()


@pytest.mark.parametrize("page", PYTHON)
def test_python(page, archive, desk):
    code = "\n".join(block.text for block in PYTHON[page])
    code = re.sub(r"\bRAW_UID\b", repr(archive.uid), code)
    run(["-c", PRELUDE + code + AFTER + AFTER_PAGE.get(page, "")], desk, archive)


@pytest.mark.parametrize("page", TOML)
def test_settings(page, desk, monkeypatch):
    monkeypatch.chdir(desk)
    for number, block in enumerate(TOML[page]):
        # the file is made by a command of the page
        text = block.text.replace('"s02-cu-k.json"', "{ value = 0.9, std = 0.05 }")
        path = desk / f"{number}.toml"
        path.write_text(text)
        assert load(path).model_fields_set, block


@pytest.mark.parametrize("name", ["bmm", "iss", "panda"])
def test_beamlines_of_the_page_are_those_of_the_example_files(name, tmp_path):
    read = []
    for number, block in enumerate(TOML["docs/howto/connect.md"]):
        path = tmp_path / f"{number}.toml"
        path.write_text(block.text)
        read.append(load(path).model_dump())
    assert load(ROOT / "deploy" / "examples" / f"{name}.toml").model_dump() in read

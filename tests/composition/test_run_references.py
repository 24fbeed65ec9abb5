"""References from runs: of the journal and of what was published; temperatures that are far."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from typer.testing import CliRunner

from exafsd.archive.journal import Journal
from exafsd.archive.outcome_log import OutcomeLog, folder_beside
from exafsd.commands.cli import app
from exafsd.composition import temperatures
from exafsd.composition.composer import Composer
from exafsd.composition.references import load
from exafsd.contract.frames import encode
from exafsd.contract.vocabulary import Flag
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service.pace import Pace
from exafsd.service.session import Session
from exafsd.service.wiring import make_composer, make_router
from exafsd.settings import load as load_settings
from near_edge_runs import measured, ramp, smooth_references
from simulated.shapes import SHAPES

METADATA = {"uid": "a-run", "element": "Cu", "edge": "K", "time": 1.7e9, "sample": {"name": "x"}}
SWEEPS = 12


@pytest.fixture(scope="module")
def documents():
    """CuO that becomes copper, 300 K at the first sweep and 10 K hotter at each."""
    rng = np.random.default_rng(0)
    energy, mus, _ = measured(
        smooth_references(), ["CuO", "Cu"], ramp(2, SWEEPS), rng, 2e-4, jitter=0.0, high=600.0
    )
    i0 = np.full(len(energy), 1e6)
    sweeps = [
        (energy, {"I0": i0, "It": i0 * np.exp(-mu), "Ir": i0 * np.exp(-mu - mus[-1])},
         {"temperature": 300.0 + 10 * n})
        for n, mu in enumerate(mus)
    ]  # fmt: skip
    return list(SHAPES["array"](sweeps, METADATA, None))


@pytest.fixture(scope="module")
def journal(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "journal"
    writer = Journal(folder)
    for document in documents:
        writer.write(*document)
    writer.close()
    return folder


def add(*options):
    return CliRunner().invoke(app, ["references", "add", *map(str, options)])


def test_the_mean_of_sweeps_becomes_a_reference(journal, tmp_path):
    done = add("start", "--run", "a-r", "--sweeps", "1-3", "--archive", journal, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "mean of 3 sweeps" in done.output
    (reference,) = load([tmp_path])[0]
    assert (reference.name, reference.edge.element) == ("start", "Cu")
    assert reference.temperature == pytest.approx(310.0)
    head = reference.file.read_text().split("#---")[0]
    assert "Exafsd.source: run a-run, sweeps 1-3, mean of 3" in head
    assert "Exafsd.channel: transmission" in head


def test_the_foil_of_a_run_can_be_one(journal, tmp_path):
    done = add("foil", "--run", "a-run", "--channel", "reference", "--archive", journal,
               "--out", tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.output
    (foil,) = load([tmp_path])[0]
    add("end", "--run", "a-run", "--sweeps", "12", "--archive", journal, "--out", tmp_path)
    end = next(one for one in load([tmp_path])[0] if one.name == "end")
    np.testing.assert_allclose(foil.mu, end.mu, atol=0.03)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--run", "a-run", "--sweeps", "40-50"], "no such sweep"),
        (["--run", "a-run", "--sweeps", "first"], "not like 1-20"),
        (["--run", "nobody"], "nobody"),
        ([], "give either a FILE"),
    ],
)
def test_what_is_no_run_or_sweep_says_so(journal, tmp_path, options, why):
    done = add("x", *options, "--archive", journal, "--out", tmp_path)
    assert done.exit_code
    assert why in done.output
    assert not list(tmp_path.iterdir())


def test_what_was_published_serves_where_documents_cannot_be_read(documents, tmp_path, monkeypatch):
    """The journal of a run whose files are gone: the log of its outcomes has its spectra."""
    folder = tmp_path / "data" / "journal"
    writer = Journal(folder)
    folder_beside(folder).mkdir()
    log = OutcomeLog(writer, folder_beside(folder), "never", print)
    for document in documents:
        if document[0] in ("start", "stop"):
            writer.write(*document)
        if document[0] == "start":
            pipeline = Pipeline(Registry({}, {}), ("energy", "norm"))
            for event in Session(make_router(load_settings()), pipeline).replay(documents):
                if isinstance(event, Outcome):
                    log.append(event.message, encode(event.message, event.arrays))
    log.close()
    writer.close()
    monkeypatch.setenv("EXAFSD_DATA", str(tmp_path / "data"))
    out = tmp_path / "refs"
    done = add("start", "--run", "a-run", "--sweeps", "1-3", "--out", out)
    assert done.exit_code == 0, done.output
    (reference,) = load([out])[0]
    assert reference.temperature == pytest.approx(310.0)


def replayed(journal, tmp_path, settings, *options):
    config = tmp_path / "exafsd.toml"
    config.write_text(settings)
    done = CliRunner().invoke(app, ["replay", str(journal), "--model", "none", "--json",
                                    "--config", str(config), *options])  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    return [one for one in lines if one.get("channel") == "transmission"]


def test_a_replay_compares_with_the_ends_of_the_run(journal, tmp_path):
    lines = replayed(journal, tmp_path, "[composition]\nends = 1\n")
    last = {one["sweep"]: one["composition"]["fractions"][-1] for one in lines}
    assert {one["phase"] for one in last.values()} == {"last"}
    values = [last[n]["value"] for n in range(1, SWEEPS + 1)]
    assert values == pytest.approx(np.linspace(0, 1, SWEEPS), abs=0.03)


def test_a_replay_resolves_components(journal, tmp_path):
    (line,) = replayed(journal, tmp_path, "", "--components", "2")
    assert line["places"] == list(range(1, SWEEPS + 1))
    shares = [one["share"] for one in line["components"]]
    assert min(abs(shares[0][0] - end) for end in (0, 1)) < 0.01
    assert np.all(np.abs(np.diff(shares[0], 2)) < 0.05)


class NoRoom(Pace):
    """There is never time for more than what must be."""

    def room(self, *_):
        return False


def test_components_are_the_same_live_and_replayed(documents, journal, tmp_path):
    """Live in batches, and in a hurry: without shares, but the counts are those of the replay."""
    settings = load_settings()
    pipeline = Pipeline(Registry({}, {}), (), composer=make_composer(settings))
    session = Session(make_router(settings), pipeline, batch=5, pace=NoRoom())
    live = {
        event.message.id: event.message.composition
        for event in [*(e for d in documents for e in session.feed(*d)), *session.flush()]
        if isinstance(event, Outcome) and event.message.channel == "transmission"
    }
    lines = replayed(journal, tmp_path, "")
    assert [one["id"] for one in lines] == list(live)
    assert [one["composition"]["method"] for one in lines] == ["lcf"] * SWEEPS
    counted = 0
    for line in lines:
        again, first = line["composition"]["components"], live[line["id"]]
        if again is None:
            assert first is None
            continue
        once = asdict(first.components)
        assert once["sweeps"] == again["sweeps"]
        assert (once["by_noise"], once["by_structure"]) == (
            again["by_noise"],
            again["by_structure"],
        )
        for a, b in zip(once["scores"], again["scores"], strict=True):
            assert a["value"] == pytest.approx(b["value"], rel=1e-5, abs=1e-9)
            counted += 1
    assert counted >= SWEEPS - 4
    assert again["count"] == 2


def test_a_reference_that_was_much_colder_is_flagged(documents, journal, tmp_path):
    """The end is at 410 K: beyond 100 K from a reference at 300 K, and not from one at 320 K."""
    out = tmp_path / "refs"
    for name, sweeps in (("a", "1"), ("b", "12")):
        add(name, "--run", "a-run", "--sweeps", sweeps, "--archive", journal, "--out", out)
    cold = (out / "b.xdi").read_text().replace("410 K", "300 K")
    (out / "b.xdi").write_text(cold)
    composer = Composer(load([out])[0])
    session = Session(make_router(load_settings()), Pipeline(Registry({}, {}), (), None, composer))
    flagged = [
        event.message.sweep
        for event in session.replay(documents)
        if isinstance(event, Outcome) and Flag.REFERENCE_TEMPERATURE in event.message.quality
    ]
    assert flagged == [SWEEPS]


@pytest.mark.parametrize(
    ("text", "kelvin"),
    [("13 K", 13.0), ("300", 300.0), ("25 C", 298.15), ("-10 degC", 263.15),
     ("room temperature", 295.0), ("RT", 295.0), ("cold", None), ("-5 K", None)],
)  # fmt: skip
def test_temperatures_in_words(text, kelvin):
    assert temperatures.of_text(text) == kelvin


@pytest.mark.parametrize(
    ("context", "kelvin"),
    [
        ({"temperature": {"value": 500.0, "unit": "K"}}, 500.0),
        ({"cryo-temperature_a": {"value": 20, "unit": "degC"}}, 293.15),
        ({"XDI.Sample.temperature": {"value": "13 K", "unit": None}}, 13.0),
        ({"pressure": {"value": 1.0, "unit": "bar"}, "temp": {"value": 300.0, "unit": ""}}, 300.0),
        ({"attempt": {"value": 3, "unit": None}}, None),
        ({"temperature": {"value": None, "unit": None}}, None),
    ],
)
def test_temperatures_of_sweeps(context, kelvin):
    assert temperatures.of_context(context) == kelvin

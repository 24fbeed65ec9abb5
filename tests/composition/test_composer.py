"""Composition on the wire: references in folders, spectra through the pipeline, words."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from exafsd.commands.cli import app
from exafsd.composition.composer import Composer
from exafsd.composition.references import (
    ReferenceFileError,
    add,
    load,
    measured,
    remove,
    shipped_folder,
)
from exafsd.contract.columns import fields, parameters
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.settings import load as load_settings
from exafsd.settings.analysis import Analysis, Composition, Reduction
from exafsd.spectra import Edge, Run, Sweep

ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9360.0, 1.0)])


@pytest.fixture(scope="module")
def references():
    return load([shipped_folder()])[0]


@pytest.fixture
def pipe(references):
    return Pipeline(Registry({}, {}), (), composer=Composer(references))


def mu_of(references, **shares):
    by_name = {one.name: one for one in references}
    mu = sum(
        share * np.interp(ENERGY, by_name[name].energy, by_name[name].mu)
        for name, share in shares.items()
    )
    return mu + 3e-4 * np.random.default_rng(0).normal(size=len(ENERGY)) + 0.2


def result(pipe, mu, edge=("Cu", "K"), signal="mutrans", room=True, number=1, **composition):
    analysis = Analysis(
        reduction=Reduction(channels=("transmission", "fluorescence")),
        composition=Composition(**composition),
    )
    run = Run(uid="r", edges=(Edge(*edge),), analysis=analysis)
    ((outcome,),) = pipe.process_many([Sweep(run, "primary", number, ENERGY, {signal: mu})], room)
    return outcome.message


def shares(message):
    return {one.phase: one.value for one in message.composition.fractions}


def test_a_mixture_has_its_shares_in_the_message_and_the_tables(pipe, references):
    message = result(pipe, mu_of(references, Cu=0.3, CuO=0.7))
    composition = message.composition
    assert composition.in_domain
    assert composition.method == "lcf"
    assert shares(message)["CuO"] == pytest.approx(0.7, abs=0.03)
    assert sum(shares(message).values()) == pytest.approx(1.0)
    header = json.loads(message.model_dump_json())
    row = fields(header)
    assert row["share_CuO"] == pytest.approx(0.7, abs=0.03)
    assert row["share_CuO_std"] > 0
    assert row["shares_in_domain"]
    assert "CuO/share" in {one.name for one in parameters(header)}


def test_only_the_phases_that_are_asked_for(pipe, references):
    message = result(pipe, mu_of(references, Cu=0.5, Cu2O=0.5), phases=("Cu", "Cu2O"))
    assert set(shares(message)) == {"Cu", "Cu2O"}
    composition = result(
        pipe, mu_of(references, Cu=1.0), phases=("Cu", "Cu3N"), number=2
    ).composition
    assert not composition.in_domain
    assert "no reference Cu3N" in composition.reason


def test_something_else_is_told_in_words(pipe, references):
    composition = result(pipe, mu_of(references, CuO=1.0), phases=("Cu", "Cu2O")).composition
    assert not composition.in_domain
    assert composition.reason.startswith("something else is there")
    assert composition.other.value > 5 * composition.other.std


def test_energies_that_are_far_off_are_told(pipe, references):
    mu = mu_of(references, Cu=1.0)
    run = Run(uid="r", edges=(Edge("Cu", "K"),), analysis=Analysis())
    sweep = Sweep(run, "primary", 1, ENERGY + 2.5, {"mutrans": mu})
    composition = pipe.process(sweep)[0].message.composition
    assert not composition.in_domain
    assert "calibrate" in composition.reason


def test_where_there_is_no_time_or_nothing_to_compare_there_is_none(pipe, references):
    mu = mu_of(references, Cu=1.0)
    assert result(pipe, mu, room=False).composition is None
    assert result(pipe, mu, room=False, enabled="always", number=2).composition is not None
    assert result(pipe, mu, enabled="off", number=3).composition is None
    without = Pipeline(Registry({}, {}), ())
    assert result(without, mu).composition is None


def test_a_run_may_name_its_phases():
    analysis = Analysis().for_run({"exafsd": {"phases": ["Cu", "Cu2O"]}})
    assert analysis.composition.phases == ("Cu", "Cu2O")
    assert Analysis().canonical.count(b"composition") == 0  # the hash is as it was
    assert b"composition" in analysis.canonical


def test_a_broken_composer_leaves_the_result(references, monkeypatch, caplog):
    composer = Composer(references)
    pipe = Pipeline(Registry({}, {}), (), composer=composer)
    monkeypatch.setattr(Composer, "__call__", lambda *_: 1 / 0)
    assert result(pipe, mu_of(references, Cu=1.0)).composition is None
    assert "composition failed" in caplog.text
    caplog.clear()


def test_references_are_added_listed_shown_and_removed(tmp_path, references):
    cu2o = next(one for one in references if one.name == "Cu2O")
    file, out = tmp_path / "scan.dat", tmp_path / "refs"
    rows = zip(cu2o.energy, cu2o.mu, strict=True)
    file.write_text("# energy mutrans\n" + "\n".join(f"{e} {m}" for e, m in rows))
    run = CliRunner()
    done = run.invoke(app, ["references", "add", "mine", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "Cu K" in done.output
    listed = run.invoke(app, ["references", "list", str(out)])
    assert "mine" in listed.output
    shown = run.invoke(app, ["references", "show", "mine", str(out)])
    assert "scan.dat" in shown.output
    again = run.invoke(app, ["references", "add", "mine", str(file), "--out", str(out)])
    assert again.exit_code == 1
    assert "exists already" in again.output
    (added,) = [one for one in load([out])[0] if one.name == "mine"]
    np.testing.assert_array_equal(added.mu, measured(file).mu)
    assert run.invoke(app, ["references", "remove", "mine", "--out", str(out)]).exit_code == 0
    assert load([out]) == ([], [])


def test_a_folders_reference_takes_the_place_of_a_shipped_one(tmp_path, references):
    add(tmp_path, "Cu", next(one.file for one in references if one.name == "Cu2O"))
    loaded, _ = load([shipped_folder(), tmp_path])
    (copper,) = [one for one in loaded if one.name == "Cu"]
    assert copper.file.parent == tmp_path


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../up", "# energy mutrans\n", "cannot be a reference's name"),
        ("short", "# energy mutrans\n" + "\n".join(f"{e} {e / 9e3}" for e in range(8900, 9050)),
         "short|edge|reach"),
        ("empty", "nothing\n", "no table of numbers"),
    ],
)  # fmt: skip
def test_what_is_no_reference_says_why(tmp_path, name, content, why):
    file = tmp_path / "file.dat"
    file.write_text(content)
    with pytest.raises(ReferenceFileError, match=why):
        add(tmp_path / "refs", name, file)
    assert not (tmp_path / "refs").exists()


def test_a_bad_file_in_a_folder_is_told_and_the_others_serve(tmp_path, references):
    add(tmp_path, "good", references[0].file)
    (tmp_path / "bad.xdi").write_text("# XDI/1.0\n# Column.1: energy eV\n1 2\n")
    loaded, refused = load([tmp_path, tmp_path / "nowhere"])
    assert [one.name for one in loaded] == ["good"]
    assert len(refused) == 2
    with pytest.raises(ReferenceFileError, match="no reference missing"):
        remove(tmp_path, "missing")


def named(references, name, new):
    return replace(next(one for one in references if one.name == name), name=new)


def test_equal_references_cannot_be_told_apart(references):
    mu = mu_of(references, Cu=0.3, CuO=0.7)
    copper = [one for one in references if one.edge.element == "Cu"]
    for extra in (["CuO"], ["CuO", "Cu"]):  # five of an edge, and six
        twice = copper + [named(copper, name, f"{name}_again") for name in extra]
        pipe = Pipeline(Registry({}, {}), (), composer=Composer(twice))
        composition = result(pipe, mu).composition
        assert not composition.in_domain
        assert "told apart" in composition.reason or "would do as well" in composition.reason


def test_a_name_counts_once(pipe, references):
    message = result(pipe, mu_of(references, Cu=0.3, CuO=0.7), phases=("Cu", "CuO", "Cu"))
    assert [one.phase for one in message.composition.fractions] == ["Cu", "CuO"]


def test_phases_that_leave_nothing_to_compare_say_so(pipe, references):
    for number, phases in enumerate((("Cu",), ("Cu", "ZnO"))):
        composition = result(
            pipe, mu_of(references, Cu=1.0), phases=phases, number=number
        ).composition
        assert "fewer than 2" in composition.reason


def test_more_than_ten_are_too_many(references):
    many = references + [named(references, "Cu", f"Cu{i}") for i in range(9)]
    pipe = Pipeline(Registry({}, {}), (), composer=Composer(many))
    mu = mu_of(references, Cu=1.0)
    assert "more than 10" in result(pipe, mu).composition.reason
    assert result(pipe, mu, phases=("Cu", "CuO"), number=2).composition.in_domain


@pytest.mark.expects_error_log
def test_spectra_of_a_batch_know_nothing_of_each_other(references, monkeypatch):
    composer = Composer(references)
    pipe = Pipeline(Registry({}, {}), (), composer=composer)
    runs = [Run(uid=name, edges=(Edge("Cu", "K"),), analysis=Analysis(
        composition=Composition(phases=phases))) for name, phases in (("a", ()), ("b", ("No",)))
    ]  # fmt: skip
    mu = mu_of(references, Cu=1.0)
    sweeps = [Sweep(run, "primary", 1, ENERGY, {"mutrans": mu}) for run in runs]
    good, bad = (outcomes[0].message.composition for outcomes in pipe.process_many(sweeps))
    assert good.in_domain
    assert bad.references == []
    called = Composer.__call__

    def breaks(self, spectra):
        if any(one.id.sweep.run.uid == "b" for one in spectra):
            raise RuntimeError
        return called(self, spectra)

    monkeypatch.setattr(Composer, "__call__", breaks)
    good, bad = (outcomes[0].message.composition for outcomes in pipe.process_many(sweeps))
    assert good.in_domain
    assert bad is None


def test_a_sweep_that_was_cut_short_is_not_averaged_into_a_reference(tmp_path, references):
    copper = next(one for one in references if one.name == "Cu")
    whole = list(zip(copper.energy, copper.mu, strict=True))
    short = [(e, m + 0.3) for e, m in whole if e < 9150]
    file = tmp_path / "two.dat"
    file.write_text("# energy mutrans\n" + "\n".join(f"{e} {m}" for e, m in whole + short))
    np.testing.assert_allclose(measured(file).mu, copper.mu)


@pytest.mark.parametrize("name", ["a,b", "new\nline", "[bold]", "Δ"])
def test_names_that_would_spoil_tables_are_refused(tmp_path, references, name):
    (tmp_path / f"{name}.XDI").write_bytes(references[0].file.read_bytes())
    loaded, refused = load([tmp_path])
    assert loaded == []
    assert "cannot be a reference's name" in refused[0]
    listed = CliRunner().invoke(app, ["references", "list", str(tmp_path)])
    assert listed.exit_code == 1


def test_odd_bytes_in_names_and_headers_do_not_stop_the_commands(tmp_path, references):
    file = tmp_path / os.fsdecode(b"\xff.dat")
    rows = zip(references[0].energy, references[0].mu, strict=True)
    file.write_text("# energy mutrans\n" + "\n".join(f"{e} {m}" for e, m in rows))
    add(tmp_path / "[/x]", "odd", file, references[0].edge)
    odd_file = tmp_path / "[/x]" / "odd.xdi"
    odd_file.write_bytes(
        odd_file.read_bytes().replace(b"Exafsd.channel", b"Exafsd.note: \xe9\n# Exafsd.channel")
    )
    for command in ("list", "show"):
        arguments = [*(["odd"] if command == "show" else []), str(tmp_path / "[/x]")]
        assert CliRunner().invoke(app, ["references", command, *arguments]).exit_code == 0


def test_what_is_in_the_folders_decides_the_hash_and_not_where_they_are(tmp_path, references):
    def sha256(folder):
        (tmp_path / "e.toml").write_text(f'[composition]\nreferences = ["{folder}"]\n')
        return load_settings(tmp_path / "e.toml").analysis

    for folder in ("a", "b"):
        add(tmp_path / folder, "Cu", references[0].file)
    first, same = sha256(tmp_path / "a"), sha256(tmp_path / "b")
    assert first.sha256 == same.sha256
    assert str(tmp_path).encode() not in first.canonical
    add(tmp_path / "b", "more", references[1].file)
    assert sha256(tmp_path / "b").sha256 != first.sha256
    assert sha256(tmp_path / "nowhere").composition.contents == ("",)

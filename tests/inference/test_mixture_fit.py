"""EXAFS of mixtures: which phases get numbers, what these are, and why others get none."""

import io

import numpy as np
import pytest
from rich.console import Console

from exafsd.commands.terminal import ResultTable
from exafsd.composition.composer import Composer
from exafsd.composition.references import load
from exafsd.composition.references import shipped_folder as references_folder
from exafsd.contract.columns import fields, mixture_columns, parameters, scalars
from exafsd.contract.messages import Composition as Said
from exafsd.dashboard.state import point_of
from exafsd.inference.mixture_fit import Mixtures, Question
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.reduction.reducer import Reducer
from exafsd.settings.analysis import Analysis, Composition
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.oxide_to_copper import OxideToCopper

COPPER = ("cu-k-cuo", "cu-k-cu2o", "cu-k-fcc")
#: K: CuO alone, CuO with Cu2O, little and much Cu with Cu2O
KELVIN = {"pure": 300.0, "near": 480.0, "little": 640.0, "even": 680.0, "much": 700.0}


def pipeline(names=COPPER):
    registry = Registry({name: load_bundle(shipped_folder() / name) for name in names}, {})
    return Pipeline(registry, (), composer=Composer(load([references_folder()])[0]))


def sweeps(counted, **settings):
    said = Composition(phases=("Cu", "Cu2O", "CuO"), **settings)
    run = Run(uid="run", edges=(Edge("Cu", "K"),), analysis=Analysis(composition=said))
    return [
        Sweep(run, "primary", i, one.energy, {"i0": one.i0, "it": one.it}, truth=one.truth)
        for i, one in enumerate(counted.values(), 1)
    ]


@pytest.fixture(scope="module")
def counted():
    sample, rng = OxideToCopper(temperatures=(300.0, 800.0)), np.random.default_rng(0)
    return {name: sample.sweep(kelvin, "up", rng) for name, kelvin in KELVIN.items()}


@pytest.fixture(scope="module")
def messages(counted):
    done = pipeline().process_many(sweeps(counted))
    return {name: outcomes[0].message for name, outcomes in zip(counted, done, strict=True)}


def phases(message):
    return {one.phase: one for one in message.mixture.phases}


@pytest.mark.parametrize("name", ["even", "much"])
def test_each_phase_has_its_distance(messages, name):
    message = messages[name]
    for phase in ("Cu", "Cu2O"):
        one = phases(message)[phase]
        r, truth = one.shells[0].r, message.truth[f"r_{phase}"]
        assert one.reason is None
        assert one.shells[0].id == f"{phase}/1"
        assert abs(r.value - truth) < max(0.02, 1.645 * r.std)
        assert r.std < 0.026
    assert 0 < message.mixture.r_factor < 0.05


def test_the_error_of_n_holds_that_of_the_share(messages):
    for one in messages["even"].mixture.phases:
        if one.shells:
            n = one.shells[0].n_s02
            assert n.std / n.value > one.share.std / one.share.value


def test_shells_nearer_than_the_resolution_are_not_told_apart(messages):
    both = phases(messages["near"])
    assert both["CuO"].shells
    assert not both["Cu2O"].shells
    assert both["Cu2O"].e0_shift is None
    assert "angstrom from that of CuO" in both["Cu2O"].reason


def test_a_small_share_has_a_reason_and_no_numbers(messages):
    both = phases(messages["little"])
    assert 0.03 < both["Cu"].share.value < 0.1
    assert not both["Cu"].shells
    assert both["Cu"].reason == "its share is below 0.1"
    assert both["Cu2O"].shells
    assert "left out" in both["CuO"].reason


def test_one_phase_is_no_mixture(messages):
    mixture = messages["pure"].mixture
    assert mixture.phases == []
    assert mixture.reason.startswith("it is one phase")


def test_a_phase_without_a_model_is_named(counted):
    (outcome,) = pipeline(("cu-k-cu2o", "cu-k-fcc")).process_many(sweeps(counted))[1]
    assert outcome.message.mixture.reason.startswith("there is no model of CuO")


def test_a_doubtful_composition_says_why_there_is_no_fit():
    said = Said(references=[], fractions=[], in_domain=False, reason="something else is there")
    (mixture,) = Mixtures(Reducer())([Question(None, (), 0.0, said, dict)])
    assert (mixture.phases, mixture.reason) == ([], "something else is there")


@pytest.mark.parametrize(
    ("exafs", "room", "fitted"),
    [("auto", True, True), ("auto", False, False), ("always", False, True), ("off", True, False)],
)
def test_the_setting_and_the_load_decide(counted, exafs, room, fitted):
    even = {"even": counted["even"]}
    jobs = sweeps(even, exafs=exafs, enabled="always")
    ((outcome,),) = pipeline().process_many(jobs, room)
    assert (outcome.message.mixture is not None) is fitted


def test_one_by_one_is_as_together(counted, messages):
    pipe = pipeline()
    alone = {
        name: pipe.process(sweep)[0].message
        for name, sweep in zip(counted, sweeps(counted), strict=True)
    }
    for name in ("even", "much"):
        for one, other in zip(phases(alone[name]).values(), messages[name].mixture.phases,
                              strict=True):  # fmt: skip
            if one.shells:
                r, same = one.shells[0].r, other.shells[0].r
                assert r.value == pytest.approx(same.value, abs=0.05 * r.std)


@pytest.mark.expects_error_log
def test_a_fit_that_fails_costs_no_answer(counted, monkeypatch):
    pipe = pipeline()
    monkeypatch.setattr(pipe, "_mixtures", lambda questions: 1 / 0)
    (outcome,) = pipe.process_many(sweeps(counted))[3]
    assert outcome.message.mixture is None
    assert outcome.message.composition.in_domain


def test_tables_have_the_phases(messages):
    header = messages["even"].model_dump(mode="json", by_alias=True)
    row, copper = fields(header), phases(messages["even"])["Cu"].shells[0]
    assert row["mixture_r_Cu"] == copper.r.value
    assert row["mixture_sigma2_Cu_std"] == copper.sigma2.std
    assert row["mixture_reason"] is None
    named = {one.name: one.value for one in parameters(header)}
    assert named["Cu/1/r/mixture"] == copper.r.value
    card = load_bundle(shipped_folder() / "cu-k-fcc").card
    assert {"Cu_1_r_mixture", "Cu_1_r_mixture_std"} <= {*mixture_columns(card)}
    assert {*mixture_columns(card)} <= {*scalars(header)}


def test_the_page_draws_every_phase(messages):
    header = messages["even"].model_dump(mode="json", by_alias=True)
    point = point_of(header)
    shell = phases(messages["even"])["Cu2O"].shells[0]
    assert point.shells["Cu2O/1"]["r"] == (shell.r.value, shell.r.std)
    assert {"Cu/1", "Cu2O/1"} <= {*point.mixed}
    assert point.kind == ("flagged" if header["shells"] else "withheld")


def test_the_terminal_has_the_distances(messages):
    table, shown = ResultTable(), Console(file=io.StringIO(), width=400)
    table.add(messages["even"].model_dump(mode="json", by_alias=True), "here")
    shown.print(table.render())
    r = phases(messages["even"])["Cu"].shells[0].r
    assert f"Cu {r.value:.3f}({r.std * 1e3:.0f})" in shown.file.getvalue()

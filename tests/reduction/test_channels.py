"""Which spectra a sweep gives: signs, missing detectors, guessed edges, the foil, revisions."""

from dataclasses import replace

import numpy as np
import pytest
import xraydb

from exafsd.contract.frames import ARRAY_UNITS, Message, latest
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.reduction import edges
from exafsd.reduction.columns import absorption, absorptions
from exafsd.settings.analysis import Analysis, Average, Calibration, Reduction
from exafsd.spectra import Edge, Rejected, Run, Spectrum, SpectrumError, Sweep
from reducing import Preparation
from synthetic import foil

RUN = Run("r", edges=(Edge("Cu", "K"),))


def a_sweep(run=RUN, number=1, e0=8979.0, behind=None, signs=(1, 1, 1), seed=0, **more):
    """Sweep of a sample with the edge at `e0`, and a foil behind it with its own, or none."""
    low, high = min(e0, behind or e0) - 200, max(e0, behind or e0) + 900
    energy, mu = foil(800, 1e-4, e0, seed, low, high)
    second = np.full(800, 0.5) if behind is None else foil(800, 0.0, behind, seed, low, high)[1]
    i0 = np.full(800, 1e6)
    signals = {"i0": i0, "it": i0 * np.exp(-mu), "ir": i0 * np.exp(-mu - second)}
    signals = {name: sign * signals[name] for name, sign in zip(signals, signs, strict=True)}
    return replace(Sweep(run, "primary", number, energy, signals, "up"), **more)


def outcomes(*sweeps, analysis=None):
    pipeline = Pipeline(Registry({}, {}), tuple(ARRAY_UNITS))
    named = [replace(s, run=replace(s.run, analysis=analysis or Analysis())) for s in sweeps]
    return [[outcome.message for outcome in pipeline.process(sweep)] for sweep in named]


def test_two_negative_currents_are_as_good_as_two_positive_ones():
    (upright,), (inverted,) = (
        Preparation().spectra(a_sweep(signs=signs), transmission())
        for signs in ((1, 1, 1), (-1, -1, -1))
    )
    np.testing.assert_allclose(inverted.mu, upright.mu)
    assert inverted.quality == upright.quality == ()


def transmission(**more):
    return Analysis(reduction=Reduction(channels=("transmission",), **more))


def test_one_negative_current_is_rejected_with_what_to_do():
    (one,) = Preparation().spectra(a_sweep(signs=(-1, 1, 1)), transmission())
    assert one.error.reason is Reason.I0_ZERO
    assert "adapter.gain.i0 = -1" in one.error.detail


@pytest.mark.parametrize(
    ("missing", "rejected", "channels"),
    [
        ({"i0"}, {"transmission"}, {"reference"}),
        ({"i0", "ir"}, {"transmission"}, set()),
        ({"i0", "it", "ir"}, {"fluorescence"}, set()),
        ({"iff"}, set(), {"transmission", "reference"}),
    ],
)
def test_a_missing_i0_is_a_rejection_that_says_so(missing, rejected, channels):
    sweep = a_sweep(behind=8979.0)
    signals = {**sweep.signals, "iff": sweep.signals["i0"]}
    if missing >= {"i0"} and "it" not in missing:
        del signals["iff"]
    signals = {name: column for name, column in signals.items() if name not in missing}
    spectra = Preparation().spectra(replace(sweep, signals=signals), Analysis())
    bad = [one for one in spectra if isinstance(one, Rejected)]
    assert {one.id.channel for one in bad} == rejected
    assert all("i0 is missing" in one.error.detail for one in bad)
    assert {one.id.channel for one in spectra if isinstance(one, Spectrum)} == channels


@pytest.mark.parametrize(
    ("e0", "named"),
    [(8979.0, "Cu K"), (8983.0, "Cu K"), (7112.0, "Fe K"), (8339.0, "Ni K"), (11564.0, "Pt L3"),
     (5989.0, "Cr K"), (9664.0, "Zn K"), (20000.0, "Mo K")],
)  # fmt: skip
def test_an_edge_is_guessed_where_only_one_can_be_meant(e0, named):
    edge = edges.guess(e0)
    assert f"{edge.element} {edge.edge}" == named


@pytest.mark.parametrize(
    ("e0", "names"), [(11550.0, ("Pt L3", "W L2")), (8346.0, ("Ni K", "Er L3"))]
)
def test_no_edge_is_guessed_between_two(e0, names):
    with pytest.raises(SpectrumError) as error:
        edges.guess(e0)
    assert all(name in error.value.detail for name in names)


def test_a_guess_is_never_wrong_about_what_it_was_told():
    """With no more than 10 eV of error a guess is the edge itself, or none is made."""
    wrong = []
    for number in range(22, 93):
        for edge in ("K", "L3"):
            element = xraydb.atomic_symbol(number)
            energy = edges.energy_or_zero(element, edge)
            for off in (-10, -5, 0, 5, 10) if 4000 < energy < 40000 else ():
                try:
                    guessed = edges.guess(energy + off)
                except SpectrumError:
                    continue
                wrong += [] if guessed == Edge(element, edge) else [(element, edge, off, guessed)]
    assert wrong == []


def test_an_edge_that_is_declared_without_its_element_is_kept():
    assert edges.guess(11550.0, "L3") == Edge("Pt", "L3")


def test_the_reference_channel_is_of_the_run_s_own_edge_where_the_foil_has_it():
    declared, unnamed = outcomes(a_sweep(behind=8979.0), a_sweep(Run("u"), behind=8979.0))
    for messages, guessed in ((declared, []), (unnamed, ["element", "edge"])):
        assert [(m.channel, m.element, m.edge) for m in messages] == [
            ("transmission", "Cu", "K"), ("reference", "Cu", "K"),
        ]  # fmt: skip
        assert [m.guessed for m in messages] == [guessed, guessed]


def test_a_foil_of_another_element_is_named_for_what_it_is():
    (messages,) = outcomes(a_sweep(behind=9659.0))
    assert [(m.kind, m.element) for m in messages] == [("result", "Cu"), ("result", "Zn")]
    assert [m.guessed for m in messages] == [[], ["element", "edge"]]


def test_that_there_is_no_foil_is_said_once():
    first, second, third = outcomes(
        a_sweep(), a_sweep(number=2, seed=1), a_sweep(number=3, behind=8979.0)
    )
    assert [(m.channel, m.kind) for m in first] == [
        ("transmission", "result"), ("reference", "rejected"),
    ]  # fmt: skip
    assert first[1].reason == "no_foil"
    assert [m.channel for m in second] == ["transmission"]
    assert [m.kind for m in third] == ["result", "result"]


def steps(outcomes):
    return [[m.edge_step.value for m in own] for own in outcomes]


def test_a_revision_is_published_under_its_id_and_counts_once():
    analysis = transmission(average=Average(n=2), calibration=Calibration(source="foil"))
    sweeps = [a_sweep(number=n, behind=8979.0, seed=n) for n in (1, 2, 3)]
    again = a_sweep(number=2, behind=8979.0, seed=7, revision=2)
    plain = outcomes(*sweeps, analysis=analysis)
    better = outcomes(sweeps[0], replace(again, revision=1), sweeps[2], analysis=analysis)
    revised = outcomes(*sweeps[:2], again, sweeps[2], analysis=analysis)
    (one,) = revised.pop(2)
    assert (one.id, one.revision) == (plain[1][0].id, 2)
    assert steps(revised[:2]) == steps(plain[:2])
    np.testing.assert_allclose(steps(revised[2:]), steps(better[2:]))  # the average has it, too
    messages = [Message("", m.model_dump(), {}) for m in (*revised[1], one, *revised[2])]
    newest = [(m.header["id"], m.header["revision"]) for m in latest(messages)]
    assert (one.id, 2) in newest and (one.id, 1) not in newest
    assert len(newest) == len(messages) - 1


def spoiled(sweep, place, value, *names):
    """The sweep with another value at one point of its energies or signals."""
    changes = {}
    for name in names:
        array = (sweep.energy if name == "energy" else sweep.signals[name]).copy()
        array[place] = value
        changes[name] = array
    energy = changes.pop("energy", sweep.energy)
    return replace(sweep, energy=energy, signals={**sweep.signals, **changes})


def test_a_batch_is_what_its_sweeps_are_one_by_one():
    """Whatever is wrong with some of them: what needs a second look gets it."""
    good = a_sweep()
    backwards = replace(
        good, energy=good.energy[::-1], signals={n: one[::-1] for n, one in good.signals.items()}
    )
    sweeps = [
        good, backwards, replace(good, flags=(Flag.GAP,)), replace(good, energy=good.energy / 1e3),
        spoiled(good, 5, np.nan, "it"), spoiled(good, 5, 0.0, "i0"), spoiled(good, 5, np.inf, "it"),
        spoiled(good, 5, np.nan, "energy"), spoiled(good, 9, good.energy[8], "energy"),
        spoiled(good, 9, good.energy[20], "energy"), a_sweep(signs=(-1, -1, -1)),
        replace(good, energy=good.energy[:700]),
        replace(good, energy=good.energy[:3], signals={n: v[:3] for n, v in good.signals.items()}),
        replace(good, signals={"i0": good.signals["i0"]}),
        replace(good, signals={"mutrans": np.log(good.signals["i0"] / good.signals["it"])}),
        replace(good, broken=SpectrumError(Reason.NON_FINITE, "broken")),
    ]  # fmt: skip
    settings, plain = Reduction(), Analysis().adapter
    limits = {"saturation": {"it": 1e9}, "low_flux": {"i0": 1e7}}
    for adapter in (plain, plain.model_copy(update=limits)):
        together = absorptions(sweeps, "transmission", adapter, settings)
        for one, batched in zip(sweeps, together, strict=True):
            if batched is not None:
                energy, mu, flags = absorption(one, "transmission", adapter, settings)
                np.testing.assert_array_equal(batched[0], energy)
                np.testing.assert_array_equal(batched[1], mu)
                assert batched[2] == flags
        ready = [i for i, one in enumerate(together) if one is not None]
        assert ready == ([14] if adapter.saturation else [0, 1, 2, 14])
    analysis = transmission()
    named = [
        replace(one, number=i + 1, run=replace(one.run, analysis=analysis))
        for i, one in enumerate(sweeps)
    ]
    batch, alone = (Pipeline(Registry({}, {}), tuple(ARRAY_UNITS)) for _ in range(2))
    together = [one for outcomes in batch.process_many(named) for one in outcomes]
    single = [one for sweep in named for one in alone.process(sweep)]
    for one, other in zip(together, single, strict=True):
        assert (one.message.id, one.message.kind) == (other.message.id, other.message.kind)
        assert one.message.quality == other.message.quality
        for name, array in other.arrays.items():
            np.testing.assert_allclose(one.arrays[name], array, rtol=1e-6, atol=1e-9)

"""How many components runs have: mixtures of references, with jitter, heat and noise."""

import json
import pickle

import numpy as np
import pytest

from exafsd.composition.components import ComponentSeries, count_all
from exafsd.composition.composer import Composer
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.references import measured as scan_of
from exafsd.composition.xanes import near_edges
from exafsd.contract.columns import fields, parameters, scalars
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.reduction.edges import edge_energy
from exafsd.settings.analysis import Analysis, Composition, Reduction
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.oxide_to_copper import OxideToCopper
from near_edge_runs import EDGES, measured, ramp, smooth, smooth_references

SWEEPS = 60


@pytest.fixture(scope="module")
def shapes():
    return smooth_references()


CASES = {
    "quiet": {}, "jitter": {"jitter": 0.1}, "heat": {"heat": 0.012},
    "both": {"jitter": 0.1, "heat": 0.012, "noise": 3e-4}, "noisy": {"noise": 5e-3},
}  # fmt: skip
SAMPLES = [["Cu"], ["CuO"], ["ZnS"], ["CuO", "Cu"], ["CuO", "Cu2O"], ["ZnS", "ZnO"],
           ["CuO", "Cu2O", "Cu"], ["ZnS", "ZnO", "ZnCO3"]]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("names", SAMPLES, ids="-".join)
def test_components_are_counted_right(shapes, names, case):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shares = ramp(len(names), SWEEPS)
        if seed:  # in any order, as of points of a map
            shares = rng.dirichlet(np.ones(len(names)), SWEEPS)
        counted = count_all(near_edges(*measured(shapes, names, shares, rng, **CASES[case])))
        assert (counted.by_noise, counted.by_structure) == (len(names), len(names))


@pytest.mark.parametrize("names", [["ZnS"], ["CuO", "Cu2O"]], ids="-".join)
def test_much_jitter_is_beyond_the_noise_but_no_spectrum(shapes, names):
    """0.2 eV, points 0.7 eV apart: what lies between the points moves as well."""
    rng = np.random.default_rng(0)
    counted = count_all(
        near_edges(*measured(shapes, names, ramp(len(names), SWEEPS), rng, jitter=0.2))
    )
    assert counted.by_structure == len(names)
    assert counted.by_noise <= len(names) + 1


def test_a_new_component_is_told_soon_and_a_disturbed_sweep_is_none(shapes):
    rng = np.random.default_rng(0)
    shares = np.array([[1.0, 0.0]] * 40 + [[0.7, 0.3]] * 10)
    energy, mus, edge = measured(shapes, ["CuO", "Cu2O"], shares, rng)
    mus[20] += np.where(energy > edge + 20, 0.1, 0.0)  # the beam was lost for a moment
    series, counts = ComponentSeries(), []
    for one in near_edges(energy, mus, edge):
        series.follow(one.flat[None, 10:90], [one.noise], [1])
        counts.append(series.latest and (series.latest.by_noise, series.latest.by_structure))
    assert counts[:4] == [None] * 4
    assert counts[4:40] == [(1, 1)] * 36
    assert (2, 2) in counts[40:45]


def test_the_demo_has_one_then_two_then_three_however_hot_it_gets():
    oxide, rng, counts = OxideToCopper(), np.random.default_rng(0), {}
    series = ComponentSeries()
    for kelvin in np.linspace(300, 800, 150):
        counted = oxide.sweep(kelvin, "up", rng)
        (one,) = near_edges(counted.energy, np.log(counted.i0 / counted.it)[None], EDGES["Cu"])
        series.follow(one.flat[None, 10:90], [one.noise], [1])
        if series.latest is not None:
            counts[kelvin] = series.latest.by_noise, series.latest.by_structure
    assert {n for kelvin, n in counts.items() if kelvin < 420} == {(1, 1)}
    assert {n for kelvin, n in counts.items() if 470 < kelvin < 620} == {(2, 2)}
    assert {n for kelvin, n in counts.items() if kelvin > 670} == {(3, 3)}


def test_what_is_said_does_not_depend_on_how_many_come_at_once(shapes):
    rng = np.random.default_rng(0)
    shares = np.array([[1.0, 0.0]] * 40 + [[0.7, 0.3]] * 40)
    energy, mus, edge = measured(shapes, ["CuO", "Cu2O"], shares, rng)
    mus[20] += np.where(energy > edge + 20, 0.1, 0.0)
    numbers = near_edges(energy, mus, edge)
    flats, noises = np.array([one.flat[10:90] for one in numbers]), [one.noise for one in numbers]
    repeats = [None if i % 11 == 5 else 1 for i in range(len(flats))]
    together = ComponentSeries().follow(flats, noises, repeats)
    for size in (1, 7, 64):
        series, components = ComponentSeries(), []
        for begin in range(0, len(flats), size):
            part = slice(begin, begin + size)
            components += series.follow(flats[part], noises[part], repeats[part])
        assert components == together
    assert together[-1].count == 2
    assert len(together[-1].scores) == 1


def test_its_size_does_not_grow(shapes):
    rng = np.random.default_rng(0)
    energy, mus, edge = measured(shapes, ["CuO", "Cu"], ramp(2, 400), rng)
    series, sizes = ComponentSeries(), []
    for one in near_edges(energy, mus, edge):
        series.follow(one.flat[None, 10:90], [one.noise], [1])
        sizes.append(len(pickle.dumps(series)))
    assert max(sizes) < 120_000
    assert max(sizes[:200]) > 0.95 * max(sizes)


@pytest.fixture
def pipe():
    return Pipeline(Registry({}, {}), (), composer=Composer(load([shipped_folder()])[0]))


def sweeps_of(shapes, names, edge, shares=None, **composition):
    rng = np.random.default_rng(1)
    shares = ramp(len(names), 20) if shares is None else shares
    energy, mus, _ = measured(shapes, names, shares, rng)
    analysis = Analysis(
        reduction=Reduction(channels=("transmission",)), composition=Composition(**composition)
    )
    run = Run(uid="r", edges=(edge,), analysis=analysis)
    return [Sweep(run, "primary", i + 1, energy, {"mutrans": mu}) for i, mu in enumerate(mus)]


def test_an_edge_without_references_has_components_alone(shapes):
    pipe = Pipeline(Registry({}, {}), ())
    messages = [pipe.process(one)[0].message
                for one in sweeps_of(shapes, ["CuO", "Cu"], Edge("Cu", "K"))]  # fmt: skip
    assert [one.composition is None for one in messages] == [True] * 4 + [False] * 16
    last = messages[-1].composition
    assert last.method == "components"
    assert (last.references, last.fractions, last.in_domain) == ([], [], False)
    assert last.components.count == 2
    scores = [one.composition.components.scores[0].value for one in messages[-12:]]
    assert np.all(np.diff(scores) > 0) or np.all(np.diff(scores) < 0)
    header = json.loads(messages[-1].model_dump_json())
    row = fields(header)
    assert row["components"] == row["components_by_noise"] == row["components_by_structure"] == 2
    assert row["component_2"] == scores[-1]
    assert "component/2" in {one.name for one in parameters(header)}
    assert scalars(header)["component_2"] == scores[-1]


def test_batches_do_not_matter(shapes, pipe):
    sweeps = sweeps_of(shapes, ["CuO", "Cu2O", "Cu"], Edge("Cu", "K"), ramp(3, 50))
    single = [pipe.process(one)[0].message.composition for one in sweeps]
    pipe.end("r")
    batches = [
        outcomes[0].message.composition
        for part in (sweeps[:7], sweeps[7:31], sweeps[31:])
        for outcomes in pipe.process_many(part)
    ]
    assert [one.components for one in single] == [one.components for one in batches]
    assert single[-1].components.count == 3
    assert single[-1].method == "lcf"
    assert single[-1].fractions


def test_without_time_there_are_components_and_they_are_as_with_it(shapes, pipe):
    sweeps = sweeps_of(shapes, ["CuO", "Cu"], Edge("Cu", "K"))
    whole = [pipe.process(one)[0].message.composition for one in sweeps]
    pipe.end("r")
    hurried = [pipe.process_many([one], room=False)[0][0].message.composition for one in sweeps]
    assert hurried[-1].method == "components"
    assert hurried[-1].components == whole[-1].components


def test_they_can_be_turned_off_without_another_hash(shapes, pipe):
    (first, *_) = sweeps_of(shapes, ["CuO", "Cu"], Edge("Cu", "K"), components=False)
    for sweep in sweeps_of(shapes, ["CuO", "Cu"], Edge("Cu", "K"), components=False):
        assert pipe.process(sweep)[0].message.composition.components is None
    named = Analysis(composition=Composition(phases=("Cu", "CuO")))
    assert b"components" not in named.canonical
    assert b"ends" not in named.canonical
    assert first.run.analysis.sha256 != named.sha256


REPEATED = [
    "As/as2o3_roomt_scan{}", "Cr/cr2o3_rt_00{}", "Cr/na2cro4_rt_00{}", "Ni/NiOH2_rt_0{}",
    "W/WO2_rt_0{}", "Zn/Chorover13BM_ZnS_aldrich_rt_0{}", "Zn/Chorover13BM_ZnC2O4_rt_0{}",
    "Sr/SrZrSi2O7_15K_0{}",
]  # fmt: skip


@pytest.mark.measured
@pytest.mark.parametrize("noise", [3e-4, 1e-3])
@pytest.mark.parametrize("name", REPEATED)
def test_what_repeated_scans_differ_by_is_no_component(data, name, noise):
    """Sweeps that are between three measured scans, now nearer to one and now to another."""
    scans = [scan_of(data / "xas" / f"{name.format(number)}.xdi") for number in (1, 2, 3)]
    energy, edge = scans[0].energy, scans[0].id.edge
    mus = np.array([np.interp(energy, one.energy, one.mu) for one in scans])
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.ones(3), 200) @ mus
    rows += noise * float(np.ptp(mus[0])) * rng.normal(size=rows.shape)
    counted = count_all(near_edges(energy, rows, edge_energy(edge.element, edge.edge)))
    assert (counted.by_noise, counted.by_structure) == (1, 1)


@pytest.mark.measured
@pytest.mark.parametrize("heat", [0.0, 0.012])
@pytest.mark.parametrize(
    "names",
    [["Zn/Chorover13BM_ZnS_aldrich_rt_0{}", "Zn/Chorover13BM_Zn_hopeite_rt_0{}"],
     ["Zn/Chorover13BM_ZnS_aldrich_rt_0{}", "Zn/Chorover13BM_Zn_hopeite_rt_0{}",
      "Zn/Chorover13BM_ZnC2O4_rt_0{}"]],
    ids=len,
)  # fmt: skip
def test_measured_compounds_are_counted_right_with_jitter_and_heat(data, names, heat):
    shapes = {}
    for name in names:
        scans = [scan_of(data / "xas" / f"{name.format(number)}.xdi") for number in (1, 2, 3)]
        shapes[name] = smooth([(one.energy, one.mu) for one in scans], EDGES["Zn"])
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shares = ramp(len(names), SWEEPS)
        if seed % 2:
            shares = rng.dirichlet(np.ones(len(names)), SWEEPS)
        spectra = measured(shapes, names, shares, rng, jitter=0.1, heat=heat, high=195.0)
        counted = count_all(near_edges(*spectra))
        assert (counted.by_noise, counted.by_structure) == (len(names), len(names))

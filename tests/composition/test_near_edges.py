"""Near edges of runs through the pipeline: numbers, batches, edges without a model, short scans."""

from dataclasses import replace

import numpy as np
import pytest

from exafsd.composition.change import ChangeDetector
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.xanes import near_edge_numbers
from exafsd.contract.columns import fields, scalars, units
from exafsd.contract.vocabulary import Flag
from exafsd.documents.files.reading import read_file
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.reduction.columns import absorption, channels_of
from exafsd.reduction.edges import edge_energy
from exafsd.settings.analysis import Analysis, Composition, Reduction
from exafsd.spectra import Edge, Run, Sweep
from synthetic import foil

EDGE = 8979.0
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


@pytest.fixture(scope="module")
def copper():
    return {one.name: one for one in load([shipped_folder()])[0] if one.edge.element == "Cu"}


def mu_of(copper, noise=0.0, seed=0, **shares):
    mu = sum(share * np.interp(ENERGY, copper[n].energy, copper[n].mu)
             for n, share in shares.items())  # fmt: skip
    return mu + noise * np.random.default_rng(seed).normal(size=len(ENERGY))


def sweeps_of(mus, energy=ENERGY, edge=("Cu", "K"), **reduction):
    """Sweeps of one run, every other one downwards."""
    analysis = Analysis(
        reduction=Reduction(channels=("transmission",), **reduction),
        composition=Composition(enabled="off"),
    )
    run = Run(uid="run", edges=(Edge(*edge),), analysis=analysis)
    for i, mu in enumerate(mus):
        way = "down" if i % 2 else "up"
        yield Sweep(run, "primary", i + 1, energy, {"mutrans": mu}, direction=way)


def headers(sweeps, batch=1):
    pipe, sweeps = Pipeline(Registry({}, {}), ()), list(sweeps)
    batches = [sweeps[i : i + batch] for i in range(0, len(sweeps), batch)]
    done = [one for some in batches for one in pipe.process_many(some)]
    return [outcome.message.model_dump(by_alias=True) for (outcome,) in done]


@pytest.mark.parametrize(
    ("name", "edge_energy", "white_line"), [("Cu2O", 8983.2, 1.13), ("CuO", 8988.8, 1.35)]
)
def test_error_bars_are_what_noise_does(copper, name, edge_energy, white_line):
    mus = [mu_of(copper, 1e-3, seed, **{name: 1.0}) for seed in range(200)]
    numbers = [near_edge_numbers(ENERGY, mu, EDGE) for mu in mus]
    assert np.mean([one.edge_energy[0] for one in numbers]) == pytest.approx(edge_energy, abs=0.2)
    assert np.mean([one.height[0] for one in numbers]) == pytest.approx(white_line, abs=0.02)
    for field in ("edge_energy", "height", "area"):
        value, std = np.array([getattr(one, field) for one in numbers]).T
        assert 0.7 < std.mean() / value.std() < 1.6, field


def test_scale_and_a_line_change_nothing(copper):
    mu = mu_of(copper, CuO=1.0)
    one = near_edge_numbers(ENERGY, mu, EDGE)
    other = near_edge_numbers(ENERGY, 3 * mu + 0.5 - 2e-4 * ENERGY, EDGE)
    np.testing.assert_allclose(one.flat, other.flat, atol=1e-9)


def test_rounding_does_not_decide_about_the_white_line(copper):
    # of a coarse scan whole bins lie between two points, and are equal but for rounding
    coarse = np.arange(8840.0, 9340.0, 3.1)
    foil = np.interp(coarse, copper["Cu"].energy, copper["Cu"].mu)
    rng = np.random.default_rng(1)
    heights = [
        near_edge_numbers(coarse, foil * (1 + 1e-15 * rng.normal(size=len(foil))), EDGE).height[0]
        for _ in range(100)
    ]
    assert np.ptp(heights) < 1e-9


def test_a_short_scan_of_an_edge_without_a_model_has_numbers():
    """A XANES scan of vanadium, 80 eV beyond the edge."""
    energy = np.arange(5410.0, 5545.0, 0.5)
    mu = 0.5 + np.arctan((energy - 5470.0) / 1.5) / np.pi + 0.3 / (1 + ((energy - 5476) / 3) ** 2)
    rng = np.random.default_rng(0)
    mus = [mu + 1e-3 * rng.normal(size=len(mu)) for _ in range(12)]
    last = headers(sweeps_of(mus, energy, ("V", "K"), k_max_min=3.0))[-1]
    assert last["shells"] is None
    assert last["xanes"]["state"] == "steady"
    assert last["xanes"]["edge_energy"]["value"] == pytest.approx(5469.5, abs=1.5)
    assert last["xanes"]["white_line"]["value"] > 1.2
    assert 0.3 < last["xanes"]["distance_first"] < 2


def test_a_scan_that_ends_at_the_edge_has_none(copper):
    assert near_edge_numbers(ENERGY[:90], mu_of(copper, Cu=1.0)[:90], EDGE) is None
    assert near_edge_numbers(ENERGY, 1 - 1e-4 * ENERGY, EDGE) is None


def test_no_scan_raises():
    """Odd grids and spectra have numbers or none."""
    rng = np.random.default_rng(7)
    numbers = 0
    for _ in range(400):
        low, high = EDGE + rng.uniform(-300, 20), EDGE + rng.uniform(-20, 900)
        grid = np.unique(rng.uniform(low, max(high, low + 1), rng.integers(20, 600)))
        if rng.random() < 0.5:
            grid = np.linspace(low, max(high, low + 1), len(grid))
        mu = rng.normal(size=len(grid)) * 10.0 ** rng.uniform(-6, 3)
        mu += rng.choice([0.0, 1.0, 1e3]) * (grid > EDGE + rng.uniform(-50, 50))
        one = near_edge_numbers(grid, mu, EDGE)
        detector = ChangeDetector()
        for sweep in range(3 if one is not None else 0):
            detector.follow([one], [sweep + 1])
        numbers += one is not None
    assert 50 < numbers < 350


def test_an_energy_scale_that_is_far_off_has_numbers(copper):
    mu = mu_of(copper, 1e-3, Cu2O=1.0)
    (one,) = headers(sweeps_of([mu], ENERGY - 25.0))
    assert one["xanes"]["edge_energy"]["value"] == pytest.approx(8983.2 - 25.0, abs=0.3)


@pytest.fixture(scope="module")
def reduction(copper):
    """Sixty sweeps of copper oxide that is reduced in ten of them."""
    parts = np.clip((np.arange(60) - 30) / 10, 0, 1)
    return list(sweeps_of([mu_of(copper, 1e-3, i, CuO=1 - p, Cu2O=p) for i, p in enumerate(parts)]))


def test_a_reduction_is_told_in_both_directions(reduction):
    xanes = [one["xanes"] for one in headers(reduction)]
    assert [one["state"] for one in xanes[20:30]] == ["steady"] * 10
    assert {one["state"] for one in xanes[36:40]} == {"changing"}
    assert {one["state"] for one in xanes[50:]} == {"steady"}
    assert all(31 <= one["change_point"] <= 35 for one in xanes[36:])
    assert xanes[58]["distance_first"] > 20
    assert xanes[58]["distance_previous"] < 1.5
    energies = [one["edge_energy"]["value"] for one in xanes]
    assert energies[0] - energies[-1] == pytest.approx(5.6, abs=0.3)


@pytest.mark.parametrize("batch", [3, 64])
def test_nothing_depends_on_the_batch(reduction, batch):
    alone, together = headers(reduction), headers(reduction, batch)
    assert [one["xanes"] for one in alone] == [one["xanes"] for one in together]


def test_sweeps_that_are_cut_or_repeated_are_not_in_the_series(reduction):
    cut = replace(reduction[4], flags=(Flag.PARTIAL,))
    again = replace(reduction[4], revision=2)
    sweeps = [*reduction[:4], cut, *reduction[5:10], again, *reduction[10:20]]
    xanes = [one["xanes"] for one in headers(sweeps)]
    assert xanes[4]["state"] is None
    assert xanes[10]["state"] is None
    assert xanes[10]["edge_energy"]["value"] == xanes[4]["edge_energy"]["value"]
    without = headers([*reduction[:4], *reduction[5:20]])
    assert xanes[-1] == without[-1]["xanes"]


def test_flat_columns_have_the_numbers(reduction):
    last = headers(reduction)[-1]
    row = fields(last)
    assert row["change"] == "steady"
    assert row["edge_energy"] == last["xanes"]["edge_energy"]["value"]
    assert row["distance_first"] == last["xanes"]["distance_first"]
    columns = scalars(last)
    assert columns["white_line_area_std"] == last["xanes"]["white_line_area"]["std"]
    assert columns["change_point"] == last["xanes"]["change_point"]
    assert units(last)["edge_energy"] == "eV"
    del last["xanes"]  # as an older daemon has it
    assert np.isnan(scalars(last)["edge_energy"])


def test_a_foil_of_a_synthetic_spectrum_is_steady():
    energy, _ = foil()
    mus = [foil(noise=1e-3, seed=i)[1] for i in range(40)]
    results = headers(sweeps_of(mus, energy))
    assert [one["xanes"]["state"] for one in results[-10:]] == ["steady"] * 10


REPEATED = [
    "As/as2o3_roomt_scan{}", "Cr/cr2o3_rt_00{}", "Cr/na2cro4_rt_00{}", "Ni/NiOH2_rt_0{}",
    "W/WO2_rt_0{}", "Zn/Chorover13BM_ZnS_aldrich_rt_0{}", "Zn/Chorover13BM_ZnC2O4_rt_0{}",
    "Sr/SrZrSi2O7_15K_0{}",
]  # fmt: skip


@pytest.mark.measured
@pytest.mark.parametrize("name", REPEATED)
def test_what_repeated_scans_differ_by_is_no_change(data, name):
    """Sweeps that are between three measured scans, now nearer to one and now to another."""
    scans = []
    for number in (1, 2, 3):
        analysis = Analysis()
        (sweep,) = read_file(data / "xas" / f"{name.format(number)}.xdi", analysis).sweeps
        channel = channels_of(sweep, ("transmission", "fluorescence"))[0]
        scans.append(absorption(sweep, channel, analysis.adapter, analysis.reduction)[:2])
    edge = sweep.run.edges[0]
    position, energy = edge_energy(edge.element, edge.edge), scans[0][0]
    mus = np.array([np.interp(energy, *scan) for scan in scans])
    numbers = near_edge_numbers(energy, mus[0], position)
    assert numbers is not None
    size = float(np.ptp(mus[0]))
    rng, alarms = np.random.default_rng(1), 0
    for memory in (0.0, 0.9):
        weights = np.full(3, 1 / 3)
        detector = ChangeDetector()
        for i in range(1000):
            weights = memory * weights + (1 - memory) * rng.dirichlet(np.ones(3))
            mu = weights @ mus + 3e-4 * size * rng.normal(size=len(energy))
            before = detector.change_point
            detector.follow([near_edge_numbers(energy, mu, position)], [i + 1])
            alarms += detector.change_point != before
    assert alarms <= 2

"""The simulated reduction: what is put in is what is read, from CuO over Cu2O to copper."""

import numpy as np
import pytest

from exafsd.composition.composer import Composer
from exafsd.composition.references import load
from exafsd.composition.references import shipped_folder as references_folder
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Composition
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.oxide_to_copper import PHASES as TRUTH
from exafsd.testing.oxide_to_copper import OxideToCopper, shares

PHASES = ("Cu", "Cu2O", "CuO")


@pytest.fixture(scope="module")
def outcomes():
    """Temperatures, and the sample's results, of 51 sweeps."""
    sample = OxideToCopper(temperatures=(300.0, 800.0))
    names = ("cu-k-cuo", "cu-k-cu2o", "cu-k-fcc")
    registry = Registry({name: load_bundle(shipped_folder() / name) for name in names}, {})
    pipe = Pipeline(registry, (), composer=Composer(load([references_folder()])[0]))
    analysis = Analysis(composition=Composition(phases=PHASES))
    run = Run(uid="run", edges=(Edge("Cu", "K"),), analysis=analysis)
    rng, sweeps = np.random.default_rng(0), []
    kelvin = np.linspace(300.0, 800.0, 51)
    for i, temperature in enumerate(kelvin):
        direction = "down" if i % 2 else "up"
        counts = sample.sweep(temperature, direction, rng)
        columns = {"i0": counts.i0, "it": counts.it, "ir": counts.ir}
        sweeps.append(
            Sweep(run, "primary", i + 1, counts.energy, columns, direction=direction,
                  truth=counts.truth)
        )  # fmt: skip
    results = [pipe.process(sweep)[0].message for sweep in sweeps]
    return list(zip(kelvin, results, strict=True))


def test_every_sweep_has_its_shares(outcomes):
    for kelvin, message in outcomes:
        composition = message.composition
        assert composition.in_domain, (kelvin, composition.reason)
        read = {one.phase: one.value for one in composition.fractions}
        for name, share in shares(kelvin).items():
            assert read.get(name, 0.0) == pytest.approx(share, abs=0.03), (kelvin, name)


def test_where_one_phase_is_alone_its_distance_is_read(outcomes):
    alone = {name: 0 for name in PHASES}
    for kelvin, message in outcomes:
        name, share = max(shares(kelvin).items(), key=lambda one: one[1])
        if share < 0.995 or not message.shells:
            continue
        shell = message.shells[0]
        if message.best == "polish":
            shell = message.polish.shells[0]
        assert shell.id == f"{name}/1"
        assert shell.r.value == pytest.approx(message.truth[f"r_{name}"], abs=0.006), kelvin
        assert shell.sigma2.value == pytest.approx(message.truth[f"sigma2_{name}"], abs=0.0015)
        off = shell.n_s02.value - TRUTH[name].n_s02
        assert abs(off) < 2 * shell.n_s02.std, (kelvin, shell.n_s02)
        alone[name] += 1
    assert min(alone.values()) >= 4, alone


def test_phases_of_a_mixture_have_the_e0_that_they_have_alone(outcomes):
    alone, mixed = ({name: [] for name in PHASES} for _ in range(2))
    for _, message in outcomes:
        for phase in message.phases or ():
            alone[phase.phase].append(message.e0 + phase.e0_shift.value)
        for phase in message.mixture.phases if message.mixture else ():
            if phase.e0_shift is not None:
                mixed[phase.phase].append(message.e0 + phase.e0_shift.value)
    both = [name for name in PHASES if alone[name] and mixed[name]]
    assert len(both) >= 2
    for name in both:
        assert np.median(mixed[name]) == pytest.approx(np.median(alone[name]), abs=3.0), name


def test_no_mixture_is_trusted_as_one_phase(outcomes):
    for kelvin, message in outcomes:
        if 0.15 < max(shares(kelvin).values()) < 0.85:
            assert message.trust.state != "trusted", kelvin


def test_both_changes_are_told(outcomes):
    states = {kelvin: message.xanes.state for kelvin, message in outcomes}
    assert {states[k] for k in states if 460 < k < 540} == {"changing"}
    assert {states[k] for k in states if 670 < k < 730} == {"changing"}
    assert {states[k] for k in states if 590 < k < 620} == {"steady"}
    points = {message.xanes.change_point for _, message in outcomes} - {None}
    assert all(300 + 10 * (p - 1) > 420 for p in points)
    assert len(points) <= 4


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="200 points"):
        OxideToCopper(points=50)

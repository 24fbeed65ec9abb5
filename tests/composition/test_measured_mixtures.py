"""The table of docs/howto/composition.md: mixtures of zinc compounds, other scans as references."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from exafsd.composition.combination import SHIFT_ALONE, Combination
from exafsd.composition.references import measured
from exafsd.composition.window import Ranges, near_edge
from exafsd.contract.grid import ETOK

EDGE, STEPS = 9659.0, (-3.5, -2.2)
#: scan that mixtures are made of, and scan that is the reference
ZINC = {
    "ZnS": ("ZnS_aldrich_rt_01", "ZnS_aldrich_rt_03"),
    "ZnCO3": ("Zn_smithsonite_rt_02", "Zn_smithsonite_rt_03"),
    "hopeite": ("Zn_hopeite_rt_01", "Zn_hopeite_rt_03"),
    "ZnC2O4": ("ZnC2O4_rt_01", "ZnC2O4_rt_02"),
    "Zn": ("Znfoil_rt_01", "Znfoil_rt_01"),
}
NAMES = list(ZINC)
ENERGY = np.concatenate([np.arange(9470.0, 9560.0, 5.0), np.arange(9560.0, 10_060.0, 0.7)])


@pytest.fixture(scope="module")
def scans(data):
    def spectra(which):
        files = {n: data / "xas" / "Zn" / f"Chorover13BM_{pair[which]}.xdi"
                 for n, pair in ZINC.items()}  # fmt: skip
        return {name: measured(file) for name, file in files.items()}

    return spectra(0), spectra(1)


@pytest.fixture(scope="module")
def ranges(scans):
    shared = Ranges.of(ENERGY, EDGE)
    for one in scans[1].values():
        shared = shared.shared(Ranges.of(one.energy, EDGE))
    return shared


def normalised(spectrum):
    from larch import Group
    from larch.xafs import pre_edge

    group = Group(energy=spectrum.energy, mu=spectrum.mu)
    pre_edge(group)
    return group.norm


def combination(scans, names, ranges):
    binned = [near_edge(scans[1][n].energy, scans[1][n].mu, ranges) for n in names]
    return Combination(binned, ranges.centres, EDGE)


@pytest.fixture(scope="module")
def sources(scans):
    return {name: (one.energy, normalised(one)) for name, one in scans[0].items()}


def mixture(rng, sources, shares, noise, heat=0.0, width=0.0, thick=0.0):
    shift, mu = rng.normal(0, 0.15), np.zeros(len(ENERGY))
    for i, (name, share) in enumerate(shares.items()):
        part = np.interp(ENERGY + shift, *sources[name])
        if heat and i == 0:
            k2 = ETOK * np.maximum(ENERGY - EDGE, 0.0)
            part = np.where(k2 > 0, 1 + (part - 1) * np.exp(-2 * k2 * heat), part)
        mu += share * part
    if width:
        fine = np.arange(ENERGY[0], ENERGY[-1], 0.1)
        mu = np.interp(ENERGY, fine, gaussian_filter1d(np.interp(fine, ENERGY, mu), width / 0.1,
                                                       mode="nearest"))  # fmt: skip
    mu = mu * (1 + thick) / (1 + thick * mu) + rng.normal(0, noise, len(mu))
    return 0.8 * mu + 0.2 - 1e-4 * (ENERGY - ENERGY[0])


@pytest.mark.measured
@pytest.mark.parametrize(
    ("nuisance", "fluorescent"),
    [({}, False), ({"heat": 0.012}, False), ({"width": 1.0}, False), ({"thick": 0.2}, True)],
)
def test_shares_of_mixtures_of_five_compounds(scans, sources, ranges, nuisance, fluorescent):
    rng = np.random.default_rng(7)
    truth, samples = [], []
    for i in range(240):
        chosen = rng.choice(NAMES, 1 + i % 3, replace=False)
        shares = dict(zip(chosen, rng.dirichlet(np.full(len(chosen), 1.5)), strict=True))
        truth.append([shares.get(name, 0.0) for name in NAMES])
        mu = mixture(rng, sources, shares, 10 ** rng.uniform(*STEPS), **nuisance)
        samples.append(near_edge(ENERGY, mu, ranges))
    combine = combination(scans, NAMES, ranges)
    fits = [fit for i in range(0, 240, 64)
            for fit in combine(samples[i : i + 64], SHIFT_ALONE, fluorescent)]  # fmt: skip
    error = np.array([fit.value for fit in fits]) - truth
    std, present = np.array([fit.std for fit in fits]), np.array(truth) > 0
    assert np.sqrt(np.mean(error**2)) <= 0.015
    assert 0.84 <= np.mean((np.abs(error) < 1.645 * std)[present]) <= 0.98
    assert np.mean([fit.other for fit in fits]) <= 0.05


@pytest.mark.measured
def test_a_missing_compound_is_told(scans, sources, ranges):
    rng = np.random.default_rng(3)
    flagged = []
    for missing in NAMES:
        rest = [name for name in NAMES if name != missing]
        combine = combination(scans, rest, ranges)
        for other in rest:
            shares = {other: 0.8, missing: 0.2}
            samples = [
                near_edge(ENERGY, mixture(rng, sources, shares, 10 ** rng.uniform(*STEPS)), ranges)
                for _ in range(15)
            ]
            fits = combine(samples, SHIFT_ALONE, fluorescent=False)
            flagged += [fit is None or fit.other for fit in fits]
    assert np.mean(flagged) >= 0.95


@pytest.mark.measured
def test_measured_compounds_without_a_reference_are_something_else(data):
    from exafsd.composition.composer import Composer
    from exafsd.composition.references import load, shipped_folder

    composer = Composer(load([shipped_folder()])[0])
    files = [f for name in ("ZnC2O4_rt_0", "Zn_hopeite_rt_0")
             for f in sorted((data / "xas" / "Zn").glob(f"Chorover13BM_{name}*.xdi"))]  # fmt: skip
    assert len(files) > 3
    for composition in composer([measured(file) for file in files]):
        assert composition.reason.startswith("something else is there")

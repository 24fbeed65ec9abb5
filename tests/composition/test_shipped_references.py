"""References that come with exafsd: each is itself, and shows a phase that a model overlooks."""

from collections import defaultdict
from itertools import permutations

import numpy as np
import pytest
from larch import Group
from larch.xafs import pre_edge

from exafsd.composition.composer import Composer
from exafsd.composition.references import load, measured, shipped_folder
from exafsd.contract.frames import ARRAY_UNITS
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep

PHOTONS = 1e8
LOADED, REFUSED = load([shipped_folder()])
BY_EDGE = defaultdict(list)
for reference in LOADED:
    BY_EDGE[reference.edge].append(reference)


def asked(pipeline, edge, energy, mu, rng=None, inference=None):
    """What exafsd says of a spectrum in a run of its own."""
    reduction = Reduction(channels=("transmission",))
    analysis = Analysis(reduction=reduction, inference=inference or Inference())
    run = Run(uid=f"{edge}-{rng is None}", edges=(edge,), analysis=analysis)
    through = PHOTONS * np.exp(-(mu - mu.min() + 0.5))
    counts = through if rng is None else rng.poisson(through).astype(float)
    signals = {"i0": np.full(len(energy), PHOTONS), "it": counts}
    (outcome,) = pipeline.process(Sweep(run, "primary", 1, energy, signals))
    pipeline.end(run.uid)
    return outcome.message


def test_all_are_read_and_every_edge_has_several():
    assert not REFUSED
    assert {f"{edge.element} {edge.edge}" for edge in BY_EDGE} == {
        "As K", "Cr K", "Cu K", "Fe K", "Ni K", "Se K", "W L3", "Zn K",
    }  # fmt: skip
    assert min(map(len, BY_EDGE.values())) >= 2


@pytest.mark.parametrize("edge", BY_EDGE, ids=lambda edge: f"{edge.element}-{edge.edge}")
def test_each_is_told_from_the_others_of_its_edge(edge):
    pipeline = Pipeline(Registry({}, {}), (), composer=Composer(BY_EDGE[edge]))
    off, rng = Inference(enabled=False), np.random.default_rng(0)
    for one in BY_EDGE[edge]:
        said = asked(pipeline, edge, one.energy, one.mu, rng, off).composition
        shares = {fraction.phase: fraction.value for fraction in said.fractions}
        assert shares.get(one.name, 0.0) > 0.97, (one.name, shares, said.reason)


@pytest.mark.measured
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_selenides_in_another_selenide_are_never_trusted_as_one_phase(data, share):
    """ZnSe has a model without a near edge, and fits half of it with half of Cu2Se."""
    edge = Edge("Se", "K")
    pipeline = Pipeline(Registry.load([]), tuple(ARRAY_UNITS), composer=Composer(LOADED))
    spectra = {}
    for name in ("ZnSe", "CuSe", "Cu2Se"):  # scans that are no references
        one = measured(data / "xas" / "Se" / f"Se_{name}_rt_01.xdi")
        group = Group(energy=one.energy, mu=one.mu)
        pre_edge(group)
        spectra[name] = one.energy, group.norm
    pure = asked(pipeline, edge, *spectra["ZnSe"])
    assert pure.trust.state == "trusted"
    for name, other in permutations(spectra, 2):
        energy, mu = spectra[name]
        mixed = (1 - share) * mu + share * np.interp(energy, *spectra[other])
        said = asked(pipeline, edge, energy, mixed)
        if said.trust.state == "trusted":
            assert abs(said.shells[0].r.value - pure.shells[0].r.value) < 0.01, (name, other)

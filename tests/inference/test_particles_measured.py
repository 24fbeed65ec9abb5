"""Measured foils made to what small particles are: fewer neighbours, more disorder.

N of all shells is scaled, outer shells once more, and the nearest shell gets a static sigma2, which
the EXAFS equation has in the amplitude and, by -4 p sigma2 / R, in the phase.
"""

import numpy as np
import pytest

from exafsd.contract.columns import best_answer
from exafsd.contract.grid import ETOK
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep
from exafsd_training.fitting.calibrate import Z90
from exafsd_training.reference.feffit import read_mu

#: file, model, element, edge, and an R behind the nearest shell of chi(R), angstrom
FOILS = (
    ("Cu/cu_metal_rt.xdi", "cu-k-fcc", "Cu", "K", 3.05),
    ("Cu/Cu_Foil_rt_2016Foils.xdi", "cu-k-fcc", "Cu", "K", 3.05),
    ("Pt/pt_metal_rt.xdi", "pt-l3-fcc", "Pt", "L3", 3.2),
)
STEP, POINTS, SOFT = 0.05, 2048, 0.15


class Foil:
    """A foil by Larch, with its nearest shell apart from the others."""

    def __init__(self, file, behind):
        from larch import Group
        from larch.xafs import autobk, pre_edge

        energy, mu = read_mu(file)
        self.group = group = Group(energy=energy, mu=mu)
        pre_edge(group)
        autobk(group, rbkg=1.0, kweight=2)
        weighted = np.zeros(POINTS)
        weighted[: len(group.k)] = group.chi * group.k**2
        r = np.pi / (POINTS * STEP) * np.arange(POINTS)
        near = 0.5 * (1 + np.cos(np.pi * np.clip((r - behind + SOFT) / (2 * SOFT), 0, 1)))
        # of r > 0 alone: complex chi, whose real part is what was measured
        forward = 2 * near * (np.arange(POINTS) < POINTS / 2)
        nearest = np.fft.ifft(np.fft.fft(weighted) * forward)[: len(group.k)]
        self.nearest = nearest / np.maximum(group.k, 10 * STEP) ** 2

    def particles(self, n, outer, sigma2, r):
        """mu of a sample with a share `n` of the neighbours, and of outer ones `outer` of that."""
        group, k = self.group, self.group.k
        damped = self.nearest * np.exp(-2 * k**2 * sigma2 - 4j * k * sigma2 / r)
        chi = n * (damped.real + outer * (group.chi - self.nearest.real))
        at = np.sqrt(np.maximum(group.energy - group.e0, 0.0) * ETOK)
        change = np.interp(at, k, chi - group.chi, right=0.0) * (group.energy >= group.e0)
        return group.mu + group.edge_step * change


@pytest.mark.measured
@pytest.mark.parametrize(("file", "model", "element", "edge", "behind"), FOILS)
def test_particles_are_read_as_what_they_are(data, file, model, element, edge, behind):
    foil = Foil(data / "xas" / file, behind)
    pipe = Pipeline(Registry({model: load_bundle(shipped_folder() / model)}, {}), ())
    how = Analysis(
        reduction=Reduction(channels=("transmission",)),
        inference=Inference(model=model, polish="always"),
    )
    energy, i0 = foil.group.energy, np.full(len(foil.group.energy), 1e6)

    def nearest(mu, number):
        signals = {"i0": i0, "it": i0 * np.exp(-mu - 0.1 + mu.min())}
        # a run of its own: nothing is learned from another sample
        run = Run(uid=f"run {number}", edges=(Edge(element, edge),), analysis=how)
        ((outcome,),) = pipe.process_many([Sweep(run, "primary", 1, energy, signals)])
        return best_answer(outcome.message.model_dump(mode="json"))[0][0]

    bulk = nearest(foil.group.mu, 0)
    samples = [
        (n, outer, sigma2)
        for n in (8 / 12, 6 / 12)
        for outer in (1.0, 0.7, 0.5, 0.3)
        for sigma2 in (0.0, 0.002, 0.004)
    ]
    for number, (n, outer, sigma2) in enumerate(samples, 1):
        mu = foil.particles(n, outer, sigma2, bulk["r"]["value"])
        shell = nearest(mu, number)
        r = shell["r"]["value"] - bulk["r"]["value"]
        assert abs(r) < max(0.004, Z90 * shell["r"]["std"]), (n, outer, sigma2)
        assert abs(r) < 0.01, (n, outer, sigma2)
        share = shell["n_s02"]["value"] / bulk["n_s02"]["value"]
        assert share == pytest.approx(n, rel=0.06), (n, outer, sigma2)
        disorder = shell["sigma2"]["value"] - bulk["sigma2"]["value"]
        assert disorder == pytest.approx(sigma2, abs=6e-4), (n, outer, sigma2)

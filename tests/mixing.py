"""Mixtures made in a computer of measured copper and zinc compounds."""

from collections.abc import Mapping, Sequence

import numpy as np

from exafsd.composition.composer import Composer
from exafsd.composition.references import Reference, measured
from exafsd.reduction.edge_middle import line
from exafsd.settings.analysis import Analysis, Composition, Reduction
from exafsd.spectra import Edge, Run, Sweep

NOISE = 1e-3
#: tabulated edges, eV, and the energies of mixtures
EDGES = {"Cu": 8979.0, "Zn": 9659.0}
ENERGIES = {
    "Cu": np.concatenate([np.arange(8880.0, 8950.0, 5.0), np.arange(8950.0, 9400.0, 0.8)]),
    "Zn": np.concatenate([np.arange(9560.0, 9630.0, 5.0), np.arange(9630.0, 10_250.0, 0.8)]),
}
#: references that mixtures are compared with
USUAL = {"Cu": ("Cu", "Cu2O", "CuO"), "Zn": ("ZnO", "ZnS")}


def normalised(spectrum, shift=0.0):
    """mu(E) on the energies of mixtures, in edge steps; energies are `shift` eV too high."""
    element = spectrum.edge.element if isinstance(spectrum, Reference) else spectrum.id.edge.element
    x = spectrum.energy - EDGES[element]
    lines = (line(x[part], spectrum.mu[part]) for part in (x < -30, (x > 45) & (x < 420)))
    (low, rising), (high, _) = lines
    flat = (spectrum.mu - low - rising * x) / (high - low)
    return np.interp(ENERGIES[element], spectrum.energy - shift, flat)


def on_one_scale(file, composer: Composer):
    """Normalised mu(E) of a file on the references' energy scale.

    A sample has one scale, but scans of two beamlines are 0.6 eV apart; mixed so, they look like a
    third compound.
    """
    spectrum = measured(file)
    (alone,) = composer([spectrum])
    return normalised(spectrum, alone.energy_shift.value)


def sweeps(
    element: str,
    parts: Mapping[str, np.ndarray],
    shares: Sequence[float],
    seed: int = 0,
    named: Sequence[str] | None = None,
) -> list[Sweep]:
    """Sweeps of two phases, with noise, of which the second has these shares.

    They are compared with the references that are `named`; by default with those of copper and its
    oxides, or of the two phases.
    """
    rng, energy = np.random.default_rng(seed), ENERGIES[element]
    first, second = parts.values()
    analysis = Analysis(
        reduction=Reduction(channels=("transmission",)),
        composition=Composition(phases=USUAL[element] if named is None else tuple(named)),
    )
    run = Run(uid="r", edges=(Edge(element, "K"),), analysis=analysis)
    return [
        Sweep(run, "primary", i + 1, energy, {"mutrans": 0.2 + 0.9 * (
            (1 - share) * first + share * second + NOISE * rng.normal(size=len(energy)))})
        for i, share in enumerate(shares)
    ]  # fmt: skip

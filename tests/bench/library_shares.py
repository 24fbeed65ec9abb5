"""Shares in mixtures of compounds of the XAS Data Library, whose second scans are the references.

Run ``python tests/bench/library_shares.py DATA``, the folder of the library that has a folder for
each element. Mixtures are those of `tests/composition/test_measured_mixtures.py`: one to three
compounds, energies off by 0.15 eV rms, a tilt, noise of 3e-4 to 6e-3 of the edge step.
"""

import sys
from pathlib import Path

import numpy as np
from larch import Group
from larch.xafs import pre_edge

from exafsd.composition.combination import SHIFT_ALONE, Combination, Fractions
from exafsd.composition.references import measured
from exafsd.composition.window import NearEdge, Ranges, near_edge
from exafsd.reduction.edges import edge_energy

#: Edge, and files without the number of the scan.
SETS = {
    "Zn": ("K", ("Chorover13BM_ZnS_aldrich_rt", "Chorover13BM_ZnSO4_rt", "Chorover13BM_ZnC2O4_rt",
                 "Chorover13BM_Zn_hopeite_rt", "Chorover13BM_Zn_smithsonite_rt")),
    "Se": ("K", ("Se_CuSe_rt", "Se_Na2SeO3_rt", "Se_Se0_rt", "Se_ZnSe_rt", "Se_HgSe_rt")),
    "W": ("L3", ("WO2_rt", "WO3_rt", "W_metal_rt")),
}  # fmt: skip
MIXTURES, INCOMPLETE, NOISE = 120, 300, (-3.5, -2.2)
#: Steps of the mixtures far from the edge and near it, eV.
FAR, NEAR = 5.0, 0.7
Z90 = 1.645


class Compounds:
    """First scans that mixtures are made of, and second ones that are references."""

    def __init__(self, data: Path, element: str, edge: str, names: tuple[str, ...]) -> None:
        scans = [
            {name: measured(data / element / f"{name}_{scan}.xdi") for name in names}
            for scan in ("01", "02")
        ]
        at = edge_energy(element, edge)
        every = [one.energy for scan in scans for one in scan.values()]
        low, high = max(e[0] for e in every) + 1, min(e[-1] for e in every) - 1
        self.energy = np.concatenate(
            [np.arange(low, at - 40, FAR), np.arange(at - 40, min(high, at + 420), NEAR)]
        )
        self.ranges = Ranges.of(self.energy, at)
        for one in scans[1].values():
            self.ranges = self.ranges.shared(Ranges.of(one.energy, at))
        self.sources = {name: (one.energy, _norm(one)) for name, one in scans[0].items()}
        self.references = {
            name: near_edge(one.energy, one.mu, self.ranges) for name, one in scans[1].items()
        }
        self.names = names

    def mixture(self, rng: np.random.Generator, shares: dict[str, float]) -> NearEdge:
        """A measurement of a mixture."""
        shift, energy = rng.normal(0, 0.15), self.energy
        mu = sum(
            share * np.interp(energy + shift, *self.sources[name]) for name, share in shares.items()
        )
        mu = mu + rng.normal(0, 10 ** rng.uniform(*NOISE), len(energy))
        return near_edge(energy, 0.8 * mu + 0.2 - 1e-4 * (energy - energy[0]), self.ranges)

    def fit(self, names: list[str], samples: list[NearEdge]) -> list[Fractions | None]:
        """Shares of samples by some of the references."""
        combine = Combination(
            [self.references[name] for name in names], self.ranges.centres, self.ranges.edge
        )
        return combine(samples, SHIFT_ALONE, fluorescent=False)


def _norm(one) -> np.ndarray:
    group = Group(energy=one.energy, mu=one.mu)
    pre_edge(group)
    return group.norm


def judge(compounds: Compounds, rng: np.random.Generator) -> str:
    """Errors of shares, false alarms, and how often a fifth of another compound is noticed."""
    names = list(compounds.names)
    truth, samples = [], []
    for _ in range(MIXTURES):
        chosen = rng.choice(names, min(rng.integers(1, 4), len(names)), replace=False)
        shares = dict(zip(chosen, rng.dirichlet(np.ones(len(chosen))), strict=True))
        truth.append([shares.get(name, 0.0) for name in names])
        samples.append(compounds.mixture(rng, shares))
    fits = compounds.fit(names, samples)
    error = np.array([fit.value for fit in fits]) - truth
    held = np.abs(error) < Z90 * np.array([fit.std for fit in fits])
    noticed = []
    for _ in range(INCOMPLETE):
        missing = rng.choice(names)
        rest = [name for name in names if name != missing]
        chosen = rng.choice(rest, rng.integers(1, 3), replace=False)
        parts = 0.8 * rng.dirichlet(np.ones(len(chosen)))
        shares = {missing: 0.2, **dict(zip(chosen, parts, strict=True))}
        (fit,) = compounds.fit(rest, [compounds.mixture(rng, shares)])
        noticed.append(fit is None or fit.other)
    return (
        f"rms of a share {np.sqrt(np.mean(error**2)):.4f}, 90 % intervals hold"
        f" {np.mean(held):.0%}, false alarms {np.mean([fit.other for fit in fits]):.1%},"
        f" a fifth noticed {np.mean(noticed):.0%}"
    )


def main(data: Path) -> None:
    """Print a line for each element."""
    for element, (edge, names) in SETS.items():
        rng = np.random.default_rng(1)
        print(element, judge(Compounds(data, element, edge, names), rng), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

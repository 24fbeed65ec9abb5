"""Reduction alone: the compiled plan, Larch and rexafs on the same spectra in turn. Prints JSON.

Every engine does the same work with its own means: normalization, AUTOBK with rbkg 1 and k weight
2, and the transform from k of 3 to 14. Run with one BLAS thread, so that a ratio is one of work.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import rexafs
from larch import Group
from larch.xafs import autobk, pre_edge, xftf

from documents import STEP_SCAN, sweeps
from exafsd.contract import Recipe
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.plan import Batch, Plan

RECIPE = Recipe()
BATCH = 64
#: chi is compared above this, 1/angstrom
K_MIN = 2.0
#: of an encoder, eV
NOISE = 0.02
#: s that is measured at once, well beyond the clock's noise
LONG_ENOUGH = 0.1

Spectra = tuple[np.ndarray, np.ndarray]


def by_larch(energy: np.ndarray, mu: np.ndarray, e0: float | None = None) -> Group:
    """Larch, with its own `find_e0` where no E0 is given."""
    group = Group(energy=energy, mu=mu)
    pre_edge(group, e0=e0, **RECIPE.pre_edge.model_dump())
    autobk(group, ek0=e0, **RECIPE.autobk.model_dump())
    xftf(group, **RECIPE.xftf.model_dump())
    return group


def by_rexafs(energy: np.ndarray, mu: np.ndarray, e0: float | None = None) -> rexafs.Spectrum:
    """rexafs, with its own solver and clamps, which are its defaults."""
    spectrum = rexafs.Spectrum(energy, mu)
    if e0 is not None:
        spectrum.set_e0(e0)
    background = rexafs.AUTOBK(rbkg=RECIPE.autobk.rbkg, kweight=RECIPE.autobk.kweight)
    spectrum.set_background_method(rexafs.BackgroundMethod.AUTOBK(background))
    x = RECIPE.xftf
    spectrum.set_fft(
        rexafs.XrayFFTF(kmin=x.kmin, kmax=x.kmax, dk=x.dk, kweight=x.kweight, window="Hanning")
    )
    return spectrum.fft()


def by_new(energy: np.ndarray, mu: np.ndarray, e0: float) -> Batch:
    """exafsd, where energies come once: a plan for one use."""
    return Plan.compile(energy, e0, RECIPE, once=True).reduce(mu[None])


def best(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all in turn, `repeats` times; best time of each in ms."""
    counts = {name: max(1, round(LONG_ENOUGH / _took(work, 1))) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(_took(work, counts[name]) * 1e3)
    return {name: min(seconds) for name, seconds in times.items()}


def _took(work: Callable[[], object], count: int) -> float:
    """Seconds for one of `count` calls."""
    began = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - began) / count


def difference(chi: np.ndarray, of: np.ndarray) -> float:
    """k^2-weighted relative L2 above `K_MIN`, on a grid of 0.05 1/angstrom."""
    size = min(len(chi), len(of))
    k = 0.05 * np.arange(size)
    weight = k**2 * (k > K_MIN)
    miss = np.linalg.norm((chi[:size] - of[:size]) * weight)
    return float(miss / np.linalg.norm(of[:size] * weight))


def compare(points: int, spectra: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times in ms per spectrum, and differences of chi from Larch's (medians)."""
    measured = sweeps(points, points > STEP_SCAN, spectra)
    energy = np.sort(measured[0][0])
    mus = np.array([np.log(i0 / it)[np.argsort(e)] for e, i0, it, _ in measured])
    e0 = find_e0(energy, mus[0])
    plan = Plan.compile(energy, e0, RECIPE)
    bare = replace(plan, noise=None)  # rexafs does not estimate the noise
    rng = np.random.default_rng(1)
    own = [np.sort(energy + NOISE * rng.normal(size=points)) for _ in mus]
    batch = mus[np.arange(BATCH) % spectra]
    works = {
        "Larch": lambda: [by_larch(energy, mu) for mu in mus],
        "Larch, E0 given": lambda: [by_larch(energy, mu, e0) for mu in mus],
        "rexafs": lambda: [by_rexafs(energy, mu) for mu in mus],
        "rexafs, E0 given": lambda: [by_rexafs(energy, mu, e0) for mu in mus],
        "plan, one spectrum": lambda: [plan.reduce(mu[None]) for mu in mus],
        f"plan, batch of {BATCH}": lambda: plan.reduce(batch),
        f"batch of {BATCH}, as much as rexafs": lambda: bare.reduce(batch),
        "new energies": lambda: [by_new(e, mu, e0) for e, mu in zip(own, mus, strict=True)],
        "rexafs, E0 given, new energies": lambda: [
            by_rexafs(e, mu, e0) for e, mu in zip(own, mus, strict=True)
        ],
        "compiling a plan": lambda: Plan.compile(energy, e0, RECIPE),
        "find_e0 of exafsd": lambda: [find_e0(energy, mu) for mu in mus],
    }
    for work in works.values():
        work()
    shares = {name: BATCH for name in works if "batch" in name} | {"compiling a plan": 1}
    times = best(works, repeats)
    reference = [by_larch(energy, mu, e0).chi for mu in mus]
    chis = {
        "plan": plan.reduce(mus).chi,
        "rexafs": [by_rexafs(energy, mu, e0).chi() for mu in mus],
    }
    pairs = {name: list(zip(chi, reference, strict=True)) for name, chi in chis.items()}
    pairs["new energies"] = [
        (by_new(e, mu, e0).chi[0], by_larch(e, mu, e0).chi) for e, mu in zip(own, mus, strict=True)
    ]
    return {
        "ms": {name: took / shares.get(name, spectra) for name, took in times.items()},
        "difference": {
            name: float(np.median([difference(*pair) for pair in both]))
            for name, both in pairs.items()
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, nargs="+", default=[400, 4000])
    parser.add_argument("--spectra", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    print(json.dumps({n: compare(n, asked.spectra, asked.repeats) for n in asked.points}))

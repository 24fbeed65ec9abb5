"""A simulated beamline: chi(k) to mu(E), noise, an energy grid, and Larch's reduction back."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import erf

from exafsd.contract import ETOK, K_GRID, Recipe, to_grid
from exafsd.settings.analysis import Rebin
from exafsd_training.simulation.simulate import K_END, K_MIN, Pool, path_sums, sample
from exafsd_training.simulation.theory_bias import theory_bias
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats, PathTable

#: Core-hole widths are 1 ... 6 eV for the edges of EXAFS; the monochromator adds about 1 eV.
EDGE_WIDTH = (0.6, 2.2)
#: Where data end before the atom's next edge, eV: the edge may be found 20 eV higher.
NEXT_EDGE = 40.0
#: Features of the near edge are up to so far above it, eV. That is inside the fit window: networks
#: have to bear it.
NEAR_EDGE = 40.0
#: Noise of mu per point relative to the edge step, log-uniform.
MU_NOISE = (1e-5, 3e-3)
#: The same, and data ends in 1/angstrom, of spectra that get their noise and end afterwards.
QUIET_NOISE, QUIET_END = (3e-6, 1e-5), (16.2, 19.3)


@dataclass(frozen=True)
class Atom:
    """Where an edge is and how the bare atom absorbs around it."""

    absorber: str
    edge: str

    def energy(self) -> float:
        """Tabulated edge energy, eV."""
        return _edge_energy(self.absorber, self.edge)

    def reach(self) -> float:
        """Where the atom's next edge ends a scan, 1/angstrom; infinite behind a K edge."""
        from xraydb import xray_edges

        here = self.energy()
        above = [e.energy for e in xray_edges(self.absorber).values() if e.energy > here]
        return float(np.sqrt((min(above) - here - NEXT_EDGE) * ETOK)) if above else np.inf

    def absorption(self, energy: Floats) -> tuple[Floats, Floats]:
        """Smooth absorption below the edge, extended above, and the atom's own step.

        Both in units of the edge step, from Elam's tables in xraydb.
        """
        at, base, step = _bare_atom(self.absorber, self.edge)
        return np.interp(energy, at, base), np.interp(energy, at, step)


@lru_cache
def _edge_energy(absorber: str, edge: str) -> float:
    from xraydb import xray_edge

    tabulated = xray_edge(absorber, edge)
    if tabulated is None:
        raise ValueError(f"xraydb knows no {edge} edge of {absorber}")
    return float(tabulated.energy)


@lru_cache
def _bare_atom(absorber: str, edge: str) -> tuple[Floats, Floats, Floats]:
    """Energies about the edge in eV, and `Atom.absorption` there: tables are slow to look up."""
    from xraydb import mu_elam

    at = _edge_energy(absorber, edge)
    below = np.array([at - 300, at - 20])
    slope, offset = np.polyfit(np.log(below), np.log(mu_elam(absorber, below)), 1)
    energy = np.arange(at - 300, at + 2000, 2.0)
    above = np.maximum(energy, at + 20.0)
    base = np.exp(offset + slope * np.log(energy))
    step = mu_elam(absorber, above) - np.exp(offset + slope * np.log(above))
    size = step[np.searchsorted(energy, at + 20.0)]
    return energy, base / size, step / size


def energy_grid(rng: np.random.Generator, edge: float, k_end: float) -> Floats:
    """Energies in eV of a step scan (even in k above the edge) or a quick scan (even in E)."""
    start, stop = edge - rng.uniform(90, 220), edge + k_end**2 / ETOK
    if rng.random() < 0.5:
        pre = np.arange(start, edge - 25, rng.uniform(4, 12))
        xanes = np.arange(edge - 25, edge + 35, rng.uniform(0.25, 1.2))
        k = np.arange(np.sqrt(35 * ETOK), k_end + 0.02, rng.choice([0.03, 0.05, 0.05, 0.06]))
        return np.unique(np.concatenate([pre, xanes, edge + k**2 / ETOK]))
    points = int(rng.uniform(500, 2000))
    energy = np.linspace(start, stop, points)
    return energy + rng.normal(0, 0.02, points) * (energy[1] - energy[0])


def absorption(
    rng: np.random.Generator,
    atom: Atom,
    energy: Floats,
    chi: Floats,
    origin: float,
    noise: tuple[float, float] = MU_NOISE,
    near_edge: float = NEAR_EDGE,
) -> Floats:
    """mu(E) with edge, near-edge features, background and noise; the edge step is 1.

    chi is relative to a constant step, because Larch divides by the step at E0: what the
    atom's own step loses with energy is left to no parameter.

    Parameters
    ----------
    rng
        Source of randomness.
    atom
        Absorber and edge.
    energy
        (n,) eV.
    chi
        (401,) chi(k) on the contract grid.
    origin
        Energy in eV where k = 0 in FEFF's scale.
    noise
        Range of the noise per point relative to the edge step.
    near_edge
        Features of the near edge are below this, eV from the edge.
    """
    edge = atom.energy()
    base, step = atom.absorption(energy)
    relative = energy - edge
    width = rng.uniform(*EDGE_WIDTH)

    def rise(at: float, width: float) -> Floats:
        lorentz = 0.5 + np.arctan((relative - at) / width) / np.pi
        gauss = 0.5 * (1 + erf((relative - at) / (1.5 * width)))
        return 0.5 * (lorentz + gauss)

    share = rng.uniform(0, 0.6) if rng.random() < 0.6 else 0.0
    shape = share * rise(rng.uniform(-1, 1), width)
    shape = shape + (1 - share) * rise(rng.uniform(0, 11), width * rng.uniform(1, 2))
    for _ in range(rng.integers(1, 5)):
        at, wide = rng.uniform(3, near_edge), rng.uniform(1.5, 6)
        shape = shape + rng.normal(0, 0.12) / (1 + ((relative - at) / wide) ** 2)

    k = np.sqrt(np.maximum(energy - origin, 0) * ETOK)
    fine = CubicSpline(K_GRID, chi)(np.minimum(k, K_GRID[-1]))
    fine = np.nan_to_num(fine) * (1 - np.exp(-((k / 2.2) ** 6)))
    atomic = step if rng.random() < 0.7 else np.ones_like(step)
    mu = shape * atomic + fine
    # the rest of the sample, windows, and detectors whose efficiency drifts with energy
    x = relative / 1000
    mu = mu + rng.uniform(0, 2) * base + rng.normal(0, 0.4) + rng.normal(0, 0.3) * x
    mu = mu + rng.normal(0, 0.03) * x**2
    level = np.exp(rng.uniform(*np.log(noise)))
    # step scans count longer at high k; fluorescence is noisier than transmission everywhere
    longer = np.maximum(k, 2.0) ** (-rng.uniform(0, 0.5)) if rng.random() < 0.5 else 1.0
    mu = mu + level * longer * rng.normal(0, 1, len(energy))
    if rng.random() < 0.05:
        mu[rng.integers(len(mu))] += rng.normal(0, 0.02)
    return mu


def reduce_one(
    seed: tuple[int, int],
    atom: Atom,
    chi: Floats,
    origin: float,
    k_end: float,
    noise: tuple[float, float] = MU_NOISE,
) -> tuple[float, float, Floats] | None:
    """One spectrum through the beamline and Larch: E0 found, data end, k^2 chi (401,).

    None where Larch fails or finds no edge within reach, as it would in production.
    """
    from exafsd.reduction.engine import reduce_mu
    from exafsd.reduction.rebin import covered, rebin, xas_grid
    from exafsd.spectra import SpectrumError

    rng = np.random.default_rng(seed)
    # a poorly calibrated monochromator moves the whole scan
    shift = rng.normal(0, 1.5)
    energy = energy_grid(rng, atom.energy(), k_end)
    mu = absorption(rng, atom, energy, chi, origin, noise)
    energy = energy + shift
    try:
        if len(energy) > 900 and rng.random() < 0.4:
            grid = xas_grid(atom.energy(), Rebin())
            bins = covered(grid, energy)
            binned = rebin(energy, mu, grid, bins)
            if binned is not None:
                energy, mu = grid.centres[slice(*bins)], binned.mu
        reduced = reduce_mu(energy, mu, Recipe())
    except (SpectrumError, IndexError, ValueError, TypeError):
        return None
    # chi as it would be with the true step of 1: see `instrument_pool`
    step = reduced.edge_step
    if not 0.5 < step < 2:
        return None
    chi_k2, _ = to_grid(reduced.k, reduced.chi, K_MIN, reduced.k_data[1])
    return reduced.e0 - shift, float(reduced.k_data[1]), np.concatenate([[step], chi_k2])


def _task(job: tuple) -> tuple[float, float, Floats] | None:
    return reduce_one(*job)


def instrument_pool(
    seed: int,
    n: int,
    parametrisation: Parametrisation,
    truth: PathTable,
    atom: Atom,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
    quiet: bool = False,
) -> Pool:
    """Spectra that went through the whole instrument; reproducible for a seed.

    E0 is found as in production, so the true e0_shift is FEFF's origin minus the E0 found.
    N S0^2 is that of chi(k) as normalised by Larch: no later step can undo the normalisation.

    Parameters
    ----------
    seed
        Of everything random.
    n
        Spectra tried; some per cent that Larch cannot reduce are left out.
    parametrisation, truth
        As for `exafsd_training.simulation.simulate.direct_pool`.
    atom
        Absorber and edge.
    workers
        Processes; results do not depend on it.
    progress
        Called with the number of spectra done.
    quiet
        Hardly any noise and data to 16 1/angstrom and further, so that any noise and end can be
        given to them afterwards.
    """
    rng = np.random.default_rng(seed)
    draw = sample(rng, n, parametrisation, truth)
    chi, _ = path_sums(draw, truth, np.zeros(n))
    # FEFF's threshold (Mu of its header) lies up to about 10 eV off the inflection point
    origin = atom.energy() + rng.uniform(-5, 17, n)
    # with an E0 found above FEFF's origin the grid's last k would lie outside the path sums
    k_end = np.where(rng.random(n) < 0.8, rng.uniform(11, 17, n), rng.uniform(K_END[0], 19.3, n))
    if quiet:
        k_end = rng.uniform(*QUIET_END, n)
    k_end = np.minimum(k_end, atom.reach())
    noise = QUIET_NOISE if quiet else MU_NOISE
    jobs = [((seed, i), atom, chi[i], origin[i], k_end[i], noise) for i in range(n)]
    done = []
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        with context.Pool(workers) as pool:
            for i, result in enumerate(pool.imap(_task, jobs, chunksize=16)):
                done.append(result)
                progress(i + 1)
    else:
        for i, job in enumerate(jobs):
            done.append(_task(job))
            progress(i + 1)

    i_e0, i_n = parametrisation.index("e0_shift"), parametrisation.index("1/n_s02")
    e0 = np.array([np.nan if r is None else origin[i] - r[0] for i, r in enumerate(done)])
    lo, hi = parametrisation.bounds[i_e0]
    usable = np.flatnonzero((e0 > lo * 0.98) & (e0 < hi * 0.98))
    step = np.array([done[i][2][0] for i in usable])
    draw = draw.with_e0(np.nan_to_num(e0), i_e0)
    theta = draw.theta[usable]
    theta[:, i_n] /= step
    clean, exact = (x[usable] / step[:, None] for x in path_sums(draw, truth, np.nan_to_num(e0)))
    inside = (theta[:, i_n] > parametrisation.bounds[i_n, 0]) & (
        theta[:, i_n] < parametrisation.bounds[i_n, 1]
    )
    return Pool(
        np.float32(theta),
        np.float32(K_GRID**2 * clean),
        np.float32([done[i][2][1:] for i in usable]),
        np.float32([done[i][1] for i in usable]),
        theory_bias(parametrisation, theta, K_GRID**2 * (clean - exact)),
    ).take(inside)

"""Runs of samples that change, of the references that ship, as a beamline would measure them."""

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from exafsd.composition.references import load, shipped_folder
from exafsd.contract.grid import ETOK
from exafsd.reduction.edge_middle import line

EDGES = {"Cu": 8979.0, "Zn": 9659.0}


def smooth_references():
    """Functions of the energy near to the references: a shift must not move their noise."""
    return {one.name: _smooth(one) for one in load([shipped_folder()])[0]}


def _smooth(reference):
    fine = np.arange(reference.energy[0], reference.energy[-1], 0.1)
    mu = np.interp(fine, reference.energy, reference.mu)
    spline = CubicSpline(fine, gaussian_filter1d(mu, 9, mode="nearest"))
    return lambda energy: spline(np.clip(energy, fine[0], fine[-1]))


def smooth(scans, edge):
    """Function of the energy near to the mean of measured scans (energy, mu), with a step of 1."""
    first, last = max(e[0] for e, _ in scans), min(e[-1] for e, _ in scans)
    fine = np.arange(first, last, 0.1)
    rows = []
    for energy, mu in scans:
        x = energy - edge
        (low, rising), (high, _) = (line(x[p], mu[p]) for p in (x < -30, (x > 45) & (x < 300)))
        rows.append(np.interp(fine, energy, (mu - low - rising * x) / (high - low)))
    mean = gaussian_filter1d(np.mean(rows, axis=0), 5, mode="nearest")
    return lambda energy: np.interp(energy, fine, mean)


def ramp(count, sweeps):
    """Shares (sweeps, count): from the first phase to the last, one after the other."""
    at = np.linspace(0, count - 1, sweeps)[:, None]
    return np.clip(1 - np.abs(at - np.arange(count)), 0, None)


def measured(shapes, names, shares, rng, noise=1e-3, jitter=0.05, heat=0.0, step=0.7, high=330.0):
    """Energies (l,), spectra (n, l) with shares (n, phases), and the energy of the edge."""
    edge = EDGES[names[0][:2] if names[0][:2] in EDGES else "Cu"]
    energy = np.concatenate(
        [np.arange(edge - 150, edge - 45, 5.0), np.arange(edge - 45, edge + high, step)]
    )
    k2 = ETOK * np.maximum(energy - edge, 0)
    mus = []
    for i, row in enumerate(shares):
        shift, mu = rng.normal(0, jitter), np.zeros(len(energy))
        for share, name in zip(row, names, strict=True):
            part = shapes[name](energy + shift)
            hot = 1 + (part - 1) * np.exp(-2 * k2 * heat * i / len(shares))
            mu += share * np.where(k2 > 0, hot, part)
        slope = -1e-4 * rng.normal(1, 0.3) * (energy - energy[0])
        thick = 0.8 * (1 + rng.normal(0, 0.02))
        mus.append(thick * mu + 0.2 + slope + rng.normal(0, noise, len(energy)))
    return energy, np.array(mus), edge

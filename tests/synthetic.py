"""Synthetic sweeps for tests that need a spectrum, not physics."""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent


def foil(points=400, noise=0.0, e0=8979.0, seed=0, low=8800.0, high=9900.0):
    """Synthetic mu(E): an edge with a damped EXAFS oscillation; (energy, mu)."""
    energy = np.linspace(low, high, points)
    k = np.sqrt(np.maximum(energy - e0, 0) * 0.2625)
    chi = 1.5 * np.sin(2 * 2.25 * k) * np.exp(-2 * 0.008 * k**2) * k / (k**2 + 9)
    edge = 0.5 + np.arctan((energy - e0) / 4.0) / np.pi  # wide enough for the coarse grid
    mu = 0.3 + 2.0 * edge * (1 + chi * (energy > e0)) - 2e-4 * (energy - e0)
    return energy, mu + noise * np.random.default_rng(seed).normal(size=points)


def sweep_columns(number=0, points=400, noise=1e-4, **kws):
    """(energy, {I0, It, Ir}, extras) of one sweep, every other one downwards."""
    energy, mu = foil(points, noise, seed=number, **kws)
    i0 = np.full(points, 1e6)
    it = i0 * np.exp(-mu)
    columns = {"I0": i0, "It": it, "Ir": it * np.exp(-mu)}
    if number % 2:
        energy, columns = energy[::-1].copy(), {n: c[::-1].copy() for n, c in columns.items()}
    return energy, columns, {"temperature": 300.0 + number}


METADATA = {"element": "Cu", "edge": "K", "sample": {"name": "Cu foil"}}

"""One short run of each document shape, with nothing of chance in it, as a journal.

The sweeps are a measured copper foil's with seeded noise, and some copper sulfide grows beside it.
A reference foil drifts and jumps once; the monochromator goes up and down; one sweep has a glitch,
one no beam, and the last is short.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from larch.io import read_xdi
from scipy.interpolate import PchipInterpolator

from exafsd.codec import dumps
from simulated import shapes

SWEEPS, EDGE = 8, 8979.0
#: seconds since 1970, and between two sweeps
BEGAN, PERIOD = 1.7e9, 0.5

Mu = Callable[[np.ndarray], np.ndarray]


def write_journal(folder: Path, data: Path) -> Path:
    """Write one run of each shape; their files lie beside the journal.

    Parameters
    ----------
    folder
        A new one.
    data
        Folder of measured spectra.

    Returns
    -------
    journal
        Folder of the journal.
    """
    journal = folder / "journal"
    journal.mkdir(parents=True)
    # the clock of composed documents stands still, so that results do not depend on the day
    shapes.time = SimpleNamespace(time=lambda: BEGAN)  # type: ignore[attr-defined]
    copper, sulfide = _mu(data / "xas/Cu/cu_metal_rt.xdi"), _mu(data / "xas/Cu/Cu2S_13K_01.xdi")
    for place, (name, make) in enumerate(shapes.SHAPES.items()):
        moving = name in ("event", "page", "monitor")
        metadata = {
            "uid": f"golden-{name}", "scan_id": place, "time": BEGAN + 100 * place,
            "element": "Cu", "edge": "K", "sample": {"name": name},
        }  # fmt: skip
        records = [
            dumps(list(record))
            for record in _timed(make(_sweeps(copper, sulfide, moving), metadata, folder))
        ]
        stamp = f"20231114T22{place:02d}20"
        (journal / f"{stamp}-golden-{name}.msgpack").write_bytes(b"".join(records))
    return journal


def _timed(documents: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents whose time of composition is counted instead of read off a clock."""
    for number, (name, document) in enumerate(documents):
        scalars = not isinstance(document.get("time"), list)
        if "time" in document and scalars and abs(document["time"] - BEGAN) > 1e5:
            document = {**document, "time": BEGAN + PERIOD * number}
        yield name, document


def _sweeps(copper: Mu, sulfide: Mu, moving: bool) -> list[shapes.SweepData]:
    """Sweeps of a run; those of a moving monochromator have energies of their own."""
    return [_sweep(number, copper, sulfide, moving) for number in range(SWEEPS)]


def _sweep(number: int, copper: Mu, sulfide: Mu, moving: bool) -> shapes.SweepData:
    rng = np.random.default_rng(number)
    points = 700 if moving else 420
    end = 300.0 if number == SWEEPS - 1 and not moving else 1100.0
    energy = np.linspace(EDGE - 180.0, EDGE + end, points)
    shift = 0.1 * number + (1.5 if number >= 5 else 0.0)
    i0 = 2e7 * (1 + 0.1 * np.sin(energy / 300.0)) * np.exp(-0.02 * number)
    share = 0.12 * max(number - 4, 0)
    mu = (1 - share) * copper(energy + shift) + share * sulfide(energy + shift)
    if number == 3:
        mu[points // 2] += 0.3
    signals = {"I0": i0, "It": i0 * np.exp(-mu)}
    signals["Ir"] = signals["It"] * np.exp(-0.7 * copper(energy + shift))
    signals = {name: rng.poisson(counts).astype(float) for name, counts in signals.items()}
    if number == 4 and not moving:
        signals = {name: np.zeros(points) for name in signals}
    if moving:
        energy = energy + rng.normal(0.0, 0.03, points)
    if number % 2:
        energy = energy[::-1]
        signals = {name: counts[::-1] for name, counts in signals.items()}
    numbers = {"temperature": 300.0 + 10.0 * number, "truth_r": 2.55, "truth_sigma2": 0.009}
    return energy, signals, numbers


def _mu(path: Path) -> Mu:
    """Absorption of a measured spectrum as a function of energy, with a step of about 1."""
    table = read_xdi(str(path))
    mu = np.log(table.i0 / table.itrans)
    height = np.median(mu[table.energy > EDGE + 50]) - np.median(mu[table.energy < EDGE - 20])
    return PchipInterpolator(table.energy, (mu - mu[0]) / height + 0.1)

"""A swinging monochromator from its encoder's stream to results: drift, backlash, one jump."""

import time

import numpy as np
import pytest

from exafsd.contract.frames import ARRAY_UNITS
from exafsd.documents.items import Trouble
from exafsd.documents.router import Router
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service.session import Session
from exafsd.settings.analysis import Analysis, Average, Calibration, Reduction
from simulated import shapes
from simulated.encoder import Motion, read
from synthetic import METADATA, foil

LEGS, JUMP_AT, JUMP = 31, 16, 1.0  # eV
DRIFT = 0.02  # eV a leg
BACKLASH = 0.8  # eV between the two directions
MOTION = Motion("triangle", 8800.0, 9800.0, points=3000, noise=0.05, dwell=0.02, drift=0.01)


def stream():
    """Energies as read and counts of every point, and the offset of the scale on each leg."""
    reading = read(MOTION, LEGS, seed=3)
    turns = reading.turns[:, 1]
    leg = np.searchsorted(turns, np.arange(len(reading.energy)), side="right")
    offsets = DRIFT * np.arange(LEGS) + np.where(np.arange(LEGS) % 2, BACKLASH, 0.0)
    offsets[JUMP_AT:] += JUMP
    energy_axis, mu_axis = foil(8000, low=8700.0, high=9900.0)
    mu = np.interp(reading.truth, energy_axis, mu_axis)
    rng = np.random.default_rng(4)
    i0 = np.full(len(mu), 1e6)
    columns = {
        "I0": i0,
        "It": i0 * np.exp(-mu) * rng.normal(1, 1e-3, len(mu)),
        "Ir": i0 * np.exp(-2 * mu) * rng.normal(1, 1e-3, len(mu)),
    }
    return reading.energy + offsets[leg], columns, offsets


def results(chunk, **settings):
    energy, columns, offsets = stream()
    pieces = [
        (energy[i : i + chunk], {n: c[i : i + chunk] for n, c in columns.items()}, {})
        for i in range(0, len(energy), chunk)
    ]
    reduction = Reduction(channels=("transmission",), **settings)
    router = Router(Analysis(reduction=reduction), clock=time.monotonic)
    pipeline = Pipeline(Registry({}, {}), tuple(ARRAY_UNITS))
    events = list(
        Session(router, pipeline).replay(shapes.event_pages(pieces, METADATA, page_size=chunk))
    )
    assert not [event for event in events if isinstance(event, Trouble)]
    outcomes = [event for event in events if isinstance(event, Outcome)]
    return outcomes, offsets


def test_the_foil_takes_drift_backlash_and_a_jump_off_the_energies():
    outcomes, offsets = results(1000, calibration=Calibration(source="foil"))
    assert [one.message.sweep for one in outcomes] == list(range(1, LEGS + 1))
    assert [one.message.direction for one in outcomes] == [
        "down" if i % 2 else "up" for i in range(LEGS)
    ]
    # the first is the reference: its own offset stays
    shifts = np.array([one.message.energy_shift.value for one in outcomes])
    steady = [i for i in range(LEGS) if i not in (JUMP_AT, JUMP_AT + 1)]
    np.testing.assert_allclose(shifts[steady], -offsets[steady], atol=0.05)
    jumps = [i for i, one in enumerate(outcomes) if "energy_jump" in one.message.quality]
    assert jumps
    assert JUMP_AT <= jumps[0] <= JUMP_AT + 2
    # all sweeps lie on one grid, and their edges together
    grids = {one.arrays["energy"].tobytes() for one in outcomes[1:-1]}
    assert len(grids) == 1
    energy = outcomes[5].arrays["energy"]
    near = (energy > 8965) & (energy < 8995)
    edges = {
        i: np.interp(0.5, outcomes[i].arrays["norm"][near], energy[near])
        for i in steady
        if 0 < i < LEGS - 1
    }
    up, down = ([edge for i, edge in edges.items() if i % 2 == half] for half in (0, 1))
    assert abs(np.mean(up) - np.mean(down)) < 0.05
    assert np.std([*up, *down]) < 0.05


@pytest.mark.parametrize("chunk", [137, 2500, 10**6])
def test_pages_of_any_size_give_the_same_results(chunk):
    settings = {"calibration": Calibration(source="foil"), "average": Average(n=3)}
    usual, _ = results(1000, **settings)
    other, _ = results(chunk, **settings)
    ids = [one.message.id.split("/", 1)[1] for one in usual]
    assert ids == [one.message.id.split("/", 1)[1] for one in other]
    assert any("-" in one.rsplit("/", 1)[1] for one in ids)
    for one, two in zip(usual, other, strict=True):
        np.testing.assert_array_equal(one.arrays["chi_k2"], two.arrays["chi_k2"])
        assert one.message.quality == two.message.quality

"""Changes in series of near edges: false alarms, transitions, disturbances, whatever the noise."""

from itertools import pairwise

import numpy as np
import pytest

from exafsd.composition.change import ChangeDetector
from exafsd.composition.references import load, shipped_folder
from exafsd.composition.xanes import NearEdgeNumbers, near_edge_numbers

EDGE = 8979.0
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])
NOISE = 1e-3
NONE = (np.nan, np.nan)


@pytest.fixture(scope="module")
def flats():
    """Near edges (m,) of Cu, Cu2O and CuO."""
    by_name = {one.name: one for one in load([shipped_folder()])[0]}
    mus = {n: np.interp(ENERGY, by_name[n].energy, by_name[n].mu) for n in ("Cu", "Cu2O", "CuO")}
    return {name: near_edge_numbers(ENERGY, mu, EDGE).flat for name, mu in mus.items()}


def follow(flats, detector=None, noise=NOISE):
    """States after each spectrum, and the sweeps with which changes began."""
    detector = detector or ChangeDetector()
    points = []
    positions = detector.follow(numbers_of(flats, noise), range(1, len(flats) + 1))
    for one in positions:
        if one.change_point not in (None, *points[-1:]):
            points.append(one.change_point)
    return [one.state for one in positions], points


def numbers_of(flats, noise=NOISE):
    return [NearEdgeNumbers(flat, noise, (), NONE, NONE, NONE) for flat in flats]


def correlated(rng, count, memory):
    """Numbers of standard deviation 1 that remember `memory` of the one before."""
    fresh = rng.normal(size=count)
    numbers = fresh.copy()
    for i in range(1, count):
        numbers[i] = memory * numbers[i - 1] + (1 - memory**2) ** 0.5 * fresh[i]
    return numbers


def noise_of(kind, flat, count, rng):
    """(count, m) of what may be wrong with spectra of a sample that does not change."""
    x = np.arange(len(flat))
    bump, wave = np.exp(-(((x - 40) / 8) ** 2)), np.sin(x / 7)
    white = NOISE * rng.normal(size=(count, len(flat)))
    if kind == "white":
        return white
    if kind == "heavy tails":
        return NOISE * rng.standard_t(3, size=white.shape)
    if kind == "one shape":
        return 0.1 * white + 5e-3 * np.outer(rng.normal(size=count), bump)
    if kind == "correlated":
        shapes = (bump, wave)
        return white + sum(3e-3 * np.outer(correlated(rng, count, 0.9), s) for s in shapes)
    if kind == "long memory":
        return white + 5e-3 * np.outer(correlated(rng, count, 0.99), bump)
    if kind == "drift":
        return white + np.outer(np.linspace(0, 0.3, count), wave)
    if kind == "energy":
        # an energy scale that drifts by 1 eV and jitters by 0.1
        shift = np.linspace(0, 1, count) + 0.1 * rng.normal(size=count)
        return white + np.array([np.interp(x - s, x, flat) - flat for s in shift])
    if kind == "thickness":
        thick = 0.1 * correlated(rng, count, 0.95)[:, None]
        return white + thick * flat * (1 - flat) + thick * flat
    assert kind == "disturbed"
    bad = rng.random(count) < 0.01
    return white + np.where(bad, 0.05 * rng.normal(size=count), 0.0)[:, None] * wave


@pytest.mark.parametrize(
    "kind",
    ["white", "heavy tails", "one shape", "correlated", "long memory", "drift", "energy",
     "thickness", "disturbed"],
)  # fmt: skip
def test_one_false_alarm_in_a_thousand_sweeps_at_most(flats, kind):
    rng = np.random.default_rng(3)
    flat, alarms, drifts = flats["Cu2O"], 0, 0
    for _ in range(6):
        states, points = follow(flat + noise_of(kind, flat, 1000, rng))
        alarms += len(points)
        drifts += sum((one, other) == ("steady", "drifting") for one, other in pairwise(states))
    # 6 are expected of 1 in 1,000, and more than 10 then in 4 % of cases
    assert alarms <= 6
    assert kind in ("drift", "energy") or drifts <= 6


@pytest.mark.parametrize("width", [0, 10, 50, 300])
def test_a_transition_is_changing_from_its_beginning_to_its_end(flats, width):
    rng = np.random.default_rng(4)
    part = np.clip((np.arange(700) - 199) / max(width, 1), 0, 1)
    spectra = flats["CuO"] + part[:, None] * (flats["Cu2O"] - flats["CuO"])
    states, points = follow(spectra + NOISE * rng.normal(size=spectra.shape))
    assert len(points) == 1
    assert abs(points[0] - 200) <= 3 + width // 30
    changing = np.flatnonzero([state == "changing" for state in states])
    assert 199 <= changing[0] <= 202 + width // 15
    assert 199 + width <= changing[-1] + 2 <= 220 + width * 1.1
    assert (np.diff(changing) == 1).all()
    assert states[-1] == "steady"


def test_a_twentieth_of_a_phase_is_seen_at_once(flats):
    rng = np.random.default_rng(5)
    part = 0.05 * (np.arange(200) >= 100)
    spectra = flats["CuO"] + part[:, None] * (flats["Cu2O"] - flats["CuO"])
    states, points = follow(spectra + NOISE * rng.normal(size=spectra.shape))
    assert points == [101]
    assert states[101] == "changing"


def test_a_change_that_began_before_the_run_is_a_drift(flats):
    rng = np.random.default_rng(6)
    part = np.linspace(0, 0.5, 150)
    spectra = flats["CuO"] + part[:, None] * (flats["Cu2O"] - flats["CuO"])
    states, points = follow(spectra + NOISE * rng.normal(size=spectra.shape))
    assert not points
    assert set(states[80:]) == {"drifting"}


def test_more_noise_is_no_change_for_long(flats):
    rng = np.random.default_rng(7)
    shape = np.exp(-(((np.arange(len(flats["Cu"])) - 40) / 8) ** 2))
    loud = np.where(np.arange(600) < 200, 1e-3, 1e-2)
    spectra = flats["Cu"] + np.outer(loud * rng.normal(size=600), shape)
    spectra = spectra + NOISE * rng.normal(size=spectra.shape)
    states, points = follow(spectra)
    assert len(points) <= 3
    assert states[300:].count("changing") < 10


def test_white_noise_that_is_measured_may_grow(flats):
    rng = np.random.default_rng(8)
    detector = ChangeDetector()
    quiet = flats["Cu"] + NOISE * rng.normal(size=(100, len(flats["Cu"])))
    loud = flats["Cu"] + 10 * NOISE * rng.normal(size=quiet.shape)
    assert follow(quiet, detector)[1] == []
    detector.follow(numbers_of(loud, 10 * NOISE), range(101, 201))
    assert detector.change_point is None


def test_what_is_said_does_not_depend_on_how_many_come_at_once(flats):
    rng = np.random.default_rng(10)
    part = np.clip((np.arange(160) - 60) / 20, 0, 1)[:, None]
    numbers = numbers_of(
        flats["CuO"] + part * (flats["Cu2O"] - flats["CuO"])
        + NOISE * rng.normal(size=(160, len(flats["CuO"])))
    )  # fmt: skip
    sweeps = [None if i % 11 == 5 else i + 1 for i in range(160)]
    sweeps[0] = None
    alone = ChangeDetector()
    expected = [alone.follow([one], [sweep])[0] for one, sweep in zip(numbers, sweeps, strict=True)]
    assert {one.state for one in expected} == {"learning", "steady", "changing"}
    assert expected[1][:2] == (None, None)
    for size in (7, 64, 160):
        detector, positions = ChangeDetector(), []
        for begin in range(0, 160, size):
            part = slice(begin, begin + size)
            positions += detector.follow(numbers[part], sweeps[part])
        assert positions == expected


def test_distances_are_in_units_of_noise(flats):
    rng = np.random.default_rng(9)
    detector = ChangeDetector()

    def distances(flat):
        (position,) = detector.follow(numbers_of([flat]), [1])
        return position.first, position.previous

    def noisy(flat):
        return flat + NOISE * rng.normal(size=flat.shape)

    assert distances(noisy(flats["Cu2O"])) == (None, None)
    first, previous = np.mean([distances(noisy(flats["Cu2O"])) for _ in range(50)], axis=0)
    assert first == pytest.approx(1.0, abs=0.15)
    assert previous == pytest.approx(1.0, abs=0.05)
    x = np.arange(len(flats["Cu2O"]))
    shifted = np.interp(x - 0.3, x, flats["Cu2O"])
    assert distances(noisy(shifted))[1] < 3
    first, previous = distances(noisy(0.7 * flats["Cu2O"] + 0.3 * flats["CuO"]))
    assert first > 8
    assert previous > 8
    first, previous = distances(noisy(0.7 * flats["Cu2O"] + 0.3 * flats["CuO"]))
    assert first > 8
    assert previous < 1.3

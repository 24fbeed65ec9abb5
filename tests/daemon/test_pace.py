"""Slow scans always have time for fits and composition; fast ones and late sweeps never."""

import pytest

from exafsd.service.pace import (
    AGAIN,
    COST,
    EMPTY,
    FEW,
    FULL,
    LATE,
    LATE_FEW,
    LONGEST,
    MEASURED,
    SHARE,
    Pace,
)


def choices(interval, spectra=1, seconds=20.0, waited=0.0, cost=COST):
    """Which of the batches that come at an interval are processed completely."""
    pace, complete = Pace(), []
    for i in range(int(seconds / interval)):
        complete.append(pace.room(spectra, waited, i * interval))
        pace.count(spectra, i * interval, spectra * cost, complete[-1])
    return complete


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 0.9 * SHARE / COST])
@pytest.mark.parametrize("spectra", [1, 10, 40])
def test_slow_scans_are_complete_always(rate, spectra):
    """One by one, and in pages."""
    assert all(choices(spectra / rate, spectra, seconds=60.0))


@pytest.mark.parametrize("rate", [1.2 * SHARE / COST, 200.0, 1000.0])
def test_fast_scans_are_cut_short_but_for_their_first_spectra(rate):
    complete = choices(1 / rate, seconds=9 * AGAIN)
    first = int(FULL / (COST * rate - SHARE) * rate) + MEASURED
    assert complete[0]
    assert sum(complete[first:]) <= 9  # to measure what it costs


def test_what_a_spectrum_costs_decides():
    assert all(choices(1 / 100, cost=0.9 * SHARE / 100))
    first = MEASURED + FULL / (20e-3 - SHARE / 100) + 1
    assert sum(choices(1 / 100, cost=20e-3, seconds=0.9 * AGAIN)) <= first
    assert all(choices(1 / 15, cost=20e-3))


def test_a_pause_of_the_machine_is_not_the_cost_of_a_spectrum():
    pace = Pace()
    for i in range(100):
        assert pace.room(1, 0.0, i / 50)
        pace.count(1, i / 50, 1.0 if i % MEASURED else COST, True)


def test_after_a_slow_time_there_is_room_again():
    pace, complete = Pace(), []
    for i in range(4000):  # 50 a second, and for the first ten seconds the machine is busy
        complete.append(pace.room(1, 0.0, i / 50))
        pace.count(1, i / 50, 30e-3 if i < 500 else COST, complete[-1])
    assert not all(complete[:500])
    assert all(complete[1500:])


def test_what_is_late_or_a_large_batch_is_cut_short():
    for spectra, late in ((FEW + 1, LATE), (FEW, LATE_FEW), (1, LATE_FEW)):
        assert all(choices(1.0, spectra, waited=0.9 * late))
        assert not any(choices(1.0, spectra, waited=1.1 * late))
    assert not any(choices(10.0, spectra=int(1.1 * LONGEST / COST)))


def test_after_a_rush_there_is_room_again_in_a_while():
    pace = Pace()
    assert pace.room(1, 0.0, 0.0)
    pace.count(1, 0.0, COST, True)
    pace.count(1000, 0.0, 1.0, False)
    assert not pace.room(1, 0.0, 0.9 * -EMPTY / SHARE)
    assert pace.room(1, 0.0, 1.1 * -EMPTY / SHARE)


def test_a_slow_scan_is_complete_on_a_busy_machine_too():
    assert all(choices(1 / 19, cost=80e-3))

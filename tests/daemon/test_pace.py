"""Slow scans always have time for fits and composition; fast ones and late sweeps never."""

import pytest

from exafsd.service.pace import COST, HALVED, LATE, MEASURED, SHARE, WINDOW, Pace


def choices(interval, spectra=1, seconds=20.0, waited=0.0, cost=COST):
    """Which of the batches that come at an interval are processed completely."""
    pace, complete = Pace(), []
    for i in range(int(seconds / interval)):
        complete.append(pace.room(spectra, waited, i * interval))
        pace.count(spectra, i * interval, spectra * cost, complete[-1])
    return complete


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 50.0])
def test_slow_scans_are_complete_always(rate):
    assert all(choices(1 / rate))


def test_what_a_spectrum_costs_decides():
    assert all(choices(1 / 100, cost=0.8 * SHARE / 100))
    dear = choices(1 / 100, cost=20e-3)
    assert dear[0]
    assert sum(dear) <= MEASURED + SHARE * WINDOW / 20e-3 + 2  # but for a try now and then
    assert all(choices(1 / 15, cost=20e-3))


def test_a_pause_of_the_machine_is_not_the_cost_of_a_spectrum():
    pace = Pace()
    for i in range(100):
        assert pace.room(1, 0.0, i / 50)
        pace.count(1, i / 50, 1.0 if i % MEASURED else COST, True)


def test_a_cost_is_measured_again_some_time():
    pace = Pace()
    for i in range(MEASURED + 1):
        pace.count(1, float(i), 1.0, True)
    later = [pace.room(1, 0.0, MEASURED + i) for i in range(int(2 * HALVED))]
    assert not later[0]
    assert later[-1]


@pytest.mark.parametrize("rate", [30.0, 66.0, 80.0, 100.0, 1000.0])
def test_completeness_never_takes_more_than_its_share(rate):
    """In every window, at any rate, one by one and in batches, once the cost is measured."""
    for spectra in (1, 2, 16):
        interval = spectra / rate
        complete = choices(interval, spectra, seconds=HALVED)
        per_window = max(1, int(WINDOW / interval))
        for i in range(len(complete) - per_window):
            taken = sum(complete[i : i + per_window]) * spectra * COST
            assert taken <= SHARE * WINDOW + spectra * COST


def test_what_is_late_or_a_large_batch_is_cut_short():
    assert all(choices(1.0, waited=0.9 * LATE))
    assert not any(choices(1.0, waited=1.1 * LATE))
    assert not any(choices(10.0, spectra=200)[:1])


def test_after_a_rush_there_is_room_again():
    pace = Pace()
    pace.count(1000, 0.0, 1.0, False)
    assert not pace.room(1, 0.0, WINDOW - 0.01)
    assert pace.room(1, 0.0, WINDOW)

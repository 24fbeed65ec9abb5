"""When there is time for the polish: slow scans always, fast ones never, and not when late."""

import pytest

from exafsd.service.pace import LATE, POLISH, SHARE, WINDOW, Pace


def polished(interval, spectra=1, seconds=20.0, waited=0.0):
    """Which of the batches that come at an interval are polished."""
    pace, choices = Pace(), []
    for i in range(int(seconds / interval)):
        choices.append(pace.room(spectra, waited, i * interval))
        pace.count(spectra, i * interval)
    return choices


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 50.0])
def test_slow_scans_are_polished_always(rate):
    assert all(polished(1 / rate))


def test_fast_scans_are_not_polished_once_their_pace_is_known():
    choices = polished(1 / 100)
    settled = int(100 * WINDOW)
    assert not any(choices[settled:])
    assert choices[0]
    assert all(choices[: int(SHARE * WINDOW / POLISH)])


@pytest.mark.parametrize("rate", [30.0, 66.0, 70.0, 100.0, 1000.0])
def test_polishing_never_takes_more_than_its_share(rate):
    """In every window, at any rate, one by one and in batches."""
    for spectra in (1, 2, 16):
        interval = spectra / rate
        choices = polished(interval, spectra)
        per_window = max(1, int(WINDOW / interval))
        for i in range(len(choices) - per_window):
            assert sum(choices[i : i + per_window]) * spectra * POLISH <= SHARE * WINDOW + 1e-9


def test_what_is_late_or_a_large_batch_is_not_polished():
    assert all(polished(1.0, waited=0.9 * LATE))
    assert not any(polished(1.0, waited=1.1 * LATE))
    assert not any(polished(10.0, spectra=200))


def test_after_a_rush_there_is_room_again():
    pace = Pace()
    pace.count(1000, 0.0)
    assert not pace.room(1, 0.0, WINDOW - 0.01)
    assert pace.room(1, 0.0, WINDOW)

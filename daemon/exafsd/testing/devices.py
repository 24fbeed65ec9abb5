"""Devices of the simulated beamline: Bluesky's protocols only, one per shape of documents."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exafsd.spectra import Floats

if TYPE_CHECKING:  # Larch comes with it, 3 s of imports
    from exafsd.testing.heating import Counts

#: Names of the columns, as the generic adapter expects them, with units.
UNITS = {"energy": "eV", "I0": "counts", "It": "counts", "Ir": "counts"}
HEATING_UNITS = {
    "truth_r": "angstrom",
    "truth_sigma2": "angstrom^2",
    "truth_n_s02": "",
    "truth_e0": "eV",
    "truth_c3": "angstrom^3",
    "temperature": "K",
}
#: Points of a monitored sweep are sent in groups of this duration, s: as an IOC's archiver would,
#: and so that a sweep of 500 points does not need 500 wake-ups.
MONITOR_GROUP = 0.02


@dataclass(frozen=True)
class Pass:
    """One sweep as the hardware has it: columns (n,), numbers, and the clock of every point."""

    columns: dict[str, Floats]
    numbers: dict[str, float]
    times: Floats

    @classmethod
    def of(cls, counts: "Counts", start: float, dwell: float) -> "Pass":
        """Sweep that began at `start`, s since 1970, with `dwell` s per point."""
        columns = dict(zip(UNITS, (counts.energy, counts.i0, counts.it, counts.ir), strict=True))
        numbers = {truth_key(name): float(value) for name, value in counts.truth.items()}
        return cls(columns, numbers, start + dwell * np.arange(len(counts.energy), dtype=float))


def truth_key(name: str) -> str:
    """Column of a true value; the temperature is no secret."""
    return name if name == "temperature" else f"truth_{name}"


class Done:
    """A Bluesky status; done at once, or when `finish` is called."""

    def __init__(self, done: bool = True) -> None:
        self.done = self.success = done
        self._failure: Exception | None = None
        self._callbacks: list[Callable[[Done], None]] = []

    def add_callback(self, callback: Callable[["Done"], None]) -> None:
        """Call back when done."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def exception(self, timeout: float | None = 0.0) -> Exception | None:
        """Return what went wrong, if anything."""
        return self._failure

    def finish(self, failure: Exception | None = None) -> None:
        """Say that it is over."""
        self._failure, self.success, self.done = failure, failure is None, True
        for callback in self._callbacks:
            callback(self)


def data_key(shape: list[int], units: str, external: str | None = None) -> dict[str, Any]:
    """Describe a float column or number, as a descriptor's ``data_keys`` want it."""
    key = {
        "source": "sim",
        "dtype": "array" if shape else "number",
        "dtype_numpy": "<f8",
        "shape": shape,
        "units": units,
    }
    return key | ({"external": external} if external else {})


def readings(values: Mapping[str, Any], at: float) -> dict[str, dict[str, Any]]:
    """Values as `read` returns them, taken at `at`, s since 1970."""
    return {key: {"value": value, "timestamp": at} for key, value in values.items()}


class Device:
    """What every device has; no configuration."""

    parent = None

    def __init__(self, name: str) -> None:
        self.name = name

    def read_configuration(self) -> dict[str, Any]:
        """Read nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Describe nothing."""
        return {}


class PointDetector(Device):
    """Shape (i): one energy per event."""

    def __init__(self) -> None:
        super().__init__("qxafs")
        self._points: Iterator[tuple[float, tuple[float, ...]]] = iter(())
        self._now: dict[str, Any] = {}

    def load(self, sweep: Pass) -> None:
        """Prepare a sweep; every `advance` takes its next point."""
        rows = zip(*(column.tolist() for column in sweep.columns.values()), strict=True)
        self._points = zip(sweep.times.tolist(), rows, strict=True)

    def advance(self) -> None:
        """Take the next point."""
        at, row = next(self._points)
        self._now = readings(dict(zip(UNITS, row, strict=True)), at)

    def read(self) -> dict[str, Any]:
        """Read the point taken."""
        return self._now

    def describe(self) -> dict[str, Any]:
        """Four numbers."""
        return {key: data_key([], units) for key, units in UNITS.items()}


class SweepDetector(Device):
    """Shape (iii): one sweep per event, as arrays; `numbers` are true values and their units."""

    def __init__(self, points: int, numbers: Mapping[str, str] = HEATING_UNITS) -> None:
        super().__init__("qxafs")
        self._points, self._numbers = points, numbers
        self._now: dict[str, Any] = {}

    def load(self, sweep: Pass) -> None:
        """Take a whole sweep."""
        self._now = readings({**sweep.columns, **sweep.numbers}, float(sweep.times[-1]))

    def read(self) -> dict[str, Any]:
        """Read the sweep taken."""
        return self._now

    def describe(self) -> dict[str, Any]:
        """Four arrays, and the numbers that hold for the whole sweep."""
        arrays = {key: data_key([self._points], units) for key, units in UNITS.items()}
        return arrays | {key: data_key([], units) for key, units in self._numbers.items()}


class PageFlyer(Device):
    """Shape (ii): pages of points, one or more per sweep."""

    def __init__(self, page: int = 100) -> None:
        super().__init__("qxafs_flyer")
        self._page = page
        self._sweeps: deque[Pass] = deque()

    def load(self, sweep: Pass) -> None:
        """Queue a sweep for `collect_pages`."""
        self._sweeps.append(sweep)

    def kickoff(self) -> Done:
        """Begin; at once."""
        return Done()

    def complete(self) -> Done:
        """End; at once."""
        return Done()

    def describe_collect(self) -> dict[str, Any]:
        """Four numbers per row."""
        return {key: data_key([], units) for key, units in UNITS.items()}

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """Yield what was queued, as pages."""
        while self._sweeps:
            sweep = self._sweeps.popleft()
            for first in range(0, len(sweep.times), self._page):
                rows = slice(first, first + self._page)
                at = sweep.times[rows].tolist()
                data = {key: column[rows].tolist() for key, column in sweep.columns.items()}
                yield {"data": data, "timestamps": dict.fromkeys(UNITS, at), "time": at}


class Monitored(Device):
    """Numbers that announce themselves, like an EPICS channel."""

    def __init__(self, name: str, keys: tuple[str, ...]) -> None:
        super().__init__(name)
        self._keys = keys
        self._now: dict[str, Any] = {}
        self._subscribers: list[Callable[..., None]] = []

    def subscribe(self, callback: Callable[..., None]) -> None:
        """Announce new values to `callback`."""
        self._subscribers.append(callback)

    def clear_sub(self, callback: Callable[..., None]) -> None:
        """Announce no more to `callback`."""
        self._subscribers.remove(callback)

    def announce(self, at: float, *values: float) -> None:
        """Send new values, with the device's own time in s since 1970."""
        self._now = readings(dict(zip(self._keys, values, strict=True)), at)
        for callback in self._subscribers:
            callback(self._now)

    def read(self) -> dict[str, Any]:
        """Read the latest values."""
        return self._now

    def describe(self) -> dict[str, Any]:
        """One number per key."""
        return {key: data_key([], UNITS[key]) for key in self._keys}


class Oscillator(Device):
    """Shape (iv): a monochromator to and fro, and ion chambers that know nothing of it.

    The encoder is read half a dwell time after the chambers: the streams share no clock and must
    be joined on timestamps.
    """

    def __init__(self) -> None:
        super().__init__("oscillator")
        self.mono = Monitored("mono", ("energy",))
        self.chambers = Monitored("chambers", ("I0", "It", "Ir"))
        self._sweeps: list[Pass] = []

    def load(self, sweep: Pass) -> None:
        """Queue a sweep for the next kickoff."""
        self._sweeps.append(sweep)

    def kickoff(self) -> Done:
        """Play the queued sweeps in a thread, in real time."""
        self._playing = Done(done=False)
        threading.Thread(target=self._play, daemon=True).start()
        return Done()

    def complete(self) -> Done:
        """Done when the queued sweeps have been played."""
        return self._playing

    def _play(self) -> None:
        try:
            while self._sweeps:
                self._play_one(self._sweeps.pop(0))
        except Exception as failure:  # the plan must learn of it, whatever it was
            self._playing.finish(failure)
        else:
            self._playing.finish()

    def _play_one(self, sweep: Pass) -> None:
        times = sweep.times
        half = 0.5 * (times[1] - times[0])
        energy, *counts = sweep.columns.values()
        encoder = np.append(0.5 * (energy[1:] + energy[:-1]), energy[-1])
        rows = zip(times.tolist(), encoder.tolist(), *(c.tolist() for c in counts), strict=True)
        for at, position, *chambers in rows:
            if at - time.time() > MONITOR_GROUP:
                time.sleep(at - time.time())
            self.chambers.announce(at, *chambers)
            self.mono.announce(at + half, position)

"""The simulated beamline as a process: a real RunEngine heats a sample of copper and publishes.

``python -m exafsd.testing.beamline --proxy tcp://127.0.0.1:5567 --shape array --seconds 10``
"""

import argparse
import itertools
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky.callbacks.zmq import Publisher
from bluesky.utils import MsgGenerator

from exafsd.codec import dumps
from exafsd.testing.devices import (
    Oscillator,
    PageFlyer,
    Pass,
    PointDetector,
    SweepDetector,
    truth_key,
)
from exafsd.testing.filedevices import Hdf5Detector, StreamDetector
from exafsd.testing.heating import HeatedFoil, cache_folder
from exafsd.testing.oxide_to_copper import OxideToCopper

SHAPES = ("array", "event", "page", "monitor", "resource", "stream")
#: What is heated, with the temperatures, K, from which and to which.
SCENARIOS = {"heating": (300.0, 900.0), "reduction": (300.0, 800.0)}
#: Units of true values, by what they begin with.
UNITS_OF = {"r": "angstrom", "sigma2": "angstrom^2", "c3": "angstrom^3", "temperature": "K"}
#: Shapes whose start document carries temperature and truth: their events have no room for it.
CONSTANT_RUNS = ("event", "page", "monitor")
#: s that the furnace takes from one temperature to the other if there is no end to the heating.
HEATING_SECONDS = 60.0
#: Events that TiledWriter holds before it writes: 500 sweeps of 500 points are 8 MB.
TILED_BATCH = 500


class Heating:
    """Sweeps of a foil whose temperature rises from start to end, at a fixed rate.

    Runs out after `sweeps` sweeps, or `seconds`, or when `stopped` is set. If `seconds` is infinite
    it is heated and cooled in turn.
    """

    def __init__(
        self,
        foil: HeatedFoil | OxideToCopper,
        rate: float,
        temperatures: tuple[float, float],
        seed: int,
        sweeps: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self._foil, self._rate, self._temperatures = foil, rate, temperatures
        self._rng = np.random.default_rng(seed)
        self._sweeps, self._seconds = sweeps, seconds
        self._started = self._begin = time.time()
        self._done = 0
        self.stopped = False

    @property
    def over(self) -> bool:
        """Whether there is no further sweep."""
        if self._seconds is not None and time.time() - self._started >= self._seconds:
            return True
        return self.stopped or self._done == self._sweeps

    @property
    def temperature(self) -> float:
        """Set point of the furnace, K."""
        if self._seconds == math.inf:
            turns = (time.time() - self._started) / HEATING_SECONDS
            progress = abs((turns + 1) % 2 - 1)
        elif self._seconds is not None:
            progress = (time.time() - self._started) / self._seconds
        else:
            progress = self._done / max((self._sweeps or 2) - 1, 1)
        low, high = self._temperatures
        return low + (high - low) * min(progress, 1.0)

    def truth(self, temperature: float) -> dict[str, float]:
        """Return what a sweep at this temperature would carry as truth."""
        return {k: v for k, v in self._foil.truth(temperature).items() if k != "temperature"}

    def next(self, temperature: float | None = None) -> tuple[float, Pass]:
        """Seconds to wait until the next sweep has been measured, and that sweep."""
        direction = "down" if self._done % 2 else "up"
        kelvin = self.temperature if temperature is None else temperature
        counts = self._foil.sweep(kelvin, direction, self._rng)
        now = time.time()
        # a late plan is not allowed to catch up: a monochromator does not either
        self._begin = max(self._begin, now - (self._done + 1) / self._rate)
        start = self._begin + self._done / self._rate
        self._done += 1
        sweep = Pass.of(counts, start, 1.0 / self._rate / len(counts.energy))
        return max(start + 1.0 / self._rate - now, 0.0), sweep


def run(
    heating: Heating, shape: str, device: Any, sweeps: int, metadata: dict[str, Any]
) -> MsgGenerator:
    """One run of at most `sweeps` sweeps in the given shape of documents."""
    temperature = None
    if shape in CONSTANT_RUNS:
        temperature = heating.temperature
        metadata = metadata | {"temperature": temperature, "truth": heating.truth(temperature)}

    def coming() -> Iterator[tuple[float, Pass]]:
        for _ in range(sweeps):
            if heating.over:
                return
            yield heating.next(temperature)

    @bpp.run_decorator(md=metadata)
    def inner() -> MsgGenerator:
        yield from PLANS[shape](coming(), device)

    if hasattr(device, "stage"):
        return (yield from bpp.stage_decorator([device])(inner)())
    return (yield from inner())


def _array(coming: Iterator[tuple[float, Pass]], device: Any) -> MsgGenerator:
    for wait, sweep in coming:
        yield from bps.sleep(wait)
        device.load(sweep)
        yield from bps.trigger_and_read([device])


def _event(coming: Iterator[tuple[float, Pass]], device: Any) -> MsgGenerator:
    for wait, sweep in coming:
        yield from bps.sleep(wait)
        device.load(sweep)
        for _ in sweep.times:  # trigger_and_read would take three times as long
            device.advance()
            yield from bps.create("primary")
            yield from bps.read(device)
            yield from bps.save()


def _page(coming: Iterator[tuple[float, Pass]], device: Any) -> MsgGenerator:
    yield from bps.declare_stream(device, name="primary", collect=True)
    yield from bps.kickoff(device, wait=True)
    for wait, sweep in coming:
        yield from bps.sleep(wait)
        device.load(sweep)
        yield from bps.collect(device, name="primary", return_payload=False)
    yield from bps.complete(device, wait=True)


def _monitor(coming: Iterator[tuple[float, Pass]], device: Any) -> MsgGenerator:
    yield from bps.monitor(device.mono, name="energy_monitor")
    yield from bps.monitor(device.chambers, name="ic_monitor")
    for _, sweep in coming:
        device.load(sweep)
        yield from bps.kickoff(device, wait=True)
        yield from bps.complete(device, wait=True)
    yield from bps.unmonitor(device.mono)
    yield from bps.unmonitor(device.chambers)


def _stream(coming: Iterator[tuple[float, Pass]], device: Any) -> MsgGenerator:
    yield from bps.declare_stream(device, name="primary", collect=True)
    for wait, sweep in coming:
        yield from bps.sleep(wait)
        device.load(sweep)
        yield from bps.collect(device, name="primary", return_payload=False)


PLANS: dict[str, Callable[[Iterator[tuple[float, Pass]], Any], MsgGenerator]] = {
    "array": _array,
    "resource": _array,
    "event": _event,
    "page": _page,
    "monitor": _monitor,
    "stream": _stream,
}


def device_for(shape: str, points: int, assets: Path, numbers: Mapping[str, str]) -> Any:
    """Return the device whose documents have this shape.

    Files go to `assets`; `numbers` are those that a sweep has, with their units.
    """
    makers: dict[str, Callable[[], Any]] = {
        "array": lambda: SweepDetector(points, numbers),
        "event": PointDetector,
        "page": PageFlyer,
        "monitor": Oscillator,
        "resource": lambda: Hdf5Detector(points, assets, numbers),
        "stream": lambda: StreamDetector(points, assets, numbers),
    }
    return makers[shape]()


def tiled_writer(uri: str, batch: int = TILED_BATCH) -> BufferingWrapper:
    """Archive runs in a tiled server, from a thread; the key comes from ``TILED_API_KEY``.

    `batch`: events that are written together; 1 for those who follow the runs there.
    """
    from bluesky_tiled_plugins import TiledWriter  # seconds to import, and optional here
    from tiled.client import from_uri

    client = from_uri(uri, api_key=os.environ.get("TILED_API_KEY"))
    types = {"XAFS_HDF5": "application/x-hdf5"}  # or tiled could not read what resources announce
    return BufferingWrapper(TiledWriter(client, batch_size=batch, spec_to_mimetype=types))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of the simulated beamline."""
    parser = argparse.ArgumentParser(prog="python -m exafsd.testing.beamline", description=__doc__)
    add = parser.add_argument
    add("--proxy", required=True, help="where to publish, tcp://HOST:PORT (a proxy's input)")
    add("--shape", choices=SHAPES, nargs="+", default=["array"], help="in turn, if several")
    add("--sweeps", type=int, help="sweeps per run (default: 1 for event and page, else 10)")
    add("--runs", type=int, default=1, help="runs of each shape")
    add("--seconds", type=float, help="go on for so long, with as many runs as it takes; or inf")
    add("--rate", type=float, default=10.0, help="sweeps per second")
    add("--points", type=int, default=500, help="energies per sweep")
    add("--assets", type=Path, help="folder for HDF5 files")
    add("--tiled", metavar="URI", help="archive the runs there as well")
    add("--tiled-batch", type=int, default=TILED_BATCH, help="events that are written together")
    add("--element", default="Cu")
    add("--edge", default="K")
    add("--scenario", choices=SCENARIOS, default="heating", help="a foil, or copper oxide")
    add("--temperature-start", type=float, help="K")
    add("--temperature-end", type=float, help="K")
    add("--seed", type=int, default=1)
    add("--settle", type=float, default=1.0, help="s to wait for subscribers before the first run")
    return parser.parse_args(arguments)


def sweeps_of(args: argparse.Namespace) -> Callable[[str], int]:
    """Sweeps per run, by shape."""

    def sweeps(shape: str) -> int:
        if args.sweeps:
            return int(args.sweeps)
        if args.seconds and args.seconds < math.inf and shape not in CONSTANT_RUNS:
            return int(args.seconds * args.rate) + 1  # a single run
        return 1 if shape in ("event", "page") else 10

    return sweeps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the beamline until it has done what was asked, or is told to stop."""
    args = parse(arguments)
    if (args.element, args.edge) != ("Cu", "K"):
        raise SystemExit(
            f"only a Cu foil at its K edge is simulated, not {args.element} {args.edge}"
        )
    low, high = SCENARIOS[args.scenario]
    temperatures = args.temperature_start or low, args.temperature_end or high
    sample = "Cu foil"
    foil: HeatedFoil | OxideToCopper
    if args.scenario == "reduction":
        foil, sample = OxideToCopper(args.points, temperatures), "CuO in hydrogen"
    else:
        foil = HeatedFoil(cache_folder(), args.points, temperatures)
    numbers = {
        truth_key(name): UNITS_OF.get(name.partition("_")[0], "")
        for name in foil.truth(temperatures[0])
    }

    engine = RunEngine({}, context_managers=[])  # signals are ours, below
    publisher = Publisher(args.proxy, serializer=dumps)
    engine.subscribe(publisher)
    writer = tiled_writer(args.tiled, args.tiled_batch) if args.tiled else None
    if writer:
        engine.subscribe(writer)
    time.sleep(args.settle)  # a PUB socket drops what it sends before its subscribers are known

    limit = None if args.seconds else args.runs * sum(map(sweeps_of(args), args.shape))
    heating = Heating(foil, args.rate, temperatures, args.seed, limit, args.seconds)

    def stop(number: int, frame: Any) -> None:
        heating.stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    metadata = {
        "plan_name": "qexafs",
        "element": args.element,
        "edge": args.edge,
        "sample": {"name": sample},
    }
    with tempfile.TemporaryDirectory(prefix="exafsd-beamline-") as scratch:
        assets = args.assets or Path(scratch)
        assets.mkdir(parents=True, exist_ok=True)
        for shape in itertools.cycle(args.shape):
            if heating.over:
                break
            device = device_for(shape, args.points, assets.absolute(), numbers)
            engine(run(heating, shape, device, sweeps_of(args)(shape), metadata))
        if writer:
            writer.shutdown()
        publisher.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

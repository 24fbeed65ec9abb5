"""Frames of whole runs as bluesky sends them, made so cheaply that the sender is no bottleneck.

Documents are put together from parts that were packed before; what comes out is what
`exafsd.codec.dumps` makes of the same dictionaries.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgpack
import numpy as np
from event_model import compose_run

from exafsd import codec
from exafsd.testing.devices import data_key
from exafsd.testing.heating import HeatedFoil, cache_folder, trajectory
from exafsd.testing.oxide_to_copper import OxideToCopper

COLUMNS = ("energy", "I0", "It", "Ir")
METADATA = {"element": "Cu", "edge": "K", "sample": {"name": "Cu foil"}, "plan_name": "bench"}
#: different spectra; they come again and again
SPECTRA = 32
#: points from which the absorption of the foil is interpolated
FINE = 4000
PHOTONS = 1e8
#: A step scan of more points than this is not made. (Its points crowd where k is small, and there
#: Larch's `find_e0`, which smooths by points, finds another edge.)
STEP_SCAN = 1000
#: s from one point to the next, where points have times
DWELL = 1e-5


@dataclass(frozen=True)
class Load:
    """What is sent: sweeps up and down over the Cu K edge.

    `array`: an event per sweep; `event`: an event per point; `page`: event pages, which do not
    respect the ends of sweeps, with columns as `lists`, as bluesky has them, or as arrays;
    `dispersive`: event pages of `page` whole spectra, all with the same energies. `noise` of the
    encoder in eV makes the energies of every sweep different. With `oxide` it is copper oxide that
    is reduced, with measured near edges, and not a foil, whose edge is a step.
    """

    kind: Literal["array", "event", "page", "dispersive"] = "array"
    points: int = 500
    page: int = 10_000
    noise: float = 0.0
    lists: bool = True
    oxide: bool = False


def sweeps(points: int, even: bool, count: int = SPECTRA, oxide: bool = False) -> list[np.ndarray]:
    """Sweeps (4, points) of a foil between 300 and 850 K: energy in eV, I0, It, Ir in counts.

    Energies are `even`, as of an encoder, or as a step scan has them. Of the `oxide`, it is reduced
    between 300 and 800 K.
    """
    foil = (
        OxideToCopper(FINE, photons=1e14)
        if oxide
        else HeatedFoil(cache_folder(), FINE, photons=1e14)
    )
    low, high = foil.energy[[0, -1]]
    energy = np.linspace(low, high, points) if even else trajectory(points)
    rng = np.random.default_rng(1)
    passes = []
    for number, kelvin in enumerate(np.linspace(300, 800 if oxide else 850, count)):
        one = foil.sweep(kelvin, "up", rng)
        through = np.interp(energy, one.energy, one.it / one.i0)
        behind = np.interp(energy, one.energy, one.ir / one.it)
        i0 = rng.poisson(np.full(points, PHOTONS)).astype(float)
        it = rng.poisson(i0 * through).astype(float)
        ir = rng.poisson(it * behind).astype(float)
        columns = np.array([energy, i0, it, ir])
        passes.append(columns[:, ::-1].copy() if number % 2 else columns)
    return passes


def frames(load: Load) -> tuple[str, Iterator[tuple[bytes, int]], bytes]:
    """Return uid of a run, its frames and the points sent by then without end, and its last frame.

    The first two frames are start and descriptor, with 0 points.
    """
    run = compose_run(metadata=METADATA | {"scan_id": 1})
    shape = [load.points] if load.kind in ("array", "dispersive") else []
    bundle = run.compose_descriptor(
        name="primary",
        data_keys={key: data_key(shape, "eV" if key == "energy" else "") for key in COLUMNS},
    )

    def all_frames() -> Iterator[tuple[bytes, int]]:
        yield _frame("start", codec.dumps(run.start_doc)), 0
        yield _frame("descriptor", codec.dumps(bundle.descriptor_doc)), 0
        makers = {"array": _arrays, "event": _events, "page": _pages, "dispersive": _spectra}
        maker = makers[load.kind]
        yield from maker(load, bundle.descriptor_doc["uid"])

    stop = {"uid": str(uuid.uuid4()), "run_start": run.start_doc["uid"], "time": time.time(),
            "exit_status": "success", "num_events": {}}  # fmt: skip
    return run.start_doc["uid"], all_frames(), _frame("stop", codec.dumps(stop))


def _frame(name: str, payload: bytes) -> bytes:
    """A frame as `bluesky.callbacks.zmq.Publisher` sends it, with an empty prefix."""
    return b" %b %b" % (name.encode(), payload)


def _map(**parts: bytes) -> bytes:
    """Put a packed dictionary together from packed values."""
    packed = [msgpack.Packer().pack_map_header(len(parts))]
    for key, value in parts.items():
        packed += [msgpack.packb(key), value]
    return b"".join(packed)


def _doubles(values: np.ndarray) -> bytes:
    """Packed list of floats."""
    rows = np.empty(len(values), dtype=[("type", "u1"), ("value", ">f8")])
    rows["type"], rows["value"] = 0xCB, values
    return msgpack.Packer().pack_array_header(len(values)) + rows.tobytes()


def _numbers(first: int, count: int) -> bytes:
    """Packed list of integers one after the other."""
    rows = np.empty(count, dtype=[("type", "u1"), ("value", ">u4")])
    rows["type"], rows["value"] = 0xCE, np.arange(first, first + count)
    return msgpack.Packer().pack_array_header(count) + rows.tobytes()


def _uids(first: int, count: int) -> bytes:
    """Packed list of strings as long as a UUID, all different."""
    rows = np.full((count, 38), ord("0"), dtype="u1")
    rows[:, :2] = 0xD9, 36
    digits = np.arange(first, first + count)[:, None] >> 4 * np.arange(8)[::-1] & 15
    rows[:, 30:] = np.frombuffer(b"0123456789abcdef", "u1")[digits]
    return msgpack.Packer().pack_array_header(count) + rows.tobytes()


def _arrays(load: Load, descriptor: str) -> Iterator[tuple[bytes, int]]:
    own = msgpack.packb(descriptor)
    even = load.points > STEP_SCAN or load.noise > 0
    columns = sweeps(load.points, even, oxide=load.oxide)
    data = [codec.dumps(dict(zip(COLUMNS, one, strict=True))) for one in columns]
    counts = [
        {key: codec.dumps(one[i + 1]) for i, key in enumerate(COLUMNS[1:])} for one in columns
    ]
    rng = np.random.default_rng(3)
    number = 0
    while True:
        number += 1
        now = time.time()
        place = (number - 1) % SPECTRA
        packed = data[place]
        if load.noise:
            energy = columns[place][0] + load.noise * rng.normal(size=load.points)
            packed = _map(energy=codec.dumps(energy), **counts[place])
        document = _map(
            uid=msgpack.packb(f"{number:036x}"),
            time=msgpack.packb(now),
            seq_num=msgpack.packb(number),
            descriptor=own,
            filled=b"\x80",
            data=packed,
            timestamps=msgpack.packb(dict.fromkeys(COLUMNS, now)),
        )
        yield _frame("event", document), number * load.points


def _spectra(load: Load, descriptor: str) -> Iterator[tuple[bytes, int]]:
    own = msgpack.packb(descriptor)
    up = np.array(sweeps(load.points, even=True))
    up[1::2] = up[1::2, :, ::-1]
    rows = up[np.arange(load.page) % SPECTRA]
    data = _map(**{key: codec.dumps(rows[:, i]) for i, key in enumerate(COLUMNS)})
    number = 0
    while True:
        times = _doubles(np.full(load.page, time.time()))
        document = _map(
            uid=_uids(number, load.page),
            time=times,
            seq_num=_numbers(number + 1, load.page),
            descriptor=own,
            filled=b"\x80",
            data=data,
            timestamps=_map(**dict.fromkeys(COLUMNS, times)),
        )
        number += load.page
        yield _frame("event_page", document), number * load.points


def _events(load: Load, descriptor: str) -> Iterator[tuple[bytes, int]]:
    keys = [msgpack.packb(key) for key in COLUMNS]
    table = np.concatenate(sweeps(load.points, even=True), axis=1).T.tolist()
    data = [msgpack.packb(dict(zip(COLUMNS, row, strict=True))) for row in table]
    between = _map(descriptor=msgpack.packb(descriptor), filled=b"\x80")[1:]
    uid, at, seq_num, timestamps, values = (
        msgpack.packb(key) for key in ("uid", "time", "seq_num", "timestamps", "data")
    )
    began = time.time()
    number = 0
    while True:
        for row in data:
            number += 1
            now = msgpack.packb(began + number * DWELL)
            times = b"\x84" + b"".join([part for key in keys for part in (key, now)])
            yield b"".join((
                b" event \x87", uid, msgpack.packb(f"{number:036x}"), at, now,
                seq_num, msgpack.packb(number), between, timestamps, times, values, row,
            )), number  # fmt: skip


def _pages(load: Load, descriptor: str) -> Iterator[tuple[bytes, int]]:
    own = msgpack.packb(descriptor)
    table = np.concatenate(sweeps(load.points, even=True), axis=1)
    rng = np.random.default_rng(2)
    column = _doubles if load.lists else codec.dumps
    began = time.time()
    number = 0
    while True:
        rows = np.arange(number, number + load.page)
        page = table[:, rows % table.shape[1]]
        if load.noise:
            page[0] += load.noise * rng.normal(size=load.page)
        times = column(began + rows * DWELL)
        document = _map(
            uid=_uids(number, load.page),
            time=times,
            seq_num=_numbers(number + 1, load.page),
            descriptor=own,
            filled=b"\x80",
            data=_map(**{key: column(page[i]) for i, key in enumerate(COLUMNS)}),
            timestamps=_map(**dict.fromkeys(COLUMNS, times)),
        )
        number += load.page
        yield _frame("event_page", document), number

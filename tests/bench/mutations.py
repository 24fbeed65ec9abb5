"""Documents and frames changed at random: nothing crashes, memory stays flat, nothing takes long.

Run ``make mutations``; DOCUMENTS and FRAMES are their numbers. Each document is changed in one or
several places and fed in the place of the one it was; what it takes, in processor time, is compared
with that one. Slow ones are timed again, since the machine has other things to do.
"""

import argparse
import copy
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from exafsd.codec import CodecError, dumps, loads
from exafsd.outcome import Outcome
from resuming import session
from simulated.shapes import SHAPES
from synthetic import METADATA, sweep_columns

#: what may stand anywhere
JUNK = (
    None, True, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 10**12, 1.5, -1e308, float("nan"),
    float("inf"), "", "x", "\0", "a.b.c", "../..", "x" * 10_000, b"", b"\xff" * 50, [], [[]], {},
    {"": {}}, [None] * 100, np.zeros(0), np.zeros(3), np.full(50_000, np.nan), np.zeros((4, 0)),
    np.array(["a", "b"]), np.ones((60, 60)), np.float32(2), {"a": {"b": [1, {"c": None}]}},
)  # fmt: skip
#: times that a document may take as long as the one it was, beyond as many s that are noise
LONGEST, NOISE = 10.0, 2e-3
#: MB that the process may grow after the first tenth
GROWTH = 60.0


def places(value, path=()):
    """Paths to everything in a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 20)):
            yield from places(value[index], (*path, index))


def changed(document, rng):
    """A copy with one to three places changed."""
    copied = copy.deepcopy(document)
    for _ in range(rng.integers(1, 4)):
        below_root = [path for path in places(copied) if path]
        if not below_root:
            return JUNK[rng.integers(len(JUNK))]
        path = below_root[rng.integers(len(below_root))]
        inner = copied
        for step in path[:-1]:
            inner = inner[step]
        what = rng.integers(6)
        if what == 0:
            del inner[path[-1]]
        elif what == 1 and isinstance(inner, dict):
            inner[str(JUNK[rng.integers(len(JUNK))])[:50]] = inner.pop(path[-1])
        elif what == 2 and isinstance(inner, dict):
            other = list(inner)[rng.integers(len(inner))]
            inner[path[-1]], inner[other] = inner[other], inner[path[-1]]
        elif what == 3 and _is_column(inner[path[-1]]):
            array = inner[path[-1]].ravel()
            array[rng.integers(array.size, size=5)] = rng.choice([np.nan, np.inf, 0, -1, 1e300])
            inner[path[-1]] = array
        else:
            inner[path[-1]] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    return copied


def _is_column(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def cost(documents, position, replacement, folder):
    """Processor time of one document of a run, s; the whole run is fed."""
    going = session([folder])
    taken = 0.0
    for i, (name, document) in enumerate(documents):
        at = time.process_time()
        for event in going.feed(name, replacement if i == position else document):
            if isinstance(event, Outcome):
                assert getattr(event.message, "reason", None) != "internal", event.message.detail
        if i == position:
            taken = time.process_time() - at
    list(going.close())
    return taken


def memory():
    """Resident memory of the process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def mutate_documents(count, rng):
    """Feed changed documents; returns counts, slowest ratio and growth."""
    sweeps = [sweep_columns(i, points=60) for i in range(2)]
    worst, slow, first = (0.0, ""), Counter(), 0.0
    with TemporaryDirectory() as folder:
        runs = {s: list(make(sweeps, METADATA, Path(folder))) for s, make in SHAPES.items()}
        usual = {
            (shape, i): sorted(cost(run, i, run[i][1], folder) for _ in range(7))[3]
            for shape, run in runs.items()
            for i in (*range(min(len(run), 12)), len(run) - 1)
        }
        keys = list(usual)
        for number in range(count):
            shape, i = keys[rng.integers(len(keys))]
            run = runs[shape]
            document = changed(run[i][1], rng)
            allowed = LONGEST * usual[shape, i] + NOISE
            taken = cost(run, i, document, folder)
            if taken > allowed:
                taken = min(cost(run, i, document, folder) for _ in range(3))
            ratio = taken / (usual[shape, i] + NOISE / LONGEST)
            if ratio > worst[0]:
                worst = ratio, f"{shape} {run[i][0]}: {taken * 1e3:.1f} ms"
            slow["too slow"] += taken > allowed
            if number == count // 10:
                first = memory()
    return slow["too slow"], worst, memory() - first


def mutate_frames(count, rng):
    """Decode changed frames; returns how many were refused, the slowest ratio and growth."""
    sweeps = [sweep_columns(i, points=400) for i in range(2)]
    with TemporaryDirectory() as folder:
        frames = [
            dumps(document)
            for make in SHAPES.values()
            for _, document in list(make(sweeps, METADATA, Path(folder)))[:20]
        ]
    refused, worst, first = 0, 0.0, memory()
    for _ in range(count):
        frame = frames[rng.integers(len(frames))]
        data = bytearray(frame)
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(len(data))) if data else 0
            what = rng.integers(4)
            if what == 0:
                data[at : at + 1] = bytes([rng.integers(256)])
            elif what == 1:
                del data[at : at + int(rng.integers(1, 50))]
            elif what == 2:
                data[at:at] = rng.bytes(rng.integers(1, 50))
            else:
                data[at:at] = data[: rng.integers(1, 200)]
        times = [decoded(bytes(data)) for _ in range(3)]
        usual = min(decoded(frame)[0] for _ in range(3))
        refused += times[0][1]
        worst = max(worst, min(t for t, _ in times) / (usual + NOISE / LONGEST))
    return refused, worst, memory() - first


def decoded(data):
    """Processor time of decoding, s, and whether it was refused."""
    at = time.process_time()
    try:
        loads(data)
    except CodecError:
        return time.process_time() - at, True
    return time.process_time() - at, False


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    refused, worst, growth = mutate_frames(asked.frames, rng)
    print(f"{asked.frames} frames: {refused} refused, slowest {worst:.1f} times, {growth:+.0f} MB")
    too_slow, (ratio, which), more = mutate_documents(asked.documents, rng)
    print(
        f"{asked.documents} documents: {too_slow} took more than {LONGEST:.0f} times, slowest"
        f" {ratio:.1f} times ({which}), {more:+.0f} MB"
    )
    return int(too_slow > 0 or worst > LONGEST or max(growth, more) > GROWTH)


if __name__ == "__main__":
    sys.exit(main())

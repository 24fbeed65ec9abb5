"""Runs of the simulated Cu foil in a journal and a catalog, and their results as on the wire."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from bluesky_tiled_plugins import TiledWriter

from exafsd.archive.journal import Journal
from exafsd.archive.journaled import JOURNAL
from exafsd.archive.records import RecordFile, read_records
from exafsd.archive.results import messages
from exafsd.archive.sources import open_source
from exafsd.commands.replay.analysis import analyse
from exafsd.contract.frames import Message, decode, encode
from exafsd.contract.messages import RunStart, RunStop
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.service import wiring
from exafsd.service.sink import deliver
from exafsd.settings.analysis import Analysis
from exafsd.settings.settings import Settings, load
from exafsd.testing.heating import HeatedFoil, cache_folder
from simulated import shapes

Documents = list[tuple[str, dict[str, Any]]]
#: raw runs, and their sweeps; the second sweep of each is flat, and rejected
RUNS, SWEEPS, POINTS = 3, 4, 400


def heated(number: int) -> Documents:
    """Documents of one run: an array event per sweep, the second with no beam."""
    foil = HeatedFoil(cache_folder(), POINTS, (300.0, 900.0))
    sweeps: list[shapes.SweepData] = []
    for place in range(SWEEPS):
        temperature = 300.0 + 50.0 * (SWEEPS * number + place)
        counts = foil.sweep(temperature, "up", np.random.default_rng(100 * number + place))
        signals = {"I0": counts.i0, "It": counts.it, "Ir": counts.ir}
        if place == 1:
            signals = {name: np.zeros(POINTS) for name in signals}
        truth = {f"truth_{name}": counts.truth[name] for name in ("r", "sigma2")}
        sweeps.append((counts.energy, signals, {"temperature": temperature, **truth}))
    metadata = {
        "uid": f"raw-run-{number}", "scan_id": number, "time": 1.7e9 + number,
        "element": "Cu", "edge": "K", "sample": {"name": f"Cu foil {number}"},
    }  # fmt: skip
    return list(shapes.array_events(sweeps, metadata))


def archive(documents: Documents, client: Any) -> None:
    """Archive a run as a beamline does."""
    writer = TiledWriter(client)
    for name, document in documents:
        writer(name, document)


def journal(documents: Documents, folder: Path) -> None:
    """Journal a run as the daemon does."""
    writer = Journal(folder)
    for name, document in documents:
        writer.write(name, document)
    writer.close()


def renamed(journal_folder: Path, folder: Path, uid: str) -> Path:
    """File of the first run in another journal, under a uid that no other test knows."""
    (path,) = journal_folder.glob("*raw-run-0*")
    assert len(uid) == len("raw-run-0")  # lengths stand in the file
    folder.mkdir(exist_ok=True)
    copy = folder / path.name.replace("raw-run-0", uid)
    file = RecordFile(copy, JOURNAL)
    for content, _ in read_records(path, JOURNAL):
        file.append(content.replace(b"raw-run-0", uid.encode()))
    file.close()
    return copy


def cards() -> dict[str, Any]:
    return wiring.cards_of(Registry.load(()))


@dataclass
class Published:
    """Takes outcomes of a run, gives them on to a sink, and keeps them as they are on the wire."""

    sink: Any
    wire: list[Message] = field(default_factory=list)
    began: Any = None
    ended: Any = None

    def run(
        self,
        folder: Path,
        uid: str,
        settings: Settings | None = None,
        change: Callable | None = None,
    ) -> list[Message]:
        settings = settings or load()
        pipeline = wiring.make_pipeline(settings)
        for item in analyse(open_source(str(folder)), uid, settings, pipeline, realtime=False):
            if isinstance(item, Outcome) and change is not None:
                item = Outcome(item.message, change(len(self.wire), dict(item.arrays)))
            deliver(item, self)
        return self.wire

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        self.began = SimpleNamespace(start=start, analysis=analysis)
        self.sink.run_began(start, analysis)

    def write(self, message: Any, arrays: Any) -> None:
        self.wire.append(decode(encode(message, arrays)))
        self.sink.write(message, arrays)

    def run_ended(self, stop: RunStop) -> None:
        self.ended = SimpleNamespace(stop=stop)
        self.sink.run_ended(stop)


def assert_equal(stored: Sequence[Message], wire: Sequence[Message]) -> None:
    """Headers and arrays, float32 arrays exactly."""
    assert len(stored) == len(wire)
    for one, other in zip(stored, wire, strict=True):
        assert one.header == other.header
        assert set(one.arrays) == set(other.arrays)
        for name, array in other.arrays.items():
            assert one.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(one.arrays[name], array)


def read_back(run: Any) -> list[Message]:
    return list(messages(run))


def kinds(wire: Sequence[Message]) -> Counter[str]:
    return Counter(message.header["kind"] for message in wire)

"""Documents of whole runs in each of the six shapes, without a RunEngine: fast enough for tests."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from event_model import compose_run

from exafsd.spectra import Floats
from exafsd.testing.devices import data_key

#: One sweep: energies (n,) in eV in the order of measurement, columns (n,), numbers per sweep.
SweepData = tuple[Floats, Mapping[str, Floats], Mapping[str, float]]
Document = tuple[str, dict[str, Any]]
Metadata = Mapping[str, Any]
#: Seconds per point, where a shape carries times.
DWELL = 1e-3


def events(sweeps: Iterable[SweepData], metadata: Metadata) -> Iterator[Document]:
    """(i) One event per energy; the numbers of a sweep are repeated in each."""
    yield from _rows(sweeps, metadata, page_size=None)


def event_pages(
    sweeps: Iterable[SweepData], metadata: Metadata, page_size: int = 100
) -> Iterator[Document]:
    """(ii) Pages of `page_size` energies; pages do not respect the ends of sweeps."""
    yield from _rows(sweeps, metadata, page_size)


def array_events(sweeps: Iterable[SweepData], metadata: Metadata) -> Iterator[Document]:
    """(iii) One event per sweep."""
    sweeps = list(sweeps)
    run = _run(metadata)
    yield "start", run.start_doc
    columns, numbers = _keys(sweeps)
    keys = {key: data_key([len(sweeps[0][0])], "") for key in columns}
    bundle = run.compose_descriptor(
        name="primary", data_keys=keys | {key: data_key([], "") for key in numbers}
    )
    yield "descriptor", bundle.descriptor_doc
    for energy, signals, extras in sweeps:
        now = time.time()
        data = {"energy": energy, **signals, **extras}
        yield (
            "event",
            bundle.compose_event(data=data, timestamps=dict.fromkeys(data, now), validate=False),
        )
    yield "stop", run.compose_stop()


def monitors(sweeps: Iterable[SweepData], metadata: Metadata) -> Iterator[Document]:
    """(iv) An oscillating monochromator and its detectors as two streams without a common clock.

    The encoder is read half a `DWELL` after the detectors.
    """
    sweeps = list(sweeps)
    run = _run(metadata)
    yield "start", run.start_doc
    columns, _ = _keys(sweeps)
    mono = run.compose_descriptor(name="energy_monitor", data_keys={"energy": data_key([], "eV")})
    yield "descriptor", mono.descriptor_doc
    keys = {key: data_key([], "") for key in columns if key != "energy"}
    chambers = run.compose_descriptor(name="ic_monitor", data_keys=keys)
    yield "descriptor", chambers.descriptor_doc
    at = time.time()
    for energy, signals, _ in sweeps:
        encoder = np.append(0.5 * (energy[1:] + energy[:-1]), energy[-1])
        for i, position in enumerate(encoder.tolist()):
            at += DWELL
            data = {key: float(column[i]) for key, column in signals.items()}
            times = dict.fromkeys(data, at)
            yield (
                "event",
                chambers.compose_event(data=data, timestamps=times, time=at, validate=False),
            )
            late = at + DWELL / 2
            yield (
                "event",
                mono.compose_event(
                    data={"energy": position},
                    timestamps={"energy": late},
                    time=late,
                    validate=False,
                ),
            )
    yield "stop", run.compose_stop()


def resource_datum(
    sweeps: Iterable[SweepData], metadata: Metadata, folder: Path
) -> Iterator[Document]:
    """(v-a) Columns in an HDF5 file in `folder`, announced by resource and datum."""
    sweeps = list(sweeps)
    columns, numbers = _keys(sweeps)
    path = _write_hdf5(sweeps, columns, folder)
    run = _run(metadata)
    yield "start", run.start_doc
    keys = {key: data_key([len(sweeps[0][0])], "", "FILESTORE:") for key in columns}
    bundle = run.compose_descriptor(
        name="primary", data_keys=keys | {key: data_key([], "") for key in numbers}
    )
    yield "descriptor", bundle.descriptor_doc
    resources = {}
    for key in columns:
        resources[key] = run.compose_resource(
            spec="XAFS_HDF5",
            root=str(folder),
            resource_path=path.name,
            resource_kwargs={"dataset": f"entry/{key}"},
        )
        yield "resource", resources[key].resource_doc
    for index, (_, _, extras) in enumerate(sweeps):
        data: dict[str, Any] = dict(extras)
        for key in columns:
            datum = resources[key].compose_datum(datum_kwargs={"index": index})
            yield "datum", datum
            data[key] = datum["datum_id"]
        times = dict.fromkeys(data, time.time())
        filled = dict.fromkeys(columns, False)
        yield (
            "event",
            bundle.compose_event(data=data, timestamps=times, filled=filled, validate=False),
        )
    yield "stop", run.compose_stop()


def stream_assets(
    sweeps: Iterable[SweepData], metadata: Metadata, folder: Path
) -> Iterator[Document]:
    """(v-b) Everything in an HDF5 file in `folder`, announced as ophyd-async does: no events."""
    sweeps = list(sweeps)
    columns, numbers = _keys(sweeps)
    path = _write_hdf5(sweeps, [*columns, *numbers], folder)
    run = _run(metadata)
    yield "start", run.start_doc
    points = len(sweeps[0][0])
    shapes = {key: [points] for key in columns} | {key: [] for key in numbers}
    keys = {key: data_key(shape, "", "STREAM:") for key, shape in shapes.items()}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    yield "descriptor", bundle.descriptor_doc
    resources = []
    for key, shape in shapes.items():
        resource = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{path}",
            data_key=key,
            parameters={"dataset": f"/entry/{key}", "chunk_shape": [1, *shape]},
        )
        resources.append(resource)
        yield "stream_resource", resource.stream_resource_doc
    for index in range(len(sweeps)):
        for resource in resources:
            yield (
                "stream_datum",
                resource.compose_stream_datum(
                    indices={"start": index, "stop": index + 1},
                    seq_nums={"start": index + 1, "stop": index + 2},
                    descriptor=bundle.descriptor_doc,
                ),
            )
    yield "stop", run.compose_stop()


def _rows(
    sweeps: Iterable[SweepData], metadata: Metadata, page_size: int | None
) -> Iterator[Document]:
    sweeps = list(sweeps)
    columns, numbers = _keys(sweeps)
    keys = [*columns, *numbers]
    table = {
        key: np.concatenate(
            [
                np.full(len(energy), {"energy": energy, **signals, **extras}[key])
                for energy, signals, extras in sweeps
            ]
        ).tolist()
        for key in keys
    }
    run = _run(metadata)
    yield "start", run.start_doc
    bundle = run.compose_descriptor(
        name="primary", data_keys={key: data_key([], "") for key in keys}
    )
    yield "descriptor", bundle.descriptor_doc
    times = (time.time() + DWELL * np.arange(len(table["energy"]))).tolist()
    for first in range(0, len(times), page_size or 1):
        if page_size is None:
            data = {key: column[first] for key, column in table.items()}
            stamps = dict.fromkeys(keys, times[first])
            yield (
                "event",
                bundle.compose_event(
                    data=data, timestamps=stamps, time=times[first], validate=False
                ),
            )
            continue
        rows = slice(first, first + page_size)
        page = bundle.compose_event_page(
            data={key: column[rows] for key, column in table.items()},
            timestamps=dict.fromkeys(keys, times[rows]),
            time=times[rows],
            seq_num=list(range(first + 1, first + 1 + len(times[rows]))),
            validate=False,
        )
        yield "event_page", page
    yield "stop", run.compose_stop()


def _run(metadata: Metadata) -> Any:
    metadata = dict(metadata)
    identity = {key: metadata.pop(key) for key in ("uid", "time") if key in metadata}
    return compose_run(**identity, metadata={"plan_name": "qexafs", "scan_id": 1, **metadata})


def _keys(sweeps: Sequence[SweepData]) -> tuple[list[str], list[str]]:
    _, signals, extras = sweeps[0]
    return ["energy", *signals], list(extras)


def _write_hdf5(sweeps: Sequence[SweepData], keys: Sequence[str], folder: Path) -> Path:
    path = folder / f"{uuid.uuid4()}.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for key in keys:
            rows = [{"energy": energy, **cols, **nums}[key] for energy, cols, nums in sweeps]
            file[f"entry/{key}"] = np.asarray(rows, dtype="<f8")
    return path


#: Each shape of documents by its name, made of sweeps, metadata and a folder for files.
SHAPES: dict[str, Callable[[Iterable[SweepData], Metadata, Path], Iterator[Document]]] = {
    "event": lambda sweeps, metadata, _: events(sweeps, metadata),
    "page": lambda sweeps, metadata, _: event_pages(sweeps, metadata),
    "array": lambda sweeps, metadata, _: array_events(sweeps, metadata),
    "monitor": lambda sweeps, metadata, _: monitors(sweeps, metadata),
    "resource": resource_datum,
    "stream": stream_assets,
}

"""Devices of the simulated beamline that write HDF5 files and only announce them."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
from event_model import compose_resource, compose_stream_resource

from exafsd.testing.devices import HEATING_UNITS, UNITS, Device, Pass, data_key, readings


class _Hdf5File:
    """A growing HDF5 file that may be read while it is written (SWMR)."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path = path
        self.rows = 0
        self._file = h5py.File(path, "w", libver="latest")
        self._sets = {
            key: self._file.create_dataset(
                f"entry/{key}", (0, *shape), "<f8", maxshape=(None, *shape), chunks=(1, *shape)
            )
            for key, shape in shapes.items()
        }
        self._file.swmr_mode = True

    def append(self, row: Mapping[str, Any]) -> None:
        for key, dataset in self._sets.items():
            dataset.resize(self.rows + 1, axis=0)
            dataset[self.rows] = row[key]
            dataset.flush()
        self.rows += 1

    def close(self) -> None:
        self._file.close()


class Hdf5Detector(Device):
    """Shape (v-a): arrays in HDF5, announced by resource and datum."""

    def __init__(
        self, points: int, folder: Path, numbers: Mapping[str, str] = HEATING_UNITS
    ) -> None:
        super().__init__("qxafs")
        self._points, self._folder, self._numbers = points, folder, numbers
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._now: dict[str, Any] = {}

    def stage(self) -> list[Any]:
        """Open a file for the run."""
        path = self._folder / f"{uuid.uuid4()}.h5"
        self._file = _Hdf5File(path, dict.fromkeys(UNITS, (self._points,)))
        self._datum: dict[str, Any] = {}
        for key in UNITS:
            resource = compose_resource(
                spec="XAFS_HDF5",
                root=str(self._folder),
                resource_path=path.name,
                resource_kwargs={"dataset": f"entry/{key}"},
            )
            self._documents.append(("resource", dict(resource.resource_doc)))
            self._datum[key] = resource.compose_datum
        return [self]

    def unstage(self) -> list[Any]:
        """Close the file."""
        self._file.close()
        return [self]

    def load(self, sweep: Pass) -> None:
        """Write a whole sweep."""
        self._file.append(sweep.columns)
        values: dict[str, Any] = dict(sweep.numbers)
        for key in UNITS:
            datum = self._datum[key](datum_kwargs={"index": self._file.rows - 1})
            self._documents.append(("datum", datum))
            values[key] = datum["datum_id"]
        self._now = readings(values, float(sweep.times[-1]))

    def read(self) -> dict[str, Any]:
        """Read the datum ids and the numbers of the sweep."""
        return self._now

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield resources once, and the datums of the latest sweep."""
        documents, self._documents = self._documents, []
        yield from documents

    def describe(self) -> dict[str, Any]:
        """Four external arrays, and numbers."""
        arrays = {
            key: data_key([self._points], units, "FILESTORE:") for key, units in UNITS.items()
        }
        return arrays | {key: data_key([], units) for key, units in self._numbers.items()}


class StreamDetector(Device):
    """Shape (v-b): everything in HDF5, announced by stream_resource and stream_datum; no events."""

    def __init__(
        self, points: int, folder: Path, numbers: Mapping[str, str] = HEATING_UNITS
    ) -> None:
        super().__init__("qxafs")
        self._points, self._folder, self._numbers = points, folder, numbers
        self._shapes: dict[str, tuple[int, ...]] = dict.fromkeys(UNITS, (points,))
        self._shapes |= dict.fromkeys(numbers, ())

    def stage(self) -> list[Any]:
        """Open a file for the run."""
        self._file = _Hdf5File(self._folder / f"{uuid.uuid4()}.h5", self._shapes)
        self._announced = 0
        self._bundles: dict[str, Any] = {}
        return [self]

    def unstage(self) -> list[Any]:
        """Close the file."""
        self._file.close()
        return [self]

    def load(self, sweep: Pass) -> None:
        """Write a whole sweep."""
        self._file.append({**sweep.columns, **sweep.numbers})

    def get_index(self) -> int:
        """Sweeps written so far."""
        return self._file.rows

    def describe_collect(self) -> dict[str, Any]:
        """Everything external."""
        units = UNITS | dict(self._numbers)
        return {
            key: data_key(list(shape), units[key], "STREAM:") for key, shape in self._shapes.items()
        }

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield stream resources once, and one stream datum per column for what is new."""
        rows = self._file.rows if index is None else index
        if rows == self._announced:
            return
        for key, shape in self._shapes.items():
            if key not in self._bundles:
                bundle = compose_stream_resource(
                    mimetype="application/x-hdf5",
                    uri=f"file://localhost{self._file.path}",
                    data_key=key,
                    parameters={"dataset": f"/entry/{key}", "chunk_shape": [1, *shape]},
                )
                self._bundles[key] = bundle
                yield "stream_resource", dict(bundle.stream_resource_doc)
            datum = self._bundles[key].compose_stream_datum(
                indices={"start": self._announced, "stop": rows}
            )
            yield "stream_datum", datum
        self._announced = rows

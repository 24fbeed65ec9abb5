"""External HDF5 files: read a block of rows, only below the allowed folders, late files too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import numpy as np
from numpy.typing import NDArray


class AssetError(ValueError):
    """A file that will never give this data: refused, of an unknown kind, or broken."""


class NotYet(Exception):
    """A file or rows that are not there yet; no error, the writer may still be at work."""


def asset_path(uri: str, roots: tuple[Path, ...]) -> Path:
    """Path of a ``file:`` URI or plain path, links resolved.

    Raises
    ------
    AssetError
        If it is on another host's scheme or not below one of `roots`.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        raise AssetError(f"{uri}: only file URIs can be opened")
    path = Path(unquote(parsed.path)).resolve()
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise AssetError(
            f"{path} is not below source.asset_roots; add its folder there if it is to be read"
        )
    return path


def read_rows(path: Path, dataset: str, start: int, stop: int) -> NDArray[Any]:
    """Rows start ... stop - 1 of a dataset, (stop - start, ...).

    Raises
    ------
    NotYet
        If the file, the dataset or the rows are not there yet.
    """
    try:
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            data = file[dataset]
            if not isinstance(data, h5py.Dataset):
                raise AssetError(f"{path}: {dataset} is not a dataset")
            if data.shape[0] < stop:
                raise NotYet(f"{path}: {dataset} has {data.shape[0]} of {stop} rows")
            return np.asarray(data[start:stop])
    except KeyError:
        raise NotYet(f"{path} has no dataset {dataset}") from None
    except OSError as error:
        raise NotYet(f"{path} cannot be opened: {error}") from None


def datum_rows(
    resource: Mapping[str, Any], datum: Mapping[str, Any], roots: tuple[Path, ...]
) -> tuple[Path, str, int, int]:
    """File, dataset and rows of a resource/datum pair.

    Raises
    ------
    AssetError
        If the spec is not one that exafsd reads.
    """
    spec = resource.get("spec")
    kwargs: Mapping[str, Any] = resource.get("resource_kwargs") or {}
    where: Mapping[str, Any] = datum.get("datum_kwargs") or {}
    folder, name = str(resource.get("root", "")), str(resource["resource_path"])
    path = asset_path(str(Path(folder) / name), roots)
    if spec == "XAFS_HDF5":
        start, count = int(where["index"]), 1
        dataset = str(kwargs["dataset"])
    elif spec in ("AD_HDF5", "AD_HDF5_SWMR"):
        count = int(kwargs.get("frame_per_point", 1))
        start = int(where.get("point_number", 0)) * count
        dataset = str(kwargs.get("dataset", "/entry/data/data"))
    else:
        raise AssetError(
            f"resource spec {spec!r} is not known; exafsd reads XAFS_HDF5 and AD_HDF5,"
            " and any stream_resource of type application/x-hdf5"
        )
    return path, dataset, start, start + count


def stream_dataset(resource: Mapping[str, Any], roots: tuple[Path, ...]) -> tuple[Path, str]:
    """File and dataset of a stream_resource.

    Raises
    ------
    AssetError
        If it is not HDF5.
    """
    if resource.get("mimetype") != "application/x-hdf5":
        raise AssetError(
            f"stream_resource of type {resource.get('mimetype')!r}: only application/x-hdf5"
        )
    parameters: Mapping[str, Any] = resource.get("parameters") or {}
    return asset_path(str(resource["uri"]), roots), str(parameters["dataset"])

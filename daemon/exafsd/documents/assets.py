"""Where the data of a run are that are not in its documents: file, dataset and rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from exafsd.documents.asset_files import TABLES, AssetError


def asset_path(uri: str) -> Path:
    """Path of a ``file:`` URI or plain path.

    Raises
    ------
    AssetError
        If it is on another host's scheme.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        raise AssetError(f"{uri}: only file URIs can be opened")
    return Path(unquote(parsed.path))


def datum_rows(
    resource: Mapping[str, Any], datum: Mapping[str, Any]
) -> tuple[Path, str, int, int, str]:
    """File, dataset, rows and spec of a resource/datum pair; the spec is empty for HDF5.

    Raises
    ------
    AssetError
        If the spec is not one that exafsd reads.
    """
    spec = resource.get("spec")
    kwargs: Mapping[str, Any] = resource.get("resource_kwargs") or {}
    where: Mapping[str, Any] = datum.get("datum_kwargs") or {}
    folder, name = str(resource.get("root", "")), str(resource["resource_path"])
    path = asset_path(str(Path(folder) / name))
    if spec in TABLES:
        return path, "", 0, 1, str(spec)
    if spec == "XAFS_HDF5":
        start, count = int(where["index"]), 1
        dataset = str(kwargs["dataset"])
    elif spec in ("AD_HDF5", "AD_HDF5_SWMR"):
        count = int(kwargs.get("frame_per_point", 1))
        start = int(where.get("point_number", 0)) * count
        dataset = str(kwargs.get("dataset", "/entry/data/data"))
    else:
        raise AssetError(
            f"resource spec {spec!r} is not known; exafsd reads XAFS_HDF5, AD_HDF5,"
            f" {', '.join(TABLES)}, and any stream_resource of type application/x-hdf5"
        )
    return path, dataset, start, start + count, ""


def stream_dataset(resource: Mapping[str, Any]) -> tuple[Path, str]:
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
    return asset_path(str(resource["uri"])), str(parameters["dataset"])

"""HDF5 whose datasets are named as in the adapter: one row, or rows of sweeps."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.table import Contents, Table, columns_by_role
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

#: what HDF5 files begin with
MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(content: bytes) -> bool:
    """Whether a file begins as HDF5 does."""
    return content.startswith(MAGIC)


def read_hdf5(path: Path, content: bytes, adapter: Adapter) -> Contents:
    """Tables and header of an HDF5 file.

    A group with energy and a signal is a table of its own. Where no group is, datasets of the whole
    file are taken together, as long as no name comes twice.
    """
    groups: dict[str, Table] = {}
    header: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        parent, _, last = name.rpartition("/")
        if last in ("element", "edge", "sample_name") and node.shape == ():
            header.setdefault("sample" if last == "sample_name" else last, _string(node[()]))
        elif node.ndim in (1, 2) and node.dtype.kind in "iuf":
            table = groups.setdefault(parent, Table({}, {}))
            table.columns[last] = np.asarray(node[()], float)
            if "units" in node.attrs:
                table.units[last] = _string(node.attrs["units"])

    try:
        with h5py.File(path, "r") as file:
            header |= {k: _string(v) for k, v in file.attrs.items() if k in ("element", "edge")}
            header["metadata"] = {k: v for k, v in file.attrs.items() if np.ndim(v) == 0}
            file.visititems(visit)
    except Exception as error:  # h5py raises whatever a broken file makes it hit
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{path} is not a readable HDF5 file: {type(error).__name__}: {error}",
        ) from None
    named = [columns_by_role(table.columns, adapter) for table in groups.values()]
    whole = [t for t, r in zip(groups.values(), named, strict=True) if "energy" in r and len(r) > 1]
    return Contents(whole or [_together(groups, path)], **header)


def _together(groups: dict[str, Table], path: Path) -> Table:
    """Columns of the whole file, as long as no name comes twice."""
    together = Table({}, {})
    for table in groups.values():
        if twice := together.columns.keys() & table.columns.keys():
            raise SpectrumError(
                Reason.AMBIGUOUS_COLUMNS,
                f"{path}: {', '.join(sorted(twice))} come in several groups, none of which has both"
                " energy and a signal; nobody can say which belong together",
            )
        together.columns.update(table.columns)
        together.units.update(table.units)
    return together


def _string(value: Any) -> str:
    """Text of an HDF5 attribute or scalar, whatever the writer's language made of it."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

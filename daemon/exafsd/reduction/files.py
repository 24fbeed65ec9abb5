"""Spectra from files: XDI and column ASCII by Larch's readers, HDF5 by h5py."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from larch.io import read_ascii, read_xdi

from exafsd.analysis import Adapter
from exafsd.spectra import Edge, Floats, Run, SpectrumError, Sweep

#: what HDF5 files begin with
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
#: first line of an XDI file
XDI = re.compile(rb"\s*#\s*XDI/", re.IGNORECASE)
#: labels Larch gives to columns without a name
UNNAMED = re.compile(r"^col_?\d+$")
#: stream name of sweeps that came from a file
STREAM = "file"


def read_file(path: Path, adapter: Adapter, edge: Edge | None = None) -> list[Sweep]:
    """Sweeps of a file.

    Parameters
    ----------
    path
        XDI, columns of numbers with or without a header, or HDF5 whose datasets are named as
        in the adapter: one row, or rows of sweeps.
    adapter
        Column names, and the energy's unit where the file has none.
    edge
        Element and edge; None takes them from the file, or guesses.

    Raises
    ------
    SpectrumError
        ``unreadable`` or ``missing_column``, with the file's name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpectrumError("unreadable", f"{path}: {error.strerror or error}") from None
    if content.startswith(HDF5_MAGIC):
        columns, units, header = _hdf5(path)
    elif b"\0" in content[:4096]:
        raise SpectrumError("unreadable", f"{path} is binary, but not HDF5")
    else:
        columns, units, header = _text(path, content)
    named = _named(columns, adapter, path)
    unit = adapter.energy.unit or units.get("energy", "eV")
    energy, signals = named.pop("energy"), named
    if unit.lower() == "kev":
        energy = energy * 1e3
    elif unit.lower() != "ev":
        raise SpectrumError("energy_unit", f"{path}: the energy is in {unit!r}, not in eV or keV")
    element = edge or Edge(str(header.get("element", "")), str(header.get("edge", "")))
    run = Run(
        uid=hashlib.sha256(content).hexdigest()[:32],
        edges=(element,) if element.element or element.edge else (),
        sample=header.get("sample") or path.name,
    )
    rows = max(np.atleast_2d(array).shape[0] for array in (energy, *signals.values()))
    return [
        _sweep(
            run, i + 1, _row(energy, i), {name: _row(array, i) for name, array in signals.items()}
        )
        for i in range(rows)
    ]


def _row(array: Floats, i: int) -> Floats:
    """Row of a table, or the one row that holds for all."""
    table = np.atleast_2d(array)
    return table[min(i, len(table) - 1)]


def _sweep(run: Run, number: int, energy: Floats, signals: dict[str, Floats]) -> Sweep:
    direction = "up" if energy.size and energy[-1] >= energy[0] else "down"
    return Sweep(run, STREAM, number, energy, signals, direction=direction)


def _named(columns: Mapping[str, Floats], adapter: Adapter, path: Path) -> dict[str, Floats]:
    """Columns by role; two columns without names are energy and mu."""
    lower = {name.lower(): array for name, array in reversed(list(columns.items()))}
    found: dict[str, Floats] = {}
    for role, names in {"energy": adapter.energy.key, **adapter.signals}.items():
        present = [lower[name.lower()] for name in names if name.lower() in lower]
        if present:
            found[role] = np.sum(present, axis=0) if role == "iff" else present[0]
    if "energy" not in found and columns and all(UNNAMED.match(name) for name in columns):
        arrays = list(columns.values())
        if len(arrays) == 2:
            return {"energy": arrays[0], "mutrans": arrays[1]}
    if "energy" not in found or len(found) < 2:
        raise SpectrumError(
            "missing_column",
            f"{path} has the columns {', '.join(columns) or '(none)'}; none of them is"
            f" {'energy' if 'energy' not in found else 'a signal'} by the adapter. Name them"
            " under [adapter] in a settings file and give it with --config",
        )
    return found


def _text(path: Path, content: bytes) -> tuple[dict[str, Floats], dict[str, str], dict[str, Any]]:
    """Columns, units and header of a text file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of empty files; they are refused below
            xdi = XDI.match(content) is not None
            group: Any = read_xdi(str(path)) if xdi else read_ascii(str(path))
        labels = [str(label) for label in group.array_labels]
        data = np.atleast_2d(np.asarray(group.data, float))
    except Exception as error:  # Larch's readers raise whatever they hit in a file
        raise SpectrumError(
            "unreadable", f"{path} is not a table of numbers: {type(error).__name__}: {error}"
        ) from None
    if data.shape[0] != len(labels) or data.shape[1] < 2:
        raise SpectrumError("unreadable", f"{path} holds no table of numbers")
    attrs: Mapping[str, Any] = getattr(group, "attrs", None) or {}
    if not xdi:
        return dict(zip(labels, data, strict=True)), {}, {}
    told = [
        str(dict(attrs.get("column") or {}).get(str(i + 1), "")).split() for i in range(len(labels))
    ]
    units = {label: words[1] for label, words in zip(labels, told, strict=True) if len(words) > 1}
    element: Mapping[str, Any] = attrs.get("element") or {}
    sample: Mapping[str, Any] = attrs.get("sample") or {}
    header = {
        "element": str(element.get("symbol", "")).strip().capitalize(),
        "edge": str(element.get("edge", "")).strip(),
        "sample": sample.get("name"),
    }
    # by attribute, not from the table: Larch has already turned angles into energies there
    columns = {
        label: np.asarray(getattr(group, label, data[i]), float) for i, label in enumerate(labels)
    }
    return columns, units, header


def _hdf5(path: Path) -> tuple[dict[str, Floats], dict[str, str], dict[str, Any]]:
    """Numeric datasets of one or two dimensions by their last name; the first of a name counts."""
    columns: dict[str, Floats] = {}
    units: dict[str, str] = {}
    header: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        last = name.rsplit("/", 1)[-1]
        if last in ("element", "edge", "sample_name") and node.shape == ():
            text = node[()]
            text = text.decode() if isinstance(text, bytes) else str(text)
            header.setdefault("sample" if last == "sample_name" else last, text)
        elif node.ndim in (1, 2) and node.dtype.kind in "iuf" and last not in columns:
            columns[last] = np.asarray(node[()], float)
            if "units" in node.attrs:
                units[last] = str(node.attrs["units"])

    try:
        with h5py.File(path, "r") as file:
            header |= {k: str(v) for k, v in file.attrs.items() if k in ("element", "edge")}
            file.visititems(visit)
    except OSError as error:
        raise SpectrumError("unreadable", f"{path} is not a readable HDF5 file: {error}") from None
    return columns, units, header

"""Spectra from files: XDI and column ASCII by Larch's readers, HDF5 by h5py."""

import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from larch.io import read_ascii, read_xdi

from exafsd.settings.analysis import Adapter, Corrections
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
        ``unreadable``, ``missing_column`` or ``bad_settings``, with the file's name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpectrumError("unreadable", f"{path}: {error.strerror or error}") from None
    if content.startswith(HDF5_MAGIC):
        tables, header = _hdf5(path, adapter)
    elif b"\0" in content[:4096]:
        raise SpectrumError("unreadable", f"{path} is binary, but not HDF5")
    else:
        tables, header = _text(path, content)
    given = edge or Edge.of(str(header.get("element", "")), str(header.get("edge", "")))
    run = Run(
        uid=hashlib.sha256(content).hexdigest()[:32],
        edges=(given,) if given.element or given.edge else (),
        sample=header.get("sample") or path.name,
    )
    metadata: Mapping[str, Any] = header.get("metadata") or {}
    try:
        corrections = adapter.corrections(lambda key: _lookup(metadata, key))
    except SpectrumError as error:
        raise SpectrumError(error.reason, f"{path}: {error.detail}") from None
    sweeps: list[Sweep] = []
    for table in tables:
        sweeps += _sweeps(run, len(sweeps), *_named(table, adapter, corrections, path), path)
    return sweeps


def _lookup(metadata: Mapping[str, Any], key: str) -> Any:
    """Item of a file's metadata: ``detector.i0_dark`` or ``XDI.Detector.i0_dark`` in XDI."""
    found: Any = {name.lower(): value for name, value in metadata.items()}
    if key.lower() in found:
        return found[key.lower()]
    for part in key.lower().removeprefix("xdi.").split("."):
        if not isinstance(found, Mapping):
            return None
        found = {str(name).lower(): value for name, value in found.items()}.get(part)
    return found


def _sweeps(
    run: Run, before: int, energy: Floats, signals: dict[str, Floats], path: Path
) -> list[Sweep]:
    """Sweeps of one table: columns of one row hold for all rows of the others."""
    arrays = {"energy": energy, **signals}
    counts = {name: len(np.atleast_2d(array)) for name, array in arrays.items()}
    rows = max(counts.values())
    if any(count not in (1, rows) for count in counts.values()):
        raise SpectrumError(
            "shape_mismatch", f"{path}: the columns have different numbers of rows: {counts}"
        )
    return [
        _sweep(
            run,
            before + i + 1,
            _row(energy, i),
            {name: _row(array, i) for name, array in signals.items()},
        )
        for i in range(rows)
    ]


def _row(array: Floats, i: int) -> Floats:
    """Row of a table, or the one row that holds for all."""
    table = np.atleast_2d(array)
    return table[i if len(table) > 1 else 0]


def _sweep(run: Run, number: int, energy: Floats, signals: dict[str, Floats]) -> Sweep:
    direction = "up" if energy.size and energy[-1] >= energy[0] else "down"
    return Sweep(run, STREAM, number, energy, signals, direction=direction)


@dataclass(frozen=True)
class _Table:
    """Columns that belong together, and their units where they are known."""

    columns: dict[str, Floats]
    units: dict[str, str]


def _roles(names: Iterable[str], adapter: Adapter) -> dict[str, list[str]]:
    """Column names by role, spelt as in the file; `iff` may have several."""
    lower = {name.lower(): name for name in reversed(list(names))}
    found: dict[str, list[str]] = {}
    for role, wanted in {"energy": adapter.energy.key, **adapter.signals}.items():
        present = [lower[name.lower()] for name in wanted if name.lower() in lower]
        if present:
            found[role] = present if role == "iff" else present[:1]
    return found


def _named(
    table: _Table, adapter: Adapter, corrections: Corrections, path: Path
) -> tuple[Floats, dict[str, Floats]]:
    """Energy in eV and signals by role; two columns without names are energy and mu."""
    columns = table.columns
    roles = _roles(columns, adapter)
    if "energy" not in roles and len(columns) == 2 and all(map(UNNAMED.match, columns)):
        energy_name, mu_name = columns
        roles = {"energy": [energy_name], "mutrans": [mu_name]}
    if "energy" not in roles or len(roles) < 2:
        raise SpectrumError(
            "missing_column",
            f"{path} has the columns {', '.join(columns) or '(none)'}; none of them is"
            f" {'energy' if 'energy' not in roles else 'a signal'} by the adapter. Name them"
            " under [adapter] in a settings file and give it with --config",
        )
    (energy_name,) = roles.pop("energy")
    unit = adapter.energy.unit or table.units.get(energy_name) or "eV"
    energy = columns[energy_name]
    if unit.lower() == "kev":
        energy = energy * 1e3
    elif unit.lower() != "ev":
        raise SpectrumError("energy_unit", f"{path}: the energy is in {unit!r}, not in eV or keV")
    shapes = {columns[name].shape for name in roles.get("iff", ())}
    if len(shapes) > 1:
        raise SpectrumError("shape_mismatch", f"{path}: fluorescence elements differ in length")
    signals: dict[str, Floats] = {}
    for role, names in roles.items():
        counts = [corrections.counts(role, columns[name]) for name in names]
        signals[role] = counts[0] if len(counts) == 1 else np.sum(counts, axis=0)
    return energy, signals


def _text(path: Path, content: bytes) -> tuple[list[_Table], dict[str, Any]]:
    """Table and header of a text file."""
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
    if not xdi:
        return [_Table(dict(zip(labels, data, strict=True)), {})], {}
    attrs: Mapping[str, Any] = getattr(group, "attrs", None) or {}
    told = dict(attrs.get("column") or {})
    words = {label: str(told.get(str(i + 1), "")).split() for i, label in enumerate(labels)}
    element: Mapping[str, Any] = attrs.get("element") or {}
    sample: Mapping[str, Any] = attrs.get("sample") or {}
    header = {
        "element": element.get("symbol", ""),
        "edge": element.get("edge", ""),
        "sample": sample.get("name"),
        "metadata": attrs,
    }
    # by attribute, not from the table: Larch has already turned angles into energies there
    columns = {
        label: np.asarray(getattr(group, label, data[i]), float) for i, label in enumerate(labels)
    }
    units = {label: parts[1] for label, parts in words.items() if len(parts) > 1}
    return [_Table(columns, units)], header


def _hdf5(path: Path, adapter: Adapter) -> tuple[list[_Table], dict[str, Any]]:
    """Tables and header of an HDF5 file.

    A group with energy and a signal is a table of its own. Where no group is, datasets of the whole
    file are taken together, as long as no name comes twice.
    """
    groups: dict[str, _Table] = {}
    header: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        parent, _, last = name.rpartition("/")
        if last in ("element", "edge", "sample_name") and node.shape == ():
            header.setdefault("sample" if last == "sample_name" else last, _string(node[()]))
        elif node.ndim in (1, 2) and node.dtype.kind in "iuf":
            table = groups.setdefault(parent, _Table({}, {}))
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
            "unreadable", f"{path} is not a readable HDF5 file: {type(error).__name__}: {error}"
        ) from None
    roles = [_roles(table.columns, adapter) for table in groups.values()]
    whole = [t for t, r in zip(groups.values(), roles, strict=True) if "energy" in r and len(r) > 1]
    if whole:
        return whole, header
    together = _Table({}, {})
    for table in groups.values():
        if twice := together.columns.keys() & table.columns.keys():
            raise SpectrumError(
                "ambiguous_columns",
                f"{path}: {', '.join(sorted(twice))} come in several groups, none of which has both"
                " energy and a signal; nobody can say which belong together",
            )
        together.columns.update(table.columns)
        together.units.update(table.units)
    return [together], header


def _string(value: Any) -> str:
    """Text of an HDF5 attribute or scalar, whatever the writer's language made of it."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

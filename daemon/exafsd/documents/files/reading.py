"""Sweeps of a file, whatever its format."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.corrections import Corrections, corrections
from exafsd.documents.files.hdf5 import is_hdf5, read_hdf5
from exafsd.documents.files.table import Contents, Table, columns_by_role
from exafsd.documents.files.text import XDI, is_text, read_columns, read_xdi_file
from exafsd.settings.analysis import Adapter, Analysis
from exafsd.spectra import Edge, Floats, Run, SpectrumError, Sweep

#: labels Larch gives to columns without a name
UNNAMED = re.compile(r"^col_?\d+$")
#: stream name of sweeps that came from a file
STREAM = "file"


class FileReader(NamedTuple):
    """A format: what it is called, whether a file's content is of it, and how it is read.

    `read` is given path, content and adapter; it raises `SpectrumError` where the file holds no
    table of numbers.
    """

    name: str
    recognises: Callable[[bytes], object]
    read: Callable[[Path, bytes, Adapter], Contents]


#: Formats in the order they are tried; a new one is a line here, before what would take it for its
#: own.
READERS: tuple[FileReader, ...] = (
    FileReader("HDF5", is_hdf5, read_hdf5),
    FileReader("XDI", XDI.match, read_xdi_file),
    FileReader("columns of numbers", is_text, read_columns),
)


def read_file(path: Path, analysis: Analysis, edge: Edge | None = None) -> tuple[Run, list[Sweep]]:
    """Run and sweeps of a file.

    Parameters
    ----------
    path
        A file of one of `READERS`.
    analysis
        Its adapter names the columns, and the energy's unit where the file has none.
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
        raise SpectrumError(Reason.UNREADABLE, f"{path}: {error.strerror or error}") from None
    reader = next((reader for reader in READERS if reader.recognises(content)), None)
    if reader is None:
        raise SpectrumError(Reason.UNREADABLE, f"{path} is binary, but not HDF5")
    adapter = analysis.adapter
    contents = reader.read(path, content, adapter)
    given = edge or Edge.of(contents.element, contents.edge)
    run = Run(
        uid=hashlib.sha256(content).hexdigest()[:32],
        edges=(given,) if given.element or given.edge else (),
        sample=contents.sample or path.name,
        analysis=analysis,
    )
    try:
        counts = corrections(adapter, lambda key: _lookup(contents.metadata, key))
    except SpectrumError as error:
        raise SpectrumError(error.reason, f"{path}: {error.detail}") from None
    sweeps: list[Sweep] = []
    for table in contents.tables:
        sweeps += _sweeps(run, len(sweeps), *_named(table, adapter, counts, path), path)
    return run, sweeps


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
            Reason.SHAPE_MISMATCH, f"{path}: the columns have different numbers of rows: {counts}"
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


def _named(
    table: Table, adapter: Adapter, corrections: Corrections, path: Path
) -> tuple[Floats, dict[str, Floats]]:
    """Energy in eV and signals by role; two columns without names are energy and mu."""
    columns = table.columns
    roles = columns_by_role(columns, adapter)
    if "energy" not in roles and len(columns) == 2 and all(map(UNNAMED.match, columns)):
        energy_name, mu_name = columns
        roles = {"energy": [energy_name], "mutrans": [mu_name]}
    if "energy" not in roles or len(roles) < 2:
        raise SpectrumError(
            Reason.MISSING_COLUMN,
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
        raise SpectrumError(
            Reason.ENERGY_UNIT, f"{path}: the energy is in {unit!r}, not in eV or keV"
        )
    shapes = {columns[name].shape for name in roles.get("iff", ())}
    if len(shapes) > 1:
        raise SpectrumError(
            Reason.SHAPE_MISMATCH, f"{path}: fluorescence elements differ in length"
        )
    signals: dict[str, Floats] = {}
    for role, names in roles.items():
        counts = [corrections.counts(role, columns[name]) for name in names]
        signals[role] = counts[0] if len(counts) == 1 else np.sum(counts, axis=0)
    return energy, signals

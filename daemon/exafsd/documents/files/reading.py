"""Sweeps of a file, whatever its format."""

import hashlib
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exafsd.contract.vocabulary import Flag, Problem, Reason
from exafsd.documents.direction import direction
from exafsd.documents.files.facilities import is_9809, is_ssrl, read_9809, read_ssrl
from exafsd.documents.files.hdf5 import is_hdf5, read_hdf5
from exafsd.documents.files.signals import read_signals, ready_made_flags
from exafsd.documents.files.table import Contents, File, Table
from exafsd.documents.files.text import is_text, read_columns
from exafsd.documents.files.xdi import is_xdi, read_xdi_file
from exafsd.documents.items import Trouble
from exafsd.documents.padding import without_padding
from exafsd.documents.splitter import MIN_LEG, TurningSplitter
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Floats, Run, SpectrumError, Sweep

#: stream name of sweeps that came from a file
STREAM = "file"
#: points that a leg must have more of to be a sweep of its own, where a file has several
FEWEST = 40


class FileReader(NamedTuple):
    """A format: what it is called, whether a file's content is of it, and how it is read.

    `read` raises `SpectrumError` where the file holds no table of numbers.
    """

    name: str
    recognises: Callable[[bytes], object]
    read: Callable[[File], Contents]


#: Formats in the order they are tried; a new one is a line here, before what would take it for its
#: own.
READERS: tuple[FileReader, ...] = (
    FileReader("HDF5", is_hdf5, read_hdf5),
    FileReader("XDI", is_xdi, read_xdi_file),
    FileReader("9809", is_9809, read_9809),
    FileReader("SSRL", is_ssrl, read_ssrl),
    FileReader("columns of numbers", is_text, read_columns),
)
#: how files begin that are something else, what they are, and what to do
OTHERS = (
    (rb"PK\x03\x04", "a zip archive or spreadsheet", "unpack it, or save its table as CSV"),
    (rb"%PDF", "a PDF document", "it holds no numbers to read"),
    (rb"(?:II\*\0|MM\0\*|\x89PNG|\xff\xd8\xff)", "an image", "it holds no spectrum"),
    (rb"\s*[{\[]\s*[\[{\"]", "JSON", "save its table as CSV or XDI"),
    (rb"\s*<(?:\?xml|!doctype|html)", "XML or HTML", "save its table as CSV or XDI"),
)
ATHENA = re.compile(rb"Athena project file|LARIX|_____header\d", re.IGNORECASE)
#: eV by which the energy must come back before another sweep begins, as `source.turn`
TURN = 20.0
#: eV by which sweeps over the same range may begin or end apart
SAME_RANGE = 10.0
#: eV, and times the usual step, that are between two scans and not in one
GAP, GAP_STEPS = 300.0, 20.0
#: a sweep of less than this share of another's range was cut short
PARTIAL = 0.9


#: energies, signals and flags of a sweep
Leg = tuple[Floats, dict[str, Floats], tuple[Flag, ...]]


class FileRun(NamedTuple):
    """A table of a file as a run of its sweeps."""

    run: Run
    sweeps: list[Sweep]


class FileSpectra(NamedTuple):
    """What a file holds, and what in it was not read."""

    runs: list[FileRun]
    troubles: list[Trouble]

    @property
    def sweeps(self) -> list[Sweep]:
        """Sweeps of all runs."""
        return [sweep for run in self.runs for sweep in run.sweeps]


def read_file(
    path: Path, analysis: Analysis, edge: Edge | None = None, roots: tuple[Path, ...] = ()
) -> FileSpectra:
    """Spectra of a file; each table is a run of its own, since it may be of another sample.

    Parameters
    ----------
    path
        A file of one of `READERS`.
    analysis
        Its adapter names the columns, and the energy's unit where the file has none.
    edge
        Element and edge; None takes them from the file, or guesses.
    roots
        Folders besides the file's own into which links in it may lead.

    Raises
    ------
    SpectrumError
        ``unreadable``, ``missing_column``, ``ambiguous_columns``, ``shape_mismatch``,
        ``energy_unit`` or ``bad_settings``, with the file's name.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        content = path.read_bytes()
    except OSError as error:
        raise SpectrumError(Reason.UNREADABLE, f"{path}: {error.strerror or error}") from None
    _refuse_others(path, content)
    reader = next((reader for reader in READERS if reader.recognises(content)), None)
    if reader is None:
        raise SpectrumError(Reason.UNREADABLE, f"{path} is binary, but not HDF5")
    contents = reader.read(File(path, content, analysis.adapter, roots))
    troubles = [Trouble(Problem.ASSET_REFUSED, f"{path}: {text}") for text in contents.unread]
    uid = hashlib.sha256(content).hexdigest()
    runs: list[FileRun] = []
    errors: list[SpectrumError] = []
    number = 0
    for table in contents.tables:
        try:
            series = _series(_rows(*read_signals(table, contents, analysis.adapter)))
        except SpectrumError as error:
            errors.append(SpectrumError(error.reason, f"{path}: {error.detail}"))
            continue
        for part, legs in enumerate(series, 1):
            names = [table.name] if len(contents.tables) > 1 and table.name else []
            names += [f"part {part}"] if len(series) > 1 else []
            own = f"{uid}/{len(runs)}" if runs else uid
            run = _run(own, table, ", ".join(names), path, analysis, edge)
            sweeps: list[Sweep] = []
            for energy, signals, flags in legs:
                number += 1
                flags = (*flags, *ready_made_flags(energy, signals))
                sweeps.append(_sweep(run, number, energy, signals, flags))
            runs.append(FileRun(run, sweeps))
    if errors and not runs:
        raise errors[0]
    troubles += [Trouble(Problem.NO_SPECTRUM, error.detail) for error in errors]
    return FileSpectra(_with_partial(runs), troubles)


def _run(
    uid: str, table: Table, name: str, path: Path, analysis: Analysis, edge: Edge | None
) -> Run:
    """Run of a table; where a file has several, `name` is added to that of the sample."""
    named_edge = edge or Edge.of(table.element, table.edge)
    sample = table.sample or path.name
    return Run(
        uid=hashlib.sha256(uid.encode()).hexdigest()[:32] if "/" in uid else uid[:32],
        edges=(named_edge,) if named_edge.element or named_edge.edge else (),
        sample=f"{sample} ({name})" if name else sample,
        analysis=analysis,
    )


def _refuse_others(path: Path, content: bytes) -> None:
    """Name what is no spectrum for what it is."""
    begin = content[:4096]
    if content.startswith(b"\x1f\x8b"):
        with suppress(zlib.error):
            begin = zlib.decompressobj(wbits=31).decompress(content, 4096)
    if ATHENA.search(begin):
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{path} is an Athena or Larix project of several spectra: save each group's mu(E) as"
            " columns there (File, Save current group as), and give exafsd these files",
        )
    if content.startswith(b"\x1f\x8b"):
        raise SpectrumError(Reason.UNREADABLE, f"{path} is compressed: unpack it with gunzip")
    for pattern, what, todo in OTHERS:
        if re.match(pattern, begin, re.IGNORECASE):
            raise SpectrumError(Reason.UNREADABLE, f"{path} is {what}: {todo}")


def _rows(energy: Floats, signals: dict[str, Floats]) -> list[tuple[Floats, dict[str, Floats]]]:
    """Energy and signals of each sweep of a table, whose columns may be stacks of sweeps.

    Raises
    ------
    SpectrumError
        ``shape_mismatch``, where nobody can say which axis is which.
    """
    arrays = {name: _squeezed(array) for name, array in {"energy": energy, **signals}.items()}
    stacks = {name: array.shape for name, array in arrays.items() if array.ndim > 1}
    if not stacks:
        return [(arrays.pop("energy"), arrays)]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if len(set(stacks.values())) > 1 or any(name not in stacks for name in signals):
        text = f"the columns have the shapes {shapes}: which of them are sweeps, and which points?"
        raise SpectrumError(Reason.SHAPE_MISMATCH, text)
    upright = _points_first(arrays["energy"], next(iter(stacks.values())))
    if upright is None:
        raise SpectrumError(
            Reason.SHAPE_MISMATCH,
            f"the columns have the shapes {shapes}, and the energy does not say which axis is that"
            " of the points; store each sweep as a row, with an energy of as many points",
        )
    rows = {n: a.T if upright and a.ndim > 1 else a for n, a in arrays.items()}
    count = len(rows[next(iter(stacks))])
    table = [{n: a[i] if a.ndim > 1 else a for n, a in rows.items()} for i in range(count)]
    return [(row.pop("energy"), row) for row in table]


def _squeezed(array: Floats) -> Floats:
    """Column without axes of length one."""
    return array.reshape(-1) if array.size == max(array.shape, default=0) else array


def _points_first(energy: Floats, shape: tuple[int, ...]) -> bool | None:
    """Whether the points of a stack are its first axis; None where the energy does not say."""
    if energy.ndim == 1:
        fits = [len(energy) == n for n in shape]
        return None if fits[0] == fits[1] else fits[0]
    down, across = (_ordered(energy, axis) for axis in (0, 1))
    return None if down == across else down


def _ordered(energy: Floats, axis: int) -> bool:
    """Whether energies go one way along an axis, as they do from point to point."""
    if energy.shape[axis] < MIN_LEG:
        return False
    signs = np.sign(np.diff(energy, axis=axis))
    return bool((np.abs(signs.mean(axis=axis)) > 0.9).all())


def _series(rows: list[tuple[Floats, dict[str, Floats]]]) -> list[list[Leg]]:
    """Sweeps of a table, those together that are of one sample: of a stack, or to and fro.

    Where the energy begins anew, or there is a wide gap in it, as if tables were put behind each
    other, the sample may be another.
    """
    legs = [leg for row in rows for leg in _legs(*without_padding(*row))]
    if len(rows) > 1:
        return [legs]
    legs = [part for leg in legs for part in _without_gaps(*leg)]
    series: list[list[Leg]] = []
    for leg in legs:
        if series and direction(leg[0]) != direction(series[-1][-1][0]):
            series[-1].append(leg)
        else:
            series.append([leg])
    return series


def _without_gaps(energy: Floats, signals: dict[str, Floats], flags: tuple[Flag, ...]) -> list[Leg]:
    """Parts of a sweep before and after gaps between two scans."""
    steps = np.abs(np.diff(energy))
    if energy.ndim != 1 or not np.isfinite(steps).any():
        return [(energy, signals, flags)]
    cuts = np.flatnonzero(steps > max(GAP, GAP_STEPS * float(np.nanmedian(steps)))) + 1
    parts = np.split(np.arange(len(energy)), cuts)
    if len(parts) == 1 or min(map(len, parts)) <= FEWEST:
        return [(energy, signals, flags)]
    return [(energy[i], {name: s[i] for name, s in signals.items()}, flags) for i in parts]


def _legs(energy: Floats, signals: dict[str, Floats], flags: tuple[Flag, ...]) -> list[Leg]:
    """Sweeps of a table in which the energy goes to and fro, or begins again, as in a stream."""
    whole = [(energy, signals, flags)]
    if any(array.shape != energy.shape for array in signals.values()) or energy.size < 2 * MIN_LEG:
        return whole
    splitter = TurningSplitter(TURN)
    segments = splitter.push({"energy": energy, **signals}) + splitter.finish()
    legs = [dict(segment.columns) for segment in segments]
    if sum(len(leg["energy"]) > FEWEST for leg in legs) < 2:
        return whole  # a table that is not sorted is one spectrum
    return [(leg.pop("energy"), leg, flags) for leg in legs]


def _sweep(
    run: Run, number: int, energy: Floats, signals: dict[str, Floats], flags: tuple[Flag, ...]
) -> Sweep:
    return Sweep(run, STREAM, number, energy, signals, direction=direction(energy), flags=flags)


def _with_partial(runs: list[FileRun]) -> list[FileRun]:
    """Runs, with a flag on sweeps where another one goes over the same range and farther."""
    ranges = {s.number: _range(s.energy) for run in runs for s in run.sweeps}
    return [
        FileRun(run.run, [_flagged(s, ranges[s.number], list(ranges.values())) for s in run.sweeps])
        for run in runs
    ]


def _flagged(sweep: Sweep, own: tuple[float, float], ranges: list[tuple[float, float]]) -> Sweep:
    partial = any(
        other[0] - SAME_RANGE <= own[0]
        and own[1] <= other[1] + SAME_RANGE
        and min(own[0] - other[0], other[1] - own[1]) <= SAME_RANGE
        and own[1] - own[0] < PARTIAL * (other[1] - other[0])
        for other in ranges
    )
    return replace(sweep, flags=(*sweep.flags, Flag.PARTIAL)) if partial else sweep


def _range(energy: Floats) -> tuple[float, float]:
    finite = energy[np.isfinite(energy)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

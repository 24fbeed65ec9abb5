"""Reading of external files, in a process of its own: what a file does there stops nobody.

A file is looked at before it is opened, and a dataset before it is read: only regular files below
the allowed folders, only values that are in the file itself, only sizes that a scan may have.
"""

import os
import resource
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np

from exafsd.helper_process import serving
from exafsd.spectra import Floats

#: bytes of a row, or of a chunk that has to be unpacked for it, and of rows that are read at once
LARGEST, AT_ONCE = 1 << 28, 1 << 26
#: bytes that the process may take beyond what it has when it begins
MEMORY = 1 << 30
#: links of a file that may follow each other
LINKS = 16
#: s in a tick of the clock of NSLS-II's analog pizza boxes (xas, file_formats of ISS and QAS)
TICK = 8.0051232e-9
#: counts after which the pizza boxes' encoders begin again
WRAP = 1 << 24


class AssetError(ValueError):
    """A file that will never give this data: refused, of an unknown kind, or broken."""


class NotYet(Exception):
    """A file or rows that are not there yet; no error, the writer may still be at work."""


class Request(NamedTuple):
    """Rows start ... stop - 1 of a dataset, or all of a file that is one table, of a `spec`."""

    path: str
    roots: tuple[str, ...]
    dataset: str
    start: int
    stop: int
    spec: str = ""


class Rows(NamedTuple):
    """Points of a table in a file: times, s since 1970, and columns by name, (n,)."""

    time: Floats
    columns: Mapping[str, Floats]


class Answer(NamedTuple):
    """What became of a request; `value` are rows, or how many may be asked for at once."""

    kind: Literal["rows", "fewer", "not_yet", "refused", "outside"]
    value: Any = None
    text: str = ""


def serve() -> None:
    """Answer requests as they come."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with suppress(ValueError, OSError):
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with serving() as (take, answer):
        answer("ready")
        while True:
            answer(read_all(take()))


def read_all(requests: list[Request]) -> list[Answer]:
    """Answers to requests that belong together; a file is opened once for all of them."""
    with ExitStack() as opened:
        files: dict[str, Any] = {}
        return [_answer(request, files, opened) for request in requests]


def _answer(request: Request, files: dict[str, Any], opened: ExitStack) -> Answer:
    try:
        path = _allowed(request)
        if request.spec:
            return Answer("rows", TABLES[request.spec](path))
        if str(path) not in files:
            files[str(path)] = opened.enter_context(
                h5py.File(path, "r", swmr=True, locking=False)  # the writer may still be at work
            )
        return _rows(files[str(path)], request)
    except NotYet as reason:
        return Answer("not_yet", text=str(reason))
    except PermissionError as error:
        return Answer("outside", text=str(error))
    except AssetError as error:
        return Answer("refused", text=str(error))
    except KeyError:
        return Answer("not_yet", text=f"{request.path} has no dataset {request.dataset}")
    except OSError as error:
        return Answer("not_yet", text=f"{request.path} cannot be opened: {error}")
    except Exception as error:  # h5py raises whatever a broken file makes it hit
        return Answer("refused", text=f"{request.path}: {type(error).__name__}: {error}")


def _allowed(request: Request) -> Path:
    """Path of a regular file below the roots, links resolved."""
    path = Path(request.path).resolve()
    if not any(path.is_relative_to(Path(root).resolve()) for root in request.roots):
        raise PermissionError(
            f"{path} is not below source.asset_roots; add its folder there if it is to be read"
        )
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise NotYet(f"{path} cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise AssetError(f"{path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise NotYet(f"{path} cannot be opened: no permission")
    return path


def _rows(file: Any, request: Request) -> Answer:
    data = _dataset(file, request.dataset, LINKS)
    name = f"{request.path}: {request.dataset}"
    if not isinstance(data, h5py.Dataset):
        raise AssetError(f"{name} is not a dataset")
    if data.external or data.is_virtual:
        raise AssetError(f"{name} has its values in other files, which are not read")
    if data.dtype.kind not in "biufSU" or not data.shape:
        raise AssetError(
            f"{name} of shape {data.shape} and type {data.dtype} has no rows of numbers"
        )
    row = int(np.prod(data.shape[1:], dtype=float)) * data.dtype.itemsize
    chunk = int(np.prod(data.chunks or (0,), dtype=float)) * data.dtype.itemsize
    if max(row, chunk) > LARGEST:
        raise AssetError(f"{name} has rows of {row} bytes in chunks of {chunk}: no scan has")
    if data.shape[0] < request.stop:
        raise NotYet(f"{name} has {data.shape[0]} of {request.stop} rows")
    if row * (request.stop - request.start) > max(AT_ONCE, row):
        return Answer("fewer", max(1, AT_ONCE // row))
    return Answer("rows", np.asarray(data[request.start : request.stop]))


def _dataset(group: Any, path: str, links: int) -> Any:
    """Object at a path by hard and soft links of its own file."""
    node = group.file if path.startswith("/") else group
    for part in filter(None, path.split("/")):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise AssetError(f"{path} is a link to another file, which is not followed")
        if isinstance(link, h5py.SoftLink):
            if links == 0:
                raise AssetError(f"{path}: its links lead in a circle")
            node = _dataset(node, str(link.path), links - 1)
        else:
            node = node[part]
    return node


def _pizza_box(path: Path) -> Rows:
    """Analog pizza box of NSLS-II: rows of ten int32, eight readings in microvolt, s and ticks.

    Readings come in mV, as the beamline's offsets are.
    """
    _check_table(path)
    values = np.fromfile(path, "<i4")
    table = values[: len(values) // 10 * 10].reshape(-1, 10)
    table = table[table[:, 8] > 1]  # rows that were never filled
    if not len(table):
        raise NotYet(f"{path} has no rows yet")
    times = table[:, 8] + table[:, 9] * TICK
    back = np.flatnonzero(np.diff(times) < 0)  # what follows is of an earlier scan
    end = int(back[0]) + 1 if back.size else len(times)
    names = ("i0", "it", "ir", "iff", "aux1", "aux2", "aux3", "aux4")
    return Rows(times[:end], {n: table[:end, i] * 1e-3 for i, n in enumerate(names)})


def _pizza_encoder(path: Path) -> Rows:
    """Encoder of NSLS-II's pizza box: text rows of s, ns, counts, index and state.

    Counts are of 24 bits and negative in their second half.
    """
    _check_table(path)
    table = np.loadtxt(path, usecols=(0, 1, 2), ndmin=2)
    table = table[table[:, 0] > 1]  # rows that were never filled
    if not len(table):
        raise NotYet(f"{path} has no rows yet")
    counts = np.where(table[:, 2] > 0, table[:, 2] - WRAP, table[:, 2])
    return Rows(table[:, 0] + table[:, 1] * 1e-9, {"encoder": counts})


def _check_table(path: Path) -> None:
    if path.stat().st_size > AT_ONCE:
        raise AssetError(f"{path} has {path.stat().st_size} bytes: too large for a scan")


#: resource specs of files that are one table
TABLES: Mapping[str, Callable[[Path], Rows]] = {
    "APB": _pizza_box,
    "PIZZABOX_ENC_FILE_TXT": _pizza_encoder,
    "PIZZABOX_ENC_FILE_TXT_PD": _pizza_encoder,
}

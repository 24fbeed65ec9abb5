"""HDF5 whose datasets are named as in the adapter: one sweep, or stacks of sweeps."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.table import Contents, File, Table, columns_by_role
from exafsd.spectra import SpectrumError

#: what HDF5 files begin with
MAGIC = b"\x89HDF\r\n\x1a\n"
#: groups in each other, and bytes of a dataset; a spectrum needs neither
DEEPEST, LARGEST = 32, 1 << 28
#: links that may follow each other
LINKS = 16
#: scalars of a file that say what was measured
NAMES = {"element": "element", "edge": "edge", "sample_name": "sample"}


def is_hdf5(content: bytes) -> bool:
    """Whether a file begins as HDF5 does."""
    return content.startswith(MAGIC)


def read_hdf5(file: File) -> Contents:
    """Tables and header of an HDF5 file.

    A group with energy and a signal is a table of its own. Where no group is, datasets of the whole
    file are taken together, as long as no name comes twice. Links are followed, external ones to
    files in the same folder, below it or below `File.roots`.
    """
    path = file.path
    groups: dict[str, _Group] = {}
    header: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            walk = _Walk((path.parent, *file.roots), stack)
            opened = stack.enter_context(h5py.File(path, "r"))
            attributes: dict[str, Any] = dict(opened.attrs)
            for parent, last, data in walk.datasets(opened, "", path.parent, 0):
                if last in NAMES and data.shape == ():
                    header.setdefault(NAMES[last], _string(data[()]))
                elif data.ndim in (1, 2) and data.dtype.kind in "iuf":
                    is_signal = bool(columns_by_role([last], file.adapter))
                    groups.setdefault(parent, _Group()).add(last, data, is_signal)
    except Exception as error:  # h5py raises whatever a broken file makes it hit
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{path} is not a readable HDF5 file: {type(error).__name__}: {error}",
        ) from None
    header |= {k: _string(v) for k, v in attributes.items() if k in ("element", "edge")}
    header["metadata"] = {k: v for k, v in attributes.items() if np.ndim(v) == 0}
    whole: dict[frozenset[Any], Table] = {}  # by the datasets that are energy and signals
    for group in groups.values():
        roles = columns_by_role(group.table.columns, file.adapter)
        if "energy" in roles and len(roles) > 1:
            names = [name for spelt in roles.values() for name in spelt]
            whole.setdefault(frozenset(group.origin[name] for name in names), group.table)
    if not whole and walk.unread:
        raise SpectrumError(Reason.UNREADABLE, f"{path}: {'; '.join(walk.unread)}")
    tables = list(whole.values()) or [_together(list(groups.values()), path)]
    return Contents(tables, unread=walk.unread, **header)


class _Group:
    """Datasets of a group, and which objects they are: links may lead to one several times."""

    def __init__(self) -> None:
        self.table = Table({}, {})
        self.origin: dict[str, tuple[str, int]] = {}

    def add(self, name: str, data: Any, is_signal: bool) -> None:
        """Read a dataset, if it is wanted; else note its name."""
        self.table.columns[name] = np.asarray(data[()], float) if is_signal else np.empty(0)
        self.origin[name] = _identity(data)
        for key in data.attrs:
            if key.lower() in ("units", "unit"):
                self.table.units[name] = _string(data.attrs[key])


class _Walk:
    """The datasets of a file and of those it links to; `unread`: what was left out, and why."""

    def __init__(self, roots: tuple[Path, ...], stack: ExitStack) -> None:
        self._roots = [root.resolve() for root in roots]
        self._stack = stack  # of files that are open
        self._visited: set[tuple[str, int]] = set()
        self.unread: list[str] = []

    def datasets(
        self, group: Any, name: str, folder: Path, depth: int
    ) -> Iterator[tuple[str, str, Any]]:
        """Name of the group, name in it, and dataset; each group once, in the names' order."""
        if _identity(group) in self._visited or depth > DEEPEST:
            return
        self._visited.add(_identity(group))
        for key in sorted(group, key=_by_number):
            inner = f"{name}/{key}"
            node, place = self._member(group, key, folder, inner, LINKS)
            if isinstance(node, h5py.Group):
                yield from self.datasets(node, inner, place, depth + 1)
            elif isinstance(node, h5py.Dataset) and self._may_read(node, inner):
                yield name, key, node

    def _member(
        self, group: Any, key: str, folder: Path, name: str, links: int
    ) -> tuple[Any, Path]:
        """Object of a name in a group and the folder of its file; None where links lead nowhere."""
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = (folder / str(link.filename)).resolve()
            if not self._may_open(target, name):
                return None, folder
            try:
                group = self._stack.enter_context(h5py.File(target, "r"))
            except OSError as error:
                self.unread.append(f"{name} leads to {target}, which cannot be read: {error}")
                return None, folder
            folder, path = target.parent, str(link.path)
        elif isinstance(link, h5py.SoftLink):
            path = str(link.path)
        else:
            return group.get(key), folder
        node = group.file if path.startswith("/") else group
        for part in filter(None, path.split("/")):
            if links == 0 or not isinstance(node, h5py.Group) or part not in node:
                self.unread.append(f"{name} is a link that leads nowhere")
                return None, folder
            node, folder = self._member(node, part, folder, name, links - 1)
            if node is None:
                return None, folder
        return node, folder

    def _may_open(self, target: Path, name: str) -> bool:
        """Whether an external link may be followed."""
        if not any(target.is_relative_to(root) for root in self._roots):
            where = "outside of the file's folder and of source.asset_roots"
            self.unread.append(f"{name} leads to {target}, {where}")
        elif not target.is_file():
            self.unread.append(f"{name} leads to {target}, which is not there")
        elif not h5py.is_hdf5(target):
            self.unread.append(f"{name} leads to {target}, which is not HDF5")
        else:
            return True
        return False

    def _may_read(self, data: Any, name: str) -> bool:
        """Whether a dataset is in its own file and of a size that a spectrum may have."""
        if data.external or data.is_virtual:
            self.unread.append(f"{name} has its values in other files, which are not followed")
        elif data.size is not None and data.size * data.dtype.itemsize > LARGEST:
            self.unread.append(f"{name} has the shape {data.shape}: too large for a spectrum")
        else:
            return True
        return False


def _identity(node: Any) -> tuple[str, int]:
    """File and place in it, by which an object is the same however it is reached."""
    info: Any = h5py.h5o.get_info(node.id)  # type: ignore[attr-defined]  # not in the stubs
    return str(Path(node.file.filename).resolve()), info.addr


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort key by which scan 2.1 comes before 10.1."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _together(groups: list[_Group], path: Path) -> Table:
    """Columns of the whole file, as long as no name comes twice."""
    together = _Group()
    for group in groups:
        names = group.origin.keys() & together.origin.keys()
        if twice := [name for name in names if group.origin[name] != together.origin[name]]:
            raise SpectrumError(
                Reason.AMBIGUOUS_COLUMNS,
                f"{path}: {', '.join(sorted(twice))} come in several groups, none of which has both"
                " energy and a signal; it is not clear which belong together",
            )
        together.origin |= group.origin
        together.table.columns.update(group.table.columns)
        together.table.units.update(group.table.units)
    return together.table


def _string(value: Any) -> str:
    """Text of an HDF5 attribute or scalar, whatever the writer's language made of it."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

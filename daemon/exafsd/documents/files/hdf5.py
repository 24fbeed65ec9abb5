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
from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats, SpectrumError

#: what HDF5 files begin with
MAGIC = b"\x89HDF\r\n\x1a\n"
#: bytes at which that may be, behind a block of the user's, as MATLAB has it
BEGINS = (0, 512, 1024, 2048)
#: groups of a catalog with the times of readings, and not the readings
TIMES = "timestamps"
#: groups in each other, and bytes of a dataset; a spectrum needs neither
DEEPEST, LARGEST = 32, 1 << 28
#: links that may follow each other
LINKS = 16
#: scalars and attributes that say what was measured, and how
NAMES = {
    "element": "element", "edge": "edge", "sample_name": "sample", "mode": "remarks",
    "scan_mode": "remarks", "measurement_mode": "remarks", "detection_mode": "remarks",
}  # fmt: skip
#: groups whose energy is that of the signals in other groups
MONOCHROMATOR = re.compile(r"mono|dcm|hhm", re.IGNORECASE)


def is_hdf5(content: bytes) -> bool:
    """Whether a file begins as HDF5 does."""
    return any(content[at : at + len(MAGIC)] == MAGIC for at in BEGINS)


def read_hdf5(file: File) -> Contents:
    """Tables of an HDF5 file.

    A group with energy and a signal is a table of its own. Where no group is, datasets of several
    groups are taken together, as long as it is clear whose energy it is. A name of the adapter with
    a slash, ``plan/energy``, is the end of a dataset's path. Links are followed, external ones to
    files in the same folder, below it or below `File.roots`.
    """
    path = file.path
    groups: dict[str, _Group] = {}
    header = _Header()
    by_path = [key for keys in _adapter_names(file.adapter) for key in keys if "/" in key]
    named = _Group("")
    try:
        with ExitStack() as stack:
            walk = _Walk((path.parent, *file.roots), stack)
            opened = stack.enter_context(h5py.File(path, "r"))
            attributes: dict[str, Any] = dict(opened.attrs)
            for key, value in attributes.items():
                header.add("", key, value)
            for parent, last, data in walk.datasets(opened, "", path.parent, 0):
                if data.shape == () and last in NAMES:
                    header.add(parent, last, data[()])
                elif _is_column(data) and parent.rpartition("/")[2] != TIMES:
                    for key in ("element", "edge"):
                        header.add(parent, key, data.parent.attrs.get(key))
                    key = next((k for k in by_path if f"{parent}/{last}".endswith(f"/{k}")), None)
                    if key is not None:
                        named.add(key, data, True)
                        continue
                    is_signal = bool(columns_by_role([last], file.adapter))
                    groups.setdefault(parent, _Group(parent)).add(last, data, is_signal)
    except Exception as error:  # h5py raises whatever a broken file makes it hit
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{path} is not a readable HDF5 file: {type(error).__name__}: {error}",
        ) from None
    for group in groups.values():
        group.take(named)
    if named.origin and not groups:
        groups[""] = named
    whole: dict[frozenset[Any], _Group] = {}  # by the datasets that are energy and signals
    for group in groups.values():
        roles = columns_by_role(group.columns, file.adapter)
        if "energy" in roles and len(roles) > 1:
            names = [name for spelt in roles.values() for name in spelt]
            whole.setdefault(frozenset(group.origin[name] for name in names), group)
    if not whole and walk.unread:
        raise SpectrumError(Reason.UNREADABLE, f"{path}: {'; '.join(walk.unread)}")
    spectra = list(whole.values()) or [_together(list(groups.values()), file)]
    tables = [
        Table(group.columns, group.units, group.path, **header.of(group, spectra))
        for group in spectra
    ]
    metadata = {key: value for key, value in attributes.items() if np.ndim(value) == 0}
    return Contents(tables, metadata, unread=walk.unread)


def _adapter_names(adapter: Adapter) -> list[tuple[str, ...]]:
    return [adapter.energy.key, *adapter.signals.values()]


class _Group:
    """Datasets of a group, and which objects they are: links may lead to one several times."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.columns: dict[str, Floats] = {}
        self.units: dict[str, str] = {}
        self.remarks = ""
        self.origin: dict[str, tuple[str, int]] = {}

    def add(self, name: str, data: Any, is_signal: bool) -> None:
        """Read a dataset, if it is wanted; else note its name."""
        values = np.squeeze(np.asarray(data[()], float)) if is_signal else np.empty(0)
        self.columns[name] = values
        self.origin[name] = _identity(data)
        for key in data.attrs:
            if key.lower() in ("units", "unit"):
                self.units[name] = _string(data.attrs[key])
            elif key.lower() == "long_name" and is_signal:
                self.remarks += f"{_string(data.attrs[key])}\n"

    def take(self, other: "_Group") -> None:
        """Add the datasets of another group."""
        self.columns.update(other.columns)
        self.units.update(other.units)
        self.remarks += other.remarks
        self.origin.update(other.origin)


class _Header:
    """What scalars and attributes of groups say of the tables in and beside them."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[str, str]] = {}  # by group and field of a table

    def add(self, path: str, key: str, value: Any) -> None:
        """Note a scalar or attribute of a group, if it is one of `NAMES`."""
        if value is None or key not in NAMES:
            return
        if np.size(value) == 1 and np.asarray(value).dtype.kind in "SUO":
            self._texts.setdefault(path, {}).setdefault(NAMES[key], _string(value))

    def of(self, group: _Group, spectra: list[_Group]) -> dict[str, str]:
        """What holds for one of the groups of spectra, by the nearest group around or beside it.

        Groups beside it have no spectra themselves. Where they do not agree, as those of a sample
        and of a calibration, nothing holds.
        """
        taken = {path for one in spectra for path in _around(one.path)}
        texts: dict[str, str] = {}
        for near in _around(group.path):
            beside = [
                path
                for path in self._texts
                if path and path.rpartition("/")[0] == near and path not in taken
            ]
            for field in set(NAMES.values()) - texts.keys():
                own = self._texts.get(near, {}).get(field)
                others = {self._texts[path][field] for path in beside if field in self._texts[path]}
                if own is not None:
                    texts[field] = own
                elif len(others) == 1:
                    texts[field] = others.pop()
                elif others:
                    texts[field] = ""
        # where a mode stands alone, a line that names it
        texts["remarks"] = f"mode: {texts.get('remarks', '')}\n{group.remarks}"
        return texts


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


def _around(path: str) -> list[str]:
    """A path and those of the groups around it, the nearest first."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _together(groups: list[_Group], file: File) -> _Group:
    """Columns of several groups, as long as no name comes twice and it is clear whose energy it is.

    The energy is that of a monochromator, or of a group around the signals or inside theirs.
    """
    together = _Group("")
    place: dict[str, str] = {}
    for group in groups:
        names = group.origin.keys() & together.origin.keys()
        if twice := [name for name in names if group.origin[name] != together.origin[name]]:
            raise SpectrumError(
                Reason.AMBIGUOUS_COLUMNS,
                f"{file.path}: {', '.join(sorted(twice))} come in several groups, none of which has"
                " both energy and a signal; it is not clear which belong together",
            )
        together.take(group)
        place |= dict.fromkeys(group.origin, group.path)
    roles = columns_by_role(together.columns, file.adapter)
    (energy,) = roles.pop("energy", [""])
    signals = [name for spelt in roles.values() for name in spelt]
    own = place.get(energy, "")
    clear = bool(MONOCHROMATOR.search(own)) or all(
        f"{place[name]}/".startswith(f"{own}/") or f"{own}/".startswith(f"{place[name]}/")
        for name in signals
    )
    if energy and not clear:
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{file.path}: is {own}/{energy} the energy of"
            f" {', '.join(f'{place[name]}/{name}' for name in signals)}? They are in different"
            f" groups. If it is, say so: --set adapter.energy.key={own.strip('/')}/{energy}",
        )
    places = {place[name] for name in signals}
    together.path = places.pop() if len(places) == 1 else ""
    return together


def _is_column(data: Any) -> bool:
    """Whether a dataset has numbers along one or two axes; others have one place."""
    axes = sum(length > 1 for length in data.shape)
    return axes in (1, 2) and data.dtype.kind in "iuf"


def _string(value: Any) -> str:
    """Text of an HDF5 attribute or scalar, whatever the writer's language made of it."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

"""XDI and column ASCII, by Larch's readers."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from larch.io import read_ascii, read_xdi

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.table import Contents, Table
from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats, SpectrumError

#: first line of an XDI file
XDI = re.compile(rb"\s*#\s*XDI/", re.IGNORECASE)


def is_text(content: bytes) -> bool:
    """Whether it may be a table in text."""
    return b"\0" not in content[:4096]


def read_columns(path: Path, content: bytes, adapter: Adapter) -> Contents:
    """Table of a file of columns, with or without a header."""
    _, labels, data = _table(path, read_ascii)
    return Contents([Table(dict(zip(labels, data, strict=True)), {})])


def read_xdi_file(path: Path, content: bytes, adapter: Adapter) -> Contents:
    """Table of an XDI file, its units, and what its header says."""
    group, labels, data = _table(path, read_xdi)
    attrs: Mapping[str, Any] = getattr(group, "attrs", None) or {}
    told = dict(attrs.get("column") or {})
    words = {label: str(told.get(str(i + 1), "")).split() for i, label in enumerate(labels)}
    element: Mapping[str, Any] = attrs.get("element") or {}
    sample: Mapping[str, Any] = attrs.get("sample") or {}
    # by attribute, not from the table: Larch has already turned angles into energies there
    columns = {
        label: np.asarray(getattr(group, label, data[i]), float) for i, label in enumerate(labels)
    }
    units = {label: parts[1] for label, parts in words.items() if len(parts) > 1}
    return Contents(
        [Table(columns, units)],
        str(element.get("symbol", "")),
        str(element.get("edge", "")),
        sample.get("name"),
        attrs,
    )


def _table(path: Path, read: Callable[[str], Any]) -> tuple[Any, list[str], Floats]:
    """Larch's group, the names of its columns, and these, (columns, points)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of empty files; they are refused below
            group: Any = read(str(path))
        labels = [str(label) for label in group.array_labels]
        data = np.atleast_2d(np.asarray(group.data, float))
    except Exception as error:  # Larch's readers raise whatever they hit in a file
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{path} is not a table of numbers: {type(error).__name__}: {error}",
        ) from None
    if data.shape[0] != len(labels) or data.shape[1] < 2:
        raise SpectrumError(Reason.UNREADABLE, f"{path} holds no table of numbers")
    return group, labels, data

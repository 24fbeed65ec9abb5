"""XDI files: columns, units and what was measured, by the fields of the header."""

import re
from dataclasses import replace

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.labels import mismatch, names_in, numbered_columns
from exafsd.documents.files.table import Contents, File, Table, columns_by_role
from exafsd.documents.files.text import as_table, blocks_of
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

#: first line of an XDI file
XDI = re.compile(rb"(?:\xef\xbb\xbf)?\s*#\s*XDI/", re.IGNORECASE)
#: units of a d-spacing in angstrom
LENGTHS = {
    "": 1.0, "a": 1.0, "\u00e5": 1.0, "\u212b": 1.0, "ang": 1.0, "angstrom": 1.0,
    "nm": 10.0, "nanometer": 10.0, "nanometre": 10.0, "pm": 0.01,
}  # fmt: skip


def is_xdi(content: bytes) -> object:
    """Whether a file begins as XDI does, in whatever encoding."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content[:64].decode("utf-16", "ignore").encode()
    return XDI.match(content)


def read_xdi_file(file: File) -> Contents:
    """Table of an XDI file, its units, and what its header says.

    Columns are named by ``Column.1`` and so on; a line of labels must say the same.
    """
    blocks = blocks_of(file)
    metadata = _xdi_header(blocks[0].header)
    names, units = numbered_columns(metadata.get("column", {}), file.adapter)
    tables: list[Table] = []
    for block in blocks:
        own = _xdi_header(block.header)
        if own.get("element", {}) not in ({}, metadata.get("element", {})):
            text = f"{file.path} holds spectra of several elements: give each a file of its own"
            raise SpectrumError(Reason.AMBIGUOUS_COLUMNS, text)
        if "column" in own:
            names, units = numbered_columns(own["column"], file.adapter)
        labels = names_in(block.header[-1], block, file.adapter) if block.header else []
        if names and labels and _contradict(names, labels, file.adapter):
            raise mismatch(file.path, block, [*names, "and, in the line of labels,", *labels])
        table = as_table(block, file, names)
        table.units.update(units)
        own = {**metadata, **own}
        symbol, edge = (own.get("element", {}).get(key, "") for key in ("symbol", "edge"))
        sample = own.get("sample", {}).get("name")
        tables.append(replace(table, element=symbol, edge=edge, sample=sample))
    d_spacing = _length(metadata.get("mono", {}).get("d_spacing", ""))
    return Contents(tables, metadata, d_spacing)


def _xdi_header(header: list[str]) -> dict[str, dict[str, str]]:
    """Fields ``Family.key: value`` as family to key to value, names in lower case."""
    families: dict[str, dict[str, str]] = {}
    for line in header:
        item = re.match(r"#\s*(\w+)\.(\w+)\s*:\s*(.*)", line)
        if item:
            families.setdefault(item[1].lower(), {})[item[2].lower()] = item[3].strip()
    return families


def _length(text: str) -> float | None:
    """Angstrom of ``3.1356``, ``3.1356 Å`` or ``0.31356 nm``; None where that is no d-spacing."""
    item = re.fullmatch(r"(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*[(\[]?([^\W\d]*)[)\]]?", text.strip())
    scale = LENGTHS.get(item[2].lower().removesuffix("s")) if item else None
    length = float(item[1]) * scale if item and scale else 0.0
    return length if 0.3 < length < 100 else None


def _contradict(names: list[str], labels: list[str], adapter: Adapter) -> bool:
    """Whether two lists of names give a column two roles, or differ in number."""
    roles = [
        {name: role for role, spelt in columns_by_role(titles, adapter).items() for name in spelt}
        for titles in (names, labels)
    ]
    pairs = [(roles[0].get(a), roles[1].get(b)) for a, b in zip(names, labels, strict=False)]
    return len(names) != len(labels) or any(a and b and a != b for a, b in pairs)

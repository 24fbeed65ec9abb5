"""Tables in text: XDI, SPEC, CSV and plain columns, one table in a file or several."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from larch.io.xafs_beamlines import GenericBeamlineData, guess_beamline

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.table import Contents, File, Table, columns_by_role, name_and_unit
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

#: first line of an XDI file
XDI = re.compile(rb"(?:\xef\xbb\xbf)?\s*#\s*XDI/", re.IGNORECASE)
#: signs that a line of a header begins with
COMMENT = tuple("#;!%*<")
#: fewer rows of numbers than that are part of a header, where there is a longer table
FEWEST_ROWS = 8
#: share of rows that may have another number of cells: cut off, or run into each other
ODD_ROWS = 0.02
#: a number with a comma for its point
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
#: Fortran's double precision
DOUBLE = re.compile(r"([+-]?[\d.]+)[dD]([+-]?\d+)")
#: begins a scan in a SPEC file, and names its columns
SPEC_SCAN, SPEC_LABELS = "#S ", "#L "


@dataclass
class _Block:
    """Lines of a header, and the rows of cells that follow it."""

    header: list[str] = field(default_factory=list[str])
    rows: list[list[str]] = field(default_factory=list[list[str]])
    lines: list[str] = field(default_factory=list[str])

    @property
    def width(self) -> int:
        """Cells that most rows have."""
        return Counter(map(len, self.rows)).most_common(1)[0][0]


def is_text(content: bytes) -> bool:
    """Whether it may be a table in text."""
    return b"\0" not in content[:4096] or content[:2] in (b"\xff\xfe", b"\xfe\xff")


def read_columns(file: File) -> Contents:
    """Tables of a file of columns, with or without a header; of SPEC, a table a scan."""
    return Contents([_table(block, file) for block in _blocks(file)])


def read_xdi_file(file: File) -> Contents:
    """Table of an XDI file, its units, and what its header says.

    Columns are named by ``Column.1`` and so on; a line of labels must say the same.
    """
    blocks = _blocks(file)
    metadata = _xdi_header(blocks[0].header)
    columns: Mapping[str, str] = metadata.get("column", {})
    numbered = {int(n): words.split(maxsplit=1) for n, words in columns.items() if n.isdigit()}
    numbered = {n: words for n, words in numbered.items() if words}
    names = [numbered.get(n + 1, [f"col{n + 1}"])[0] for n in range(max(numbered, default=0))]
    # beamlines add the channel's name to the unit: eV || 13BMA:E:Energy
    units = {words[0]: words[1].partition("||")[0] for words in numbered.values() if words[1:]}
    tables: list[Table] = []
    for block in blocks:
        labels = _label_line(block, file.adapter)
        if names and labels and _contradict(names, labels, file.adapter):
            raise _mismatch(file.path, block, [*names, "and, in the line of labels,", *labels])
        tables.append(_table(block, file, names))
        tables[-1].units.update(units)
    element: Mapping[str, str] = metadata.get("element", {})
    return Contents(
        tables,
        element.get("symbol", ""),
        element.get("edge", ""),
        metadata.get("sample", {}).get("name"),
        metadata,
        _length(metadata.get("mono", {}).get("d_spacing", "")),
    )


def _xdi_header(header: list[str]) -> dict[str, dict[str, str]]:
    """Fields ``Family.key: value`` as family to key to value, names in lower case."""
    families: dict[str, dict[str, str]] = {}
    for line in header:
        item = re.match(r"#\s*(\w+)\.(\w+)\s*:\s*(.*)", line)
        if item:
            families.setdefault(item[1].lower(), {})[item[2].lower()] = item[3].strip()
    return families


def _length(text: str) -> float | None:
    """Angstrom of ``3.1356``, ``3.1356 Å`` or ``0.31356 nm``; None where that is no length."""
    item = re.match(r"([\d.]+)\s*(nm|nanomet\w+)?", text)
    try:
        return None if item is None else float(item[1]) * (10.0 if item[2] else 1.0)
    except ValueError:
        return None


def _contradict(names: list[str], labels: list[str], adapter: Adapter) -> bool:
    """Whether two lists of names give a column two roles, or differ in number."""
    roles = [
        {name: role for role, spelt in columns_by_role(some, adapter).items() for name in spelt}
        for some in (names, labels)
    ]
    pairs = [(roles[0].get(a), roles[1].get(b)) for a, b in zip(names, labels, strict=False)]
    return len(names) != len(labels) or any(a and b and a != b for a, b in pairs)


def _blocks(file: File) -> list[_Block]:
    """Tables of a file as rows of cells, each with the lines above it."""
    blocks = [_Block()]
    above: list[str] = []  # since the last row
    for line in _lines(file.content):
        row = None if line.startswith(COMMENT) else _row(line, blocks[-1], file.path)
        if row is None:
            above.append(line)
            continue
        if blocks[-1].rows and _begins_a_table(above, blocks[-1], file.adapter):
            blocks.append(_Block())
        if not blocks[-1].rows:
            blocks[-1].header = above
        above = []
        blocks[-1].rows.append(row)
        blocks[-1].lines.append(line)
    return _tables_only([block for block in blocks if block.rows], file.path)


def _lines(content: bytes) -> Iterator[str]:
    """Lines that are not empty, in whatever encoding."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", "replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return (
        line.strip(" \r\x1a") for line in re.split(r"\r\n|\r|\n", text) if line.strip(" \t\x1a")
    )


def _row(line: str, block: _Block, path: Path) -> list[str] | None:
    """Cells of a row of numbers; None where the line is no such row.

    Inside a table a cell may be no number, as where a counter has overflowed.
    """
    cells = _cells(line, path)
    are = [cell.lower() == "nan" or not math.isnan(_number(cell)) for cell in cells]
    numbers = sum(are)
    if block.rows and len(cells) == len(block.rows[-1]):
        return cells if 2 * numbers >= len(cells) else None
    if block.rows and re.match(r"[-+.*\d]", line):
        return cells  # cut off, or run together: its point is lost, and not silently
    return cells if 2 * numbers > len(cells) and are[0] else None


def _cells(line: str, path: Path) -> list[str]:
    """Cells of a row, separated by semicolons, tabs, commas or blanks."""
    words = line.split()
    if len(words) > 1 and all(map(DECIMAL_COMMA.fullmatch, words)):
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{path}: in {line[:60]!r} a comma may separate columns or stand for the decimal"
            " point; write points, or separate the columns by semicolons",
        )
    for delimiter in ";\t,":
        if delimiter in line:
            cells = [cell.strip().strip("\"'") for cell in line.split(delimiter)]
            if delimiter != "," and any(map(DECIMAL_COMMA.fullmatch, cells)):
                cells = [cell.replace(",", ".") for cell in cells]
            if any(len(cell.split()) > 1 for cell in cells):
                break  # blanks separate as well
            return cells[:-1] if cells[-1] == "" else cells
    return re.split(r"[\s,;]+", line.strip(" \t,;"))


def _number(cell: str) -> float:
    """Number in a cell, NaN where there is none."""
    try:
        return math.nan if "_" in cell else float(DOUBLE.sub(r"\1e\2", cell))
    except ValueError:
        return math.nan


def _begins_a_table(above: list[str], block: _Block, adapter: Adapter) -> bool:
    """Whether lines between rows begin another table: a scan of SPEC, or names of columns."""
    return any(
        line.startswith((SPEC_SCAN, SPEC_LABELS))
        or line in block.header[-1:]
        or any(_is_labels(names, adapter) for names in _splits(line))
        for line in above
    )


def _tables_only(blocks: list[_Block], path: Path) -> list[_Block]:
    """Blocks that are tables; a line or two of numbers above one are part of its header."""
    tables: list[_Block] = []
    header: list[str] = []
    longest = max((len(block.rows) for block in blocks), default=0)
    for block in blocks:
        if longest >= FEWEST_ROWS > len(block.rows) and SPEC_SCAN not in "".join(block.header):
            header += [*block.header, *block.lines]
            continue
        block.header = [*header, *block.header]
        header = []
        tables.append(block)
    if longest < 2 or max(block.width for block in tables) < 2:
        raise SpectrumError(Reason.UNREADABLE, f"{path} holds no table of numbers")
    return tables


def _table(block: _Block, file: File, names: list[str] | None = None) -> Table:
    """Columns of a block by name; `names` are those that the format itself gives."""
    width = block.width
    odd = [len(row) for row in block.rows if len(row) != width]
    if len(odd) > max(1, ODD_ROWS * len(block.rows)):
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{file.path}: {len(odd)} of {len(block.rows)} rows have not {width} columns but"
            f" {', '.join(map(str, sorted(set(odd))))}: nobody can say which belong together",
        )
    # a row that is cut off, or whose cells ran into each other, costs its point
    rows = [row if len(row) == width else ["nan"] * width for row in block.rows]
    numbers = np.array([[_number(cell) for cell in row] for row in rows]).T
    labels = names or _labels(block, file)
    if len(labels) != width:
        raise _mismatch(file.path, block, labels)
    named = [name_and_unit(label) for label in labels]
    repeated = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if any(columns_by_role([name], file.adapter) for name in repeated):
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{file.path}: of the columns {', '.join(labels)} some have one name",
        )
    columns = {
        name if name not in repeated else f"{name}_col{i + 1}": numbers[i]
        for i, (name, _) in enumerate(named)
    }
    return Table(columns, {name: unit for name, unit in named if unit})


def _labels(block: _Block, file: File) -> list[str]:
    """Names of the columns of a block by the lines above it.

    The last line that names energy and a signal counts; else what Larch knows of the beamline that
    wrote the file; else the last line, if it has as many words as there are columns.
    """
    labels = _label_line(block, file.adapter)
    if labels:
        return labels
    header = [line for line in block.header if re.search(r"[^\W_]", line)]
    beamline: Any = guess_beamline(header)
    if beamline is not GenericBeamlineData:
        return [str(label) for label in beamline(header).get_array_labels()]
    if header:
        fitting = [names for names in _splits(header[-1]) if len(names) == block.width]
        if fitting:
            return fitting[0]
    # two columns without any words are energy and mu; beside words nobody can say
    unnamed = "column " if header else "col"
    return [f"{unnamed}{i + 1}" for i in range(block.width)]


def _label_line(block: _Block, adapter: Adapter) -> list[str]:
    """Names in the last line of the header that names energy and a signal; none where none does.

    Of several ways to split the line into names the one that gives as many as there are columns
    counts.
    """
    for line in reversed(block.header):
        splits = [names for names in _splits(line) if _is_labels(names, adapter)]
        if splits:
            return next((names for names in splits if len(names) == block.width), splits[-1])
    return []


def _is_labels(names: list[str], adapter: Adapter) -> bool:
    """Whether they name energy and a signal."""
    roles = columns_by_role(names, adapter)
    return "energy" in roles and len(roles) > 1


def _splits(line: str) -> Iterator[list[str]]:
    """Ways to split a line into names: at delimiters, at wide blanks, not before units, at all."""
    line = re.sub(r"^(?:#[LC]\s|[#;!%*<C]+\s)?[#;!%*<\s]*", "", line).strip()
    for delimiter in ";\t,":
        if delimiter in line:
            cells = [cell.strip() for cell in line.split(delimiter)]
            yield cells[:-1] if cells[-1] == "" else cells
    words = line.replace(",", " ").replace(";", " ")
    yield re.split(r"\s{2,}|\t", words)
    yield re.findall(r"[^\s(\[]\S*(?:\s+[(\[][^)\]]*[)\]])?", words)
    yield words.split()


def _mismatch(path: Path, block: _Block, labels: list[str]) -> SpectrumError:
    cells = next(row for row in block.rows if len(row) == block.width)
    return SpectrumError(
        Reason.AMBIGUOUS_COLUMNS,
        f"{path} names {len(labels)} columns ({', '.join(labels)}), and has {block.width} columns"
        f" ({', '.join(cells[:8])} ...): nobody can say which name is whose. Correct the header",
    )

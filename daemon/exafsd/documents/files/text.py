"""Tables in text: XDI, SPEC, CSV and plain columns, one table in a file or several."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.energy import unit_of
from exafsd.documents.files.table import (
    Contents,
    File,
    Table,
    columns_by_role,
    comparable,
    name_and_unit,
)
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

#: first line of an XDI file
XDI = re.compile(rb"(?:\xef\xbb\xbf)?\s*#\s*XDI/", re.IGNORECASE)
#: signs that a line of a header begins with
COMMENT = tuple("#;!%*<@")
#: characters of a line of a header that may name columns
LONGEST_LINE = 4096
#: what is a unit and no name of a column
BARE_UNITS = {"ev", "kev", "deg", "degree", "degrees", "mdeg", "rad"}
#: columns that XDI may number
MOST_COLUMNS = 4096
#: fewer rows of numbers than that are part of a header, where there is a longer table
FEWEST_ROWS = 8
#: share of rows that may have another number of cells: cut off, or run into each other
ODD_ROWS = 0.02
#: a number with a comma for its point
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
#: Fortran's double precision
DOUBLE = re.compile(r"([+-]?[\d.]+)[dD]([+-]?\d+)")
#: units of a d-spacing in angstrom
LENGTHS = {
    "": 1.0, "a": 1.0, "\u00e5": 1.0, "\u212b": 1.0, "ang": 1.0, "angstrom": 1.0,
    "nm": 10.0, "nanometer": 10.0, "nanometre": 10.0, "pm": 0.01,
}  # fmt: skip
#: begins a scan in a SPEC file, and names its columns
SPEC_SCAN, SPEC_LABELS = "#S ", "#L "


@dataclass
class _Block:
    """Lines of a header, and the rows of cells that follow it."""

    header: list[str] = field(default_factory=list[str])
    rows: list[list[str]] = field(default_factory=list[list[str]])
    delimiter: str = " "
    lines: list[str] = field(default_factory=list[str])

    @property
    def width(self) -> int:
        """Cells that most rows have."""
        return Counter(map(len, self.rows)).most_common(1)[0][0]


def is_xdi(content: bytes) -> object:
    """Whether a file begins as XDI does, in whatever encoding."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content[:64].decode("utf-16", "ignore").encode()
    return XDI.match(content)


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
    names, units = _xdi_columns(metadata)
    tables: list[Table] = []
    for block in blocks:
        own = _xdi_header(block.header)
        if own.get("element", {}) not in ({}, metadata.get("element", {})):
            text = f"{file.path} holds spectra of several elements: give each a file of its own"
            raise SpectrumError(Reason.AMBIGUOUS_COLUMNS, text)
        if "column" in own:
            names, units = _xdi_columns(own)
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


def _xdi_columns(metadata: Mapping[str, Mapping[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Names of the numbered columns, and units by name."""
    numbered = {
        int(n): words.split(maxsplit=1)
        for n, words in metadata.get("column", {}).items()
        if words and re.fullmatch(r"[0-9]{1,4}", n) and 0 < int(n) <= MOST_COLUMNS
    }
    names = [numbered.get(n + 1, [f"col{n + 1}"])[0] for n in range(max(numbered, default=0))]
    # beamlines add the channel's name to the unit: eV || 13BMA:E:Energy
    return names, {w[0]: w[1].partition("||")[0] for w in numbered.values() if w[1:]}


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


def _blocks(file: File) -> list[_Block]:
    """Tables of a file as rows of cells, each with the lines above it."""
    blocks = [_Block()]
    above: list[str] = []  # since the last row
    continued = False  # spectra in SPEC (@A) go on in the next line, which is no row
    for line in _lines(file.content):
        row, delimiter = None, " "
        if not continued and not line.startswith(COMMENT):
            row, delimiter = _row(line, blocks[-1], file.path)
        continued = line.endswith("\\") and (continued or line.startswith("@"))
        if row is None:
            above.append(line)
            continue
        if above and blocks[-1].rows and _begins_a_table(above, row, blocks[-1], file.adapter):
            blocks.append(_Block())
        if not blocks[-1].rows:
            blocks[-1].header, blocks[-1].delimiter = above, delimiter
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


def _row(line: str, block: _Block, path: Path) -> tuple[list[str] | None, str]:
    """Cells of a row of numbers and what separates them; None where the line is no such row.

    Inside a table a cell may be no number, as where a counter has overflowed.
    """
    cells, delimiter = _cells(line, path)
    return (cells if _is_row(cells, line, block) else None), delimiter


def _is_row(cells: list[str], line: str, block: _Block) -> bool:
    are = [cell.lower() == "nan" or not math.isnan(_number(cell)) for cell in cells]
    numbers = sum(are)
    if block.rows and len(cells) == len(block.rows[-1]):
        return 2 * numbers >= len(cells)
    if block.rows and re.match(r"[-+.*\d]", line):
        return True  # cut off, or run together: its point is lost, and not silently
    return 2 * numbers > len(cells) and (are[0] or cells[0][:1].isdigit())  # a time may come first


def _cells(line: str, path: Path) -> tuple[list[str], str]:
    """Cells of a row, separated by semicolons, tabs, commas or blanks, and by which of these."""
    words = line.split()
    if len(words) > 1 and all(map(DECIMAL_COMMA.fullmatch, words)):
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{path}: in {line[:60]!r} a comma may separate columns or stand for the decimal"
            " point; write points, or separate the columns by semicolons",
        )
    for delimiter in ";\t,":
        if delimiter in line:
            cells = _separated(line, delimiter)
            if delimiter != "," and any(map(DECIMAL_COMMA.fullmatch, cells)):
                if any("." in cell for cell in cells):
                    raise SpectrumError(
                        Reason.AMBIGUOUS_COLUMNS,
                        f"{path}: {line[:60]!r} has numbers with points and with commas: which is"
                        " the decimal point?",
                    )
                cells = [cell.replace(",", ".") for cell in cells]
            inner = [cell.split() for cell in cells]
            if any(len(c) > 1 and not math.isnan(sum(map(_number, c))) for c in inner):
                break  # blanks separate as well
            return cells, delimiter
    return re.split(r"[\s,;]+", line.strip(" \t,;")), " "


def _separated(line: str, delimiter: str) -> list[str]:
    """Cells between delimiters, which may be quoted; without an empty one at the end."""
    (cells,) = csv.reader([line.replace("\0", "")], delimiter=delimiter, skipinitialspace=True)
    cells = [cell.strip(" \t'") for cell in cells]
    return cells[:-1] if cells[-1:] == [""] else cells


def _number(cell: str) -> float:
    """Number in a cell, NaN where there is none."""
    try:
        return math.nan if "_" in cell else float(DOUBLE.sub(r"\1e\2", cell))
    except ValueError:
        return math.nan


def _begins_a_table(above: list[str], row: list[str], block: _Block, adapter: Adapter) -> bool:
    """Whether lines between rows begin another table: a scan of SPEC, or names of columns.

    The same names again, as at the head of a page, do so only where the first column begins anew.
    """
    if any(line.startswith((SPEC_SCAN, SPEC_LABELS)) for line in above):
        return True
    labels = _label_line(block, adapter)
    last = [_number(cells[0]) for cells in block.rows[-2:]]
    goes_on = len(last) == 2 and (last[1] - last[0]) * (_number(row[0]) - last[1]) >= 0
    for line in above:
        fitting = [n for n in _splits(line, block.delimiter) if len(n) == len(row)]
        if any(_is_labels(names, adapter) and names != labels for names in fitting):
            return True
        if fitting and not goes_on and re.search(r"[^\W\d_]", line):
            return True
    return False


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
        if block.rows[0][0] == str(len(block.rows) - 1):  # says how many rows follow
            del block.rows[0]
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
            f" {', '.join(map(str, sorted(set(odd))))}: it is not clear which belong together",
        )
    # a row that is cut off, or whose cells ran into each other, costs its point
    rows = [row if len(row) == width else ["nan"] * width for row in block.rows]
    numbers = np.array([[_number(cell) for cell in row] for row in rows]).T
    labels = names or _labels(block, file)
    if len(labels) != width or any(label.lower() in BARE_UNITS for label in labels):
        raise _mismatch(file.path, block, labels)
    named = [name_and_unit(label) for label in labels]
    counts = Counter(comparable(name) for name, _ in named)
    repeated = [name for name, _ in named if counts[comparable(name)] > 1]
    if any(columns_by_role([name], file.adapter) for name in repeated):
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{file.path}: two of the columns {', '.join(labels)} have the same name",
        )
    columns = {
        name if name not in repeated else f"{name}_col{i + 1}": numbers[i]
        for i, (name, _) in enumerate(named)
    }
    units = {name: unit for name, unit in named if unit}
    for line in block.header[-2:]:  # a line of units below that of names
        for words in _splits(line, block.delimiter):
            if len(words) == width and unit_of(words[0]):
                below = zip(named, words, strict=True)
                units = {name: word for (name, _), word in below} | units
    return Table(columns, units)


def _labels(block: _Block, file: File) -> list[str]:
    """Names of the columns of a block by the lines above it.

    The last line that names energy and a signal counts; else what Larch knows of the beamline that
    wrote the file; else the last line, if it has as many words as there are columns.
    """
    labels = _label_line(block, file.adapter)
    if labels:
        return labels
    # Larch takes seconds to import, and few headers need it
    from larch.io.xafs_beamlines import GenericBeamlineData, guess_beamline

    header = [line for line in block.header if re.search(r"[^\W_]", line)]
    beamline: Any = guess_beamline(header)
    if beamline is not GenericBeamlineData:
        with suppress(Exception):  # Larch's classes raise whatever a header makes them hit
            return [str(label) for label in beamline(header).get_array_labels()]
    if header:
        splits = _splits(header[-1], block.delimiter)
        fitting = [names for names in splits if len(names) == block.width]
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
        splits = [n for n in _splits(line, block.delimiter) if _is_labels(n, adapter)]
        if splits:
            return next((names for names in splits if len(names) == block.width), splits[0])
        if line.startswith((SPEC_SCAN, SPEC_LABELS)):
            return []  # what is above is of another scan
    return []


def _is_labels(names: list[str], adapter: Adapter) -> bool:
    """Whether they name energy and a signal."""
    roles = columns_by_role(names, adapter)
    return "energy" in roles and len(roles) > 1


def _splits(line: str, delimiter: str) -> list[list[str]]:
    """Ways to split a line into names: as the rows are, else at wide blanks or at all.

    A unit in brackets is never a name of its own. SPEC has two blanks between names.
    """
    if len(line) > LONGEST_LINE:
        return []
    spec = line.startswith(SPEC_LABELS)
    line = re.sub(r"^(?:#[LC]\s|[#;!%*<C]+\s)?[#;!%*<\s]*", "", line).strip()
    if delimiter != " " and delimiter in line:
        return [_separated(line, delimiter)]
    words = line.replace(",", " ").replace(";", " ")
    wide = re.split(r"\s{2,}|\t", words)
    single = re.findall(r"[^\s(\[]\S*(?:\s+[(\[][^)\]]*[)\]])?", words)
    if spec and len(wide) > 1:
        return [wide]
    return [single, wide] if len(wide) > 1 else [single]


def _mismatch(path: Path, block: _Block, labels: list[str]) -> SpectrumError:
    cells = next(row for row in block.rows if len(row) == block.width)
    return SpectrumError(
        Reason.AMBIGUOUS_COLUMNS,
        f"{path} names {len(labels)} columns ({', '.join(labels)}), and has {block.width} columns"
        f" ({', '.join(cells[:8])} ...): it is not clear which name is whose. Correct the header",
    )

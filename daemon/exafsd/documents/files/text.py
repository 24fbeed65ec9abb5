"""Tables in text: XDI, SPEC, CSV and plain columns, one table in a file or several."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
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
    is_unit,
    names_and_units,
    unquoted,
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
#: steps of energy that may be missing where a table goes on after the names again, as on a new page
GAP = 20.0
#: share of the energy by which the next row may be away
NEXT_ROW = 0.02
#: columns by which rows of one table are of several samples or scans
SAMPLES = {"sample", "scan", "scan_id", "scan_number", "spectrum", "sweep", "run", "repeat", "file"}
#: rows that each of them must have
ROWS = 40
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
#: names a scan of SPEC, or a section
SECTION = re.compile(r"^#S (\d+)|^\W*\[([^\]]+)\]\W*$")
#: a line for each column: Column 2: I0
LISTED_COLUMN = re.compile(r"\W*col(?:umn)?\W*(\d+)\s*[:=]\s*(\S.*)", re.IGNORECASE)
#: lines of a header that name the element or the edge
ELEMENT = re.compile(r"^\W*element(?:\.symbol)?\s*[:=]\s*([A-Z][a-z]?)\s*$", re.M | re.I)
EDGE = re.compile(r"^\W*(?:element\.)?edge\s*[:=]\s*([KLM][1-5I]*)\s*$", re.M | re.I)
#: what may stand before the names in a line of labels
LABELS_FOLLOW = re.compile(r"(?:column\s+)?(?:columns?|labels?|names?|headings?)\s*[:=]\s*", re.I)
#: words that prose has, and a line of labels has not
PROSE = re.compile(
    r"an|and|are|as|at|be|but|by|for|from|has|have|in|is|no|not|of|off|on|or|that|the|then|there|this"
    r"|to|versus|vs|was|were|when|with|without|.*[:?]",
    re.IGNORECASE,
)
#: Names of columns that people write as several words. Where single blanks separate the names, such
#: words could be taken for two columns, and shift the names after them.
PHRASE = re.compile(
    r"\b(?:(?:scaler|detector)\s)?(?:"
    r"(?:acq\w*|clock|count(?:ing)?|dead|dwell|elapsed|exposure|integration|live|measurement|preset"
    r"|real|sample|scan)\stime(?:\sclock)?"
    r"|(?:achieved|actual|beam|dcm|mono|monochromator|nominal|photon|requested|set|x-?ray)\senergy"
    r"|(?:bragg|dcm|encoder|mono|monochromator|motor|sample|stage)\s(?:angle|pos|position)"
    r"|(?:beam|machine|ring|sr|storage)\scurrent|ioni?[sz]?\w*\schamber)\b",
    re.IGNORECASE,
)


@dataclass
class Block:
    """Lines of a header, and the rows of cells that follow it."""

    header: list[str] = field(default_factory=list[str])
    rows: list[list[str]] = field(default_factory=list[list[str]])
    delimiter: str = " "
    lines: list[str] = field(default_factory=list[str])
    name: str = ""
    #: lines at the beginning of the file that are of all its tables
    shared: list[str] = field(default_factory=list[str])

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
    blocks = [part for block in _named_blocks(file) for part in _by_sample(block, file)]
    return Contents([as_table(block, file) for block in blocks])


def read_xdi_file(file: File) -> Contents:
    """Table of an XDI file, its units, and what its header says.

    Columns are named by ``Column.1`` and so on; a line of labels must say the same.
    """
    blocks = _named_blocks(file)
    metadata = _xdi_header(blocks[0].header)
    names, units = _numbered_columns(metadata.get("column", {}), file.adapter)
    tables: list[Table] = []
    for block in blocks:
        own = _xdi_header(block.header)
        if own.get("element", {}) not in ({}, metadata.get("element", {})):
            text = f"{file.path} holds spectra of several elements: give each a file of its own"
            raise SpectrumError(Reason.AMBIGUOUS_COLUMNS, text)
        if "column" in own:
            names, units = _numbered_columns(own["column"], file.adapter)
        labels = _names(block.header[-1], block, file.adapter) if block.header else []
        if names and labels and _contradict(names, labels, file.adapter):
            raise _mismatch(file.path, block, [*names, "and, in the line of labels,", *labels])
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


def _numbered_columns(
    listed: Mapping[str, str], adapter: Adapter
) -> tuple[list[str], dict[str, str]]:
    """Names of the numbered columns, and units by name.

    Words after a signal's name that are no unit belong to its name: ``mu reference`` is not mu.
    """
    names: dict[int, str] = {}
    units: dict[str, str] = {}
    for number, text in listed.items():
        if not re.fullmatch(r"[0-9]{1,4}", number) or not 0 < int(number) <= MOST_COLUMNS:
            continue
        # beamlines add the channel's name to the unit, or a remark: eV || 13BMA:E:Energy
        words = re.split(r"\|\||\s#", text)[0].split(maxsplit=1) or [f"col{number}"]
        role = next(iter(columns_by_role(words[:1], adapter)), None)
        if words[1:] and role not in (None, "energy") and not is_unit(words[1]):
            words = [" ".join(words)]
        names[int(number)] = words[0]
        if words[1:]:
            units[words[0]] = words[1]
    return [names.get(n + 1, f"col{n + 1}") for n in range(max(names, default=0))], units


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


def _named_blocks(file: File) -> list[Block]:
    """Tables of a file; where there are several, each with the name of its scan or section."""
    blocks = _blocks(file)
    shared = list(takewhile(lambda line: not SECTION.search(line), blocks[0].header))
    for number, block in enumerate(blocks, 1):
        block.shared = shared if number > 1 else []
        sections = [item for line in block.header if (item := SECTION.search(line))]
        if sections:
            scan, section = sections[-1].groups()
            block.name = f"scan {scan}" if scan else section
        elif len(blocks) > 1:
            block.name = f"table {number}"
        again = sum(other.name.split(",")[0] == block.name for other in blocks[: number - 1])
        block.name += f", {again + 1}" if again and block.name else ""
    return blocks


def _by_sample(block: Block, file: File) -> list[Block]:
    """Rows of each sample or scan, where a column says which they are of; else the block."""
    labels = _labels(block, file)
    rows = [row for row in block.rows if len(row) == block.width]
    for place, label in enumerate(labels if len(labels) == block.width else ()):
        counts = Counter(row[place] for row in rows)
        is_text = all(math.isnan(as_number(cell)) and cell.lower() != "nan" for cell in counts)
        if (
            (is_text or comparable(label) in SAMPLES)
            and len(counts) > 1
            and min(counts.values()) >= ROWS
        ):
            parts = [
                replace(block, rows=[r for r in rows if r[place] == cell], name=f"{label} {cell}")
                for cell in counts
            ]
            energies = columns_by_role(labels, file.adapter).get("energy", labels)
            if _overlap(
                parts, labels.index(energies[0])
            ):  # else a scan that goes on in another state
                return parts
    return [block]


def _overlap(blocks: list[Block], place: int) -> bool:
    """Whether the energies, at `place`, overlap by a quarter of the shorter range at least."""
    ranges: list[tuple[float, float]] = []
    for block in blocks:
        energies = [as_number(row[place]) for row in block.rows]
        ranges.append((min(energies), max(energies)))
    return all(
        4 * (one[1] - other[0]) > min(one[1] - one[0], other[1] - other[0])
        for one, other in pairwise(sorted(ranges))
    )


def _blocks(file: File) -> list[Block]:
    """Tables of a file as rows of cells, each with the lines above it."""
    blocks = [Block()]
    above: list[str] = []  # since the last row
    continued = False  # spectra in SPEC (@A) go on in the next line, which is no row
    for line in as_lines(file.content):
        row, delimiter = None, " "
        if not continued and not line.startswith(COMMENT):
            row, delimiter = _row(line, blocks[-1], file.path)
        continued = line.endswith("\\") and (continued or line.startswith("@"))
        if row is None:
            above.append(line)
            continue
        if above and blocks[-1].rows and _begins_a_table(above, row, blocks[-1], file.adapter):
            blocks.append(Block())
        if not blocks[-1].rows:
            while above and (cells := _empty_row(above[-1], row, file.path)):
                blocks[-1].rows.insert(0, cells)
                blocks[-1].lines.insert(0, above.pop())
            blocks[-1].header, blocks[-1].delimiter = above, delimiter
        above = []
        blocks[-1].rows.append(row)
        blocks[-1].lines.append(line)
    return _tables_only([block for block in blocks if block.rows], file.path)


def _empty_row(line: str, row: list[str], path: Path) -> list[str]:
    """Cells of a line before a table's first row, if it is one that only has its energy."""
    cells = [] if line.startswith(COMMENT) else _cells(line, path)[0]
    if len(cells) != len(row):
        return []
    away = abs(as_number(cells[0]) - as_number(row[0]))
    return cells if away < NEXT_ROW * abs(as_number(row[0])) else []


def as_lines(content: bytes) -> Iterator[str]:
    """Lines that are not empty, in whatever encoding."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", "replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    text = text.replace("\u2212", "-")  # as spreadsheets write it in some languages
    return (
        line.strip(" \r\x1a") for line in re.split(r"\r\n|\r|\n", text) if line.strip(" \t\x1a")
    )


def _row(line: str, block: Block, path: Path) -> tuple[list[str] | None, str]:
    """Cells of a row of numbers and what separates them; None where the line is no such row.

    Inside a table a cell may be no number, as where a counter has overflowed.
    """
    cells, delimiter = _cells(line, path)
    return (cells if _is_row(cells, line, block, delimiter) else None), delimiter


def _is_row(cells: list[str], line: str, block: Block, delimiter: str) -> bool:
    are = [cell.lower() == "nan" or not math.isnan(as_number(cell)) for cell in cells]
    numbers = sum(are)
    if block.rows and len(cells) == len(block.rows[-1]):
        return are[0] or 2 * numbers >= len(cells)
    if block.rows and re.match(r"[-+.*\d]", line):
        return True  # cut off, or run together: its point is lost, and not silently
    # a time may come first, or a sample's name
    return 2 * numbers > len(cells) and (are[0] or cells[0][:1].isdigit() or delimiter != " ")


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
            quoted = '"' in line  # so that commas inside do not separate
            if (delimiter != "," or quoted) and any(map(DECIMAL_COMMA.fullmatch, cells)):
                if any("." in cell for cell in cells):
                    raise SpectrumError(
                        Reason.AMBIGUOUS_COLUMNS,
                        f"{path}: {line[:60]!r} has numbers with points and with commas: which is"
                        " the decimal point?",
                    )
                cells = [cell.replace(",", ".") for cell in cells]
            inner = [cell.split() for cell in cells]
            if any(len(c) > 1 and not math.isnan(sum(map(as_number, c))) for c in inner):
                break  # blanks separate as well
            return cells, delimiter
    return re.split(r"[\s,;]+", line.strip(" \t,;")), " "


def _separated(line: str, delimiter: str) -> list[str]:
    """Cells between delimiters, which may be quoted; without an empty one at the end."""
    (cells,) = csv.reader([line.replace("\0", "")], delimiter=delimiter, skipinitialspace=True)
    cells = [unquoted(cell) for cell in cells]
    return cells[:-1] if cells[-1:] == [""] else cells


def as_number(cell: str) -> float:
    """Number in a cell, NaN where there is none."""
    try:
        return math.nan if "_" in cell else float(DOUBLE.sub(r"\1e\2", cell))
    except ValueError:
        return math.nan


def _begins_a_table(above: list[str], row: list[str], block: Block, adapter: Adapter) -> bool:
    """Whether lines between rows begin another table: a scan of SPEC, or names of columns.

    The same names again, as at the head of a page, do so only where the first column begins anew.
    """
    if any(line.startswith((SPEC_SCAN, SPEC_LABELS)) for line in above):
        return True
    labels = _label_line(block, adapter)
    first, before, last = (as_number(block.rows[i][0]) for i in (0, max(-2, -len(block.rows)), -1))
    step = (as_number(row[0]) - last) / (last - before) if last != before else math.nan
    goes_on = 0 <= step < GAP
    # where the energy only goes back a little, as after a lost beam, words are a remark
    anew = not abs(as_number(row[0]) - first) > abs(last - first) / 2
    for line in above:
        fitting = [n for n in _splits(line, block.delimiter) if len(n) == len(row)]
        if any(
            _is_labels(names, adapter) and (names != labels or not goes_on) for names in fitting
        ):
            return True
        if fitting and not goes_on and anew and re.search(r"[^\W\d_]", line):
            return True
    return False


def _tables_only(blocks: list[Block], path: Path) -> list[Block]:
    """Blocks that are tables; a line or two of numbers above one are part of its header."""
    tables: list[Block] = []
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


def as_table(block: Block, file: File, names: list[str] | None = None) -> Table:
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
    numbers = np.array([[as_number(cell) for cell in row] for row in rows]).T
    labels = names or _labels(block, file)
    if len(labels) != width or any(label.lower() in BARE_UNITS for label in labels):
        raise _mismatch(file.path, block, labels)
    named = names_and_units(labels)
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
            are_numbers = any(not math.isnan(as_number(word)) for word in words)
            if len(words) == width and unit_of(words[0]) and not are_numbers:
                below = zip(named, words, strict=True)
                units = {name: word for (name, _), word in below} | units
    above = [line for line in block.header if not _names(line, block, file.adapter)]
    remarks = "\n".join(above)
    # what stands above the first of several tables may be of that one alone, but not before a scan
    of_all = block.shared if any(map(SECTION.search, block.header)) else []
    element, edge = (
        {*pattern.findall(remarks)} or {*pattern.findall("\n".join(of_all))}
        for pattern in (ELEMENT, EDGE)
    )
    return Table(
        columns,
        units,
        block.name,
        element.pop() if len(element) == 1 else "",
        edge.pop() if len(edge) == 1 else "",
        remarks=remarks,
        shared_remarks="\n".join(block.shared),
    )


def _labels(block: Block, file: File) -> list[str]:
    """Names of the columns of a block by the lines above it.

    The last line that names energy and a signal counts; else a list with a line for each column;
    else what Larch knows of the beamline that wrote the file; else the last line, if it has as many
    words as there are columns.
    """
    labels = _label_line(block, file.adapter)
    if labels:
        _check_below(labels, block, file)
        return labels
    listed = {
        item[1]: item[2] for line in block.header if (item := LISTED_COLUMN.match(line)) is not None
    }
    if set(listed) == {str(n + 1) for n in range(block.width)}:
        names, own = _numbered_columns(listed, file.adapter)
        return [f"{n} ({own[n].strip('()[] ')})" if n in own else n for n in names]
    # Larch takes seconds to import, and few headers need it
    from larch.io.xafs_beamlines import GenericBeamlineData, guess_beamline

    header = [line for line in block.header if re.search(r"[^\W_]", line)]
    beamline: Any = guess_beamline(header)
    if beamline is not GenericBeamlineData:
        with suppress(Exception):  # Larch's classes raise whatever a header makes them hit
            return [str(label) for label in beamline(header).get_array_labels()]
    if header:
        splits = _splits(header[-1], block.delimiter)
        fitting = [n for n in splits if len(n) == block.width and not _is_prose(n)]
        if fitting:
            return fitting[0]
    # two columns without any words are energy and mu; beside words nobody can say
    unnamed = "column " if header else "col"
    return [f"{unnamed}{i + 1}" for i in range(block.width)]


def _label_line(block: Block, adapter: Adapter) -> list[str]:
    """Names in the last line of the header that names energy and a signal; none where none does."""
    for line in reversed(block.header):
        names = _names(line, block, adapter)
        if names:
            return names
        if line.startswith((SPEC_SCAN, SPEC_LABELS)):
            return []  # what is above is of another scan
    return []


def _names(line: str, block: Block, adapter: Adapter) -> list[str]:
    """Names of columns in a line, if it names energy and a signal and is no prose.

    Where wide blanks and single ones separate differently, the wide ones count, unless all words
    between them are names of the adapter's: with ``Mono pos  I0  It`` over four columns it is not
    clear whether one of them has no name.
    """
    ways = [names for names in _splits(line, block.delimiter) if _is_labels(names, adapter)]
    if not ways:
        return []
    wide, single = ways[0], ways[-1]
    apart = len(ways) > 1 or line.startswith(SPEC_LABELS) or re.search(r"[,;\t]", line)
    if len(wide) == block.width and apart:
        return wide  # as, in and no are names there, of elements and numbers
    if _is_prose(single):
        return []
    if len(wide) == block.width or len(single) != block.width:
        return wide
    several = [words for name in wide if len(words := _words(name)) > 1]
    plain = all(columns_by_role([word], adapter) for words in several for word in words)
    return single if plain else wide


def _is_prose(names: list[str]) -> bool:
    """Whether words of prose are among names."""
    return any(map(PROSE.fullmatch, names))


def _check_below(labels: list[str], block: Block, file: File) -> None:
    """Refuse a line of labels that is followed by another with a word for every column."""
    for line in reversed(block.header):
        if _names(line, block, file.adapter):
            return
        for words in _splits(line, block.delimiter):
            letters = [word for word in words if re.search(r"[^\W\d_]", word)]
            named = len(words) == block.width and 2 * len(letters) > block.width
            if named and not _is_prose(words) and not any(map(is_unit, letters)):
                raise SpectrumError(
                    Reason.AMBIGUOUS_COLUMNS,
                    f"{file.path}: {' '.join(labels)!r} and, below it, {' '.join(words)!r} both"
                    " have a word for every column: which are their names? Take out the other line",
                )


def _is_labels(names: list[str], adapter: Adapter) -> bool:
    """Whether they name energy and a signal."""
    roles = columns_by_role(names, adapter)
    return "energy" in roles and len(roles) > 1


def _splits(line: str, delimiter: str) -> list[list[str]]:
    """Ways to split a line into names: as the rows are, else at commas, wide blanks or at all.

    A unit in brackets is never a name of its own. SPEC has two blanks between names.
    """
    if len(line) > LONGEST_LINE:
        return []
    spec = line.startswith(SPEC_LABELS)
    line = re.sub(r"^(?:#[LC]\s|[#;!%*<C]+\s)?[#;!%*<\s]*", "", line).strip()
    line = LABELS_FOLLOW.sub("", line, count=1) if LABELS_FOLLOW.match(line) else line
    for sign in (delimiter, ",", ";"):
        if sign != " " and sign in line:
            return [_separated(line, sign)]
    wide = re.split(r"\s{2,}|\t", line)
    if spec and len(wide) > 1:
        return [wide]
    single = _words(line)
    return [wide, single] if len(wide) > 1 else [single]


def _words(text: str) -> list[str]:
    """Words between blanks; a unit in brackets and a name of several words are one."""
    text = PHRASE.sub(lambda name: re.sub(r"\s", "_", name[0]), text)
    return re.findall(r"[^\s(\[]\S*(?:\s+[(\[][^)\]]*[)\]])?", text)


def _mismatch(path: Path, block: Block, labels: list[str]) -> SpectrumError:
    cells = next(row for row in block.rows if len(row) == block.width)
    units = [label for label in labels if label.lower() in BARE_UNITS]
    if units and len(labels) == block.width:
        return SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{path}: {units[0]!r} stands among the names of the columns ({', '.join(labels)}): is"
            " it a unit? Write it in brackets, or take it out",
        )
    return SpectrumError(
        Reason.AMBIGUOUS_COLUMNS,
        f"{path} names {len(labels)} columns ({', '.join(labels)}), and has {block.width} columns"
        f" ({', '.join(cells[:8])} ...): it is not clear which name is whose. Correct the header",
    )

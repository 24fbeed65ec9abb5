"""Tables in text: SPEC, CSV and plain columns, one table in a file or several."""

import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.energy import unit_of
from exafsd.documents.files.block import Block
from exafsd.documents.files.cells import COMMENT, as_lines, as_number, cells_of
from exafsd.documents.files.labels import (
    BARE_UNITS,
    SPEC_LABELS,
    SPEC_SCAN,
    are_labels,
    label_line,
    labels_of,
    mismatch,
    names_in,
    ways_to_split,
)
from exafsd.documents.files.table import (
    Contents,
    File,
    Table,
    columns_by_role,
    comparable,
    names_and_units,
)
from exafsd.settings.analysis import Adapter
from exafsd.spectra import SpectrumError

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
#: names a scan of SPEC, or a section
SECTION = re.compile(r"^#S (\d+)|^\W*\[([^\]]+)\]\W*$")
#: lines of a header that name the element or the edge
ELEMENT = re.compile(r"^\W*element(?:\.symbol)?\s*[:=]\s*([A-Z][a-z]?)\s*$", re.M | re.I)
EDGE = re.compile(r"^\W*(?:element\.)?edge\s*[:=]\s*([KLM][1-5I]*)\s*$", re.M | re.I)


def is_text(content: bytes) -> bool:
    """Whether it may be a table in text."""
    return b"\0" not in content[:4096] or content[:2] in (b"\xff\xfe", b"\xfe\xff")


def read_columns(file: File) -> Contents:
    """Tables of a file of columns, with or without a header; of SPEC, a table a scan."""
    blocks = [part for block in blocks_of(file) for part in _by_sample(block, file)]
    return Contents([as_table(block, file) for block in blocks])


def blocks_of(file: File) -> list[Block]:
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
    labels = labels_of(block, file)
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
    cells = [] if line.startswith(COMMENT) else cells_of(line, path)[0]
    if len(cells) != len(row):
        return []
    away = abs(as_number(cells[0]) - as_number(row[0]))
    return cells if away < NEXT_ROW * abs(as_number(row[0])) else []


def _row(line: str, block: Block, path: Path) -> tuple[list[str] | None, str]:
    """Cells of a row of numbers and what separates them; None where the line is no such row.

    Inside a table a cell may be no number, as where a counter has overflowed.
    """
    cells, delimiter = cells_of(line, path)
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


def _begins_a_table(above: list[str], row: list[str], block: Block, adapter: Adapter) -> bool:
    """Whether lines between rows begin another table: a scan of SPEC, or names of columns.

    The same names again, as at the head of a page, do so only where the first column begins anew.
    """
    if any(line.startswith((SPEC_SCAN, SPEC_LABELS)) for line in above):
        return True
    labels = label_line(block, adapter)
    first, before, last = (as_number(block.rows[i][0]) for i in (0, max(-2, -len(block.rows)), -1))
    step = (as_number(row[0]) - last) / (last - before) if last != before else math.nan
    goes_on = 0 <= step < GAP
    # where the energy only goes back a little, as after a lost beam, words are a remark
    anew = not abs(as_number(row[0]) - first) > abs(last - first) / 2
    for line in above:
        fitting = [n for n in ways_to_split(line, block.delimiter) if len(n) == len(row)]
        if any(
            are_labels(names, adapter) and (names != labels or not goes_on) for names in fitting
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
    labels = names or labels_of(block, file)
    if len(labels) != width or any(label.lower() in BARE_UNITS for label in labels):
        raise mismatch(file.path, block, labels)
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
        for words in ways_to_split(line, block.delimiter):
            are_numbers = any(not math.isnan(as_number(word)) for word in words)
            if len(words) == width and unit_of(words[0]) and not are_numbers:
                below = zip(named, words, strict=True)
                units = {name: word for (name, _), word in below} | units
    above = [line for line in block.header if not names_in(line, block, file.adapter)]
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

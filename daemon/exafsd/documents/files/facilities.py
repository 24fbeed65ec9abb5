"""Tables of facilities whose files do not name their columns in one line."""

import re
from itertools import takewhile
from pathlib import Path

import numpy as np

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.block import Block
from exafsd.documents.files.cells import as_lines, as_number
from exafsd.documents.files.table import Contents, File, Table
from exafsd.documents.files.text import FEWEST_ROWS, as_table
from exafsd.spectra import Floats, SpectrumError

#: first line of a file of the Photon Factory, SPring-8, SAGA-LS or Aichi
FORMAT_9809 = re.compile(rb"\s*#?\s*9809\s+\S")
#: what the row Mode says of a column; 5, 101 and 103 are resets and all counts of an element
MODES_9809 = {"1": "i0", "2": "it", "3": "iff"}
#: what the lines Initial angle and D of the monochromator say
D_9809 = re.compile(r"Mono\s*:.*\bD\s*=\s*([\d.]+)", re.IGNORECASE)
#: first line of a file of SSRL
SSRL = re.compile(rb"\s*SSRL\s+(?:Micro)?EXAFS Data Collector", re.IGNORECASE)
#: names of columns at SSRL, in the order in which they count, and what exafsd calls them
SSRL_NAMES = {
    "energy": ("achieved energy", "requested energy", "energy"),
    "i0": ("i0",),
    "it": ("i1",),
    "ir": ("i2",),
}


def is_9809(content: bytes) -> object:
    """Whether a file begins as those of the program 9809 do."""
    return FORMAT_9809.match(content)


def read_9809(file: File) -> Contents:
    """Table of a file of the format 9809, by its rows ``Mode`` and ``Offset``.

    The offsets are dark counts per second; they are subtracted. Of several columns behind the
    sample or elements of a detector each keeps its number: it1, it2, ...
    """
    lines = list(as_lines(file.content))
    header, rows = _after(lines, "offset", file.path)
    above = {line.split()[0].lower(): line.split()[1:] for line in header if line.split()}
    modes, offsets = above.get("mode", []), [as_number(cell) for cell in above.get("offset", [])]
    crystal = D_9809.search("\n".join(header))
    if not rows or len(modes) < 3 or len(offsets) != len(modes) or crystal is None:
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{file.path} begins as the format 9809 does, but its rows Mode and Offset, or D of the"
            " monochromator, are missing",
        )
    roles = [MODES_9809.get(mode, "other") for mode in modes[2:]]
    signals = [
        role if roles.count(role) == 1 else f"{role}{roles[: i + 1].count(role)}"
        for i, role in enumerate(roles)
    ]
    table = as_table(Block(header, rows), file, ["angle_c", "angle", "time", *signals])
    dark = dict(zip(signals, offsets[2:], strict=True))
    time = table.columns["time"]
    columns = {name: column - dark.get(name, 0.0) * time for name, column in table.columns.items()}
    elements = [columns[name] for name in signals if re.fullmatch(r"iff\d+", name)]
    if elements:
        columns["iff"] = np.sum(elements, axis=0)
    sample = " ".join(lines[1].split("  ")[0].split())
    units = {"angle": "deg"}
    table = Table(columns, units, sample=sample or None, remarks="\n".join(header))
    return Contents([table], d_spacing=float(crystal[1]))


def is_ssrl(content: bytes) -> object:
    """Whether a file begins as those of SSRL's data collector do."""
    return SSRL.match(content)


def read_ssrl(file: File) -> Contents:
    """Table of a file of SSRL, which names a column in each line after ``Data:``.

    Its offsets are subtracted already. I1 is behind the sample, I2 behind the reference foil.
    """
    header, rows = _after(list(as_lines(file.content)), "data:", file.path)
    lower = [line.strip().lower() for line in header]
    names = [line.strip() for line in header[lower.index("data:") + 1 :]] if rows else []
    if not names or len(set(names)) < len(names):
        raise SpectrumError(
            Reason.UNREADABLE, f"{file.path} is of SSRL, but names no columns after the line Data:"
        )
    table = as_table(Block(header, rows), file, names)
    spelt = {name.lower(): name for name in table.columns}
    columns: dict[str, Floats] = dict(table.columns)
    for name, theirs in SSRL_NAMES.items():
        first = next((spelt[one] for one in theirs if one in spelt), None)
        if first is not None:
            columns[name] = columns.pop(first)
    return Contents([Table(columns, {}, remarks="\n".join(header[: lower.index("data:")]))])


def _after(lines: list[str], word: str, path: Path) -> tuple[list[str], list[list[str]]]:
    """Lines of the header, and cells of the rows after a line that begins with a word."""
    begin = next((i for i, line in enumerate(lines) if line.lower().startswith(word)), len(lines))
    while begin < len(lines) and not _is_row(lines[begin]):
        begin += 1
    rows = list(takewhile(_is_row, lines[begin:]))
    if sum(map(_is_row, lines[begin + len(rows) :])) >= FEWEST_ROWS:
        raise SpectrumError(
            Reason.AMBIGUOUS_COLUMNS,
            f"{path} has a second table after line {begin + len(rows)}: are these two files?",
        )
    return lines[:begin], [line.split() for line in rows]


def _is_row(line: str) -> bool:
    cells = line.split()
    return len(cells) > 1 and bool(np.isfinite([as_number(cell) for cell in cells]).all())

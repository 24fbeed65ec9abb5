"""Lines of a text file, and the cells of a row."""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.table import unquoted
from exafsd.spectra import SpectrumError

#: signs that a line of a header begins with
COMMENT = tuple("#;!%*<@")
#: a number with a comma for its point
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
#: Fortran's double precision
DOUBLE = re.compile(r"([+-]?[\d.]+)[dD]([+-]?\d+)")


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


def cells_of(line: str, path: Path) -> tuple[list[str], str]:
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
            cells = separated(line, delimiter)
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


def separated(line: str, delimiter: str) -> list[str]:
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

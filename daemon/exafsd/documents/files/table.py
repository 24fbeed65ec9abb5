"""What a file is and holds: tables of named columns, and what its header says."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exafsd.documents.energy import unit_of
from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats

#: units of detectors' readings; other words in brackets belong to the name, as in mu (ref)
UNIT = re.compile(
    r"[munpµ]?[AVs]|amp(ere)?s?|volts?|[kM]?Hz|cps|c/s|cts|counts?/s(ec(ond)?)?|sec(ond)?s?"
    r"|ph(otons?)?/s(ec(ond)?)?|dimensionless|unitless|none|adc|ln\(.*|a\.?u\.?|arb\.?.*|K|°?C|%|-|",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class File:
    """A file to be read: its bytes, the names of its columns, where links in it may lead."""

    path: Path
    content: bytes
    adapter: Adapter
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Table:
    """Columns that belong together, and their units where they are known."""

    columns: dict[str, Floats]
    units: dict[str, str]
    #: scan, group or section of the file; empty where the file has only one table
    name: str = ""
    element: str = ""
    edge: str = ""
    sample: Any = None
    #: what stands above the columns, in which it may say how they were measured
    remarks: str = ""
    #: what the beginning of the file says of all its tables
    shared_remarks: str = ""


@dataclass(frozen=True)
class Contents:
    """Tables of a file, and what its header says of all of them."""

    tables: Sequence[Table]
    #: where dark readings, gains and the d-spacing are looked up
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: d-spacing of the monochromator crystal, angstrom, for energies that are angles
    d_spacing: float | None = None
    #: what is in the file and was not read, and why
    unread: Sequence[str] = ()


def is_unit(text: str) -> bool:
    """Whether a text is a unit of an energy or of a detector's readings, brackets or not."""
    text = text.strip(" \t()[]")
    return bool(unit_of(text) or UNIT.fullmatch(text))


def name_and_unit(cell: str) -> tuple[str, str]:
    """Name and unit of a column, ``Energy (eV)`` or ``Energy/eV``; without a unit it is empty."""
    cell = unquoted(cell).rstrip("*")
    bracketed = re.fullmatch(r"([^(\[]+)[(\[]([^()\[\]]*)[)\]]", cell)
    if bracketed and is_unit(bracketed[2]):
        return bracketed[1].rstrip(), bracketed[2]
    name, slash, unit = cell.rpartition("/")
    apart = name.endswith(" ") and is_unit(unit)  # I0 / nA
    return (name.strip(), unit.strip()) if slash and (unit_of(unit) or apart) else (cell, "")


def names_and_units(cells: Sequence[str]) -> list[tuple[str, str]]:
    """`name_and_unit` of each column; what numbers or letters ``If (A)``, ``If (B)`` is no unit."""
    stems = [re.split(r"[(\[]", unquoted(cell))[0].strip() for cell in cells]
    brackets = Counter(stem for stem, cell in zip(stems, cells, strict=True) if stem != cell)
    return [
        (re.sub(r"\W+", "_", cell).strip("_"), "") if brackets[stem] > 1 else name_and_unit(cell)
        for stem, cell in zip(stems, cells, strict=True)
    ]


def unquoted(cell: str) -> str:
    """Cell without blanks and quotes around it."""
    cell = cell.strip(" \t")
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else cell


def columns_by_role(names: Iterable[str], adapter: Adapter) -> dict[str, list[str]]:
    """Column names by role, spelt as in the file; `iff` may have several."""
    spelt = {comparable(name): name for name in reversed(list(names))}
    roles: dict[str, list[str]] = {}
    for role, keys in {"energy": adapter.energy.key, **adapter.signals}.items():
        alike = (comparable(key) for key in keys)
        present = list(dict.fromkeys(spelt[key] for key in alike if key in spelt))
        if present:
            roles[role] = present if role == "iff" else present[:1]
    return roles


def comparable(name: str) -> str:
    """Name without case, signs and unit; the prime of a derivative is no such sign."""
    name = re.sub(r"['\u2032\u2019]$", "_prime", name_and_unit(name)[0].lower())
    return re.sub(r"\W+", "_", name).strip("_")

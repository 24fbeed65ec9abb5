"""What a file holds: tables of named columns, and what its header says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats


@dataclass(frozen=True)
class Table:
    """Columns that belong together, and their units where they are known."""

    columns: dict[str, Floats]
    units: dict[str, str]


@dataclass(frozen=True)
class Contents:
    """Tables of a file, and what its header says of all of them."""

    tables: Sequence[Table]
    element: str = ""
    edge: str = ""
    sample: Any = None
    #: where dark readings and gains are looked up
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


def columns_by_role(names: Iterable[str], adapter: Adapter) -> dict[str, list[str]]:
    """Column names by role, spelt as in the file; `iff` may have several."""
    lower = {name.lower(): name for name in reversed(list(names))}
    found: dict[str, list[str]] = {}
    for role, wanted in {"energy": adapter.energy.key, **adapter.signals}.items():
        present = [lower[name.lower()] for name in wanted if name.lower() in lower]
        if present:
            found[role] = present if role == "iff" else present[:1]
    return found

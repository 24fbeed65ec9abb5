"""A table in a text file before its columns have names."""

from collections import Counter
from dataclasses import dataclass, field


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

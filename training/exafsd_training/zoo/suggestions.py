"""Crystals that a model could be made of, for every element: what the daemon names where none is.

``python -m exafsd_training.zoo.suggestions`` writes the table that the daemon ships.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import exafsd.inference

#: The daemon's copy.
TABLE = Path(exafsd.inference.__file__).with_name("crystals.json")
#: Elements with an edge that is measured in transmission or fluorescence in air, by number.
ELEMENTS = range(19, 93)
#: What an element is combined with, in the order of preference; nothing: the element itself.
PARTNERS = (
    (), ("O",), ("C", "O"), ("S",), ("O", "S"), ("O", "Ti"), ("O", "Si"), ("O", "P"), ("Se",),
)  # fmt: skip
#: Crystals of each element.
MOST = 4


def suggestions() -> dict[str, list[tuple[str, int]]]:
    """Formula and AMCSD number of up to `MOST` crystals of each element, simple ones first.

    Of each set of elements the first entry is taken whose formula has whole numbers, so that no
    site is partly occupied by its formula.
    """
    import larixite
    from xraydb import atomic_symbol

    by_elements: dict[frozenset[str], tuple[str, int]] = {}
    file = Path(larixite.__file__).with_name("amcsd_cif1.db")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    for number, formula in connection.execute("select id, formula from cif order by id"):
        if formula and not re.search(r"[^A-Za-z0-9 ]", formula):
            elements = frozenset(re.findall("[A-Z][a-z]?", formula))
            by_elements.setdefault(elements, (formula.replace(" ", ""), number))
    connection.close()

    def of(element: str) -> Iterator[tuple[str, int]]:
        for partners in PARTNERS:
            entry = by_elements.get(frozenset((element, *partners)))
            if entry and element not in partners:
                yield entry

    table = {atomic_symbol(z): list(of(atomic_symbol(z)))[:MOST] for z in ELEMENTS}
    return {element: entries for element, entries in table.items() if entries}


def written() -> str:
    """The table as it is kept: a line for each element."""
    lines = (f'"{element}": {json.dumps(entries)}' for element, entries in suggestions().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(written())

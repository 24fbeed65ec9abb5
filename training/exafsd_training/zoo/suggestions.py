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
#: Atoms of a formula of three elements at most: larger ones are clusters, as W12PO40.
MOST_ATOMS = 30
#: What the database has in the place of occupancies where all are 1.
ALL_FULL = "0"
#: Crystals of each element.
MOST = 4


def suggestions() -> dict[str, list[tuple[str, int]]]:
    """Formula and AMCSD number of up to `MOST` crystals of each element, simple ones first.

    Of each set of elements the first entry is taken whose formula has whole numbers and that has no
    partly occupied site. One of three elements or more whose charges do not balance is left out:
    its hydrogens are not in it, as in KHCO3.
    """
    import larixite
    from pymatgen.core import Composition
    from xraydb import atomic_symbol

    symbols = [atomic_symbol(z) for z in ELEMENTS]
    asked = {frozenset((symbol, *partners)) for symbol in symbols for partners in PARTNERS}
    by_elements: dict[frozenset[str], tuple[str, int]] = {}
    file = Path(larixite.__file__).with_name("amcsd_cif1.db")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    entries = "select id, formula, atoms_occupancy from cif order by id"
    for number, formula, occupancy in connection.execute(entries):
        if not formula or re.search(r"[^A-Za-z0-9 ]", formula) or occupancy != ALL_FULL:
            continue
        elements = frozenset(re.findall("[A-Z][a-z]?", formula))
        if elements in by_elements or elements not in asked:
            continue
        composition = Composition(formula)
        large = composition.num_atoms > MOST_ATOMS
        if len(elements) < 3 or (not large and composition.oxi_state_guesses()):
            by_elements[elements] = composition.reduced_formula, number
    connection.close()

    def of(element: str) -> Iterator[tuple[str, int]]:
        for partners in PARTNERS:
            entry = by_elements.get(frozenset((element, *partners)))
            if entry and element not in partners:
                yield entry

    table = {symbol: list(of(symbol))[:MOST] for symbol in symbols}
    return {element: entries for element, entries in table.items() if entries}


def written() -> str:
    """The table as it is kept: a line for each element."""
    lines = (f'"{element}": {json.dumps(entries)}' for element, entries in suggestions().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(written())

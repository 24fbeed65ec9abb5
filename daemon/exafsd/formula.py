"""Chemical formulas: names of phases and of references."""

from functools import lru_cache


@lru_cache(maxsize=1024)
def compound(name: str) -> str | frozenset[tuple[str, float]]:
    """What two names of one compound have in common: the atoms of its formula.

    ``Ni(OH)2`` is the same as ``Ni(O2H2)`` of a structure file and ``NiO2H2`` of a file's name. A
    name that is no formula is only the same as itself.
    """
    from xraydb import chemparse  # what only reads cards does without scipy

    try:
        return frozenset(chemparse(name.replace(" ", "")).items())
    except ValueError:
        return name

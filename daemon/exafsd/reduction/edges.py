"""Elements and edges: tabulated energies, and a guess where the metadata are silent."""

from contextlib import suppress
from functools import lru_cache

import xraydb

from exafsd.contract.vocabulary import Reason
from exafsd.spectra import Edge, SpectrumError

#: Found E0 may be this far from the tabulated edge, eV: oxidation shifts up to 15 eV, and
#: monochromators are off by a few. Neighbouring K edges are 300 eV and more apart, L2 and L3
#: of one element 15 eV and more.
EDGE_TOLERANCE = 30.0
#: eV below and above a tabulated edge where E0 is likely: farther off, the monochromator would
#: have to be off by more than any oxidation state makes up for
LIKELY = (-15.0, 18.0)
#: Edges that EXAFS is measured at.
USUAL_EDGES = ("K", "L3", "L2", "L1")


@lru_cache(maxsize=512)
def edge_energy(element: str, edge: str) -> float:
    """Tabulated energy of an edge in eV (xraydb: Elam, Ravel and Sieber 2002).

    Raises
    ------
    SpectrumError
        ``unknown_element`` if there is no such element or edge.
    """
    tabulated = None
    with suppress(ValueError):
        tabulated = xraydb.xray_edge(element, edge)
    if tabulated is None:
        raise SpectrumError(
            Reason.UNKNOWN_ELEMENT,
            f"{element!r} {edge!r} is not an absorption edge; give element and edge in the run's"
            ' metadata or the file, for example "Cu" and "K"',
        )
    return float(tabulated.energy)


def candidates(element: str, low: float, high: float) -> list[Edge]:
    """Edges of an element between two energies in eV."""
    return [
        Edge(element, edge) for edge in USUAL_EDGES if low < energy_or_zero(element, edge) < high
    ]


def energy_or_zero(element: str, edge: str) -> float:
    """Tabulated energy in eV, 0 where there is no such edge."""
    try:
        return edge_energy(element, edge)
    except SpectrumError:
        return 0.0


def guess(e0: float, edge: str = "") -> Edge:
    """The edge at a measured E0 in eV, where only one can be meant; `edge`: K, L3, ... if known.

    Raises
    ------
    SpectrumError
        ``unknown_element`` if no edge is near, or several are.
    """
    near = {
        named: e0 - energy
        for named, energy in _all_edges()
        if abs(e0 - energy) <= EDGE_TOLERANCE and edge in ("", named.edge)
    }
    # nobody measures EXAFS at L1 where the same element has L3
    near = {named: off for named, off in near.items() if named.edge != "L1"} or near
    likely = [named for named, off in near.items() if LIKELY[0] <= off <= LIKELY[1]]
    if len(likely) == 1 or len(near) == 1:
        return (likely or list(near))[0]
    if not near:
        raise SpectrumError(
            Reason.UNKNOWN_ELEMENT,
            f"no element is named and none has an edge near {e0:.0f} eV; give element and edge",
        )
    names = " or ".join(
        f"{named.element} {named.edge} ({e0 - off:.0f} eV)" for named, off in near.items()
    )
    raise SpectrumError(
        Reason.UNKNOWN_ELEMENT,
        f"no element is named, and the edge at {e0:.0f} eV may be {names}; give element and edge",
    )


@lru_cache(maxsize=1)
def _all_edges() -> list[tuple[Edge, float]]:
    """Edges of all elements and their tabulated energies in eV; those measured most come first."""
    elements = [xraydb.atomic_symbol(number) for number in range(1, 93)]
    return [
        (Edge(element, edge), energy)
        for edge in USUAL_EDGES
        for element in elements
        if (energy := energy_or_zero(element, edge))
    ]

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
    found = None
    with suppress(ValueError):
        found = xraydb.xray_edge(element, edge)
    if found is None:
        raise SpectrumError(
            Reason.UNKNOWN_ELEMENT,
            f"{element!r} {edge!r} is not an absorption edge; give element and edge in the run's"
            ' metadata or the file, for example "Cu" and "K"',
        )
    return float(found.energy)


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


def guess(e0: float) -> Edge:
    """Most likely edge at a measured E0 in eV.

    Raises
    ------
    SpectrumError
        ``unknown_element`` if no edge is near.
    """
    element, edge = xraydb.guess_edge(e0, edges=list(USUAL_EDGES))
    if element is None or edge is None or abs(edge_energy(element, edge) - e0) > EDGE_TOLERANCE:
        raise SpectrumError(
            Reason.UNKNOWN_ELEMENT,
            f"no element is named and none has an edge near {e0:.0f} eV; give element and edge",
        )
    return Edge(element, edge)

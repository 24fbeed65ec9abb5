"""E0 of a spectrum from the near edges of the materials it may be of, which noise does not move.

Which of two places of a rising edge is the steeper, Larch's rule, is a toss of a coin in CuO: 6 eV
and a fifth of N. The middle of the edge is one place, and measured spectra of a material say how
far E0 is from it.
"""

from collections.abc import Sequence

from exafsd.contract.card import Card
from exafsd.inference.near_edge import Comparison, profile
from exafsd.reduction.edge_middle import edge_middles, rise
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import Floats

#: E0 is a multiple of this, eV: what remains is a shift that is fitted, and sweeps of one sample
#: are reduced alike.
STEP = 0.25


class Placement:
    """Places E0 of one edge.

    Parameters
    ----------
    cards
        Of the models that may read its spectra.

    Attributes
    ----------
    edge
        Tabulated energy of the edge, eV; 0 where no material is known.
    """

    def __init__(self, cards: Sequence[Card]) -> None:
        placed = [card for card in cards if card.edge_position is not None]
        self.edge = edge_energy(placed[0].absorber, placed[0].edge) if placed else 0.0
        self._materials = [
            (
                card.edge_position.e0,
                Comparison(card.thresholds.near_edge, self.edge)
                if card.thresholds.near_edge
                else None,
            )
            for card in placed
            if card.edge_position is not None
        ]

    def __call__(self, energy: Floats, mu: Floats) -> float | None:
        """E0 in eV of mu(E), (n,) each; None where no material is known or the edge is not seen."""
        return self.place(energy, mu, self.middles(energy, mu[None])[0])

    def middles(self, energy: Floats, mus: Floats) -> list[float | None]:
        """`edge_middle` of spectra (b, n) on one grid; None where no material is known."""
        if not self._materials:
            return [None] * len(mus)
        return edge_middles(energy, mus, self.edge)

    def place(self, energy: Floats, mu: Floats, middle: float | None) -> float | None:
        """E0 in eV of a spectrum of which the middle of the edge is known."""
        if middle is None:
            return None
        offset = self._materials[0][0]
        if len(self._materials) > 1:
            offset = self._likest(energy, mu, middle)
        return round((middle + offset) / STEP) * STEP

    def _likest(self, energy: Floats, mu: Floats, middle: float) -> float:
        """Offset of the material whose near edge is most like a spectrum's."""
        here = rise(energy, mu, self.edge)
        shape = None if here is None else profile(energy, here, middle)
        if shape is None:
            return self._materials[0][0]
        return min(
            (compare.difference(*shape), offset)
            for offset, compare in self._materials
            if compare is not None
        )[1]

"""The near edge of measured spectra of a material, for its card."""

from collections.abc import Sequence

import numpy as np

from exafsd.contract.card import NearEdge
from exafsd.inference.near_edge import Comparison, profile
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import ReducedSpectrum
from exafsd_training.studies.poor_fit import MARGIN

#: Largest difference between measured spectra of one material from two beamlines that is known, of
#: the edge step: CdS at 10 K and at room temperature. Foils of copper and iron differ by half of
#: that.
KNOWN = 0.014


def usual_near_edge(
    spectra: Sequence[ReducedSpectrum],
    absorber: str,
    edge: str,
    earlier: Sequence[float] | None = None,
) -> NearEdge | None:
    """Mean profile of measured spectra, and how far others may be from it.

    None where no spectrum has a near edge and none is known.

    Parameters
    ----------
    spectra
        Of the material, nothing else in them.
    absorber, edge
        For example ``Cu`` and ``K``.
    earlier
        (51,) profile to take where none of the spectra has one.
    """
    measured = [profile(s.energy, s.norm, s.e0) for s in spectra]
    profiles = [one for one in measured if one is not None]
    if not profiles and earlier is None:
        return None
    mean = np.mean([one for one, _ in profiles], axis=0) if profiles else np.asarray(earlier)
    usual = NearEdge(profile=tuple(mean.round(4).tolist()), limit=MARGIN * KNOWN)
    compare = Comparison(usual, edge_energy(absorber, edge))
    largest = max((compare.difference(*one) for one in profiles), default=0.0)
    return usual.model_copy(update={"limit": round(MARGIN * max(largest, KNOWN), 4)})

"""The shape of the near edge beside that of measured spectra of a model's material.

A second phase shows in the XANES before it shows in the EXAFS: what another neighbour does to the
white line is many times what it does to chi(k), and no theory is needed to see it, only a measured
spectrum of the material. What beamlines and temperatures do to one and the same sample is allowed
for: pre-edge line and edge step, energy scale, resolution, and the damping by heat.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from exafsd.contract.card import NEAR_EDGE, NEAR_EDGE_BINS, NEAR_EDGE_STEP, NearEdge
from exafsd.spectra import Floats

#: Centres of the bins of a profile, eV from where mu has risen by half the edge step.
CENTRES = np.linspace(*NEAR_EDGE, NEAR_EDGE_BINS)
#: The same without the ends, which a broader profile would need more of.
COMPARED = np.abs(CENTRES - CENTRES.mean()) <= np.ptp(CENTRES) / 2 - 10.0
#: Where half the edge step is looked for, eV from E0, in means over so many eV.
NEAR_E0, MEAN = np.arange(-40.0, 40.0, 0.5), 5.0
#: Coarser scans are not judged, eV; below so much less than half the edge step mu is straight.
COARSEST, STRAIGHT = 3.0, 10.0
#: Standard deviation of the broadest difference in resolution, of the edge's energy: CdS at 27 keV
#: from two beamlines differs by 5.5 eV.
RESOLUTION = 2.5e-4
#: Widths that are tried, half of them on the spectrum and half on the reference.
WIDTHS = 15
#: Standard deviation over which differences are averaged, in bins, and the bins that this joins.
AVERAGED = 1.0
JOINED = 2 * np.pi**0.5 * AVERAGED
#: Standard deviations of noise that are no difference.
SIGMAS = 3.0
#: Standard deviation of white noise, of the median of its third differences' absolute values:
#: these have a variance of 20.
NOISE = 1 / (0.6745 * 20**0.5)


def profile(energy: Floats, norm: Floats, e0: float) -> tuple[Floats, float] | None:
    """Means of normalised mu in bins about the energy of half the edge step.

    Parameters
    ----------
    energy, norm
        (n,) eV, ascending, and normalised mu.
    e0
        Of the edge, eV.

    Returns
    -------
    profile, noise
        (51,) and the standard deviation that noise gives a bin, at most; None where the scan is
        too coarse or too short to tell.
    """
    # all that the profile, wherever half the step is, and its noise need
    here = slice(*np.searchsorted(energy, (e0 - 100.0, e0 + 400.0)))
    energy, norm = energy[here], norm[here]
    if len(energy) < 10:
        return None
    total = np.zeros(len(energy))
    np.cumsum(0.5 * (norm[1:] + norm[:-1]) * np.diff(energy), out=total[1:])
    half = _half(energy, total, e0)
    if half is None:
        return None
    bounds = half + np.append(CENTRES, CENTRES[-1] + NEAR_EDGE_STEP) - NEAR_EDGE_STEP / 2
    first, rise, last = np.searchsorted(energy, [bounds[0], half - STRAIGHT, bounds[-1]])
    if first == 0 or last == len(energy):
        return None
    coarsest = float(np.diff(energy[rise : last + 1]).max())
    if coarsest > COARSEST:
        return None
    means = np.diff(np.interp(bounds, energy, total)) / NEAR_EDGE_STEP
    # beyond the near edge, where mu bends slowly
    rough = np.sort(np.abs(np.diff(norm[last:], 3)))
    noise = NOISE * float(rough[len(rough) // 2]) if len(rough) else 0.0
    return means, noise * (coarsest / NEAR_EDGE_STEP) ** 0.5


def _half(energy: Floats, total: Floats, e0: float) -> float | None:
    """Where mu first is half the edge step, in means that noise does not move."""
    at = e0 + NEAR_E0
    means = np.interp(at + MEAN / 2, energy, total) - np.interp(at - MEAN / 2, energy, total)
    means /= MEAN
    above = int(np.argmax(means > 0.5))
    if above == 0:
        return None
    part = (0.5 - means[above - 1]) / (means[above] - means[above - 1])
    return float(at[above - 1] + part * (at[above] - at[above - 1]))


class Comparison:
    """Near edges beside that of measured spectra of a material.

    Parameters
    ----------
    usual
        Of the material.
    edge
        Energy of the edge, eV.
    """

    def __init__(self, usual: NearEdge, edge: float) -> None:
        reference, widest = np.array(usual.profile), RESOLUTION * edge / NEAR_EDGE_STEP
        self._limit = usual.limit
        # one matrix: a product with a stack of them takes ten times as long
        self._left = np.concatenate(
            [_left(reference, width) for width in np.linspace(-widest, widest, WIDTHS)]
        )

    def differs(self, energy: Floats, norm: Floats, e0: float) -> bool:
        """Whether a spectrum (as for `profile`) has another near edge; False if it is short."""
        measured = profile(energy, norm, e0)
        return measured is not None and self.difference(*measured) > self._limit

    def difference(self, shape: Floats, noise: float) -> float:
        """Largest difference, of the edge step, that nothing explains.

        Parameters
        ----------
        shape, noise
            As from `profile`.
        """
        left = (self._left @ shape).reshape(WIDTHS, -1)
        least = left[np.argmin(np.sum(left**2, axis=1))]
        return max(float(np.abs(least).max()) - SIGMAS * noise / JOINED**0.5, 0.0)


def _left(reference: Floats, width: float) -> Floats:
    """What is left of a profile, as a matrix, when scale, offset, shift and damping are fitted.

    A positive `width`, in bins, broadens the reference, a negative one the profile.
    """
    one = np.eye(len(reference))
    broader = gaussian_filter1d(one, abs(width), axis=0, mode="nearest") if width else one
    like, of = (broader @ reference, one) if width > 0 else (reference, broader)
    # mean-square displacements take from mu - 1 in proportion to k^2
    damped = np.maximum(CENTRES, 0.0) * (like - 1.0)
    free = np.stack([like, np.ones_like(like), np.gradient(like), damped], axis=1)[COMPARED]
    rest = np.eye(len(free)) - free @ np.linalg.pinv(free)
    return gaussian_filter1d(rest, AVERAGED, axis=0, mode="nearest") @ of[COMPARED]

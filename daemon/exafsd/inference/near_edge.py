"""The shape of the near edge beside that of measured spectra of a model's material.

A second phase shows in the XANES before it shows in the EXAFS: what another neighbour does to the
white line is many times what it does to chi(k), and no theory is needed to see it, only a measured
spectrum of the material. What beamlines and temperatures do to one and the same sample is allowed
for: pre-edge line and edge step, energy scale, resolution, and the damping by heat.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from exafsd.contract.card import NEAR_EDGE, NEAR_EDGE_BINS, NEAR_EDGE_STEP, NearEdge
from exafsd.reduction.edge_middle import GRIDS, Between
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
#: Ends of the bins, eV from where mu has risen by half.
BOUNDS = np.append(CENTRES, CENTRES[-1] + NEAR_EDGE_STEP) - NEAR_EDGE_STEP / 2


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
    return profiles(energy, norm[None], e0)[0]


def profiles(energy: Floats, norms: Floats, e0: float) -> list[tuple[Floats, float] | None]:
    """The same of spectra (b, n) on one grid and with one E0."""
    measured: list[tuple[Floats, float] | None] = [None] * len(norms)
    layout = _layout(energy.tobytes(), e0)
    if layout is None:
        return measured
    energy, steps, norms = layout.energy, layout.steps, norms[:, layout.here]
    total = np.zeros(norms.shape)
    np.cumsum(0.5 * (norms[:, 1:] + norms[:, :-1]) * steps, axis=1, out=total[:, 1:])
    rough = np.abs(norms[:, 3:] - 3 * norms[:, 2:-1] + 3 * norms[:, 1:-2] - norms[:, :-3])
    for i, half in enumerate(_halves(layout, total, e0)):
        if half is None:
            continue
        bounds = half + BOUNDS
        ends = energy.searchsorted((bounds[0], half - STRAIGHT, bounds[-1]))
        first, rise, last = ends.tolist()
        if first == 0 or last == len(energy):
            continue
        coarsest = float(steps[rise:last].max())
        if coarsest > COARSEST:
            continue
        sums = np.interp(bounds, energy, total[i])
        # beyond the near edge, where mu bends slowly
        beyond = rough[i, last:]
        middle = len(beyond) // 2
        noise = NOISE * float(np.partition(beyond, middle)[middle]) if len(beyond) else 0.0
        means = (sums[1:] - sums[:-1]) / NEAR_EDGE_STEP
        measured[i] = means, noise * (coarsest / NEAR_EDGE_STEP) ** 0.5
    return measured


class _Layout(NamedTuple):
    """The part of a grid that a profile and its noise need, and the means at `NEAR_E0`."""

    here: slice
    energy: Floats
    steps: Floats
    between: Between


@lru_cache(maxsize=GRIDS)
def _layout(grid: bytes, e0: float) -> _Layout | None:
    energy = np.frombuffer(grid)
    # wherever half the step is
    here = slice(*energy.searchsorted((e0 - 100.0, e0 + 400.0)).tolist())
    energy = energy[here]
    if len(energy) < 10:
        return None
    at = e0 + NEAR_E0
    between = Between(energy, np.concatenate([at - MEAN / 2, at + MEAN / 2]))
    return _Layout(here, energy, energy[1:] - energy[:-1], between)


def _halves(layout: _Layout, total: Floats, e0: float) -> Iterator[float | None]:
    """Where mu first is half the edge step, in means that noise does not move."""
    sums = layout.between(total)
    means = (sums[:, len(NEAR_E0) :] - sums[:, : len(NEAR_E0)]) / MEAN
    for row, above in zip(means, (means > 0.5).argmax(axis=1).tolist(), strict=True):
        if above == 0:
            yield None
            continue
        low, high = row[above - 1 : above + 1].tolist()
        begin, end = (e0 + NEAR_E0[above - 1 : above + 1]).tolist()
        yield begin + (0.5 - low) / (high - low) * (end - begin)


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

    def differ(self, energy: Floats, norms: Floats, e0: float) -> list[bool]:
        """Whether spectra (b, n) on one grid have another near edge; False where it is short."""
        measured = profiles(energy, norms, e0)
        places = [i for i, one in enumerate(measured) if one is not None]
        differences = self._differences([one for one in measured if one is not None])
        another = dict(zip(places, differences, strict=True))
        return [another.get(i, 0.0) > self._limit for i in range(len(norms))]

    def differs(self, energy: Floats, norm: Floats, e0: float) -> bool:
        """The same of one spectrum, (n,) as for `profile`."""
        return self.differ(energy, norm[None], e0)[0]

    def difference(self, shape: Floats, noise: float) -> float:
        """Largest difference, of the edge step, that nothing explains.

        Parameters
        ----------
        shape, noise
            As from `profile`.
        """
        return self._differences([(shape, noise)])[0]

    def _differences(self, measured: Sequence[tuple[Floats, float]]) -> list[float]:
        if not measured:
            return []
        shapes = np.array([shape for shape, _ in measured])
        left = (shapes @ self._left.T).reshape(len(shapes), WIDTHS, -1)
        best = np.argmin(np.einsum("ijk,ijk->ij", left, left), axis=1)
        largest = np.abs(left[np.arange(len(shapes)), best]).max(axis=1).tolist()
        noises = (noise for _, noise in measured)
        return [
            max(one - SIGMAS * noise / JOINED**0.5, 0.0)
            for one, noise in zip(largest, noises, strict=True)
        ]


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

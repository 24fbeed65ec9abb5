"""Spectra that stand out from the running series of their run."""

from collections import deque

import numpy as np

from exafsd.spectra import Floats

#: spectra before anything can stand out
ENOUGH = 8
#: weight of a new spectrum in the running mean; after so many of them a change is half forgotten
WEIGHT = 1 / 8
#: differences from which the usual one is taken
REMEMBERED = 33
#: so many odd spectra in a row that are alike are a change of the sample, and accepted
LASTING = 3
#: so many odd ones in a row are what the series is now, even if no two are alike
HOPELESS = 8
#: usual difference at least, in units of the edge step: less is rounding
ROUNDING = 1e-5


class Series:
    """Running mean of normalised spectra on one grid, and how far they usually are from it.

    A drifting sample keeps a steady distance from the mean behind it, which becomes the usual one.

    Parameters
    ----------
    limit
        A spectrum stands out if its difference (root mean square) to the running mean is this many
        times the median of the last ones.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._distances: deque[float] = deque(maxlen=REMEMBERED)
        self._begin(np.empty(0))

    def check(self, norm: Floats) -> bool:
        """Whether a spectrum (n,) stands out; if not, it becomes part of the series."""
        if norm.shape != self._mean.shape:
            self._begin(norm)
        distance = _distance(norm, self._mean)
        if self._seen >= ENOUGH:
            ordered = sorted(self._distances)
            border = self._limit * max(ordered[len(ordered) // 2], ROUNDING)
            if distance > border:
                self._remember(norm, border)
                return True
        if self._seen:
            self._distances.append(distance)
        self._seen += 1
        self._mean += max(WEIGHT, 1 / self._seen) * (norm - self._mean)
        self._odd, self._alike, self._in_row = None, 0, 0
        return False

    def _begin(self, norm: Floats) -> None:
        """Begin a new series with a spectrum."""
        self._distances.clear()
        self._seen = 0
        self._move(norm)

    def _move(self, norm: Floats) -> None:
        """Go on from another spectrum; what is usual remains."""
        self._mean = norm.copy()
        self._odd: Floats | None = None
        self._alike = self._in_row = 0

    def _remember(self, norm: Floats, border: float) -> None:
        """Keep an odd spectrum, and follow it if it is one of several."""
        like_last = self._odd is not None and _distance(norm, self._odd) <= border
        self._alike = self._alike + 1 if like_last else 1
        self._in_row += 1
        self._odd = norm
        if self._alike >= LASTING:
            self._move(norm)
        elif self._in_row >= HOPELESS:
            self._begin(norm)


def _distance(one: Floats, other: Floats) -> float:
    away = one - other
    return float(np.sqrt(away @ away / max(len(away), 1)))

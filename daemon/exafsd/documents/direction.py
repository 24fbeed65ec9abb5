"""Which way a sweep went and how far, of energies that may be noisy."""

import numpy as np

from exafsd.contract.messages import Direction
from exafsd.spectra import Floats


def direction(energy: Floats) -> Direction | None:
    """Way of a sweep, by its trend: the first and last reading of an encoder may be noise."""
    if energy.ndim != 1 or len(energy) < 2:
        return None
    index = np.arange(len(energy)) - (len(energy) - 1) / 2
    with np.errstate(all="ignore"):
        trend = float(np.dot(index, energy - energy[0]))
        if not np.isfinite(trend):
            good = np.isfinite(energy)
            if not good.any():
                return None
            trend = float(np.dot(index[good], energy[good] - energy[good].mean()))
    return "down" if trend < 0 else "up"


def span_of(energy: Floats) -> float:
    """Range of the energies of a sweep, eV, without the outermost hundredths: they may be noise."""
    good = energy[np.isfinite(energy)]
    if len(good) == 0:
        return 0.0
    low, high = np.percentile(good, (1, 99))
    return float(high - low)

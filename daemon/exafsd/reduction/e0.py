"""Edge position by Larch's `find_e0`, point for point, without its loops in Python."""

import numpy as np

from exafsd.spectra import Floats

#: points about the steepest one among which the smoothed derivative is searched
NEAR = 75
#: share of points at each end that cannot be the edge
MARGIN = 0.02
#: share of points at the start where the steepest one is taken for a glitch
GLITCH = 0.05
#: steps that are added at each end for smoothing
PAD = 5


def find_e0(energy: Floats, mu: Floats) -> float:
    """E0 in eV: the point of steepest rise of the smoothed mu.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending, at least 1 meV apart; finite. The result is that of
        `larch.xafs.find_e0` (xraylarch 2026.3), which looks at all points but the last.
    """
    n = len(energy)
    at = _steepest(_slope(energy[:-1], mu[:-1]))
    first, start, stop = float(energy[at]), max(3, at - NEAR), min(at + NEAR, n - 3)
    if at < GLITCH * n:
        first, start, stop = float(energy.mean()), max(3, at - 20), n - 3
    # half the scan's own finest step and half a usual one (0.2 eV at 5 keV)
    step = 0.5 * (_clipped(_finest_step(energy[:-1])) + _clipped(first / 25000.0))
    near, inside = energy[start : stop - 1], mu[start : stop - 1]
    steepest = _steepest(_smoothed(near, _slope(near, inside), step))
    return float(near[steepest]) if steepest >= 1 else float(energy[start + 2])


def _smoothed(x: Floats, y: Floats, step: float) -> Floats:
    """Larch's `smooth`, without importing Larch: y (n,) convolved with a Lorentzian `step` wide."""
    first, last = (step * int(end / step) for end in (x[0] - PAD * step, x[-1] + PAD * step))
    n = min(1 + int(abs(last - first + step * 0.1) / step), 50 * len(x))
    even = np.linspace(first, last, n)
    values = np.interp(even, x, y)
    width = step * (1.0 / step)  # 1 but for rounding
    weight = (1.0 / (1 + ((1.0 * np.arange(2 * n) - n) / width) ** 2)) / (np.pi * width)
    mirrored = np.concatenate((values[n:0:-1], values, values[-1 : -n - 1 : -1]))
    smooth = np.convolve(weight / weight.sum(), mirrored, mode="valid")
    return np.interp(x, even, smooth[int((len(smooth) - n) / 2) :][:n])


def _slope(energy: Floats, mu: Floats) -> Floats:
    return np.gradient(mu) / np.gradient(energy)


def _clipped(step: float) -> float:
    return max(0.01, min(1.0, step))


def _finest_step(energy: Floats) -> float:
    """Larch's `find_energy_step`: mean of the ten finest steps but for the very finest, eV."""
    skip = int(0.01 * len(energy))
    if skip == 0:  # Larch finds no step in short scans and takes its upper limit
        return np.inf
    steps = np.sort(np.diff(energy[:-1][skip:-skip]))
    return float(steps[skip : skip + 10].mean())


def _steepest(slope: Floats) -> int:
    """Index of the highest slope whose neighbours are high, too; 0 where there is none."""
    n = len(slope)
    slope = np.where(np.isfinite(slope), slope, -1.0)
    edge = max(3, int(n * MARGIN))
    inside = slope[edge:-edge]
    slope = (slope - inside.min()) / max(1e-10, np.ptp(inside))
    share = 0.60 if n > 20 else 0.30
    high = slope > share
    if high.sum() < 3:
        for _ in range(2):
            if high.sum() > 3:
                break
            share *= 0.5
            high = slope > share
    if high.sum() < 3:
        high = np.ones(n, bool)
    between = np.zeros(n, bool)
    between[1:-1] = high[1:-1] & high[:-2] & high[2:]
    between[:edge] = between[n - edge + 1 :] = False
    steepness = np.where(between & (slope > 0), slope, -np.inf)
    best = int(steepness.argmax())
    return best if steepness[best] > 0 else 0

"""Windows of Fourier transforms: Larch's `ftwindow`, to the last digit, without importing Larch."""

import numpy as np
from scipy.special import i0

from exafsd.contract.grid import K_STEP
from exafsd.spectra import Floats

#: share of a step by which Larch moves points before it rounds them
TINY = 1e-4


def window(size: int, kmin: float, kmax: float, dk: float, name: str) -> Floats:
    """Window (size,) on a grid from k = 0 in steps of 0.05 1/angstrom.

    Parameters
    ----------
    size
        Points of the grid, at least 2.
    kmin, kmax, dk
        Where it rises and falls, and the width of both, 1/angstrom.
    name
        One of `exafsd.contract.recipe.Window`.

    Returns
    -------
    Floats
        What `larch.xafs.xafsft.ftwindow` (xraylarch 2026.3) gives, whose order of operations this
        keeps.
    """
    k = K_STEP * np.arange(size, dtype=np.float64)
    step = k[-1] / (size - 1)
    tiny = TINY * step

    def place(at: float) -> int:
        return int((at + tiny) / step)

    begin = max(0, place(max(0.0, kmin - dk / 2.0)))
    full = max(0, place(kmin + dk / 2.0 + tiny))
    falls = min(size - 1, place(kmax - dk / 2.0 - tiny))
    end = min(size - 1, place(min(k[-1], kmax + dk / 2.0)))
    if full == begin:
        begin = max(0, full - 1)
    if end == falls:
        falls = max(full, end - 1)
    k1, k2, k3, k4 = k[[begin, full, falls, end]]
    k2 = k2 + tiny if k1 == k2 else k2
    k4 = k4 + tiny if k3 == k4 else k4
    if name == "gaussian":
        return np.exp(-(((k - (k4 + k1) / 2) ** 2) / (2 * max(dk, tiny) * max(dk, tiny))))
    if name == "kaiser":
        inside = 1 - (k - (k4 + k1) / 2) ** 2 / ((k4 - k1) / 2) ** 2
        inside[inside < 0] = 0
        return (i0(dk * np.sqrt(inside)) - 1) / max(1e-10, i0(dk) - 1)
    values = np.zeros(size)
    if name == "sine":
        values[begin : end + 1] = np.sin(np.pi * (k4 - k[begin : end + 1]) / (k4 - k1))
        return values
    if falls > full:
        values[full:falls] = 1.0
    rise, fall = slice(begin, full + 1), slice(falls, end + 1)
    up, down = k[rise] - k1, k[fall] - k3
    if name == "hanning":
        values[rise] = np.sin((np.pi / 2) * up / (k2 - k1)) ** 2
        values[fall] = np.cos((np.pi / 2) * down / (k4 - k3)) ** 2
    elif name == "parzen":
        values[rise] = up / (k2 - k1)
        values[fall] = 1 - down / (k4 - k3)
    else:  # welch
        values[rise] = 1 - ((k[rise] - k2) / (k2 - k1)) ** 2
        values[fall] = 1 - (down / (k4 - k3)) ** 2
    return values

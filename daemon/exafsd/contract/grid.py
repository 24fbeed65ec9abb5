"""The k grid that daemon, training and export share."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Spacing in 1/angstrom: Larch's own default ``kstep``, fine enough for R up to 31 angstrom.
K_STEP = 0.05
#: 0 ... 20 1/angstrom; the longest quick-XAFS scans end near 18.
K_SIZE = 401
#: (401,) float64, 1/angstrom. A constant: never written to.
K_GRID: NDArray[np.float64] = np.arange(K_SIZE, dtype=np.float64) * K_STEP
K_GRID.setflags(write=False)
#: 2 m_e / hbar^2 in 1/(eV angstrom^2), CODATA 2018; k^2 = ETOK (E - E0). The value Larch uses.
ETOK = 0.26246842396479836


def to_grid(
    k: ArrayLike, chi: ArrayLike, k_min: float, k_max: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Put a spectrum on the contract grid, k^2-weighted.

    Parameters
    ----------
    k, chi
        (n,) photoelectron wavenumber in 1/angstrom, ascending, and chi(k), no unit.
    k_min, k_max
        Range in 1/angstrom inside which the spectrum is to be believed.

    Returns
    -------
    chi_k2, mask
        (401,) float32 k^2 chi(k) in 1/angstrom^2, zero where masked, and (401,) float32 0 or 1.
    """
    k = np.asarray(k, dtype=float)
    mask = grid_mask(k_min, min(k_max, float(k[-1]))).astype(bool)
    chi_k2 = np.where(mask, K_GRID**2 * np.interp(K_GRID, k, np.asarray(chi, dtype=float)), 0.0)
    return chi_k2.astype(np.float32), mask.astype(np.float32)


@lru_cache(maxsize=256)
def grid_mask(k_min: float, k_max: float) -> NDArray[np.float32]:
    """(401,) 1 where a spectrum known between two k is to be believed; never written to."""
    # half a step of tolerance, or rounding of k would drop the last point of a range
    mask = (k_min - K_STEP / 2 <= K_GRID) & (k_max + K_STEP / 2 >= K_GRID)
    weights = mask.astype(np.float32)
    weights.setflags(write=False)
    return weights


def rows_to_grid(
    chi: NDArray[np.float64], k_min: float, k_max: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`to_grid` of many spectra whose k is Larch's, 0, 0.05, 0.1 ...: nothing is interpolated.

    Parameters
    ----------
    chi
        (b, m).
    k_min, k_max
        As in `to_grid`.

    Returns
    -------
    chi_k2, mask
        (b, 401) and (401,) float32.
    """
    size = min(chi.shape[1], K_SIZE)
    mask = grid_mask(k_min, min(k_max, K_STEP * (chi.shape[1] - 1)))
    rows = np.zeros((len(chi), K_SIZE), dtype=np.float32)
    rows[:, :size] = chi[:, :size] * (K_GRID[:size] ** 2 * mask[:size])
    return rows, mask

"""chi(R) of spectra on the contract grid, as Larch's xftf makes it."""

from typing import Any

import numpy as np
from larch.xafs.xafsft import ftwindow, xftf_fast
from numpy.typing import ArrayLike, NDArray

from exafsd.contract.grid import K_GRID, K_STEP
from exafsd.contract.recipe import FitWindow, Xftf
from exafsd.spectra import Floats

#: Larch's own length, hence the R step of pi / (0.05 * 2048) = 0.0307 angstrom
NFFT = 2048
R_STEP = np.pi / (K_STEP * NFFT)


def chi_r(chi_k2: ArrayLike, window: Xftf, k_end: float) -> tuple[Floats, NDArray[np.complex128]]:
    """Complex chi(R) of a spectrum on the contract grid.

    Parameters
    ----------
    chi_k2
        (401,) k^2 chi(k) in 1/angstrom^2.
    window
        Transform settings; its kmax is cut to `k_end` - 0.5, as in the reduction.
    k_end
        End of the data in 1/angstrom; nothing beyond is transformed.

    Returns
    -------
    r, chir
        (n,) angstrom and (n,) complex, 1/angstrom^(kweight + 1).
    """
    kmax = max(min(window.kmax, k_end - 0.5), window.kmin + 1.0)
    sill: Any = window.dk  # Larch's annotation says int
    weight = ftwindow(K_GRID, xmin=window.kmin, xmax=kmax, dx=sill, dx2=sill, window=window.window)
    k = np.maximum(K_GRID, K_STEP)  # the window is zero at k = 0
    weighted = np.asarray(chi_k2, float) * weight * k ** (window.kweight - 2.0)
    weighted[int(1.01 + k_end / K_STEP) :] = 0.0
    size = int(1.01 + window.rmax_out / R_STEP)
    chir = np.asarray(xftf_fast(weighted, nfft=NFFT, kstep=K_STEP), dtype=np.complex128)
    return R_STEP * np.arange(size, dtype=np.float64), chir[:size]


def r_factor(data: ArrayLike, model: ArrayLike, fit: FitWindow, k_end: float) -> float | None:
    """Misfit over the fit window, sum |data - model|^2 / sum |data|^2 in R, as feffit defines it.

    `data` and `model` are (401,) k^2 chi(k); None where the data are zero.
    """
    window = Xftf(
        kmin=fit.k[0],
        kmax=fit.k[1],
        dk=fit.dk,
        kweight=fit.kweight,
        window=fit.window,
        rmax_out=fit.r[1] + 2 * R_STEP,
    )
    r, measured = chi_r(data, window, k_end)
    _, calculated = chi_r(model, window, k_end)
    inside = (r >= fit.r[0]) & (r <= fit.r[1])
    total = float(np.sum(np.abs(measured[inside]) ** 2))
    if total == 0:
        return None
    return float(np.sum(np.abs((measured - calculated)[inside]) ** 2)) / total

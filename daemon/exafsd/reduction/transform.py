"""Fourier transforms to chi(R) as Larch's `xftf` makes them, for many spectra at once."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from exafsd.contract.grid import K_GRID, K_STEP
from exafsd.contract.recipe import FitWindow, Xftf
from exafsd.reduction.window import window as window_of
from exafsd.spectra import Floats

#: Larch's own length, hence the R step of pi / (0.05 * 2048) = 0.0307 angstrom
NFFT = 2048
R_STEP = np.pi / (K_STEP * NFFT)
FT_SCALE = K_STEP / np.sqrt(np.pi)
#: R range of Larch's noise estimate, angstrom: no structure is left there.
NOISE_R = (15.0, 30.0)
#: smallest data end at which the noise estimate has enough points, 1/angstrom
NOISE_K_MIN, NOISE_K_SPAN = 2.0, 3.0
#: sill of the noise estimate's window, 1/angstrom
NOISE_DK = 4.0
#: The end of a fit window lies below the end of the data by this, 1/angstrom.
END_MARGIN = 0.5
#: Share of the power in a fit window below which a direction is rounding.
NEGLIGIBLE = 1e-14
#: windows and transforms that are kept; the scans of a run need one or two of each
REMEMBERED = 64


@dataclass(frozen=True)
class Transform:
    """Windowed transform of (b, m) spectra on a grid of 0.05 1/angstrom, between two R indices."""

    weight: Floats  # (m,) window and power of k
    begin: int
    end: int

    def __call__(self, spectra: NDArray[Any]) -> NDArray[np.complex128]:
        """Complex chi(R), (b, end - begin)."""
        whole = np.asarray(fft.rfft(spectra * self.weight, n=NFFT, axis=-1))
        return whole[..., self.begin : self.end] * FT_SCALE

    @cached_property
    def r(self) -> Floats:
        """R of the result, angstrom."""
        return R_STEP * np.arange(self.begin, self.end, dtype=np.float64)


def transformed(
    spectra: Floats, one: Transform, other: Transform
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """What two transforms make of spectra (b, m), in one go: of one that takes half the time."""
    weighted = np.empty((len(spectra), 2, spectra.shape[1]))
    np.multiply(spectra, one.weight, out=weighted[:, 0])
    np.multiply(spectra, other.weight, out=weighted[:, 1])
    whole = np.asarray(fft.rfft(weighted, n=NFFT, axis=-1))
    return (
        whole[:, 0, one.begin : one.end] * FT_SCALE,
        whole[:, 1, other.begin : other.end] * FT_SCALE,
    )


@dataclass(frozen=True)
class SnappedWindow:
    """Larch's window on `size` points from k = 0 in steps of 0.05 1/angstrom.

    Larch moves its ends onto points of the grid. So data whose ends differ by less than a step
    share a window, and `ends` and not `kmax` are what is compared.
    """

    size: int
    kmin: float
    kmax: float = field(compare=False)
    dk: float
    name: str
    ends: tuple[int, int]

    @classmethod
    def of(cls, size: int, kmin: float, kmax: float, dk: float, name: str) -> "SnappedWindow":
        """Window of `larch.xafs.xafsft.ftwindow` (xraylarch 2026.3), with its rounding."""
        last = K_STEP * (size - 1)
        step = last / (size - 1) if size > 1 else K_STEP
        tiny = 1e-4 * step
        falls, ends = kmax - dk / 2.0 - tiny, min(last, kmax + dk / 2.0)
        return cls(
            size, kmin, kmax, dk, name, (int((falls + tiny) / step), int((ends + tiny) / step))
        )

    def __call__(self) -> Floats:
        """The window, (size,)."""
        return _window(self)

    def weighted(self, size: int, kweight: float) -> Floats:
        """The first (size,) points, times a power of k."""
        return (K_STEP * np.arange(size)) ** kweight * _window(self)[:size]


@lru_cache(maxsize=REMEMBERED)
def _window(window: SnappedWindow) -> Floats:
    return window_of(window.size, window.kmin, window.kmax, window.dk, window.name)


def snapped(k_last: float, window: Xftf) -> SnappedWindow:
    """Window for data that end at `k_last`, 1/angstrom.

    Larch makes it on a grid that reaches to the window's end, as far as the data or beyond.
    """
    longest = max(k_last, window.kmax + window.dk)
    size = int(1.01 + longest / K_STEP)
    return SnappedWindow.of(size, window.kmin, window.kmax, window.dk, window.window)


def cut_to_data(window: Xftf, k_end: float) -> Xftf:
    """Transform settings for data that end at `k_end`, 1/angstrom."""
    kmax = min(window.kmax, k_end - 0.5)
    return window.model_copy(update={"kmax": max(kmax, window.kmin + 1.0)})


def data_transform(k: Floats, window: Xftf, k_end: float) -> Transform:
    """Transform of chi(k) on a spectrum's own grid (m,)."""
    window = cut_to_data(window, k_end)
    return _data_transform(len(k), snapped(float(k[-1]), window), window.kweight, window.rmax_out)


@lru_cache(maxsize=REMEMBERED)
def _data_transform(
    points: int, window: SnappedWindow, kweight: float, rmax_out: float
) -> Transform:
    size = int(min(NFFT / 2, 1.01 + rmax_out / R_STEP))
    return Transform(window.weighted(points, kweight), 0, size)


@lru_cache(maxsize=256)
def grid_transform(window: Xftf, k_end: float) -> Transform:
    """Transform of k^2 chi(k) on the contract grid (401,); nothing beyond `k_end` takes part."""
    window = cut_to_data(window, k_end)
    k = np.maximum(K_GRID, K_STEP)  # the window is zero at k = 0
    weight = snapped(float(K_GRID[-1]), window)()[: len(K_GRID)] * k ** (window.kweight - 2.0)
    weight[int(1.01 + k_end / K_STEP) :] = 0.0
    size = int(min(NFFT / 2, 1.01 + window.rmax_out / R_STEP))
    return Transform(weight, 0, size)


@dataclass(frozen=True)
class Noise:
    """Noise of chi(k) as Larch's `estimate_noise` finds it, from R of 15 to 30 angstrom.

    The k range is given, because Larch's default reads some 24 % too high.
    """

    transform: Transform
    scale: float

    @classmethod
    def of(cls, k: Floats, k_end: float) -> "Noise | None":
        """None where the data are too short."""
        kmin = NOISE_K_MIN
        if k_end < kmin + NOISE_K_SPAN:
            return None
        size = int(1.01 + max(float(k[-1]), k_end + NOISE_DK) / K_STEP)
        window = SnappedWindow.of(size, kmin, k_end, NOISE_DK, "kaiser")
        transform, total = _noise_transform(len(k), window)
        mean_window = total * K_STEP / (k_end - kmin)
        # Parseval's theorem with the weight k, hence the powers of 3
        parseval = np.sqrt(2 * np.pi * 3 / (K_STEP * (k_end**3 - kmin**3)))
        scale = parseval / mean_window / np.sqrt(2 * (transform.end - transform.begin))
        return cls(transform, float(scale))

    def __call__(self, chi: Floats) -> Floats:
        """epsilon_k of spectra (b, m), (b,)."""
        return self.of_transformed(self.transform(chi))

    def of_transformed(self, high: NDArray[np.complex128]) -> Floats:
        """The same of spectra that `transform` has transformed, (b, l)."""
        parts = np.ascontiguousarray(high).view(np.float64)
        return self.scale * np.sqrt(np.einsum("...j,...j->...", parts, parts))


@lru_cache(maxsize=REMEMBERED)
def _noise_transform(points: int, window: SnappedWindow) -> tuple[Transform, float]:
    """Transform of chi(k) times k to the R of noise, and the sum of its window."""
    begin = int(0.01 + NOISE_R[0] / R_STEP)
    end = min(NFFT // 2, int(1.01 + NOISE_R[1] / R_STEP))
    return Transform(window.weighted(points, 1.0), begin, end), float(window()[:points].sum())


@dataclass(frozen=True)
class Misfit:
    """sum |chi(R)|^2 over a fit window, of spectra and of what a model misses of them."""

    missed: Floats  # (b,)
    signal: Floats  # (b,)

    def r_factor(self, least: float = 0.0) -> Floats:
        """(b,) missed over signal, as feffit defines it, or over `least` where that is more.

        NaN where both are zero.
        """
        total = np.maximum(self.signal, least)
        return np.divide(self.missed, total, out=np.full(total.shape, np.nan), where=total > 0)


def misfit(data: NDArray[Any], model: NDArray[Any], fit: FitWindow, k_end: float) -> Misfit:
    """Misfit of models over the fit window.

    Parameters
    ----------
    data, model
        (b, 401) k^2 chi(k) on the contract grid, 1/angstrom^2.
    k_end
        End of the data, 1/angstrom.
    """
    parts = np.concatenate([data - model, data]) @ _fit_columns(fit, k_end)
    missed, signal = np.einsum("ij,ij->i", parts, parts).reshape(2, -1)
    return Misfit(missed, signal)


@lru_cache(maxsize=256)
def fit_window(fit: FitWindow, k_end: float) -> FitWindow:
    """Fit window cut to data that end at `k_end`, 1/angstrom, as the reference fits do."""
    return fit.model_copy(update={"k": (fit.k[0], min(fit.k[1], k_end - END_MARGIN))})


def fit_weight(fit: FitWindow, k_end: float) -> Floats:
    """(401,) what a fit multiplies k^2 chi(k) by: Larch's window cut to the data, and a power of k.

    Zero beyond `k_end`.
    """
    window = Xftf(kmin=fit.k[0], kmax=fit.k[1], dk=fit.dk, kweight=fit.kweight, window=fit.window)
    return grid_transform(window, k_end).weight


@lru_cache(maxsize=256)
def _fit_columns(fit: FitWindow, k_end: float) -> Floats:
    """(401, p) whose products with a spectrum have the squares of chi(R) in a fit window as sum.

    The R range of a window is short, so that some forty directions hold all of it: a transform
    takes ten times as long. R is rounded as in Larch's feffit, which leaves out the last step.
    """
    begin, end = (int(0.01 + r / R_STEP) for r in fit.r)
    r = np.arange(begin, min(end, NFFT // 2))
    turns = 2 * np.pi / NFFT * np.outer(np.arange(len(K_GRID)), r)
    weight = FT_SCALE * fit_weight(fit, k_end)[:, None]
    waves = np.hstack([weight * np.cos(turns), weight * np.sin(turns)])
    power, directions = np.linalg.eigh(waves.T @ waves)
    return np.ascontiguousarray(waves @ directions[:, power > NEGLIGIBLE * power[-1]])

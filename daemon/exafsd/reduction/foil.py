"""Shift of a foil's edge against another spectrum of the foil, by its derivative."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from exafsd.reduction.e0 import find_e0
from exafsd.spectra import Floats

#: Width of the triangle that smooths the derivative for the match, eV. Simulated foil (arctan of
#: 1.5 eV half width), 40 shifts up to 10 eV, rms error with 2, 4 and 6 eV: 0.003, 0.002, 0.001 eV
#: for steps of 0.5 eV without noise, 0.11, 0.05, 0.03 eV for steps of 2 eV, and 0.024, 0.019,
#: 0.015 eV for 0.5 eV with 1 % noise. Wider ones are disturbed more by slow changes of intensity.
WIDTH = 4.0
#: the same where E0 is read off, eV: it must not mix the edge with the structure above it
FINE_WIDTH = 1.0
#: grid on which derivatives are compared, eV
STEP = 0.5
#: eV that a scan may end earlier than the first without losing the match
SLACK = 5.0
#: shifts beyond `max_shift` are looked for up to this much more, eV, so that they can be told
BEYOND = 10.0
#: an edge that lasts: means over this many eV before and after it are compared; a glitch is shorter
LASTING = 15.0
#: points about the edge without which it cannot be told where it is
FEWEST = 12
#: the edge of the foil is looked for this near to a named edge first, eV
NEAR = 100.0
#: rise at a foil's edge in units of the usual one elsewhere in the scan, below which it is none
CLEAR_RISE = 8.0
#: a foil whose edge is not this many times its standard error high is no foil
CLEAR_EDGE = 10.0
#: Gauss-Newton ends when it moves less than this, eV, or after so many steps
PRECISION, GAUSS_NEWTON_STEPS = 1e-4, 12


class Match(NamedTuple):
    """What must be added to a scan's energies, eV, and the standard error of it."""

    shift: float
    std: float


class Derivative:
    """Derivative of mu(E) smoothed by a triangle of full width at half maximum `width`, eV.

    It is the second difference of the integral of mu, so that every measured point counts by the
    energy it stands for and nothing has to be brought onto a common grid first.
    """

    def __init__(self, energy: Floats, mu: Floats) -> None:
        self._energy, self._mu = energy, mu
        rise = np.diff(mu)
        self._slope = rise / np.diff(energy)
        middle = (mu[1:] + mu[:-1]) / 2
        self._integral = np.concatenate([[0.0], np.cumsum(middle * np.diff(energy))])

    def __call__(self, at: Floats, width: float) -> Floats:
        """Derivative at energies (m,), all of them `width` inside the scan."""
        ahead, here, behind = (self._until(at + move) for move in (width, 0.0, -width))
        return (ahead - 2 * here + behind) / width**2

    def _until(self, at: Floats) -> Floats:
        """Integral of mu, straight between the points, from the first point."""
        i = np.clip(np.searchsorted(self._energy, at) - 1, 0, len(self._slope) - 1)
        past = at - self._energy[i]
        return self._integral[i] + past * (self._mu[i] + past * self._slope[i] / 2)


@dataclass(frozen=True)
class FoilTemplate:
    """The edge of a foil in one scan; later scans of a run are matched to that of the first."""

    e0: float
    grid: Floats  # (m,) eV, uniform
    derivative: Floats  # (m,) of mu, smoothed

    @classmethod
    def of(
        cls, energy: Floats, mu: Floats, near: tuple[float, ...], window: tuple[float, float]
    ) -> "FoilTemplate | None":
        """Foil of a scan, (n,) eV and (n,); None where it shows no edge.

        Parameters
        ----------
        near
            Energies, eV, about which the edge is looked for first.
        window
            Energies about the edge that are matched, eV relative to it.
        """
        slope = Derivative(energy, mu)
        rough = _rise(slope, energy, near)
        if rough is None or np.count_nonzero(np.abs(energy - rough) < 4 * LASTING) < FEWEST:
            return None
        e0 = _position(slope, energy, mu, rough)
        low = max(e0 + window[0], energy[0] + WIDTH + SLACK)
        high = min(e0 + window[1], energy[-1] - WIDTH - SLACK)
        if not low + 2 * WIDTH < e0 < high - 2 * WIDTH:
            return None
        grid = e0 + STEP * np.arange(np.ceil((low - e0) / STEP), np.floor((high - e0) / STEP) + 1)
        return cls(e0, grid, slope(grid, WIDTH))

    def match(self, energy: Floats, mu: Floats, max_shift: float) -> Match | None:
        """Shift that brings a scan's foil onto this one; None where its edge is not to be seen.

        Least squares of the smoothed derivative over shift, scale and offset: the best of all
        whole steps up to `max_shift` and a little beyond, then Gauss-Newton.
        """
        reach = max_shift + BEYOND
        low = max(self.grid[0] - reach, energy[0] + WIDTH)
        high = min(self.grid[-1] + reach, energy[-1] - WIDTH)
        first = int(np.ceil((low - self.grid[0]) / STEP))
        wide = self.grid[0] + STEP * np.arange(first, np.floor((high - self.grid[0]) / STEP) + 1)
        if len(wide) < len(self.grid):
            return None
        return self._match(wide, Derivative(energy, mu)(wide, WIDTH))

    def _match(self, wide: Floats, spectrum: Floats) -> Match | None:
        m = len(self.grid)
        shape = self.derivative - self.derivative.mean()
        product = np.correlate(spectrum, shape, "valid")
        ones = np.ones(m)
        spread = np.correlate(spectrum**2, ones, "valid")
        spread -= np.correlate(spectrum, ones, "valid") ** 2 / m
        explained = np.where(product > 0, product**2 / np.maximum(spread, 1e-300), -1.0)
        best = int(explained.argmax())
        if explained[best] <= 0:
            return None
        curve = CubicSpline(wide, spectrum)
        slope = curve.derivative()
        shift = float(self.grid[0] - wide[best])
        low, high = self.grid[-1] - wide[-1], self.grid[0] - wide[0]
        for _ in range(GAUSS_NEWTON_STEPS):
            at = self.grid - shift
            y = curve(at)
            design = np.stack([slope(at), self.derivative, np.ones(m)], axis=1)
            solve = np.linalg.solve(design.T @ design, design.T)
            fitted = solve @ y
            move = float(np.clip(fitted[0], -1.0, 1.0))
            shift = float(np.clip(shift + move, low, high))
            if abs(move) < PRECISION:
                residual = y - design @ fitted
                variance = float(residual @ residual) / (m - 3)
                shift_std, scale_std = (_error(row, variance) for row in solve[:2])
                return Match(shift, shift_std) if fitted[1] > CLEAR_EDGE * scale_std else None
        return None


def _error(weights: Floats, variance: float) -> float:
    """Standard error of a weighted sum of the smoothed derivative, whose noise is correlated.

    Its noise at two energies is as alike as the two halves of the second difference, + and -,
    overlap with those of the other.
    """
    lag = np.arange(-2 * WIDTH, 2 * WIDTH + STEP / 2, STEP) / WIDTH
    alike = _triangle(lag) - (_triangle(lag - 1) + _triangle(lag + 1)) / 2
    spread = np.convolve(weights, alike)[len(lag) // 2 :][: len(weights)]
    return float(np.sqrt(max(variance * float(weights @ spread), 0.0)))


def _triangle(lag: Floats) -> Floats:
    return np.maximum(1 - np.abs(lag), 0.0)


def _rise(slope: Derivative, energy: Floats, near: tuple[float, ...]) -> float | None:
    """Where mu rises most and for good, eV; None where that is no more than the scatter."""
    grid = np.arange(energy[0] + LASTING, energy[-1] - LASTING, 1.0)
    if len(grid) < 3:
        return None
    lasting = slope(grid, LASTING)
    usual = float(np.median(np.abs(lasting - np.median(lasting))))
    close = np.zeros(len(grid), bool)
    for position in near:
        close |= np.abs(grid - position) < NEAR
    best = int(lasting.argmax())
    if close.any():
        nearest = int(np.where(close, lasting, -np.inf).argmax())
        best = nearest if lasting[nearest] > lasting[best] / 2 else best
    return float(grid[best]) if lasting[best] > CLEAR_RISE * usual else None


def _position(slope: Derivative, energy: Floats, mu: Floats, rough: float) -> float:
    """E0 of an edge near `rough`, eV: that of `find_e0`, and the derivative's vertex there."""
    about = slice(*np.searchsorted(energy, [rough - 4 * LASTING, rough + 4 * LASTING]))
    e0 = find_e0(energy[about], mu[about])
    steps = np.diff(energy[np.abs(energy - e0) < WIDTH])
    width = max(FINE_WIDTH, float(np.max(steps, initial=0.0)))
    grid = e0 + width * np.linspace(-1, 1, 41)
    steep = slope(grid, width)
    best = int(np.clip(steep.argmax(), 1, len(grid) - 2))
    before, at, after = steep[best - 1 : best + 2]
    bend = before - 2 * at + after
    past = (before - after) / (2 * bend) if bend < 0 else 0.0
    return float(grid[best] + past * (grid[1] - grid[0]))

"""Spectra for the polish, and Larch's feffit of the same spectra to compare it with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from larch import Group
from larch.fitting import param, param_group
from larch.io import read_xdi
from larch.xafs import feffit, feffit_dataset, feffit_transform, feffpath

from exafsd.contract import K_GRID, FitWindow, Recipe, rows_to_grid
from exafsd.inference.refinement.polish import Polished, Polisher
from exafsd.inference.registry import Bundle
from exafsd.reduction.engine import reduce_mu
from exafsd.spectra import Prediction, ReducedSpectrum


@dataclass(frozen=True)
class Spectrum:
    """chi(k) as Larch has it, on the contract grid, and as the network reads it."""

    k: np.ndarray
    chi: np.ndarray
    k_end: float
    epsilon_k: float | None
    chi_k2: np.ndarray
    prediction: Prediction

    @classmethod
    def of(cls, reduced: ReducedSpectrum, bundle: Bundle, k_end: float = 99.0) -> "Spectrum":
        """Read a reduced spectrum, cut off at `k_end`."""
        k_end = min(k_end, reduced.k_data[1])
        size = int(1.01 + k_end / 0.05)
        k, chi = reduced.k[:size], reduced.chi[:size]
        rows, mask = rows_to_grid(chi[None], bundle.card.k_grid.k_min, k_end)
        (prediction,) = bundle.predictor.predict(rows, mask[None])
        chi_k2, _ = rows_to_grid(chi[None], 0.0, k_end)
        return cls(k, chi, k_end, reduced.epsilon_k, chi_k2[0], prediction)

    def polished(self, polisher: Polisher) -> Polished:
        """Polish this spectrum alone."""
        (outcome,) = polisher(self.chi_k2[None], [self.prediction], self.k_end, [self.epsilon_k])
        return outcome


def measured(file: Path) -> ReducedSpectrum:
    """Reduce a measured transmission spectrum."""
    data = read_xdi(str(file))
    mu = data.mutrans if hasattr(data, "mutrans") else np.log(data.i0 / data.itrans)
    return reduce_mu(np.array(data.energy, dtype=float), np.array(mu, dtype=float), Recipe())


def simulated(counts) -> ReducedSpectrum:
    """Reduce one sweep of a `HeatedFoil`."""
    return reduce_mu(counts.energy, np.log(counts.i0 / counts.it), Recipe())


@dataclass(frozen=True)
class Reference:
    """feffit's answer by parameter id without the phase."""

    value: dict[str, float]
    stderr: dict[str, float]
    correlation: dict[tuple[str, str], float]
    r_factor: float
    n_idp: float
    #: (m,) chi of the fit on Larch's k
    model: np.ndarray


def reference(
    spectrum: Spectrum, window: FitWindow, shells: Mapping[int, Path], first: int = 1
) -> Reference:
    """Larch's feffit: one N S0^2 factor, one E0, dR and sigma2 of every shell."""
    free = {"s02": param(0.9, vary=True), "e0": param(3.0, vary=True)}
    places = {"e0_shift": ("e0", 1.0, 0.0)}
    paths = []
    for number, file in shells.items():
        dr, s2 = f"dr{number}", f"s2_{number}"
        free |= {dr: param(0.0, vary=True), s2: param(0.006, vary=True, min=0)}
        path = feffpath(str(file), s02="s02", e0="e0", deltar=dr, sigma2=s2)
        paths.append(path)
        places[f"{number}/r"] = (dr, 1.0, path.reff)
        places[f"{number}/sigma2"] = (s2, 1.0, 0.0)
        if number == first:
            places[f"{number}/n_s02"] = ("s02", path.degen, 0.0)
    transform = feffit_transform(
        kmin=window.k[0], kmax=min(window.k[1], spectrum.k_end - 0.5), kw=window.kweight,
        dk=window.dk, window=window.window, rmin=window.r[0], rmax=window.r[1],
    )  # fmt: skip
    data = feffit_dataset(
        data=Group(k=spectrum.k, chi=spectrum.chi), pathlist=paths, transform=transform
    )
    out = feffit(param_group(**free), data)
    fitted = {name: out.params[name] for name in free}
    ids = {variable: id_ for id_, (variable, _, _) in places.items()}
    return Reference(
        {i: fitted[v].value * scale + offset for i, (v, scale, offset) in places.items()},
        {i: fitted[v].stderr * scale for i, (v, scale, _) in places.items()},
        {(ids[a], ids[b]): c for a in fitted for b, c in (fitted[a].correl or {}).items()},
        out.rfactor,
        out.n_independent,
        np.array(data.model.chi),
    )


def in_bars(polished: Polished, larch: Reference) -> dict[str, float]:
    """Difference from feffit in feffit's error bars, by id without the phase."""
    fit = polished.fit
    assert fit is not None
    ids = [id_.split("/", 1)[1] for id_ in fit.ids]
    assert set(ids) == set(larch.value)
    return {
        id_: (value - larch.value[id_]) / larch.stderr[id_]
        for id_, value in zip(ids, fit.value, strict=True)
    }


def noisy(chi: np.ndarray, epsilon: float, n: int, k_end: float, seed: int = 0) -> np.ndarray:
    """(n, 401) k^2 chi of chi (401,) with white noise of `epsilon` in chi, zero beyond the data."""
    rng = np.random.default_rng(seed)
    return (chi + epsilon * rng.normal(size=(n, K_GRID.size))) * K_GRID**2 * (k_end >= K_GRID)


class LarchEquation:
    """An equation as the polish wants it, from Larch's own path sum; derivatives by difference.

    Parameters
    ----------
    paths
        For each path its file and a function of theta to its path parameters.
    steps
        (p,) for the differences.
    """

    def __init__(self, paths: Sequence[tuple[Path, object]], steps: np.ndarray) -> None:
        self._paths = [(feffpath(str(file)), meaning) for file, meaning in paths]
        self._steps = steps

    def chi(self, theta: np.ndarray) -> np.ndarray:
        """(401,)."""
        total = np.zeros(K_GRID.size)
        for path, meaning in self._paths:
            path._calc_chi(k=K_GRID, **meaning(theta))
            total += np.nan_to_num(path.chi)
        return total

    def __call__(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chi = np.stack([self.chi(row) for row in theta])
        slopes = np.zeros((*chi.shape, theta.shape[1]))
        for i, step in enumerate(self._steps):
            shift = np.zeros(theta.shape[1])
            shift[i] = step
            up, down = ([self.chi(row + s) for row in theta] for s in (shift, -shift))
            slopes[:, :, i] = (np.stack(up) - np.stack(down)) / (2 * step)
        return chi, slopes

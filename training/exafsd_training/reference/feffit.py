"""Larch's own feffit on a measured spectrum, always with the same settings.

Two fits of the same window and variables: the *reference* has the single scattering of the
shells in the window and nothing else, the *whole* one all paths of the model and the nearest
shell's C3, as the model ties them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.reduction.engine import EngineName
from exafsd.reduction.transform import fit_window
from exafsd.spectra import ReducedSpectrum
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats
from exafsd_training.theory.priors import FAR_RATIO, bond
from exafsd_training.theory.shells import sigma2_ties
from exafsd_training.theory.thermal import einstein_sigma2


class Chi(Protocol):
    """What a fit needs of a spectrum."""

    @property
    def k(self) -> Floats:
        """(m,) 1/angstrom."""

    @property
    def chi(self) -> Floats:
        """(m,)."""

    @property
    def k_data(self) -> tuple[float, float]:
        """Where the data begin and end, 1/angstrom."""


@dataclass(frozen=True)
class GivenChi:
    """chi(k) that somebody else reduced; arrays (m,), k in 1/angstrom."""

    k: Floats
    chi: Floats
    k_data: tuple[float, float]


@dataclass(frozen=True)
class FeffitResult:
    """feffit's answer by parameter id without the phase, with misfit-scaled error bars.

    `paths` are places in the parametrisation's table, by shell number. `k` is the window's range
    as used, 1/angstrom; `n_idp` Larch's number of independent points, `correlation` that of every
    pair of variables.
    """

    value: dict[str, float]
    stderr: dict[str, float]
    r_factor: float
    k: tuple[float, float]
    n_idp: float
    n_var: int
    paths: dict[int, tuple[int, ...]]
    correlation: dict[str, float]


def read_mu(file: Path) -> tuple[Floats, Floats]:
    """Energy (eV) and mu of an XDI file: ``mutrans``, else ln(i0/itrans), else fluorescence."""
    from larch.io import read_xdi

    data = read_xdi(str(file))
    if hasattr(data, "mutrans"):
        mu = data.mutrans
    elif hasattr(data, "itrans"):
        mu = np.log(np.abs(data.i0 / data.itrans))
    elif hasattr(data, "mufluor"):
        mu = data.mufluor
    else:
        mu = data.ifluor / data.i0
    energy, first = np.unique(np.asarray(data.energy, dtype=float), return_index=True)
    mu = np.asarray(mu, dtype=float)[first]
    good = np.isfinite(mu)
    return energy[good], mu[good]


def reduce_file(file: Path, recipe: Recipe, engine: EngineName = "plan") -> ReducedSpectrum:
    """Reduce a measured spectrum, by default as the daemon does."""
    from exafsd.reduction.engine import reduce_mu

    return reduce_mu(*read_mu(file), recipe, engine=engine)


def read_chi_k2(file: Path) -> GivenChi:
    """Spectrum of a file with the columns k (1/angstrom) and k^2 chi."""
    k, weighted = np.loadtxt(file, unpack=True)
    chi = np.divide(weighted, k**2, out=np.zeros_like(k), where=k > 0)
    return GivenChi(k, chi, (float(k[0]), float(k[-1])))


def feffit_reference(
    spectrum: Chi,
    parametrisation: Parametrisation,
    feff_folder: Path,
    window: FitWindow,
    shells: Sequence[int] | None = None,
    whole: bool = False,
) -> FeffitResult:
    """Fit one N S0^2 factor, one E0, and dR and sigma2 of every shell in the window.

    By default only the single scattering of these shells is in the fit, with crystallographic
    ratios.

    Parameters
    ----------
    spectrum
        Spectrum.
    parametrisation
        Shells of the structure.
    feff_folder
        Folder of `exafsd_training.theory.structures.run_feff`.
    window
        Of the fit; the end in k is cut to the data's end less 0.5 1/angstrom.
    shells
        Numbers of the shells; by default those in the window.
    whole
        Whether all of the model's paths and C3 are in the fit, without variables of their own:
        distances expand with the nearest shell's, sigma2 and C3 follow from the sigma2 of the
        fit's shells. Nothing that a network reads is in it.
    """
    from larch import Group
    from larch.fitting import param, param_group
    from larch.xafs import feffit, feffit_dataset, feffit_transform, feffpath

    table = parametrisation.table
    numbers = list(shells or [shell.number for shell in parametrisation.fitted])
    used = {n: parametrisation.shells[n - 1].paths for n in numbers}
    variables = {"s02": param(0.9, vary=True), "e0": param(3.0, vary=True)}
    moved: dict[int, dict[str, str]] = {}
    for number in numbers:
        dr, s2 = f"dr{number}", f"s2_{number}"
        variables |= {dr: param(0.0, vary=True), s2: param(0.006, vary=True, min=0)}
        moved |= {i: {"deltar": dr, "sigma2": s2} for i in used[number]}
    if whole:
        moved = _all_paths(parametrisation, numbers, moved)
    paths = [
        feffpath(str(feff_folder / table.paths[i].file), degen=table.paths[i].degeneracy,
                 s02="s02", e0="e0", **how)
        for i, how in moved.items()
    ]  # fmt: skip
    kmin, kmax = fit_window(window, spectrum.k_data[1]).k
    transform = feffit_transform(
        kmin=kmin,
        kmax=kmax,
        kw=window.kweight,
        dk=window.dk,
        window=window.window,
        rmin=window.r[0],
        rmax=window.r[1],
    )
    data = feffit_dataset(
        data=Group(k=spectrum.k, chi=spectrum.chi), pathlist=paths, transform=transform
    )
    out = feffit(param_group(**variables), data)
    ids = {"s02": f"{numbers[0]}/n_s02", "e0": "e0_shift"}
    for n in numbers:
        ids |= {f"dr{n}": f"{n}/r", f"s2_{n}": f"{n}/sigma2"}
    value, stderr = {}, {}
    for name in ("e0", "s02", *(name for name in ids if name not in ("e0", "s02"))):
        scale, offset = _from_feffit(name, numbers, parametrisation)
        value[ids[name]] = float(out.params[name].value) * scale + offset
        stderr[ids[name]] = float(out.params[name].stderr or np.nan) * scale
    return FeffitResult(
        value,
        stderr,
        float(out.rfactor),
        (kmin, kmax),
        float(out.n_independent),
        int(out.nvarys),
        used,
        {} if out.covar is None else dict(_correlations(out.var_names, out.covar, ids)),
    )


def _all_paths(
    parametrisation: Parametrisation, numbers: Sequence[int], fitted: dict[int, dict[str, str]]
) -> dict[int, dict[str, str]]:
    """How every path of the model moves, as expressions of the fit's variables.

    Parameters
    ----------
    parametrisation
        Shells, paths and priors.
    numbers
        Of the shells that have variables.
    fitted
        The same for their paths, by place in the table.
    """
    table, shells, priors = parametrisation.table, parametrisation.shells, parametrisation.priors
    sigma2 = []
    for shell in shells:
        # a farther shell moves like the one of its element in the fit, a little more; where there
        # is none, like the last
        alike = [n for n in numbers if shells[n - 1].scatterer == shell.scatterer] or numbers
        own = shell.number in numbers
        sigma2.append(f"s2_{shell.number}" if own else f"{FAR_RATIO[0]} * s2_{alike[-1]}")
    nearest = bond(shells[0], 0, priors, priors.spread)
    at_zero = einstein_sigma2(np.array(1e-3), np.array(nearest.temperature), nearest.mass)
    c3 = f"{np.mean(nearest.anharmonicity)} * (s2_1**2 - {2 / 3 * float(at_zero) ** 2})"
    moved = {}
    for i, path in enumerate(table.paths):
        weights = zip(sigma2_ties(path, shells), sigma2, strict=True)
        moved[i] = fitted.get(i) or {
            "deltar": f"{path.reff / shells[0].reff} * dr{numbers[0]}",
            "sigma2": " + ".join(f"{weight} * {of}" for weight, of in weights if weight),
        }
        if i in shells[0].paths and numbers[0] == 1:
            moved[i] = moved[i] | {"third": c3}
    return moved


def _from_feffit(
    name: str, numbers: Sequence[int], parametrisation: Parametrisation
) -> tuple[float, float]:
    """Scale and offset from feffit's variable to ours: S0^2 to N S0^2, dR to R."""
    if name == "s02":
        return parametrisation.shells[numbers[0] - 1].degeneracy, 0.0
    if name.startswith("dr"):
        return 1.0, parametrisation.shells[int(name.removeprefix("dr")) - 1].reff
    return 1.0, 0.0


def _correlations(
    names: Sequence[str], covariance: Floats, ids: dict[str, str]
) -> Iterable[tuple[str, float]]:
    std = np.sqrt(np.diag(covariance))
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            yield f"{ids[b]} {ids[a]}", float(covariance[i, j] / (std[i] * std[j]))

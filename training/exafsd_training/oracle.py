"""Reference fits: Larch's own feffit on a measured spectrum, always with the same settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.spectra import ReducedSpectrum
from exafsd_training.parametrisation import Parametrisation
from exafsd_training.paths import Floats

#: R windows in angstrom, not phase corrected, in which single scattering of the named shells
#: is what feffit sees; any other element gets the distance of its shell -1.1 and +0.5.
FIT_R = {"Cu": (1.4, 3.0), "Fe": (1.4, 3.0), "Pt": (1.7, 3.3), "Au": (1.7, 3.4)}


@dataclass(frozen=True)
class Reference:
    """feffit's answer by parameter id without the phase, with misfit-scaled error bars."""

    value: dict[str, float]
    stderr: dict[str, float]
    r_factor: float


def fit_window(formula: str, reff: float) -> FitWindow:
    """Window of the reference fit of a structure whose nearest shell is at `reff`, angstrom."""
    return FitWindow(r=FIT_R.get(formula, (round(reff - 1.1, 1), round(reff + 0.5, 1))))


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


def reduce_file(file: Path, recipe: Recipe) -> ReducedSpectrum:
    """Reduce a measured spectrum as the daemon does."""
    from exafsd.reduction.engine import reduce_mu

    return reduce_mu(*read_mu(file), recipe)


def feffit_reference(
    reduced: ReducedSpectrum,
    parametrisation: Parametrisation,
    feff_folder: Path,
    window: FitWindow,
    shells: Sequence[int] = (1,),
) -> Reference:
    """Fit one N S0^2 factor, one E0, and dR and sigma2 of every shell in the window.

    Parameters
    ----------
    reduced
        Spectrum.
    parametrisation
        Shells of the structure.
    feff_folder
        Folder with the ``feffNNNN.dat`` files.
    window
        Of the fit; the end in k is cut to the data's end less 0.5 1/angstrom.
    shells
        Numbers of the shells inside the window.
    """
    from larch import Group
    from larch.fitting import param, param_group
    from larch.xafs import feffit, feffit_dataset, feffit_transform, feffpath

    variables = {"s02": param(0.9, vary=True), "e0": param(3.0, vary=True)}
    paths = []
    for number in shells:
        dr, s2 = f"dr{number}", f"s2_{number}"
        variables |= {dr: param(0.0, vary=True), s2: param(0.006, vary=True, min=0)}
        paths += [
            feffpath(str(feff_folder / parametrisation.table.paths[i].file),
                     s02="s02", e0="e0", deltar=dr, sigma2=s2)
            for i in parametrisation.shells[number - 1].paths
        ]  # fmt: skip
    transform = feffit_transform(
        kmin=window.k[0],
        kmax=min(window.k[1], reduced.k_data[1] - 0.5),
        kw=window.kweight,
        dk=window.dk,
        window=window.window,
        rmin=window.r[0],
        rmax=window.r[1],
    )
    data = feffit_dataset(
        data=Group(k=reduced.k, chi=reduced.chi), pathlist=paths, transform=transform
    )
    out = feffit(param_group(**variables), data)
    found = {
        name: (float(parameter.value), float(parameter.stderr or np.nan))
        for name, parameter in out.params.items()
        if name in variables
    }
    value = {"e0_shift": found["e0"][0]}
    stderr = {"e0_shift": found["e0"][1]}
    for number in shells:
        shell = parametrisation.shells[number - 1]
        for name, key, scale, offset in (
            ("n_s02", "s02", shell.degeneracy, 0.0),
            ("r", f"dr{number}", 1.0, shell.reff),
            ("sigma2", f"s2_{number}", 1.0, 0.0),
        ):
            value[f"{number}/{name}"] = found[key][0] * scale + offset
            stderr[f"{number}/{name}"] = found[key][1] * scale
    return Reference(value, stderr, float(out.rfactor))

"""A bundle that reads by fitting beside Larch's `feffit`, on the same spectra.

With flat priors and feffit's variables the numbers have to be feffit's. What priors, farther
shells and multiple scattering shift is the difference between both fits, and is shown beside it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exafsd.contract import K_GRID, Card
from exafsd.contract.grid import rows_to_grid
from exafsd.inference.reading import Model
from exafsd.inference.registry import load_bundle
from exafsd_export.quick import REFF_MAX, parametrisation
from exafsd_training.reference.feffit import Chi, GivenChi, feffit_reference, reduce_file
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.priors import vibrations
from exafsd_training.theory.structures import Crystal, from_amcsd, run_feff

#: How far the fit with flat priors may be off feffit: eV, angstrom, angstrom^2, relative.
TOLERANCE = {"e0_shift": 0.3, "r": 0.001, "sigma2": 0.0002, "n_s02": 0.02}
#: A simulated spectrum: E0 in eV, strain, S0^2, noise of chi(k), and end in 1/angstrom.
E0, STRAIN, S02, NOISE, K_END = 4.0, 0.003, 0.9, 2e-4, 15.0


@dataclass(frozen=True)
class Compared:
    """One parameter of one spectrum: feffit's value and error bar, and both of our fits."""

    spectrum: str
    parameter: str
    feffit: float
    stderr: float
    flat: float
    fitted: float
    std: float

    @property
    def off(self) -> float:
        """The fit with flat priors less feffit's; relative for N S0^2."""
        return (self.flat - self.feffit) / self._unit

    @property
    def shift(self) -> float:
        """What the daemon's fit is off feffit's by its priors and the other paths."""
        return (self.fitted - self.feffit) / self._unit

    @property
    def equal(self) -> bool:
        """Whether the fit with flat priors is feffit's."""
        return abs(self.off) <= TOLERANCE[self._name]

    @property
    def _name(self) -> str:
        return self.parameter.rsplit("/", 1)[-1]

    @property
    def _unit(self) -> float:
        return self.feffit if self._name == "n_s02" else 1.0


def compare(
    folder: Path, files: Sequence[Path], work: Path, crystal: Crystal | None = None
) -> list[Compared]:
    """Fit spectra with a bundle and with feffit.

    Parameters
    ----------
    folder
        Of the bundle.
    files
        Measured mu(E), XDI; those that end too early for a fit are left out. Where there is none,
        one spectrum is simulated by Larch.
    work
        Folder for FEFF's runs.
    crystal
        What the bundle was made of, where its card does not name an entry of the AMCSD.

    Raises
    ------
    ValueError
        If the crystal is not known, or the bundle was made of another or with another window.
    """
    model = Model.of(load_bundle(folder))
    card = model.bundle.card
    crystal = crystal or crystal_of(card)
    runs = run_feff(crystal, card.absorber, card.edge, work)
    par = parametrisation(crystal, read_paths(runs).within(REFF_MAX))
    if [(p.id, p.r_eff) for p in par.parameters] != [(p.id, p.r_eff) for p in card.parameters]:
        raise ValueError(f"{card.name} was not made of {crystal.source}: other shells")
    spectra: list[tuple[str, Chi, float | None]] = []
    for file in files:
        reduced = reduce_file(file, card.recipe)
        if reduced.k_data[1] >= card.thresholds.k_max_min:
            spectra.append((file.name, reduced, reduced.epsilon_k))
    spectra = spectra or [("simulated", simulated(par, runs), NOISE)]
    return [
        row for name, chi, noise in spectra for row in _compared(name, chi, noise, model, par, runs)
    ]


def crystal_of(card: Card) -> Crystal:
    """Crystal that a card names.

    Raises
    ------
    ValueError
        If it does not come from the AMCSD.
    """
    structure = card.structures[0]
    number = re.fullmatch(r"AMCSD (\d+)", structure.source)
    if number is None:
        raise ValueError(f"{card.name} was made of {structure.source}: give that file by --cif")
    return from_amcsd(int(number[1]), structure.absorber_site)


def simulated(par: Parametrisation, folder: Path) -> GivenChi:
    """chi(k) of a crystal at room temperature, summed by Larch over all paths of the model."""
    from larch.xafs import feffpath, path2chi

    rng = np.random.default_rng(1)
    kelvin = np.full(1, 293.0)
    moved = [v.thermal[0] for v in vibrations(rng, kelvin, par.shells, par.priors)]
    theta = np.zeros(len(par.parameters))
    for i, p in enumerate(par.parameters):
        if p.name == "sigma2" and p.shell is not None:
            theta[i] = moved[p.shell - 1]
        elif p.name == "r":
            theta[i] = (p.r_eff or 0.0) * (1 + STRAIN)
        elif p.name == "expansion":
            theta[i] = STRAIN
    ties, chi = par.ties, np.zeros(K_GRID.size)
    for i, path in enumerate(par.table.paths):
        one = feffpath(
            str(folder / path.file), degen=path.degeneracy, s02=S02, e0=E0,
            deltar=float(ties.deltar_0[i] + theta @ ties.deltar[:, i]),
            sigma2=float(theta @ ties.sigma2[:, i]),
        )  # fmt: skip
        path2chi(one, k=K_GRID.copy())
        chi += np.nan_to_num(one.chi)
    noisy = chi + NOISE * rng.normal(size=chi.size)
    inside = K_GRID <= K_END
    return GivenChi(K_GRID[inside], noisy[inside], (0.0, K_END))


def _compared(
    name: str, chi: Chi, noise: float | None, model: Model, par: Parametrisation, runs: Path
) -> Iterator[Compared]:
    card = model.bundle.card
    assert model.fitter is not None  # `crystal_of` and `parametrisation` know no networks
    end = float(chi.k_data[1])
    k, values = np.asarray(chi.k), np.asarray(chi.chi)
    on_grid = np.interp(K_GRID, k, values, right=0.0)
    rows, _ = rows_to_grid(on_grid[None], 0.0, end)
    (prediction,) = model.fitter(rows, end, [noise], [None])
    (polished,) = model.polisher(rows, [prediction], end, [noise])
    if polished.fit is None:
        raise ValueError(f"{name}: no fit of {card.name} with flat priors has converged")
    reference = feffit_reference(chi, par, runs, card.fit[0])
    ids = [p.id for p in card.parameters]
    for id_, value in zip(polished.fit.ids, polished.fit.value, strict=True):
        own, at = id_.split("/", 1)[1], ids.index(id_)
        yield Compared(
            spectrum=name,
            parameter=own,
            feffit=reference.value[own],
            stderr=reference.stderr[own],
            flat=float(value),
            fitted=float(prediction.theta[at]),
            std=float(np.sqrt(prediction.theta_cov[at, at])),
        )


def as_lines(card: Card, rows: Sequence[Compared]) -> Iterator[str]:
    """Markdown rows of a table, without its head."""
    for row in rows:
        digits = 4 if row.parameter.endswith(("r", "sigma2")) else 2
        percent = row.parameter.endswith("n_s02")
        form, unit = ("+.1f", " %") if percent else (f"+.{max(digits, 2)}f", "")
        off, shift = ((100 * x if percent else x) for x in (row.off, row.shift))
        digits = 5 if row.parameter.endswith("sigma2") else digits
        mark = "" if row.equal else " **differs**"
        yield (
            f"| `{card.name}` | {row.spectrum} | {row.parameter} |"
            f" {row.feffit:.{digits}f} ± {row.stderr:.{digits}f} | {off:{form}}{unit}{mark} |"
            f" {shift:{form}}{unit} | {row.std:.{digits}f} |"
        )

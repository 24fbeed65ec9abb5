"""Error bars of a fit about a crystal, set on simulated spectra of that crystal.

Bars are those of the fit times a factor for each parameter, after what the fit misreads on average
has been taken off. Spectra are simulated with the model's own theory and FEFF's usual errors, and
with another theory; both count alike. Samples are bulk crystals: of particles, whose N is far from
the crystal's, a fit is withheld.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exafsd.contract import K_GRID
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.judgement import CrystalLimits
from exafsd.inference.registry import load_bundle
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction
from exafsd_training.fitting.calibrate import Z90
from exafsd_training.simulation.simulate import path_sums, sample
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import PathTable

#: Simulated spectra of each theory, their noise of chi(k), and their ends, 1/angstrom.
SPECTRA, NOISE, K_END = 200, (1e-4, 2e-3), (10.0, 16.0)
#: N S0^2 over the crystal's N.
N_S02 = (0.7, 1.05)
#: By how much FEFF's usual errors come on top of another theory.
ROUGH = (0.25, 0.5)
#: Standard errors that a mean must be off to be taken off.
SURE = 3.0


@dataclass(frozen=True)
class ErrorBars:
    """By parameter id: factors, what is taken off the answers, and how often 90 % intervals hold.

    `bias` is relative to the answer for N S0^2. `coverage` is counted on spectra that set nothing.
    """

    scale: dict[str, float]
    bias: dict[str, float]
    coverage: dict[str, float]
    spectra: int


@dataclass(frozen=True)
class Misread:
    """Fits that would be published, (n, p): how far they are off, in theta and in their bars.

    `off` is relative to the answer for N S0^2; `bars` is in its unit.
    """

    off: NDArray[np.float64]
    bars: NDArray[np.float64]


def calibrate(bundle: Path, par: Parametrisation, own: PathTable, other: PathTable) -> ErrorBars:
    """Set error bars of a bundle whose card has none.

    Half of the simulated spectra set them, the other half is counted.

    Parameters
    ----------
    bundle
        Its folder.
    par
        Its parameters.
    own, other
        Paths of the model's own theory, to which FEFF's usual errors are added, and of another.
    """
    each = [misread(bundle, par, own, None), misread(bundle, par, other, ROUGH)]
    scale: dict[str, float] = {}
    bias: dict[str, float] = {}
    coverage: dict[str, float] = {}
    for place, parameter in enumerate(par.parameters):
        # what the model's own theory shows is the fit's doing; nobody knows FEFF's error
        off = each[0].off[::2, place]
        mean = float(np.mean(off)) if len(off) > 1 else 0.0
        sure = abs(mean) > SURE * float(np.std(off)) / max(len(off), 1) ** 0.5
        shift = float(f"{mean if sure else 0.0:.3g}")
        bias[parameter.id] = shift
        pulls = [np.abs(one.off[:, place] - shift) / one.bars[:, place] for one in each]
        setting = np.concatenate([one[::2] for one in pulls])
        counted = np.concatenate([one[1::2] for one in pulls])
        if len(setting) > 1:
            scale[parameter.id] = round(float(np.quantile(setting, 0.9)) / Z90, 3)
            held = counted <= scale[parameter.id] * Z90
            coverage[parameter.id] = round(float(np.mean(held)), 3)
    return ErrorBars(scale, bias, coverage, sum(len(one.off) for one in each))


def misread(
    bundle: Path, par: Parametrisation, table: PathTable, rough: tuple[float, float] | None
) -> Misread:
    """Fit simulated spectra of a theory's paths; `rough` is as for `simulate.sample`."""
    loaded = load_bundle(bundle)
    card = loaded.card
    assert loaded.waves is not None and card.reading is not None  # a card without network has both
    fit = CrystalFit(card, loaded.waves, loaded.equation, fit_weight)
    limits = CrystalLimits(card, card.reading)
    rng = np.random.default_rng(6)
    crystals = replace(par, priors=replace(par.priors, n_s02=N_S02))
    draw = sample(rng, SPECTRA, crystals, table, rough=rough, particles=0.0)
    place, number = par.index("e0_shift"), par.index("1/n_s02")
    e0 = np.clip(rng.normal(*card.reading.e0_prior, SPECTRA), *par.bounds[place])
    draw = draw.with_e0(e0, place)
    chi, _ = path_sums(draw, table, e0)
    noise = np.exp(rng.uniform(*np.log(NOISE), SPECTRA))
    ends = np.round(rng.uniform(*K_END, SPECTRA))
    chi_k2 = (chi + noise[:, None] * rng.normal(size=chi.shape)) * K_GRID**2

    def published(one: Prediction) -> bool:
        finite = bool(np.isfinite(one.theta).all())
        return finite and one.ood <= card.thresholds.ood and limits.distrust(one) is None

    off, bars = [], []
    for end in np.unique(ends):
        rows = np.flatnonzero(ends == end)
        data = np.where(end + 1e-6 >= K_GRID, chi_k2[rows], 0.0)
        readings = fit(data, float(end), noise[rows].tolist(), [None] * len(rows))
        for row, one in zip(rows, readings, strict=True):
            if published(one):
                unit = np.ones(len(one.theta))
                unit[number] = one.theta[number]
                off.append((one.theta - draw.theta[row]) / unit)
                bars.append(np.sqrt(np.diag(one.theta_cov)) / unit)
    shape = (len(off), len(par.parameters))
    return Misread(np.reshape(off, shape), np.reshape(bars, shape))

"""Error bars of a fit about a crystal, set on simulated spectra of that crystal.

Bars are those of the fit times a factor for each parameter, after what the fit misreads on average
has been taken off R and N S0^2. Half of the spectra are made with the model's own theory, half with
another; errors that both theories share are added. All went through a simulated beamline and the
reduction. Samples are bulk crystals, and only fits count that would be published without a doubt.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exafsd.contract import K_GRID, Recipe
from exafsd.contract.grid import rows_to_grid
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.judgement import CrystalLimits
from exafsd.inference.registry import Bundle, load_bundle
from exafsd.reduction.engine import reduce_mu
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction, SpectrumError
from exafsd_training.fitting.calibrate import Z90
from exafsd_training.simulation.instrument import Atom, absorption, energy_grid
from exafsd_training.simulation.simulate import path_sums, sample
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import PathTable

#: Simulated spectra of each theory, and the ends of data, 1/angstrom.
SPECTRA, K_END = 300, (10.0, 16.0)
#: Noise of mu per point over the edge step.
NOISE = (5e-5, 1e-3)
#: Samples: N S0^2 over the crystal's N, temperature in K, and strain of the nearest bond, angstrom.
N_S02, TEMPERATURE, STRETCH = (0.7, 1.05), (10.0, 700.0), (-0.03, 0.03)
#: Share of training's errors of FEFF that come on top of a theory, and standard deviation of an
#: error of its amplitude, relative. Set on independent simulations of the crystals whose tables
#: are in the documentation.
ROUGH, AMPLITUDE = (0.15, 0.3), 0.015
#: Features of the near edge end here, eV: what comes later is fine structure, which paths have.
NEAR_EDGE = 20.0
#: FEFF's zero from the tabulated edge, mean and standard deviation, eV. Of what Larch then finds
#: for E0, spectra are fitted that are within so much of what the card holds to be likely.
ORIGIN, E0_NEAR = (10.0, 4.5), 9.0
#: Edge steps that Larch may find of a step of 1.
STEP = (0.5, 2.0)
#: Fits that are needed.
FEWEST = 10
#: What a mean error is taken off of. That of sigma2 does not hold at all temperatures.
CORRECTED = ("r", "n_s02")


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
class Simulated:
    """Spectra k^2 chi (n, 401) with their ends (n,), noise (n,) of chi and truth (n, p)."""

    chi_k2: NDArray[np.float64]
    ends: NDArray[np.float64]
    noise: NDArray[np.float64]
    theta: NDArray[np.float64]


def calibrate(bundle: Path, par: Parametrisation, own: PathTable, other: PathTable) -> ErrorBars:
    """Set error bars of a bundle whose card has none.

    All simulated spectra set them; coverage is that of either half with what the other sets.

    Parameters
    ----------
    bundle
        Its folder.
    par
        Its parameters.
    own, other
        Paths of the model's own theory and of another.
    """
    loaded = load_bundle(bundle)
    atom = Atom(loaded.card.absorber, loaded.card.edge)
    pairs = [
        pair
        for table in (own, other)
        for pair in deviations_and_bars(loaded, simulated(par, table, atom))
    ]
    off, bars = np.reshape(pairs, (-1, 2, len(par.parameters))).transpose(1, 0, 2)
    scale: dict[str, float] = {}
    bias: dict[str, float] = {}
    coverage: dict[str, float] = {}
    for place, parameter in enumerate(par.parameters if len(off) > FEWEST else ()):
        own, corrected = (off[:, place], bars[:, place]), parameter.name in CORRECTED
        mean, whole = _set(*own, corrected)
        scale[parameter.id] = round(whole, 3)
        if corrected:
            bias[parameter.id] = float(f"{mean:.3g}")
        halves = [tuple(x[i::2] for x in own) for i in (0, 1)]
        held = [
            _pull(*counted, shift) <= factor * Z90
            for counted, (shift, factor) in zip(
                halves[::-1], [_set(*half, corrected) for half in halves], strict=True
            )
        ]
        coverage[parameter.id] = round(float(np.mean(np.concatenate(held))), 3)
    return ErrorBars(scale, bias, coverage, len(off))


def _set(
    off: NDArray[np.float64], bars: NDArray[np.float64], corrected: bool
) -> tuple[float, float]:
    """What is taken off, and the factor with which 90 % intervals then hold, of one parameter."""
    shift = float(np.mean(off)) if corrected else 0.0
    return shift, float(np.quantile(_pull(off, bars, shift), 0.9)) / Z90


def _pull(off: NDArray[np.float64], bars: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    return np.abs(off - shift) / bars


def simulated(par: Parametrisation, table: PathTable, atom: Atom) -> Simulated:
    """Spectra of a theory that Larch can reduce.

    N S0^2 is that of chi(k) as Larch normalises it.
    """
    rng = np.random.default_rng(6)
    crystals = replace(par, priors=replace(par.priors, n_s02=N_S02))
    kelvin = rng.uniform(*TEMPERATURE, SPECTRA)
    draw = sample(
        rng, SPECTRA, crystals, table, kelvin, rough=ROUGH, particles=0.0, stretch=STRETCH
    )
    place, number = par.index("e0_shift"), par.index("1/n_s02")
    likely = par.parameters[place].prior.mean
    chi, _ = path_sums(draw, table, np.zeros(SPECTRA))
    chi *= 1 + rng.normal(0, AMPLITUDE, (SPECTRA, 1))
    rows: list[tuple[NDArray[np.float64], float, float, NDArray[np.float64]]] = []
    for one, theta in zip(chi, draw.theta.copy(), strict=True):
        origin = atom.energy() + rng.normal(*ORIGIN)
        energy = energy_grid(rng, atom.energy(), min(rng.uniform(*K_END) + 0.5, atom.reach()))
        mu = absorption(rng, atom, energy, one, origin, NOISE, NEAR_EDGE)
        try:
            reduced = reduce_mu(energy, mu, Recipe())
        except (SpectrumError, IndexError, ValueError, TypeError):
            continue
        theta[place] = origin - reduced.e0
        theta[number] /= reduced.edge_step
        far = abs(theta[place] - likely) > E0_NEAR
        if far or not STEP[0] < reduced.edge_step < STEP[1] or reduced.epsilon_k is None:
            continue
        # whole ends, since what depends on them is prepared once
        end = float(np.floor(reduced.k_data[1]))
        chi_k2, _ = rows_to_grid(reduced.chi[None], 0.0, end)
        rows.append((np.asarray(chi_k2[0], dtype=float), end, reduced.epsilon_k, theta))
    spectra, ends, noise, thetas = zip(*rows, strict=True) if rows else ((), (), (), ())
    shape = (len(rows), len(par.parameters))
    return Simulated(
        np.reshape(spectra, (len(rows), K_GRID.size)), np.array(ends), np.array(noise),
        np.reshape(thetas, shape),
    )  # fmt: skip


def deviations_and_bars(
    bundle: Bundle, spectra: Simulated
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """How far fits are off, and their bars, (p,) each; of N S0^2 relative to the answer."""
    card = bundle.card
    assert bundle.waves is not None and card.reading is not None  # as every card without a network
    fit = CrystalFit(card, bundle.waves, bundle.equation, fit_weight)
    limits = CrystalLimits(card, card.reading)
    number = [p.name for p in card.parameters].index("n_s02")

    def sure(one: Prediction) -> bool:
        finite = bool(np.isfinite(one.theta).all())
        doubts = not finite or limits.distrust(one) is not None or limits.flags(one)
        return not doubts and one.ood <= card.thresholds.ood

    for end in np.unique(spectra.ends):
        rows = np.flatnonzero(spectra.ends == end)
        data = np.where(end + 1e-6 >= K_GRID, spectra.chi_k2[rows], 0.0)
        readings = fit(data, float(end), spectra.noise[rows].tolist(), [None] * len(rows))
        for row, one in zip(rows, readings, strict=True):
            if sure(one):
                unit = np.ones(len(one.theta))
                unit[number] = one.theta[number]
                bars = np.sqrt(np.diag(one.theta_cov))
                yield (one.theta - spectra.theta[row]) / unit, bars / unit

"""What is believed of a spectrum and its reading, and why: the only place where that is decided.

Before a model reads a spectrum `Judge.unfit` says why it must not; of what was read `Judge.score`
and `Judge.distrust` say whether it may be believed, and `Judge.flags` what else there is to say.
"""

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from exafsd.contract.card import Card, FitReading, LimitTable, PoorFit
from exafsd.contract.grid import K_GRID
from exafsd.contract.vocabulary import Flag
from exafsd.inference.near_edge import Comparison
from exafsd.inference.predictor import Rows
from exafsd.reduction.edge_middle import middle_of
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import Floats, Prediction, ReducedSpectrum

#: data ends whose limits are kept
REMEMBERED = 256
#: eV between what is read as E0 and the material's that are flagged, and that are too much: 4 eV
#: are 0.02 to 0.03 angstrom in R. Not every mixture shows in E0 (Cu2O with CuO does not)
E0_FLAGGED, E0_WITHHELD = 2.0, 4.0


@dataclass(frozen=True)
class Judgement:
    """Whether the parameters of a spectrum may be believed; `reason` says why not.

    `score` is 1 for what is typical of training, 0.5 at the card's limit; None where nothing was
    read.
    """

    score: float | None = None
    reason: str | None = None
    flags: tuple[Flag, ...] = ()


class CrystalLimits:
    """What a fit about a crystal may come to."""

    def __init__(self, card: Card, limits: FitReading) -> None:
        self._card, self._limits = card, limits
        places = {(p.shell, p.name): i for i, p in enumerate(card.parameters)}
        self._r, self._n = places[1, "r"], places[1, "n_s02"]
        self._e0, self._expansion = places[None, "e0_shift"], places.get((None, "expansion"))
        self._judged = {(None, "e0_shift"), *((1, name) for name in ("r", "n_s02", "sigma2"))}

    def distrust(self, prediction: Prediction) -> str | None:
        """Why a fit must not be believed."""
        name, limits = self._card.name, self._limits
        off, ratio = self._off(prediction), self._ratio(prediction)
        low, high = limits.n_withheld
        if off > limits.r_withheld:
            return f"R is {off:.2f} angstrom from that of {name}'s crystal: another material"
        # a ratio that may as well be inside is a doubt and no refusal
        std = self._ratio_std(prediction)
        if not low - std <= ratio <= high + std:
            return (
                f"N S0^2 is {ratio:.2f}({100 * std:.0f}) of the crystal's N, which is not likely of"
                f" {name} ({low:g} to {high:g})"
            )
        for parameter in self._card.parameters:
            judged = (parameter.shell, parameter.name) in self._judged
            if judged and parameter.id in prediction.bound:
                return f"the fit of {name} ended on the bound of {parameter.id}: another material?"
        return None

    def flags(self, prediction: Prediction) -> list[Flag]:
        """What is unusual about a fit that is believed."""
        limits, flags = self._limits, list[Flag]()
        ratio, usual = self._ratio(prediction), limits.n_flagged
        e0 = abs(float(prediction.theta[self._e0]) - limits.e0_prior[0])
        if (
            self._off(prediction) > limits.r_flagged
            or self._strained(prediction) > limits.strain_flagged
            or not usual[0] <= ratio <= usual[1]
            or (self._card.edge_position is None and e0 > limits.e0_flagged)
        ):
            flags.append(Flag.OFF_CRYSTAL)
        if prediction.ood > limits.misfit_flagged:
            flags.append(Flag.POOR_FIT)
        if prediction.second_phase:
            flags.append(Flag.OTHER_PHASES)
        return flags

    def _off(self, prediction: Prediction) -> float:
        """R of the nearest shell less the crystal's, angstrom."""
        crystal = self._card.parameters[self._r].r_eff or 0.0
        return abs(float(prediction.theta[self._r]) - crystal)

    def _strained(self, prediction: Prediction) -> float:
        """How far apart the nearest distance and farther ones have changed from the crystal's.

        Relative changes. Where they differ, atoms are elsewhere than the structure file says.
        """
        crystal = self._card.parameters[self._r].r_eff
        if self._expansion is None or not crystal:
            return 0.0
        nearest = float(prediction.theta[self._r]) / crystal - 1
        return abs(nearest - float(prediction.theta[self._expansion]))

    def _ratio(self, prediction: Prediction) -> float:
        """N S0^2 over the crystal's N."""
        return float(prediction.theta[self._n]) / self._crystal_n

    def _ratio_std(self, prediction: Prediction) -> float:
        """Its standard deviation, 0 where that is not known."""
        variance = float(prediction.theta_cov[self._n, self._n])
        return math.sqrt(variance) / self._crystal_n if 0 < variance < math.inf else 0.0

    @property
    def _crystal_n(self) -> float:
        return self._card.parameters[self._n].degeneracy or 1.0


class Judge:
    """Judges spectra and their readings by the card of one model."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._edge = edge_energy(card.absorber, card.edge)
        usual = card.thresholds.near_edge
        self._near_edge = Comparison(usual, self._edge) if usual else None
        names = [parameter.name for parameter in card.parameters]
        single = len(card.structures) == 1 and "e0_shift" in names
        self._e0 = names.index("e0_shift") if single else None
        self._crystal = CrystalLimits(card, card.reading) if card.reading is not None else None

    def e0_shift(self, spectrum: ReducedSpectrum) -> float | None:
        """Where the material has its zero of energy, eV from a spectrum's E0; None if unknown."""
        position = self._card.edge_position
        if position is None:
            return None
        middle = middle_of(spectrum, self._edge)
        return None if middle is None else middle + position.zero - spectrum.e0

    def unfit(self, spectrum: ReducedSpectrum, k_max_min: float) -> str | None:
        """Why a spectrum must not be given to the model; None if it may.

        Parameters
        ----------
        spectrum
            Reduced by the model's recipe.
        k_max_min
            Where data must end for the settings, 1/angstrom.
        """
        card = self._card
        if Flag.WRONG_ELEMENT in spectrum.quality:
            return (
                f"the edge was found at {spectrum.e0:.0f} eV, too far from {card.absorber}"
                f" {card.edge}: wrong element, or an uncalibrated monochromator"
            )
        shortest, end = max(k_max_min, card.thresholds.k_max_min), spectrum.k_data[1]
        if end < shortest:
            return f"the data end at k = {end:.1f}; the model needs {shortest:.1f} 1/angstrom"
        return None

    def score(self, prediction: Prediction) -> float:
        """Trust in a reading."""
        return trust_score(self._card, prediction.ood)

    def distrust(self, spectrum: ReducedSpectrum, prediction: Prediction) -> str | None:
        """Why the parameters are withheld; None if they may be believed."""
        theta, cov = prediction.theta, prediction.theta_cov
        # of one number that is not finite no sum of squares is
        if not math.isfinite(np.vdot(theta, theta) + np.vdot(cov, cov)):
            if self._crystal is not None:
                return f"no fit of {self._card.name} has converged: another material?"
            return "the network's answer is not finite"
        limit = self._card.thresholds.ood
        if not prediction.ood <= limit:
            return (
                f"out of the model's domain: the spectrum does not fit {self._card.name}"
                f" (score {prediction.ood:.3g}, limit {limit:.3g})"
            )
        if self._crystal is not None:
            reason = self._crystal.distrust(prediction)
            if reason is not None:
                return reason
        off, sure = self._e0_off(spectrum, prediction)
        if off > max(E0_WITHHELD, 2 * sure):
            return (
                f"E0 is {off:.1f} eV from where {self._card.name} has it: another phase beside it,"
                " or another material"
            )
        return None

    def flags(
        self,
        spectrum: ReducedSpectrum,
        prediction: Prediction | None,
        believed: bool,
        r_factor: float | None,
        noisy_end: float | None,
        shape: bool | None = None,
    ) -> tuple[Flag, ...]:
        """What was noticed when the spectrum was read.

        Parameters
        ----------
        spectrum
            As the model was given it.
        prediction
            None where it was not read.
        believed
            Whether the parameters are published.
        r_factor
            Relative to at least half the material's usual signal.
        noisy_end
            Where the noise begins before which the network was given the spectrum, 1/angstrom;
            None if it was given all.
        shape
            What `shapes` says of it; None: it is asked here.
        """
        flags = self._edge_flags(spectrum, prediction is not None, shape)
        if noisy_end is not None:
            flags.append(Flag.NOISY_END)
        off, sure = self._e0_off(spectrum, prediction) if prediction else (0.0, 0.0)
        if believed and off > max(E0_FLAGGED, sure):
            flags.append(Flag.E0_OFF)
        if believed and prediction is not None and self._crystal is not None:
            flags += self._crystal.flags(prediction)
        noise, end = spectrum.epsilon_k, spectrum.k_data[1]
        if noisy_end is not None:
            end, r_factor = noisy_end, None  # the R-factor is that of all the data
        if not believed or prediction is None or noise is None:  # what is withheld says so itself
            return tuple(flags)
        if fits_poorly(self._card, prediction.ood, r_factor, noise, end):
            flags.append(Flag.POOR_FIT)
        return tuple(flags)

    def _e0_off(self, spectrum: ReducedSpectrum, prediction: Prediction) -> tuple[float, float]:
        """How far what is read as E0 is from the material's, and its standard deviation, eV."""
        usual = self.e0_shift(spectrum)
        if usual is None or self._e0 is None:
            return 0.0, 0.0
        variance = prediction.theta_cov[self._e0, self._e0]
        return abs(float(prediction.theta[self._e0]) - usual), float(max(variance, 0.0)) ** 0.5

    def shapes(self, spectra: Sequence[ReducedSpectrum]) -> list[bool]:
        """Whether near edges have another shape than the material's; those on one grid at once."""
        another = [False] * len(spectra)
        if self._near_edge is None:
            return another
        grids: dict[tuple[int, float], list[int]] = {}
        for i, one in enumerate(spectra):
            grids.setdefault((id(one.energy), one.e0), []).append(i)
        for members in grids.values():
            first = spectra[members[0]]
            norms = np.array([spectra[i].norm for i in members])
            differ = self._near_edge.differ(first.energy, norms, first.e0)
            for i, one in zip(members, differ, strict=True):
                another[i] = one
        return another

    def _edge_flags(self, spectrum: ReducedSpectrum, long: bool, shape: bool | None) -> list[Flag]:
        """`long`: XANES scans have too little beyond the edge for a good normalisation."""
        flags: list[Flag] = []
        usual = self._card.thresholds.edge_shift
        if usual and not usual[0] <= spectrum.e0 - self._edge <= usual[1]:
            flags.append(Flag.EDGE_MOVED)
        if long and (self.shapes([spectrum])[0] if shape is None else shape):
            flags.append(Flag.EDGE_SHAPE)
        return flags


#: why a reading is withheld beside which others fit about as well
AMBIGUOUS = (
    "ambiguous: {} (score {:.2g}) and {} fit about equally well; say which it is by"
    " inference.model or inference.structure"
)


def signal_end(chi_k2: Rows, predicted: Floats, mask: Rows) -> Floats:
    """From where on the prediction is less than what it leaves over, 1/angstrom.

    Parameters
    ----------
    chi_k2, predicted
        (n, 401) k^2 chi and the network's prediction of it.
    mask
        (401,) where there are data.

    Returns
    -------
    k
        (n,) where the power of signal less noise, summed from the start, is largest.
    """
    gain = np.cumsum(mask * (predicted**2 - (chi_k2 - predicted) ** 2), axis=1)
    return K_GRID[np.argmax(np.where(mask > 0, gain, -np.inf), axis=1)]


def trust_score(card: Card, ood: float) -> float:
    """1 is typical of training, 0.5 is at the card's threshold, 0 is far from it."""
    if not np.isfinite(ood):
        return 0.0
    return float(0.5 ** ((max(ood, 0.0) / card.thresholds.ood) ** 2))


def fits_poorly(card: Card, ood: float, r_factor: float | None, noise: float, k_end: float) -> bool:
    """Whether a spectrum fits worse than measured spectra of the model's material do.

    Parameters
    ----------
    card
        Of the model.
    ood
        Out-of-domain score.
    r_factor
        In the model's fit window, relative to at least `r_factor_denominator_floor`; None where it
        is not known.
    noise
        Of chi(k).
    k_end
        End of the data, 1/angstrom.
    """
    usual = card.thresholds.poor_fit
    if usual is None or not noise > 0:
        return False
    measures = ((ood, usual.limit), (r_factor, usual.r_factor))
    return any(
        value is not None and table is not None and value > _limit(usual, table, noise, k_end)
        for value, table in measures
    )


def r_factor_denominator_floor(card: Card, k_end: float) -> float:
    """Least signal that an R-factor is divided by: half the largest of measured spectra.

    Heat takes signal from a spectrum, but not what the background adds, so that an R-factor would
    grow with temperature without anything being wrong. Sum |chi(R)|^2 in the fit window; 0 where
    it is not known.
    """
    usual = card.thresholds.poor_fit
    if usual is None or usual.signal is None:
        return 0.0
    return float(np.interp(k_end, usual.k_end, usual.signal))


def _limit(usual: PoorFit, table: LimitTable, noise: float, k_end: float) -> float:
    """In the logarithms of noise and limit: what noise adds grows with its square."""
    log_noise, log_limits = _log_limits(usual.noise, usual.k_end, table, k_end)
    # as `np.interp`, which takes its time over single numbers
    at = math.log(noise)
    i = bisect(log_noise, at)
    if i in (0, len(log_noise)):
        return math.exp(log_limits[min(i, len(log_noise) - 1)])
    share = (at - log_noise[i - 1]) / (log_noise[i] - log_noise[i - 1])
    return math.exp(log_limits[i - 1] + share * (log_limits[i] - log_limits[i - 1]))


@lru_cache(maxsize=REMEMBERED)
def _log_limits(
    noise: tuple[float, ...], ends: tuple[float, ...], limit: LimitTable, k_end: float
) -> tuple[list[float], list[float]]:
    """For every noise, at one data end; a run has one or two of them."""
    limits = [float(np.interp(k_end, ends, row)) for row in limit]
    return [math.log(one) for one in noise], [math.log(one) for one in limits]

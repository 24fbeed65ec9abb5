"""Whether a spectrum fits worse than measured spectra of the model's material.

The out-of-domain score's own limit lets through all that FEFF's errors may do, and more. What they
do in a material is seen in measured spectra of it: where a score or an R-factor is above theirs,
something else is in the sample. Of a material without measured spectra, the scores of simulated
ones have to do.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from exafsd.contract import K_GRID, K_SIZE, to_grid
from exafsd.contract.card import LimitTable, PoorFit
from exafsd.reduction.transform import Noise, fit_window, misfit
from exafsd_training.fitting.calibrate import MISFIT_ENDS, MISFIT_NOISE, HeldOutSpectra, predict
from exafsd_training.fitting.model_folder import Model
from exafsd_training.reference.feffit import Chi
from exafsd_training.simulation.simulate import K_MIN
from exafsd_training.theory.paths import Floats

#: From one data end to the next, 1/angstrom.
END_STEP = 2.0
#: Noisy copies of a measured spectrum, and the share of them below the limit.
COPIES, BELOW = 100, 0.97
#: By how much spectra of other beamlines may exceed what those at hand have.
MARGIN = 1.25
#: Lowest limit: simulated spectra have scores of 0.10 to 0.17 in the median, copper foils at 10 to
#: 150 K from other beamlines up to 0.18, and measured foils with 30 % of Cu2S in them 0.18 to 0.38.
LEAST = 0.19
#: Lowest limit of the R-factor, a good fit by any measure: copper at 10 K has 0.004 and with photon
#: noise 0.006, foils at room temperature, which are all that its limit knows, 0.0011 to 0.0014.
LEAST_R = 0.01
#: Share of the signal of measured spectra below which R-factors are relative to that share: 70 % of
#: a phase has half the signal, and is to be found; a hot sample has less, and is not.
SIGNAL_LEFT = 0.5
#: Up to here the median of simulated spectra counts too where measured ones are better.
SIMULATED_UP_TO = 0.2


def usual_misfits(
    model: Model, spectra: Sequence[Chi], held: HeldOutSpectra, seed: int = 0
) -> PoorFit | None:
    """Score and R-factor that measured spectra stay below when noise is added.

    None if none of the spectra is believed.

    What of a spectrum is noisier than a level, or ends before a data end, says nothing there;
    where no spectrum says anything, the next higher noise and the nearest data end count.

    Parameters
    ----------
    model
        Trained model.
    spectra
        Measured spectra of its material, nothing else in them.
    held
        Simulated spectra.
    seed
        Of the noise.
    """
    rng = np.random.default_rng(seed)
    # score, then R-factor
    worst = np.full((2, len(MISFIT_NOISE), len(MISFIT_ENDS)), np.nan)
    signal = calibrate_r_factor_floors(model, spectra)
    limit = float(model.summary["calibration"]["ood_limit"])
    for spectrum in spectra:
        # limits are interpolated: one that ends between two data ends has a say in both
        for column, end in enumerate(
            end for end in MISFIT_ENDS if end - END_STEP < spectrum.k_data[1]
        ):
            k_end = min(end, spectrum.k_data[1])
            chi_k2, data = to_grid(spectrum.k, spectrum.chi, 0.0, k_end)
            mask = to_grid(spectrum.k, spectrum.chi, K_MIN, k_end)[1]
            own = noise_of(chi_k2[None], k_end)[0]
            if not own > 0 or misfits(model, chi_k2[None], mask, k_end)[0] > limit:
                continue
            for row, level in enumerate(MISFIT_NOISE):
                if level < own and MISFIT_NOISE[min(row + 1, len(MISFIT_NOISE) - 1)] < own:
                    continue
                added = np.sqrt(max(level**2 - own**2, 0.0)) * K_GRID**2 * data
                copies = chi_k2 + added * rng.normal(size=(COPIES, K_SIZE))
                usual = np.quantile(
                    misfits(model, copies, mask, k_end, signal[column]), BELOW, axis=1
                )
                worst[:, row, column] = np.fmax(worst[:, row, column], usual)
    if np.isnan(worst).all():
        return None
    measured, r_factors = map(_filled, worst)
    medians = np.array(
        [[_median(model, held, level, end) for end in MISFIT_ENDS] for level in MISFIT_NOISE]
    )
    simulated = np.minimum(medians, SIMULATED_UP_TO)
    limits = np.maximum(MARGIN * np.maximum(measured, simulated), LEAST)
    r_limits = np.maximum(MARGIN * r_factors, LEAST_R)
    return PoorFit(
        noise=MISFIT_NOISE, k_end=MISFIT_ENDS, limit=_table(limits), r_factor=_table(r_limits),
        signal=tuple(signal.round(4).tolist()),
    )  # fmt: skip


def misfits(
    model: Model, chi_k2: Floats, mask: Floats, k_end: float, signal: float = 0.0
) -> Floats:
    """Out-of-domain scores and R-factors (2, n) of spectra (n, 401) as the daemon finds them.

    The network is given what is inside the mask (401,). The R-factors are relative to at least
    `signal`.
    """
    out = predict(model.network, chi_k2 * mask, np.broadcast_to(mask, chi_k2.shape))
    window = fit_window(model.window, k_end)
    missed = misfit(chi_k2, out["chi_k2_exafs"], window, k_end)
    return np.stack([out["ood"], missed.r_factor(signal)])


def calibrate_r_factor_floors(model: Model, spectra: Sequence[Chi]) -> Floats:
    """Least signal that an R-factor is divided by, for every data end; 0 without spectra.

    `SIGNAL_LEFT` of the largest sum |chi(R)|^2 over the fit window.
    """
    signals = np.zeros(len(MISFIT_ENDS))
    for spectrum in spectra:
        for column, end in enumerate(MISFIT_ENDS):
            k_end = min(end, spectrum.k_data[1])
            chi_k2, _ = to_grid(spectrum.k, spectrum.chi, 0.0, k_end)
            window = fit_window(model.window, k_end)
            signal = misfit(chi_k2[None], np.zeros_like(chi_k2)[None], window, k_end).signal[0]
            signals[column] = max(signals[column], SIGNAL_LEFT * signal)
    return signals


def _filled(limits: Floats) -> Floats:
    """The table where spectra say nothing: of the next higher noise, and the nearest data end."""
    limits = limits.copy()
    for quiet, noisier in reversed(list(pairwise(limits))):
        quiet[:] = np.where(np.isnan(quiet), noisier, quiet)
    with_values = np.flatnonzero(~np.isnan(limits).any(axis=0))
    return np.array(
        [np.interp(range(len(MISFIT_ENDS)), with_values, row[with_values]) for row in limits]
    )


def _table(limits: Floats) -> LimitTable:
    return tuple(map(tuple, limits.round(4).tolist()))


def _median(model: Model, held: HeldOutSpectra, level: float, end: float) -> float:
    return float(np.median(predict(model.network, *held.corrupted(1, level, end))["ood"]))


def noise_of(chi_k2: Floats, k_end: float) -> Floats:
    """Noise of chi(k) of spectra (n, 401) as the daemon finds it, (n,); NaN if they are short."""
    noise = Noise.of(K_GRID, k_end)
    chi = np.divide(chi_k2, K_GRID**2, out=np.zeros_like(chi_k2, float), where=K_GRID > 0)
    return np.full(len(chi), np.nan) if noise is None else noise(chi)

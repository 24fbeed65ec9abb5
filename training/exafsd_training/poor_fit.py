"""Whether a spectrum fits worse than measured spectra of the model's material.

The out-of-domain score's own limit lets through all that FEFF's errors may do, and more. What they
do in a material is seen in measured spectra of it: where a score is above theirs, something else
is in the sample. Of a material without measured spectra, simulated ones have to do.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from exafsd.contract import K_GRID, K_SIZE, to_grid
from exafsd.contract.card import PoorFit
from exafsd.reduction.transform import Noise
from exafsd_training.calibrate import WITHHELD, Held, predict
from exafsd_training.network import END_NODES, NOISE_NODES, SOFTNESS
from exafsd_training.oracle import Chi
from exafsd_training.paths import Floats
from exafsd_training.simulate import K_MIN
from exafsd_training.workflow import Model

#: Data ends, 1/angstrom, and noise of chi(k) at which measured spectra get a usual score.
ENDS, NOISE = (*END_NODES, 18.0), NOISE_NODES
#: Noisy copies of a measured spectrum, the share of them below the limit, and by how much
#: spectra of other beamlines may exceed it.
COPIES, BELOW, MARGIN = 100, 0.97, 1.25
#: Lowest limit: simulated spectra have scores of 0.10 to 0.17 in the median, copper foils at 10 to
#: 150 K from other beamlines up to 0.18, and measured foils with 30 % of Cu2S in them 0.18 to 0.38.
LEAST = 0.19
#: Up to here the median of simulated spectra counts too where measured ones are better.
SIMULATED_UP_TO = 0.2


def simulated_scores() -> PoorFit:
    """Score that all but a few good simulated spectra stay below; the detector is made so."""
    limit = round(float(np.exp(-WITHHELD / SOFTNESS)), 4)
    return PoorFit(noise=NOISE, k_end=ENDS, limit=((limit,) * len(ENDS),) * len(NOISE))


def usual_scores(model: Model, spectra: Sequence[Chi], held: Held, seed: int = 0) -> PoorFit | None:
    """Score that measured spectra stay below when noise is added; None if none are believed.

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
    found = np.full((len(NOISE), len(ENDS)), np.nan)
    limit = float(model.summary["calibration"]["ood_limit"])
    for spectrum in spectra:
        # a spectrum that almost reaches the next data end stands for it
        for column, end in enumerate(end for end in ENDS if end - 1 <= spectrum.k_data[1]):
            k_end = min(end, spectrum.k_data[1])
            chi_k2, mask = to_grid(spectrum.k, spectrum.chi, K_MIN, k_end)
            full, _ = to_grid(spectrum.k, spectrum.chi, 0.0, k_end)
            own = noise_of(full[None], k_end)[0]
            if not own > 0 or predict(model.network, chi_k2[None], mask[None])["ood"] > limit:
                continue
            for row, level in enumerate(NOISE):
                if level < own and NOISE[min(row + 1, len(NOISE) - 1)] < own:
                    continue
                added = np.sqrt(max(level**2 - own**2, 0.0)) * K_GRID**2 * mask
                copies = chi_k2 + added * rng.normal(size=(COPIES, K_SIZE))
                ood = predict(model.network, copies, np.repeat(mask[None], COPIES, 0))["ood"]
                found[row, column] = np.fmax(found[row, column], np.quantile(ood, BELOW))
    for quiet, noisier in reversed(list(pairwise(found))):
        quiet[:] = np.where(np.isnan(quiet), noisier, quiet)
    known = np.flatnonzero(~np.isnan(found).any(axis=0))
    if not known.size:
        return None
    measured = np.array([np.interp(range(len(ENDS)), known, row[known]) for row in found])
    medians = np.array([[_median(model, held, level, end) for end in ENDS] for level in NOISE])
    simulated = np.minimum(medians, SIMULATED_UP_TO)
    limits = np.maximum(MARGIN * np.maximum(measured, simulated), LEAST)
    return PoorFit(noise=NOISE, k_end=ENDS, limit=tuple(map(tuple, limits.round(4).tolist())))


def _median(model: Model, held: Held, level: float, end: float) -> float:
    return float(np.median(predict(model.network, *held.spoilt(1, level, end))["ood"]))


def noise_of(chi_k2: Floats, k_end: float) -> Floats:
    """Noise of chi(k) of spectra (n, 401) as the daemon finds it, (n,); NaN if they are short."""
    noise = Noise.of(K_GRID, k_end)
    chi = np.divide(chi_k2, K_GRID**2, out=np.zeros_like(chi_k2, float), where=K_GRID > 0)
    return np.full(len(chi), np.nan) if noise is None else noise(chi)

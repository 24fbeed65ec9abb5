"""After training: error bars that cover what they say, and a limit for the out-of-domain score."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exafsd_training.network import NOISE_R, OOD_R, Pinn
from exafsd_training.parametrisation import Parametrisation
from exafsd_training.paths import Floats
from exafsd_training.simulate import Pool, spoil

#: Half width of a 90 % interval of a normal distribution, in standard deviations.
Z90 = 1.6449
#: Share of noise in the power below 5 angstrom up to which a spectrum counts as good.
MOST_NOISE = 0.01
#: The limit is where this share of good simulated spectra would be withheld ...
FALSE_ALARMS = 0.02
#: ... but a spectrum with so much of its power unexplained is never to be believed: neighbours
#: in the periodic table with another structure (hcp Zn, Cu2S) score 0.19 and more.
LARGEST_LIMIT = 0.15


@dataclass(frozen=True)
class Calibrated:
    """Outcome on held-out simulations, by parameter id."""

    std_scale: dict[str, float]
    coverage_90: dict[str, float]
    rms_error: dict[str, float]
    ood_limit: float
    ood_false_alarms: float
    spectra: int


def predict(model: Pinn, chi_k2: Floats, mask: Floats, batch: int = 256) -> dict[str, Floats]:
    """Outputs of the network for (n, 401) inputs."""
    parts: dict[str, list[Floats]] = {}
    for start in range(0, len(chi_k2), batch):
        rows = slice(start, start + batch)
        out = model(tf.constant(chi_k2[rows], tf.float32), tf.constant(mask[rows], tf.float32))
        for name, value in out.items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def calibrate(
    model: Pinn, parametrisation: Parametrisation, direct: Pool, instrument: Pool
) -> Calibrated:
    """Scale every std so that 90 % intervals cover 90 %, and find the score's limit.

    The scales are found on every other spectrum and the coverage is counted on the rest. The
    model's `std_scale` is set, so its covariance is calibrated from here on.
    """
    pools = (direct, instrument)
    theta = np.concatenate([p.theta for p in pools])
    flag = np.concatenate([np.ones(len(direct)), np.zeros(len(instrument))])
    noisy = np.concatenate([p.noisy for p in pools])
    k_end = np.concatenate([p.k_end for p in pools])
    inputs = [tf.constant(x, tf.float32) for x in (noisy, k_end, flag)]
    chi_k2, mask = (x.numpy() for x in spoil(*inputs, tf.constant([11, 3])))
    model.std_scale.assign(tf.ones(model.p))
    out = predict(model, chi_k2, mask)
    std = np.sqrt(np.diagonal(out["theta_cov"], axis1=1, axis2=2))
    pull = np.abs(out["theta"] - theta) / std
    scale = np.quantile(pull[::2], 0.9, axis=0) / Z90
    model.std_scale.assign(scale.astype(np.float32))
    covered = (pull[1::2] / scale < Z90).mean(0)

    window = model.taper(tf.constant(mask))
    wave = tf.constant(chi_k2, tf.float32)
    noise = model.power(wave, window, NOISE_R) / model.power(wave, window, OOD_R)
    good = noise.numpy() < MOST_NOISE
    limit = min(LARGEST_LIMIT, float(np.quantile(out["ood"][good], 1 - FALSE_ALARMS)))
    alarms = float((out["ood"][good] > limit).mean())
    ids = [parameter.id for parameter in parametrisation.parameters]
    error = np.median(np.abs(out["theta"] - theta)[good], axis=0) * 1.4826

    def named(values: Floats) -> dict[str, float]:
        return {id_: round(float(v), 6) for id_, v in zip(ids, values, strict=True)}

    return Calibrated(
        named(scale), named(covered), named(error), round(limit, 4), round(alarms, 4), len(theta)
    )

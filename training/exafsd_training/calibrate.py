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

#: Noise of chi(k) and data ends, 1/angstrom, over which error bars are calibrated, log-uniform
#: and uniform: somewhat beyond the nodes, so that the outermost have spectra on both sides.
CALIBRATED_NOISE, CALIBRATED_END = (5e-5, 1.5e-2), (7.5, 17.0)
#: Times that every spectrum is looked at; passes over the table (one smooths it, six follow the
#: scatter of some hundred spectra); spectra a node needs.
REPEATS, PASSES, LEAST_WEIGHT = 8, 2, 10.0


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

    The scale depends on noise and data end (`Pinn.calibration_nodes`). It is found on every other
    spectrum, each seen at several noise levels and ends, and the coverage is counted on the rest,
    spoilt as in training. The model's `log_scale` is set, so its covariance is calibrated from
    here on.
    """
    held = [_joined(direct, instrument, slice(start, None, 2)) for start in (0, 1)]
    model.log_scale.assign(tf.zeros_like(model.log_scale))
    log_scale = _fit_scale(model, *held[0])
    model.log_scale.assign(log_scale)

    pool, flag = held[1]
    inputs = [tf.constant(x, tf.float32) for x in (pool.noisy, pool.k_end, flag)]
    chi_k2, mask = (x.numpy() for x in spoil(*inputs, tf.constant([11, 3])))
    theta = pool.theta
    out = predict(model, chi_k2, mask)
    covered = (_pull(out, theta) < Z90).mean(0)
    nodes = model.calibration_nodes(tf.constant(chi_k2), tf.constant(mask)).numpy()
    scale = np.exp((nodes @ log_scale).mean(0))

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


def _joined(direct: Pool, instrument: Pool, rows: slice) -> tuple[Pool, Floats]:
    """Some of both kinds, and (n,) 1 for those that `spoil` has to spoil."""
    parts = direct.take(rows), instrument.take(rows)
    columns = (
        np.concatenate(both) for both in zip(*(vars(p).values() for p in parts), strict=True)
    )
    return Pool(*columns), np.repeat([1.0, 0.0], [len(p) for p in parts])


def _pull(out: dict[str, Floats], theta: Floats) -> Floats:
    """Absolute errors (n, p) in units of the std said."""
    std = np.sqrt(np.diagonal(out["theta_cov"], axis1=1, axis2=2))
    return np.abs(out["theta"] - theta) / std


def _fit_scale(model: Pinn, pool: Pool, flag: Floats) -> Floats:
    """Table (nodes, p) for `Pinn.log_scale`; the model's own must be zero.

    The 90 % quantile of the logarithm of the pull, interpolated between nodes: every node takes
    the quantile weighted by its share in each spectrum, and what is left is gone over again.
    """
    rng = np.random.default_rng(23)
    pulls, shares = [], []
    inputs = [tf.constant(x, tf.float32) for x in (pool.noisy, pool.k_end, flag)]
    for repeat in range(REPEATS):
        level = np.exp(rng.uniform(*np.log(CALIBRATED_NOISE), len(pool)))
        end = rng.uniform(*CALIBRATED_END, len(pool))
        chosen = (tf.constant(x, tf.float32) for x in (level, end))
        chi_k2, mask = spoil(*inputs, tf.constant([23, repeat]), *chosen)
        pulls.append(_pull(predict(model, chi_k2.numpy(), mask.numpy()), pool.theta))
        shares.append(model.calibration_nodes(chi_k2, mask).numpy())
    rest = np.log(np.concatenate(pulls) + 1e-9) - np.log(Z90)
    share = np.float64(np.concatenate(shares))
    table = np.zeros((share.shape[1], model.p))
    for _ in range(PASSES):
        step = np.array([weighted_quantile(rest, weight, 0.9) for weight in share.T])
        table += step
        rest = rest - share @ step
    return np.float32(table)


def weighted_quantile(values: Floats, weight: Floats, q: float) -> Floats:
    """Quantile q of every column of (n, p), rows counting by their weight (n,); 0 without any."""
    if weight.sum() < LEAST_WEIGHT:
        return np.zeros(values.shape[1])
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weight[order], axis=0) >= q * weight.sum()
    return np.take_along_axis(values, order, 0)[reached.argmax(0), np.arange(values.shape[1])]

"""After training: error bars that cover what they say, and a limit for the out-of-domain score."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exafsd.contract import K_STEP
from exafsd_training.network import END_NODES, NOISE_NODES, NOISE_R, OOD_R, Pinn
from exafsd_training.parametrisation import Parametrisation
from exafsd_training.paths import Floats
from exafsd_training.simulate import GLITCHED, Pool, spoil

#: Half width of a 90 % interval of a normal distribution, in standard deviations.
Z90 = 1.6449
#: Share of noise in the power below 5 angstrom up to which a spectrum counts as good.
MOST_NOISE = 0.01
#: Share of good simulated spectra whose misfit is above the largest usual one. Less than the 5 %
#: that may be lost, because measured spectra have some misfit more than simulated ones; but with
#: 0.01 measured copper with 30 % of its oxides in it passed, at nine tenths of the limit.
UNUSUAL = 0.03
#: Noise of chi(k) and data ends, 1/angstrom, over which the usual misfit is learnt, and times that
#: every spectrum is looked at for it.
USUAL_NOISE, USUAL_END, LOOKS = (5e-5, 4e-3), (7.5, 20.0), 3
#: The score's limit: it is made so.
OOD_LIMIT = 1.0
#: Rounds of finding the table: a spectrum's noise is estimated, so its neighbours' nodes have a
#: small share in it, and each round corrects for what they did.
ROUNDS = 5


@dataclass(frozen=True)
class Held:
    """Spectra that training has not seen; `direct` (n,) is 1 for those `spoil` has to spoil."""

    pool: Pool
    direct: Floats

    @classmethod
    def of(cls, direct: Pool, instrument: Pool) -> "Held":
        """Both kinds together."""
        both = zip(vars(direct).values(), vars(instrument).values(), strict=True)
        pool = Pool(*(np.concatenate(pair) for pair in both))
        return cls(pool, np.repeat(np.float32([1, 0]), [len(direct), len(instrument)]))

    def __len__(self) -> int:
        return len(self.pool)

    def spoilt(
        self,
        seed: int,
        level: float | Floats | None = None,
        end: float | Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Inputs and masks (n, 401) as in training, or of given noise of chi(k) and data end.

        With a level given there are no glitches.
        """
        n = len(self)
        pool = self.pool
        inputs = [tf.constant(x, tf.float32) for x in (pool.noisy, pool.k_end, self.direct)]
        chosen = [
            None if x is None else tf.constant(np.broadcast_to(np.float32(x), n))
            for x in (level, end)
        ]
        share = GLITCHED if level is None else 0.0
        chi_k2, mask = spoil(*inputs, tf.constant([seed, 9]), *chosen, glitched=share)
        return chi_k2.numpy(), mask.numpy()


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


def calibrate(model: Pinn, parametrisation: Parametrisation, held: Held) -> Calibrated:
    """Scale every std so that 90 % intervals cover 90 %, and find the score's limit.

    The scale depends on noise and data end (`Pinn.calibration_nodes`). It is found with the noise
    and the end of every node; the coverage is counted on the same spectra spoilt as in training.
    The model's `log_scale` and `usual_misfit` are set, so it is calibrated from here on.
    """
    model.log_scale.assign(_fit_scale(model, held))
    model.usual_misfit.assign(_fit_usual_misfit(model, held))
    model.usual_misfit_known.assign(1.0)
    chi_k2, mask = held.spoilt(seed=11)
    theta = held.pool.theta
    out = predict(model, chi_k2, mask)
    covered = (_pull(out, theta) < Z90).mean(0)
    nodes = model.calibration_nodes(tf.constant(chi_k2), tf.constant(mask)).numpy()
    scale = np.exp((nodes @ model.log_scale.numpy()).mean(0))

    good = _is_good(model, chi_k2, mask)
    alarms = float((out["ood"][good] > OOD_LIMIT).mean())
    ids = [parameter.id for parameter in parametrisation.parameters]
    error = np.median(np.abs(out["theta"] - theta)[good], axis=0) * 1.4826

    def named(values: Floats) -> dict[str, float]:
        return {id_: round(float(v), 6) for id_, v in zip(ids, values, strict=True)}

    return Calibrated(
        named(scale), named(covered), named(error), OOD_LIMIT, round(alarms, 4), len(theta)
    )


def _pull(out: dict[str, Floats], theta: Floats) -> Floats:
    """Absolute errors (n, p) in units of the std said."""
    std = np.sqrt(np.diagonal(out["theta_cov"], axis1=1, axis2=2))
    return np.abs(out["theta"] - theta) / std


def _is_good(model: Pinn, chi_k2: Floats, mask: Floats) -> Floats:
    """(n,) whether there is much more signal than noise."""
    wave, mask_ = tf.constant(chi_k2), tf.constant(mask)
    window = model.taper(mask_)
    share = model.power(wave, window, NOISE_R) / model.power(wave, window, OOD_R)
    return share.numpy() < MOST_NOISE


def _fit_usual_misfit(model: Pinn, held: Held) -> Floats:
    """Coefficients (5 + 2 p,) for `Pinn.usual_misfit`: least squares, raised to a rare misfit."""
    rng = np.random.default_rng(17)
    signs, left = [], []
    for look in range(LOOKS):
        level = np.exp(rng.uniform(*np.log(USUAL_NOISE), len(held)))
        end = np.minimum(rng.uniform(*USUAL_END, len(held)), held.pool.k_end)
        chi_k2, mask = held.spoilt(300 + look, level, end)
        good = _is_good(model, chi_k2, mask)
        out = predict(model, chi_k2[good], mask[good])
        inputs = (chi_k2[good], mask[good], out["theta"], out["chi_k2_pred"])
        found = model.signs(*(tf.constant(x, tf.float32) for x in inputs))
        signs.append(np.float64(found[0].numpy()))
        left.append(np.float64(found[1].numpy()))
    a, b = np.concatenate(signs), np.concatenate(left)
    ridge = 1e-3 * len(a) * np.eye(a.shape[1])
    ridge[0, 0] = 0.0
    coefficients = np.linalg.solve(a.T @ a + ridge, a.T @ b)
    coefficients[0] += np.quantile(b - a @ coefficients, 1 - UNUSUAL)
    return np.float32(coefficients)


def _fit_scale(model: Pinn, held: Held) -> Floats:
    """Table (nodes, p) for `Pinn.log_scale`: at every node the 90 % quantile of the pull is Z90."""
    model.log_scale.assign(tf.zeros_like(model.log_scale))
    cells = [(level, end) for level in NOISE_NODES for end in END_NODES]
    rest, shares = [], []
    for place, (level, end) in enumerate(cells):
        chi_k2, mask = held.spoilt(100 + place, level, end)
        reached = held.pool.k_end >= end - K_STEP
        out = predict(model, chi_k2[reached], mask[reached])
        rest.append(np.log(_pull(out, held.pool.theta[reached]) / Z90 + 1e-9))
        inputs = tf.constant(chi_k2[reached]), tf.constant(mask[reached])
        shares.append(np.float64(model.calibration_nodes(*inputs).numpy()))
    table = np.zeros((len(cells), model.p))
    for _ in range(ROUNDS):
        found = zip(rest, shares, strict=True)
        table += np.array([np.quantile(r - share @ table, 0.9, axis=0) for r, share in found])
    return np.float32(table)

"""After training: error bars that cover what they say, and a limit for the out-of-domain score."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exafsd.contract import K_STEP
from exafsd.contract.card import PoorFit
from exafsd_training.model.network import END_NODES, NOISE_NODES, NOISE_R, OOD_R, SOFTNESS, Pinn
from exafsd_training.simulation.corruption import GLITCHED, corrupt_arrays
from exafsd_training.simulation.simulate import Pool
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats

#: Half width of a 90 % interval of a normal distribution, in standard deviations.
Z90 = 1.6449
#: Share of noise in the power below 5 angstrom up to which a spectrum counts as good.
MOST_NOISE = 0.01
#: Share of good simulated spectra in which the detector takes another phase for likely, at every
#: noise and data end; at least even odds, 0, count as likely.
SEEN_IN_GOOD, LOWEST_LIMIT = 0.03, 0.0
#: Nothing is read where the logarithm of the odds is higher than likely by so much. Measured
#: spectra differ from simulated ones in more than their noise: without it ZnO.xdi, whose detector
#: drifts, is lost. What lies between has the flag ``poor_fit``
#: (`exafsd_training.studies.poor_fit`).
WITHHELD = 2.0
#: The score's limit: it is made so.
OOD_LIMIT = 1.0
#: Data ends, 1/angstrom, and noise of chi(k) at which measured spectra get a usual misfit. It
#: grows with the square of noise: between nodes a factor of 4 apart, limits are half too high.
MISFIT_ENDS, MISFIT_NOISE = (*END_NODES, 18.0), (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
#: Rounds of finding the table: a spectrum's noise is estimated, so its neighbours' nodes have a
#: small share in it, and each round corrects for what they did.
ROUNDS = 5
#: Spectra from which on XLA, which takes some seconds to compile the network, pays: the graph is
#: four times as fast.
MANY = 1_000


@dataclass(frozen=True)
class HeldOutSpectra:
    """Spectra that training has not seen; `direct` (n,) is 1 for what is still to be corrupted."""

    pool: Pool
    direct: Floats

    @classmethod
    def of(cls, direct: Pool, instrument: Pool) -> "HeldOutSpectra":
        """Both kinds together."""
        both = zip(vars(direct).values(), vars(instrument).values(), strict=True)
        pool = Pool(*(np.concatenate(pair) for pair in both))
        return cls(pool, np.repeat(np.float32([1, 0]), [len(direct), len(instrument)]))

    def __len__(self) -> int:
        return len(self.pool)

    def corrupted(
        self,
        seed: int,
        level: float | Floats | None = None,
        end: float | Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Inputs and masks (n, 401) as in training, or of given noise of chi(k) and data end.

        With a level given there are no glitches.
        """
        share = GLITCHED if level is None else 0.0
        return corrupt_arrays(
            self.pool.noisy, self.pool.k_end, self.direct, (seed, 9), level, end, share
        )


@dataclass(frozen=True)
class Calibrated:
    """Outcome on held-out simulations, by parameter id."""

    std_scale: dict[str, float]
    coverage_90: dict[str, float]
    rms_error: dict[str, float]
    ood_limit: float
    ood_false_alarms: float
    spectra: int


def predict(
    model: Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    chi_k2: Floats,
    mask: Floats,
    batch: int = 256,
) -> dict[str, Floats]:
    """Outputs of the network, or of its graph, for (n, 401) inputs."""
    parts: dict[str, list[Floats]] = {}
    for start in range(0, len(chi_k2), batch):
        # of many spectra the last batch is as large as the others: XLA compiles for a size
        first = max(0, min(start, len(chi_k2) - batch))
        rows = slice(first, start + batch)
        out = model(tf.constant(chi_k2[rows], tf.float32), tf.constant(mask[rows], tf.float32))
        for name, value in out.items():
            parts.setdefault(name, []).append(value.numpy()[start - first :])
    return {name: np.concatenate(values) for name, values in parts.items()}


def calibrate(
    model: Pinn,
    parametrisation: Parametrisation,
    held: HeldOutSpectra,
    report: Callable[[float], None] = lambda share: None,
) -> Calibrated:
    """Scale every std so that 90 % intervals cover 90 %, and find the score's limit.

    The scale depends on noise and data end (`Pinn.calibration_nodes`). It is found with the noise
    and the end of every node; the coverage is counted on the same spectra as in training.
    The model's `log_scale` and `detector_limit` are set, so it is calibrated from here on.
    `report` is called with the share done.
    """
    scale, limit = _fit_nodes(model, held, report)
    model.log_scale.assign(scale)
    model.detector_limit.assign(limit)
    chi_k2, mask = held.corrupted(seed=11)
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


def simulated_scores() -> PoorFit:
    """Score that all but a few good simulated spectra stay below; the detector is made so."""
    limit = round(float(np.exp(-WITHHELD / SOFTNESS)), 4)
    return PoorFit(
        noise=MISFIT_NOISE,
        k_end=MISFIT_ENDS,
        limit=((limit,) * len(MISFIT_ENDS),) * len(MISFIT_NOISE),
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


def _fit_nodes(
    model: Pinn, held: HeldOutSpectra, report: Callable[[float], None]
) -> tuple[Floats, Floats]:
    """Tables for `Pinn.log_scale` (nodes, p) and `Pinn.detector_limit` (nodes,).

    At every node the 90 % quantile of the pull is Z90, and of the odds the `SEEN_IN_GOOD` highest
    are above the limit before `WITHHELD` is added.
    """
    model.log_scale.assign(tf.zeros_like(model.log_scale))
    graph = tf.function(model, jit_compile=True) if len(held) >= MANY else model
    cells = [(level, end) for level in NOISE_NODES for end in END_NODES]
    pulls, odds, shares = [], [], []
    for place, (level, end) in enumerate(cells):
        chi_k2, mask = held.corrupted(100 + place, level, end)
        reached = held.pool.k_end >= end - K_STEP
        out = predict(graph, chi_k2[reached], mask[reached])
        report(place / len(cells))
        pulls.append(np.log(_pull(out, held.pool.theta[reached]) / Z90 + 1e-9))
        inputs = tf.constant(chi_k2[reached]), tf.constant(mask[reached])
        odds.append(_odds(model, *inputs, out)[:, None])
        shares.append(np.float64(model.calibration_nodes(*inputs).numpy()))
    limit = _quantiles(odds, shares, 1 - SEEN_IN_GOOD)[:, 0]
    return np.float32(_quantiles(pulls, shares, 0.9)), np.float32(
        np.maximum(limit, LOWEST_LIMIT) + WITHHELD
    )


def _quantiles(values: list[Floats], shares: list[Floats], q: float) -> Floats:
    """Table (cells, c) whose interpolation the values (n, c) of every cell exceed in 1 - q."""
    table = np.zeros((len(values), values[0].shape[1]))
    for _ in range(ROUNDS):
        weighted = zip(values, shares, strict=True)
        table += np.array([np.quantile(v - share @ table, q, axis=0) for v, share in weighted])
    return table


def _odds(model: Pinn, chi_k2: tf.Tensor, mask: tf.Tensor, out: dict[str, Floats]) -> Floats:
    outputs = (out[name] for name in ("theta", "chi_k2_exafs", "chi_k2_pred"))
    features = model.detector_features(chi_k2 * mask, mask, *outputs)
    return np.float64(model.odds(features).numpy())

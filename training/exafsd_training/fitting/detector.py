"""The detector of other phases: trained after the network, on spectra with and without one.

What a second phase does to a spectrum can hardly be told from what FEFF gets wrong by looking at
how much is left over, but it can by looking at where. So the detector sees both kinds, and FEFF's
errors larger than they are taken to be elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exafsd_training.fitting.fit import Data, Settings, adam
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.corruption import corrupt
from exafsd_training.theory.paths import Floats

#: FEFF's errors are so many times as large in what the detector learns from, a range.
ROUGH = (1.0, 3.0)
#: Share of every hidden layer left out at random, and how far from sure the truth is said to be: no
#: measured spectrum is like a simulated one in every detail.
DROPOUT, DOUBT = 0.3, 0.02
#: Share of another phase: from where it should be seen to half, and in some of the spectra to all.
SHARE, MOSTLY = (0.12, 0.55), (0.15, 1.0)
#: Share of spectra that went through the instrument, and to which one of these lends what the
#: instrument did to it.
THROUGH, BORROWED = 0.1, 0.35
BATCH = 512
#: Learning rate and weight decay.
RATE, DECAY = 2e-3, 1e-4


@dataclass(frozen=True)
class Examples:
    """What the detector learns from: the network's own phase, and others; (n, 401) k^2 chi."""

    own: Floats
    others: Floats


def learn(
    model: Pinn,
    data: Data,
    examples: Examples,
    settings: Settings,
    report: Callable[[float, float], None] = lambda share, loss: None,
) -> float:
    """Train the detector of a trained network, in place; returns the last loss.

    Parameters
    ----------
    model
        Network; only its detector is changed.
    data
        Spectra that went through the instrument.
    examples
        Clean spectra without another phase, and of others.
    settings
        Seed, `detector_spectra` and `detector_steps`.
    report
        Called now and then with the share done and the loss.
    """
    features, mixed = _detector_features(model, data, examples, settings)
    variables = tuple(v for layer in model.detector for v in layer.trainable_variables)
    optimiser = adam(variables, decay=DECAY)

    @tf.function(autograph=False)
    def step(features: tf.Tensor, truth: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            said = model.odds(features, DROPOUT)
            off = tf.nn.sigmoid_cross_entropy_with_logits(truth * (1 - 2 * DOUBT) + DOUBT, said)
            loss = tf.reduce_mean(off)
        optimiser.learning_rate.assign(rate)
        optimiser.apply(tape.gradient(loss, variables), variables)
        return loss

    rng = np.random.default_rng((settings.seed, 2))
    losses: list[float] = []
    for number in range(settings.detector_steps):
        rows = rng.integers(0, len(features), BATCH)
        done = number / settings.detector_steps
        rate = RATE * min(1.0, (number + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * done))
        chosen = (tf.constant(x[rows]) for x in (features, mixed))
        loss = step(*chosen, tf.constant(rate, tf.float32))
        if number % 100 == 99:
            losses.append(float(loss))
            report(done, float(np.mean(losses[-10:])))
    return float(np.mean(losses[-10:])) if losses else float("nan")


def _detector_features(
    model: Pinn, data: Data, examples: Examples, settings: Settings
) -> tuple[Floats, Floats]:
    """`Pinn.detector_features` (n, m), and 1 where another phase is in it (n,); float32."""

    @tf.function(jit_compile=True, autograph=False)  # six times as fast as without
    def features(chi_k2: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        out = model(chi_k2, mask)
        outputs = (out[name] for name in ("theta", "chi_k2_exafs", "chi_k2_pred"))
        return model.detector_features(chi_k2 * mask, mask, *outputs)

    rng = np.random.default_rng((settings.seed, 3))
    rows, truth = [], []
    for number in range(-(-settings.detector_spectra // BATCH)):
        chi_k2, mask, mixed = _batch(rng, data, examples, (settings.seed, number))
        rows.append(features(chi_k2, mask).numpy())
        truth.append(mixed)
    return np.concatenate(rows), np.concatenate(truth)


def _batch(
    rng: np.random.Generator, data: Data, examples: Examples, seed: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, Floats]:
    """Inputs and masks (n, 401), and 1 where another phase is in the spectrum (n,)."""
    own = examples.own[rng.integers(0, len(examples.own), BATCH)]
    other = examples.others[rng.integers(0, len(examples.others), BATCH)]
    lender = data.instrument.take(rng.integers(0, len(data.instrument), BATCH))
    kind = rng.random(BATCH)
    through, borrowed = kind < THROUGH, kind < THROUGH + BORROWED
    own = own + np.where(borrowed[:, None], lender.noisy - lender.clean, 0)
    own = np.where(through[:, None], lender.noisy, own)
    own = own * np.exp(rng.uniform(-0.3, 0.3, (BATCH, 1)))
    mixed = np.float32(rng.random(BATCH) < 0.5)
    mostly, largest = MOSTLY
    share = np.where(
        rng.random(BATCH) < mostly,
        rng.uniform(SHARE[1], largest, BATCH),
        rng.uniform(*SHARE, BATCH),
    )
    share = (share * mixed)[:, None]
    chi_k2 = (1 - share) * own + share * other
    k_end = np.where(borrowed, lender.k_end, data.direct.k_end.max())
    inputs = (tf.constant(np.float32(x)) for x in (chi_k2, k_end, ~borrowed))
    return *corrupt(*inputs, tf.constant(seed)), mixed

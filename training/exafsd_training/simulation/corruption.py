"""What a measurement does to a spectrum: noise, what AUTOBK leaves, glitches, and an end in k."""

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID, K_SIZE, K_STEP
from exafsd_training.simulation.simulate import K_END, K_MIN
from exafsd_training.theory.paths import Floats

#: Noise of chi(k) at 8 1/angstrom, log-uniform, no unit.
NOISE = (1e-5, 3e-2)
#: Share of spectra with glitches: one out of twelve.
GLITCHED = 0.08


def sample_k_end(n: int, seed: tf.Tensor) -> tf.Tensor:
    """(n,) data ends in 1/angstrom: three out of five 11 ... 17, others anywhere."""
    u, v = tf.unstack(tf.random.stateless_uniform((2, n), seed))
    usual = 11 + 6 * u
    anywhere = K_END[0] + (K_END[1] - K_END[0]) * u
    return tf.where(v < 0.6, usual, anywhere)


def corrupt(
    noisy: tf.Tensor,
    k_end: tf.Tensor,
    direct: tf.Tensor,
    seed: tf.Tensor,
    level: tf.Tensor | None = None,
    end: tf.Tensor | None = None,
    glitched: float = GLITCHED,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Input of the network: noise, leakage, glitches and a mask.

    Parameters
    ----------
    noisy
        (b, 401) k^2 chi.
    k_end
        (b,) end of what is there, 1/angstrom.
    direct
        (b,) 1 where nothing has been corrupted yet, 0 for instrument spectra.
    seed
        (2,) int32 of stateless randomness.
    level
        (b,) noise of chi(k), white and the same at every k; drawn at random by default.
        Instrument spectra get it beside the noise they have.
    end
        (b,) data end in 1/angstrom, drawn at random by default; never beyond `k_end`.
    glitched
        Share of spectra with glitches.

    Returns
    -------
    chi_k2, mask
        (b, 401) each, as `exafsd.contract.to_grid` makes them.
    """
    k = tf.constant(K_GRID, tf.float32)
    b = tf.shape(noisy)[0]
    seeds = tf.unstack(tf.random.split(seed, 12))

    def normal(i: int, *shape: object) -> tf.Tensor:
        return tf.random.stateless_normal((b, *shape), seeds[i])

    def uniform(i: int, lo: float, hi: float, *shape: object) -> tf.Tensor:
        return tf.random.stateless_uniform((b, *shape), seeds[i], lo, hi)

    # white noise; with constant time per energy, bins of equal k gather more at high k
    random_level = tf.exp(uniform(0, float(np.log(NOISE[0])), float(np.log(NOISE[1])), 1))
    shape = (tf.maximum(k, 1.0) / 8) ** (-uniform(1, -0.2, 0.8, 1))
    white = normal(2, K_SIZE)
    # beam and monochromator vibrations are correlated over some points
    smoothed = white[:, 2:-2] + white[:, 1:-3] + white[:, 3:-1] + white[:, :-4] + white[:, 4:]
    smoothed = tf.pad(smoothed / np.sqrt(5), [[0, 0], [2, 2]])
    correlated = tf.where(uniform(3, 0, 1, 1) < 0.3, smoothed, white)
    if level is None:
        noise = random_level * shape * correlated * k**2
        # a quarter of the instrument spectra gets more noise than it already has
        noise *= tf.where(uniform(4, 0, 1, 1) < 0.25, 1.0, direct[:, tf.newaxis])
    else:
        noise = level[:, tf.newaxis] * white * k**2

    # what AUTOBK leaves below or takes away at its R limit of 1 angstrom
    r = uniform(5, 0.2, 1.15, 3)[..., tf.newaxis]
    wave = tf.sin(2 * k * r + uniform(6, 0, 2 * np.pi, 3)[..., tf.newaxis])
    size = 0.03 * normal(7, 3)[..., tf.newaxis] * direct[:, tf.newaxis, tf.newaxis]
    leak = tf.reduce_sum(size * wave, 1) * tf.minimum(k, 6.0) / 3

    # glitches: one or two points far off
    where = uniform(8, 0, 1, K_SIZE) < 0.004
    there = uniform(9, 0, 1, 1) < glitched
    glitch = tf.where(where & there, normal(10, K_SIZE) * 0.04 * k**2, 0.0)

    end = tf.minimum(k_end, sample_k_end(b, seeds[11]) if end is None else end)
    half = K_STEP / 2
    mask = tf.cast((k >= K_MIN - half) & (k <= end[:, tf.newaxis] + half), tf.float32)
    return (noisy + noise + leak + glitch) * mask, mask


def corrupt_arrays(
    noisy: Floats,
    k_end: float | Floats,
    direct: float | Floats,
    seed: tuple[int, int],
    level: float | Floats | None = None,
    end: float | Floats | None = None,
    glitched: float = GLITCHED,
) -> tuple[Floats, Floats]:
    """`corrupt` for arrays: inputs and masks (n, 401); what is not (n, 401) may be one number."""
    columns = [
        None if x is None else tf.constant(np.broadcast_to(np.float32(x), len(noisy)))
        for x in (k_end, direct, level, end)
    ]
    chi_k2, mask = corrupt(
        tf.constant(noisy, tf.float32), *columns[:2], tf.constant(seed), *columns[2:], glitched
    )
    return chi_k2.numpy(), mask.numpy()

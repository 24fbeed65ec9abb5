"""Simulated spectra: sampled structures, and path sums of many shells with FEFF's errors.

Two kinds are made. *Direct* ones are path sums on the contract grid, corrupted afresh in every
batch (`exafsd_training.simulation.corruption`). *Instrument* ones go through mu(E), noise, an
energy grid and Larch's own reduction (`exafsd_training.simulation.instrument`), because AUTOBK's
bias is not leakage added afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID, K_SIZE
from exafsd.inference.refinement.theory import error_shapes
from exafsd_training.simulation.theory_bias import theory_bias
from exafsd_training.theory.equation import PathSum
from exafsd_training.theory.parametrisation import (
    EXPANSION_SCATTER,
    R_PRIOR,
    R_SCATTER,
    Parametrisation,
)
from exafsd_training.theory.paths import Floats, PathTable
from exafsd_training.theory.priors import E0_ANYWHERE, E0_REACH, vibrations
from exafsd_training.theory.shells import Shell, sigma2_ties
from exafsd_training.theory.thermal import draw_temperature

#: Start of the validity mask, 1/angstrom: below it lies XANES, which no path sum describes.
K_MIN = 2.5
#: Data ends seen in training, 1/angstrom.
K_END = (7.5, 20.0)
#: Farthest paths of the simulated truth, angstrom; the network's own equation ends nearer.
REFF_MAX = 7.0
#: What FEFF's errors are made of, (8, 401).
ERROR_SHAPES = error_shapes(K_GRID)
#: Their sizes: of each of the first seven, and of the last; amplitude (relative) and phase (rad).
SMOOTH, LOW = (0.01, 0.015), (0.4, 0.6)
#: How far paths are off their ties: amplitude and sigma2 relatively, deltar relative to reff.
LOOSE = (0.12, 0.0015, 0.12)
#: Share of samples that are particles, whose farther shells are weaker.
PARTICLES = 0.3
#: Spread of the logarithm of the amplitude that all other paths share.
FAR_AMPLITUDE = 0.12
BATCH = 128
#: Spectra from which on XLA, which takes two seconds to compile a path sum and halves its time,
#: pays.
MANY = 5_000
#: A pool's fields as they are called in its file; folders of trained models have such files.
KEYS = ("theta", "clean", "noisy", "k_end", "theory_bias")


@dataclass(frozen=True)
class Pool:
    """Spectra with their truth; n spectra, p parameters.

    `theta` (n, p); `clean` and `noisy` (n, 401) k^2 chi in 1/angstrom^2; `k_end` (n,) data end
    in 1/angstrom. Of direct spectra `noisy` equals `clean`. `theory_bias` (n, ends, p) of
    `exafsd_training.simulation.theory_bias`.
    """

    theta: Floats
    clean: Floats
    noisy: Floats
    k_end: Floats
    theory_bias: Floats

    def __len__(self) -> int:
        return len(self.theta)

    def take(self, rows: slice | Floats) -> "Pool":
        """Some of the spectra."""
        return Pool(*(values[rows] for values in vars(self).values()))

    def save(self, file: object) -> None:
        """Write as npz, float32."""
        np.savez(file, **dict(zip(KEYS, map(np.float32, vars(self).values()), strict=True)))

    @classmethod
    def load(cls, file: object) -> "Pool":
        """Read what `save` wrote."""
        with np.load(file) as data:  # type: ignore[arg-type]
            return cls(*(data[key] for key in KEYS))


@dataclass(frozen=True)
class Draw:
    """Sampled structures: theta (n, p) and parameters of every path of the truth (n, paths).

    `errors` of `feff_errors` belong to the groups of paths `groups` (paths, g).
    """

    theta: Floats
    amplitude: Floats
    deltar: Floats
    sigma2: Floats
    c3: Floats
    groups: Floats
    errors: tuple[Floats, Floats]

    def __len__(self) -> int:
        return len(self.theta)

    def with_e0(self, e0: Floats, index: int) -> "Draw":
        """The same structures with other e0_shift (n,), eV."""
        theta = self.theta.copy()
        theta[:, index] = e0
        return replace(self, theta=theta)

    @classmethod
    def joined(cls, draws: Sequence["Draw"]) -> "Draw":
        """Draws of the same paths one after another."""
        names = ("theta", "amplitude", "deltar", "sigma2", "c3")
        arrays = (np.concatenate([getattr(d, name) for d in draws]) for name in names)
        gain, phase = (np.concatenate(x) for x in zip(*(d.errors for d in draws), strict=True))
        return cls(*arrays, draws[0].groups, (gain, phase))


def _clip(values: Floats, bounds: tuple[float, float]) -> Floats:
    # a sigmoid cannot reach its bounds
    margin = 0.01 * (bounds[1] - bounds[0])
    return np.clip(values, bounds[0] + margin, bounds[1] - margin)


def sample(
    rng: np.random.Generator,
    n: int,
    parametrisation: Parametrisation,
    truth: PathTable,
    temperature: Floats | None = None,
    rough: tuple[float, float] | None = None,
    particles: float = PARTICLES,
    stretch: tuple[float, float] = R_PRIOR,
) -> Draw:
    """Draw structures.

    Temperatures from 5 to 1000 K through Einstein oscillators, in part with static disorder, with
    the C3 that belongs to them (`exafsd_training.theory.thermal`).

    Parameters
    ----------
    rng
        Source of randomness.
    n
        Number of structures.
    parametrisation
        What theta means.
    truth
        Paths of the simulated spectra, more than the parametrisation's own.
    temperature
        (n,) K, drawn by default.
    rough
        FEFF's errors are times a factor between these, another for every spectrum, and what ties
        are off by times its square root.
    particles
        Share of samples that are particles.
    stretch
        Of the nearest bond against the crystal's, a range, angstrom.
    """
    par = parametrisation
    shells, priors = par.shells, par.priors
    theta = np.zeros((n, len(par.parameters)))
    if temperature is None:
        temperature = draw_temperature(rng, n)
    moved = vibrations(rng, temperature, shells, priors)

    wide = rng.random(n) < E0_ANYWHERE
    e0 = np.where(wide, rng.uniform(-E0_REACH, E0_REACH, n), rng.normal(*priors.e0, n))
    number = rng.uniform(*priors.n_s02, n) * par.degeneracy
    stretched = rng.uniform(*stretch, n)
    expansion = stretched / shells[0].reff + rng.normal(0, EXPANSION_SCATTER, n)

    def put(id_: str, values: Floats) -> Floats:
        index = par.index(id_)
        theta[:, index] = _clip(values, par.parameters[index].bounds)
        return theta[:, index]

    put("e0_shift", e0)
    number = put("1/n_s02", number)
    put("1/r", shells[0].reff + stretched)
    put("1/c3", moved[0].c3)
    for shell in par.fitted[1:]:
        strained = shell.reff * (1 + stretched / shells[0].reff)
        put(f"{shell.number}/r", strained + rng.normal(0, R_SCATTER, n))
    if any(parameter.name == "expansion" for parameter in par.parameters):
        expansion = put("expansion", expansion)
    for shell, motion in zip(shells, moved, strict=True):
        put(f"{shell.number}/sigma2", motion.sigma2)

    own = len(par.table)
    far = truth.paths[own:]
    ties = par.ties
    weights = np.array([sigma2_ties(p, shells) for p in far]).reshape(len(far), len(shells))
    rows = [par.index(f"{shell.number}/sigma2") for shell in shells]
    far_sigma2 = theta[:, rows] @ weights.T * rng.uniform(0.8, 1.5, (n, 1))
    far_deltar = truth.reff[own:] * (expansion[:, None] + rng.normal(0, 0.001, (n, len(far))))
    deltar = np.hstack([ties.deltar_0 + theta @ ties.deltar, far_deltar])
    path_sigma2 = np.hstack([theta @ ties.sigma2, far_sigma2])
    cumulant = np.hstack([theta @ ties.c3, np.zeros((n, len(far)))])
    # the ties are not exact in nature: loosen them for all but what theta itself names
    loose = np.ones(len(truth))
    loose[[i for shell in par.fitted for i in shell.paths]] = 0.0
    small = rng.random((n, 1)) < particles
    damped = np.where(small, rng.uniform(0.6, 1.0, (n, 1)), 1.0)
    # exactly 1 by default, and then nothing is drawn: older pools stay what they are
    worse = np.exp(rng.uniform(*np.log(rough), (n, 1))) if rough else np.ones((n, 1))
    off = np.sqrt(worse)
    damped = damped * np.exp(off * rng.normal(0, FAR_AMPLITUDE, (n, 1)))
    amplitude = 1 + loose * (damped * np.exp(off * rng.normal(0, LOOSE[0], deltar.shape)) - 1)
    # a mean free path (about 10 angstrom) off by a tenth weakens longer paths more
    lengths = truth.reff - shells[0].reff
    amplitude = amplitude * np.exp(-2 * lengths / 10 * rng.normal(0, 0.1, (n, 1)))
    amplitude = amplitude * (number / par.degeneracy)[:, None]
    deltar = deltar + loose * truth.reff * off * rng.normal(0, LOOSE[1], deltar.shape)
    path_sigma2 = path_sigma2 * np.exp(loose * off * rng.normal(0, LOOSE[2], deltar.shape))
    groups = error_groups(truth, shells)
    gain, phase = (x * worse[..., None] for x in feff_errors(rng, n, groups.shape[1]))
    return Draw(theta, amplitude, deltar, path_sigma2, cumulant, groups, (gain, phase))


def error_groups(truth: PathTable, shells: Sequence[Shell]) -> Floats:
    """(paths, groups) 0 or 1: paths that share an error of FEFF's.

    The nearest shell is a group; of the other paths, single and multiple scattering by the same
    elements are one each. Without this, far shells would tell more of E0 and N S0^2 than they
    do: FEFF is not wrong for all atoms in the same way.
    """
    nearest = set(shells[0].paths)
    names = [
        (i in nearest, path.nleg > 2, frozenset(path.atoms[1:]))
        for i, path in enumerate(truth.paths)
    ]
    groups = list(dict.fromkeys(names))
    return np.array([[name == group for group in groups] for name in names], float)


def feff_errors(rng: np.random.Generator, n: int, groups: int) -> tuple[Floats, Floats]:
    """Relative amplitude and phase (rad) errors of FEFF in `ERROR_SHAPES`, (n, groups, 8) each.

    Some per cent and hundredths of a radian everywhere (periods longer than 13 1/angstrom, or
    they would be structure), and more below 5 1/angstrom, where muffin-tin potentials fail. Half
    of the variance is common to all groups.
    """
    size = np.array([SMOOTH] * (len(ERROR_SHAPES) - 1) + [LOW])
    common = rng.normal(0, 1, (2, n, 1, len(size)))
    own = rng.normal(0, 1, (2, n, groups, len(size)))
    amplitude, phase = (common + own) / np.sqrt(2) * size.T[:, None, None]
    return amplitude, phase


def compiled(function: Callable[..., Any], n: int) -> Callable[..., Any]:
    """A graph of a function that is called with so many spectra in all; by XLA where that pays."""
    return tf.function(function, jit_compile=n >= MANY, reduce_retracing=n < MANY, autograph=False)


def path_sums(draw: Draw, truth: PathTable, e0: Floats) -> tuple[Floats, Floats]:
    """Spectra chi (n, 401) on the contract grid, with FEFF's errors of the draw and without.

    Parameters
    ----------
    draw
        Structures.
    truth
        Paths they are drawn for.
    e0
        (n,) eV.
    """
    paths = PathSum(truth)
    k = tf.constant(K_GRID, tf.float32)
    groups = tf.constant(draw.groups, tf.float32)
    shapes = tf.constant(ERROR_SHAPES, tf.float32)

    def total(
        e0: tf.Tensor,
        amplitude: tf.Tensor,
        gain: tf.Tensor,
        phase: tf.Tensor,
        *rest: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        weight = tf.transpose(groups) * amplitude[:, tf.newaxis, :]
        real, imag = (weight @ x for x in paths(k, e0[:, tf.newaxis], *rest))
        gain, phase = gain @ shapes, phase @ shapes
        turned = imag * tf.cos(phase) + real * tf.sin(phase)
        return tf.reduce_sum((1 + gain) * turned, 1), tf.reduce_sum(imag, 1)

    chi, exact = np.empty((2, len(draw), K_SIZE))
    arrays = (e0, draw.amplitude, *draw.errors, draw.deltar, draw.sigma2, draw.c3)
    of_batch = compiled(total, len(draw))
    for start in range(0, len(draw), BATCH):
        rows = slice(start, start + BATCH)
        chi[rows], exact[rows] = of_batch(*(tf.constant(x[rows], tf.float32) for x in arrays))
    return chi, exact


def clean_spectra(draw: Draw, parametrisation: Parametrisation, truth: PathTable) -> Floats:
    """Path sums k^2 chi (n, 401) in 1/angstrom^2, with FEFF's errors of the draw; float32."""
    e0 = draw.theta[:, parametrisation.index("e0_shift")]
    return np.float32(K_GRID**2 * path_sums(draw, truth, e0)[0])


def direct_pool(seed: int, n: int, parametrisation: Parametrisation, truth: PathTable) -> Pool:
    """Path sums on the contract grid, uncorrupted; reproducible for a seed."""
    rng = np.random.default_rng(seed)
    draw = sample(rng, n, parametrisation, truth)
    e0 = draw.theta[:, parametrisation.index("e0_shift")]
    chi, exact = path_sums(draw, truth, e0)
    clean = np.float32(K_GRID**2 * chi)
    bias = theory_bias(parametrisation, draw.theta, K_GRID**2 * (chi - exact))
    ends = np.full(n, K_END[1], np.float32)
    return Pool(np.float32(draw.theta), clean, clean, ends, bias)

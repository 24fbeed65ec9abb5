"""The training loop: fixed seed, history of every term, checkpoints, resume."""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.model.gauss_newton import GaussNewton
from exafsd_training.model.losses import BY_MISFIT, Weights, loss_terms
from exafsd_training.model.network import Pinn, Sizes, input_scale, interpolation_weights
from exafsd_training.model.path_misfit import PathMisfit
from exafsd_training.simulation.corruption import corrupt, corrupt_arrays
from exafsd_training.simulation.refinement import significant_paths
from exafsd_training.simulation.simulate import K_MIN, Pool
from exafsd_training.simulation.theory_bias import DATA_ENDS
from exafsd_training.theory.parametrisation import Parametrisation

#: Batches that the head of the field is set with, and a ridge beside the encoding's mean square.
START_BATCHES, START_RIDGE = 12, 1e-4
#: Spectra that the covariance of the misfit is taken from, and where they end, 1/angstrom.
MISFIT_SPECTRA, MISFIT_END = 6_000, 17.0

CHECKPOINT = "weights.npz"
HISTORY = "history.csv"
#: Adam's decay rates, Kingma and Ba 2015, with a shorter second memory as the noise varies.
BETA = (0.9, 0.99)
#: how arrays of the optimiser's memory are called in a checkpoint
MEMORY = "adamw"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a training, besides the structure."""

    seed: int = 1
    #: stop after so many minutes of training, or after so many steps when given
    minutes: float = 25.0
    steps: int | None = None
    batch: int = 256
    #: share of every batch that went through mu(E) and AUTOBK
    through_instrument: float = 0.15
    #: share of path sums to which one of these lends what the instrument did to it: they are too
    #: few to be seen hundreds of times without being learnt by heart
    borrowed: float = 0.35
    learning_rate: float = 1.5e-3
    epoch_steps: int = 500
    #: epochs without a better validation loss after which training ends early
    patience: int = 12
    direct_spectra: int = 100_000
    instrument_spectra: int = 7_000
    validation: int = 1_000
    #: spectra that error bars are calibrated on
    held_out: int = 3_000
    #: clean spectra of its own and of other phases that the detector sees, mixtures of them that
    #: it learns from, and steps of its training
    detector_examples: int = 12_000
    detector_spectra: int = 100_000
    detector_steps: int = 5_000
    sizes: Sizes = field(default_factory=Sizes)
    weights: Weights = field(default_factory=Weights)


#: Of a training that starts from an encoder: fewer steps see fewer spectra.
SHORT = Settings(
    minutes=1.6, direct_spectra=40_000, instrument_spectra=3_000,
    detector_examples=6_000, detector_spectra=40_000, detector_steps=2_400,
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Simulated spectra of a training; validation spectra are never trained on."""

    direct: Pool
    instrument: Pool
    validation_direct: Pool
    validation_instrument: Pool

    @classmethod
    def split(cls, direct: Pool, instrument: Pool, validation: int) -> "Data":
        """Hold out the last `validation` direct and up to a tenth of the instrument spectra."""
        held = max(1, min(validation, len(instrument) // 10))
        return cls(
            direct.take(slice(0, -validation)),
            instrument.take(slice(0, -held)),
            direct.take(slice(-validation, None)),
            instrument.take(slice(-held, None)),
        )


def adam(variables: tuple[tf.Variable, ...], decay: float = 1e-5) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay, and gradients of a norm of at most 1."""
    first, second = BETA
    optimiser = keras.optimizers.AdamW(
        weight_decay=decay, beta_1=first, beta_2=second, epsilon=1e-8, global_clipnorm=1.0
    )
    optimiser.build(variables)
    return optimiser


def build(parametrisation: Parametrisation, direct: Pool, settings: Settings) -> Pinn:
    """Network with its scales and field basis taken from simulated spectra."""
    few = direct.clean[:6000]
    scale = input_scale(few)
    unit = parametrisation.prior_std
    model = Pinn(parametrisation, scale, unit, settings.sizes, settings.seed)
    model.field.initialise(few[:3000], 1 / scale)
    attach_physics(model, parametrisation, settings)
    if model.misfit is not None:
        start_misfit(model, model.misfit, direct.take(slice(0, MISFIT_SPECTRA)))
    return model


def attach_physics(model: Pinn, parametrisation: Parametrisation, settings: Settings) -> None:
    """Give a network what the terms of its loss need of the EXAFS equation."""
    weights = settings.weights
    if any(getattr(weights, term) for term in BY_MISFIT):
        model.misfit = PathMisfit(parametrisation, significant_paths(parametrisation))
    if weights.gauss_newton:
        rng = np.random.default_rng((settings.seed, 2))
        model.last_layer = GaussNewton(rng, settings.sizes.encoder[-1], model.unit)


def start_misfit(model: Pinn, misfit: PathMisfit, direct: Pool) -> None:
    """Take the covariance of the misfit from path sums with all that a measurement does, no noise.

    The data end at `MISFIT_END`, beyond what the misfit compares.
    """
    chi_k2, mask = corrupt_arrays(direct.noisy, direct.k_end, 1.0, (5, 5), 0.0, MISFIT_END, 0.0)
    truth, bias = (tf.constant(x, tf.float32) for x in (direct.theta, direct.theory_bias))
    misfit.initialise(chi_k2, _labels(model)(truth, bias, tf.constant(mask)).numpy())


def start_field(model: Pinn, data: Data, settings: Settings) -> None:
    """Set the head of the field by least squares, for the encoding as it is."""
    stream = batches(model, data, settings).take(START_BATCHES)
    pairs = [(model.encode(chi_k2, mask), clean) for chi_k2, mask, clean, _ in stream]
    z, clean = (tf.concat(x, 0).numpy() for x in zip(*pairs, strict=True))
    weight = 1 / model.scale.numpy()
    basis = model.field.basis(model.k).numpy()
    fitted = K_GRID >= K_MIN  # from where data begin
    coefficients = np.linalg.lstsq(
        (basis * weight[:, None])[fitted], (clean * weight)[:, fitted].T, rcond=None
    )[0].T
    a = np.hstack([z, np.ones((len(z), 1), np.float32)])
    normal = a.T @ a + START_RIDGE * len(z) * np.eye(a.shape[1])
    solution = np.linalg.solve(normal, a.T @ coefficients)
    model.to_field.w.assign(solution[:-1])
    model.to_field.b.assign(solution[-1])


def save(file: Path, model: Pinn, **more: np.ndarray) -> None:
    """Write the network's variables, input scale and unit as npz, atomically."""
    arrays = {f"v{i}": v.numpy() for i, v in enumerate(model.variables)}
    temporary = file.with_suffix(".tmp.npz")
    np.savez(temporary, scale=model.scale.numpy(), unit=model.unit.numpy(), **arrays, **more)
    temporary.replace(file)


def load(file: Path, parametrisation: Parametrisation, settings: Settings) -> Pinn:
    """Network of a file that `save` wrote."""
    with np.load(file) as data:
        scale, unit = data["scale"], data["unit"]
        model = Pinn(parametrisation, scale, unit, settings.sizes, settings.seed)
        attach_physics(model, parametrisation, settings)
        for i, variable in enumerate(model.variables):
            variable.assign(data[f"v{i}"])
    return model


def train(
    model: Pinn,
    data: Data,
    settings: Settings,
    folder: Path,
    measured: tuple[np.ndarray, np.ndarray] | None = None,
    report: Callable[[float, dict[str, float]], None] = lambda share, losses: None,
) -> dict[str, float]:
    """Train until the time or the steps are up; goes on from a checkpoint in `folder`.

    Parameters
    ----------
    model
        Network, changed in place.
    data
        Simulated spectra.
    settings
        Everything else.
    folder
        Where checkpoints and the history are written.
    measured
        Unlabelled measured spectra and masks (n, 401), for the loss of that name.
    report
        Called after every epoch with the share done and the losses.

    Returns
    -------
    dict
        ``steps``, ``epochs``, ``minutes``, and the last losses with ``validation/`` before
        the name of each term.
    """
    optimiser = adam(model.reading)
    elapsed, steps, epoch = _resume(folder, model, optimiser)
    real = measured and (tf.constant(measured[0], tf.float32), tf.constant(measured[1], tf.float32))
    step, validate = _functions(model, data, settings, optimiser, real)

    def share() -> float:
        if settings.steps is not None:
            return steps / settings.steps
        return elapsed / (60 * settings.minutes)

    losses: dict[str, float] = {}
    best, since = np.inf, 0
    stream = iter(batches(model, data, settings, steps))
    while share() < 1 and since < settings.patience:
        began = time.monotonic()
        sums: dict[str, tf.Tensor] = {}
        done = 0
        for _ in range(settings.epoch_steps):
            now = share() if settings.steps else (elapsed + time.monotonic() - began) / (
                60 * settings.minutes
            )  # fmt: skip
            if now >= 1:
                break
            warm = min(1.0, (steps + 1) / 300)
            rate = settings.learning_rate * max(1e-3, warm * (0.5 + 0.5 * np.cos(np.pi * now)))
            terms = step(tf.constant(steps), tf.constant(rate, tf.float32), *next(stream))
            sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
            steps, done = steps + 1, done + 1
        if not done:
            break
        epoch += 1
        losses = {name: float(value) / done for name, value in sums.items()}
        losses |= {f"validation/{name}": value for name, value in validate().items()}
        elapsed += time.monotonic() - began
        since = 0 if losses["validation/total"] < best else since + 1
        best = min(best, losses["validation/total"])
        _write_history(folder / HISTORY, epoch, steps, losses)
        state = {f"{MEMORY}{i}": v.numpy() for i, v in enumerate(optimiser.variables)}
        save(folder / CHECKPOINT, model, progress=np.array([elapsed, steps, epoch]), **state)
        report(min(1.0, share()), losses)
    if not losses:  # a checkpoint that was already complete
        losses = {f"validation/{name}": value for name, value in validate().items()}
    return {"steps": steps, "epochs": epoch, "minutes": elapsed / 60} | losses


def batches(model: Pinn, data: Data, settings: Settings, start: int = 0) -> tf.data.Dataset:
    """Endless stream of inputs, masks, clean spectra and parameters, made while training goes on.

    Batch number n depends on the seed and n alone, so a resumed training sees what an
    uninterrupted one would have seen.

    Parameters
    ----------
    model
        For the bounds of its parameters.
    data, settings
        What is drawn from, and how.
    start
        Number of the first batch.
    """
    n_inst = round(settings.batch * settings.through_instrument)
    n_lent = round(settings.batch * settings.borrowed)
    n_direct = settings.batch - n_inst
    pools = [_tensors(pool) for pool in (data.direct, data.instrument)]
    label = _labels(model)
    direct = tf.concat([tf.ones(n_direct - n_lent), tf.zeros(n_lent + n_inst)], 0)
    n_index = model.equation.n_index
    low, span = model.low[n_index], model.span[n_index]
    is_n = tf.range(model.p) == n_index

    def draw(pool: list[tf.Tensor], n: int, seed: tf.Tensor) -> list[tf.Tensor]:
        rows = tf.random.stateless_uniform((n,), seed, 0, tf.shape(pool[0])[0], tf.int32)
        return [tf.gather(x, rows) for x in pool]

    def lent(own: list[tf.Tensor], lender: list[tf.Tensor]) -> list[tf.Tensor]:
        theta, clean, _, _, bias = own
        _, its_clean, its_noisy, k_end, _ = lender
        return [theta, clean, clean + its_noisy - its_clean, k_end, bias]

    @tf.autograph.experimental.do_not_convert
    def make(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seed = tf.stack([settings.seed, tf.cast(number, tf.int32)])
        seeds = tf.unstack(tf.random.split(seed, 6))
        parts = [
            draw(pools[0], n_direct - n_lent, seeds[0]),
            lent(draw(pools[0], n_lent, seeds[4]), draw(pools[1], n_lent, seeds[5])),
            draw(pools[1], n_inst, seeds[1]),
        ]
        theta, clean, noisy, k_end, bias = (tf.concat(x, 0) for x in zip(*parts, strict=True))
        # chi is proportional to N S0^2, so every spectrum serves at many amplitudes
        factor = tf.exp(tf.random.stateless_uniform((settings.batch,), seeds[2], -0.3, 0.3))
        n_s02 = theta[:, n_index]
        factor = tf.clip_by_value(factor, (low + 0.02 * span) / n_s02, (low + 0.98 * span) / n_s02)
        factor = factor[:, tf.newaxis]
        theta *= tf.where(is_n, factor, 1.0)
        bias *= tf.where(is_n, factor, 1.0)[:, tf.newaxis, :]
        chi_k2, mask = corrupt(noisy * factor, k_end, direct, seeds[3])
        return chi_k2, mask, clean * factor, label(theta, bias, mask)

    return tf.data.Dataset.counter(start).map(make, num_parallel_calls=1).prefetch(4)


def _tensors(pool: Pool) -> list[tf.Tensor]:
    return [tf.constant(x, tf.float32) for x in vars(pool).values()]


def _labels(model: Pinn) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Function of truth (b, p), theory bias (b, ends, p) and mask (b, 401): what is learnt."""
    ends = np.array(DATA_ENDS)
    # a sigmoid cannot reach its bounds
    low, high = model.low + 0.01 * model.span, model.low + 0.99 * model.span

    def label(theta: tf.Tensor, bias: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        share = interpolation_weights(tf.reduce_max(mask * model.k, axis=1), ends)
        moved = theta + tf.einsum("be,bep->bp", share, bias)
        return tf.clip_by_value(moved, tf.minimum(low, theta), tf.maximum(high, theta))

    return label


def _functions(
    model: Pinn,
    data: Data,
    settings: Settings,
    optimiser: keras.optimizers.Optimizer,
    real: tuple[tf.Tensor, tf.Tensor] | None,
) -> tuple[Callable[..., dict[str, tf.Tensor]], Callable[[], dict[str, float]]]:
    """The compiled training step, and the validation losses."""

    @tf.function(autograph=False)
    def step(number: tf.Tensor, rate: tf.Tensor, *batch: tf.Tensor) -> dict[str, tf.Tensor]:
        seed = tf.stack([settings.seed, number])
        with tf.GradientTape() as tape:
            terms = loss_terms(model, *batch, seed, settings.weights, real)
        optimiser.learning_rate.assign(rate)
        optimiser.apply(tape.gradient(terms["total"], model.reading), model.reading)
        return terms

    held = [_tensors(pool) for pool in (data.validation_direct, data.validation_instrument)]
    theta, clean, noisy, k_end, bias = (tf.concat(x, 0) for x in zip(*held, strict=True))
    direct = tf.concat([tf.ones(len(held[0][0])), tf.zeros(len(held[1][0]))], 0)
    fixed = tf.constant([7, 7])
    chi_k2, mask = corrupt(noisy, k_end, direct, fixed)
    theta = _labels(model)(theta, bias, mask)

    @tf.function(autograph=False)
    def compiled_validation() -> dict[str, tf.Tensor]:
        return loss_terms(model, chi_k2, mask, clean, theta, fixed, settings.weights, real)

    def validate() -> dict[str, float]:
        return {name: float(value) for name, value in compiled_validation().items()}

    return step, validate


def _resume(
    folder: Path, model: Pinn, optimiser: keras.optimizers.Optimizer
) -> tuple[float, int, int]:
    file = folder / CHECKPOINT
    if not file.exists():
        return 0.0, 0, 0
    with np.load(file) as data:
        if f"{MEMORY}0" not in data:
            raise ValueError(
                f"{file} is of an exafsd-training with another optimiser: delete it to train anew"
            )
        for i, variable in enumerate(model.variables):
            variable.assign(data[f"v{i}"])
        for i, variable in enumerate(optimiser.variables):
            variable.assign(data[f"{MEMORY}{i}"])
        elapsed, steps, epoch = data["progress"]
    return float(elapsed), int(steps), int(epoch)


def _write_history(file: Path, epoch: int, steps: int, losses: dict[str, float]) -> None:
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["epoch", "steps", *losses])
        writer.writerow([epoch, steps, *(f"{value:.6g}" for value in losses.values())])

"""The training loop: fixed seed, history of every term, checkpoints, resume."""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from exafsd_training.losses import Weights, collocation, loss_terms
from exafsd_training.network import Pinn, Sizes, input_scale
from exafsd_training.parametrisation import Parametrisation
from exafsd_training.simulate import Pool, spoil

CHECKPOINT = "weights.npz"
HISTORY = "history.csv"
#: Adam's decay rates, Kingma and Ba 2015, with a shorter second memory as the noise varies.
BETA = (0.9, 0.99)


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a training, besides the structure."""

    seed: int = 1
    #: stop after so many minutes of training, or after so many steps when given
    minutes: float = 25.0
    steps: int | None = None
    batch: int = 256
    #: share of every batch that went through mu(E) and AUTOBK
    through_instrument: float = 0.3
    learning_rate: float = 1.5e-3
    epoch_steps: int = 250
    direct_spectra: int = 100_000
    instrument_spectra: int = 7_000
    validation: int = 1_000
    sizes: Sizes = field(default_factory=Sizes)
    weights: Weights = field(default_factory=Weights)


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


class Adam:
    """Adam with decoupled weight decay; its memory is part of a checkpoint."""

    def __init__(self, variables: tuple[tf.Variable, ...], decay: float = 1e-5) -> None:
        self.variables, self.decay = variables, decay
        self.first = [tf.Variable(tf.zeros_like(v)) for v in variables]
        self.second = [tf.Variable(tf.zeros_like(v)) for v in variables]
        self.count = tf.Variable(0.0)

    def step(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        """Move the variables once."""
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        count = self.count.assign_add(1.0)
        b1, b2 = BETA
        for v, m, s, g in zip(self.variables, self.first, self.second, gradients, strict=True):
            m.assign(b1 * m + (1 - b1) * g)
            s.assign(b2 * s + (1 - b2) * g * g)
            step = m / (1 - b1**count) / (tf.sqrt(s / (1 - b2**count)) + 1e-8)
            v.assign_sub(rate * (step + self.decay * v))

    def state(self) -> list[tf.Variable]:
        """Variables to save, in a fixed order."""
        return [self.count, *self.first, *self.second]


def build(parametrisation: Parametrisation, direct: Pool, settings: Settings) -> Pinn:
    """Network with its scales and field basis taken from simulated spectra."""
    few = direct.clean[:6000]
    scale = input_scale(few)
    unit = parametrisation.prior_std
    model = Pinn(parametrisation, scale, unit, settings.sizes, settings.seed)
    model.field.initialise(few[:3000], 1 / scale)
    return model


def save(file: Path, model: Pinn, **more: np.ndarray) -> None:
    """Write the network's variables, input scale and unit as npz, atomically."""
    arrays = {f"v{i}": v.numpy() for i, v in enumerate(model.variables)}
    temporary = file.with_suffix(".tmp.npz")
    fixed = {"scale": model.scale.numpy(), "unit": model.unit.numpy()}
    np.savez(temporary, **fixed, **arrays, **more)
    temporary.replace(file)


def load(file: Path, parametrisation: Parametrisation, settings: Settings) -> Pinn:
    """Network of a file that `save` wrote."""
    with np.load(file) as data:
        scale, unit = data["scale"], data["unit"]
        model = Pinn(parametrisation, scale, unit, settings.sizes, settings.seed)
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
    optimiser = Adam(model.trainable_variables)
    elapsed, steps, epoch = _resume(folder, model, optimiser)
    real = measured and (tf.constant(measured[0], tf.float32), tf.constant(measured[1], tf.float32))
    step_, validate = _functions(model, data, settings, optimiser, real)

    def share() -> float:
        if settings.steps is not None:
            return steps / settings.steps
        return elapsed / (60 * settings.minutes)

    losses: dict[str, float] = {}
    while share() < 1:
        began = time.monotonic()
        sums: dict[str, float] = {}
        count = min(settings.epoch_steps, (settings.steps or steps + settings.epoch_steps) - steps)
        done = 0
        for _ in range(count):
            now = share() if settings.steps else (elapsed + time.monotonic() - began) / (
                60 * settings.minutes
            )  # fmt: skip
            if now >= 1:
                break
            warm = min(1.0, (steps + 1) / 300)
            rate = settings.learning_rate * warm * (0.5 + 0.5 * np.cos(np.pi * now)) + 1e-6
            for name, value in step_(steps, rate).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            steps, done = steps + 1, done + 1
        if not done:
            break
        epoch += 1
        losses = {name: value / done for name, value in sums.items()}
        losses |= {f"validation/{name}": value for name, value in validate().items()}
        elapsed += time.monotonic() - began
        _write_history(folder / HISTORY, epoch, steps, losses)
        state = {f"a{i}": v.numpy() for i, v in enumerate(optimiser.state())}
        save(folder / CHECKPOINT, model, progress=np.array([elapsed, steps, epoch]), **state)
        report(min(1.0, share()), losses)
    if not losses:  # a checkpoint that was already complete
        losses = {f"validation/{name}": value for name, value in validate().items()}
    return {"steps": steps, "epochs": epoch, "minutes": elapsed / 60} | losses


def _functions(
    model: Pinn,
    data: Data,
    settings: Settings,
    optimiser: Adam,
    real: tuple[tf.Tensor, tf.Tensor] | None,
) -> tuple[Callable[[int, float], dict[str, tf.Tensor]], Callable[[], dict[str, float]]]:
    """The compiled training step, and the validation losses."""
    n_inst = round(settings.batch * settings.through_instrument)
    n_direct = settings.batch - n_inst
    pools = [tuple(tf.constant(x, tf.float32) for x in (p.theta, p.clean, p.noisy, p.k_end))
             for p in (data.direct, data.instrument)]  # fmt: skip
    bounds = model.low, model.low + model.span
    n_index = model.equation.n_index

    def draw(pool: tuple[tf.Tensor, ...], n: int, seed: tf.Tensor) -> list[tf.Tensor]:
        rows = tf.random.stateless_uniform((n,), seed, 0, tf.shape(pool[0])[0], tf.int32)
        return [tf.gather(x, rows) for x in pool]

    @tf.function
    def compiled(number: tf.Tensor, rate: tf.Tensor) -> dict[str, tf.Tensor]:
        seeds = tf.unstack(tf.random.split(tf.stack([settings.seed, number]), 5))
        parts = draw(pools[0], n_direct, seeds[0]), draw(pools[1], n_inst, seeds[1])
        theta, clean, noisy, k_end = (tf.concat(x, 0) for x in zip(*parts, strict=True))
        direct = tf.concat([tf.ones(n_direct), tf.zeros(n_inst)], 0)
        # chi is proportional to N S0^2, so every spectrum serves at many amplitudes
        factor = tf.exp(tf.random.stateless_uniform((settings.batch,), seeds[2], -0.3, 0.3))
        n_s02 = theta[:, n_index]
        factor = tf.clip_by_value(
            factor, 1.02 * bounds[0][n_index] / n_s02, 0.98 * bounds[1][n_index] / n_s02
        )[:, tf.newaxis]
        theta *= tf.where(tf.range(model.p) == n_index, factor, 1.0)
        clean, noisy = clean * factor, noisy * factor
        chi_k2, mask = spoil(noisy, k_end, direct, seeds[3])
        k = collocation(seeds[4])
        with tf.GradientTape() as tape:
            terms = loss_terms(model, chi_k2, mask, clean, theta, k, settings.weights, real)
        variables = optimiser.variables
        optimiser.step(tape.gradient(terms["total"], variables), rate)
        return terms

    held = [tuple(tf.constant(x, tf.float32) for x in (p.theta, p.clean, p.noisy, p.k_end))
            for p in (data.validation_direct, data.validation_instrument)]  # fmt: skip
    theta, clean, noisy, k_end = (tf.concat(x, 0) for x in zip(*held, strict=True))
    direct = tf.concat([tf.ones(len(held[0][0])), tf.zeros(len(held[1][0]))], 0)
    fixed = tf.constant([7, 7])
    chi_k2, mask = spoil(noisy, k_end, direct, fixed)

    @tf.function
    def compiled_validation() -> dict[str, tf.Tensor]:
        k = collocation(fixed)
        return loss_terms(model, chi_k2, mask, clean, theta, k, settings.weights, real)

    def step(number: int, rate: float) -> dict[str, tf.Tensor]:
        return compiled(tf.constant(number), tf.constant(rate, tf.float32))

    def validate() -> dict[str, float]:
        return {name: float(value) for name, value in compiled_validation().items()}

    return step, validate


def _resume(folder: Path, model: Pinn, optimiser: Adam) -> tuple[float, int, int]:
    file = folder / CHECKPOINT
    if not file.exists():
        return 0.0, 0, 0
    with np.load(file) as data:
        for i, variable in enumerate(model.variables):
            variable.assign(data[f"v{i}"])
        for i, variable in enumerate(optimiser.state()):
            variable.assign(data[f"a{i}"])
        elapsed, steps, epoch = data["progress"]
    return float(elapsed), int(steps), int(epoch)


def _write_history(file: Path, epoch: int, steps: int, losses: dict[str, float]) -> None:
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["epoch", "steps", *losses])
        writer.writerow([epoch, steps, *(f"{value:.6g}" for value in losses.values())])

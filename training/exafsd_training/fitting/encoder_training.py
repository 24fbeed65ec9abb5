"""Training of the encoder: one network for the spectra of many crystals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console

from exafsd_training.fitting.fit import Data, Settings, adam, batches, build
from exafsd_training.fitting.stages import Stages, on_terminal, only_warnings
from exafsd_training.model.encoder import Encoder, head_columns, shell_coordinates
from exafsd_training.model.losses import negative_log_likelihood
from exafsd_training.model.network import Pinn, limited, triangle
from exafsd_training.simulation.instrument import Atom, instrument_pool
from exafsd_training.simulation.simulate import REFF_MAX, direct_pool
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.structures import StructureWarning, run_feff
from exafsd_training.zoo.crystals import ZooCrystal, zoo

#: Crystals of `exafsd_training.zoo.crystals` that the encoder learns from. Platinum is not among
#: them, nor gold: these it is judged by.
CRYSTALS = (
    "ti-k-hcp", "v-k-bcc", "co-k-hcp", "ni-k-fcc", "zr-k-hcp", "mo-k-bcc", "rh-k-fcc", "ag-k-fcc",
    "w-l3-bcc", "re-l3-hcp", "ir-l3-fcc", "ti-k-rutile", "cr-k-cr2o3", "mn-k-mno", "fe-k-fe2o3",
    "ni-k-nio", "sr-k-srtio3", "ce-l3-ceo2", "sn-k-sno2", "fe-k-fes2", "zn-k-znse", "mo-k-mos2",
)  # fmt: skip
#: Crystals in a batch: with one alone, a step would undo a part of the one before.
TOGETHER = 4
#: Weight of the coordinates without noise beside the likelihood of theta.
CLEAN = 0.3
#: Seconds that FEFF and simulations are expected to take for a crystal.
SIMULATION = 15.0

console = Console(stderr=True)


@dataclass(frozen=True)
class Constants:
    """What the loss needs of a crystal besides its spectra, as tensors.

    `low`, `span` and `unit` (p,) as in `Pinn`; `scale` (401,); `coordinates` (401, c); places in
    the heads `theta` (p,) and `pairs` (entries,); `place` and `diagonal` of `triangle_places`.
    """

    low: tf.Tensor
    span: tf.Tensor
    unit: tf.Tensor
    scale: tf.Tensor
    coordinates: tf.Tensor
    theta: tf.Tensor
    pairs: tf.Tensor
    place: tf.Tensor
    diagonal: tf.Tensor

    @classmethod
    def of(cls, model: Pinn, parametrisation: Parametrisation) -> "Constants":
        """Those of a crystal with an untrained network, whose scales are taken."""
        coordinates = shell_coordinates(parametrisation, np.float64(model.scale.numpy()))
        columns = (tf.constant(x, tf.int32) for x in head_columns(parametrisation))
        return cls(
            model.low, model.span, model.unit, model.scale, tf.constant(coordinates, tf.float32),
            *columns, model.place, model.diagonal,
        )  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A crystal in the training: its name, constants, and an endless stream of batches."""

    name: str
    constants: Constants
    stream: tf.data.Dataset

    @classmethod
    def of(cls, crystal: ZooCrystal, settings: Settings, work: Path) -> "Lesson":
        """That of a crystal; its FEFF run ends up in `work`, or is found there."""
        feff = run_feff(crystal.crystal(), crystal.absorber, crystal.edge, work)
        table = read_paths(feff).within(REFF_MAX)
        par = parametrise(crystal.name, table)
        atom = Atom(crystal.absorber, crystal.edge)
        pools = (
            direct_pool(settings.seed, settings.direct_spectra, par, table),
            instrument_pool(settings.seed + 1, settings.instrument_spectra, par, table, atom),
        )
        model = build(par, pools[0], settings)
        data = Data.split(*pools, validation=1)
        return cls(crystal.name, Constants.of(model, par), batches(model, data, settings))


def train_encoder(
    lessons: Sequence[Lesson],
    settings: Settings,
    file: Path,
    report: Callable[[float, dict[str, float]], None] = lambda share, losses: None,
) -> dict[str, float]:
    """Train an encoder for `settings.minutes`, or steps; it is written after every epoch.

    Parameters
    ----------
    lessons
        Crystals, with batches of `settings.batch` spectra of each.
    settings
        Seed, sizes, steps or minutes, and learning rate.
    file
        Of the encoder.
    report
        Called after every epoch with the share done and the losses.

    Returns
    -------
    dict
        The last losses, ``theta`` and ``clean``.
    """
    encoder = Encoder(settings.sizes, settings.seed)
    variables = encoder.trainable_variables
    optimiser = adam(variables)

    @tf.function(reduce_retracing=True)
    def step(rate: tf.Tensor, drawn: list) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            theta, clean = losses_of(encoder, drawn)
            total = theta + CLEAN * clean
        optimiser.learning_rate.assign(rate)
        optimiser.apply(tape.gradient(total, variables), variables)
        return theta, clean

    rng = np.random.default_rng((settings.seed, 6))
    streams = [iter(lesson.stream) for lesson in lessons]
    together = min(TOGETHER, len(lessons))
    losses: dict[str, float] = {}
    steps, began = 0, time.monotonic()

    def share() -> float:
        if settings.steps:
            return steps / settings.steps
        return (time.monotonic() - began) / (60 * settings.minutes)

    while (done := share()) < 1:
        sums, first = np.zeros(2), steps
        while done < 1 and steps - first < settings.epoch_steps:
            warm = min(1.0, (steps + 1) / 300)
            rate = settings.learning_rate * warm * (0.5 + 0.5 * np.cos(np.pi * done))
            chosen = rng.choice(len(lessons), together, replace=False)
            drawn = [(vars(lessons[i].constants), next(streams[i])) for i in chosen]
            sums += [float(x) for x in step(tf.constant(rate, tf.float32), drawn)]
            steps += 1
            done = share()
        losses = dict(zip(("theta", "clean"), sums / (steps - first), strict=True))
        encoder.save(file)
        report(min(done, 1.0), losses)
    return losses


def losses_of(encoder: Encoder, drawn: Sequence[tuple[dict, tuple]]) -> tuple[tf.Tensor, tf.Tensor]:
    """Likelihood of theta, and mean square of what the coordinates without noise are off.

    Parameters
    ----------
    encoder
        Encoder.
    drawn
        `Constants` by name and a batch of `exafsd_training.fitting.fit.batches` of each crystal.
    """
    seen, clean, masks = [], [], []
    for at, (chi_k2, mask, without, _) in drawn:
        seen.append(limited(chi_k2 * mask, at["scale"]) @ at["coordinates"])
        clean.append(without / at["scale"] @ at["coordinates"])
        masks.append(mask)
    z = encoder.encode(tf.concat(seen, 0), tf.concat(masks, 0))
    off = encoder.to_clean(z) - tf.concat(clean, 0)
    heads = [tf.split(head(z), len(drawn)) for head in (encoder.to_theta, encoder.to_cholesky)]
    likelihood = []
    for (at, (*_, truth)), said, packed in zip(drawn, *heads, strict=True):
        theta = at["low"] + at["span"] * tf.sigmoid(tf.gather(said, at["theta"], axis=1))
        entries = tf.gather(packed, at["pairs"], axis=1)
        cholesky = triangle(entries, at["diagonal"], at["place"], tf.shape(at["unit"])[0])
        likelihood.append(negative_log_likelihood(theta, cholesky, truth, at["unit"]))
    return tf.reduce_mean(tf.concat(likelihood, 0)), tf.reduce_mean(off**2)


def make_encoder(
    crystals: Sequence[ZooCrystal], file: Path, work: Path, settings: Settings, stages: Stages
) -> dict[str, float]:
    """Simulate spectra of crystals, and train an encoder with them.

    Parameters
    ----------
    crystals
        Crystals.
    file, work
        Of the encoder, and folder for FEFF runs.
    settings
        Of the training; the spectra are so many for each crystal, and `batch` for all together.
    stages
        With the stages of `encoder_with_progress`.
    """
    own = replace(settings, batch=settings.batch // min(TOGETHER, len(crystals)))
    stages.begin("simulation")
    lessons = []
    for place, crystal in enumerate(crystals):
        stages.report(place / len(crystals), crystal.name)
        lessons.append(Lesson.of(crystal, own, work))
    stages.begin("training")

    def report(share: float, losses: dict[str, float]) -> None:
        stages.report(share, " ".join(f"{name} {value:.3g}" for name, value in losses.items()))

    return train_encoder(lessons, own, file, report)


def encoder_with_progress(
    names: Sequence[str], file: Path, work: Path, settings: Settings
) -> dict[str, float]:
    """Make an encoder of crystals by name, with progress on the terminal."""
    table = zoo()
    if unknown := [name for name in names if name not in table]:
        raise SystemExit(f"not in the table of crystals: {', '.join(unknown)}")
    crystals = [table[name] for name in names or CRYSTALS]
    expected = {"simulation": SIMULATION * len(crystals), "training": 60 * settings.minutes}
    with only_warnings(StructureWarning, console), on_terminal(expected, console) as stages:
        return make_encoder(crystals, file, work, settings, stages)

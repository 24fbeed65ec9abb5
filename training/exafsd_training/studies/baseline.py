"""The pointwise network of Khan 2025, as a baseline: [k, theory k^2 chi] to measured k^2 chi.

Three layers of 64 tanh; loss: mean square of the error plus 0.01 times that of the second
derivative in k, by automatic differentiation; Adam with a rate of 1e-3. All in scaled quantities:
each of k, theory and label less its mean, over its standard deviation.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from exafsd_training.fitting.fit import adam
from exafsd_training.fitting.plots import save_figure
from exafsd_training.model.dense import Dense
from exafsd_training.theory.paths import Floats

Mode = Literal["hybrid", "theory", "blind"]
Split = Literal["points", "material"]

WIDTHS = (2, 64, 64, 64, 1)
RATE, PHYSICS, BATCH = 1e-3, 1e-2, 64
#: Share of points, or of groups of materials, that is not trained on.
HELD_OUT = 0.2
#: Never trained on, though their folders lie beside the others.
UNSEEN = ("LiCoO2", "CdS")
#: Label and input that differ by less than this are one spectrum.
IDENTICAL = 1e-6
HISTORY, REPORT = "history.csv", "report.json"


@dataclass(frozen=True)
class Pair:
    """A spectrum's theory and measurement on its label's k; arrays (n,), 1/angstrom and k^2 chi.

    Folders called X and X_exp are one material, so they are one `group`.
    """

    material: str
    file: str
    k: Floats
    theory: Floats
    label: Floats

    @property
    def group(self) -> str:
        """Material without how it was made."""
        return self.material.removesuffix("_exp")

    @property
    def identical(self) -> bool:
        """Whether the network is asked to repeat what it is given."""
        off = np.linalg.norm(self.theory - self.label)
        return bool(off < IDENTICAL * np.linalg.norm(self.label))


def read_khan_pairs(data: Path) -> list[Pair]:
    """All pairs below ``modelTraining_Datasets``, the unseen materials included."""
    pairs = []
    for folder in sorted((data / "modelTraining_Datasets" / "Labels").iterdir()):
        k, label = np.loadtxt(next(iter(sorted(folder.iterdir()))), unpack=True)
        inputs = data / "modelTraining_Datasets" / "Input_data" / folder.name
        for file in sorted(inputs.iterdir()):
            own_k, theory = np.loadtxt(file, unpack=True)
            pairs.append(Pair(folder.name, file.name, k, np.interp(k, own_k, theory), label))
    return pairs


def split_groups(pairs: Sequence[Pair], seed: int) -> set[str]:
    """Groups of materials that are held out."""
    groups = sorted({pair.group for pair in pairs})
    chosen = np.random.default_rng(seed).permutation(groups)
    return set(chosen[: max(1, round(HELD_OUT * len(groups)))])


@dataclass(frozen=True)
class Points:
    """Points of spectra: inputs x (n, 2), k and theory, and labels y (n,), as they are."""

    x: Floats
    y: Floats

    @classmethod
    def of(cls, pairs: Sequence[Pair], mode: Mode) -> "Points":
        """All points of some spectra: `theory` learns the theory, `blind` is not given it."""
        x = [np.column_stack([p.k, p.theory * (mode != "blind")]) for p in pairs]
        y = [p.theory if mode == "theory" else p.label for p in pairs]
        return cls(np.concatenate(x), np.concatenate(y))

    def take(self, rows: Floats) -> "Points":
        """Some of the points."""
        return Points(self.x[rows], self.y[rows])


class Pointwise(tf.Module):
    """The network, with the scales of what it was trained on."""

    def __init__(self, train: Points, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.layers = [Dense(rng, a, b) for a, b in pairwise(WIDTHS)]
        self.x_scale = train.x.mean(0), np.maximum(train.x.std(0), 1e-9)
        self.y_scale = train.y.mean(), train.y.std()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Scaled prediction (n,) from scaled inputs (n, 2)."""
        for layer in self.layers[:-1]:
            x = tf.tanh(layer(x))
        return self.layers[-1](x)[:, 0]

    def scaled(self, points: Points) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs and labels as the network takes them."""
        x = (points.x - self.x_scale[0]) / self.x_scale[1]
        y = (points.y - self.y_scale[0]) / self.y_scale[1]
        return tf.constant(x, tf.float32), tf.constant(y, tf.float32)

    def predict(self, points: Points) -> Floats:
        """k^2 chi (n,)."""
        return np.float64(self(self.scaled(points)[0])) * self.y_scale[1] + self.y_scale[0]

    def curvature(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Prediction (n,) and its second derivative in scaled k at constant theory."""
        k, theory = x[:, :1], x[:, 1:]
        one = tf.ones_like(k)
        with tf.autodiff.ForwardAccumulator(k, one) as outer:
            with tf.autodiff.ForwardAccumulator(k, one) as inner:
                u = self(tf.concat([k, theory], 1))
            first = inner.jvp(u)
        return u, outer.jvp(first)

    def losses(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean square of the error, and of the second derivative."""
        u, second = self.curvature(x)
        return tf.reduce_mean((u - y) ** 2), tf.reduce_mean(second**2)


def train(
    train_points: Points,
    held: Points,
    epochs: int,
    seed: int,
    history: Path,
    report: Callable[[int], None] = lambda epoch: None,
) -> tuple[Pointwise, dict[str, float]]:
    """Train; every term of the loss, for training and validation, goes to `history` as CSV.

    Returns
    -------
    Pointwise, dict
        Network, and the last losses.
    """
    model = Pointwise(train_points, seed)
    x, y = model.scaled(train_points)
    held_x, held_y = model.scaled(held)
    variables = model.trainable_variables
    optimiser = adam(variables, decay=0.0)
    optimiser.learning_rate.assign(RATE)
    steps = len(train_points.y) // BATCH

    @tf.function
    def epoch(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seed_ = tf.stack([seed, number])
        order = tf.argsort(tf.random.stateless_uniform((len(train_points.y),), seed_))
        data, physics = 0.0, 0.0
        for step in tf.range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            with tf.GradientTape() as tape:
                terms = model.losses(tf.gather(x, rows), tf.gather(y, rows))
                total = terms[0] + PHYSICS * terms[1]
            optimiser.apply(tape.gradient(total, variables), variables)
            data, physics = data + terms[0], physics + terms[1]
        count = tf.cast(steps, tf.float32)
        return data / count, physics / count, *model.losses(held_x, held_y)

    names = ("train_data", "train_physics", "validation_data", "validation_physics")
    last: dict[str, float] = {}
    with history.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", *names])
        for number in range(1, epochs + 1):
            values = [float(v) for v in epoch(tf.constant(number))]
            writer.writerow([number, *(f"{v:.6g}" for v in values)])
            last = dict(zip(names, values, strict=True))
            report(number)
    return model, last


@dataclass(frozen=True)
class Unseen:
    """Relative L2 errors of an unseen spectrum, of the network and of the theory it was given.

    In k between 3 and 14 1/angstrom, and of |chi(R)| between 1 and 4 angstrom.
    """

    material: str
    network_k: float
    theory_k: float
    network_r: float
    theory_r: float


def judge(model: Pointwise, pair: Pair, mode: Mode) -> Unseen:
    """Prediction of an unseen spectrum against its measurement."""
    predicted = model.predict(Points.of([pair], mode))
    inside = (pair.k >= 3) & (pair.k <= 14)
    k = [_relative(x[inside], pair.label[inside]) for x in (predicted, pair.theory)]
    true = transform(pair.k, pair.label)[1]
    r = [_relative(transform(pair.k, x)[1], true) for x in (predicted, pair.theory)]
    return Unseen(pair.material, k[0], k[1], r[0], r[1])


def _relative(fitted: Floats, true: Floats) -> float:
    return float(np.linalg.norm(fitted - true) / np.linalg.norm(true))


def transform(k: Floats, chi_k2: Floats) -> tuple[Floats, Floats]:
    """R in angstrom between 1 and 4, and |chi(R)|, by Larch."""
    from larch import Group
    from larch.xafs import xftf

    group = Group()
    grid = np.arange(0, k[-1], 0.05)
    # the weight is in the spectrum already
    xftf(grid, np.interp(grid, k, chi_k2), kmin=3, kmax=min(14, k[-1]), dk=2, window="hanning",
         kweight=0, group=group)  # fmt: skip
    inside = (group.r >= 1) & (group.r <= 4)
    return group.r[inside], group.chir_mag[inside]


def baseline(
    data: Path, out: Path, mode: Mode, split: Split, epochs: int, seed: int,
    report: Callable[[int], None] = lambda epoch: None,
) -> dict:  # fmt: skip
    """Train one mode with one split, judge it on the unseen materials, and write the report."""
    out.mkdir(parents=True, exist_ok=True)
    pairs = read_khan_pairs(data)
    training_pairs = [pair for pair in pairs if pair.material not in UNSEEN]
    if split == "material":
        held_groups = split_groups(training_pairs, seed)
        points, held = (
            Points.of([p for p in training_pairs if (p.group in held_groups) == out_], mode)
            for out_ in (False, True)
        )
    else:
        held_groups = set()
        every = Points.of(training_pairs, mode)
        order = np.random.default_rng(seed).permutation(len(every.y))
        few = round(HELD_OUT * len(order))
        points, held = every.take(order[few:]), every.take(order[:few])
    model, last = train(points, held, epochs, seed, out / HISTORY, report)
    summary = {
        "mode": mode, "split": split, "epochs": epochs, "seed": seed,
        "points": len(points.y), "held_out": len(held.y), "held_groups": sorted(held_groups),
        "identical": sorted({p.material for p in training_pairs if p.identical}),
        "materials": sorted({p.material for p in training_pairs}),
        "losses": last,
        "repeating_the_input": _repeating(model, held, mode),
        "published": published(data),
        "unseen": [asdict(judge(model, p, mode)) for p in pairs if p.material in UNSEEN],
    }  # fmt: skip
    (out / REPORT).write_text(json.dumps(summary, indent=1))
    plot_baseline(model, [p for p in pairs if p.material in UNSEEN], mode, out / "baseline.png")
    return summary


def _repeating(model: Pointwise, held: Points, mode: Mode) -> float | None:
    """Scaled loss of returning the theory as it is."""
    if mode == "blind":
        return None
    return float(np.mean((held.x[:, 1] - held.y) ** 2) / model.y_scale[1] ** 2)


def plot_baseline(model: Pointwise, pairs: Sequence[Pair], mode: Mode, file: Path) -> None:
    """Prediction, theory and measurement of unseen spectra, in k and in R."""
    figure, axes = plt.subplots(len(pairs), 2, figsize=(9, 2.6 * len(pairs)), squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        predicted = model.predict(Points.of([pair], mode))
        for values, label, style in (
            (pair.label, "measured", "k"),
            (pair.theory, "theory", "C1--"),
            (predicted, "network", "C0"),
        ):
            row[0].plot(pair.k, values, style, label=label, linewidth=0.9)
            row[1].plot(*transform(pair.k, values), style, linewidth=0.9)
        row[0].set_title(pair.material, fontsize="small")
        row[0].set_ylabel("k²χ (1/Å²)")
        row[1].set_ylabel("|χ(R)| (1/Å³)")
    axes[0][0].legend(fontsize="x-small")
    axes[-1][0].set_xlabel("k (1/Å)")
    axes[-1][1].set_xlabel("R (Å)")
    save_figure(figure, file)


def published(data: Path) -> dict[str, float]:
    """Last line of the published history: losses and second derivatives."""
    rows = np.loadtxt(data / "Output" / "Output_modelTraining" / "training_history.txt")
    names = ("epochs", "train_data", "validation_data", "train_physics", "validation_physics")
    return dict(zip(names, map(float, rows[-1]), strict=True))


def show(report: dict) -> None:
    """Print a report."""
    losses, theirs = report["losses"], report["published"]
    title = f"{report['mode']}, split by {report['split']}, {report['epochs']} epochs"
    shown = Table("scaled loss", "here", "published", title=title)
    for name in losses:
        shown.add_row(name, f"{losses[name]:.4f}", f"{theirs[name]:.4f}")
    if report["repeating_the_input"] is not None:
        shown.add_row("returning the input", f"{report['repeating_the_input']:.4f}", "")
    console = Console(width=120)
    console.print(shown)
    unseen = Table("unseen", "k: network", "k: theory", "R: network", "R: theory")
    for one in report["unseen"]:
        unseen.add_row(one["material"], *(f"{one[name]:.3f}" for name in list(one)[1:]))
    console.print(unseen)
    console.print(f"input equals label in {', '.join(report['identical'])}")

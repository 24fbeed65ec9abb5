"""Pictures of a training: losses, spectra in k, and predicted against true parameters."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import predict
from exafsd_training.fitting.fit import HISTORY
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.simulate import Pool, spoil
from exafsd_training.studies.ablation import Outcome
from exafsd_training.studies.baseline import Mode, Pair, Points, Pointwise, transform
from exafsd_training.theory.parametrisation import Parametrisation

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def plot_history(folder: Path) -> None:
    """Every term of the loss over the epochs."""
    with (folder / HISTORY).open() as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name not in ("epoch", "steps") and "/" not in name]
    figure, axes = plt.subplots(len(names), sharex=True, figsize=(6, 2 * len(names)))
    for name, axis in zip(names, np.atleast_1d(axes), strict=True):
        for label, key in (("training", name), ("validation", f"validation/{name}")):
            values = np.array([float(row[key]) for row in rows])
            axis.plot(values, label=label)
        if (values > 0).all():
            axis.set_yscale("log")
        axis.set_ylabel(name)
    np.atleast_1d(axes)[0].legend()
    np.atleast_1d(axes)[-1].set_xlabel("epoch")
    _save(figure, folder / "losses.png")


def plot_spectra(model: Pinn, pool: Pool, folder: Path) -> None:
    """Input, clean spectrum, field and EXAFS(theta) of some held-out spectra."""
    chi_k2, mask = _spoilt(pool.take(slice(0, 6)))
    out = predict(model, chi_k2, mask)
    figure, axes = plt.subplots(3, 2, sharex=True, figsize=(10, 8))
    for i, axis in enumerate(axes.flat[: len(chi_k2)]):
        axis.plot(K_GRID, np.where(mask[i] > 0, chi_k2[i], np.nan), label="input", color="0.7")
        axis.plot(K_GRID, pool.clean[i], label="clean", color="k", linewidth=0.8)
        axis.plot(K_GRID[40:], out["chi_k2_pred"][i, 40:], label="field")
        axis.plot(K_GRID[40:], out["chi_k2_exafs"][i, 40:], "--", label="EXAFS(theta)")
        size = 2 * np.abs(pool.clean[i, 60:]).max()
        axis.set_ylim(-size, size)
    axes.flat[0].legend(fontsize="small")
    figure.supxlabel("k (1/Å)")
    figure.supylabel("k²χ (1/Å²)")
    _save(figure, folder / "spectra.png")


def plot_parity(model: Pinn, parametrisation: Parametrisation, pool: Pool, folder: Path) -> None:
    """Predicted against true parameters of held-out instrument spectra."""
    out = predict(model, *_spoilt(pool))
    columns = -(-len(parametrisation.parameters) // 3)
    figure, axes = plt.subplots(3, columns, figsize=(4 * columns, 11))
    for i, parameter in enumerate(parametrisation.parameters):
        axis = axes.flat[i]
        axis.plot(pool.theta[:, i], out["theta"][:, i], ".", markersize=2)
        axis.plot(parameter.bounds, parameter.bounds, "k", linewidth=0.5)
        axis.set_title(f"{parameter.id} ({parameter.unit})")
    _save(figure, folder / "parity.png")


def plot_ablation(outcomes: Sequence[Outcome], file: Path) -> None:
    """Errors of the nearest shell's parameters and of the field over those of the first variant."""
    first = outcomes[0].variant
    names = list(dict.fromkeys(o.variant for o in outcomes))
    conditions = list(dict.fromkeys((o.noise, o.k_max) for o in outcomes))
    own = [id_ for id_ in outcomes[0].errors if "/1/" in id_]
    figure, axes = plt.subplots(1, len(conditions), sharey=True, figsize=(3 * len(conditions), 3.4))
    for axis, (noise, k_max) in zip(np.atleast_1d(axes), conditions, strict=True):
        found = {o.variant: o for o in outcomes if (o.noise, o.k_max) == (noise, k_max)}
        base = found[first]
        for place, name in enumerate(names):
            o = found[name]
            ratios = [*(o.errors[id_] / base.errors[id_] for id_ in own), o.field / base.field]
            axis.bar(np.arange(len(ratios)) + (place - 2) * 0.16, ratios, 0.16, label=name)
        axis.set_xticks(np.arange(len(own) + 1), [*(id_.split("/")[-1] for id_ in own), "field"],
                        rotation=45)  # fmt: skip
        axis.set_title(f"noise {noise:g}, data to {k_max:g} 1/Å", fontsize="small")
        axis.axhline(1, color="k", linewidth=0.5)
    np.atleast_1d(axes)[0].set_ylabel(f"error over that of {first}")
    np.atleast_1d(axes)[0].legend(fontsize="x-small")
    _save(figure, file)


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
    _save(figure, file)


def _spoilt(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    inputs = (pool.noisy, pool.k_end, np.zeros(len(pool)))
    chi_k2, mask = spoil(*(tf.constant(x, tf.float32) for x in inputs), tf.constant([5, 5]))
    return chi_k2.numpy(), mask.numpy()


def _save(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)

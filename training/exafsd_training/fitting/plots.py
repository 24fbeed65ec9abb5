"""Pictures of a training: losses, spectra in k, and predicted against true parameters."""

import csv
from pathlib import Path

import matplotlib
import numpy as np

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import predict
from exafsd_training.fitting.fit import HISTORY
from exafsd_training.model.network import Pinn
from exafsd_training.simulation.corruption import corrupt_arrays
from exafsd_training.simulation.simulate import Pool
from exafsd_training.theory.parametrisation import Parametrisation

matplotlib.use("Agg")
import matplotlib.pyplot as plt

#: Of what corrupts the spectra that are drawn.
INPUT_SEED = (5, 5)


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
    save_figure(figure, folder / "losses.png")


def plot_spectra(model: Pinn, pool: Pool, folder: Path) -> None:
    """Input, clean spectrum, field and EXAFS(theta) of some held-out spectra."""
    chi_k2, mask = corrupt_arrays(pool.noisy[:6], pool.k_end[:6], 0.0, INPUT_SEED)
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
    save_figure(figure, folder / "spectra.png")


def plot_parity(model: Pinn, parametrisation: Parametrisation, pool: Pool, folder: Path) -> None:
    """Predicted against true parameters of held-out instrument spectra."""
    out = predict(model, *corrupt_arrays(pool.noisy, pool.k_end, 0.0, INPUT_SEED))
    columns = -(-len(parametrisation.parameters) // 3)
    figure, axes = plt.subplots(3, columns, figsize=(4 * columns, 11))
    for i, parameter in enumerate(parametrisation.parameters):
        axis = axes.flat[i]
        axis.plot(pool.theta[:, i], out["theta"][:, i], ".", markersize=2)
        axis.plot(parameter.bounds, parameter.bounds, "k", linewidth=0.5)
        axis.set_title(f"{parameter.id} ({parameter.unit})")
    save_figure(figure, folder / "parity.png")


def save_figure(figure: plt.Figure, file: Path) -> None:
    """Write a figure and close it."""
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)

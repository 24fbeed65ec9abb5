"""What every term of the physics loss is worth: the same data and time with some switched off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd_training.fitting.calibrate import Held, predict
from exafsd_training.fitting.fit import Data, Settings, build, train
from exafsd_training.fitting.model_folder import write_rows
from exafsd_training.fitting.plots import save_figure
from exafsd_training.fitting.stages import on_terminal
from exafsd_training.fitting.workflow import (
    EXPECTED,
    as_inputs,
    console,
    held_out,
    prepare_job,
    simulated_data,
)
from exafsd_training.model.losses import PHYSICS, Weights
from exafsd_training.model.network import Pinn
from exafsd_training.reference.table import read_spectrum
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats
from exafsd_training.zoo.configurations import ModelConfig

ABLATION = "ablation.json"
#: Terms left on; `theta` and `data` always are.
VARIANTS: dict[str, tuple[str, ...]] = {
    "data only": (),
    "curvature": ("curvature",),
    "exafs_equation": ("exafs_equation",),
    "measured": ("measured",),
    "all": tuple(PHYSICS),
}
#: Noise of chi(k) and data ends, 1/angstrom, that are looked at.
CONDITIONS = ((5e-4, 14.0), (2e-3, 12.0), (8e-3, 12.0), (5e-4, 9.0))
#: Range of k, 1/angstrom, whose spectrum is to be reconstructed from data that end at 9.
BEYOND = (9.0, 12.0)


@dataclass(frozen=True)
class Outcome:
    """One variant on held-out simulations at one noise and data end.

    `errors` are 68 % quantiles of the absolute errors of theta, by parameter, in its unit;
    `field` is the relative L2 error of the predicted k^2 chi inside the data, `exafs` that of
    EXAFS(theta), `beyond` that of the field over `BEYOND`, where the data may have ended.
    """

    variant: str
    steps: int
    minutes: float
    noise: float
    k_max: float
    errors: dict[str, float]
    field: float
    exafs: float
    beyond: float


def variant_weights(name: str) -> Weights:
    """Weights with only the physics of a variant."""
    return Weights(**{term: PHYSICS[term] for term in VARIANTS[name]})


def ablate_model(
    config: ModelConfig, data: Path | None, out: Path, settings: Settings, workers: int = 1
) -> None:
    """Train with and without every term of the physics loss; table printed and kept in `out`.

    The configuration's measured spectra below `data` serve without their parameters.
    """
    crystal = config.crystal()
    job = prepare_job(crystal, config.absorber, config.edge, config.name, out, settings, config)
    unlabelled = data and as_inputs([read_spectrum(m, data)[0] for m in config.measured])
    expected = {name: EXPECTED[name] for name in ("simulation", "held-out spectra")}
    variants = dict.fromkeys(VARIANTS, 60 * settings.minutes)
    if not unlabelled:
        del variants["measured"]
    with on_terminal(expected | variants, console) as stages:
        stages.begin("simulation")
        pools = simulated_data(job, settings, out, workers, stages.report)
        stages.begin("held-out spectra")
        held = held_out(job, crystal, out, settings.seed + 2, settings.held_out, workers)
        begun: set[str] = set()

        def report(name: str, share: float, losses: dict[str, float]) -> None:
            if name not in begun:
                begun.add(name)
                stages.begin(name)
            stages.report(share)

        outcomes = ablate(
            job.parametrisation, pools, held, settings, out, unlabelled or None, report
        )
    plot_ablation(outcomes, out / "ablation.png")
    Console(width=200).print(as_table(outcomes))


def ablate(
    parametrisation: Parametrisation,
    data: Data,
    held: Held,
    settings: Settings,
    folder: Path,
    measured: tuple[Floats, Floats] | None,
    report: Callable[[str, float, dict[str, float]], None] = lambda name, share, losses: None,
) -> list[Outcome]:
    """Train every variant with the same data, seed and time, and judge it on held-out spectra.

    Parameters
    ----------
    parametrisation, data, held
        What is trained, on what, and what it is judged on.
    settings
        Of every training but for its weights.
    folder
        Gets a folder for each variant, and the outcome as JSON.
    measured
        Unlabelled measured spectra and masks (n, 401); without them the variant that needs them
        is left out.
    report
        Called after every epoch with the variant, the share done and the losses.
    """
    outcomes: list[Outcome] = []
    for name, terms in VARIANTS.items():
        if terms == ("measured",) and measured is None:
            continue
        own = replace(settings, weights=variant_weights(name))
        model = build(parametrisation, data.direct, own)
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        summary = train(model, data, own, place, measured, partial(report, name))
        outcomes += judge(model, parametrisation, held, name, summary)
    write_rows(outcomes, folder / ABLATION)
    return outcomes


def judge(
    model: Pinn, parametrisation: Parametrisation, held: Held, name: str, summary: dict[str, float]
) -> list[Outcome]:
    """Errors of a trained network under every condition."""
    outcomes = []
    for noise, k_max in CONDITIONS:
        chi_k2, mask = held.corrupted(55, noise, k_max)
        out = predict(model, chi_k2, mask)
        error = np.quantile(np.abs(out["theta"] - held.pool.theta), 0.68, axis=0)
        k = model.k.numpy()
        beyond = np.float32((k > BEYOND[0]) & (k <= BEYOND[1])) * np.ones_like(mask)
        clean, field, exafs = held.pool.clean, out["chi_k2_pred"], out["chi_k2_exafs"]
        outcomes.append(
            Outcome(
                variant=name,
                steps=int(summary["steps"]),
                minutes=round(summary["minutes"], 2),
                noise=noise,
                k_max=k_max,
                errors={p.id: float(e) for p, e in zip(parametrisation.parameters, error,
                                                       strict=True)},
                field=_relative(field - clean, clean, mask),
                exafs=_relative(exafs - clean, clean, mask),
                beyond=_relative(field - clean, clean, beyond),
            )
        )  # fmt: skip
    return outcomes


def _relative(off: Floats, clean: Floats, mask: Floats) -> float:
    """Median over spectra (n, 401) of the relative L2 error inside the mask."""
    size = np.linalg.norm(clean * mask, axis=1)
    return float(np.median(np.linalg.norm(off * mask, axis=1) / size))


def as_table(outcomes: list[Outcome]) -> Table:
    """Errors over those of the first variant, and the relative errors of field and EXAFS(theta)."""
    names = list(outcomes[0].errors)
    shown = Table("k max", "noise", "loss", "steps", *names, "field", "EXAFS(theta)", "9 to 12")
    base = {(o.k_max, o.noise): o for o in outcomes if o.variant == outcomes[0].variant}
    for o in sorted(outcomes, key=lambda o: (-o.k_max, o.noise)):
        first = base[o.k_max, o.noise]
        ratios = [f"{o.errors[name] / first.errors[name]:.2f}" for name in names]
        relative = [f"{x:.3f}" for x in (o.field, o.exafs, o.beyond)]
        shown.add_row(f"{o.k_max:g}", f"{o.noise:g}", o.variant, str(o.steps), *ratios, *relative)
    return shown


def plot_ablation(outcomes: Sequence[Outcome], file: Path) -> None:
    """Errors of the nearest shell's parameters and of the field over those of the first variant."""
    first = outcomes[0].variant
    names = list(dict.fromkeys(o.variant for o in outcomes))
    conditions = list(dict.fromkeys((o.noise, o.k_max) for o in outcomes))
    own = [id_ for id_ in outcomes[0].errors if "/1/" in id_]
    figure, axes = plt.subplots(1, len(conditions), sharey=True, figsize=(3 * len(conditions), 3.4))
    for axis, (noise, k_max) in zip(np.atleast_1d(axes), conditions, strict=True):
        by_variant = {o.variant: o for o in outcomes if (o.noise, o.k_max) == (noise, k_max)}
        base = by_variant[first]
        for place, name in enumerate(names):
            o = by_variant[name]
            ratios = [*(o.errors[id_] / base.errors[id_] for id_ in own), o.field / base.field]
            axis.bar(np.arange(len(ratios)) + (place - 2) * 0.16, ratios, 0.16, label=name)
        axis.set_xticks(np.arange(len(own) + 1), [*(id_.split("/")[-1] for id_ in own), "field"],
                        rotation=45)  # fmt: skip
        axis.set_title(f"noise {noise:g}, data to {k_max:g} 1/Å", fontsize="small")
        axis.axhline(1, color="k", linewidth=0.5)
    np.atleast_1d(axes)[0].set_ylabel(f"error over that of {first}")
    np.atleast_1d(axes)[0].legend(fontsize="x-small")
    save_figure(figure, file)

"""What the EXAFS equation in the loss, or as the last layer, is worth: trainings side by side.

All have the same data and time. They are judged on simulations that they were not trained on, on
those of the independent simulator, and on measured spectra.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd_training.fitting.calibrate import Z90, HeldOutSpectra, calibrate, predict
from exafsd_training.fitting.fit import Data, Settings, build, start_field, train
from exafsd_training.fitting.model_folder import write_rows
from exafsd_training.fitting.plots import save_figure
from exafsd_training.fitting.stages import Stages, on_terminal
from exafsd_training.fitting.workflow import (
    EXPECTED,
    as_inputs,
    console,
    held_out,
    prepare_simulation,
    simulated_data,
)
from exafsd_training.model.encoder import Encoder
from exafsd_training.model.losses import PHYSICS, Weights
from exafsd_training.model.network import Pinn
from exafsd_training.reference.table import read_spectrum
from exafsd_training.studies.independent import JUDGED, reduced_singles
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import Floats
from exafsd_training.zoo.configurations import ModelConfig

ABLATION, INDEPENDENT = "ablation.json", "ablation_independent.json"
#: Terms left on; `theta` and `data` always are.
VARIANTS: dict[str, tuple[str, ...]] = {
    "data only": (),
    "curvature": ("curvature",),
    "exafs_equation": ("exafs_equation",),
    "measured": ("measured",),
    "gauss_newton": ("gauss_newton",),
    "decoder": ("decoder",),
}
#: Noise of chi(k) and data ends, 1/angstrom, that are looked at.
CONDITIONS = ((5e-4, 14.0), (2e-3, 12.0), (8e-3, 12.0), (5e-4, 9.0))
#: Range of k, 1/angstrom, whose spectrum is to be reconstructed from data that end at 9.
BEYOND = (9.0, 12.0)
#: Spectra of the independent simulator, and their seed.
INDEPENDENT_SPECTRA, INDEPENDENT_SEED = 600, 77
#: Largest pull that counts in a likelihood: one spectrum must not decide.
FARTHEST = 5.0


@dataclass(frozen=True)
class Outcome:
    """One training on held-out simulations at one noise and data end.

    `errors` are 68 % quantiles of the absolute errors of theta, by parameter, in its unit;
    `field` is the relative L2 error of the predicted k^2 chi inside the data, `exafs` that of
    EXAFS(theta), `beyond` that of the field over `BEYOND`, where the data may have ended.
    """

    variant: str
    seed: int
    steps: int
    minutes: float
    noise: float
    k_max: float
    errors: dict[str, float]
    field: float
    exafs: float
    beyond: float


@dataclass(frozen=True)
class IndependentOutcome:
    """One calibrated training on spectra of the independent simulator, and on measured ones.

    By `JUDGED`: `rms` errors, `coverage_90`, and `likelihood`, the mean negative logarithm in units
    of the prior. `r_factor` is the median over measured spectra of the share of the data, where the
    fit window is, that EXAFS(theta) leaves over; None where there is none.
    """

    variant: str
    seed: int
    steps: int
    rms: dict[str, float]
    coverage_90: dict[str, float]
    likelihood: dict[str, float]
    r_factor: float | None


@dataclass(frozen=True)
class UnseenSpectra:
    """Inputs (n, 401) and masks of independent spectra with their truth (n, 3), and measured ones.

    `measured` are other measurements than the one that training was shown; there may be none.
    """

    independent: tuple[Floats, Floats]
    truth: Floats
    measured: tuple[Floats, Floats]


def variant_weights(name: str) -> Weights:
    """Weights with only the physics of a variant."""
    return Weights(**{term: PHYSICS[term] for term in VARIANTS[name]})


def ablate_model(
    config: ModelConfig,
    data: Path | None,
    out: Path,
    settings: Settings,
    workers: int = 1,
    names: Sequence[str] = (),
    seeds: int = 1,
    encoder: Path | None = None,
) -> None:
    """Train with and without terms of physics; tables are printed and kept in `out`.

    Parameters
    ----------
    config
        Of a model.
    data
        Folder with the measured spectra that it names. The first may serve without its parameters,
        the others are judged, beside spectra of the independent simulator.
    out
        Gets the trained networks and the tables.
    settings
        Of every training but for its weights and seed.
    workers
        Processes that simulate.
    names
        Of `VARIANTS`; all if empty.
    seeds
        Trainings of each.
    encoder
        Where they start from; None: from scratch.
    """
    crystal = config.crystal()
    inputs = prepare_simulation(
        crystal, config.absorber, config.edge, config.name, out, settings, config
    )
    variants = {name: VARIANTS[name] for name in names or VARIANTS}
    spectra = [read_spectrum(m, data)[0] for m in config.measured] if data else []
    measured = as_inputs(spectra) if spectra else None
    expected = {name: EXPECTED[name] for name in ("simulation", "held-out spectra")}
    if measured is None:
        variants.pop("measured", None)
    numbers = range(settings.seed, settings.seed + seeds)
    networks = [label(name, number) for number in numbers for name in variants]
    expected |= dict.fromkeys(networks, 60 * settings.minutes)
    with on_terminal(expected, console) as stages:
        stages.begin("simulation")
        pools = simulated_data(inputs, settings, out, workers, stages.report)
        stages.begin("held-out spectra")
        held = held_out(inputs, crystal, out, settings.seed + 2, settings.held_out, workers)
        test = None if data is None or measured is None else spectra_of(config, data, measured, out)
        outcomes, independent = ablate(
            inputs.parametrisation, pools, held, settings, out, measured, _reporter(stages),
            variants, seeds, encoder, test,
        )  # fmt: skip
    plot_ablation(outcomes, out / "ablation.png")
    Console(width=200).print(as_table(outcomes))
    if independent:
        Console(width=200).print(as_independent_table(independent))
    else:
        console.print("no independent simulation: it needs a model that ships, and measured mu(E)")


def _reporter(stages: Stages) -> Callable[[str, float, dict[str, float]], None]:
    """What is called after every epoch: it begins the stage of a network that is new."""
    begun: set[str] = set()

    def report(network: str, share: float, losses: dict[str, float]) -> None:
        if network not in begun:
            begun.add(network)
            stages.begin(network)
        stages.report(share)

    return report


def label(variant: str, seed: int) -> str:
    """What a network is called on the terminal."""
    return f"{variant}, seed {seed}"


def spectra_of(
    config: ModelConfig, data: Path, measured: tuple[Floats, Floats], work: Path
) -> UnseenSpectra | None:
    """What networks are tested with beside held-out simulations; None where no such model ships."""
    folder = shipped_folder() / config.name
    files = [data / one.file for one in config.measured if one.kind == "mu"]
    if not folder.is_dir() or not files:
        return None
    spectra, truth = reduced_singles(
        load_bundle(folder), config, files, work, INDEPENDENT_SPECTRA, INDEPENDENT_SEED
    )
    return UnseenSpectra(as_inputs(spectra), truth, (measured[0][1:], measured[1][1:]))


def ablate(
    parametrisation: Parametrisation,
    data: Data,
    held: HeldOutSpectra,
    settings: Settings,
    folder: Path,
    measured: tuple[Floats, Floats] | None,
    report: Callable[[str, float, dict[str, float]], None] = lambda name, share, losses: None,
    variants: Mapping[str, Sequence[str]] = VARIANTS,
    seeds: int = 1,
    encoder: Path | None = None,
    test: UnseenSpectra | None = None,
) -> tuple[list[Outcome], list[IndependentOutcome]]:
    """Train every variant with the same data, seeds and time, and judge it.

    Parameters
    ----------
    parametrisation, data, held
        What is trained, on what, and what it is judged on.
    settings
        Of every training but for its weights and seed.
    folder
        Gets a folder for each training, and the outcomes as JSON.
    measured
        Measured spectra and masks (n, 401), of which the first is shown without its parameters;
        without them the variant that needs them is left out.
    report
        Called after every epoch with the network's `label`, the share done and the losses.
    variants, seeds, encoder
        As for `ablate_model`, the variants with their terms.
    test
        None: held-out simulations alone.
    """
    outcomes: list[Outcome] = []
    independent: list[IndependentOutcome] = []
    first = measured and (measured[0][:1], measured[1][:1])
    for seed in range(settings.seed, settings.seed + seeds):
        for name in variants:
            if name == "measured" and measured is None:
                continue
            own = replace(settings, seed=seed, weights=variant_weights(name))
            model = build(parametrisation, data.direct, own)
            if encoder is not None:
                Encoder.load(encoder).start(model, parametrisation)
                start_field(model, data, own)
            start = "scratch" if encoder is None else "encoder"
            place = folder / f"{name.replace(' ', '-')}-{seed}-{start}"
            place.mkdir(parents=True, exist_ok=True)
            summary = train(model, data, own, place, first, partial(report, label(name, seed)))
            about = {"variant": name, "seed": seed, "steps": int(summary["steps"])}
            outcomes += judge_held_out(model, parametrisation, held, about, summary["minutes"])
            if test is not None:
                calibrate(model, parametrisation, held)
                independent.append(judge_independent(model, parametrisation, test, about))
    write_rows(outcomes, folder / ABLATION)
    write_rows(independent, folder / INDEPENDENT)
    return outcomes, independent


def judge_held_out(
    model: Pinn, parametrisation: Parametrisation, held: HeldOutSpectra, about: dict, minutes: float
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
                **about,
                minutes=round(minutes, 2),
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


def judge_independent(
    model: Pinn, parametrisation: Parametrisation, test: UnseenSpectra, about: dict
) -> IndependentOutcome:
    """Errors, coverage and likelihood of a calibrated network on spectra that it does not know."""
    places = [parametrisation.index(f"1/{name}") for name in JUDGED]
    out = predict(model, *test.independent)
    error = np.float64(out["theta"][:, places]) - test.truth
    std = np.sqrt(np.diagonal(out["theta_cov"], axis1=1, axis2=2)[:, places])
    pull = np.minimum(np.abs(error) / std, FARTHEST)
    likelihood = 0.5 * pull**2 + np.log(std / parametrisation.prior_std[places])
    means = (np.sqrt(np.mean(error**2, 0)), np.mean(pull < Z90, 0), np.mean(likelihood, 0))
    rms, held, likely = (dict(zip(JUDGED, map(float, x), strict=True)) for x in means)
    r_factor = _r_factor(model, parametrisation, *test.measured)
    return IndependentOutcome(
        **about, rms=rms, coverage_90=held, likelihood=likely, r_factor=r_factor
    )


def _r_factor(
    model: Pinn, parametrisation: Parametrisation, chi_k2: Floats, mask: Floats
) -> float | None:
    """Median share of spectra (n, 401), in the fit window, that EXAFS(theta) leaves over."""
    if not len(chi_k2):
        return None
    exafs = predict(model, chi_k2, mask)["chi_k2_exafs"]
    window = model.taper(mask)
    left, whole = (
        model.power(x, window, parametrisation.window.r).numpy() for x in (chi_k2 - exafs, chi_k2)
    )
    return float(np.median(left / whole))


def _relative(off: Floats, clean: Floats, mask: Floats) -> float:
    """Median over spectra (n, 401) of the relative L2 error inside the mask."""
    size = np.linalg.norm(clean * mask, axis=1)
    return float(np.median(np.linalg.norm(off * mask, axis=1) / size))


def as_table(outcomes: list[Outcome]) -> Table:
    """Errors over those of the first variant, and the relative errors of field and EXAFS(theta)."""
    names = list(outcomes[0].errors)
    shown = Table(
        "k max", "noise", "loss", "seed", "steps", *names, "field", "EXAFS(theta)", "9 to 12"
    )
    base = {(o.k_max, o.noise, o.seed): o for o in outcomes if o.variant == outcomes[0].variant}
    for o in sorted(outcomes, key=lambda o: (-o.k_max, o.noise)):
        first = base[o.k_max, o.noise, o.seed]
        ratios = [f"{o.errors[name] / first.errors[name]:.2f}" for name in names]
        relative = [f"{x:.3f}" for x in (o.field, o.exafs, o.beyond)]
        about = (f"{o.k_max:g}", f"{o.noise:g}", o.variant, str(o.seed), str(o.steps))
        shown.add_row(*about, *ratios, *relative)
    return shown


def as_independent_table(outcomes: Sequence[IndependentOutcome]) -> Table:
    """For people, a row for each training."""
    shown = Table("loss", "seed", "steps", *(f"{kind} {name}" for kind in (
        "rms", "90 % hold, %", "likelihood",
    ) for name in JUDGED), "R-factor, measured", title="independent simulator")  # fmt: skip
    for o in outcomes:
        cells = [
            *(f"{x:.3g}" for x in o.rms.values()),
            *(f"{100 * x:.0f}" for x in o.coverage_90.values()),
            *(f"{x:.2f}" for x in o.likelihood.values()),
            "" if o.r_factor is None else f"{o.r_factor:.4f}",
        ]
        shown.add_row(o.variant, str(o.seed), str(o.steps), *cells)
    return shown


def plot_ablation(outcomes: Sequence[Outcome], file: Path) -> None:
    """Errors of the nearest shell's parameters and of the field over those of the first variant.

    Of the first seed.
    """
    first, seed = outcomes[0].variant, outcomes[0].seed
    outcomes = [o for o in outcomes if o.seed == seed]
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

"""Commands of ``exafsd-train``.

TensorFlow is loaded by those that need it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    help="Train the networks that exafsd uses to analyse spectra.",
)  # fmt: skip

Cif = Annotated[
    list[Path] | None,
    typer.Option("--cif", help="Crystal structure file; give either one --cif or one --amcsd."),
]
Amcsd = Annotated[
    list[int] | None,
    typer.Option(
        "--amcsd", help="Number of a structure in the American Mineralogist database (AMCSD)."
    ),
]
Absorber = Annotated[str, typer.Option(help="Absorbing element, for example Cu.")]
Site = Annotated[
    int,
    typer.Option(
        "--site",
        min=0,
        help="Number of the absorber's site in the structure; 0 averages over all sites.",
    ),
]
EdgeName = Annotated[str, typer.Option("--edge", help="Absorption edge, for example K or L3.")]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Number of training steps, instead of minutes. The amount of training then does not"
        " depend on the machine's speed."
    ),
]
ModelData = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder with measured spectra of materials for which exafsd has models."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]
Workers = Annotated[
    int, typer.Option(help="Number of processes that simulate spectra as mu(E) and reduce them.")
]


@app.command()
def paths(
    absorber: Absorber,
    edge: EdgeName,
    out: Annotated[Path, typer.Option(help="Folder for the FEFF run.")],
    cif: Cif = None,
    amcsd: Amcsd = None,
    site: Site = 1,
) -> None:
    """Run FEFF8L on a structure and list its shells and paths."""
    from exafsd_training.fitting import workflow

    workflow.list_paths(workflow.chosen_crystal(cif, amcsd, site), absorber, edge, out)


@app.command()
def fit(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained model; by default runs/NAME.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="TOML file with the structure, instead of --absorber, --edge, --name, --cif,"
            " --amcsd and --site; or the name of a model that comes with exafsd."
        ),
    ] = None,
    absorber: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[
        str | None, typer.Option("--edge", help="Absorption edge, for example K or L3.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model, for example cu-k-fcc; by default made from the formula."
        ),
    ] = None,
    cif: Cif = None,
    amcsd: Amcsd = None,
    site: Site = 1,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Minutes of training, not counting the simulations; by default 1.6, or 25"
            " with --from-scratch, unless the file of --config sets a number of steps."
        ),
    ] = None,
    steps: Steps = None,
    seed: Seed = 1,
    workers: Workers = 1,
    direct: Annotated[
        int | None,
        typer.Option(
            help="Number of training spectra that are simulated as a sum of FEFF paths; 40,000 by"
            " default, and 100,000 from scratch."
        ),
    ] = None,
    instrument: Annotated[
        int | None,
        typer.Option(
            help="Number of training spectra that are simulated as mu(E) and reduced with AUTOBK;"
            " 3,000 by default, and 7,000 from scratch."
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Encoder that the network starts from, written by exafsd-train encoder; by"
            " default the one that comes with exafsd-training."
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Start the training from random weights, not from an encoder.",
        ),
    ] = False,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="Additional measured spectra (XDI) for the training, whose parameters need not be"
            " known: a term of the loss compares the network with these spectra."
        ),
    ] = None,
    physics: Annotated[
        list[str] | None,
        typer.Option(
            help="Additional term of the loss, which compares the network with physics: curvature"
            " or exafs_equation."
        ),
    ] = None,
) -> None:
    """Train a network for a structure, or continue a training that was interrupted."""
    if encoder and from_scratch:
        raise typer.BadParameter("--encoder and --from-scratch exclude each other")
    if unknown := set(physics or []) - {"curvature", "exafs_equation"}:
        raise typer.BadParameter(f"--physics knows no {', '.join(sorted(unknown))}")
    if config and (absorber or edge or name or cif or amcsd or site != 1):
        raise typer.BadParameter("--config holds the structure: give nothing of it beside")
    if not config and not (absorber and edge):
        raise typer.BadParameter("give --config, or --absorber and --edge")
    from exafsd_training.fitting import stages

    stages.load_tensorflow()
    from exafsd_training.fitting import workflow
    from exafsd_training.fitting.fit import SHORT, Settings
    from exafsd_training.model.encoder import SHIPPED, EncoderError
    from exafsd_training.model.losses import PHYSICS, Weights
    from exafsd_training.theory import structures
    from exafsd_training.zoo import configurations

    configuration = configurations.load(config) if config else None
    if configuration:
        crystal = configuration.crystal()
        absorber, edge, name = configuration.absorber, configuration.edge, configuration.name
    else:
        crystal = workflow.chosen_crystal(cif, amcsd, site)
        name = name or structures.model_name(crystal, str(absorber), str(edge))
    out = out or Path("runs") / str(name)
    terms = [*(physics or []), *(["measured"] if unlabelled else [])]
    if from_scratch and steps is None and minutes is None and configuration:
        steps = configuration.steps
    usual = Settings() if from_scratch else SHORT
    settings = replace(
        usual, seed=seed, minutes=minutes or usual.minutes, steps=steps,
        direct_spectra=direct or usual.direct_spectra,
        instrument_spectra=instrument or usual.instrument_spectra,
        weights=Weights(**{t: PHYSICS[t] for t in terms}),
    )  # fmt: skip
    start = None if from_scratch else encoder or SHIPPED
    with stages.only_warnings(structures.StructureWarning, workflow.console):
        try:
            workflow.fit_model(crystal, str(absorber), str(edge), str(name), out, settings,
                               workers, unlabelled or [], configuration, start)  # fmt: skip
        except (structures.StructureError, EncoderError) as error:
            raise SystemExit(f"no training: {error}") from None


@app.command()
def encoder(
    out: Annotated[Path, typer.Option(help="File of the encoder.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of the crystals to train on, from the table of `exafsd-export zoo`; by"
            " default the crystals of the encoder that comes with the package exafsd-training."
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Minutes of training, not counting the simulations.")
    ] = 30.0,
    steps: Steps = None,
    seed: Seed = 1,
    direct: Annotated[
        int,
        typer.Option(
            help="Number of spectra of each crystal that are simulated as a sum of FEFF paths."
        ),
    ] = 5_000,
    instrument: Annotated[
        int,
        typer.Option(
            help="Number of spectra of each crystal that are simulated as mu(E) and reduced with"
            " AUTOBK."
        ),
    ] = 250,
    work: Annotated[Path, typer.Option(help="Folder for the FEFF runs.")] = Path("feff"),
) -> None:
    """Train the encoder: network layers that are common to all crystals.

    `exafsd-train fit` starts its network from it.
    """
    from exafsd_training.fitting import stages

    stages.load_tensorflow()
    from exafsd_training.fitting import encoder_training
    from exafsd_training.fitting.fit import Settings

    settings = Settings(
        seed=seed, minutes=minutes, steps=steps, direct_spectra=direct,
        instrument_spectra=instrument,
    )  # fmt: skip
    losses = encoder_training.encoder_with_progress(names or [], out, work, settings)
    typer.echo(f"{out}: written, " + ", ".join(f"{n} {x:.3g}" for n, x in losses.items()))


@app.command()
def ablate(
    config: Annotated[
        str, typer.Option(help="Model to train: name or file, as in `exafsd-train fit`.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the trained networks and the table that compares them.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the measured spectra that are listed in the file of --config. The"
            " first spectrum in this list is used to train the variants `measured` and `decoder`"
            " (see --variant). All networks are tested with the other spectra and, if the model"
            " comes with exafsd, also with the simulator of `exafsd-train independent`."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Variant to train: `data only`, or the name of an additional term of the loss:"
            " curvature, exafs_equation, measured, gauss_newton or decoder."
            " May be repeated; by default all."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Minutes for each network.")] = 5.0,
    seed: Seed = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Number of networks for each variant.")] = 1,
    from_scratch: Annotated[
        bool, typer.Option(help="Start from random weights instead of the shared encoder.")
    ] = False,
    workers: Workers = 1,
    direct: Annotated[
        int,
        typer.Option(help="Number of training spectra that are simulated as a sum of FEFF paths."),
    ] = 100_000,
    instrument: Annotated[
        int,
        typer.Option(
            help="Number of training spectra that are simulated as mu(E) and reduced with AUTOBK."
        ),
    ] = 7_000,
) -> None:
    """Compare networks that are trained with and without terms of the physics loss."""
    from exafsd_training.fitting.fit import Settings
    from exafsd_training.model.encoder import SHIPPED
    from exafsd_training.studies.ablation import VARIANTS, ablate_model
    from exafsd_training.zoo import configurations

    if unknown := set(variant or []) - VARIANTS.keys():
        raise typer.BadParameter(f"--variant is one of {', '.join(VARIANTS)}, not {unknown.pop()}")
    if "measured" in (variant or []) and data is None:
        raise typer.BadParameter("--variant measured needs --data")
    settings = Settings(
        seed=seed, minutes=minutes, direct_spectra=direct, instrument_spectra=instrument
    )
    ablate_model(
        configurations.load(config), data, out, settings, workers, variant or [], seeds,
        None if from_scratch else SHIPPED,
    )  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Measured spectra, XDI.")] = None,
    data: ModelData = None,
) -> None:
    """Compare network and refinement with Larch's feffit on measured spectra.

    The result is written into the card of the model.
    """
    if not files and not data:
        raise typer.BadParameter("give measured spectra, or --data")
    from exafsd_training.studies import evaluation

    evaluation.evaluate(model, files or [], data)


@app.command()
def edge(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a model bundle, written by exafsd-export.")
    ],
    files: Annotated[list[Path], typer.Argument(help="Measured mu(E) of the material, XDI.")],
) -> None:
    """Determine E0 and FEFF's zero of energy from measured spectra.

    Both are written into the card of the model.
    """
    from exafsd_training.studies.edge_position import place_edge

    place_edge(bundle, files)


@app.command()
def independent(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of a model bundle, written by exafsd-export.")
    ],
    config: Annotated[
        str,
        typer.Option(help="TOML file that the model was trained with, or the name of the model."),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Measured mu(E) of the material (XDI), from which the simulator takes near edges"
            " and backgrounds; needed unless --data is given."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the measured spectra that --config names.")
    ] = None,
    spectra: Annotated[
        int,
        typer.Option(min=10, help="Number of simulated spectra that do not belong to a series."),
    ] = 300,
    series: Annotated[
        int, typer.Option(min=2, help="Number of simulated temperature series.")
    ] = 32,
    work: Annotated[Path, typer.Option(help="Folder for the FEFF runs.")] = Path("feff"),
) -> None:
    """Test network and refinement with a simulator that was not used for training.

    The result is written into the card of the model.
    """
    from exafsd_training.studies.independent import judge_bundle
    from exafsd_training.zoo import configurations

    configuration = configurations.load(config)
    measured = [*(files or [])]
    if data:
        measured += [data / one.file for one in configuration.measured if one.kind == "mu"]
    if not measured:
        raise typer.BadParameter("give measured spectra of the material, or --data")
    judge_bundle(bundle, configuration, measured, work, spectra, series)


@app.command()
def library(
    folder: Annotated[Path, typer.Argument(help="Folder of the XAS Data Library's XDI files.")],
    models: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with additional model bundles; may be repeated."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose generated part is updated.")
    ] = None,
) -> None:
    """Analyse every spectrum of the XAS Data Library, and list the results, wrong ones first."""
    from exafsd.settings import Settings
    from exafsd_training.studies import library as module

    rows = module.judge_library(folder, Settings(models=tuple(models or ())))
    if page:
        module.renew_table(rows, page)
    for line in module.as_lines(rows):
        typer.echo(line)


@app.command()
def coverage(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    spectra: Annotated[
        int,
        typer.Option(
            min=200,
            help="Number of simulated spectra for each noise level and each highest k of the data.",
        ),
    ] = 2000,
    workers: Workers = 1,
) -> None:
    """For each noise level and highest k, count how often error bars contain the true value."""
    from exafsd_training.studies.coverage import measure_coverage

    measure_coverage(model, spectra, workers)


@app.command()
def theory(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
) -> None:
    """Run FEFF with other approximations, and show the errors that they would cause in a fit."""
    from exafsd_training.studies import theory_error

    theory_error.measure_theory(model)


@app.command()
def trend(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    lowest: Annotated[float, typer.Option(help="Lowest temperature, K.")] = 100.0,
    highest: Annotated[float, typer.Option(help="Highest temperature, K.")] = 700.0,
    spectra: Annotated[int, typer.Option(min=2, help="Number of temperatures in a series.")] = 13,
    series: Annotated[
        int, typer.Option(min=1, help="Number of series that are simulated as a sum of FEFF paths.")
    ] = 40,
    through: Annotated[
        int,
        typer.Option(
            min=1, help="Number of series that are simulated as mu(E) and reduced with AUTOBK."
        ),
    ] = 20,
) -> None:
    """Simulate temperature series, and compare the slopes of R and sigma2 with the true ones."""
    from exafsd_training.studies import trend

    trend.measure_trend(model, (lowest, highest, spectra), series, through)


@app.command()
def negatives(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    workers: Workers = 1,
    data: ModelData = None,
) -> None:
    """Count how often parameters are withheld for other phases, for mixtures and for pure noise."""
    from exafsd_training.studies import negatives as module

    module.negatives(model, workers, data)


@app.command()
def denoise(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    data: ModelData = None,
    workers: Workers = 1,
) -> None:
    """Remove noise in three ways (network, filter, fit); compare with less noisy spectra."""
    from exafsd_training.studies import denoise as module

    module.denoising(model, data, workers)


@app.command()
def baseline(
    data: Annotated[Path, typer.Option(help="Folder with the published data of Khan (2025).")],
    out: Annotated[
        Path, typer.Option(help="Folder for the training history, the report and the figure.")
    ],
    mode: Annotated[
        Literal["hybrid", "theory", "blind"],
        typer.Option(
            help="hybrid: predict the measured spectrum from the calculated one and k; theory:"
            " only a check, give the calculated spectrum back; blind: predict the"
            " measured spectrum from k alone."
        ),
    ] = "hybrid",
    split: Annotated[
        Literal["points", "material"],
        typer.Option(
            help="What is kept out of the training: points: random points of all spectra, as"
            " published; material: all spectra of some materials."
        ),
    ] = "points",
    epochs: Annotated[
        int, typer.Option(min=1, help="Number of training epochs; by default the published number.")
    ] = 1500,
    seed: Seed = 1,
) -> None:
    """Train the network of Khan (2025), and test it on data that were kept out of the training."""
    from rich.console import Console
    from rich.progress import Progress

    from exafsd_training.studies import baseline as module

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{mode}, {split}", total=epochs)
        report = module.baseline(
            data, out, mode, split, epochs, seed,
            lambda epoch: progress.update(task, completed=epoch),
        )  # fmt: skip
    module.show(report)


@app.command()
def oracle(
    data: Annotated[Path, typer.Option(help="Folder with the measured spectra.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write; by default the one that comes with exafsd.")
    ] = None,
    feff: Annotated[Path, typer.Option(help="Folder for FEFF runs.")] = Path("runs/feff"),
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose generated part is updated.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only check: fail if a number has changed, and write nothing."
        ),
    ] = False,
) -> None:
    """Use Larch's feffit to fit measured spectra of materials for which exafsd has models."""
    from exafsd_training.reference import table

    if not table.make(data, feff, out or table.TABLE, page, check):
        raise typer.Exit(1)

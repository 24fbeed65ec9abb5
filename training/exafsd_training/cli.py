"""Commands: ``exafsd-train paths | fit | evaluate | coverage | oracle``.

TensorFlow is loaded by those that need it.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    help="Train the networks that exafsd reads spectra with.",
)  # fmt: skip

Cif = Annotated[list[Path] | None, typer.Option("--cif", help="Crystal structure file.")]
Amcsd = Annotated[list[int] | None, typer.Option("--amcsd", help="AMCSD id of a structure.")]
Absorber = Annotated[str, typer.Option(help="Absorbing element, for example Cu.")]
Site = Annotated[
    int, typer.Option("--site", min=0, help="Which site of the absorber; 0 averages over all.")
]
EdgeName = Annotated[str, typer.Option("--edge", help="Absorption edge, for example K or L3.")]


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
    from exafsd_training import workflow

    workflow.list_paths(workflow.crystals(cif, amcsd, site), absorber, edge, out)


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    config: Annotated[
        str | None,
        typer.Option(help="TOML file with all below up to --site, or name of a model that ships."),
    ] = None,
    absorber: Absorber | None = None,
    edge: EdgeName | None = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model, for example cu-k-fcc.")
    ] = None,
    cif: Cif = None,
    amcsd: Amcsd = None,
    site: Site = 1,
    minutes: Annotated[float, typer.Option(help="Training time, without simulation.")] = 25.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that simulate the instrument.")] = 1,
    direct: Annotated[int, typer.Option(help="Simulated path sums.")] = 100_000,
    instrument: Annotated[int, typer.Option(help="Spectra through mu(E) and AUTOBK.")] = 7_000,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(help="Measured XDI spectra for the physics loss; never their parameters."),
    ] = None,
) -> None:
    """Train a network for a structure; goes on where an interrupted run of it stopped."""
    if config and (absorber or edge or name or cif or amcsd or site != 1):
        raise typer.BadParameter("--config holds the structure: give nothing of it beside")
    if not config and not (absorber and edge and name):
        raise typer.BadParameter("give --config, or --absorber, --edge and --name")
    from exafsd_training import workflow, zoo
    from exafsd_training.fit import Settings

    chosen = zoo.load(config) if config else None
    if chosen:
        crystal = chosen.crystal()
        absorber, edge, name = chosen.absorber, chosen.edge, chosen.name
    else:
        crystal = workflow.crystals(cif, amcsd, site)
    settings = Settings(
        seed=seed, minutes=minutes, direct_spectra=direct, instrument_spectra=instrument
    )
    workflow.fit_model(crystal, str(absorber), str(edge), str(name), out, settings,
                       workers, unlabelled or [], chosen)  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    files: Annotated[list[Path], typer.Argument(help="Measured spectra, XDI.")],
) -> None:
    """Compare the network with Larch's feffit on measured spectra; kept for the card."""
    from exafsd_training import evaluation

    evaluation.evaluate(model, files)


@app.command()
def coverage(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    spectra: Annotated[int, typer.Option(min=200, help="Simulated for each cell.")] = 1000,
) -> None:
    """Count how often error bars hold the truth, by noise and data end; widths beside a bound."""
    from exafsd_training import workflow

    workflow.measure_coverage(model, spectra)


@app.command()
def oracle(
    data: Annotated[Path, typer.Option(help="Folder with the measured spectra.")],
    out: Annotated[
        Path | None, typer.Option(help="Table to write; the one that ships by default.")
    ] = None,
    feff: Annotated[Path, typer.Option(help="Folder for FEFF runs.")] = Path("runs/feff"),
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose generated part is renewed.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a number has changed.")
    ] = False,
) -> None:
    """Fit every measured spectrum of the models that ship with Larch's feffit."""
    from exafsd_training import oracle_table

    if not oracle_table.make(data, feff, out or oracle_table.TABLE, page, check):
        raise typer.Exit(1)

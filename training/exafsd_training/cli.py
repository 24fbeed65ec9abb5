"""Commands: ``exafsd-train paths | fit | evaluate``. TensorFlow is loaded by those that need it."""

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
EdgeName = Annotated[str, typer.Option("--edge", help="Absorption edge, for example K or L3.")]


@app.command()
def paths(
    absorber: Absorber,
    edge: EdgeName,
    out: Annotated[Path, typer.Option(help="Folder for the FEFF run.")],
    cif: Cif = None,
    amcsd: Amcsd = None,
) -> None:
    """Run FEFF8L on a structure and list its shells and paths."""
    from exafsd_training import workflow

    workflow.list_paths(workflow.crystals(cif, amcsd), absorber, edge, out)


@app.command()
def fit(
    absorber: Absorber,
    edge: EdgeName,
    name: Annotated[str, typer.Option(help="Name of the model, for example cu-k-fcc.")],
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    cif: Cif = None,
    amcsd: Amcsd = None,
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
    from exafsd_training import workflow
    from exafsd_training.fit import Settings

    settings = Settings(
        seed=seed, minutes=minutes, direct_spectra=direct, instrument_spectra=instrument
    )
    workflow.fit_model(workflow.crystals(cif, amcsd), absorber, edge, name, out, settings,
                       workers, unlabelled or [])  # fmt: skip


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    files: Annotated[list[Path], typer.Argument(help="Measured spectra, XDI.")],
) -> None:
    """Compare the network with Larch's feffit on measured spectra; kept for the card."""
    from exafsd_training import evaluation

    evaluation.evaluate(model, files)

"""Command: ``exafsd-export bundle``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    help="Make model bundles for exafsd from trained networks or crystal structures, and check"
        " them.",
)  # fmt: skip


@app.callback()
def main() -> None:
    """Make model bundles for exafsd from trained networks or crystal structures, and check them."""


@app.command()
def bundle(
    model: Annotated[
        Path, typer.Argument(help="Folder of the trained model, written by exafsd-train fit.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    spectra: Annotated[
        list[Path] | None,
        typer.Option(
            help="Measured spectra (XDI) for the comparison with TensorFlow, in addition to"
            " simulated ones."
        ),
    ] = None,
) -> None:
    """Convert a trained network to ONNX, compare it with TensorFlow, and write a bundle."""
    from exafsd_export.bundle import make_bundle

    for name, difference in make_bundle(model, out, spectra or []).items():
        typer.echo(f"{name}: ONNX differs from TensorFlow by {difference:.1e} of its scale")
    typer.echo(f"{out}: written")


@app.command()
def quick(
    absorber: Annotated[str, typer.Option(help="Absorbing element, for example Ni.")],
    edge: Annotated[str, typer.Option(help="Absorption edge, for example K or L3.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    cif: Annotated[
        list[Path] | None,
        typer.Option("--cif", help="Crystal structure file; give either one --cif or one --amcsd."),
    ] = None,
    amcsd: Annotated[
        list[int] | None,
        typer.Option(
            "--amcsd", help="Number of a structure in the American Mineralogist database (AMCSD)."
        ),
    ] = None,
    site: Annotated[
        int,
        typer.Option(
            "--site",
            min=0,
            help="Number of the absorber's site in the structure; 0 averages over all sites.",
        ),
    ] = 1,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; by default made from edge and formula.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder in which to store the FEFF run, so that it can be used again."),
    ] = None,
) -> None:
    """Make a model (bundle) without a network from a crystal structure, in about a minute.

    The daemon analyses spectra with it by fitting.
    """
    from exafsd_export.progress import quick_with_progress

    quick_with_progress(cif or [], amcsd or [], site, absorber, edge, name, out, work)


@app.command()
def zoo(
    out: Annotated[
        Path, typer.Option(help="Folder for the bundles; each has its own folder inside.")
    ],
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of the crystals in the table; by default all.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for the FEFF runs.")] = Path("feff"),
) -> None:
    """Rebuild those bundles of exafsd that have no network, from a table of crystal structures."""
    from exafsd_export.progress import zoo_with_progress

    zoo_with_progress(names or [], out, work)


@app.command()
def equality(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle without a network.")],
    spectra: Annotated[
        list[Path] | None,
        typer.Argument(help="Measured mu(E), as XDI files; by default Larch simulates a spectrum."),
    ] = None,
    cif: Annotated[
        Path | None, typer.Option("--cif", help="Structure file from which the bundle was made.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for the FEFF run.")] = Path("feff"),
) -> None:
    """Fit spectra once with flat priors and once as the daemon does; compare both with feffit."""
    from exafsd.inference.registry import read_card
    from exafsd_export.equality import as_lines, compare
    from exafsd_training.theory.structures import from_cif

    card = read_card(bundle)
    crystal = from_cif(cif, card.structures[0].absorber_site) if cif else None
    rows = compare(bundle, spectra or [], work, crystal)
    for line in as_lines(card, rows):
        typer.echo(line)
    if not all(row.equal for row in rows):
        raise typer.Exit(1)


@app.command()
def judge(
    data: Annotated[list[Path], typer.Option(help="Folders with measured spectra.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of crystals; by default the crystals in the documentation."),
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for the FEFF runs and the bundles.")] = Path(
        "feff"
    ),
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose generated part is updated.")
    ] = None,
) -> None:
    """Test models without a network on simulated spectra, and against feffit on measured ones."""
    from exafsd_export import judged

    for line in judged.judge(names or [], data, work, page):
        typer.echo(line)


@app.command()
def refinement(
    bundle: Annotated[Path, typer.Argument(help="Folder of an older bundle.")],
    config: Annotated[
        str,
        typer.Option(help="TOML file that the model was trained with, or the name of the model."),
    ],
    work: Annotated[Path, typer.Option(help="Folder for the FEFF run.")] = Path("feff"),
) -> None:
    """Add to an older bundle the files that the refinement needs, without a new training."""
    from exafsd_export.bundle import add_refinement
    from exafsd_training.zoo import configurations

    for name, difference in add_refinement(bundle, configurations.load(config), work).items():
        typer.echo(f"{name}: ONNX differs from TensorFlow by {difference:.1e} of its scale")
    typer.echo(f"{bundle}: written")

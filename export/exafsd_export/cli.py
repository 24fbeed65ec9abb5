"""Command: ``exafsd-export bundle``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    help="Turn trained networks into verified model bundles.",
)  # fmt: skip


@app.callback()
def main() -> None:
    """Turn trained networks into verified model bundles."""


@app.command()
def bundle(
    model: Annotated[Path, typer.Argument(help="Folder that exafsd-train fit wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    spectra: Annotated[
        list[Path] | None,
        typer.Option(help="Measured spectra (XDI) to prove it on, beside simulated ones."),
    ] = None,
) -> None:
    """Convert to ONNX, prove it equal to TensorFlow, write graphs and card."""
    from exafsd_export.bundle import make_bundle

    for name, difference in make_bundle(model, out, spectra or []).items():
        typer.echo(f"{name}: ONNX differs from TensorFlow by {difference:.1e} of its scale")
    typer.echo(f"{out}: written")


@app.command()
def refinement(
    bundle: Annotated[Path, typer.Argument(help="Folder of an older bundle.")],
    config: Annotated[str, typer.Option(help="TOML file that it was trained by, or its name.")],
    work: Annotated[Path, typer.Option(help="Folder for the run of FEFF.")] = Path("feff"),
) -> None:
    """Add to an older bundle what the refinement needs, without training."""
    from exafsd_export.bundle import add_refinement
    from exafsd_training.zoo import configurations

    for name, difference in add_refinement(bundle, configurations.load(config), work).items():
        typer.echo(f"{name}: ONNX differs from TensorFlow by {difference:.1e} of its scale")
    typer.echo(f"{bundle}: written")

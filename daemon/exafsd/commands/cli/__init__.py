"""The ``exafsd`` command: what can be typed, and the help for it."""

import atexit
import gc
import os
from typing import Annotated

import typer

from exafsd._version import __version__
from exafsd.commands.cli import beamline, config, models, references, results, setup, stored

# Its matrices are too small to share: a second BLAS thread only takes the core of the receiver.
# To be set before numpy is imported, which the commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Determine the local structure from quick-XAFS scans while they are measured."""
    # else the interpreter looks for garbage in 2,500 modules on its way out: 0.7 s
    atexit.register(gc.freeze)
    if version:
        typer.echo(f"exafsd {__version__}")
        raise typer.Exit


for commands in (beamline, stored, setup):
    app.add_typer(commands.app)
app.add_typer(models.app, name="models", rich_help_panel=setup.PANEL)
app.add_typer(references.app, name="references", rich_help_panel=setup.PANEL)
app.add_typer(config.app, name="config", rich_help_panel=setup.PANEL)
app.add_typer(results.app, name="results", rich_help_panel=stored.PANEL)

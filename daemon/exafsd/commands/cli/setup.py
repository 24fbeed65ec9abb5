"""Commands with which a beamline is set up."""

from pathlib import Path
from typing import Annotated

import typer

from exafsd.commands.cli.options import (
    UNREADABLE,
    ConfigOption,
    begin_log,
    failing,
    settings_from,
    settings_with_model,
)

app = typer.Typer()
PANEL = "Set-up"


@app.command(rich_help_panel=PANEL)
def check(
    config: ConfigOption = None,
    journal: Annotated[
        bool, typer.Option("--journal", help="Also check every record of the journal.")
    ] = False,
) -> None:
    """Check settings, models and references without connecting to anything."""
    settings = settings_from(config)
    from exafsd.commands.check import check_settings

    report, problems = check_settings(settings, journal)
    for line in report:
        typer.echo(line)
    for problem in problems:
        typer.echo(f"PROBLEM  {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("ok")


@app.command("calibrate-s02", rich_help_panel=PANEL)
def calibrate_s02(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files with spectra of a foil; with --uid, the archive that contains the foil's"
            " run."
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(help="File to write; by default s02-ELEMENT-EDGE.json.")
    ] = None,
    uid: Annotated[str | None, typer.Option(help="Uid of the foil's run in the archive.")] = None,
    config: ConfigOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name or folder of the model to use; by default the one that fits best."),
    ] = None,
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    channel: Annotated[
        str, typer.Option(help="Detection channel: transmission, fluorescence or reference.")
    ] = "transmission",
    at_least: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of spectra that are needed; by default 3 from a run, 1 from files."
        ),
    ] = None,
) -> None:
    """Determine S0² from a foil, so that exafsd can give coordination numbers."""
    from exafsd.commands.calibrate_s02 import FoilData, calibrate_to_file

    settings = settings_with_model(config, model)
    begin_log("ERROR")
    with failing(*UNREADABLE):
        foil = FoilData.parse(sources, uid, element, edge, channel, at_least)
        for line in calibrate_to_file(foil, settings, to):
            typer.echo(line)


@app.command(rich_help_panel=PANEL)
def keys(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the key files; created if it does not exist.")
    ],
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client that needs keys; may be repeated.")
    ] = None,
) -> None:
    """Make the keys of the daemon and its clients for encrypted connections."""
    from exafsd.publishing import KeyFileError, make_keys

    with failing(KeyFileError, OSError):
        paths = make_keys(folder, client or [])
    for path in paths:
        typer.echo(f"wrote {path}")
    typer.echo(
        f'server: [publish] curve = {{ secret = "{folder / "server.key_secret"}",'
        f' clients = "{folder / "allowed"}" }}'
    )
    for name in client or []:
        typer.echo(f"{name}: give them the folder {folder / 'clients' / name}, for --keys")

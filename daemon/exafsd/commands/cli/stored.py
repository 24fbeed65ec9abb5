"""Commands for files and archives."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exafsd.commands.cli.options import (
    UNREADABLE,
    ConfigOption,
    JsonOption,
    ModelOption,
    SetOption,
    ToOption,
    begin_log,
    fail,
    failing,
    settings_with_model,
)

app = typer.Typer()
PANEL = "Files and archives"


def components_option(spectra: str) -> Any:
    """Option `--components` for what is decomposed together."""
    return typer.Option(
        metavar="N",
        help="Decompose the near edges into N components (MCR-ALS), and print the shares of the"
        f" components instead of the results. {spectra} is decomposed by itself.",
    )


AnchorOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Fix one of the components to this reference; may be repeated."
    ),
]


@app.command(rich_help_panel=PANEL)
def analyze(
    files: Annotated[
        list[Path], typer.Argument(help="Files with spectra: XDI, text columns, SPEC or HDF5.")
    ],
    config: ConfigOption = None,
    changes: SetOption = None,
    model: ModelOption = None,
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Folder with additional reference spectra; may be repeated."
        ),
    ] = None,
    components: Annotated[
        int | None, components_option("Each group of files with the same edge and channel")
    ] = None,
    anchor: AnchorOption = None,
    json: JsonOption = False,
) -> None:
    """Analyse spectra in files in the same way as the daemon analyses scans."""
    from exafsd.commands.analyze import analyze_files
    from exafsd.commands.component_shares import make_component_resolver

    settings = settings_with_model(config, model, changes or [])
    if references:
        composition = settings.composition.model_copy(
            update={"references": (*settings.composition.references, *references)}
        )
        settings = settings.model_copy(update={"composition": composition.read()})
    begin_log("ERROR")
    if anchor and components is None:
        fail("--anchor needs --components", 2)
    with failing(ValueError):
        asked = (
            None
            if components is None
            else make_component_resolver(settings, components, anchor or [], json)
        )
    if not analyze_files(files, settings, element, edge, json, asked):
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def replay(
    catalog: Annotated[
        str,
        typer.Argument(metavar="ARCHIVE", help="tiled profile or URI, or the folder of a journal."),
    ],
    uid: Annotated[
        str | None,
        typer.Option(help="Only the run with this uid; its first characters are enough."),
    ] = None,
    last: Annotated[int | None, typer.Option(help="Only the latest N runs.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs from this date (ISO) on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only runs up to this date (ISO).")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with KEY=VALUE in their start document; may be repeated."),
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime/--fast",
            help="--realtime: at the speed of the measurement; --fast: as fast as possible.",
        ),
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the results, as the daemon does.")
    ] = False,
    json: JsonOption = False,
    write: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Write the results into this catalog.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Skip runs whose results are already in the catalog (with --write)."
        ),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="CATALOG",
            help="Compare with the stored results in this catalog: print the stored and the new"
            " results and the difference.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of runs to analyse at the same time.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a Dask scheduler, for example tcp://HOST:8786; its workers analyse the"
            " runs.",
        ),
    ] = None,
    components: Annotated[int | None, components_option("Each run")] = None,
    anchor: AnchorOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    model: ModelOption = None,
) -> None:
    """Analyse archived runs again, with the current settings and models."""
    from exafsd.commands.replay.outputs import Options
    from exafsd.commands.replay.runs import Selection
    from exafsd.commands.replay.runs import replay as replay_runs

    settings = settings_with_model(config, model, changes or [])
    begin_log("ERROR")
    options = Options(
        realtime, processes, resume, write, compare, publish, json, scheduler, components,
        tuple(anchor or ()),
    )  # fmt: skip
    with failing(*UNREADABLE):
        chosen = Selection.parse(uid, last, since, until, search or [])
        complete = replay_runs(catalog, chosen, settings, options)
    if not complete:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def export(
    catalog: Annotated[
        str,
        typer.Argument(metavar="ARCHIVE", help="tiled profile or URI, or the folder of a journal."),
    ],
    uid: Annotated[
        str, typer.Option(help="Uid of the measured run (not the uid of its stored results).")
    ],
    to: ToOption,
) -> None:
    """Write the results of a run to a NeXus or Athena file, or to a folder of XDI files."""
    from exafsd.exports.export import export as export_run

    with failing(*UNREADABLE):
        typer.echo(export_run(catalog, uid, to))

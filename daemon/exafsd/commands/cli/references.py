"""``exafsd references``: spectra of standards."""

from pathlib import Path
from typing import Annotated

import typer

from exafsd.commands.cli.options import (
    UNREADABLE,
    ConfigOption,
    fail,
    failing,
    settings_from,
)

app = typer.Typer(no_args_is_help=True, help="Add, list, show and remove reference spectra.")

OutOption = Annotated[Path, typer.Option("--out", help="Folder with your references.")]


@app.command("add")
def references_add(
    name: Annotated[str, typer.Argument(help="Name of the compound, for example Cu2O.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="File with the spectrum of the compound, in any format that analyze reads."
        ),
    ] = None,
    out: OutOption = Path("references"),
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="UID", help="Use the mean of sweeps of this run instead of a file."),
    ] = None,
    sweeps: Annotated[
        str | None, typer.Option(help="Sweeps of the run, for example 1-20,25; by default all.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Detection channel of the run, if there are several.")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(
            help="Where the run is stored: folder of a journal, tiled URI or tiled profile; by"
            " default the journal in the settings."
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Add a measured spectrum, or the mean of several sweeps of a run, to your references."""
    from exafsd.composition.references import ReferenceFileError, add
    from exafsd.spectra import Edge

    named = Edge.of(element or "", edge or "") if element or edge else None
    if (file is None) == (run is None):
        fail("give either a FILE or a --run", 2)
    source = ""
    with failing(ReferenceFileError, *UNREADABLE):
        if file is not None:
            reference = add(out, name, file, named)
        else:
            from exafsd.commands.run_reference import RunSweeps, add_from_run

            chosen = RunSweeps.parse(str(run), sweeps, channel, named)
            reference, count = add_from_run(out, name, chosen, settings_from(config), archive)
            source = f"mean of {count} sweeps, "
    typer.echo(
        f"wrote {reference.file}: {source}{reference.edge.element} {reference.edge.edge},"
        f" noise {reference.noise:.2g}"
    )
    typer.echo(f'use it: [composition] references = ["{out.resolve()}"]')


@app.command("list")
def references_list(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with references; by default those of the settings."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the references, and the files that cannot be used as a reference."""
    from rich.console import Console

    from exafsd.commands.references import as_table, gathered

    asked = settings_from(config).composition
    references, refused = gathered(folders or asked.references, asked.shipped)
    Console().print(as_table(references))
    for text in refused:
        typer.echo(f"PROBLEM  {text}", err=True)
    if refused:
        raise typer.Exit(1)


@app.command("show")
def references_show(
    name: Annotated[str, typer.Argument(help="Name of the reference.")],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with references; by default those of the settings."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show where a reference comes from and how good it is."""
    from exafsd.commands.references import described, gathered

    asked = settings_from(config).composition
    references, _ = gathered(folders or asked.references, asked.shipped)
    chosen = [one for one in references if one.name == name]
    if not chosen:
        names = ", ".join(one.name for one in references)
        fail(f"there is no reference {name}; there are: {names}")
    for one in chosen:
        typer.echo("\n".join(described(one)))


@app.command("remove")
def references_remove(
    name: Annotated[str, typer.Argument(help="Name of the reference.")],
    out: OutOption = Path("references"),
) -> None:
    """Delete a reference from its folder."""
    from exafsd.composition.references import ReferenceFileError, remove

    with failing(ReferenceFileError, OSError):
        typer.echo(f"removed {remove(out, name)}")

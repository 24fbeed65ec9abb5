"""``exafsd results``: what past runs have given, from the log beside the journal."""

from pathlib import Path
from typing import Annotated

import typer

from exafsd.commands.cli.options import (
    UNREADABLE,
    ConfigOption,
    JsonOption,
    ToOption,
    fail,
    failing,
    settings_from,
)

app = typer.Typer(no_args_is_help=True, help="List, show and export results of past runs.")

JournalOption = Annotated[
    Path | None,
    typer.Option("--journal", help="Folder of the journal; by default that of the settings."),
]


def _journal(folder: Path | None, config: Path | None) -> Path:
    chosen = folder or settings_from(config).journal_folder
    if chosen is None or not chosen.is_dir():
        fail(f"there is no journal {chosen or 'in the settings'}; name one with --journal")
    return chosen


def _end_damaged(damage: list[str]) -> None:
    for text in damage:
        typer.echo(f"PROBLEM  {text}", err=True)
    if damage:
        raise typer.Exit(1)


@app.command("list")
def results_list(journal: JournalOption = None, config: ConfigOption = None) -> None:
    """List the runs whose results the daemon has stored on disk, next to its journal.

    The exit code is 1 if a file of results is damaged.
    """
    from rich.console import Console

    from exafsd.commands.results import runs_table

    table, damage = runs_table(_journal(journal, config))
    Console().print(table)
    _end_damaged(damage)


@app.command("show")
def results_show(
    uid: Annotated[str, typer.Argument(help="Uid of the run, or its first characters.")],
    journal: JournalOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the results and rejections of a run.

    The exit code is 1 if the file of results is damaged.
    """
    from rich.console import Console

    from exafsd.commands.results import outcomes_lines, outcomes_table

    folder = _journal(journal, config)
    with failing(*UNREADABLE):
        if json:
            lines, damage = outcomes_lines(folder, uid)
            for line in lines:
                typer.echo(line)
        else:
            table, damage = outcomes_table(folder, uid)
            Console().print(table)
    _end_damaged([] if damage is None else [damage])


@app.command("export")
def results_export(
    uid: Annotated[str, typer.Argument(help="Uid of the run, or its first characters.")],
    to: ToOption,
    journal: JournalOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the results that the daemon has stored on disk, next to its journal, to a file.

    `exafsd export` writes the same file for a journal, and also writes results of a catalog.
    """
    from exafsd.exports.export import export as export_run

    folder = _journal(journal, config)
    with failing(*UNREADABLE):
        typer.echo(export_run(str(folder), uid, to))

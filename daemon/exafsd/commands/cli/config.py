"""``exafsd config``: settings written, shown and described."""

from pathlib import Path
from typing import Annotated

import typer

from exafsd.commands.cli.options import (
    ConfigOption,
    fail,
    settings_from,
)

app = typer.Typer(no_args_is_help=True, help="Write, show and describe settings.")


@app.command("init")
def config_init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("exafsd.toml"),
) -> None:
    """Write a settings file that explains every setting and sets it to its default."""
    from exafsd.settings.template import template

    if path.exists():
        fail(f"{path} exists already; it is not overwritten")
    path.write_text(template())
    typer.echo(f"wrote {path}")


@app.command("show")
def config_show(config: ConfigOption = None) -> None:
    """Print the settings in use (defaults, file and environment) as JSON."""
    typer.echo(settings_from(config).model_dump_json(indent=2))


@app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the settings."""
    from exafsd.settings.template import schema_text

    typer.echo(schema_text(), nl=False)

"""Options that several commands share, and what every command does first and last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Name or folder of the only model to use; 'none' uses no model."),
]
ToOption = Annotated[
    Path,
    typer.Option(
        "--to",
        help="NAME.h5 or NAME.nxs (NeXus file), NAME.prj (Athena project), or NAME.xdi (folder"
        " with an XDI file for each spectrum).",
    ),
]
#: where a daemon with default settings publishes
DEFAULT_ADDRESS = "tcp://127.0.0.1:5580"
AddressArgument = Annotated[str, typer.Argument(help="Address where the daemon publishes.")]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Folder with this client's keys, made by exafsd keys.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def fail(text: object, code: int = 1) -> NoReturn:
    """Say what is wrong and end."""
    typer.echo(f"exafsd: {text}", err=True)
    raise typer.Exit(code)


@contextmanager
def failing(*errors: type[Exception], code: int = 1) -> Iterator[None]:
    """Say what is wrong and end, where one of these errors says so."""
    try:
        yield
    except errors as error:
        fail(error, code)


#: what archives and catalogs raise where they cannot be read
UNREADABLE = (ValueError, LookupError, OSError, RuntimeError)


def settings_from(config: Path | None, **overrides: Any) -> Any:
    """Settings of a file and of the environment; where they are not valid, the command ends."""
    from pydantic import ValidationError

    from exafsd.settings import load

    try:
        return load(config, **overrides)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        fail("\n".join([f"settings {config or '(environment)'} are not valid:", *lines]), 2)
    except (OSError, ValueError) as error:
        fail(error, 2)


def settings_with_model(config: Path | None, model: str | None) -> Any:
    """The same, with only this model; where it cannot be used, the command ends."""
    from exafsd.commands.models import with_model
    from exafsd.inference.registry import BundleError

    with failing(BundleError):
        return with_model(settings_from(config), model)


def begin_log(level: str, form: Any = "auto") -> None:
    """Begin to write the log to stderr."""
    from exafsd.logs import configure

    configure(level, form)

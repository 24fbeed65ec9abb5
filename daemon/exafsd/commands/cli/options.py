"""Options that several commands share, and what every command does first and last."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Name or folder of the only model to use; 'none' uses no model."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, for example adapter.it=I1 (the column of the transmitted"
        " intensity); may be repeated.",
    ),
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
        source = config or ("(environment or --set)" if overrides else "(environment)")
        fail("\n".join([f"settings {source} are not valid:", *lines]), 2)
    except (OSError, ValueError) as error:
        fail(error, 2)


def settings_with_model(config: Path | None, model: str | None, changes: Sequence[str] = ()) -> Any:
    """The same, changed by `--set` and with only this model; where that fails, the command ends."""
    from exafsd.commands.models import with_model
    from exafsd.inference.registry import BundleError

    with failing(ValueError, code=2):
        overrides = nested(changes)
    with failing(BundleError):
        return with_model(settings_from(config, **overrides), model)


def nested(changes: Sequence[str]) -> dict[str, Any]:
    """Settings of the form ``table.key=value``, as tables.

    A value is read as in a settings file; what is nothing of that kind is a string.

    Raises
    ------
    ValueError
        If a change has no value, or if a key is a table and a value.
    """
    tables: dict[str, Any] = {}
    for change in changes:
        path, separator, value = change.partition("=")
        *parents, key = path.strip().split(".")
        if not separator or not all([*parents, key]):
            raise ValueError(f"--set {change}: it is not KEY=VALUE, for example adapter.it=I1")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ValueError(f"--set {change}: {parent} has a value already")
        if isinstance(table.get(key), dict):
            raise ValueError(f"--set {change}: parts of {key} have values already")
        table[key] = _value(value.strip())
    return tables


def _value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def begin_log(level: str, form: Any = "auto") -> None:
    """Begin to write the log to stderr."""
    from exafsd.logs import configure

    configure(level, form)

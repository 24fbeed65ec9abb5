"""``exafsd models``: the models and what they say about themselves."""

from pathlib import Path
from typing import Annotated

import typer

from exafsd.commands.cli.options import (
    DEFAULT_ADDRESS,
    AddressArgument,
    ConfigOption,
    KeysOption,
    failing,
    settings_from,
)

app = typer.Typer(no_args_is_help=True, help="List, show, add and check models.")


@app.command("list")
def models_list(config: ConfigOption = None) -> None:
    """List the models in use, and each refused model with the reason."""
    from exafsd.commands.models import models_table

    models_table(settings_from(config))


@app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Name of a model, or its folder.")],
    config: ConfigOption = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Print a summary instead, with the accuracy of the model compared with feffit.",
        ),
    ] = False,
) -> None:
    """Print the description of a model (its card) as JSON."""
    from exafsd.commands.models import find_card, show_card
    from exafsd.inference.registry import BundleError

    with failing(BundleError):
        card = find_card(name, settings_from(config))
    if text:
        show_card(card)
    else:
        typer.echo(card.model_dump_json(by_alias=True, indent=2))


@app.command("add")
def models_add(
    file: Annotated[Path, typer.Argument(help="Crystal structure file (CIF).")],
    absorber: Annotated[str, typer.Option(help="Absorbing element, for example Ni.")],
    edge: Annotated[str, typer.Option(help="Absorption edge, for example K.")],
    config: ConfigOption = None,
    site: Annotated[
        int,
        typer.Option(
            min=0, help="Number of the absorber's site in the structure; 0 averages over all sites."
        ),
    ] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
) -> None:
    """Make a model from a crystal structure in about a minute; a running daemon then loads it."""
    from exafsd.commands.model_add import NotMadeError, add_model

    with failing(NotMadeError):
        folder = add_model(file, absorber, edge, settings_from(config), site, name)
    typer.echo(f"{folder}: a daemon with these settings takes it up within seconds")


@app.command("reload")
def models_reload(
    address: AddressArgument = DEFAULT_ADDRESS,
    config: ConfigOption = None,
    keys: KeysOption = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for models that are not loaded yet.")
    ] = 10.0,
) -> None:
    """Wait until a running daemon, which finds new models by itself, has loaded them all.

    Prints which models are loaded, not loaded yet (missing) or refused. The daemon finds new models
    by itself; this command only waits for it.
    """
    from exafsd.commands.model_add import taken_up

    with failing(ValueError):  # the keys, or something else talks there
        lines, complete = taken_up(settings_from(config), address, keys, wait)
    for line in lines:
        typer.echo(line)
    if not complete:
        raise typer.Exit(1)


@app.command("page")
def models_page() -> None:
    """Print a page about the models that come with exafsd, in Markdown."""
    from exafsd.commands.models import models_page as page

    typer.echo(page(), nl=False)


@app.command("verify")
def models_verify(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of models (bundles); by default all that are in use."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Load models to check that they are complete and unchanged."""
    from exafsd.commands.models import verify_models

    lines, good = verify_models(bundles or [], settings_from(config))
    for line in lines:
        typer.echo(line)
    if not good:
        raise typer.Exit(1)

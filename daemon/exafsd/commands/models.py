"""``exafsd models``: bundles in a table, cards, a page about them, and their verification."""

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Column, Table

from exafsd.commands import modelpage
from exafsd.contract.card import Card
from exafsd.inference.registry import (
    BundleError,
    bundle_folders,
    load_bundle,
    read_card,
    shipped_folder,
)
from exafsd.settings import Settings


def with_model(settings: Settings, model: str | None) -> Settings:
    """Settings with the model named on the command line: a name, a bundle's folder, or none."""
    if model is None:
        return settings
    if model == "none":
        inference = settings.inference.model_copy(update={"enabled": False})
        return settings.model_copy(update={"inference": inference})
    folder = Path(model)
    if not folder.is_dir():
        inference = settings.inference.model_copy(update={"model": model})
        return settings.model_copy(update={"inference": inference})
    name = read_card(folder).name
    inference = settings.inference.model_copy(update={"model": name})
    update = {"models": (*settings.models, folder), "inference": inference}
    return settings.model_copy(update=update)


def models_table(settings: Settings) -> None:
    """Print bundles, and refused ones with the reason; no graph is started, see `verify_models`."""
    bundles: dict[str, tuple[Path, Card]] = {}
    refused: dict[str, BundleError] = {}
    for folder in bundle_folders([shipped_folder(), *settings.models]):
        try:
            card = read_card(folder)
            bundles[card.name] = folder, card
        except BundleError as error:
            refused[folder.name] = error
    judged = ("spectra", "R", "N·S0²")  # measured, and largest differences to feffit
    table = Table(
        Column("model", no_wrap=True), "edge", "phases", "read by", *judged, "sha256", "folder",
        caption="R, N·S0²: largest difference to feffit on measured spectra, nearest shell",
    )  # fmt: skip
    for name, (folder, card) in sorted(bundles.items()):
        table.add_row(
            name,
            f"{card.absorber} {card.edge}",
            ", ".join(s.phase for s in card.structures),
            "fit" if card.reading else "network",
            *modelpage.judged(card),
            card.model_sha256[:12],
            "shipped" if folder.parent == shipped_folder() else str(folder),
        )
    Console().print(table)
    for name, reason in refused.items():
        typer.echo(f"exafsd: refused {name}: {reason}", err=True)


def find_card(name: str, settings: Settings) -> Card:
    """Card of a bundle by name or folder.

    Raises
    ------
    BundleError
        If there is none, or it is refused.
    """
    if Path(name).is_dir():
        return read_card(Path(name))
    for folder in bundle_folders([shipped_folder(), *settings.models]):
        if folder.name == name:
            return read_card(folder)
    raise BundleError(f"no model {name!r}; see `exafsd models list`")


def show_card(card: Card) -> None:
    """Print a card for people."""
    from rich.markdown import Markdown

    Console().print(Markdown(modelpage.section(card)))


def models_page() -> str:
    """Markdown page about the shipped models."""
    return modelpage.page(read_card(folder) for folder in bundle_folders([shipped_folder()]))


def verify_models(folders: list[Path], settings: Settings) -> tuple[list[str], bool]:
    """Load every bundle; lines of a report, and whether all are good."""
    lines, good = [], True
    for folder in folders or bundle_folders([shipped_folder(), *settings.models]):
        try:
            card = load_bundle(folder).card
            lines.append(f"ok       {card.name}  {card.absorber} {card.edge}  {folder}")
        except BundleError as error:
            good = False
            lines.append(f"REFUSED  {error}")
    return lines or ["no models found"], good

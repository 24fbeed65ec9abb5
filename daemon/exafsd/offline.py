"""What commands do without a live source: files, models; progress and tables."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from exafsd import composition, modelpage
from exafsd.contract.card import Card
from exafsd.contract.frames import encode
from exafsd.contract.messages import Result
from exafsd.inference.registry import (
    BundleError,
    Registry,
    bundle_folders,
    load_bundle,
    read_card,
    shipped_folder,
)
from exafsd.pipeline import Outcome
from exafsd.settings import Settings
from exafsd.spectra import Edge, SpectrumError
from exafsd.terminal import ResultTable, as_list


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


def as_json(outcome: Outcome, **more: Any) -> str:
    """Outcome as one line of JSON: its header, arrays as lists, and what is added."""
    message = outcome.message
    message.time = time.time()
    encode(message, outcome.arrays)  # fills in nothing but the list of arrays
    header = message.model_dump(by_alias=True, mode="json")
    if isinstance(message, Result):
        header["arrays"] = {name: as_list(array) for name, array in outcome.arrays.items()}
    return json.dumps({**header, **more})


def analyze_files(
    files: list[Path], settings: Settings, element: str | None, edge: str | None, as_lines: bool
) -> bool:
    """Analyse files; return whether every spectrum of every file gave a result."""
    pipeline = composition.make_pipeline(settings)
    given = Edge.of(element or "", edge or "") if element or edge else None
    table = ResultTable()
    good = True
    with progress() as bar:
        task = bar.add_task("analysing", total=len(files))
        for path in files:
            bar.update(task, advance=1, description=path.name)
            try:
                for outcome in composition.analyze_file(path, settings, pipeline, given):
                    good &= outcome.message.kind == "result"
                    if as_lines:
                        sys.stdout.write(as_json(outcome, file=str(path)) + "\n")
                        sys.stdout.flush()
                    else:
                        table.add(outcome.message.model_dump(mode="json"), path.name)
                    if outcome.message.kind == "rejected":
                        tell(f"{path}: {outcome.message.channel}: {outcome.message.detail}")
            except SpectrumError as error:
                good = False
                if as_lines:
                    line = {"kind": "rejected", "file": str(path), "reason": error.reason}
                    sys.stdout.write(json.dumps({**line, "detail": error.detail}) + "\n")
                tell(error.detail)
    if not as_lines:
        Console().print(table.render())
    return good


def tell(text: str) -> None:
    """Say something on stderr, where it does not mix with results."""
    sys.stderr.write(f"exafsd: {text}\n")


def progress() -> Progress:
    """Progress bar on stderr; none where stderr is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def models_table(settings: Settings) -> None:
    """Print bundles, and refused ones with the reason."""
    registry = Registry.load(settings.models)
    judged = ("spectra", "R", "N·S0²")  # measured, and largest differences to feffit
    table = Table(
        Column("model", no_wrap=True), "edge", "phases", *judged, "sha256", "folder",
        caption="R, N·S0²: largest difference to feffit on measured spectra, nearest shell",
    )  # fmt: skip
    for name, bundle in sorted(registry.bundles.items()):
        card = bundle.card
        table.add_row(
            name,
            f"{card.absorber} {card.edge}",
            ", ".join(s.phase for s in card.structures),
            *modelpage.judged(card),
            card.sha256["pinn.onnx"][:12],
            "shipped" if bundle.folder.parent == shipped_folder() else str(bundle.folder),
        )
    Console().print(table)
    for name, reason in registry.refused.items():
        tell(f"refused {name}: {reason}")


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

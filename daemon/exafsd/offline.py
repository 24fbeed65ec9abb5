"""What commands do without a live source: files, archives, models; progress and tables."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from exafsd import composition
from exafsd.archive.sources import open_source
from exafsd.contract.card import Card
from exafsd.contract.frames import encode
from exafsd.contract.messages import Result
from exafsd.documents import Problem, RunBegan
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

#: s for subscribers to find a publisher that has just begun; what is sent before is lost to them
SETTLE = 1.0


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
    with _progress(enabled=not as_lines and len(files) > 1) as progress:
        task = progress.add_task("analysing", total=len(files))
        for path in files:
            progress.update(task, advance=1, description=path.name)
            try:
                for outcome in composition.analyze_file(path, settings, pipeline, given):
                    good &= outcome.message.kind == "result"
                    if as_lines:
                        sys.stdout.write(as_json(outcome, file=str(path)) + "\n")
                        sys.stdout.flush()
                    else:
                        table.add(outcome.message.model_dump(mode="json"), path.name)
                    if outcome.message.kind == "rejected":
                        _tell(f"{path}: {outcome.message.channel}: {outcome.message.detail}")
            except SpectrumError as error:
                good = False
                if as_lines:
                    line = {"kind": "rejected", "file": str(path), "reason": error.reason}
                    sys.stdout.write(json.dumps({**line, "detail": error.detail}) + "\n")
                _tell(error.detail)
    if not as_lines:
        Console().print(table.render())
    return good


def _tell(text: str) -> None:
    sys.stderr.write(f"exafsd: {text}\n")


def _progress(enabled: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not enabled,
        transient=True,
    )


@dataclass(frozen=True)
class Selection:
    """Which runs of an archive."""

    uid: str | None = None
    last: int | None = None
    since: float | None = None
    until: float | None = None
    search: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        uid: str | None,
        last: int | None,
        since: str | None,
        until: str | None,
        search: Iterable[str],
    ) -> "Selection":
        """Selection from the words of a command line.

        Raises
        ------
        ValueError
            If a date or a KEY=VALUE cannot be read.
        """
        pairs = {}
        for text in search:
            key, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"--search {text!r} is not KEY=VALUE")
            pairs[key] = value
        return cls(uid, last, _instant(since), _instant(until), pairs)


def _instant(text: str | None) -> float | None:
    """Seconds since 1970 of a number or an ISO date, which is local time unless it says more."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except ValueError:
        raise ValueError(f"{text!r} is neither an ISO date nor seconds since 1970") from None


def replay_catalog(
    catalog: str, chosen: Selection, settings: Settings, realtime: bool, publish: bool, lines: bool
) -> bool:
    """Analyse archived runs again; return whether at least one run was found.

    Raises
    ------
    ValueError, LookupError, OSError
        If the archive cannot be opened.
    """
    source = open_source(catalog)
    pipeline = composition.make_pipeline(settings)
    publisher = composition.make_publisher(settings) if publish else None
    if publisher is not None:
        time.sleep(SETTLE)
    table = ResultTable()
    found = False
    with _progress(enabled=not lines) as progress:
        task = progress.add_task("replaying", total=None)
        for documents in source.runs(
            uid=chosen.uid,
            last=chosen.last,
            since=chosen.since,
            until=chosen.until,
            search=chosen.search,
        ):
            found = True
            router = composition.make_router(
                settings, roots=(*settings.source.asset_roots, *source.asset_roots)
            )
            paced = _in_real_time(documents) if realtime else documents
            for item in composition.replay(paced, router, pipeline, _report):
                if isinstance(item, RunBegan):
                    progress.update(task, description=f"run {item.run.uid}")
                if not isinstance(item, Outcome):
                    continue
                progress.advance(task)
                if publisher is not None:
                    publisher.send(item.message, item.arrays)
                if lines:
                    sys.stdout.write(as_json(item) + "\n")
                elif publisher is None:
                    table.add(item.message.model_dump(mode="json"), item.message.run_uid[:6])
    if publisher is not None:
        publisher.close()
    if not found:
        _tell(f"{catalog}: no run matches")
    elif not lines and publisher is None:
        Console().print(table.render())
    return found


def _report(problem: Problem) -> None:
    _tell(f"{problem.reason}: {problem.detail}")


def _in_real_time(documents: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Documents with the pauses between their times."""
    began = None
    for name, document in documents:
        when = document.get("time")
        when = when[-1] if isinstance(when, (list, tuple)) and when else when
        if isinstance(when, (int, float)):
            if began is None:
                began = (when, time.monotonic())
            time.sleep(max(0.0, (when - began[0]) - (time.monotonic() - began[1])))
        yield name, document


def models_table(settings: Settings) -> None:
    """Print bundles, and refused ones with the reason."""
    registry = Registry.load(settings.models)
    table = Table("model", "edge", "phases", "parameters", "sha256", "folder")
    for name, bundle in sorted(registry.bundles.items()):
        card = bundle.card
        table.add_row(
            name,
            f"{card.absorber} {card.edge}",
            ", ".join(s.phase for s in card.structures),
            str(len(card.parameters)),
            card.sha256["pinn.onnx"][:12],
            str(bundle.folder),
        )
    Console().print(table)
    for name, reason in registry.refused.items():
        _tell(f"refused {name}: {reason}")


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

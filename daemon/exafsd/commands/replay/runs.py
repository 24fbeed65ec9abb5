"""``exafsd replay``: which runs, analysed again, and where the results go."""

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exafsd._version import __version__
from exafsd.archive.catalog import CatalogError, open_catalog
from exafsd.archive.results import is_done
from exafsd.archive.sources import ArchivedRun, ArchiveSource, CatalogSource, open_source
from exafsd.commands.replay.analysis import Failed, in_processes, in_turn
from exafsd.commands.replay.cluster import on_workers
from exafsd.commands.replay.outputs import Options, Outputs
from exafsd.commands.terminal import progress, tell
from exafsd.contract.card import Card
from exafsd.inference.registry import Registry
from exafsd.service import wiring
from exafsd.settings.settings import Settings


@dataclass(frozen=True)
class Selection:
    """Which runs of an archive."""

    uid: str | None = None
    last: int | None = None
    since: float | None = None
    until: float | None = None
    search: dict[str, str] = field(default_factory=dict[str, str])

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


def replay(archive: str, chosen: Selection, settings: Settings, options: Options) -> bool:
    """Analyse archived runs again; whether there were any, and all could be read and kept.

    Raises
    ------
    ValueError, LookupError, OSError, RuntimeError
        If the options do not fit, or a catalog cannot be opened.
    """
    options.check()
    with ExitStack() as stack:
        source = open_source(archive)
        stack.callback(source.close)
        catalogs = {archive: source.catalog} if isinstance(source, CatalogSource) else {}
        for name in (options.write, options.compare):
            if name is not None and name not in catalogs:
                catalogs[name] = open_catalog(name)
                stack.callback(catalogs[name].context.close)
        return _replay(archive, source, catalogs, chosen, settings, options)


def _replay(
    archive: str,
    source: ArchiveSource,
    catalogs: Mapping[str, Any],
    chosen: Selection,
    settings: Settings,
    options: Options,
) -> bool:
    if (options.processes > 1 or options.scheduler is not None) and not source.shared:
        raise CatalogError(
            f"{archive} is an embedded catalog, which one process may open at a time: serve it"
            " with `tiled serve config`, or replay without --processes and --scheduler"
        )
    cards = wiring.cards_of(Registry.load(settings.models))
    catalog = catalogs[options.write] if options.write is not None and options.resume else None
    uids, total, unreadable = _wanted(source, chosen, settings, catalog, cards)
    if not total:
        tell(f"{archive}: no run matches")
        return False
    if options.resume:
        tell(f"{total - len(uids)} of {total} runs are done already")
    if options.scheduler is not None:
        runs = on_workers(_everywhere(archive), uids, settings, options.scheduler)
    elif options.processes > 1:
        runs = in_processes(archive, uids, settings, options.processes)
    else:
        runs = in_turn(source, uids, settings, options.realtime)
    good = not unreadable
    with Outputs(settings, options, catalogs, cards) as outputs, progress() as bar:
        task = bar.add_task("replaying", total=len(uids))
        for uid, items in runs:
            bar.update(task, description=f"run {uid[:8]}")
            for item in items:
                good &= not isinstance(item, Failed)
                outputs.take(item)
            bar.advance(task)
    return good and not outputs.trouble


def _wanted(
    source: ArchiveSource,
    chosen: Selection,
    settings: Settings,
    catalog: Any | None,
    cards: Mapping[str, Card],
) -> tuple[list[str], int, int]:
    """Uids of the chosen runs that are not done yet in a catalog.

    And how many were chosen, and how many of these cannot be read.
    """
    analysis = settings.analysis
    uids, total, unreadable = [], 0, 0
    for run in source.runs(**asdict(chosen)):
        total += 1
        uid = run.start.get("uid")
        if not isinstance(uid, str):
            tell(f"{run.name}: a run without a start document is left out")
            for text in _damage(run):
                unreadable += 1
                tell(text)
            continue
        if catalog is not None:
            try:
                sha256 = analysis.for_run(run.start).sha256
            except ValueError:  # what it asks for is refused, and it is analysed without
                sha256 = analysis.sha256
            if is_done(catalog, uid, sha256, __version__, cards):
                continue
        uids.append(uid)
    return uids, total, unreadable


def _everywhere(archive: str) -> str:
    """Name of an archive that does not depend on the folder that we are in."""
    return str(Path(archive).resolve()) if Path(archive).is_dir() else archive


def _damage(run: ArchivedRun) -> list[str]:
    """What is wrong with the documents of a run."""
    damage: list[str] = []
    deque(run.documents(damage.append), maxlen=0)
    return damage

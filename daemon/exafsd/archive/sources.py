"""Archived runs by one word: a journal folder, a tiled URI, or a databroker/tiled profile."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exafsd.archive.catalog import CatalogError, documents, is_embedded, open_catalog, runs
from exafsd.archive.journal import JournaledRun, find_run, read_journal

Documents = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class ArchivedRun:
    """A run that can be replayed: its start document, and what gives all of its documents."""

    start: Mapping[str, Any]
    #: may be called with a function that takes what is wrong with them
    documents: Callable[..., Documents]
    #: name in the archive, where it has no start document
    name: str = ""


class ArchiveSource(ABC):
    """Runs that can be replayed."""

    asset_roots: tuple[Path, ...] = ()
    #: whether another process may open the same archive meanwhile
    shared: bool

    def runs(
        self,
        uid: str | None = None,
        last: int | None = None,
        since: float | None = None,
        until: float | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Iterator[ArchivedRun]:
        """Each matching run, oldest first."""
        return self._found(uid, last, since, until, _values(search))

    @abstractmethod
    def _found(self, *chosen: Any) -> Iterator[ArchivedRun]:
        """`runs`, with values of the search that are numbers where they look so."""

    @abstractmethod
    def run(self, uid: str) -> ArchivedRun:
        """The run of this uid.

        Raises
        ------
        CatalogError
            If there is none any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


def open_source(name: str) -> ArchiveSource:
    """Open what a user calls an archive.

    Parameters
    ----------
    name
        An existing folder is a journal; else a tiled URI or a profile.

    Raises
    ------
    CatalogError
        If there is no such profile, or the server does not answer or refuses.
    """
    if Path(name).is_dir():
        return JournalSource(Path(name))
    return CatalogSource(open_catalog(name))


class JournalSource(ArchiveSource):
    """Runs of a journal; external files are read where they were, if the settings allow."""

    shared = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _found(self, *chosen: Any) -> Iterator[ArchivedRun]:
        return map(_journaled, read_journal(self._folder, *chosen))

    def run(self, uid: str) -> ArchivedRun:
        """The run of this uid."""
        journaled = find_run(self._folder, uid)
        if journaled is None:
            raise CatalogError(f"no run {uid!r} in {self._folder}")
        return _journaled(journaled)

    def close(self) -> None:
        """Nothing: files are open only while they are read."""


class CatalogSource(ArchiveSource):
    """Runs of a catalog; external data come through the catalog, inside the events."""

    def __init__(self, catalog: Any) -> None:
        self.catalog = catalog
        self.shared = not is_embedded(catalog)

    def _found(self, *chosen: Any) -> Iterator[ArchivedRun]:
        return map(_catalogued, runs(self.catalog, *chosen))

    def run(self, uid: str) -> ArchivedRun:
        """The run of this uid."""
        (run,) = runs(self.catalog, uid)
        return _catalogued(run)

    def close(self) -> None:
        """End the connection."""
        self.catalog.context.close()


def _journaled(run: JournaledRun) -> ArchivedRun:
    return ArchivedRun(run.start, run.documents, run.path.name)


def _catalogued(run: Any) -> ArchivedRun:
    return ArchivedRun(run.metadata["start"], lambda report=None: documents(run))


def _values(search: Mapping[str, str] | None) -> dict[str, Any]:
    """Numbers, true, false and null as such; a number meant as text is written in quotes."""
    values: dict[str, Any] = {}
    for key, text in (search or {}).items():
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values

"""Archived runs by one word: a journal folder, a tiled URI, or a databroker/tiled profile."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from exafsd.archive.catalog import documents, open_catalog, runs
from exafsd.archive.journal import read_journal

Documents = Iterator[tuple[str, Any]]
_log = logging.getLogger(__name__)


class ArchiveSource(Protocol):
    """Runs that can be replayed."""

    asset_roots: tuple[Path, ...]

    def runs(
        self,
        uid: str | None = None,
        last: int | None = None,
        since: float | None = None,
        until: float | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Iterator[Documents]:
        """Documents of each matching run, oldest run first."""
        ...


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


class JournalSource:
    """Runs of a journal; external files are read where they were, if the settings allow."""

    asset_roots: tuple[Path, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def runs(
        self,
        uid: str | None = None,
        last: int | None = None,
        since: float | None = None,
        until: float | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Iterator[Documents]:
        """Documents of each matching run, oldest run first."""
        for run in read_journal(self._folder, uid, last, since, until, _values(search)):
            yield run.documents(_log.warning)


class CatalogSource:
    """Runs of a catalog; external data come through the catalog, inside the events."""

    asset_roots: tuple[Path, ...] = ()

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog

    def runs(
        self,
        uid: str | None = None,
        last: int | None = None,
        since: float | None = None,
        until: float | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Iterator[Documents]:
        """Documents of each matching run, oldest run first."""
        for run in runs(self._catalog, uid, last, since, until, _values(search)):
            yield documents(run)


def _values(search: Mapping[str, str] | None) -> dict[str, Any]:
    """Numbers, true, false and null as such; a number meant as text is written in quotes."""
    found: dict[str, Any] = {}
    for key, text in (search or {}).items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found

"""Source from a tiled server: a catalog's runs are followed by websocket while they are written."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from exafsd.archive.catalog import is_embedded, open_catalog
from exafsd.archive.followed_catalog import FollowedCatalog, StoppedError
from exafsd.archive.followed_run import Taken
from exafsd.archive.journaled import find_run
from exafsd.archive.node_feeds import NodeFeeds
from exafsd.contract.vocabulary import Problem
from exafsd.logs import get_logger
from exafsd.settings.tiled import TiledSource as TiledSettings

log = get_logger(__name__)

#: documents that may wait for the worker; the rest stays in the catalog
ROOM = 200
#: s between two tries to open the catalog, and that a request may still take at the end
AGAIN = 1.0


class Inbox(Protocol):
    """Where documents go."""

    def put(self, name: str, document: Any) -> None:
        """Take a document."""
        ...

    def report(self, reason: Problem, detail: str) -> None:
        """Take trouble."""
        ...

    def __len__(self) -> int: ...


class TiledSource:
    """Puts the documents of a catalog's runs into an inbox, from a thread of its own.

    Parameters
    ----------
    inbox
        Takes documents, and is told of trouble.
    settings
        Which catalog.
    patience
        s to try again, at the end of a run, to read what cannot be read.
    journal
        Folder with the documents that the daemon before has taken; None without.
    open_runs
        Uids of those that had not ended.
    """

    keeps = True

    def __init__(
        self,
        inbox: Inbox,
        settings: TiledSettings,
        patience: float = 5.0,
        journal: Path | None = None,
        open_runs: Iterable[str] = (),
    ) -> None:
        self._inbox, self._settings, self._patience = inbox, settings, patience
        self._journal, self._open_runs = journal, list(open_runs)
        self._feeds: NodeFeeds | None = None
        self._refusal: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exafsd-tiled", daemon=True)

    @property
    def address(self) -> str:
        """Where it is connected to, or tries to."""
        return self._settings.catalog

    @property
    def absence(self) -> str:
        """What to say where the catalog cannot be followed."""
        refusal = self._refusal if self._feeds is None else self._feeds.refusal
        where = f"source.tiled.catalog {self._settings.catalog}"
        return f"no tiled server answers at {where}" if refusal is None else f"{where}: {refusal}"

    def connected(self) -> bool:
        """Whether new runs of the catalog are seen."""
        return self._feeds is not None and self._feeds.connected

    def start(self) -> None:
        """Begin to follow; the second time nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Take nothing more; it stays in the catalog."""
        self._stopping.set()
        if self._thread.is_alive():  # a request may wait for a server that is gone
            self._thread.join(AGAIN)

    def _run(self) -> None:
        began = time.time()
        catalog = self._opened()
        if catalog is None:
            return
        try:
            context = catalog.context
            feeds = NodeFeeds(str(context.api_uri), tuple(catalog.path_parts), context.api_key)
            followed = FollowedCatalog(
                catalog, feeds, self._put, self._tell, self._patience,
                began - self._settings.since, self._journaled(),
            )  # fmt: skip
            self._feeds = feeds
            feeds.start()
            while not self._stopping.is_set():
                followed.step()
        except StoppedError:
            pass
        finally:
            if self._feeds is not None:
                self._feeds.stop()
            catalog.context.close()

    def _opened(self) -> Any:
        """Catalog, as soon as its server is there; None at the end, or where it has no server."""
        while not self._stopping.is_set():
            try:
                catalog = open_catalog(self._settings.catalog)
            except Exception as error:  # whatever client and server may raise
                log.debug("tiled", error=str(error))
                self._refusal = _refusal(error)
                self._stopping.wait(AGAIN)
                continue
            if not is_embedded(catalog):
                return catalog
            catalog.context.close()
            self._refusal = "it has no server; serve it with `tiled serve config`"
            return None
        return None

    def _journaled(self) -> dict[str, Taken]:
        """What the daemon before has taken of runs that are open."""
        if self._journal is None:
            return {}
        journaled = {uid: find_run(self._journal, uid) for uid in self._open_runs}
        return {uid: Taken.of(run.documents()) for uid, run in journaled.items() if run is not None}

    def _tell(self, uid: str, error: Exception) -> None:
        self._inbox.report(
            Problem.TILED_UNREAD,
            f"run {uid} ended, and what is left of it cannot be read: {type(error).__name__}:"
            f" {error}. When it can be: exafsd replay {self._settings.catalog} --uid {uid}",
        )

    def _put(self, name: str, document: dict[str, Any]) -> None:
        """Put a document when there is room."""
        while len(self._inbox) >= ROOM and not self._stopping.wait(0.002):
            pass
        if self._stopping.is_set():
            raise StoppedError
        self._inbox.put(name, document)


def _refusal(error: Exception) -> str | None:
    """What a server said against opening a catalog; None where none answers."""
    import httpx  # with tiled, which is imported by now

    cause = error.__cause__ or error
    if isinstance(cause, httpx.TransportError):
        return None
    first_line = next(iter(str(cause).splitlines()), "")
    return f"{type(cause).__name__}: {first_line}"

"""Documents in, written down: the light part of the daemon, which is there before the rest."""

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from exafsd.archive.journal import Journal
from exafsd.archive.journaled import latest_write
from exafsd.archive.open_runs import OpenRun, pick_up
from exafsd.archive.outcome_log import OutcomeLog, folder_beside
from exafsd.archive.records import make_folder
from exafsd.archive.tiled_source import TiledSource
from exafsd.documents.inbox import AHEAD, Inbox
from exafsd.documents.kafka import KafkaSource
from exafsd.documents.proxy import ProxySource
from exafsd.logs import get_logger
from exafsd.settings import Settings
from exafsd.settings.settings import JournalSettings

log = get_logger(__name__)


@dataclass
class Intake:
    """Where documents come from and are written down.

    Attributes
    ----------
    inbox
        That they wait in.
    ahead
        Writes down what comes while the worker is at work.
    source
        None inside a RunEngine's process.
    journal, log
        None where none is kept.
    open_runs
        Runs that were open when the daemon before ended.
    latest
        When a document was written down before this daemon, s since 1970; None: never.
    unkept
        Why there is no journal although there should be one, in words.
    """

    inbox: Inbox
    ahead: "WriteAhead"
    source: ProxySource | KafkaSource | TiledSource | None = None
    journal: Journal | None = None
    log: OutcomeLog | None = None
    open_runs: list[OpenRun] = field(default_factory=list[OpenRun])
    latest: float | None = None
    unkept: str | None = None

    @classmethod
    def open(cls, settings: Settings, proxy: bool = True, folder: Path | None = None) -> Self:
        """Intake by the settings; nothing is taken before `start`.

        Parameters
        ----------
        folder
            Of the journal where the settings name none; None: there is no journal then.

        Raises
        ------
        JournalError
            If the folder that the settings name is another daemon's, or cannot be used.
        MissingExtraError
            If documents come from Kafka, and its client is not installed.
        ValueError
            If that client refuses its options.
        """
        inbox = Inbox(settings.source.queue)
        source, asked = settings.source, settings.journal
        taken = cls(inbox, WriteAhead(inbox))
        if proxy and source.kafka is not None:
            taken.source = KafkaSource(inbox, source.kafka)
        elif proxy and source.tiled is None:
            taken.source = ProxySource(inbox, source.address, source.prefix, source.pickle)
        if asked.folder is not None and asked.enabled:
            taken._keep(asked.folder, asked, asked.max_bytes)
        elif folder is not None:  # nobody has asked for it: the daemon starts without it as well
            try:
                make_folder(folder)
                tenth = shutil.disk_usage(folder).total // 10
                taken._keep(folder, asked, min(asked.max_bytes or tenth, tenth))
            except OSError as error:
                taken.unkept = f"documents are not kept: {error}"
        if proxy and source.tiled is not None:
            taken.source = TiledSource(
                inbox,
                source.tiled,
                source.asset_patience,
                taken.journal and taken.journal.folder,
                [run.uid for run in taken.open_runs],
            )
        return taken

    def _keep(self, folder: Path, asked: JournalSettings, max_bytes: int) -> None:
        inbox, outcomes = self.inbox, folder_beside(folder)
        self.latest = latest_write(folder)
        journal = self.journal = Journal(folder, asked.fsync, max_bytes, inbox.tell, [outcomes])
        self.log = OutcomeLog(journal, outcomes, asked.fsync, inbox.tell)
        self.open_runs = pick_up(journal, self.log, inbox.report)
        inbox.keep(journal.write)
        log.info("journal", folder=str(folder), outcomes=str(outcomes), max_bytes=max_bytes)

    def start(self) -> None:
        """Connect, and take documents; the second time it does nothing.

        Raises
        ------
        OSError
            If the address cannot be connected to at all.
        """
        if self.source is not None:
            self.source.start()
        if self.journal is not None:
            self.ahead.start()

    def stop(self) -> None:
        """Take what has arrived, and nothing more."""
        self.ahead.stop()
        if self.source is not None:
            self.source.stop()


class WriteAhead:
    """A thread that writes down what comes while the worker is at work.

    Parameters
    ----------
    inbox
        That documents come by.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exafsd-journal", daemon=True)

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(AHEAD):
            self._inbox.write_ahead()

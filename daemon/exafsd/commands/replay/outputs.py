"""Where the outcomes of a replay go: table, lines, ZeroMQ, result runs, comparison."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console

from exafsd._version import __version__
from exafsd.archive.result_writer import ResultWriter
from exafsd.commands.replay.analysis import Began, Ended, Item
from exafsd.commands.replay.compare import Comparison
from exafsd.commands.terminal import ResultTable, outcome_as_json, tell
from exafsd.contract.card import Card
from exafsd.documents.items import Problem
from exafsd.pipeline import Outcome
from exafsd.service import wiring
from exafsd.settings.settings import Settings

#: s for subscribers to find a publisher that has just begun; what is sent before is lost to them
SETTLE = 1.0


@dataclass(frozen=True)
class Options:
    """How a replay is done, and where its results go besides a table."""

    realtime: bool = False
    processes: int = 1
    #: skip runs that the catalog of `write` has whole result runs of, made in the same way
    resume: bool = False
    #: catalog to write result runs into
    write: str | None = None
    #: catalog with the result runs to compare with
    compare: str | None = None
    publish: bool = False
    lines: bool = False

    def check(self) -> None:
        """Refuse what does not go together.

        Raises
        ------
        ValueError
            It says what.
        """
        if self.resume and self.write is None:
            raise ValueError("--resume needs --write: its result runs tell what is done")
        if self.realtime and self.processes > 1:
            raise ValueError("--realtime is for one process: runs follow each other")


class Outputs:
    """Everything a replay's results go to; a context that ends it.

    Attributes
    ----------
    trouble
        Whether something could not be written, or had nothing to be compared with.
    """

    def __init__(
        self,
        settings: Settings,
        options: Options,
        catalogs: Mapping[str, Any],
        cards: Mapping[str, Card],
    ) -> None:
        self.trouble = False
        self._lines = options.lines
        self._publisher = wiring.make_publisher(settings) if options.publish else None
        self._writer = self._comparison = self._table = None
        if options.write is not None:
            self._writer = ResultWriter(catalogs[options.write], cards, self._report)
        if options.compare is not None:
            self._comparison = Comparison(catalogs[options.compare])
        elif not options.lines and not options.publish:
            self._table = ResultTable()

    def __enter__(self) -> Self:
        """Wait for subscribers, if there may be some."""
        if self._publisher is not None:
            time.sleep(SETTLE)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Show the table, unless something went wrong."""
        if self._publisher is not None:
            self._publisher.close()
        if kind is not None:
            return
        if self._table is not None:
            Console().print(self._table.render())
        if self._comparison is not None and not self._lines:
            Console().print(self._comparison.render())

    def take(self, item: Item) -> None:
        """Take what has come out of a run."""
        if isinstance(item, Outcome):
            self._outcome(item)
        elif isinstance(item, Began):
            if self._comparison is not None and not self._comparison.begin(item.start.run_uid):
                self._report("compare", f"run {item.start.run_uid} has no stored results")
            if self._writer is not None:
                self._writer.run_began(item.start, item.analysis)
            if self._publisher is not None:
                self._publisher.send(item.start)
        elif isinstance(item, Ended):
            if self._writer is not None:
                self._writer.run_ended(item.stop)
            if self._publisher is not None:
                self._publisher.send(item.stop)
            if self._comparison is not None:
                self._comparison.end()
        elif isinstance(item, Problem):
            tell(f"{item.reason}: {item.detail}")
        else:
            tell(item.detail)

    def _outcome(self, outcome: Outcome) -> None:
        message = outcome.message
        if self._publisher is not None:
            self._publisher.send(message, outcome.arrays)
        if self._writer is not None:
            self._writer.write(message, outcome.arrays)
        if self._comparison is not None:
            header = message.model_dump(by_alias=True, mode="json")
            for difference in self._comparison.add(header, __version__):
                if self._lines:
                    sys.stdout.write(difference.as_json() + "\n")
        elif self._lines:
            sys.stdout.write(outcome_as_json(message, outcome.arrays) + "\n")
        elif self._table is not None:
            self._table.add(message.model_dump(mode="json"), message.run_uid[:6])

    def _report(self, reason: str, detail: str) -> None:
        self.trouble = True
        tell(f"{reason}: {detail}")

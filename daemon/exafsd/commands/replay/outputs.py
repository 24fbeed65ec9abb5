"""Where the outcomes of a replay go: table, lines, ZeroMQ, result runs, comparison."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console

from exafsd._version import __version__
from exafsd.archive.result_writer import Arrays, Report, ResultWriter
from exafsd.commands.component_shares import ComponentResolver, make_component_resolver
from exafsd.commands.replay.analysis import Failed
from exafsd.commands.replay.compare import Comparison
from exafsd.commands.terminal import ResultTable, outcome_as_json, tell
from exafsd.contract.card import Card
from exafsd.contract.messages import Rejected, Result, RunStart, RunStop
from exafsd.contract.vocabulary import Problem
from exafsd.documents.items import Trouble
from exafsd.service import wiring
from exafsd.service.session import Event
from exafsd.service.sink import Sink, deliver
from exafsd.settings import Settings
from exafsd.settings.analysis import Analysis

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
    #: address of a Dask scheduler whose workers analyse the runs; None: this machine does
    scheduler: str | None = None
    #: components that the near edges of each run are resolved into, and references they include
    components: int | None = None
    anchors: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what does not go together.

        Raises
        ------
        ValueError
            It says what.
        """
        if self.resume and self.write is None:
            raise ValueError("--resume needs --write: it looks there for the runs that are done")
        if self.anchors and self.components is None:
            raise ValueError("--anchor needs --components: it is one of them")
        if self.scheduler is not None and (self.realtime or self.processes > 1):
            raise ValueError(
                "--scheduler goes without --realtime and --processes: its workers take runs as they"
                " can"
            )
        if self.realtime and self.processes > 1:
            raise ValueError(
                "--realtime works with one process only, because runs follow each other"
            )


class _Outcomes(Sink):
    """Takes outcomes alone; the beginnings and ends of runs are nothing to it."""

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """A run has begun."""

    def run_ended(self, stop: RunStop) -> None:
        """A run is over."""


class Table(_Outcomes):
    """Outcomes as a table, at the end."""

    def __init__(self) -> None:
        self._table = ResultTable()

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Take an outcome."""
        self._table.add(message.model_dump(mode="json"), message.run_uid[:6])

    def show(self) -> None:
        """Print the table."""
        Console().print(self._table.render())


class Lines(_Outcomes):
    """Outcomes as lines of JSON, at once."""

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Take an outcome."""
        sys.stdout.write(outcome_as_json(message, arrays) + "\n")


class Compared(Sink):
    """Outcomes beside stored ones: lines of JSON at once, or a table at the end."""

    def __init__(self, catalog: Any, lines: bool, report: Report) -> None:
        self._comparison = Comparison(catalog)
        self._lines = lines
        self._report = report

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """Look up what is stored of a run."""
        if not self._comparison.begin(start.run_uid):
            self._report(Problem.COMPARE, f"run {start.run_uid} has no stored results")

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Take an outcome."""
        header = message.model_dump(by_alias=True, mode="json")
        for difference in self._comparison.add(header, __version__):
            if self._lines:
                sys.stdout.write(difference.as_json() + "\n")

    def run_ended(self, stop: RunStop) -> None:
        """Note what has no new outcome."""
        self._comparison.end()

    def show(self) -> None:
        """Print the table."""
        if not self._lines:
            Console().print(self._comparison.render())


class Outputs:
    """Everything a replay's results go to; a context that ends it."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        catalogs: Mapping[str, Any],
        cards: Mapping[str, Card],
    ) -> None:
        self._trouble = False
        self._components: ComponentResolver | None = None
        self._publisher = wiring.make_publisher(settings) if options.publish else None
        self._sinks: list[Sink] = [] if self._publisher is None else [self._publisher]
        if options.write is not None:
            self._sinks.append(ResultWriter(catalogs[options.write], cards, self._report))
        if options.compare is not None:
            compared = Compared(catalogs[options.compare], options.lines, self._report)
            self._sinks.append(compared)
        elif options.components is not None:
            self._components = make_component_resolver(
                settings, options.components, options.anchors, options.lines
            )
            self._sinks.append(self._components)
        elif options.lines:
            self._sinks.append(Lines())
        elif not options.publish:
            self._sinks.append(Table())

    @property
    def trouble(self) -> bool:
        """Whether something could not be written, compared or resolved."""
        return self._trouble or (self._components is not None and self._components.trouble)

    def __enter__(self) -> Self:
        """Wait for subscribers, if there may be some."""
        if self._publisher is not None:
            time.sleep(SETTLE)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Show the table, unless something went wrong."""
        if self._publisher is not None:
            self._publisher.close()
        for sink in self._sinks:
            if kind is None and isinstance(sink, Table | Compared):
                sink.show()

    def take(self, event: Event | Failed) -> None:
        """Take what has come out of a run."""
        if isinstance(event, Trouble):
            tell(f"{event.reason}: {event.detail}")
        elif isinstance(event, Failed):
            tell(event.detail)
        else:
            deliver(event, *self._sinks)

    def _report(self, reason: Problem, detail: str) -> None:
        self._trouble = True
        tell(f"{reason}: {detail}")

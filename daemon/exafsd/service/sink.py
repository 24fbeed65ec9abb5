"""Where results go: the socket, a catalog, a table. All of them take the same."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from exafsd.contract.messages import Rejected, Result, RunStart, RunStop
from exafsd.contract.vocabulary import Problem
from exafsd.documents.items import Began, Ended
from exafsd.outcome import Outcome
from exafsd.publishing.outcomes import run_start, run_stop
from exafsd.service.session import Event
from exafsd.settings.analysis import Analysis


class Sink(Protocol):
    """Takes results. No method raises."""

    def run_began(self, start: RunStart, analysis: Analysis, /) -> None:
        """Begin the results of a run."""

    def write(self, message: Result | Rejected, arrays: Mapping[str, NDArray[Any]], /) -> None:
        """Take an outcome."""

    def run_ended(self, stop: RunStop, /) -> None:
        """End the results of a run."""


class QueuedSink(Sink, Protocol):
    """Takes results faster than it keeps them; only `close` waits."""

    #: outcomes that were not kept, by reason
    lost: Counter[Problem]

    def write_log(self, start: RunStart, log: Path, end: int, /) -> None:
        """Take what was logged of a run by a daemon before, up to a place in its log."""
        ...

    def queues(self) -> Mapping[str, int]:
        """What is not kept yet, by what it waits for."""
        ...

    def close(self, patience: float) -> None:
        """Finish within about `patience` s; what is not kept by then is lost, and told."""


def deliver(event: Event, *sinks: Sink) -> None:
    """Give an event to sinks, in their order; trouble is for who runs the session."""
    if isinstance(event, Outcome):
        for sink in sinks:
            sink.write(event.message, event.arrays)
    elif isinstance(event, Began):
        start = run_start(event.run, event.delivery)
        for sink in sinks:
            sink.run_began(start, event.run.analysis)
    elif isinstance(event, Ended):
        stop = run_stop(event.run, event.exit_status, event.counts)
        for sink in sinks:
            sink.run_ended(stop)

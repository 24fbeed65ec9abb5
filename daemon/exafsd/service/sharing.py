"""Runs that daemons share by Kafka: what lets another one go on with those of this one.

A run stays in Kafka from its start document until its end has been sent. Who gets its partition
analyses it from its beginning and marks what it sends as resumed: followers drop what they have.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

from exafsd.contract.vocabulary import Problem
from exafsd.documents.inbox import Arrival
from exafsd.documents.items import Began, Trouble
from exafsd.documents.kafka import KafkaSource
from exafsd.documents.offsets import Place
from exafsd.outcome import Outcome
from exafsd.service.session import Event, Session

#: s between two reports to Kafka of what is done with
REPORT = 1.0
#: s without a document after which a run is over, because it would be kept in Kafka for ever
OLD = 86_400.0
#: what is said of documents without a start; those of ended runs are no trouble here
UNKNOWN = frozenset({
    Problem.UNKNOWN_RUN, Problem.UNKNOWN_DESCRIPTOR, Problem.UNKNOWN_RESOURCE,
})  # fmt: skip


class Sharing:
    """Keeps the account of what this daemon has done with of what it shares with others.

    Parameters
    ----------
    session
        Whose runs they are.
    source
        Where their documents come from.
    """

    def __init__(self, session: Session, source: KafkaSource) -> None:
        self._session, self._source, self._offsets = session, source, source.offsets
        self._resumed: set[str] = set()
        self._at: Place | None = None  # of the document that is being processed
        self._due = time.monotonic() + REPORT

    def take(self, arrival: Arrival) -> bool:
        """Whether a document is for this daemon, still."""
        self._at = arrival.place
        return self._at is None or self._offsets.holds(self._at)

    def processed(self, arrival: Arrival) -> None:
        """A document has been fed to the session."""
        if arrival.place is not None and self._offsets.holds(arrival.place):
            self._offsets.passed(arrival.place)
        self._at = None

    def marked(self, event: Event) -> Event:
        """Event, marked as resumed where another daemon may have sent it before."""
        if isinstance(event, Began):
            if self._at is not None and self._offsets.began(event.run.uid, self._at):
                self._resumed.add(event.run.uid)
            if event.run.uid in self._resumed:
                return replace(event, delivery="resumed")
        elif isinstance(event, Outcome) and event.message.run_uid in self._resumed:
            event.message.delivery = "resumed"
        return event

    def expected(self, trouble: Trouble) -> bool:
        """Whether it is of a document whose run had ended before we began to read here."""
        if self._at is None or trouble.reason not in UNKNOWN:
            return False
        return self._offsets.of_ended_run(self._at)

    def ended(self, uid: str) -> None:
        """A run is over, and its end has been sent."""
        self._offsets.ended(uid)
        self._resumed.discard(uid)

    def given_away(self) -> list[str]:
        """Runs that another daemon has, since this was asked last."""
        given, self._source.revoked = self._source.revoked, []
        self._resumed.difference_update(given)
        return given

    def kept(self) -> set[str]:
        """Runs that another daemon can go on with."""
        return self._offsets.open_runs()

    def tell_due(self) -> Iterator[Event]:
        """Tell Kafka now and then what has been done with, and end runs that never do."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + REPORT
        for uid in self._session.silent_runs(OLD):
            yield Trouble(Problem.LOST_STOP, f"run {uid} had no document for a day; it is closed")
            yield from self._session.give_up(uid)
        self._source.commit()

    def queues(self) -> dict[str, int]:
        """Documents that wait in Kafka for this daemon."""
        return {"kafka": self._source.behind()}

    def close(self) -> None:
        """Tell Kafka how far we came, and leave the rest to others."""
        self._source.close()

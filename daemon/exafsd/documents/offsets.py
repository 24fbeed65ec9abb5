"""How far Kafka's partitions are done with: never beyond the start of a run that is still open.

Nothing here talks to Kafka.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

Partition = tuple[str, int]


class Place(NamedTuple):
    """Where a message is; `turn` counts how often the partition was assigned before."""

    partition: Partition
    offset: int
    turn: int


class Mark(NamedTuple):
    """What is told to Kafka of a partition.

    `offset`: a successor begins there. `reached`: documents before it have been processed.
    """

    offset: int
    reached: int


@dataclass
class _Held:
    """A partition that is assigned to this daemon."""

    turn: int
    position: int  # of the message that is processed next
    reached: int  # by a daemon before
    end: int  # when it was assigned: what is before may have been processed elsewhere
    open: dict[str, int] = field(default_factory=dict[str, int])  # run uid -> offset of its start
    settled: Mark | None = None  # at the last look, and what is committed
    committed: Mark | None = None


class Offsets:
    """Account of the partitions that this daemon has.

    A mark is handed out to be committed only at the look after the one that found it: what was
    sent in between may not have left this process yet.
    """

    def __init__(self) -> None:
        self._held: dict[Partition, _Held] = {}
        self._turns: dict[Partition, int] = {}
        self._run_partition: dict[str, Partition] = {}

    def assign(self, partition: Partition, begin: int, reached: int, end: int) -> None:
        """Take a partition, read from `begin` on, where a daemon before had `reached` a place."""
        turn = self._turns[partition] = self._turns.get(partition, -1) + 1
        self._held[partition] = _Held(turn, begin, reached, end)

    def revoke(self, partition: Partition) -> list[str]:
        """Give a partition up; the runs that were open in it."""
        held = self._held.pop(partition, None)
        uids = [] if held is None else list(held.open)
        for uid in uids:
            self._run_partition.pop(uid, None)
        return uids

    def turn(self, partition: Partition) -> int:
        """Number of the present assignment of a partition."""
        return self._turns.get(partition, -1)

    def holds(self, place: Place) -> bool:
        """Whether the partition of a message is still this daemon's."""
        held = self._held.get(place.partition)
        return held is not None and held.turn == place.turn

    def began(self, uid: str, place: Place) -> bool:
        """Note a run's start; whether another daemon may have analysed the run before."""
        held = self._held[place.partition]
        held.open.setdefault(uid, place.offset)
        self._run_partition[uid] = place.partition
        return place.offset < held.end

    def ended(self, uid: str) -> None:
        """A run is over, and its end has been sent."""
        partition = self._run_partition.pop(uid, None)
        if partition is not None:
            self._held[partition].open.pop(uid, None)

    def passed(self, place: Place) -> None:
        """A message has been processed, or its run's start has been noted."""
        held = self._held[place.partition]
        held.position = max(held.position, place.offset + 1)

    def of_ended_run(self, place: Place) -> bool:
        """Whether a message without a start belongs to a run that a daemon before has ended."""
        return place.offset < self._held[place.partition].reached

    def open_runs(self) -> set[str]:
        """Runs that have begun and not ended."""
        return set(self._run_partition)

    def positions(self) -> dict[Partition, int]:
        """Offset of what is processed next, by partition."""
        return {partition: held.position for partition, held in self._held.items()}

    def due(self, partitions: Iterable[Partition] | None = None) -> dict[Partition, Mark]:
        """Marks to commit: those that were right at the look before this one; then look again."""
        marks: dict[Partition, Mark] = {}
        for partition in list(self._held) if partitions is None else partitions:
            held = self._held.get(partition)
            if held is None:
                continue
            if held.settled is not None and held.settled != held.committed:
                marks[partition] = held.committed = held.settled
            held.settled = self._mark(held)
        return marks

    @staticmethod
    def _mark(held: _Held) -> Mark:
        reached = max(held.position, held.reached)
        return Mark(min([held.position, *held.open.values()]), reached)

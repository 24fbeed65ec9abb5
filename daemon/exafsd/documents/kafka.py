"""Source from Kafka, as bluesky-kafka writes it; what is done with is told to Kafka, not more.

Daemons of one consumer group share the partitions of a topic. Documents are keyed by their run, so
that a run is in one partition and goes to one daemon. If that one is killed, another gets the
partition, from the start document of the oldest run that was open in it.
"""

import json
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from exafsd.contract.vocabulary import Problem
from exafsd.documents import kafka_payload
from exafsd.documents.inbox import Inbox, PlacedFrame, RefusedFrame
from exafsd.documents.offsets import Mark, Offsets, Partition, Place
from exafsd.lazy import of_extra
from exafsd.logs import get_logger
from exafsd.settings.kafka import KafkaSource as KafkaSettings

log = get_logger(__name__)

#: frames, and their bytes, that are taken at once
AT_ONCE, BYTES = 200, 64_000_000
#: s for an answer of the cluster while partitions are assigned
PATIENCE = 10.0
#: ms between two looks of librdkafka at its connections
STATISTICS_MS = 1000
#: ms after which it looks again for topics that were not there; without it five minutes
TOPIC_REFRESH_MS = "10000"
#: keys of which it is remembered whose they are
REMEMBERED_KEYS = 1000


class KafkaSource:
    """Gives an inbox the documents of topics of bluesky-kafka.

    Parameters
    ----------
    inbox
        Takes documents, and is told of trouble.
    settings
        Brokers, topics and group.

    Attributes
    ----------
    offsets
        What has been done with; who processes the documents keeps it.
    revoked
        Runs that another daemon goes on with; who processes documents takes them from here.

    Raises
    ------
    MissingExtraError
        If confluent-kafka is not installed.
    ValueError
        If librdkafka does not know an option.
    """

    keeps = True

    def __init__(self, inbox: Inbox, settings: KafkaSettings) -> None:
        self._kafka = of_extra("confluent_kafka", "kafka")
        self._inbox, self._settings = inbox, settings
        self.offsets = Offsets()
        self.revoked: list[str] = []
        self._run_of_key: OrderedDict[bytes, str | None] = OrderedDict()  # None: it was told
        self._up = self._started = self._stopped = False
        self._errors: set[int] = set()
        try:
            self._consumer = self._kafka.Consumer(
                settings.client(
                    **{
                        "group.id": settings.group,
                        "enable.auto.commit": False,
                        "auto.offset.reset": settings.begin,
                        "statistics.interval.ms": STATISTICS_MS,
                        "stats_cb": self._look,
                        "error_cb": self._error,
                    }
                )
                | {
                    "topic.metadata.refresh.interval.ms": TOPIC_REFRESH_MS,
                    # only what moves is taken away from a daemon when another one comes or goes
                    "partition.assignment.strategy": "cooperative-sticky",
                },
                logger=_Quiet(),
            )
        except self._kafka.KafkaException as error:
            raise ValueError(f"source.kafka: {error.args[0].str()}") from None

    @property
    def address(self) -> str:
        """Where it is connected to, or tries to."""
        return f"kafka://{','.join(self._settings.servers)}/{','.join(self._settings.topics)}"

    @property
    def absence(self) -> str:
        """What to say where no broker is there."""
        return f"no broker answers at source.kafka.servers {', '.join(self._settings.servers)}"

    def connected(self) -> bool:
        """Whether a broker is there."""
        return self._up

    def start(self) -> None:
        """Join the group, and have the inbox take documents; the second time nothing."""
        if self._started:
            return
        self._started = True
        self._join()
        self._inbox.attach(self)

    def stop(self) -> None:
        """Take nothing more; what is not processed stays in Kafka."""
        self._stopped = True

    def close(self) -> None:
        """Tell Kafka how far we came, and leave the group."""
        if self._started:
            self.commit()  # what was settled before, and then what is now
            self.commit(wait=True)
            self._consumer.close()
            self._started = False

    def pump(self, timeout: float) -> list[bytes]:
        """Frames that are there; waits up to `timeout` s for the first."""
        frames: list[bytes] = []
        size = 0
        while not self._stopped and len(frames) < AT_ONCE and size < BYTES:
            try:
                message = self._consumer.poll(0.0 if frames else timeout)
            except self._kafka.KafkaException as error:  # of what was asked at an assignment
                self._error(error.args[0])
                self._join()
                break
            if message is None:
                break
            timeout = 0.0
            if message.error() is not None:
                self._error(message.error())
                continue
            frame = PlacedFrame(message.value() or b"")
            partition = (message.topic(), message.partition())
            frame.place = Place(partition, message.offset(), self.offsets.turn(partition))
            frame.key = message.key()
            frames.append(frame)
            size += len(frame)
        return frames

    def decode(self, frame: bytes) -> tuple[str, Any]:
        """Name and document of a frame.

        Raises
        ------
        RefusedFrame
            If it is no document, or has no key.
        """
        key = frame.key if isinstance(frame, PlacedFrame) else None
        if not key:
            raise RefusedFrame(Problem.KAFKA_KEY, "a document has no key; use the uid of its run")
        try:
            name, document = kafka_payload.loads(frame)
        except ValueError as error:
            explanation = f"a message of {len(frame)} bytes was dropped: {error}"
            raise RefusedFrame(Problem.BAD_FRAME, explanation) from None
        if name == "start" and isinstance(document, dict):
            self._check_key(key, str(document.get("uid")))
        return name, document

    def commit(self, wait: bool = False) -> None:
        """Tell Kafka what has been done with; `wait`: until it has heard."""
        self._commit(self.offsets.due(), wait)

    def behind(self) -> int:
        """Messages that are in the partitions of this daemon and not processed."""
        behind = 0
        for (topic, number), position in self.offsets.positions().items():
            partition = self._kafka.TopicPartition(topic, number)
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            behind += max(high - position, 0)
        return behind

    def _join(self) -> None:
        """Join the group, again after an assignment that failed."""
        self._consumer.unsubscribe()
        self._consumer.subscribe(
            list(self._settings.topics),
            on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost,
        )  # fmt: skip

    def _commit(self, marks: dict[Partition, Mark], wait: bool) -> None:
        if not marks:
            return
        offsets = [
            self._kafka.TopicPartition(topic, number, mark.offset, json.dumps(mark.reached))
            for (topic, number), mark in marks.items()
        ]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except self._kafka.KafkaException as error:
            self._error(error.args[0])

    def _assigned(self, _: Any, partitions: list[Any]) -> None:
        """Find where to begin; called while the inbox polls."""
        begin = []
        for one in self._consumer.committed(partitions, timeout=PATIENCE) if partitions else ():
            name = (one.topic, one.partition)
            low, end = self._consumer.get_watermark_offsets(one, timeout=PATIENCE)
            if one.offset >= 0:
                offset, reached = max(one.offset, low), _reached(one)
                if low > one.offset:
                    self._inbox.drops[Problem.KAFKA_DELETED] += low - one.offset
                    self._inbox.tell(
                        Problem.KAFKA_DELETED,
                        f"{low - one.offset} documents of {one.topic} partition {one.partition}"
                        " were deleted before they were read; is its retention too short?",
                    )
            else:
                offset = low if self._settings.begin == "earliest" else end
                reached = offset
            self.offsets.assign(name, offset, reached, end)
            if one.offset < 0:  # what comes from now on is not to be missed, whoever reads it
                self._commit({name: Mark(offset, offset)}, wait=False)
            begin.append(self._kafka.TopicPartition(one.topic, one.partition, offset))
            log.info("partition assigned", topic=one.topic, partition=one.partition, offset=offset)
        self._consumer.incremental_assign(begin)

    def _revoked(self, _: Any, partitions: list[Any]) -> None:
        """Give partitions to another daemon."""
        names = [(one.topic, one.partition) for one in partitions]
        self._commit(self.offsets.due(names), wait=True)
        self._lost(None, partitions)

    def _lost(self, _: Any, partitions: list[Any]) -> None:
        """Partitions are another daemon's already."""
        for one in partitions:
            self.revoked += self.offsets.revoke((one.topic, one.partition))
            log.info("partition given up", topic=one.topic, partition=one.partition)
        self._consumer.incremental_unassign(partitions)

    def _check_key(self, key: bytes, uid: str) -> None:
        """Say once for each key that several runs have it."""
        run = self._run_of_key.setdefault(key, uid)
        if run is not None and run != uid:
            self._run_of_key[key] = None
            self._inbox.tell(
                Problem.KAFKA_ONE_KEY,
                f"the runs {run} and {uid} have the same key {key[:40]!r}: all runs of a key go to"
                " one daemon. Key documents by the uid of their run",
            )
        while len(self._run_of_key) > REMEMBERED_KEYS:
            self._run_of_key.popitem(last=False)

    def _look(self, statistics: str) -> None:
        """Take note of which brokers are there."""
        brokers = json.loads(statistics)["brokers"].values()
        self._up = any(one["nodeid"] >= 0 and one["state"] == "UP" for one in brokers)
        if self._up:
            self._errors.clear()

    def _error(self, error: Any) -> None:
        """Tell an error once, until a broker is there again."""
        if error.code() not in self._errors:
            self._errors.add(error.code())
            self._inbox.tell(Problem.KAFKA, f"{self.address}: {error.str()}")


class _Quiet:
    """Takes librdkafka's log lines; what matters comes as an error."""

    def log(self, level: int, text: str, *arguments: Any) -> None:
        """Log a line at our level DEBUG."""
        log.debug("librdkafka", detail=text % arguments if arguments else text, severity=level)


def _reached(committed: Any) -> int:
    """What a daemon before has processed, as it told when it committed."""
    with suppress(TypeError, ValueError):
        return int(json.loads(committed.metadata))
    return int(committed.offset)

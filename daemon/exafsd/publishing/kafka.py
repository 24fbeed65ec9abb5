"""Results in a topic of Kafka, besides ZeroMQ: keyed by their run, each as its JSON header.

What ZeroMQ sends in frames is one message here: the header is the value; topic and arrays, as raw
buffers in the order that the header names, are Kafka headers.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from exafsd.contract.frames import encode
from exafsd.contract.messages import BaseMessage, Rejected, Result, RunStart, RunStop
from exafsd.contract.vocabulary import Problem
from exafsd.lazy import of_extra
from exafsd.settings.analysis import Analysis
from exafsd.settings.kafka import KafkaResults

#: names of the Kafka headers with topic and arrays
TOPIC, ARRAY = "exafsd.topic", "exafsd.array."


class KafkaSink:
    """Takes what the publisher has numbered; librdkafka sends it from a thread of its own.

    Parameters
    ----------
    settings
        Brokers and topic.
    report
        Called with a reason and a sentence.

    Attributes
    ----------
    lost
        Messages that Kafka did not take: ``results_queue_full`` and ``results_kafka``.

    Raises
    ------
    MissingExtraError
        If confluent-kafka is not installed.
    ValueError
        If librdkafka does not know an option.
    """

    def __init__(self, settings: KafkaResults, report: Callable[[Problem, str], None]) -> None:
        kafka = of_extra("confluent_kafka", "kafka")
        self._topic, self._report = settings.topic, report
        self.lost: Counter[Problem] = Counter()
        self._told: set[Problem] = set()
        try:
            self._producer = kafka.Producer(
                settings.client(
                    **{
                        # none twice and in order, and taken only if it will not be lost
                        "enable.idempotence": True,
                        "acks": "all",
                        "queue.buffering.max.messages": settings.queue,
                        "error_cb": lambda error: None,  # it is told of messages that are lost
                    }
                )
            )
        except kafka.KafkaException as error:
            raise ValueError(f"publish.kafka: {error.args[0].str()}") from None

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """Say that a run has begun."""
        self._send(start, start.run_uid)

    def write(self, message: Result | Rejected, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Send an outcome."""
        self._send(message, message.run_uid, arrays)

    def run_ended(self, stop: RunStop) -> None:
        """Say that a run is over."""
        self._send(stop, stop.run_uid)

    def write_log(self, start: RunStart, log: Path, end: int) -> None:
        """Nothing: what a daemon before has sent is in Kafka."""

    def queues(self) -> dict[str, int]:
        """Messages that Kafka has not taken yet."""
        self._producer.poll(0)
        return {"results_kafka": len(self._producer)}

    def close(self, patience: float) -> None:
        """Wait so many s until Kafka has taken what is left."""
        end = time.monotonic() + patience
        left = self._producer.flush(max(end - time.monotonic(), 0.0))
        if left:
            self._lose(Problem.RESULTS_SHUTDOWN, f"{left} messages were not sent to Kafka", left)

    def _send(
        self, message: BaseMessage, uid: str, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        topic, header, *buffers = encode(message, arrays)
        names = [spec.name for spec in message.arrays] if isinstance(message, Result) else []
        headers = [(TOPIC, topic)]
        headers += [(ARRAY + n, buffer) for n, buffer in zip(names, buffers, strict=True)]
        try:
            self._producer.produce(
                self._topic, header, key=uid, headers=headers, on_delivery=self._delivered
            )
        except BufferError:
            self._lose(Problem.RESULTS_QUEUE_FULL, "results come faster than Kafka takes them")
        except Exception as error:  # a message larger than the brokers allow, and the like
            self._lose(Problem.RESULTS_KAFKA, f"Kafka: {error}")
        self._producer.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._lose(Problem.RESULTS_KAFKA, f"Kafka did not take a message: {error.str()}")

    def _lose(self, reason: Problem, text: str, messages: int = 1) -> None:
        self.lost[reason] += messages
        if reason not in self._told:  # said once, not for each of thousands
            self._told.add(reason)
            self._report(Problem.RESULTS, text)

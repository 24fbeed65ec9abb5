"""A Kafka cluster for tests, inside librdkafka: it lives as long as its producer does.

Other processes reach it at `servers`. It keeps about 5 MB of a partition and forgets the rest,
which would look like a topic's retention: so tests look that nothing is forgotten.
"""

import msgpack
import msgpack_numpy
from confluent_kafka import Consumer, Producer, TopicPartition

#: partitions of a topic of the mock cluster
PARTITIONS = 4
#: for daemons in tests: so that a dead one is missed early
PROMPT = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}


class Silent:
    """Takes librdkafka's log lines."""

    def log(self, *arguments):
        pass


class Cluster:
    """One broker, and a producer as bluesky-kafka's `Publisher` is."""

    def __init__(self):
        options = {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "linger.ms": 0}
        self._producer = Producer(options, logger=Silent())
        (broker,) = self._producer.list_topics(timeout=10).brokers.values()
        self.servers = [f"{broker.host}:{broker.port}"]

    def make(self, topic):
        """Have a topic before anything is in it."""
        self._producer.list_topics(topic, timeout=10)

    def send(self, topic, documents, key=None):
        """Publish names and documents; `key`: of all, by default their run's uid."""
        uid = None
        for name, document in documents:
            uid = document["uid"] if name == "start" else uid
            payload = msgpack.packb((name, document), default=msgpack_numpy.encode)
            self.send_bytes(topic, payload, uid if key is None else key)
        self._producer.flush(10)

    def send_bytes(self, topic, payload, key):
        """Publish bytes; an empty key is none."""
        self._producer.produce(topic, payload, key=key or None)

    def consumer(self, group):
        """Client of a group, which does not join it."""
        about = {"bootstrap.servers": self.servers[0], "group.id": group}
        return Consumer(about, logger=Silent())

    def committed(self, topic, group):
        """Offset and words for each partition."""
        consumer = self.consumer(group)
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        committed = consumer.committed(partitions, timeout=10)
        consumer.close()
        return {one.partition: (one.offset, one.metadata) for one in committed}

    def ends(self, topic):
        """Number of messages of each partition, of which none may be forgotten."""
        consumer = self.consumer("ends")
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        marks = [consumer.get_watermark_offsets(one, timeout=10) for one in partitions]
        consumer.close()
        assert all(low == 0 for low, _ in marks), marks
        return [high for _, high in marks]

    def messages(self, topic, count, seconds=20):
        """The first messages of a topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.servers[0], "group.id": "reader", "enable.auto.commit": 0},
            logger=Silent(),
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        messages = []
        for _ in range(int(seconds / 0.1)):
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                messages.append(message)
            if len(messages) >= count:
                break
        consumer.close()
        return messages

"""Kafka: where documents may come from, and results go to besides ZeroMQ."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

#: options of librdkafka that exafsd sets itself, because what it promises rests on them
OURS = frozenset({
    "bootstrap.servers", "client.id", "group.id", "enable.auto.commit", "enable.auto.offset.store",
    "auto.offset.reset", "enable.idempotence", "acks", "statistics.interval.ms",
})  # fmt: skip


def _allowed(options: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if ours := sorted(OURS & options.keys()):
        raise ValueError(f"exafsd sets {', '.join(ours)} itself; leave them out of the options")
    return options


class Cluster(BaseModel):
    """Brokers, and how to connect to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: tuple[str, ...] = Field(min_length=1, description="HOST:PORT of one or more brokers")
    options: Annotated[dict[str, SecretStr], AfterValidator(_allowed)] = Field(
        default_factory=dict,
        description="further options of librdkafka as text, such as security.protocol and sasl.*;"
        " exafsd never prints them",
    )

    def client(self, **more: Any) -> dict[str, Any]:
        """Configuration of a client."""
        asked = {name: value.get_secret_value() for name, value in self.options.items()}
        return {**asked, "bootstrap.servers": ",".join(self.servers), "client.id": "exafsd", **more}


class KafkaSource(Cluster):
    """Documents as bluesky-kafka publishes them."""

    topics: tuple[str, ...] = Field(min_length=1, description="topics with the documents")
    group: str = Field(
        default="exafsd",
        min_length=1,
        description="consumer group: the daemons of a group share the runs; each run goes to one"
        " daemon",
    )
    begin: Literal["latest", "earliest"] = Field(
        default="latest",
        description="where a new group starts to read: latest: at documents that arrive from now"
        " on; earliest: at the oldest document in Kafka",
    )


class KafkaResults(Cluster):
    """Results in a topic of Kafka; the key of each message is the run's uid."""

    topic: str = Field(min_length=1, description="topic for the results")
    queue: int = Field(
        default=10_000,
        gt=0,
        description="largest number of messages that wait for Kafka; further messages are lost",
    )

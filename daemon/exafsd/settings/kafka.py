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

    servers: tuple[str, ...] = Field(min_length=1, description="HOST:PORT of some brokers")
    options: Annotated[dict[str, SecretStr], AfterValidator(_allowed)] = Field(
        default_factory=dict,
        description="further options of librdkafka as text, such as security.protocol and sasl.*;"
        " never printed",
    )

    def client(self, **more: Any) -> dict[str, Any]:
        """Configuration of a client."""
        asked = {name: value.get_secret_value() for name, value in self.options.items()}
        return {**asked, "bootstrap.servers": ",".join(self.servers), "client.id": "exafsd", **more}


class KafkaSource(Cluster):
    """Documents as bluesky-kafka publishes them."""

    topics: tuple[str, ...] = Field(min_length=1, description="topics that documents come in")
    group: str = Field(
        default="exafsd",
        min_length=1,
        description="consumer group: daemons of one group share the runs, each run goes to one",
    )
    begin: Literal["latest", "earliest"] = Field(
        default="latest",
        description="where a group begins that has never been here: with what comes from now on, or"
        " with the oldest document that Kafka keeps",
    )


class KafkaResults(Cluster):
    """Results in a topic of Kafka, keyed by the run's uid."""

    topic: str = Field(min_length=1, description="topic for results")
    queue: int = Field(
        default=10_000, gt=0, description="messages that may wait for Kafka; more are lost"
    )

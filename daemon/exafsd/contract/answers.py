"""What a client may ask of a publisher, and the replies.

A request is one frame of JSON, from a REQ or a DEALER socket. A reply is a JSON header, then the
frames of the messages it brings, unchanged, or one frame with a document. One request has one
reply; a long replay comes in pages that the client asks for, so a slow client slows only itself.
"""

import json
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from exafsd.contract.frames import FrameError
from exafsd.contract.messages import MESSAGE_SCHEMA

#: longest request in bytes; what is longer is no request
LONGEST = 10_000

Name = Annotated[str, Field(max_length=500)]


class AskError(ValueError):
    """A request that cannot be read; `id` is the request's, if it had one."""

    def __init__(self, detail: str, id: str = "") -> None:
        super().__init__(detail)
        self.id = id


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Ask(_Part):
    schema_: Literal["exafsd/1"] = Field(default=MESSAGE_SCHEMA, alias="schema")
    id: Name = Field(default="", description="comes back with the reply")


class AskSnapshot(_Ask):
    """The current state: what a subscriber would know who had been there from the start."""

    ask: Literal["snapshot"] = "snapshot"
    topic: Name = Field(default="", description="prefix of topics; empty for all")
    arrays: bool = Field(default=True, description="false: only topic and header of each")


class AskReplay(_Ask):
    """Messages of one topic again, by their number."""

    ask: Literal["replay"] = "replay"
    topic: Name = Field(description="exact, with its dot at the end")
    from_: int = Field(
        validation_alias="from", serialization_alias="from", ge=1, description="first seq"
    )
    to: int = Field(ge=1, description="last seq")
    publisher: Name | None = Field(default=None, description="refuse if it is another by now")
    run_uid: Name | None = Field(default=None, description="only messages of this run")
    arrays: bool = Field(default=True, description="false: only topic and header of each")


class AskSchema(_Ask):
    """A JSON schema by its file name in docs/schemas."""

    ask: Literal["schema"] = "schema"
    name: Name = Field(description="for example message.result.json")


class AskSettings(_Ask):
    """The settings that decided a result's numbers."""

    ask: Literal["settings"] = "settings"
    sha256: Name = Field(description="settings_sha256 of a result")


class AskCard(_Ask):
    """The card of the model that read a spectrum."""

    ask: Literal["card"] = "card"
    sha256: Name = Field(description="model.sha256 of a result")


Ask = AskSnapshot | AskReplay | AskSchema | AskSettings | AskCard
_ASK: TypeAdapter[Ask] = TypeAdapter(Annotated[Ask, Field(discriminator="ask")])


class Span(BaseModel):
    """Which numbers of a topic can be replayed: `first` to `last`, none if first > last."""

    first: int
    last: int


class Reply(BaseModel):
    """What every reply begins with; a reader passes over what it does not know."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: Literal["exafsd/1"] = Field(default=MESSAGE_SCHEMA, alias="schema")
    id: str = Field(default="", description="of the request")
    publisher: str = Field(default="", description="UUID of this start of the publisher")
    time: float = Field(default=0.0, description="sent, seconds since 1970")


class SnapshotReply(Reply):
    """Latest result and rejection of each run, channel and edge; run starts and stops; status."""

    kind: Literal["reply.snapshot"] = "reply.snapshot"
    topics: dict[str, Span] = Field(description="what can be replayed of each topic")
    frames: list[int] = Field(description="number of frames of each message that follows")


class ReplayReply(Reply):
    """Messages of a topic in order, as many as fit into a reply."""

    kind: Literal["reply.replay"] = "reply.replay"
    topic: str
    frames: list[int] = Field(description="number of frames of each message that follows")
    missing: Span | None = Field(description="asked for, but no longer kept or not sent yet")
    next: int | None = Field(description="seq to go on with; null: that was all")


class DocumentReply(Reply):
    """A schema, settings or a card, as the one frame that follows."""

    kind: Literal["reply.document"] = "reply.document"
    name: str = Field(description="file name or hash it was asked by")


class ErrorReply(Reply):
    """A request that could not be served."""

    kind: Literal["reply.error"] = "reply.error"
    reason: str = Field(
        json_schema_extra={
            "x-known-values": ["bad_request", "unknown", "other_publisher", "internal"]
        }
    )
    detail: str


ASKS: tuple[type[_Ask], ...] = (AskSnapshot, AskReplay, AskSchema, AskSettings, AskCard)
REPLIES: tuple[type[Reply], ...] = (SnapshotReply, ReplayReply, DocumentReply, ErrorReply)
AnyReply = SnapshotReply | ReplayReply | DocumentReply | ErrorReply
_REPLY: TypeAdapter[AnyReply] = TypeAdapter(Annotated[AnyReply, Field(discriminator="kind")])


def read_ask(frame: bytes) -> Ask:
    """Request of a frame.

    Raises
    ------
    AskError
        If it is none; the text says what is wrong.
    """
    if len(frame) > LONGEST:
        raise AskError(f"{len(frame)} bytes are too long for a request; at most {LONGEST} are read")
    try:
        content: Any = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise AskError(f"not JSON: {error}") from None
    try:
        return _ASK.validate_python(content)
    except ValidationError as error:
        errors = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        name: Any = content.get("id") if isinstance(content, dict) else None  # type: ignore[reportUnknownMemberType]
        raise AskError(errors, name if isinstance(name, str) else "") from None


def read_reply(frame: bytes) -> AnyReply:
    """Header of a reply.

    Raises
    ------
    FrameError
        If it is none.
    """
    try:
        return _REPLY.validate_json(frame)
    except ValidationError as error:
        raise FrameError(f"this is not a reply of schema {MESSAGE_SCHEMA!r}: {error}") from None


def answers_address(publish: str) -> str:
    """Where requests go unless told otherwise: the port after that of the PUB socket.

    Examples
    --------
    >>> answers_address("tcp://127.0.0.1:5580")
    'tcp://127.0.0.1:5581'
    """
    if not publish.startswith("tcp://"):
        return f"{publish}.answers"
    host, _, port = publish.rpartition(":")
    return f"{host}:{int(port) + 1}"


def reachable(answers: str, publish: str) -> str:
    """Where a subscriber of `publish` finds `answers`, which a publisher told in its status.

    The port is the publisher's word; the host is the one the subscriber came by, because a
    publisher may listen on ``0.0.0.0`` or be known by another name.
    """
    if not (answers.startswith("tcp://") and publish.startswith("tcp://")):
        return answers
    return f"{publish.rpartition(':')[0]}:{urlsplit(answers).port}"

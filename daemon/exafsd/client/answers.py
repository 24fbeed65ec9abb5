"""Ask a publisher: the current state, messages again, schemas, settings and cards."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import zmq

from exafsd.client.contexts import Context
from exafsd.client.keys import ClientKeys
from exafsd.client.subscriber import DEFAULT_ADDRESS
from exafsd.contract.answers import (
    Ask,
    AskCard,
    AskReplay,
    AskSchema,
    AskSettings,
    AskSnapshot,
    DocumentReply,
    ErrorReply,
    ReplayReply,
    SnapshotReply,
    answers_address,
    read_reply,
)
from exafsd.contract.frames import FrameError, Message, decode

Expected = TypeVar("Expected", SnapshotReply, ReplayReply, DocumentReply)


class NoAnswer(RuntimeError):
    """The publisher did not answer in time, or could not serve the request."""


def messages_of(counts: Sequence[int], frames: Sequence[bytes]) -> list[Message]:
    """Messages that follow a reply's header; `counts` are their numbers of frames.

    Raises
    ------
    FrameError
        If frames are missing, or a message is none.
    """
    if sum(counts) != len(frames):
        raise FrameError(f"{sum(counts)} frames announced, {len(frames)} received")
    messages: list[Message] = []
    at = 0
    for count in counts:
        messages.append(decode(frames[at : at + count], headers_only=True))
        at += count
    return messages


class Answers(Context):
    """Requests to one publisher, one after the other.

    Parameters
    ----------
    address
        Of the daemon's PUB socket; requests go to the port after it.
    answers
        Of the ROUTER itself, where it is elsewhere (``publish.answers``).
    keys
        Folder with this client's keys, where the daemon asks for them.
    timeout
        s for one reply.

    Examples
    --------
    >>> with Answers() as ask:  # doctest: +SKIP
    ...     for message in ask.snapshot("result.Cu."):
    ...         print(message.header["id"])
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        answers: str | None = None,
        keys: Path | str | None = None,
        timeout: float = 5.0,
    ) -> None:
        loaded = None if keys is None else ClientKeys.load(keys)
        self.address = answers or answers_address(address)
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        if loaded is not None:
            loaded.protect(self._socket)
        self._socket.connect(self.address)

    def snapshot(self, topic: str = "", arrays: bool = True) -> list[Message]:
        """Latest messages of every run, channel and edge, oldest first, and the last status."""
        reply, frames = self._ask(AskSnapshot(topic=topic, arrays=arrays), SnapshotReply)
        return messages_of(reply.frames, frames)

    def topics(self, topic: str = "") -> dict[str, tuple[int, int]]:
        """First and last seq that can be replayed, by topic."""
        reply, _ = self._ask(AskSnapshot(topic=topic, arrays=False), SnapshotReply)
        return {name: (span.first, span.last) for name, span in reply.topics.items()}

    def replay(
        self,
        topic: str,
        first: int = 1,
        last: int = 2**53,
        run_uid: str | None = None,
        arrays: bool = True,
    ) -> Iterator[Message]:
        """Messages of a topic again, from seq `first` to `last`, as far as they are kept."""
        following: int | None = first
        publisher = None
        while following is not None:
            ask = AskReplay(
                topic=topic, from_=following, to=last, run_uid=run_uid, arrays=arrays,
                publisher=publisher,
            )  # fmt: skip
            reply, frames = self._ask(ask, ReplayReply)
            yield from messages_of(reply.frames, frames)
            following, publisher = reply.next, reply.publisher

    def schema(self, name: str) -> dict[str, Any]:
        """JSON schema, for example ``message.result.json``."""
        return self._document(AskSchema(name=name))

    def settings(self, sha256: str) -> dict[str, Any]:
        """Settings behind a result's ``settings_sha256``."""
        return self._document(AskSettings(sha256=sha256))

    def card(self, sha256: str) -> dict[str, Any]:
        """Card of the model behind a result's ``model["sha256"]``."""
        return self._document(AskCard(sha256=sha256))

    def _document(self, ask: AskSchema | AskSettings | AskCard) -> dict[str, Any]:
        _, frames = self._ask(ask, DocumentReply)
        return json.loads(frames[0])

    def _ask(self, ask: Ask, expected: type[Expected]) -> tuple[Expected, list[bytes]]:
        """Send a request and wait for its reply.

        Raises
        ------
        NoAnswer
            If none comes in time, or the publisher says why it cannot serve it.
        """
        ask.id = uuid.uuid4().hex
        try:
            self._socket.send(ask.model_dump_json(by_alias=True).encode(), zmq.NOBLOCK)
        except zmq.Again:  # libzmq has given up the connection
            raise NoAnswer(f"{self.address} refuses the connection; are the keys right?") from None
        end = time.monotonic() + self._timeout
        while (left := end - time.monotonic()) > 0:
            if not self._socket.poll(int(left * 1000) + 1):
                continue
            header, *frames = self._socket.recv_multipart()
            reply = read_reply(header)
            if reply.id != ask.id:  # of an earlier request, too late
                continue
            if isinstance(reply, ErrorReply):
                raise NoAnswer(f"{reply.reason}: {reply.detail}")
            if not isinstance(reply, expected):
                raise NoAnswer(f"{self.address} answered {reply.kind} to {ask.ask}")
            return reply, frames
        raise NoAnswer(f"nothing at {self.address} answered within {self._timeout:g} s")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)
        self._context.term()

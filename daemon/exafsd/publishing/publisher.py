"""The PUB socket: messages out, numbered by topic. `Publisher` is used from one thread only."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import zmq
from numpy.typing import NDArray

from exafsd.contract.answers import answers_address
from exafsd.contract.frames import encode
from exafsd.contract.messages import (
    BaseMessage,
    Former,
    Result,
    RunStart,
    Status,
    topic_of,
)
from exafsd.logs import get_logger
from exafsd.publishing import answers as answering
from exafsd.publishing.keys import Gate, ServerKeys
from exafsd.publishing.library import Library
from exafsd.publishing.ring import Ring
from exafsd.settings.analysis import Analysis

log = get_logger(__name__)

#: s that messages already queued may take to leave on close
LINGER = 1.0
#: free ports tried until the one after it is free as well
PAIRS = 50


class AddressError(ValueError):
    """An address that must not or cannot be bound."""


def check_address(address: str, insecure: bool, name: str = "publish.address") -> None:
    """Refuse anything but loopback, unless waived or protected.

    Raises
    ------
    AddressError
        If others than this machine could connect.
    """
    if insecure or address.startswith(("ipc://", "inproc://")):
        return
    try:
        host = urlparse(address.replace("*", "0")).hostname or ""
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise AddressError(
            f"{name} {address!r} is not a loopback address: anyone who can reach it could"
            " read the results. Use tcp://127.0.0.1:PORT, or make keys with `exafsd keys` and set"
            " publish.curve, or set publish.insecure = true"
        )


class Publisher:
    """Sends messages of schema ``exafsd/1``, and answers who has missed some.

    Parameters
    ----------
    address
        ``tcp://127.0.0.1:5580``; with port ``*`` any free one.
    high_water
        Messages kept for each subscriber that does not keep up.
    answers
        Address for requests; None: the port after that of `address`.
    keys
        Only peers whose key is known may connect, to both sockets.
    array_every
        Results between two with arrays, counted by topic and channel; 1: all have them.
    heartbeat
        s between two status messages, told in them.
    former
        Publishers before this one, and what can be had of them, oldest first.
    keep
        Called with each message before it is sent.

    Raises
    ------
    AddressError
        If an address must not or cannot be bound.
    """

    def __init__(
        self,
        address: str,
        high_water: int = 1000,
        insecure: bool = False,
        address_file: Path | None = None,
        *,
        answers: str | None = None,
        keys: ServerKeys | None = None,
        ring: Ring | None = None,
        library: Library | None = None,
        array_every: int = 1,
        heartbeat: float | None = None,
        former: Mapping[str, Ring] | None = None,
        keep: Callable[[BaseMessage, Sequence[bytes]], None] | None = None,
    ) -> None:
        check_address(address, insecure or keys is not None)
        check_address(answers or address, insecure or keys is not None, "publish.answers")
        self.uuid = str(uuid.uuid4())
        self.ring = ring or Ring()
        self.library = library or Library()
        self._array_every = array_every
        self._heartbeat = heartbeat
        self._keep = keep
        self._former = [_former(name, one) for name, one in (former or {}).items()]
        self._seq: Counter[str] = Counter()
        self._results: Counter[tuple[str, str]] = Counter()
        self._context = zmq.Context()
        self._gate = Gate(self._context, keys.clients) if keys is not None else None
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set_hwm(high_water)
        router = self._context.socket(zmq.ROUTER)
        answering.configure(router)
        sockets = (self._socket, router)
        try:
            if keys is not None:
                for socket in sockets:
                    keys.protect(socket)
            self.address, self.answers = _bind(self._socket, address, router, answers)
        except AddressError:
            router.close()
            self._end()
            raise
        self._answers = answering.Answers(
            router, self.ring, self.library, self.uuid, sockets if keys is not None else (), former
        )
        self._answers.start()
        if address_file is not None:
            # whole or not at all: others wait for this file
            partial = address_file.with_name(address_file.name + ".part")
            partial.write_text(self.address + "\n")
            partial.replace(address_file)
        log.info(
            "publishing",
            address=self.address, answers=self.answers, curve=keys is not None, publisher=self.uuid,
        )  # fmt: skip

    def send(self, message: BaseMessage, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Number, stamp, keep and send a message."""
        topic = topic_of(message)
        self._seq[topic] += 1
        message.publisher = self.uuid
        message.seq = self._seq[topic]
        message.time = time.time()
        if isinstance(message, Status):
            self._complete(message)
        elif isinstance(message, Result) and self._array_every > 1:
            if self._results[topic, message.channel] % self._array_every:
                arrays = {}
            self._results[topic, message.channel] += 1
        frames = encode(message, arrays)
        if self._keep is not None:
            self._keep(message, frames)
        # Kept before it is sent: who joins in between has it from the snapshot or off the wire.
        self.ring.add(topic, message, frames)
        self._socket.send_multipart(frames, copy=False)

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """Say that a run has begun; its settings can be asked for by their hash."""
        self.library.keep_settings(analysis)
        self.send(start)

    #: outcomes and ends of runs are sent as they are
    write = run_ended = send

    def _complete(self, status: Status) -> None:
        """Fill in what only the publisher knows."""
        status.heartbeat = self._heartbeat
        status.answers = self.answers
        status.seqs = self.ring.last()
        status.former = self._former
        status.drops = dict(Counter(status.drops) + self._answers.drops)

    def close(self) -> None:
        """Send what is queued and close."""
        self._answers.stop()
        self._end()

    def _end(self) -> None:
        self._socket.close(linger=int(LINGER * 1000))
        if self._gate is not None:
            self._gate.close()
        self._context.term()


def _former(publisher: str, ring: Ring) -> Former:
    spans = ring.spans()
    return Former(
        publisher=publisher,
        first={topic: span.first for topic, span in spans.items()},
        last={topic: span.last for topic, span in spans.items()},
    )


def _bind(
    publish: zmq.Socket[bytes], address: str, router: zmq.Socket[bytes], answers: str | None
) -> tuple[str, str]:
    """Bind both, on neighbouring ports unless told otherwise; the addresses bound."""
    tries = PAIRS if answers is None and address.endswith(":*") else 1
    while True:
        tries -= 1
        bound = _bind_one(publish, address, "publish.address")
        try:
            return bound, _bind_one(router, answers or answers_address(bound), "publish.answers")
        except (AddressError, OverflowError):
            if not tries:
                raise
            publish.unbind(bound)


def _bind_one(socket: zmq.Socket[bytes], address: str, name: str) -> str:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise AddressError(
            f"{name} {address!r} cannot be bound: {error}; is another exafsd running?"
        ) from None
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)

"""A subscription that begins with the current state and recovers what it misses."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import zmq

from exafsd.client.answers import messages_of
from exafsd.client.contexts import AsyncMessages, Messages
from exafsd.client.keys import ClientKeys
from exafsd.client.owed import Delivered
from exafsd.client.recovery import STATUS, Event, Recovery, Start
from exafsd.client.subscriber import DEFAULT_ADDRESS, readable, topics_of
from exafsd.contract.answers import (
    ReplayReply,
    SnapshotReply,
    answers_address,
    reachable,
    read_reply,
)
from exafsd.contract.frames import FrameError, Message, decode

#: s between looks at the clock
TICK = 0.1
#: messages taken at once before those that are ready are handed out
TAKEN = 100


class _Link:
    """Sockets and state of the subscription to one daemon."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        topics: tuple[str, ...],
        answers: str | None,
        keys: ClientKeys | None,
        recovery: Recovery,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self._context, self.address, self._topics = context, address, topics
        self._fixed = answers is not None
        self._answers = answers or answers_address(address)
        self._keys, self._on_event = keys, on_event
        self._socket = self._subscription()
        self._requests = self._dealer()
        self.recovery = recovery

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """What it receives from."""
        return self._socket, self._requests

    def _subscription(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.SUB)
        if self._keys is not None:
            self._keys.protect(socket)
        for one in (*self._topics, STATUS):  # the heartbeat is wanted in any case
            socket.setsockopt_string(zmq.SUBSCRIBE, one)
        socket.connect(self.address)
        return socket

    def _dealer(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        if self._keys is not None:
            self._keys.protect(socket)
        socket.connect(self._answers)
        return socket

    def _renew(self) -> None:
        self._requests.close(linger=0)
        self._requests = self._dealer()

    def turn(self) -> None:
        """Take what has come, ask for what is missing, tell what has happened."""
        now = time.monotonic()
        for _ in range(TAKEN):
            frames = _now(self._socket)
            if frames is None:
                break
            message = decode(frames)
            try:
                self.recovery.hear(message, now)
            except (KeyError, TypeError, ValueError) as error:
                raise FrameError(f"the header is not an exafsd message: {error!r}") from None
        while (frames := _now(self._requests)) is not None:
            reply = read_reply(frames[0])
            counts = reply.frames if isinstance(reply, SnapshotReply | ReplayReply) else []
            self.recovery.answered(reply, messages_of(counts, frames[1:] if counts else []), now)
        self._move(now)
        self.recovery.tick(now)
        if self.recovery.reconnect:
            # libzmq does not try again once a handshake has failed, as where a key is not known yet
            self._socket.close(linger=0)
            self._socket = self._subscription()
            self.recovery.ask_again(now)
        if self.recovery.renew or self.recovery.reconnect:
            # what was asked in vain would pile up, and all be answered later
            self._renew()
        self.recovery.renew = self.recovery.reconnect = False
        while self.recovery.requests:
            ask = self.recovery.requests.popleft().model_dump_json(by_alias=True)
            with suppress(zmq.Again):  # asked again later
                self._requests.send_string(ask, zmq.NOBLOCK)
        while self.recovery.events:
            event = self.recovery.events.popleft()
            if self._on_event is not None:
                self._on_event(replace(event, address=self.address))

    def _move(self, now: float) -> None:
        """Ask where the publisher says, if that is not where it is asked."""
        announced = (self.recovery.status or {}).get("answers")
        if self._fixed or announced is None:
            return
        answers = reachable(announced, self.address)
        if answers != self._answers:
            self._answers = answers
            self._renew()
            self.recovery.ask_again(now)


def _now(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


class _Following:
    """Subscriptions of both followers."""

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        topic: str | Sequence[str] = "",
        *,
        start: Start = "snapshot",
        answers: str | None = None,
        keys: Path | str | None = None,
        silent: float = 3.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        addresses = [address] if isinstance(address, str) else list(dict.fromkeys(address))
        if not addresses or (len(addresses) > 1 and answers is not None):
            raise ValueError("answers is for one address; each of several daemons says where it is")
        topics = topics_of(topic)
        loaded = None if keys is None else ClientKeys.load(keys)
        self._context = zmq.Context()
        delivered = Delivered()  # an outcome is one, whichever daemon made it
        self._links: list[_Link] = []
        for one in addresses:
            recovery = Recovery(topics, start, silent, time.monotonic(), delivered)
            self._links.append(
                _Link(self._context, one, topics, answers, loaded, recovery, on_event)
            )
        self._ready: deque[Message] = deque()
        self._turn()

    @property
    def publisher(self) -> str | None:
        """UUID of the publisher's start that is followed; None before anything came.

        Of several daemons, that of the first.
        """
        return self._links[0].recovery.publisher

    @property
    def status(self) -> dict[str, Any] | None:
        """Header of the publisher's latest status, whatever topics are followed.

        Of several daemons, that of the first; `statuses` has all.
        """
        return self._links[0].recovery.status

    @property
    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Header of the latest status of each daemon, by address."""
        return {link.address: link.recovery.status for link in self._links}

    def address_of(self, message: Message) -> str | None:
        """Address of the daemon that a message is from; None of one that is not there any more."""
        publisher = message.header["publisher"]
        return next(
            (one.address for one in self._links if one.recovery.publisher == publisher), None
        )

    def close(self) -> None:
        """Close the sockets."""
        # all of them: one that was being made when Ctrl-C came would keep `term` waiting for ever
        self._context.destroy(linger=0)

    def _turn(self) -> None:
        for link in self._links:
            link.turn()
            self._ready += link.recovery.ready
            link.recovery.ready.clear()

    def _sockets(self) -> Iterator[zmq.Socket[bytes]]:
        for link in self._links:
            yield from link.sockets


class Follower(_Following, Messages):
    """Every message of the topics once and in order, from the current state on.

    Parameters
    ----------
    address
        Of the daemon's PUB socket; or of several daemons, whose outcomes come once even where one
        has gone on with a run of another.
    topic
        Prefix of topics, or several; empty for all.
    start
        ``snapshot``: the latest result and rejection of every run, channel and edge first;
        ``ring``: everything that the daemon still keeps first; ``now``: only what comes.
    answers
        Address for requests; by default the port after `address`, or what the status says.
    keys
        Folder with this client's keys, where the daemon asks for them.
    silent
        s without a message after which the daemon is gone, or three of its heartbeats if more.
    on_event
        Called from `receive` with what happens: gone, back, restarted, stopped, recovered, lost,
        unanswered.

    Examples
    --------
    >>> with Follower(topic="result.") as results:  # doctest: +SKIP
    ...     for message in results:
    ...         print(message.header["id"])
    """

    def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when there was none within `timeout` s.

        Raises
        ------
        FrameError
            If what came is not a message of schema ``exafsd/1``.
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._ready:
            left = min(max(end - time.monotonic(), 0.0), TICK)
            poller = zmq.Poller()
            for socket in self._sockets():
                poller.register(socket, zmq.POLLIN)
            came = poller.poll(ceil(1000 * left))
            self._turn()
            if not came and not self._ready and time.monotonic() >= end:
                return None
        return self._ready.popleft()


class AsyncFollower(_Following, AsyncMessages):
    """`Follower` for asyncio.

    Examples
    --------
    >>> async with AsyncFollower(topic="result.") as results:  # doctest: +SKIP
    ...     async for message in results:
    ...         print(message.header["id"])
    """

    async def receive(self, timeout: float | None = None) -> Message | None:
        """Next message, or None when there was none within `timeout` s."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._ready:
            left = min(max(end - time.monotonic(), 0.0), TICK)
            came = await readable(left, *self._sockets())
            self._turn()
            if not came and not self._ready and time.monotonic() >= end:
                return None
        return self._ready.popleft()


__all__ = ["AsyncFollower", "Event", "Follower", "FrameError"]

"""Order, completeness and liveness of a subscription, without sockets or clocks of its own.

What comes off the wire and from the ROUTER goes in; messages in order, requests and events come
out. `Follower` and `AsyncFollower` move the bytes.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from exafsd.client.owed import Delivered, Owed, Span
from exafsd.contract.answers import (
    AnyReply,
    Ask,
    AskReplay,
    AskSnapshot,
    ErrorReply,
    ReplayReply,
    SnapshotReply,
)
from exafsd.contract.frames import Message

Start = Literal["now", "snapshot", "ring"]
EventKind = Literal["gone", "back", "restarted", "stopped", "recovered", "lost", "unanswered"]

#: messages of a topic that wait for missing ones; the rest is asked for again later
HELD = 1000
#: s for a reply, and how often a request is repeated
PATIENCE, TRIES = 1.0, 3
#: heartbeats that may fail to come
BEATS = 3
STATUS = "status."


@dataclass(frozen=True)
class Event:
    """Something that happened to the subscription; `address`: of the daemon, where it is known."""

    kind: EventKind
    detail: str
    topic: str | None = None
    first: int | None = None
    last: int | None = None
    address: str | None = None


@dataclass
class _Asked:
    """A request under way."""

    ask: Ask
    deadline: float
    to: int = 0  # last seq of a replay
    tries: int = 1


@dataclass
class _Topic:
    """Where a topic stands: `expected` is delivered next, `newest` is the last that was sent."""

    expected: int
    newest: int = 0
    held: dict[int, Message] = field(default_factory=dict[int, Message])
    asked: _Asked | None = None
    gap: tuple[int, int] | None = None  # what is being recovered


class Recovery:
    """Puts the messages of a publisher into order and asks for those that are missing.

    Parameters
    ----------
    topics
        Prefixes that are wanted.
    start
        ``now``: what comes from now on; ``snapshot``: the current state first; ``ring``:
        everything that can be replayed first.
    silent
        s without a message after which the publisher is gone, or three of its heartbeats if that
        is more.
    delivered
        What has been handed out, shared with the subscriptions to other publishers.
    """

    def __init__(
        self,
        topics: tuple[str, ...],
        start: Start,
        silent: float,
        now: float,
        delivered: Delivered | None = None,
    ) -> None:
        self._prefixes = topics
        self._start = start
        self._silent = silent
        self._heard = now
        self._gone = False
        self._topics: dict[str, _Topic] = {}
        self._past: deque[str] = deque(maxlen=8)  # publishers before this one
        self._snapshot: _Asked | None = None
        self._waiting: list[Message] = []  # until the snapshot is there
        self._owed, self._delivered = Owed(), delivered or Delivered()
        self._catching: _Asked | None = None  # what is asked of former publishers
        self._settled = False  # whether the present one has said what it has of them
        self._complete = False  # whether unknown topics are known to begin at 1
        self._number = 0
        self._retry = now
        self.renew = False  # whether requests that wait for a connection should be dropped
        self.reconnect = False  # whether to begin anew with both sockets
        self.publisher: str | None = None
        self.status: dict[str, Any] | None = None
        self.ready: deque[Message] = deque()
        self.requests: deque[Ask] = deque()
        self.events: deque[Event] = deque()
        if start != "now":
            self._snapshot = self._request(AskSnapshot(topic=_common(topics)), now)

    def hear(self, message: Message, now: float) -> None:
        """Take a message off the wire."""
        publisher = message.header["publisher"]
        if publisher in self._past:
            return
        if publisher != self.publisher:
            self._switch(publisher)
        self._heard = now
        if self._gone:
            self._gone = False
            self._tell("back", "messages are coming again")
        if message.topic == STATUS:
            self._take_status(message, now)
        elif self._snapshot is not None:
            self._waiting.append(message)
            del self._waiting[HELD:]
        else:
            self._sort(message)
            self._advance(message.topic, now)

    def answered(self, reply: AnyReply, messages: Iterable[Message], now: float) -> None:
        """Take a reply of the ROUTER and the messages it brought."""
        if self._snapshot is not None and reply.id == self._snapshot.ask.id:
            if isinstance(reply, SnapshotReply) and reply.publisher not in self._past:
                self._take_snapshot(reply, list(messages), now)
            return
        if self._catching is not None and reply.id == self._catching.ask.id:
            fresh, lost = self._owed.take(reply, messages)
            for message in fresh:
                self._hand_out(message)
            if lost is not None:
                self._lost_before(lost, "no longer kept by the publisher")
            self._catch_up(now)
            return
        for name, topic in self._topics.items():
            if topic.asked is None or topic.asked.ask.id != reply.id:
                continue
            if isinstance(reply, ReplayReply) and reply.publisher == self.publisher:
                before = topic.expected
                for message in messages:
                    self._sort(message)
                if reply.missing is not None and reply.missing.first <= topic.expected:
                    self._lose(name, reply.missing.last + 1, "no longer kept by the publisher")
                if topic.expected > before:
                    topic.asked = None
            elif isinstance(reply, ErrorReply):
                self._lose(name, None, reply.detail)
            self._advance(name, now)
            return

    def tick(self, now: float) -> None:
        """Notice what has not come."""
        beat = (self.status or {}).get("heartbeat") or 0.0
        patience = max(self._silent, BEATS * beat)
        if now - max(self._heard, self._retry) > patience:
            self._retry = now
            self.reconnect = True
            if not self._gone:
                self._gone = True
                self._tell("gone", f"no message for {now - self._heard:.1f} s")
        if self._snapshot is not None and now > self._snapshot.deadline:
            self._snapshot_late(self._snapshot, now)
        if self._catching is not None and now > self._catching.deadline:
            self._catching.tries += 1
            if self._catching.tries <= TRIES:
                self._repeat(self._catching, now)
            else:
                self._lost_before(self._owed.give_up(), "the publisher did not answer")
                self._catch_up(now)
        for name, topic in self._topics.items():
            if topic.asked is None or now <= topic.asked.deadline:
                continue
            topic.asked.tries += 1
            if topic.asked.tries <= TRIES:
                self._repeat(topic.asked, now)
            else:
                self._tell("unanswered", "the publisher does not answer requests", name)
                self._lose(name, None, "the publisher did not answer")
                self._advance(name, now)

    def ask_again(self, now: float) -> None:
        """Repeat what is under way, because requests go over another socket from now on."""
        for asked in [
            self._snapshot,
            self._catching,
            *(topic.asked for topic in self._topics.values()),
        ]:
            if asked is not None:
                self._repeat(asked, now)

    def _repeat(self, asked: _Asked, now: float) -> None:
        asked.deadline = now + PATIENCE
        if asked.ask not in self.requests:
            self.requests.append(asked.ask)

    def _request(self, ask: Ask, now: float) -> _Asked:
        self._number += 1
        ask.id = str(self._number)
        self.requests.append(ask)
        return _Asked(ask, now + PATIENCE)

    def _tell(
        self,
        kind: EventKind,
        detail: str,
        topic: str | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        self.events.append(Event(kind, detail, topic, first, last))

    def _hand_out(self, message: Message) -> None:
        """Make a message ready, unless it is an outcome that was handed out before."""
        if not self._delivered.again(message.header):
            self.ready.append(message)

    def _catch_up(self, now: float) -> None:
        """Ask for the next messages of former publishers."""
        ask = self._owed.ask()
        self._catching = None if ask is None else self._request(ask, now)

    def _lost_before(self, span: Span, why: str) -> None:
        self._tell("lost", f"{why}, of {span.publisher}", span.topic, span.first, span.last)

    def _wanted(self, topic: str) -> bool:
        return topic.startswith(self._prefixes)

    def _switch(self, publisher: str) -> None:
        """Another publisher: nothing of the one before can be recovered, all of this one can."""
        if self.publisher is not None:
            self._past.append(self.publisher)
            for message in self._waiting:
                self._hand_out(message)
            self._waiting = []
            self._owed.leave(
                self.publisher,
                {name: topic.expected for name, topic in self._topics.items()},
                {name: set(topic.held) for name, topic in self._topics.items()},
                self._complete,
            )
            self._catching = None
            for name, topic in self._topics.items():
                while topic.held or topic.expected <= topic.newest:
                    self._lose(name, None, "the publisher has been restarted")
                    self._release(topic)
            self._topics.clear()
            self._complete = True
            self._tell("restarted", f"publisher {publisher} after {self.publisher}")
        self.publisher = publisher
        self._settled = False
        self.status = None

    def _take_status(self, message: Message, now: float) -> None:
        self.status = message.header
        if self._wanted(STATUS):
            self.ready.append(message)
        if message.header["state"] == "stopped":
            self._tell("stopped", "the publisher said that it stops")
        if self._snapshot is not None:
            return
        self._settle(now)
        # What was sent before this status and has not come is lost: one pipe, first in first out.
        for name, last in message.header.get("seqs", {}).items():
            if not self._wanted(name):
                continue
            topic = self._topics.setdefault(name, _Topic(1 if self._complete else last + 1))
            topic.newest = max(topic.newest, last)
            self._advance(name, now)

    def _settle(self, now: float) -> None:
        """Take once what the publisher's status says of those before it."""
        if self._settled or self.status is None:
            return
        self._settled = True
        self._owed.tell(self.status.get("former", ()), self._start == "ring", self._wanted)
        if self._catching is None:
            self._catch_up(now)

    def _take_snapshot(self, reply: SnapshotReply, messages: list[Message], now: float) -> None:
        if reply.publisher != self.publisher:
            self._switch(reply.publisher)
        self._snapshot, waiting, self._waiting = None, self._waiting, []
        self._complete = True
        first_heard: dict[str, int] = {}
        for message in waiting:
            first_heard.setdefault(message.topic, message.header["seq"])
        for name, span in reply.topics.items():
            if not self._wanted(name):
                continue
            begin = span.first if self._start == "ring" else span.last + 1
            expected = min(begin, first_heard.get(name, begin))
            self._topics[name] = _Topic(expected, newest=span.last)
        for message in messages:
            if message.topic == STATUS:
                self.status = self.status or message.header
                if self._wanted(STATUS):
                    self.ready.append(message)
            elif message.topic in self._topics:
                if message.header["seq"] < self._topics[message.topic].expected:
                    self._hand_out(message)  # the state at the beginning
                else:
                    self._sort(message)
        for message in waiting:
            self._sort(message)
        for name in list(self._topics):
            self._advance(name, now)
        self._settle(now)

    def _snapshot_late(self, asked: _Asked, now: float) -> None:
        """Ask again as long as nobody is there; go on without it if only the ROUTER is silent."""
        asked.tries += 1
        if asked.tries <= TRIES or self.publisher is None:
            self.renew = True
            self._repeat(asked, now)
            return
        self._tell("unanswered", "the publisher does not answer requests; there is no snapshot")
        self._snapshot, waiting, self._waiting = None, self._waiting, []
        for message in waiting:
            self._sort(message)
            self._advance(message.topic, now)

    def _sort(self, message: Message) -> None:
        """Put a message where it belongs; one that was delivered before is dropped."""
        seq: int = message.header["seq"]
        topic = self._topics.get(message.topic)
        if topic is None:
            topic = self._topics[message.topic] = _Topic(1 if self._complete else seq)
        if seq < topic.expected:
            return
        topic.newest = max(topic.newest, seq)
        if seq == topic.expected or len(topic.held) < HELD:
            topic.held[seq] = message
        self._release(topic)

    def _release(self, topic: _Topic) -> None:
        while (message := topic.held.pop(topic.expected, None)) is not None:
            self._hand_out(message)
            topic.expected += 1

    def _advance(self, name: str, now: float) -> None:
        """Ask for what is missing before what is held or known."""
        topic = self._topics[name]
        self._release(topic)
        if topic.asked is not None and topic.expected > topic.asked.to:
            topic.asked = None
        if topic.expected > topic.newest:
            if topic.gap is not None:
                self._tell("recovered", "all is there again", name, *topic.gap)
                topic.gap = None
        elif topic.asked is None:
            last = min(topic.held) - 1 if topic.held else topic.newest
            topic.gap = (topic.gap[0] if topic.gap else topic.expected, last)
            ask = AskReplay(topic=name, from_=topic.expected, to=last, publisher=self.publisher)
            topic.asked = self._request(ask, now)
            topic.asked.to = last

    def _lose(self, name: str, until: int | None, why: str) -> None:
        """Give up what is missing before seq `until`, or before what is held."""
        topic = self._topics[name]
        if until is None:
            until = min(topic.held) if topic.held else topic.newest + 1
        if until > topic.expected:
            self._tell("lost", why, name, topic.expected, until - 1)
            topic.expected = until
        topic.asked = topic.gap = None


def _common(topics: tuple[str, ...]) -> str:
    """Longest prefix that all topics share."""
    first, last = min(topics), max(topics)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]

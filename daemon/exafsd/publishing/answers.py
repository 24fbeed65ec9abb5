"""The ROUTER socket and its thread: snapshot, replay, documents. It never touches the PUB socket.

A reply goes out at once or not at all: where a peer does not take what it asked for, it is dropped
for that peer and counted.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping

import zmq
from zmq.utils.monitor import recv_monitor_message

from exafsd.contract.answers import (
    LONGEST,
    AskCard,
    AskError,
    AskReplay,
    AskSchema,
    AskSettings,
    AskSnapshot,
    DocumentReply,
    ErrorReply,
    ReplayReply,
    Reply,
    SnapshotReply,
    read_ask,
)
from exafsd.contract.vocabulary import Problem
from exafsd.logs import get_logger
from exafsd.publishing.library import Library
from exafsd.publishing.ring import Kept, Ring

log = get_logger(__name__)

#: ms between looks at the stop flag
POLL_MS = 100
#: replies that wait for one peer; a page is 1 MB, so this is what a stuck one may cost
HIGH_WATER = 4
#: s between log lines about refused peers, who knock several times a second
QUIET = 60.0
#: what libzmq reports of a peer that was not let in
REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

Answer = tuple[Reply, list[bytes]]


def configure(socket: zmq.Socket[bytes]) -> None:
    """Options of the ROUTER, to be set before it is bound."""
    socket.router_mandatory = True  # a peer that takes nothing raises, so it can be counted
    socket.sndhwm = HIGH_WATER
    socket.maxmsgsize = LONGEST + 1  # longer ones cut the connection before they are read
    socket.linger = 0


class Answers:
    """Thread that answers requests.

    Parameters
    ----------
    socket
        A bound ROUTER; from `start` on it belongs to the thread.
    guarded
        Sockets with CURVE whose refused peers are counted.
    former
        Publishers before this one, and what can be had of them.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        ring: Ring,
        library: Library,
        publisher: str,
        guarded: Iterable[zmq.Socket[bytes]] = (),
        former: Mapping[str, Ring] | None = None,
    ) -> None:
        self._socket = socket
        self._former = former or {}
        self._ring = ring
        self._library = library
        self._publisher = publisher
        self._guarded = list(guarded)
        self._monitors = [one.get_monitor_socket(REFUSED) for one in self._guarded]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exafsd-answers", daemon=True)
        # no key is added later: the publishing thread reads it while this one counts
        self.drops = Counter({Problem.REQUEST: 0, Problem.REFUSED_PEER: 0, Problem.REPLY: 0})
        self._said = float("-inf")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End, and close the sockets."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for one in self._guarded:
            one.disable_monitor()
        for monitor in self._monitors:
            monitor.close(linger=0)
        self._socket.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self._socket, *self._monitors):
            poller.register(socket, zmq.POLLIN)
        while not self._stopping.is_set():
            for socket, _ in poller.poll(POLL_MS):
                try:
                    if socket is self._socket:
                        self._serve(self._socket.recv_multipart())
                    else:
                        self._refused(socket)
                except Exception:  # a request must never end the thread
                    log.exception("request failed")
                    self.drops[Problem.REQUEST] += 1

    def _refused(self, monitor: zmq.Socket[bytes]) -> None:
        recv_monitor_message(monitor)
        self.drops[Problem.REFUSED_PEER] += 1
        if time.monotonic() - self._said > QUIET:
            self._said = time.monotonic()
            log.warning("peers without a known key refused", count=self.drops[Problem.REFUSED_PEER])

    def _serve(self, frames: list[bytes]) -> None:
        peer, *rest = frames
        envelope = [peer]
        if rest and not rest[0]:  # a REQ socket puts an empty frame before its request
            envelope.append(rest.pop(0))
        reply, content = self._answer(rest)
        reply.publisher = self._publisher
        reply.time = time.time()
        header = reply.model_dump_json(by_alias=True).encode()
        try:
            self._socket.send_multipart([*envelope, header, *content], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self.drops[Problem.REPLY] += 1

    def _answer(self, frames: list[bytes]) -> Answer:
        try:
            if len(frames) != 1:
                raise AskError(f"a request is one frame, not {len(frames)}")
            asked = read_ask(frames[0])
        except AskError as error:
            return ErrorReply(id=error.id, reason="bad_request", detail=str(error)), []
        try:
            if isinstance(asked, AskSnapshot):
                return self._snapshot(asked)
            if isinstance(asked, AskReplay):
                return self._replay(asked)
            return self._document(asked)
        except Exception as error:
            log.exception("request failed", ask=asked.ask)
            return ErrorReply(id=asked.id, reason="internal", detail=type(error).__name__), []

    def _snapshot(self, asked: AskSnapshot) -> Answer:
        state, spans = self._ring.snapshot(asked.topic)
        counts, frames = _frames(state, asked.arrays)
        return SnapshotReply(id=asked.id, topics=spans, frames=counts), frames

    def _replay(self, asked: AskReplay) -> Answer:
        ours = asked.publisher in (None, self._publisher)
        ring = self._ring if ours else self._former.get(str(asked.publisher))
        if ring is None:
            detail = f"messages of {asked.publisher} are gone; this is {self._publisher}"
            return ErrorReply(id=asked.id, reason="other_publisher", detail=detail), []
        page, missing, following = ring.replay(asked.topic, asked.from_, asked.to, asked.run_uid)
        counts, frames = _frames(page, asked.arrays)
        reply = ReplayReply(
            id=asked.id, topic=asked.topic, frames=counts, missing=missing, next=following
        )
        return reply, frames

    def _document(self, asked: AskSchema | AskSettings | AskCard) -> Answer:
        if isinstance(asked, AskSchema):
            name, content = asked.name, self._library.schema(asked.name)
        elif isinstance(asked, AskSettings):
            name, content = asked.sha256, self._library.settings(asked.sha256)
        else:
            name, content = asked.sha256, self._library.card(asked.sha256)
        if content is None:
            detail = f"there is no {asked.ask} {name!r} here"
            return ErrorReply(id=asked.id, reason="unknown", detail=detail), []
        return DocumentReply(id=asked.id, name=name), [content]


def _frames(messages: Iterable[Kept], arrays: bool) -> tuple[list[int], list[bytes]]:
    """Number of frames of each message, and all of them in a row."""
    parts = [stored.frames if arrays else stored.frames[:2] for stored in messages]
    return [len(part) for part in parts], [frame for part in parts for frame in part]

"""Source from bluesky-0MQ-proxy: an own SUB socket, strict codec, bounded queue."""

import time
from contextlib import suppress
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from exafsd import codec
from exafsd.contract.vocabulary import Problem
from exafsd.documents import unpickle
from exafsd.documents.inbox import Inbox, RefusedFrame

#: frames taken at once; more wait in the socket
AT_ONCE = 2000
#: s that taking what has arrived may last at the end
LAST_LOOK = 0.5
#: what libzmq reports where a peer is there, and where it is gone
UP, DOWN = zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED
#: first byte of a pickle of protocol 2 or later; in msgpack the empty map, alone
PICKLE_MAGIC = b"\x80"


class ProxySource:
    """Gives an inbox the documents of frames ``prefix SP name SP payload``.

    Used from the worker's thread alone: ZeroMQ keeps what arrives meanwhile.

    Parameters
    ----------
    address
        Out-port of the proxy, ``tcp://HOST:PORT``.
    prefix
        Only documents published with this prefix; empty for none.
    allow_pickle
        Accept bluesky's default pickle frames too, through the allow-list.
    """

    keeps = False  # ZeroMQ would keep frames, but nobody would count those that are lost

    def __init__(
        self, inbox: Inbox, address: str, prefix: str = "", allow_pickle: bool = False
    ) -> None:
        self._inbox = inbox
        self._address = address
        self._prefix = prefix.encode()
        self._allow_pickle = allow_pickle
        self._connected = False
        self._monitor: zmq.Socket[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it is connected to, or tries to."""
        return self._address

    @property
    def absence(self) -> str:
        """What to say where nobody listens there."""
        return f"nobody listens at source.address {self._address}"

    def connected(self) -> bool:
        """Whether somebody listens at the address."""
        with suppress(zmq.Again):
            while self._monitor is not None:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
                self._connected = bool(event["event"] & UP)
        return self._connected

    def start(self) -> None:
        """Connect, and have the inbox take frames; the second time nothing.

        Raises
        ------
        OSError
            If the address cannot be connected to at all, or resolved.
        """
        if self._monitor is not None:
            return
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        # the default of 1,000 loses bursts; the inbox is the bound that is counted
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.SUBSCRIBE, self._prefix)
        self._monitor = self._socket.get_monitor_socket(UP | DOWN)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self._close()
            raise OSError(f"source.address {self._address!r}: {error}") from None
        self._inbox.attach(self)

    def stop(self) -> None:
        """Take what has arrived and close the socket; the inbox can still be emptied."""
        until = time.monotonic() + LAST_LOOK  # a sender that never stops must not keep us
        while self._inbox.pump() and time.monotonic() < until:
            pass
        self._close()

    def pump(self, timeout: float) -> list[bytes]:
        """Frames that are there; waits up to `timeout` s for the first."""
        if self._socket.closed:
            return []
        if timeout > 0:
            self._socket.poll(round(timeout * 1000))
        frames: list[bytes] = []
        try:
            while len(frames) < AT_ONCE:
                frames.append(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return frames

    def decode(self, frame: bytes) -> tuple[str, Any]:
        """Name and document of a frame.

        Raises
        ------
        RefusedFrame
            If it is no document, or pickle where that is off.
        """
        try:
            name, payload = self._split(frame)
            if payload[:1] != PICKLE_MAGIC or len(payload) == 1:
                return name, codec.loads(payload)
            if self._allow_pickle:
                return name, unpickle.loads(payload)
        except ValueError as error:
            explanation = f"a frame of {len(frame)} bytes was dropped: {error}"
            raise RefusedFrame(Problem.BAD_FRAME, explanation) from None
        raise RefusedFrame(
            Problem.PICKLE,
            f"a {name} document came as pickle, which is off: publish with"
            " serializer=exafsd.codec.dumps, or set source.pickle = true",
        )

    def _close(self) -> None:
        self._socket.disable_monitor()
        if self._monitor is not None:
            self._monitor.close(linger=0)
        self._monitor, self._connected = None, False
        self._socket.close(linger=0)
        self._context.term()

    def _split(self, frame: bytes) -> tuple[str, bytes]:
        parts = frame.split(b" ", 2)
        if len(parts) < 3 or not parts[1] or not parts[2]:
            raise ValueError("it is not `prefix SP name SP payload`; is it truncated?")
        prefix, name, payload = parts
        if self._prefix and prefix != self._prefix:  # subscription matches longer prefixes too
            raise ValueError(f"its prefix is {prefix[:40]!r}, not {self._prefix!r}")
        return name.decode("utf-8", "replace"), payload

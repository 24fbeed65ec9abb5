"""Source from bluesky-0MQ-proxy: an own SUB socket in a thread, strict codec, bounded queue."""

import logging
import threading

import zmq

from exafsd import codec
from exafsd.documents import unpickle
from exafsd.documents.inbox import Inbox

log = logging.getLogger(__name__)

#: milliseconds between looks at the stop flag
POLL_MS = 100
#: first byte of a pickle of protocol 2 or later; in msgpack the empty map, alone
PICKLE_MAGIC = b"\x80"


class ProxySource:
    """Receives documents of the form ``prefix SP name SP payload`` and puts them into an inbox.

    Parameters
    ----------
    address
        Out-port of the proxy, ``tcp://HOST:PORT``.
    prefix
        Only documents published with this prefix; empty for none.
    allow_pickle
        Accept bluesky's default pickle frames too, through the allow-list.
    """

    def __init__(
        self, inbox: Inbox, address: str, prefix: str = "", allow_pickle: bool = False
    ) -> None:
        self._inbox = inbox
        self._address = address
        self._prefix = prefix.encode()
        self._allow_pickle = allow_pickle
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="exafsd-proxy", daemon=True)
        self.received = 0

    def start(self) -> None:
        """Connect and receive.

        Raises
        ------
        OSError
            If the address cannot be connected to at all, or resolved.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        # the default of 1,000 loses bursts; the inbox is the bound that is counted
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.SUBSCRIBE, self._prefix)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self._close()
            raise OSError(f"source.address {self._address!r}: {error}") from None
        self._thread.start()

    def stop(self) -> None:
        """Stop receiving and close the socket."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def _receive(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._socket.poll(POLL_MS):
                    self._take(self._socket.recv())
        finally:
            self._close()

    def _take(self, frame: bytes) -> None:
        """Decode one frame; never raises."""
        self.received += 1
        try:
            name, payload = self._split(frame)
            if payload[:1] == PICKLE_MAGIC and len(payload) > 1:
                if not self._allow_pickle:
                    self._inbox.report(
                        "pickle",
                        f"a {name} document came as pickle, which is off: publish with"
                        " serializer=exafsd.codec.dumps, or set source.pickle = true",
                    )
                    return
                document = unpickle.loads(payload)
            else:
                document = codec.loads(payload)
        except ValueError as error:
            self._inbox.report("bad_frame", f"a frame of {len(frame)} bytes was dropped: {error}")
            return
        self._inbox.put(name, document)

    def _split(self, frame: bytes) -> tuple[str, bytes]:
        parts = frame.split(b" ", 2)
        if len(parts) < 3 or not parts[1] or not parts[2]:
            raise ValueError("it is not `prefix SP name SP payload`; is it truncated?")
        prefix, name, payload = parts
        if self._prefix and prefix != self._prefix:  # subscription matches longer prefixes too
            raise ValueError(f"its prefix is {prefix[:40]!r}, not {self._prefix!r}")
        return name.decode("utf-8", "replace"), payload

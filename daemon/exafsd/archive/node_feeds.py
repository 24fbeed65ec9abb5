"""Websockets of a tiled server's nodes: what is new there, and where something may be missing.

tiled numbers the messages of each node, and keeps them for a while. They are taken up after the
latest one that was taken. A number that is left out, or one that came before because the server has
begun to count anew, means that the node is to be read.
"""

import asyncio
import queue
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from exafsd.logs import get_logger

log = get_logger(__name__)

#: keys of a node and of those above it, from the catalog on
Node = tuple[str, ...]
#: s between two tries to connect, first and at most
FIRST_TRY, LAST_TRY = 0.2, 3.0
#: bytes of a message; what is larger is read from the catalog
LARGEST = 64_000_000
#: messages that may wait for who reads them
WAITING = 500
#: s between two signs of life of an idle connection, and until an answer to them
ALIVE = 10.0
#: code of a websocket whose message is too large
TOO_LARGE = 1009
#: what tiled says where its producer has closed a node; a server that stops closes them, too
ENDED = "Producer ended"


@dataclass(frozen=True)
class Notice:
    """Something about a node.

    `kind`: a ``message`` that follows the one before; ``read`` the node, as messages may be
    missing; or it has ``ended``.
    """

    node: Node
    kind: Literal["message", "read", "ended"]
    message: Mapping[str, Any] = field(default_factory=dict[str, Any])


class NodeFeeds:
    """Follows nodes of a server in a thread of its own, and connects again where it must.

    Parameters
    ----------
    api_uri
        Of the server, ``http://HOST:PORT/api/v1``.
    catalog
        Where the catalog is on it.
    api_key
        None where none is needed.

    Attributes
    ----------
    notices
        What there is about the nodes, in the order of arrival.
    connected
        Whether the catalog itself is followed.
    refusal
        Why the server does not have it followed, in words; None where it does or is not there.
    """

    def __init__(self, api_uri: str, catalog: Node, api_key: str | None) -> None:
        scheme, *rest = urlsplit(api_uri)
        self._base = urlunsplit(("wss" if scheme == "https" else "ws", *rest)).rstrip("/")
        self._catalog = catalog
        self._headers = {} if api_key is None else {"Authorization": f"Apikey {api_key}"}
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.connected = False
        self.refusal: str | None = None
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[Node, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, name="exafsd-tiled-feeds", daemon=True)

    def start(self) -> None:
        """Begin with the catalog itself, from now on."""
        self._thread.start()
        self.follow((), None)

    def stop(self) -> None:
        """End all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def follow(self, node: Node, start: int | None = 1) -> None:
        """Follow a node, if that has not begun; `start`: number of the first message, None: new."""
        self._loop.call_soon_threadsafe(self._follow, node, start)

    def leave(self, node: Node) -> None:
        """Follow a node and those below it no more."""
        self._loop.call_soon_threadsafe(self._leave, node)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in self._tasks.values():
                task.cancel()
            everything = asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._loop.run_until_complete(everything)
            self._loop.close()

    def _follow(self, node: Node, start: int | None) -> None:
        if node not in self._tasks:
            self._tasks[node] = self._loop.create_task(self._feed(node, start))

    def _leave(self, node: Node) -> None:
        for one in [one for one in self._tasks if one[: len(node)] == node]:
            self._tasks.pop(one).cancel()

    async def _feed(self, node: Node, start: int | None) -> None:
        feed = _Feed(self, node, None if start is None else start - 1)
        wait, again = FIRST_TRY, False
        while True:
            try:
                if await feed.run(again):
                    self.notices.put(Notice(node, "ended"))
                    return
                wait = FIRST_TRY
            except Exception as error:  # whatever sockets, TLS and the server may do
                if not node:
                    self.refusal = _refusal(error)
                log.debug(
                    "tiled feed", node="/".join(node), error=f"{type(error).__name__}: {error}"
                )
            if not node:
                self.connected = False
            again = again or feed.opened
            wait = FIRST_TRY if feed.opened else min(2 * wait, LAST_TRY)
            feed.opened = False
            await asyncio.sleep(wait)

    def uri(self, node: Node, start: int | None) -> str:
        """Address of a node's messages."""
        path = "/".join(quote(key, safe="") for key in (*self._catalog, *node))
        asked = "" if start is None else f"&start={start}"
        return f"{self._base}/stream/single/{path}?envelope_format=msgpack{asked}"

    @property
    def headers(self) -> dict[str, str]:
        """With the key."""
        return self._headers


class _Feed:
    """Messages of one node, over as many connections as it takes."""

    def __init__(self, feeds: NodeFeeds, node: Node, latest: int | None) -> None:
        self._feeds, self._node, self._latest = feeds, node, latest
        self.opened = False

    async def run(self, again: bool) -> bool:
        """Follow the node until the connection ends; whether nothing more comes of the node."""
        from websockets.asyncio.client import connect  # with tiled, not before it
        from websockets.exceptions import ConnectionClosed

        start = None if self._latest is None else self._latest + 1
        async with connect(
            self._feeds.uri(self._node, start),
            additional_headers=self._feeds.headers,
            max_size=LARGEST,
            ping_interval=ALIVE,
            ping_timeout=ALIVE,
        ) as socket:
            try:
                await socket.recv()  # the schema: the first message after accepting
                self.opened = True
                if not self._node:
                    self._feeds.connected, self._feeds.refusal = True, None
                if again or not self._node:
                    self._read()
                while True:
                    await self._take(await socket.recv())
            except ConnectionClosed as closed:
                if closed.sent is not None and closed.sent.code == TOO_LARGE:
                    self._latest = (self._latest or 0) + 1
                    self._read()
                return closed.rcvd is not None and closed.rcvd.reason.startswith(ENDED)

    async def _take(self, data: str | bytes) -> None:
        import msgpack

        message = msgpack.unpackb(data if isinstance(data, bytes) else data.encode())
        number = int(message["sequence"])
        if self._latest is not None and number != self._latest + 1:
            self._read()
        self._latest = number
        self._feeds.notices.put(Notice(self._node, "message", message))
        while self._feeds.notices.qsize() > WAITING:  # the server keeps the others
            await asyncio.sleep(0.01)

    def _read(self) -> None:
        self._feeds.notices.put(Notice(self._node, "read"))


def _refusal(error: Exception) -> str | None:
    """Why a server does not have a node followed; None: it is not there."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, ssl.SSLError):
        return f"its certificate is refused: {error}"
    if status is None:
        return None
    if status >= 500:
        return "it does not stream; give it a streaming_cache in its configuration"
    return f"it refuses (HTTP {status}); is the key in TILED_API_KEY right?"

"""The web server: one page for any number of viewers, one subscription, exports."""

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server
from jinja2 import Template
from tornado.web import HTTPError, RequestHandler

from exafsd.client import Message
from exafsd.dashboard.export import as_csv, as_hdf5
from exafsd.dashboard.receiver import Receiver
from exafsd.dashboard.state import State
from exafsd.dashboard.viewer import Viewer

PAGE = Path(__file__).parent / "page.html"
LOOPBACK = ("127.0.0.1", "localhost")
#: s after which a page that was closed is forgotten
FORGET = 15_000


def origins(host: str, port: int, more: Sequence[str] = ()) -> list[str]:
    """HOST:PORT under which browsers may ask for the page; others are refused.

    Bound to all interfaces the names of this machine count, and those given as `more`.
    """
    names = {*LOOPBACK, *more}
    if host == "0.0.0.0":  # noqa: S104 asked for by the user
        names |= {socket.gethostname(), socket.getfqdn()}
    elif host not in LOOPBACK:
        names.add(host)
    return sorted(f"{name}:{port}" for name in names)


class Dashboard:
    """The page and its subscription.

    Parameters
    ----------
    address, answers, keys
        Of the daemon, as of `exafsd.client.Follower`.
    host, port
        Where browsers find the page; port 0 takes a free one.
    names
        Further host names of this machine, for the check of a browser's origin.
    """

    def __init__(
        self,
        address: str,
        answers: str | None = None,
        keys: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 5100,
        names: Sequence[str] = (),
    ) -> None:
        self.state = State()
        self._address = address
        self._template = Template(PAGE.read_text(), autoescape=False)
        port = port or _free(host)
        allowed = origins(host, port, names)
        handler = FunctionHandler(self._open)
        self._server = Server(
            {"/": Application(handler)},
            port=port,
            address=host,
            allow_websocket_origin=allowed,
            extra_patterns=[
                (f"/export/run.{ending}", Export,
                 {"state": self.state, "make": make, "ending": ending, "allowed": allowed})
                for ending, make in (("csv", as_csv), ("h5", as_hdf5))
            ],
            check_unused_sessions_milliseconds=FORGET // 3,
            unused_session_lifetime_milliseconds=FORGET,
        )  # fmt: skip
        self._receiver = Receiver(self.state, address, answers, keys)
        #: where the page is
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/"  # noqa: S104

    def _open(self, document: Document) -> None:
        document.title = "exafsd"
        document.template = self._template
        Viewer(document, self.state, self._address)

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        # that a page was closed while something was on its way to it is no news
        logging.getLogger("bokeh").setLevel(logging.ERROR)
        self._receiver.start()
        try:
            self._server.run_until_shutdown()
        finally:
            self._receiver.stop()


def _free(host: str) -> int:
    """Return a port that nobody uses now; Bokeh wants to know it for the check of origins."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class Export(RequestHandler):
    """Download of a run."""

    def initialize(  # noqa: D102 tornado's
        self,
        state: State,
        make: Callable[[Sequence[Message]], bytes],
        ending: str,
        allowed: Sequence[str],
    ) -> None:
        self._state, self._make, self._ending, self._allowed = state, make, ending, allowed

    async def get(self) -> None:
        """Answer with the file, made in a thread so that pages go on."""
        if self.request.host not in self._allowed:  # a foreign name that was made to point here
            raise HTTPError(403)
        uid = self.get_query_argument("run")
        messages = await asyncio.to_thread(self._state.outcomes, uid)
        if not messages:
            raise HTTPError(404)
        content: Any = await asyncio.to_thread(self._make, messages)
        name = re.sub(r"[^A-Za-z0-9-]", "", uid)[:8] or "run"
        kind = {"csv": "text/csv; charset=utf-8", "h5": "application/x-hdf5"}[self._ending]
        self.set_header("Content-Type", kind)
        self.set_header(
            "Content-Disposition", f'attachment; filename="exafsd-{name}.{self._ending}"'
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(content)

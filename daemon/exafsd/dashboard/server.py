"""The web server: one page for any number of viewers, one subscription, exports."""

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from jinja2 import Template
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, split_host_and_port
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, OutputTransform, RequestHandler

from exafsd.client import Message
from exafsd.dashboard.export import as_csv, as_hdf5
from exafsd.dashboard.receiver import Receiver
from exafsd.dashboard.state import State
from exafsd.dashboard.viewer import Viewer

PAGE = Path(__file__).parent / "page.html"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::", "")  # noqa: S104 asked for by the user
#: s after which a page that was closed is forgotten
FORGET = 15_000
#: What the page may load and run: only what this server sends, so that a name off the wire would
#: not run even where it became HTML. Scripts inside the page (ours, and those by which Bokeh starts
#: it) have a nonce, a word that is new in each answer. Bokeh compiles its CustomJS, which is
#: 'unsafe-eval', writes styles from its scripts, and has icons as data URLs.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'nonce-{}';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # no script of ours in foreign pages either
}


def host_name(host: str) -> str:
    """Name or address in ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``, as names are compared."""
    return split_host_and_port(host.lower())[0].strip("[]").rstrip(".")


class Policy(OutputTransform):
    """Gives every answer its headers, errors and refused web sockets too."""

    def __init__(self, request: HTTPServerRequest) -> None:
        # Bokeh hands a request's headers to the document that it opens, which needs the nonce
        self._nonce = request.headers["Nonce"] = token_urlsafe()

    def transform_first_chunk(  # noqa: D102 tornado's
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers.update(HEADERS, **{"Content-Security-Policy": POLICY.format(self._nonce)})
        return status_code, headers, chunk


class Refused(RequestHandler):
    """Answer to a request under a foreign name, or of a foreign page."""

    def prepare(self) -> None:  # noqa: D102 tornado's
        raise HTTPError(403, reason="Not a name of this page, see exafsd dashboard --name")


class Site(BokehTornado):
    """Bokeh's application, for requests under its own names and by its own pages.

    A foreign page can have its name point to this machine, and would then read as if it were ours:
    so the name is asked for on every path. A web socket is open to pages of all origins: so it is
    asked which page made the request.

    Parameters
    ----------
    applications, options
        As for Bokeh.
    host
        Interface that it listens on.
    names
        ``NAME`` or ``NAME:PORT`` as in a browser's address.
    """

    def __init__(
        self, applications: dict[str, Application], host: str, names: Sequence[str], **options: Any
    ) -> None:
        # any origin for Bokeh, as foreign ones do not come so far
        more: Any = {"extra_websocket_origins": ["*"], "transforms": [Policy], **options}
        super().__init__(applications, **more)
        machine = [socket.gethostname(), socket.getfqdn()] if host in ANY else [host]
        self._names = {*LOOPBACK, *map(host_name, [*machine, *names])}
        #: of pages whose requests come through a proxy, under another name
        self._origins = {name.lower() for name in names}

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:  # noqa: D102
        connection: Any = request.connection
        here = connection.stream.socket.getsockname()[0]
        host = request.headers.get("Host", "").lower()
        origin = request.headers.get("Origin", f"//{host}").lower().partition("//")[2]
        if host_name(host) in self._names | {here} and origin in self._origins | {host}:
            return super().find_handler(request, **options)
        return self.get_handler_delegate(request, Refused)


class Dashboard:
    """The page and its subscription.

    Parameters
    ----------
    addresses, answers, keys
        Of the daemons, as of `exafsd.client.Follower`.
    host, port
        Where browsers find the page; port 0 takes a free one.
    names
        Further names under which browsers find it, see `Site`.
    references
        Gives the reference spectra that viewers can choose, see `State.references`. It may take
        some seconds, and is called in a thread of its own.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        answers: str | None = None,
        keys: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 5100,
        names: Sequence[str] = (),
        references: Callable[[], Any] | None = None,
    ) -> None:
        self._references = references
        self.state = State(addresses=addresses)
        self._template = Template(PAGE.read_text(), autoescape=False)
        site = Site(
            {"/": Application(FunctionHandler(self._open))},
            host,
            names,
            extra_patterns=[
                (f"/export/run.{ending}", Export,
                 {"state": self.state, "make": make, "ending": ending})
                for ending, make in (("csv", as_csv), ("h5", as_hdf5))
            ],
            check_unused_sessions_milliseconds=FORGET // 3,
            unused_session_lifetime_milliseconds=FORGET,
        )  # fmt: skip
        web = HTTPServer(site)
        sockets, port = bind_sockets(host, port)
        web.add_sockets(sockets)
        self._server = BaseServer(IOLoop.current(), site, web)
        self._receiver = Receiver(self.state, addresses, answers, keys)
        shown = LOOPBACK[0] if host in ANY else host
        #: where the page is
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"

    def _open(self, document: Document) -> None:
        document.title = "exafsd"
        document.template = self._template
        context: Any = document.session_context
        document.template_variables["nonce"] = context.request.headers.get("Nonce")
        Viewer(document, self.state)

    def _load(self, references: Callable[[], Any]) -> None:
        self.state.references = references()
        self.state.version += 1

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        # that a page was closed while something was on its way to it is no news
        logging.getLogger("bokeh").setLevel(logging.ERROR)
        self._receiver.start()
        if self._references is not None:
            threading.Thread(target=self._load, args=(self._references,), daemon=True).start()
        try:
            self._server.run_until_shutdown()
        finally:
            self._receiver.stop()


class Export(RequestHandler):
    """Download of a run."""

    def initialize(  # noqa: D102 tornado's
        self,
        state: State,
        make: Callable[[Sequence[Message]], bytes],
        ending: str,
    ) -> None:
        self._state, self._make, self._ending = state, make, ending

    async def get(self) -> None:
        """Answer with the file, made in a thread so that pages go on."""
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
        self.finish(content)

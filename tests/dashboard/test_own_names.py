"""Who may ask the page, by raw requests to the real server: own names, own pages, and headers."""

import base64
import csv
import http.client
import io
import re
import signal
import socket
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from exafsd.dashboard.export import FORMULA
from exafsd.publishing import Publisher
from exafsd.testing.parts import python_process
from messages import ARRAYS, result, run_start, until

NAME = "beamline7.example.org"
UID = "=1+1"
HOSTILE = {
    "equals": '=HYPERLINK("http://evil.example","x")', "space": " =1+1", "line": "\n=1+1",
    "tab": "\t=1", "return": "\r1", "minus": "-cmd", "plus": "+1", "at": "@SUM(A1)",
    "pipe": "|cmd", "wide": "\u3000=1+1", "hidden": "\u200b\ufeff=1", "narrow": "\u00a0=1",
    "fullwidth": "＝1+1", "number": "-5", "=key": "=value",
}  # fmt: skip
EXPORT = f"/export/run.csv?run={quote(UID)}"
PATHS = (
    "/", EXPORT, "/export/run.h5?run=x", "/metadata", "/autoload.js?bokeh-autoload-element=a",
    "/static/js/bokeh.min.js", "/favicon.ico", "/ws", "/nothing",
)  # fmt: skip


class Answer:
    """Status, headers and body of a raw request; `headers` replace what a browser sends."""

    def __init__(self, port, path="/", method="GET", address="127.0.0.1", version="1.1", **headers):
        sent = {"Host": f"{address}:{port}", "Connection": "close", **headers}
        lines = [f"{name.replace('_', '-')}: {v}" for name, v in sent.items() if v is not None]
        with socket.create_connection((address, port), 60) as raw:
            raw.sendall("\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode())
            answer = http.client.HTTPResponse(raw, method=method)
            answer.begin()
            self.status, self.headers = answer.status, answer.headers
            self.body = b"" if self.status == 101 else answer.read()


def web_socket(port, **headers):
    """Status of a web socket's opening."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": 13,
               "Sec_WebSocket_Key": key, "Sec_WebSocket_Protocol": "bokeh, x"}  # fmt: skip
    return Answer(port, "/ws", **upgrade, **headers)


@contextmanager
def page_of(address, folder, *options):
    """Port of a dashboard."""
    command = ["-m", "exafsd.cli", "dashboard", address, "--port", "0", *options]
    with python_process("page", folder, *command) as page:
        url = until(lambda: re.search(r"dashboard at (\S+),", page.tail()) or page.check(), 60)[1]
        yield int(url.strip("/").rsplit(":", 1)[1])
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(10) == 0


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A dashboard that has heard a run with hostile words."""
    publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    publisher.send(run_start(UID))
    context = {name: {"value": text, "unit": text} for name, text in HOSTILE.items()}
    publisher.send(result(run=UID, context=context, truth={"=1": -2.5}), ARRAYS)
    folder = tmp_path_factory.mktemp("page")
    with page_of(publisher.address, folder, "--name", NAME, "--name", "other.example:8443") as port:
        until(lambda: Answer(port, EXPORT).status == 200)
        yield port
    publisher.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT", "localhost.:PORT", "[::1]:PORT",
     "127.0.0.1", "localhost:8080", NAME, f"{NAME}:PORT", NAME.upper(), "other.example:8443"],
)  # fmt: skip
def test_answers_under_its_own_names(port, host):
    host = host.replace("PORT", str(port))
    assert Answer(port, Host=host).status == 200
    assert Answer(port, EXPORT, Host=host, X_Forwarded_Host="evil.example").status == 200
    assert web_socket(port, Host=host, Origin=f"http://{host}").status == 101


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "evil.example.", "127.0.0.1.evil.example",
     "localhost.evil.example:PORT", f"evil.{NAME}", "other.example.evil", "evil@127.0.0.1:PORT",
     "127.0.0.1, evil.example", "[::2]:PORT", "192.0.2.1:PORT", "127.0.0.2:PORT", "2130706433:PORT",
     "[::1", "::1", ":PORT", ""],
)  # fmt: skip
def test_refuses_foreign_names_on_every_path(port, host, path):
    answer = Answer(port, path, Host=host.replace("PORT", str(port)), X_Forwarded_Host="localhost")
    assert answer.status in (400, 403)
    assert UID.encode() not in answer.body


def test_refuses_whom_names_no_host_and_says_how_names_are_given(port):
    assert Answer(port, Host=None).status == 400
    assert Answer(port, Host=None, version="1.0").status == 403
    own = f"http://127.0.0.1:{port}/"
    assert Answer(port, own, Host="evil.example").status == 403
    assert b"--name" in Answer(port, Host="evil.example").body


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (None, "http://127.0.0.1:PORT", 101),
        (None, "HTTP://127.0.0.1:PORT", 101),
        (None, f"https://{NAME}", 101),  # through a proxy that asks under its own name
        (None, "https://other.example:8443", 101),
        (NAME, f"https://{NAME}", 101),
        (None, "http://evil.example", 403),
        ("evil.example", "http://evil.example", 403),  # its name points to this machine
        (None, "null", 403),
        (None, "", 403),
        (None, "http://127.0.0.1:8888", 403),  # another server of this machine
        (None, "http://localhost:PORT", 403),  # another origin to browsers
        (None, "http://127.0.0.1:PORT.evil.example", 403),
        (None, "http://evil.example/http://127.0.0.1:PORT", 403),
        (None, "http://127.0.0.1:PORT@evil.example", 403),
        (None, "http://[evil", 403),
        (None, f"https://{NAME}:8443", 403),
        (None, f"https://evil.{NAME}", 403),
    ],
)  # fmt: skip
def test_web_sockets_are_for_own_pages(port, host, origin, status):
    origin = origin.replace("PORT", str(port))
    host = host or f"127.0.0.1:{port}"
    opened = web_socket(port, Host=host, Origin=origin)
    assert opened.status == status
    claims = web_socket(port, Host=host, Origin=origin, Sec_Fetch_Site="same-origin")
    assert claims.status == status


def test_foreign_pages_get_nothing_on_any_path(port):
    for path in PATHS:
        assert Answer(port, path, Origin="http://evil.example").status == 403, path


def test_every_answer_has_its_headers(port):
    etag = Answer(port, "/static/js/bokeh.min.js").headers["Etag"]
    answers = [Answer(port, path) for path in PATHS]
    answers += [Answer(port, path, Host="evil.example") for path in PATHS]
    answers += [Answer(port, method=method) for method in ("HEAD", "POST", "OPTIONS")]
    answers += [Answer(port, "/export/run.csv"), web_socket(port), web_socket(port, Origin="null")]
    answers += [Answer(port, "/static/js/bokeh.min.js", If_None_Match=etag)]
    assert {a.status for a in answers} >= {101, 200, 304, 400, 403, 404, 405}
    for answer in answers:
        headers = answer.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        (policy,) = headers.get_all("Content-Security-Policy")
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        scripts = policy.split("script-src")[1].split(";")[0]
        assert "unsafe-inline" not in scripts


def test_each_page_has_a_nonce_of_its_own_and_no_script_without_it(port):
    nonces = set()
    for headers in ({}, {}, {"Nonce": "mine"}):
        page = Answer(port, **headers)
        nonce = re.search(r"'nonce-([^']+)'", page.headers["Content-Security-Policy"])[1]
        tags = re.findall(r"<script[^>]*>", page.body.decode())
        assert len(tags) > 3
        assert all(f'nonce="{nonce}"' in tag for tag in tags)
        nonces.add(nonce)
    assert len(nonces - {"mine"}) == 3


def test_no_word_off_the_wire_is_in_the_page_or_runs_in_a_spreadsheet(port):
    page = Answer(port).body.decode()
    assert not [text for text in HOSTILE.values() if len(text) > 6 and text in page]
    exported = Answer(port, EXPORT)
    assert exported.headers["Content-Disposition"].startswith("attachment")
    header, *rows = csv.reader(io.StringIO(exported.body.decode(), newline=""))
    assert "context_=key" in header
    for cell in header + [cell for row in rows for cell in row]:
        assert not FORMULA.match(cell) or re.fullmatch(r"-\d.*", cell), cell
    (row,) = (dict(zip(header, row, strict=True)) for row in rows)
    for name, text in HOSTILE.items():
        assert row[f"context_{name}"] == f"'{text}"
    assert (row["run_uid"], row["truth_=1"]) == (f"'{UID}", "-2.5")


def test_on_all_interfaces_the_address_that_was_called_is_its_name(tmp_path):
    with page_of("tcp://127.0.0.1:9", tmp_path, "--host", "0.0.0.0") as port:
        assert Answer(port, address="127.0.0.2").status == 200
        assert Answer(port, Host=f"{socket.gethostname()}:{port}").status == 200
        assert Answer(port, address="127.0.0.2", Host=f"127.0.0.3:{port}").status == 403
        assert Answer(port, Host="evil.example").status == 403


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_listens_at_an_ipv6_address(tmp_path):
    with page_of("tcp://127.0.0.1:9", tmp_path, "--host", "::1") as port:
        own = f"[::1]:{port}"
        assert Answer(port, address="::1", Host=own).status == 200
        assert web_socket(port, address="::1", Host=own, Origin=f"http://{own}").status == 101
        assert Answer(port, address="::1", Host=f"[::2]:{port}").status == 403

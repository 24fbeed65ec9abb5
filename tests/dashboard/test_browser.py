"""The page in a real browser, behind a real daemon that is fed sweep by sweep."""

import csv
import http.server
import io
import os
import re
import resource
import shutil
import signal
import socket
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import h5py
import pytest
from feed import Feed
from playwright.sync_api import sync_playwright

from exafsd.client import Follower
from exafsd.testing.parts import python_process
from exafsd.testing.processes import daemon, proxy
from messages import adjacent_ports, until

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
REQUIRED = os.environ.get("EXAFSD_REQUIRE_BROWSER") == "1"
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
#: s that a busy machine may take for what takes a moment
PATIENCE = 30_000
pytestmark = pytest.mark.skipif(
    not REQUIRED and not Path(CHROMIUM).exists(), reason="no chromium (apt-get install chromium)"
)


class Listener(threading.Thread):
    """Subscribes beside the dashboard and keeps what was on the wire."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self._follower = Follower(address, start="snapshot")
        self._over = threading.Event()
        self.messages, self.ready = [], False

    def run(self):
        with self._follower as follower:
            while not self._over.is_set():
                message = follower.receive(0.1)
                if message is not None:
                    self.messages.append(message)
                    self.ready |= message.header.get("state") == "ready"

    def outcomes(self, run, kind="result"):
        return [m for m in self.messages if m.header["kind"] == kind and m.header["run_uid"] == run]

    def close(self):
        self._over.set()
        self.join()


class Site:
    """Proxy, daemon, dashboard and a subscriber of the test's own."""

    def __init__(self, folder, stack):
        self._folder, self._stack = folder, stack
        self.into, self._out = stack.enter_context(proxy(folder))
        self._address = f"tcp://127.0.0.1:{adjacent_ports()}"
        self.feed = Feed(self.into)
        stack.callback(self.feed.close)
        self.start()
        self.listener = Listener(self._address)
        self.listener.start()
        stack.callback(self.listener.close)
        page = stack.enter_context(
            python_process(
                "dashboard", folder, "-m", "exafsd.cli", "dashboard", self._address, "--port", "0"
            )
        )
        self.dashboard = page
        address = until(lambda: re.search(r"dashboard at (\S+),", page.tail()), 60)
        self.url = address[1]
        until(lambda: self.listener.ready, 60)

    def start(self):
        """Start the daemon, always at the same address."""
        folder = self._folder / f"daemon{time.monotonic_ns()}"
        folder.mkdir()
        self.daemon, _ = self._stack.enter_context(
            daemon(folder, self._out, self._address, folder / "journal", folder)
        )

    def measure(self, sweeps, sample="Cu foil", bad=()):
        """Run of a few sweeps; its uid, when all its outcomes are on the wire."""
        run = self.feed.start(sample)
        for number in range(1, sweeps + 1):
            self.feed.sweep(300.0 + 10 * number, bad=number in bad)
        self.feed.stop()
        until(lambda: any(m.header["kind"] == "run.stop" and m.header["run_uid"] == run
                          for m in self.listener.messages), 60)  # fmt: skip
        return run


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with ExitStack() as stack:
        whole_site = Site(tmp_path_factory.mktemp("dashboard"), stack)
        yield whole_site
        whole_site.dashboard.process.send_signal(signal.SIGTERM)
        assert whole_site.dashboard.process.wait(10) == 0
        assert "Traceback" not in whole_site.dashboard.tail()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def page(site, browser):
    """The page, open; no error in its console and no request beyond this machine."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, color_scheme="dark")
    one = context.new_page()
    one.set_default_timeout(PATIENCE)
    errors, requests = [], []
    one.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    one.on("pageerror", lambda error: errors.append(str(error)))
    one.on("request", lambda request: requests.append(request.url))
    one.on("websocket", lambda socket: requests.append(socket.url))
    one.goto(site.url)
    one.wait_for_function("window.Bokeh && Bokeh.documents.length == 1")
    yield one
    context.close()
    assert not errors
    assert len(requests) > 3
    host = site.url.split("//")[1].strip("/")
    foreign = [url for url in requests if not url.startswith((f"http://{host}/", f"ws://{host}/",
                                                              "data:", "blob:"))]  # fmt: skip
    assert not foreign


def column(page, plot, name):
    """Column of the data behind a plot."""
    return page.evaluate(
        """([plot, name]) => { for (const one of exafsd.model(plot).renderers) {
             const data = one.data_source.data; const found = data.get ? data.get(name) : data[name]
             if (found !== undefined) return Array.from(found) } return [] }""",
        [plot, name],
    )


def text(page, name):
    return page.evaluate("name => exafsd.model(name).text", name)


def wait_for(page, name, words):
    page.wait_for_function(
        "([name, words]) => exafsd.model(name).text.includes(words)", arg=[name, words]
    )


def test_traces_move_parameters_have_bands_and_truth(site, page):
    run = site.feed.start()
    site.feed.sweep(300.0)
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() >= 1")
    wait_for(page, "readout", "trusted")
    plots = {name: page.locator(".cellbox").nth(i) for i, name in enumerate(("mu", "chi", "ft"))}
    before = {name: plot.screenshot() for name, plot in plots.items()}
    k, first = column(page, "chi", "k"), column(page, "chi", "measured")
    for kelvin in (350.0, 400.0, 450.0):
        site.feed.sweep(kelvin)
    site.feed.stop()
    until(lambda: len(site.listener.outcomes(run)) == 8)
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() == 4")
    last = [m for m in site.listener.outcomes(run) if m.header["channel"] == "transmission"][-1]
    until(lambda: column(page, "chi", "measured")[100] == pytest.approx(last.arrays["chi_k2"][100]))
    assert column(page, "chi", "measured") != first
    assert column(page, "chi", "predicted")[100] == pytest.approx(last.arrays["chi_k2_pred"][100])
    assert k == pytest.approx([0.05 * i for i in range(len(k))], abs=1e-4)
    page.wait_for_timeout(500)
    changed = [name for name, plot in plots.items() if plot.screenshot() != before[name]]
    assert changed == ["mu", "chi", "ft"]
    values = column(page, "r", "r")
    for name in ("r", "n_s02", "sigma2", "e0"):
        low, high = column(page, name, f"{name}_low"), column(page, name, f"{name}_high")
        assert all(b > a for a, b in zip(low, high, strict=True))
    assert values[-1] == last.header["shells"][0]["r"]["value"] or last.header["best"] == "polish"
    assert column(page, "r", "r_true")[-1] == last.header["truth"]["r"]
    assert column(page, "r", "beside")[-1] == pytest.approx(450.0)
    assert "running" in text(page, "health")


def test_rejected_sweeps_are_marked_and_a_hostile_name_is_only_text(site, page):
    run = site.measure(3, HOSTILE, bad=(3,))
    rejection = site.listener.outcomes(run, "rejected")[0].header
    wait_for(page, "readout", "sweep 3 rejected")
    assert rejection["reason"] in text(page, "readout")
    page.wait_for_function("exafsd.model('r').renderers[5].data_source.get_length() == 1")
    marks = "Array.from(exafsd.model('r').renderers[5].data_source.data."
    assert page.evaluate(f"{marks}kind)") == ["rejected"]
    assert page.evaluate(f"{marks}sweep)") == [3]
    assert rejection["reason"] in page.evaluate(f"{marks}reason)")[0]
    assert len(column(page, "r", "r")) == 3
    dots = page.locator(".cellbox").nth(3)
    dots.hover()
    options = page.get_by_label("Run").locator("option").all_inner_texts()
    assert any("<script>window.hacked" in option for option in options)
    assert page.evaluate("window.hacked") is None


def test_run_theme_pause_and_keys(site, page):
    site.measure(2, "first sample")
    site.measure(3, "second sample")
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() == 3")
    # the choices are drawn anew when a run begins, sometimes after its points
    old = page.get_by_label("Run").locator("option", has_text="first sample")
    old.wait_for(state="attached")
    page.get_by_label("Run").select_option(label=old.inner_text())
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() == 2")
    background = "getComputedStyle(document.body).backgroundColor"
    dark, plot = page.evaluate(background), page.evaluate("exafsd.model('r').background_fill_color")
    page.keyboard.press("t")
    page.wait_for_function("document.documentElement.dataset.theme == 'light'")
    page.wait_for_function("old => exafsd.model('r').background_fill_color != old", arg=plot)
    assert page.evaluate(background) != dark
    page.get_by_label("Run").select_option(label="latest run")
    page.get_by_label("Run").focus()
    for _ in range(7):  # past the other choices, to the button
        page.keyboard.press("Tab")
    page.keyboard.press(" ")
    wait_for(page, "alert", "Paused")
    site.measure(2)
    page.wait_for_timeout(500)
    assert len(column(page, "r", "r")) == 3
    page.locator("h1").click()  # the focus leaves the controls
    page.keyboard.press(" ")
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() == 2")
    page.keyboard.press("x")
    page.wait_for_function("exafsd.model('against').value == 'minutes'")
    for name in ("Run", "Channel", "Shell", "Against", "Beside R", "View"):
        assert page.get_by_label(name).count() == 1


def test_exported_numbers_equal_those_on_the_wire(site, page):
    run = site.measure(4, bad=(2,))
    page.wait_for_function("run => exafsd.model('export').text.includes(run)", arg=run)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    wire = {m.header["id"]: m for m in site.listener.outcomes(run)}
    assert {r["id"] for r in rows if r["kind"] == "result"} == set(wire)
    assert [r["sweep"] for r in rows if r["kind"] == "rejected"] == ["2"] * len(
        site.listener.outcomes(run, "rejected")
    )
    compared = 0
    for row in rows:
        if row["kind"] != "result" or not row["shell"]:
            continue
        header = wire[row["id"]].header
        shell = next(s for s in header["shells"] if s["id"] == row["shell"])
        for name in ("r", "sigma2", "n_s02"):
            assert row[name] == repr(shell[name]["value"])
            assert row[f"{name}_std"] == repr(shell[name]["std"])
            compared += 1
        assert row["e0"] == repr(header["e0"])
    assert compared >= 9
    with page.expect_download() as download:
        page.get_by_role("link", name="HDF5").click()
    with h5py.File(download.value.path()) as file:
        ids = [name.decode() for name in file["spectra/id"]]
        assert set(ids) == set(wire)
        for i, name in enumerate(ids):
            for array in ("energy", "norm", "chi_k2", "chir_mag_pred"):
                sent = wire[name].arrays[array]
                assert (file["spectra"][array][i][: sent.size] == sent).all()


def test_several_viewers_and_foreign_pages(site, page, browser):
    run = site.measure(2, "for two")
    other = browser.new_page()
    other.goto(site.url)
    for one in (page, other):
        one.wait_for_function(
            "run => window.exafsd && Bokeh.documents.length && "
            "exafsd.model('export').text.includes(run)", arg=run
        )  # fmt: skip
    other.close()
    request = urllib.request.Request(f"{site.url}export/run.csv?run={run}")
    request.add_header("Host", "evil.example")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)
    with socket.create_connection(site.url.split("//")[1].strip("/").split(":")) as raw:
        host = site.url.split("//")[1].strip("/")
        raw.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert b" 403 " in raw.recv(200)


@pytest.fixture
def foreign(site):
    """URL of a page of another origin, which frames ours and opens its web socket."""
    own = site.url.split("//")[1]
    content = f"""<script>
      const one = new WebSocket("ws://{own}ws", ["bokeh", "x"])
      one.onopen = () => document.title = "open"; one.onerror = () => document.title = "refused"
    </script><iframe src="{site.url}"></iframe>"""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_no_other_page_frames_ours_or_opens_its_socket(site, browser, foreign):
    with browser.new_page() as other:
        said = []
        other.on("console", lambda message: said.append(message.text))
        other.goto(foreign)
        other.wait_for_function("document.title")
        assert other.title() == "refused"
        until(lambda: any("frame-ancestors" in text for text in said) or other.wait_for_timeout(50))
        (frame,) = other.frames[1:]
        assert frame.url.startswith("chrome-error:")


def test_a_foreign_name_that_points_here_sees_nothing(site, browser):
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    rebound = browser.browser_type.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", rules]
    )  # fmt: skip
    page = rebound.new_page()
    answer = page.goto(site.url.replace("127.0.0.1", "evil.example"))
    assert answer.status == 403
    assert "exafsd dashboard --name" in page.inner_text("body")
    rebound.close()


def test_what_became_html_would_not_run_and_pictures_are_saved(site, browser):
    with browser.new_page(viewport={"width": 1600, "height": 1400}) as one:
        said = []
        one.on("console", lambda message: said.append(message.text))
        one.goto(site.url)
        one.wait_for_function("window.Bokeh && Bokeh.documents.length == 1")
        one.evaluate("html => { document.body.insertAdjacentHTML('beforeend', html) }", HOSTILE)
        one.evaluate("html => document.body.append("
                     "document.createRange().createContextualFragment(html))", HOSTILE)  # fmt: skip
        until(lambda: sum("inline" in text for text in said) >= 3 or one.wait_for_timeout(50))
        assert one.evaluate("window.hacked") is None
        plot = one.locator(".cellbox").first
        plot.hover()
        one.on("dialog", lambda dialog: dialog.accept("plot"))  # asks for a file name
        with one.expect_download() as download:
            plot.get_by_title("Save").click()
        assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_is_shown_within_three_seconds(site, page):
    pid = site.daemon.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    wait_for(page, "health", "the daemon is running")
    site.feed.start("full disk")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (30_000, hard))  # 3 sweeps have 48 kB
    try:
        for kelvin in (300.0, 310.0, 320.0):
            site.feed.sweep(kelvin)
        full = time.monotonic()
        wait_for(page, "health", "something is being lost or not kept")
        took = time.monotonic() - full
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    site.feed.stop()
    assert took < 3.0


def test_a_daemon_that_dies_is_missed_and_its_return_noticed(site, page):
    site.measure(2)
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() >= 2")
    site.daemon.process.kill()
    began = time.monotonic()
    page.wait_for_function("exafsd.model('alert').text.includes('silent')", polling=50)
    took = time.monotonic() - began
    assert page.get_by_text("is silent, for").is_visible()
    print(f"missed after {took:.2f} s")
    site.listener.ready = False
    site.start()
    until(lambda: site.listener.ready, 60)
    page.wait_for_function("exafsd.model('alert').text == ''")
    run = site.measure(3, "after the restart")
    page.wait_for_function("run => exafsd.model('export').text.includes(run)", arg=run)
    page.wait_for_function("exafsd.model('r').renderers[0].data_source.get_length() == 3")

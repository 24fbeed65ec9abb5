"""A sample that changes, in a real browser: shares, and results that there are doubts about."""

import os
import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from exafsd.publishing import Publisher
from exafsd.testing.parts import python_process
from messages import ARRAYS, result, run_start, status, until, value

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
REQUIRED = os.environ.get("EXAFSD_REQUIRE_BROWSER") == "1"
pytestmark = pytest.mark.skipif(
    not REQUIRED and not Path(CHROMIUM).exists(), reason="no chromium (apt-get install chromium)"
)
SWEEPS, HOSTILE = 30, "<b>Cu2O</b>"


def changing(sweep):
    """CuO that becomes copper: parameters at the beginning, then none, then some with doubts."""
    share = sweep / SWEEPS
    fractions = [{"phase": "Cu", **value(share)}, {"phase": HOSTILE, **value(0.0)},
                 {"phase": "CuO", **value(1 - share)}]  # fmt: skip
    composition = {
        "references": ["Cu", HOSTILE, "CuO"], "fractions": fractions, "in_domain": True,
    }  # fmt: skip
    changes = {"composition": composition}
    if sweep > SWEEPS // 3:
        changes |= {"trust": {"score": 0.4, "in_domain": True, "state": "flagged",
                              "doubts": ["the near edge is another"], "reason": None}}  # fmt: skip
    if SWEEPS // 3 < sweep <= SWEEPS - 5:
        withheld = {"score": 0.1, "in_domain": False, "reason": "another phase"}
        changes |= {"shells": None, "phases": None, "best": None, "trust": withheld}
    return result(sweep, **changes)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("shares")
        page = stack.enter_context(
            python_process(
                "dashboard",
                folder,
                "-m",
                "exafsd.cli",
                "dashboard",
                publisher.address,
                "--port",
                "0",
            )
        )
        where = until(lambda: re.search(r"dashboard at (\S+),", page.tail()), 60)[1]
        publisher.send(status())
        publisher.send(run_start())
        for sweep in range(1, SWEEPS + 1):
            publisher.send(changing(sweep), ARRAYS)
            time.sleep(0.01)
        yield where
        publisher.close()


@pytest.mark.parametrize("size", [(1024, 800), (1600, 1000)])
def test_shares_come_first_and_doubts_are_amber_rings(url, size, tmp_path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme="dark")
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_function("window.Bokeh && Bokeh.documents.length == 1")
        ready = "exafsd.model('shares').renderers[0].data_source.get_length() == " + str(SWEEPS)
        page.wait_for_function(ready, timeout=30_000)
        page.wait_for_function("document.body.classList.contains('shares')")
        box = page.locator(".sharebox").bounding_box()
        assert box["width"] > 200
        assert box["height"] > 250
        assert page.locator(".sharebox canvas").first.is_visible()
        columns = page.evaluate(
            "Array.from(exafsd.model('shares').renderers[0].data_source.data['0'])"
        )
        assert columns == pytest.approx([sweep / SWEEPS for sweep in range(1, SWEEPS + 1)])
        names = page.evaluate(
            "exafsd.model('shares').center.concat(exafsd.model('shares').right)"
            ".filter(o => o.items).flatMap(o => o.items.map(i => i.label.value))"
        )
        assert names == ["Cu", HOSTILE, "CuO"]
        last = page.evaluate("exafsd.model('readout').text")
        assert "flagged" in last
        flagged = page.evaluate(
            "Array.from(exafsd.model('r').renderers[3].data_source.data['r_flagged'])"
        )
        assert sum(number == number for number in flagged) == 5  # NaN is not itself
        ring = page.evaluate("exafsd.model('r').renderers[3].glyph.line_color.value")
        assert ring == "#F0C244"
        assert page.evaluate("exafsd.model('r').renderers[3].glyph.fill_color.value") is None
        page.wait_for_timeout(500)
        page.screenshot(path=os.environ.get("EXAFSD_LOOK", str(tmp_path / "page.png")))
        assert not errors
        browser.close()

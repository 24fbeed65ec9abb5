"""A run without a model, then one that two models read, in a real browser of several sizes."""

import os
import re
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from exafsd.inference.registry import Registry
from exafsd.publishing import Publisher
from exafsd.spectra import Edge
from exafsd.testing.parts import python_process
from messages import ARRAYS, SHELL, result, run_start, status, until, value

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
REQUIRED = os.environ.get("EXAFSD_REQUIRE_BROWSER") == "1"
pytestmark = pytest.mark.skipif(
    not REQUIRED and not Path(CHROMIUM).exists(), reason="no chromium (apt-get install chromium)"
)
SWEEPS, BEGAN = 24, 12
ENERGY = np.linspace(8900.0, 9200.0, 500)


def unread(sweep):
    """No model; the edge moves from sweep 12 on, and the run may be stopped at its end."""
    moved = max(sweep - BEGAN, 0) / SWEEPS
    xanes = {
        "edge_energy": value(8985.0 - 3 * moved), "white_line": value(1.2),
        "white_line_area": value(0.5), "distance_first": 1.0 + 40 * moved,
        "distance_previous": 1.0, "state": "changing" if moved and sweep < SWEEPS else "steady",
        "change_point": BEGAN if moved else None,
    }  # fmt: skip
    convergence = {
        "parameter": "edge_energy", "value": 8985.0, "std": 0.01, "target": 0.02,
        "sweeps": sweep, "sweeps_needed": 0, "reached": sweep == SWEEPS,
        "reason": None if sweep == SWEEPS else "the sample changes since sweep 12",
    }  # fmt: skip
    withheld = {
        "score": None,
        "in_domain": False,
        "reason": Registry().candidates(Edge("V", "K"))[1],
    }
    two = sweep > BEGAN + 2
    components = {
        "count": None if two else 1, "by_noise": 3 if two else 1, "by_structure": 2 if two else 1,
        "sweeps": sweep, "left": 1e-3, "noise": 1e-3, "reason": "no spectrum" if two else None,
        "scores": [value(0.01 * moved, 1e-4), value(0.0, 1e-4)] if two else [],
    }  # fmt: skip
    composition = {
        "method": "components", "references": [], "fractions": [], "in_domain": False,
        "reason": "no references", "components": components if sweep > 4 else None,
    }  # fmt: skip
    return result(sweep, run="unread", element="V", model=None, shells=None, phases=None, best=None,
                  trust=withheld, xanes=xanes, convergence=convergence,
                  composition=composition)  # fmt: skip


def read_by_two(sweep):
    """CuO, then Cu with doubts; half of each, by their near edges."""
    made_of = {"references": ["Cu", "CuO"], "in_domain": True,
               "fractions": [{"phase": n, **value(0.5)} for n in ("Cu", "CuO")]}  # fmt: skip
    if sweep <= BEGAN:
        shell = SHELL | {"id": "CuO/1", "phase": "CuO", "scatterer": "O", "r": value(1.95)}
        phases = [{"phase": "CuO", "fraction": None, "e0_shift": value(5.0)}]
        return result(sweep, run="two", shells=[shell], phases=phases, composition=made_of)
    doubts = {"score": 0.4, "in_domain": True, "state": "flagged", "doubts": ["?"], "reason": None}
    return result(sweep, run="two", trust=doubts, composition=made_of)


def arrays(sweep):
    norm = 0.5 + np.arctan((ENERGY - 8985 + sweep / 8) / 2) / np.pi
    return {**ARRAYS, "energy": ENERGY, "norm": norm, "flat": norm}


@contextmanager
def dashboard(publisher, folder):
    """URL of a dashboard of a publisher."""
    command = ("-m", "exafsd.cli", "dashboard", publisher.address, "--port", "0")
    with python_process("dashboard", folder, *command) as page:
        yield until(lambda: re.search(r"at (\S+),", page.tail()), 60)[1]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """URLs of two dashboards, each with one run."""
    with ExitStack() as stack:
        urls = []
        for name, make in (("unread", unread), ("two", read_by_two)):
            publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
            stack.callback(publisher.close)
            urls.append(stack.enter_context(dashboard(publisher, tmp_path_factory.mktemp(name))))
            publisher.send(status())
            publisher.send(run_start(name))
            for sweep in range(1, SWEEPS + 1):
                publisher.send(make(sweep), arrays(sweep))
                time.sleep(0.01)
        yield urls


@pytest.fixture
def opened():
    """Open pages of some size; none of them may have an error."""
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def page_of(url, width, height, scheme="dark", sweeps=SWEEPS):
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(url)
            page.wait_for_function("window.Bokeh && Bokeh.documents.length == 1")
            page.wait_for_function(
                f"exafsd.model('r').renderers[0].data_source.get_length() == {sweeps}"
            )
            return page

        yield page_of
        browser.close()
    assert not errors


def column(page, plot, renderer, name):
    return page.evaluate(
        f"Array.from(exafsd.model('{plot}').renderers[{renderer}].data_source.data['{name}'])"
    )


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(1600, 1000, "dark"), (3840, 2160, "light"), (1024, 800, "light"), (390, 844, "dark")],
)
def test_nothing_is_blank_without_a_model(pages, opened, width, height, scheme, tmp_path):
    page = opened(pages[0], width, height, scheme)
    assert page.evaluate("exafsd.model('shell').value") == "near edge"
    assert page.evaluate("exafsd.model('r').title.text").startswith("edge energy / eV")
    energies = column(page, "r", 0, "r")
    assert energies[0] == 8985.0
    assert energies[-1] == pytest.approx(8983.5)
    assert column(page, "e0", 0, "e0")[-1] == pytest.approx(21.0)
    assert column(page, "r", 6, "sweep") == [BEGAN]
    said = page.evaluate("exafsd.model('readout').text")
    assert "may stop" in said
    assert "no model" in said
    assert "VO2 (--amcsd 74)" in said  # a crystal that a model could be made of
    assert "8983.50" in said
    dark = page.evaluate("document.documentElement.dataset.theme != 'light'")
    assert dark == (scheme == "dark") or page.wait_for_function(
        "document.documentElement.dataset.theme == 'light'"
    )
    if width < 700:  # on a phone what changes comes before the latest spectrum
        order = [page.locator(".cellbox").nth(i).bounding_box()["y"] for i in (3, 0)]
        assert order == sorted(order)
    # nothing hangs over at the side, and every plot can be read
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for i in range(7):
        box = page.locator(".cellbox").nth(i).bounding_box()
        assert box["width"] > min(width, 1200) / 4
        assert box["height"] > (200 if width < 700 else 110)
    page.wait_for_timeout(500)
    page.screenshot(path=str(tmp_path / "page.png"), full_page=width < 700)


def test_the_spectrum_as_near_edge_derivative_and_map(pages, opened):
    page = opened(pages[0], 1600, 1000)
    assert len(column(page, "mu", 1, "norm")) == 500  # the first, and the previous
    assert column(page, "mu", 1, "norm") != column(page, "mu", 0, "norm")
    assert column(page, "mu", 2, "norm") != column(page, "mu", 1, "norm")
    page.get_by_label("View").select_option(label="near edge")
    page.wait_for_function("exafsd.model('mu').x_range.start > 8940")
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("m")
    page.wait_for_function("exafsd.model('mu').title.text.startsWith('dμ')")
    assert max(column(page, "mu", 0, "norm")) < 0.5
    page.keyboard.press("m")
    page.wait_for_function("exafsd.model('map').visible && !exafsd.model('mu').visible")
    page.wait_for_function("exafsd.model('map').renderers[0].data_source.get_length() == 1")
    assert page.evaluate(
        "exafsd.model('map').renderers[0].data_source.data.image[0].shape"
    ) == [SWEEPS, 111]  # fmt: skip
    page.keyboard.press("m")
    page.wait_for_function("exafsd.model('mu').visible && exafsd.model('mu').x_range.start < 8940")


def test_components_have_their_scores_where_there_are_no_references(pages, opened):
    page = opened(pages[0], 1600, 1000)
    page.wait_for_function("document.body.classList.contains('shares')")
    assert "2 or 3" in page.evaluate("exafsd.model('readout').text")
    assert page.evaluate("exafsd.model('shares').title.text").startswith("score of a component")
    scores = column(page, "shares", 0, "0")
    assert all(number != number for number in scores[: BEGAN + 2])  # NaN is not itself
    assert scores[-1] == pytest.approx(0.01 * (SWEEPS - BEGAN) / SWEEPS)
    names = page.evaluate(
        "exafsd.model('shares').center.concat(exafsd.model('shares').right)"
        ".filter(o => o.items).flatMap(o => o.items.map(i => i.label.value))"
    )
    assert names == ["component 2", "component 3"]
    # the axis fits the scores, and is that of shares again where there are some
    assert page.evaluate("exafsd.model('shares').y_range.end") < 0.1


def test_a_chosen_reference_lies_over_the_spectrum(pages, opened):
    page = opened(pages[1], 1600, 1000)
    page.wait_for_function("exafsd.model('reference').options.length > 3", timeout=30_000)
    names = "exafsd.model('reference').options.map(o => o[1])"
    assert page.evaluate(names)[:3] == ["none", "Cu", "Cu2O"]
    legend = "exafsd.model('mu').center.filter(o => o.items).flatMap(o => o.items)"
    assert page.evaluate(f"{legend}.map(i => i.label.value)") == ["latest", "first", "previous"]
    assert column(page, "mu", 3, "norm") == []
    page.get_by_label("Reference").select_option(label="Cu2O")
    page.wait_for_function("exafsd.model('mu').renderers[3].data_source.get_length() > 100")
    norm = column(page, "mu", 3, "norm")
    assert abs(norm[0]) < 0.05
    assert 1.05 < max(norm) < 1.3
    assert page.evaluate(f"{legend}.map(i => i.label.value)")[-1] == "Cu2O"
    page.get_by_label("View").select_option(label="derivative")
    page.wait_for_function(
        "Math.max(...exafsd.model('mu').renderers[3].data_source.data['norm']) < 0.8"
    )
    page.get_by_label("Reference").select_option(label="none")
    page.wait_for_function("exafsd.model('mu').renderers[3].data_source.get_length() == 0")


def test_a_phase_that_comes_while_a_page_is_open_joins_the_others(tmp_path, opened):
    with ExitStack() as stack:
        publisher = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
        stack.callback(publisher.close)
        url = stack.enter_context(dashboard(publisher, tmp_path))
        publisher.send(status())
        publisher.send(run_start("two"))
        publisher.send(read_by_two(BEGAN), arrays(BEGAN))
        page = opened(url, 1600, 1000, sweeps=1)
        # before its server, or it writes to a socket that connects again
        stack.callback(page.close)
        legend = "exafsd.model('r').center.filter(o => o.items).flatMap(o => o.items)"
        assert page.evaluate(f"{legend}.length") == 0
        publisher.send(read_by_two(BEGAN + 1), arrays(BEGAN + 1))
        page.wait_for_function(f"{legend}.length === 2")


def test_every_phase_has_its_r_in_one_plot(pages, opened):
    page = opened(pages[1], 1600, 1000)
    page.wait_for_function("exafsd.model('r').renderers.filter(r => r.visible).length > 8")
    legend = "exafsd.model('r').center.filter(o => o.items).flatMap(o => o.items)"
    assert page.evaluate(f"{legend}.map(i => i.label.value)") == ["Cu", "CuO"]
    first = page.evaluate("exafsd.model('r').renderers.findIndex(r => r.glyph.x && "
                          "r.data_source.data['1_flagged'])")  # fmt: skip
    copper = column(page, "r", first, "0_flagged")
    cuo = column(page, "r", first, "1")
    assert cuo[:BEGAN] == [1.95] * BEGAN
    low, high = column(page, "r", first, "1_low"), column(page, "r", first, "1_high")
    assert all(one < 1.95 < other for one, other in zip(low[:BEGAN], high[:BEGAN], strict=True))
    bars = "exafsd.model('r').renderers.filter(r => r.visible && r.glyph.x0)"
    assert page.evaluate(f"{bars}.map(r => r.glyph.y0.field)") == ["0_low", "1_low"]
    assert all(number != number for number in cuo[BEGAN:])  # NaN is not itself
    assert copper[BEGAN:] == [2.54] * (SWEEPS - BEGAN)
    assert all(number != number for number in column(page, "r", first, "0"))
    # a phase has the same colour in both plots
    share = "exafsd.model('shares').renderers.find(r => r.glyph.y && r.glyph.y.field == '1')"
    dots = "exafsd.model('r').renderers.find(r => r.glyph.y && r.glyph.y.field == '1')"
    colours = [page.evaluate(f"{share}.glyph.line_color.value"),
               page.evaluate(f"{dots}.glyph.fill_color.value")]  # fmt: skip
    assert colours[0] == colours[1] == "#E69F00"
    page.get_by_label("Shell").select_option(label="near edge")
    page.wait_for_function("exafsd.model('r').title.text.startsWith('edge energy')")
    page.wait_for_function(f"{legend}.length === 0")

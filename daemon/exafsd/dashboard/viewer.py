"""The document of one viewer: chooses what is shown, and brings it up to date."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from bokeh.document import Document
from bokeh.models import CustomJS, Div, InlineStyleSheet, Select, Toggle

from exafsd.dashboard import words
from exafsd.dashboard.figures import (
    CHANGE_COLUMNS,
    DASHES,
    MARK_COLUMNS,
    PALETTES,
    PHASE_COLUMNS,
    PHASES,
    SHARE_COLUMNS,
    TREND_COLUMNS,
    VIEWS,
    Shares,
    Spectra,
    Trends,
)
from exafsd.dashboard.state import NAN, NEAR_EDGE, PARAMETERS, Glance, Key, Point, State

#: ms between looks at the state: spectrum and numbers at most 5 times a second, whatever the data
#: rate, and s between looks at the trends. It is the drawing that costs, in the browser.
TICK, TRENDS = 200, 0.5
#: s between two drawings of the map of a run
MAP = 2.0
#: points of a trend on the page; a screen is hardly wider, and older ones stay for the export
SHOWN = 1500
#: choice that goes along with the latest run
LATEST = ""
CHANNELS = ("transmission", "fluorescence", "reference")

WIDGETS = """
:host { font: inherit; } label { color: var(--muted); font-size: 13px; margin: 0 0 2px; }
.bk-input, .bk-btn { background-color: var(--panel) !important; color: var(--ink) !important;
  border: 1px solid var(--muted) !important; border-radius: 4px; font: inherit; font-size: 14px;
  height: 34px; box-shadow: none !important; }
.bk-input option { background: var(--panel); color: var(--ink); }
.bk-btn.bk-active { background-color: var(--accent) !important;
  color: var(--on-accent) !important; }
.bk-input:focus-visible, .bk-btn:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 1px; }
"""
TEXTS = """
:host { font: inherit; color: var(--ink); width: 100%; }
.big { display: flex; flex-wrap: wrap; gap: 4px 3vw; align-items: flex-end; min-height: 4.6rem;
  font-size: clamp(26px, 3vw, 72px); line-height: 1.1; font-variant-numeric: tabular-nums; }
.cell { display: flex; flex-direction: column; white-space: nowrap; }
.name { font-size: 15px; color: var(--muted); } .std { font-size: 55%; color: var(--muted); }
.value { font-weight: 600; } .why { font-size: 18px; align-self: center; max-width: 60vw; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.warn { color: var(--warn); font-weight: 600; } .muted { color: var(--muted); }
.remarks, .health { font-size: 15px; line-height: 1.5; }
.flag { color: var(--warn); margin-left: 14px; }
.health { display: flex; flex-wrap: wrap; gap: 0 26px; } .health .name { font-size: 13px; }
.alert { background: var(--bad); color: var(--on-bad); padding: 8px 14px; font-size: 20px;
  font-weight: 600; border-radius: 4px; }
.legend { display: flex; gap: 16px; font-size: 13px; color: var(--ink); }
.line { display: inline-block; width: 24px; margin-right: 6px; vertical-align: middle;
  border-top: 2px solid var(--measured); }
.wide { border-top-width: 9px; opacity: 0.4; }
.dashed { border-top: 2px dashed var(--truth); } .dotted { border-top: 2px dotted var(--muted); }
a { color: var(--link); font-size: 14px; margin-right: 14px; }
a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""


class Viewer:
    """Widgets, plots and texts of one open page.

    Parameters
    ----------
    document
        Bokeh's document of this page.
    state
        What all pages share.
    """

    def __init__(self, document: Document, state: State) -> None:
        self._document, self._state = document, state
        self._key: Key | None = None
        self._glance = Glance()
        self._version, self._trended, self._due, self._seen = -1, -1, 0.0, 0
        self._shown: tuple[Any, ...] = ()
        self._origin: float | None = None
        self._changes: list[int] = []  # sweeps with which changes began
        self._minutes: dict[int, float] = {}
        self._last: Point | None = None  # the latest with values, where a band ends
        self._map_due = 0.0
        self._follows = True  # whether the shell that leads is shown; until a viewer chooses one
        self._spectra, self._trends = Spectra(), Trends()
        self._shares = Shares(self._trends.changes)
        sheet = InlineStyleSheet(css=WIDGETS)
        offered: dict[str, tuple[str, list[Any]]] = {
            "run": ("Run", [(LATEST, "latest run")]),
            "channel": ("Channel", []),
            "shell": ("Shell", []),
            "against": ("Against", [("sweep", "sweep"), ("minutes", "time")]),
            "beside": ("Beside R", [("", "nothing")]),
            "view": ("View", list(VIEWS.items())),
            "reference": ("Reference", [("", "none")]),
        }
        self._pickers = {
            name: Select(name=name, title=title, options=options, stylesheets=[sheet],
                         value=options[0][0] if options else "", sizing_mode="stretch_width")
            for name, (title, options) in offered.items()
        }  # fmt: skip
        self._own: dict[str, str] = {}  # values of pickers that were not chosen by the viewer
        self._offered = False  # whether something was put beside R already
        self._pause = Toggle(name="pause", label="Pause", stylesheets=[sheet], width=84)
        self._light = Toggle(name="theme", label="Light", stylesheets=[sheet], width=84)
        text_sheet = InlineStyleSheet(css=TEXTS)
        self._texts = {
            # a name could be TeX with a link that is a script
            name: Div(name=name, stylesheets=[text_sheet], sizing_mode="stretch_width", margin=0,
                      disable_math=True)
            for name in ("alert", "readout", "remarks", "legend", "health", "export")
        }  # fmt: skip
        self._wire()
        self._repaint()
        for root in (*self._pickers.values(), self._pause, self._light, *self._texts.values(),
                     *self._spectra.figures, *self._trends.figures,
                     self._spectra.map_figure, self._shares.figure):  # fmt: skip
            document.add_root(root)
        self.tick()
        document.add_periodic_callback(self.tick, TICK)

    def _wire(self) -> None:
        for name, picker in self._pickers.items():
            picker.on_change("value", self._on_choice(name))
        self._light.on_change("active", self._themed)
        self._light.js_on_change("active", CustomJS(code="exafsd.theme(this.active)"))
        self._pause.on_change("active", self._paused)
        shown = CustomJS(code="exafsd.shares(this.visible)")
        self._shares.figure.js_on_change("visible", shown)
        self._document.js_on_event("connection_lost", CustomJS(code="exafsd.lost()"))
        self._document.js_on_event("client_reconnected", CustomJS(code="exafsd.back()"))

    def _on_choice(self, name: str) -> Callable[[str, str, str], None]:
        def chosen(attr: str, old: str, new: str) -> None:
            if self._own.get(name) != new:
                self._own.pop(name, None)
                self._follows &= name != "shell"
                self.tick(chosen=True)  # also while it is paused: who chooses wants to see

        return chosen

    def _themed(self, attr: str, old: bool, new: bool) -> None:
        self._repaint()

    def _paused(self, attr: str, old: bool, new: bool) -> None:
        self.tick()

    def _repaint(self) -> None:
        theme = "light" if self._light.active else "dark"
        colours = PALETTES[theme]
        self._shares.paint(colours, PHASES[theme])
        self._spectra.paint(colours)
        self._trends.paint(colours, PHASES[theme])
        self._colours = colours
        marks: Any = self._trends.marks
        marks.data = {**marks.data, "color": [colours[k] for k in marks.data["kind"]]}

    def tick(self, chosen: bool = False) -> None:
        """Bring the page up to date, if there is anything new."""
        self._document.hold("combine")
        try:
            self._text("alert", self._alert())
            self._text("health", words.health_lines(self._state.healths()))
            version = self._state.version
            if self._pause.active and not chosen:
                return
            if chosen or version != self._version:
                self._version = version
                self._choose()
                self._bring_spectra()
            now = time.monotonic()
            if self._pickers["view"].value == "map" and (chosen or now >= self._map_due):
                self._map_due = now + MAP
                self._bring_map()
            if chosen or (version != self._trended and now >= self._due):
                self._trended, self._due = version, now + TRENDS
                self._bring_trends()
        finally:
            self._document.unhold()

    def _alert(self) -> str:
        healths = self._state.healths()
        banner = "".join(words.alert(health, address) for address, health in healths)
        if not banner and self._pause.active:
            banner = '<div class="alert">❚❚ Paused. The space bar goes on.</div>'
        return banner

    def _text(self, name: str, html: str) -> None:
        if self._texts[name].text != html:
            self._texts[name].text = html
            self._texts[name].visible = bool(html)

    def _options(
        self, name: str, options: list[tuple[str, str]], value: str, chosen: str = ""
    ) -> None:
        """Set choices; the value stays where it is one of them, unless another is wanted."""
        picker: Any = self._pickers[name]
        if picker.options != options:
            picker.options = options
        value = chosen or value
        if chosen or picker.value not in [choice for choice, _ in options]:
            picker.value = self._own[name] = value

    def _choose(self) -> None:
        """Which series is shown: the pickers, and what they offer."""
        runs = self._state.runs()[::-1]
        choices = [(run.uid, words.run_label(run)) for run in runs]
        self._options("run", [(LATEST, "latest run"), *choices], LATEST)
        chosen: Any = self._pickers["run"].value
        uids = [chosen] if chosen else [run.uid for run in runs]
        keys: list[Key] = next(filter(None, map(self._state.keys, uids)), [])
        keys.sort(key=lambda key: (CHANNELS.index(key.channel) if key.channel in CHANNELS else 9,
                                   key.element, key.edge, key.stream))  # fmt: skip
        by_name = {words.key_label(key): key for key in keys}
        names = list(by_name)
        self._options("channel", [(name, name) for name in names], names[0] if names else "")
        self._key = by_name.get(str(self._pickers["channel"].value))
        self._glance = Glance() if self._key is None else self._state.glance(self._key)
        shells = self._glance.shells
        near = NEAR_EDGE if self._glance.point is not None else ""
        choices = [*shells, near] if near else list(shells)
        self._follows |= self._pickers["shell"].value not in choices
        self._options(
            "shell", [(s, words.text(s, 24)) for s in choices], shells[0] if shells else near,
            self._glance.leading if self._follows else "",
        )  # fmt: skip
        items = self._glance.context
        beside = [("", "nothing"), *((name, words.text(name, 24)) for name in items)]
        first = "" if self._offered else next(iter(items), "")
        self._options("beside", beside, "", first)
        self._offered |= bool(items)
        names = [(name, words.text(name, 24)) for name in self._references()]
        self._options("reference", [("", "none"), *names], "")
        self._links()

    def _references(self) -> Mapping[str, Any]:
        """References of the edge that is shown, by name."""
        key = self._key
        return {} if key is None else self._state.references.get((key.element, key.edge), {})

    def _links(self) -> None:
        if self._key is None:
            self._text("export", "")
            return
        run = quote(self._key.run_uid, safe="")
        self._text(
            "export",
            f'<a href="export/run.csv?run={run}" download>CSV</a>'
            f'<a href="export/run.h5?run={run}" download>HDF5</a>',
        )

    def _bring_trends(self) -> None:
        """Add what is new to the trends, or begin them again where something else is shown."""
        shell, axis = str(self._pickers["shell"].value), str(self._pickers["against"].value)
        beside = str(self._pickers["beside"].value)
        read_as = _first_shells(self._glance.phases, self._glance.shells)
        phases = self._glance.phases
        lines = phases or self._glance.components
        shown = (
            self._key, self._glance.epoch, shell, axis, beside, phases, lines,
            tuple(read_as.items()),
        )  # fmt: skip
        again = shown != self._shown
        if again:
            self._shown, self._seen, self._origin = shown, 0, None
            self._last = None
            self._trends.name(words.text(shell, 24))
            self._trends.against(axis)
            together = {} if shell == NEAR_EDGE else read_as
            self._trends.show_phases([words.text(p, 16) if s else "" for p, s in together.items()])
            self._shares.name([words.text(one, 16) for one in lines], scores=not phases)
            self._shares.against(axis)
            unit = self._glance.context.get(beside) or ""
            label = f"{words.text(beside, 24)}{unit and f' / {words.text(unit, 12)}'}"
            self._trends.show_context(label if beside else "")
            truth = self._glance.point is not None and bool(self._glance.point.truth)
            self._text("legend", words.legend(truth, beside))
        points: list[Point] = []
        if self._key is not None:
            self._seen, points = self._state.since(self._key, self._seen, SHOWN)
        if self._origin is None and points:
            self._origin = points[0].at
        rows, marks = self._columns(points, shell, beside)
        for source, columns in (
            (self._trends.source, rows),
            (self._trends.marks, marks),
            (self._shares.source, self._share_columns(points, lines)),
            (self._trends.phases, self._phase_columns(points, read_as)),
            (self._trends.changes, self._change_columns(points, again)),
        ):
            if again:
                source.data = columns
            elif len(next(iter(columns.values()))):
                source.stream(columns, rollover=SHOWN)

    def _columns(
        self, points: list[Point], shell: str, beside: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Points as columns of the two sources; what has no value leaves a gap in the lines."""
        # the truth is that of the first shell, of the sample or of each phase
        first = self._glance.shells[:1] == (shell,)
        phase = shell.removesuffix("/1")
        rows = np.full((len(TREND_COLUMNS), len(points)), NAN)
        column = dict(zip(TREND_COLUMNS, rows, strict=True))
        marks: dict[str, list[Any]] = {name: [] for name in MARK_COLUMNS}
        for i, point in enumerate(points):
            at = NAN if point.at is None or self._origin is None else point.at - self._origin
            column["sweep"][i], column["minutes"][i] = point.sweep, at / 60.0
            column["beside"][i] = point.context.get(beside, NAN)
            near = shell == NEAR_EDGE
            values = point.near_edge if near else point.shells.get(shell, {})
            for name in PARAMETERS:
                value, std = values.get(name, (NAN, NAN))
                spread = 0.0 if math.isnan(std) else std
                parts = (value, std, value - spread, value + spread)
                for part, number in zip(("", "_std", "_low", "_high"), parts, strict=True):
                    column[name + part][i] = number
                shown = "_flagged" if _doubted(point, shell) and not near else "_trusted"
                column[name + shown][i] = value
                true = point.truth.get(f"{name}_{phase}", NAN)
                column[f"{name}_true"][i] = point.truth.get(name, true) if first else true
            if values:
                self._last = point
            elif self._last is not None and point.sweep > self._last.sweep:
                # a band is one area: it has no gaps, but it can be of no height
                last = self._last.near_edge if near else self._last.shells[shell]
                for name, (value, _) in last.items():
                    if name in PARAMETERS:
                        column[f"{name}_low"][i] = column[f"{name}_high"][i] = value
            withheld = point.kind == "withheld" and not near and not values
            if point.kind == "rejected" or withheld:
                columns = (
                    point.sweep,
                    at / 60.0,
                    0.06,
                    point.kind,
                    words.text(point.reason, 160),
                    self._colours[point.kind],
                    "x" if point.kind == "rejected" else "triangle",
                )
                for name, value in zip(MARK_COLUMNS, columns, strict=True):
                    marks[name].append(value)  # fmt: skip
        return column, marks

    def _share_columns(self, points: list[Point], lines: tuple[str, ...]) -> dict[str, Any]:
        """Shares of the phases of a run, or scores of its components; gaps where there are none."""
        column = dict(
            zip(SHARE_COLUMNS, np.full((len(SHARE_COLUMNS), len(points)), NAN), strict=True)
        )
        for i, point in enumerate(points):
            at = NAN if point.at is None or self._origin is None else point.at - self._origin
            column["sweep"][i], column["minutes"][i] = point.sweep, at / 60.0
            readings = point.shares if self._glance.phases else point.scores
            for n, phase in enumerate(lines[: len(DASHES)]):
                value, std = readings.get(phase, (NAN, NAN))
                true = point.truth.get(f"share_{phase}", NAN)
                parts = (
                    ("", value), ("_low", value - std), ("_high", value + std), ("_true", true),
                )  # fmt: skip
                for part, number in parts:
                    column[f"{n}{part}"][i] = number
        return column

    def _phase_columns(self, points: list[Point], phases: dict[str, str]) -> dict[str, Any]:
        """R of every phase's first shell."""
        rows = np.full((len(PHASE_COLUMNS), len(points)), NAN)
        column = dict(zip(PHASE_COLUMNS, rows, strict=True))
        for i, point in enumerate(points):
            at = NAN if point.at is None or self._origin is None else point.at - self._origin
            column["sweep"][i], column["minutes"][i] = point.sweep, at / 60.0
            for n, shell in enumerate(list(phases.values())[: len(DASHES)]):
                value, std = point.shells.get(shell, {}).get("r", (NAN, NAN))
                column[f"{n}{'_flagged' if _doubted(point, shell) else ''}"][i] = value
                column[f"{n}_low"][i], column[f"{n}_high"][i] = value - std, value + std
        return column

    def _change_columns(self, points: list[Point], again: bool) -> dict[str, Any]:
        """Where the sample began to change, each once; two directions tell of one change."""
        if again:
            self._changes, self._minutes = [], {}
        column: dict[str, list[float]] = {name: [] for name in CHANGE_COLUMNS}
        for point in points:
            at = NAN if point.at is None or self._origin is None else point.at - self._origin
            if len(self._minutes) > 2 * SHOWN:
                self._minutes.clear()
            self._minutes[point.sweep] = at / 60.0
            change = point.change_point
            if change is None or any(abs(change - one) <= 2 for one in self._changes):
                continue
            self._changes.append(change)
            column["sweep"].append(change)
            column["minutes"].append(self._minutes.get(change, at / 60.0))
        return column

    def _bring_map(self) -> None:
        """Draw the near edges of the run."""
        drawn = None if self._key is None else self._state.near_edges(self._key)
        if drawn is not None:
            self._spectra.show_map(*drawn)

    def _bring_spectra(self) -> None:
        """Show the latest spectrum and say what it means."""
        newest = self._glance.newest
        header = None if newest is None else newest.header
        self._text("readout", words.readout(self._glance.point, header))
        self._text("remarks", words.remarks(self._glance.point, header))
        message = self._glance.spectrum
        if message is None:
            for source in (
                self._spectra.mu, self._spectra.first, self._spectra.previous,
                self._spectra.reference, self._spectra.chi, self._spectra.ft,
            ):  # fmt: skip
                source.data = {name: [] for name in source.column_names}
            return
        arrays = message.arrays
        k, r = arrays.get("k"), arrays.get("r")
        view = str(self._pickers["view"].value)
        chosen = str(self._pickers["reference"].value)
        self._spectra.name_reference(words.text(chosen, 16))
        for source, shown in (
            (self._spectra.mu, arrays), (self._spectra.first, self._glance.first),
            (self._spectra.previous, self._glance.previous),
            (self._spectra.reference, self._references().get(chosen)),
        ):  # fmt: skip
            source.data = _mu(shown, view == "derivative")
        energies = (self._glance.point.near_edge if self._glance.point else {}).get("r")
        self._spectra.view(view, energies[0] if energies else NAN)
        if k is not None:
            # beyond the data the prediction is extrapolated, and of no interest
            inside = k <= message.header["k_data"][1] + 1e-6
            self._spectra.chi.data = _three("k", k, arrays, "chi_k2", inside)
        if r is not None:
            self._spectra.ft.data = _three("r", r, arrays, "chir_mag", r <= 8.0)
        fit = message.header["fit"]
        for window, name in zip(self._spectra.windows, ("k", "r"), strict=True):
            window.left, window.right = fit[name] if fit else (0.0, 0.0)
            window.visible = fit is not None


def _doubted(point: Point, shell: str) -> bool:
    """Whether there are doubts about numbers of a shell: those of a mixture have none of these."""
    return point.kind == "flagged" and shell not in point.mixed


def _first_shells(phases: tuple[str, ...], shells: tuple[str, ...]) -> dict[str, str]:
    """Phase to its first shell, empty where it has none, in the order of their colours.

    That of the shares, so that a phase has one colour on the page; then that of the run.
    """
    first = dict.fromkeys(phases, "")
    for shell in shells:
        phase = shell.rpartition("/")[0]
        first[phase] = first.get(phase) or shell
    return first


def _mu(arrays: Any, derivative: bool) -> dict[str, Any]:
    """Energy and normalised mu, or its derivative; nothing where one of both is not sent."""
    energy, norm = ((arrays or {}).get(name, np.empty(0)) for name in ("energy", "norm"))
    if energy.size != norm.size or energy.size < 2:
        return {"energy": [], "norm": []}
    return {"energy": energy, "norm": np.gradient(norm, energy) if derivative else norm}


def _three(name: str, grid: Any, arrays: Any, measured: str, inside: Any) -> dict[str, Any]:
    """Grid, measured and predicted columns; NaN where an array is not sent."""
    missing = np.full(grid.shape, NAN)
    columns = {
        name: grid,
        "measured": arrays.get(measured, missing),
        "predicted": arrays.get(f"{measured}_pred", missing),
    }
    return {key: array[inside] for key, array in columns.items()}

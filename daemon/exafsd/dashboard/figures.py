"""Plots of one viewer and their colours. No data is here; sources are filled by the viewer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bokeh.models import (
    BasicTicker,
    BoxAnnotation,
    ColorBar,
    ColumnDataSource,
    DataRange1d,
    HoverTool,
    Legend,
    LegendItem,
    LinearAxis,
    LinearColorMapper,
    Range1d,
)
from bokeh.plotting import figure

from exafsd.dashboard.state import MAP_ENERGIES, NEAR_EDGE, NEAR_EDGE_NUMBERS, PARAMETERS
from exafsd.dashboard.words import NEAR_EDGE_SHOWN, SHOWN

#: Okabe and Ito's colours, which colour-blind people can tell apart; lighter ones on dark.
#: Shapes and dashes differ as well.
PALETTES = {
    "dark": {
        "ink": "#E8EAED", "muted": "#A9B1BC", "line": "#3A424D", "panel": "#171C23",
        "measured": "#56B4E9", "predicted": "#E69F00", "truth": "#F0E442", "context": "#A9B1BC",
        "rejected": "#FF7A33", "withheld": "#CC79A7", "flagged": "#F0C244",
    },
    "light": {
        "ink": "#16191D", "muted": "#4E5661", "line": "#D5D9DF", "panel": "#FFFFFF",
        "measured": "#0072B2", "predicted": "#D55E00", "truth": "#007A59", "context": "#6B7280",
        "rejected": "#B34700", "withheld": "#9A4D78", "flagged": "#8A5A00",
    },
}  # fmt: skip
#: the same for phases, in the order in which a run has them; more than these are not drawn
PHASES = {
    "dark": ("#56B4E9", "#E69F00", "#3DC9A0", "#CC79A7", "#F0E442", "#FF7A33"),
    "light": ("#0072B2", "#D55E00", "#007A59", "#9A4D78", "#8A5A00", "#444444"),
}
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")
SHARE_COLUMNS = (
    "sweep", "minutes",
    *(f"{i}{part}" for i in range(len(DASHES)) for part in ("", "_low", "_high", "_true")),
)  # fmt: skip
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
FONT = "system-ui, 'DejaVu Sans', sans-serif"
#: columns that a trend of one parameter needs
TREND_COLUMNS = (
    "sweep", "minutes", "beside",
    *(
        f"{p}{part}"
        for p in PARAMETERS
        for part in ("", "_std", "_low", "_high", "_true", "_trusted", "_flagged")
    ),
)  # fmt: skip
#: R of every phase's first shell, of those that are trusted and those with doubts, and error bars
PHASE_COLUMNS = (
    "sweep", "minutes",
    *(f"{i}{part}" for i in range(len(DASHES)) for part in ("", "_flagged", "_low", "_high")),
)  # fmt: skip
SHARES = "share of the edge step"
CHANGE_COLUMNS = ("sweep", "minutes")
#: what the first plot of a spectrum shows
VIEWS = {"mu": "μ(E)", "near edge": "near edge", "derivative": "derivative", "map": "run as a map"}
MARK_COLUMNS = ("sweep", "minutes", "y", "kind", "reason", "color", "marker")


def empty(columns: Sequence[str]) -> ColumnDataSource:
    """Source without rows."""
    return ColumnDataSource({name: [] for name in columns})


@dataclass
class Spectra:
    """The three plots of the latest spectrum."""

    mu: ColumnDataSource = field(default_factory=lambda: empty(("energy", "norm")))
    first: ColumnDataSource = field(default_factory=lambda: empty(("energy", "norm")))
    previous: ColumnDataSource = field(default_factory=lambda: empty(("energy", "norm")))
    reference: ColumnDataSource = field(default_factory=lambda: empty(("energy", "norm")))
    map: ColumnDataSource = field(default_factory=lambda: empty(("image", "x", "y", "dw", "dh")))
    chi: ColumnDataSource = field(default_factory=lambda: empty(("k", "measured", "predicted")))
    ft: ColumnDataSource = field(default_factory=lambda: empty(("r", "measured", "predicted")))

    def __post_init__(self) -> None:
        self._painted: list[tuple[Any, str]] = []
        self.windows = [BoxAnnotation(fill_alpha=0.12, line_color=None) for _ in range(2)]
        self.figures = [
            self._figure("mu", "Normalized μ(E)", "energy / eV", self.mu, "energy", ("norm",)),
            self._figure("chi", "k²χ(k) / Å⁻²", "k / Å⁻¹", self.chi, "k"),
            self._figure("ft", "|χ(R)| / Å⁻³", "R, no phase correction / Å", self.ft, "r"),
        ]
        self.figures[2].x_range = Range1d(start=0.0, end=6.0)
        self._compare(self.figures[0])
        self.map_figure = self._map()
        for plot, window in zip(self.figures[1:], self.windows, strict=True):
            plot.add_layout(window)

    def _figure(
        self, name: str, title: str, label: str, source: ColumnDataSource, x: str,
        columns: tuple[str, ...] = ("measured", "predicted"),
    ) -> Any:  # fmt: skip
        plot = _plot(name, title, label)
        for column in columns:
            role = "predicted" if column == "predicted" else "measured"
            dash = "dashed" if role == "predicted" else "solid"
            legend = {} if len(columns) == 1 else {"legend_label": column}
            line = plot.line(
                x, column, source=source, line_width=2.2, line_dash=dash, **legend
            )  # fmt: skip
            self._painted.append((line, role))
        return plot

    def _compare(self, plot: Any) -> None:
        """Lines of the first and the previous spectrum, and of a reference, under the latest."""
        lines = []
        for name, source, dash, role in (
            ("first", self.first, "dashed", "truth"),
            ("previous", self.previous, "dotted", "muted"),
            ("reference", self.reference, "dotdash", "predicted"),
        ):
            line = plot.line("energy", "norm", source=source, line_width=1.6, line_dash=dash)
            line.level = "underlay"
            self._painted.append((line, role))
            lines.append(LegendItem(label=name, renderers=[line]))
        *lines, self._of_reference = lines
        self._lines = [LegendItem(label="latest", renderers=[plot.renderers[0]]), *lines]
        self._legend = Legend(items=self._lines, location="bottom_right")
        plot.add_layout(self._legend)

    def name_reference(self, name: str) -> None:
        """Say which reference is drawn; an empty name: none."""
        if name:
            self._of_reference.label = {"value": name}
        items = [*self._lines, self._of_reference] if name else [*self._lines]
        if items != self._legend.items:
            self._legend.items = items

    def _map(self) -> Any:
        """Near edges of the run, one row a sweep."""
        plot = _plot("map", "μ(E) of the run", "energy from the edge / eV", visible=False)
        self._mapper = LinearColorMapper(palette="Viridis256", low=0.0, high=1.4)
        plot.image("image", "x", "y", "dw", "dh", source=self.map, color_mapper=self._mapper)
        plot.x_range = Range1d(start=float(MAP_ENERGIES[0]), end=float(MAP_ENERGIES[-1]))
        plot.y_range = Range1d(start=0.0, end=1.0)
        plot.yaxis.axis_label = "sweep"
        self._bar = ColorBar(color_mapper=self._mapper, width=10, padding=4, border_line_color=None)
        plot.add_layout(self._bar, "right")
        return plot

    def show_map(self, sweeps: Any, rows: Any) -> None:
        """Draw near edges (n, m) of sweeps (n,)."""
        low, high = float(sweeps[0]), float(sweeps[-1])
        wide = float(MAP_ENERGIES[-1] - MAP_ENERGIES[0])
        self.map.data = {
            "image": [rows.astype("float32")], "x": [float(MAP_ENERGIES[0])], "y": [low],
            "dw": [wide], "dh": [high - low],
        }  # fmt: skip
        self.map_figure.y_range.start, self.map_figure.y_range.end = low, high
        self._mapper.high = float(rows.max())

    def view(self, name: str, edge: float) -> None:
        """Show one of `VIEWS`; `edge` is the edge's energy, eV, NaN where it is not known."""
        plot = self.figures[0]
        plot.visible, self.map_figure.visible = name != "map", name == "map"
        plot.title.text = "dμ/dE / eV⁻¹" if name == "derivative" else "Normalized μ(E)"
        near = name in ("near edge", "derivative") and edge == edge
        span = (edge - 30.0, edge + 60.0) if near else None
        self._range(plot, span)

    @staticmethod
    def _range(plot: Any, span: tuple[float, float] | None) -> None:
        bounds = getattr(plot.x_range, "start", None), getattr(plot.x_range, "end", None)
        if span is None and not isinstance(plot.x_range, DataRange1d):
            plot.x_range = DataRange1d()
        elif span is not None and (isinstance(plot.x_range, DataRange1d) or bounds != span):
            plot.x_range = Range1d(start=span[0], end=span[1])

    def paint(self, colours: dict[str, str]) -> None:
        """Take the colours of a theme."""
        for plot in (*self.figures, self.map_figure):
            _paint(plot, colours)
        self._bar.background_fill_color = colours["panel"]
        self._bar.major_label_text_color = colours["ink"]
        for line, role in self._painted:
            line.glyph.line_color = colours[role]
        for window in self.windows:
            window.fill_color = colours["muted"]


@dataclass
class Trends:
    """Four parameters against sweep or time, with a common horizontal axis."""

    source: ColumnDataSource = field(default_factory=lambda: empty(TREND_COLUMNS))
    marks: ColumnDataSource = field(default_factory=lambda: empty(MARK_COLUMNS))
    phases: ColumnDataSource = field(default_factory=lambda: empty(PHASE_COLUMNS))
    changes: ColumnDataSource = field(default_factory=lambda: empty(CHANGE_COLUMNS))

    def __post_init__(self) -> None:
        self._x = DataRange1d(range_padding=0.02, default_span=10)
        self._painted: list[tuple[Any, str]] = []
        self._glyphs: list[Any] = []
        self._hovers: list[HoverTool] = []
        self.figures = [self._figure(parameter) for parameter in PARAMETERS]
        self._add_context(self.figures[0])
        self._add_phases(self.figures[0])

    def _figure(self, parameter: str) -> Any:
        plot = _plot(parameter, "", "sweep", x_range=self._x)
        source, axis = self.source, "sweep"
        band = plot.varea(
            axis, f"{parameter}_low", f"{parameter}_high", source=source, fill_alpha=0.3
        )
        line = plot.line(axis, parameter, source=source, line_width=1.5)
        dots = plot.scatter(axis, f"{parameter}_trusted", source=source, size=5, line_color=None)
        rings = plot.scatter(
            axis, f"{parameter}_flagged", source=source, size=6, fill_color=None, line_width=1.5
        )
        true = plot.line(axis, f"{parameter}_true", source=source, line_width=2.0, line_dash=[6, 4])
        plot.y_range.renderers = [band, line, true]
        plot.extra_y_ranges = {"marks": Range1d(start=0.0, end=1.0)}
        marks = plot.scatter(
            axis, "y", source=self.marks, y_range_name="marks", size=11, marker="marker",
            fill_color=None, line_color="color", line_width=2.0,
        )  # fmt: skip
        hover = HoverTool(renderers=[dots, rings], attachment="vertical")
        self._hovers.append(hover)
        plot.add_tools(
            hover,
            HoverTool(
                renderers=[marks],
                attachment="vertical",
                tooltips=[("sweep", "@sweep"), ("@kind", "@reason")],
            ),
        )
        self._painted += [(band, "measured"), (line, "measured"), (dots, "measured"),
                          (rings, "flagged"), (true, "truth")]  # fmt: skip
        self._glyphs += [r.glyph for r in (band, line, dots, rings, true, marks)]
        self._glyphs.append(change_lines(plot, self.changes, self._painted))
        return plot

    def _add_context(self, plot: Any) -> None:
        """Second axis of the first plot."""
        self._beside = plot.line(
            "sweep", "beside", source=self.source, y_range_name="beside", line_width=1.5,
            line_dash="dotted",
        )  # fmt: skip
        self._painted.append((self._beside, "context"))
        self._glyphs.append(self._beside.glyph)
        plot.extra_y_ranges["beside"] = DataRange1d(renderers=[self._beside])
        self._axis = LinearAxis(
            y_range_name="beside", visible=False, ticker=BasicTicker(desired_num_ticks=5)
        )
        plot.add_layout(self._axis, "right")

    def _add_phases(self, plot: Any) -> None:
        """R of every phase's first shell, by colour, with error bars; hollow where in doubt."""
        self._phase_dots: list[tuple[Any, Any, Any]] = []
        for i in range(len(DASHES)):
            dots = plot.scatter("sweep", str(i), source=self.phases, size=6, line_color=None)
            rings = plot.scatter(
                "sweep", f"{i}_flagged", source=self.phases, size=7, fill_color=None, line_width=1.5
            )
            bars = plot.segment(
                "sweep", f"{i}_low", "sweep", f"{i}_high", source=self.phases, line_alpha=0.5
            )
            dots.visible = rings.visible = bars.visible = False
            self._phase_dots.append((dots, rings, bars))
            self._glyphs += [dots.glyph, rings.glyph]
        self._phase_legend = Legend(items=[], location="top_left", orientation="horizontal")
        plot.add_layout(self._phase_legend)
        self._own = list(plot.y_range.renderers)

    def show_phases(self, names: Sequence[str]) -> None:
        """Name the phases whose R are shown together, if there are two or more; "" is not shown."""
        shown = list(names) if sum(map(bool, names)) > 1 else []
        items: list[LegendItem] = []
        drawn: list[Any] = []
        for i, (dots, rings, bars) in enumerate(self._phase_dots):
            dots.visible = rings.visible = bars.visible = i < len(shown) and bool(shown[i])
            if dots.visible:
                items.append(LegendItem(label=shown[i], renderers=[dots]))
                drawn += [dots, rings, bars]
        self._phase_legend.items = items
        self.figures[0].y_range.renderers = [*self._own, *drawn]

    def show_context(self, label: str) -> None:
        """Name what the second axis shows; an empty name hides it."""
        self._axis.axis_label = label
        self._axis.visible = self._beside.visible = bool(label)

    def against(self, column: str) -> None:
        """Take another horizontal axis, ``sweep`` or ``minutes``."""
        for glyph in self._glyphs:
            glyph.x = column
        for *_, bars in self._phase_dots:
            bars.glyph.x0 = bars.glyph.x1 = column
        label = "sweep" if column == "sweep" else "minutes since the first sweep shown"
        for plot in self.figures:
            plot.below[0].axis_label = label

    def name(self, shell: str) -> None:
        """Say which shell is shown, or that it is the near edge."""
        near = shell == NEAR_EDGE
        for plot, hover, parameter, number in zip(
            self.figures, self._hovers, PARAMETERS, NEAR_EDGE_NUMBERS, strict=True
        ):
            symbol, unit, decimals = NEAR_EDGE_SHOWN[number] if near else SHOWN[parameter]
            plot.title.text = f"{symbol}{unit and f' / {unit}'}   {'' if near else shell}"
            digits = "{0." + "0" * decimals + "}"
            hover.tooltips = [
                ("sweep", "@sweep"),
                (symbol, f"@{parameter}{digits} {unit}"),
                ("± 1σ", f"@{parameter}_std{digits}"),
                ("truth", f"@{parameter}_true{digits}"),
            ]

    def paint(self, colours: dict[str, str], phases: Sequence[str]) -> None:
        """Take the colours of a theme."""
        for (dots, rings, bars), colour in zip(self._phase_dots, phases, strict=True):
            dots.glyph.fill_color = rings.glyph.line_color = bars.glyph.line_color = colour
        for plot in self.figures:
            _paint(plot, colours)
        for renderer, role in self._painted:
            glyph = renderer.glyph
            for part in ("line_color", "fill_color"):
                if hasattr(glyph, part) and getattr(glyph, part) is not None:
                    setattr(glyph, part, colours[role])
        _paint_axis(self._axis, colours)


@dataclass
class Shares:
    """What the sample is made of, one line for each reference; or scores of its components."""

    changes: ColumnDataSource
    source: ColumnDataSource = field(default_factory=lambda: empty(SHARE_COLUMNS))

    def __post_init__(self) -> None:
        self._painted: list[tuple[Any, str]] = []
        self.figure = _plot("shares", SHARES, "sweep", visible=False)
        self.figure.y_range = Range1d(start=-0.03, end=1.03)
        self._lines: list[tuple[Any, Any, Any]] = []
        for i, dash in enumerate(DASHES):
            band = self.figure.varea(
                "sweep", f"{i}_low", f"{i}_high", source=self.source, fill_alpha=0.25
            )
            line = self.figure.line(
                "sweep", str(i), source=self.source, line_width=2.2, line_dash=dash
            )
            true = self.figure.line(
                "sweep", f"{i}_true", source=self.source, line_width=1.5, line_dash=[2, 4]
            )
            self._lines.append((band, line, true))
        self._change = change_lines(self.figure, self.changes, self._painted)
        self._legend = Legend(location="center_right", items=[])
        self.figure.add_layout(self._legend)
        for glyph in (one for lines in self._lines for one in lines):
            glyph.visible = False

    def name(self, phases: Sequence[str], scores: bool = False) -> None:
        """Say which phases there are; `scores`: components, as there are no shares of phases."""
        title = "score of a component" if scores else SHARES
        self.figure.title.text = title
        if scores and isinstance(self.figure.y_range, Range1d):
            self.figure.y_range = DataRange1d()
        elif not scores and isinstance(self.figure.y_range, DataRange1d):
            self.figure.y_range = Range1d(start=-0.03, end=1.03)
        self._legend.items = [
            LegendItem(label=name, renderers=[line])
            for name, (_, line, _) in zip(phases, self._lines, strict=False)
        ]
        for i, lines in enumerate(self._lines):
            for glyph in lines:
                glyph.visible = i < len(phases)
        self.figure.visible = bool(phases)

    def against(self, column: str) -> None:
        """Take another horizontal axis, ``sweep`` or ``minutes``."""
        self._change.x = column
        for lines in self._lines:
            for renderer in lines:
                renderer.glyph.x = column
        self.figure.below[0].axis_label = column

    def paint(self, colours: dict[str, str], phases: Sequence[str]) -> None:
        """Take the colours of a theme."""
        _paint(self.figure, colours)
        for renderer, role in self._painted:
            renderer.glyph.line_color = colours[role]
        for (band, line, true), colour in zip(self._lines, phases, strict=True):
            band.glyph.fill_color = line.glyph.line_color = colour
            true.glyph.line_color = colours["ink"]


def change_lines(plot: Any, source: ColumnDataSource, painted: list[tuple[Any, str]]) -> Any:
    """Upright lines where the sample began to change; their glyph."""
    lines = plot.vspan("sweep", source=source, line_width=1.5, line_dash=[2, 3])
    lines.level = "underlay"
    painted.append((lines, "withheld"))
    return lines.glyph


def _plot(name: str, title: str, label: str, **options: Any) -> Any:
    plot: Any = figure(
        name=name, title=title, tools=TOOLS, active_scroll=None, sizing_mode="stretch_both",
        x_axis_label=label, min_border=4, output_backend="canvas", **options,
    )  # fmt: skip
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.title.text_font_size = "15px"
    plot.title.text_font = FONT
    plot.yaxis.ticker.desired_num_ticks = 5
    plot.outline_line_color = None
    return plot


def _paint(plot: Any, colours: dict[str, str]) -> None:
    plot.background_fill_color = plot.border_fill_color = colours["panel"]
    plot.title.text_color = colours["ink"]
    plot.grid.grid_line_color = colours["line"]
    for axis in (*plot.below, *plot.left):
        _paint_axis(axis, colours)
    for legend in plot.legend:
        legend.background_fill_color = colours["panel"]
        legend.background_fill_alpha = 0.75
        legend.border_line_color = None
        legend.label_text_color = colours["ink"]
        legend.label_text_font = FONT
        legend.label_text_font_size = "12px"
        legend.spacing, legend.padding, legend.margin = 0, 3, 4


def _paint_axis(axis: Any, colours: dict[str, str]) -> None:
    axis.axis_line_color = axis.major_tick_line_color = colours["muted"]
    axis.minor_tick_line_color = None
    axis.major_label_text_color = colours["ink"]
    axis.axis_label_text_color = colours["muted"]
    axis.axis_label_text_font_style = "normal"
    axis.major_label_text_font = axis.axis_label_text_font = FONT
    axis.major_label_text_font_size = axis.axis_label_text_font_size = "13px"

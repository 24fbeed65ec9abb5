"""Results in a terminal: a table that follows, truth beside prediction; JSON for pipes."""

import json
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from exafsd.client import Event, Follower, FrameError, Message, Subscriber
from exafsd.contract.columns import best_answer
from exafsd.contract.frames import encode
from exafsd.contract.messages import BaseMessage, Result
from exafsd.contract.vocabulary import Flag, Reason

#: rows on the screen
ROWS = 18
#: screen updates a second, whatever the data rate
REFRESH = 4
#: column and the width it keeps on a narrow screen
COLUMNS = {
    "spectrum": 6,
    "sweep": 4,
    "channel": 10,
    "E0/eV": 6,
    "N·S0²": 7,
    "R/Å": 9,
    "σ²/Å²": 10,
    "true R σ²": 12,
    "trust": 6,
    "remarks": 6,
}
#: states of trust, before the score
SIGNS = {"trusted": "✓", "flagged": "⚑", "withheld": "△"}
#: channels as the table shows them
SHORT = {"transmission": "trans", "fluorescence": "fluor", "reference": "ref"}
#: s without a status after which the daemon is said to be away
AWAY = 3.0
#: values in a trend, and how many series have one
TREND, TRENDS = 40, 4
BARS = "▁▂▃▄▅▆▇█"


class ResultTable:
    """The latest outcomes as a table."""

    def __init__(self, rows: int | None = None) -> None:
        self._rows: deque[list[str]] = deque(maxlen=rows)
        self.results = 0
        self.rejected = 0

    def add(self, header: dict[str, Any], where: str) -> None:
        """Take a result or a rejection."""
        if header["kind"] == "result":
            self.results += 1
        else:
            self.rejected += 1
        self._rows.append(_row(header, where))

    def render(self) -> Table:
        """Return the table."""
        table = Table(
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption=f"{self.results} results, {self.rejected} rejected",
        )
        # the truth is known only of a simulated beamline
        shown = [
            (i, name)
            for i, name in enumerate(COLUMNS)
            if name != "true R σ²" or any(row[i] for row in self._rows)
        ]
        for _, name in shown:
            width = COLUMNS[name]
            table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=width)
        for row in self._rows:
            table.add_row(*(row[i] for i, _ in shown))
        return table


def _row(header: dict[str, Any], where: str) -> list[str]:
    direction = {"up": "↑", "down": "↓"}.get(header["direction"] or "", "")
    row = [
        where,
        f"{header['sweep']}{direction}",
        f"{SHORT.get(header['channel'], header['channel'])} {header['element']} {header['edge']}",
    ]
    true_values = _truth(header)
    if header["kind"] == "rejected":
        return [
            *row,
            "",
            "",
            "",
            "",
            true_values,
            "",
            f"rejected: {Reason.explain(header['reason'])}",
        ]
    remarks = [Flag.explain(code) for code in header["quality"]]
    if header["guessed"]:
        remarks.append(f"guessed {', '.join(header['guessed'])}")
    remarks += _shares(header) + _mixture(header) + _change(header)
    score = header["trust"]["score"]
    trust = SIGNS.get(header["trust"].get("state", ""), "")
    trust += "" if score is None else f" {score:.2f}"
    if not header["shells"]:
        remarks.insert(0, str(header["trust"]["reason"]))
        e0 = f"{header['e0']:.1f}"
        return [*row, e0, "", "", "", true_values, trust, "; ".join(remarks)]
    shells, phases = best_answer(header)
    shell, phase = shells[0], next(iter(phases.values()))
    if shell["n"]:
        remarks.insert(0, f"N {_pm(shell['n'], 1)}")
    e0 = header["e0"] + (phase["e0_shift"]["value"] or 0.0)
    values = [
        f"{e0:.1f}",
        _pm(shell["n_s02"], 1),
        _pm(shell["r"], 3),
        _pm(shell["sigma2"], 4),
    ]
    return [*row, *values, true_values, trust, "; ".join(remarks)]


def _truth(header: dict[str, Any]) -> str:
    """R and σ² that were put into a simulation, of the sample or of the phase that is shown."""
    truth = header.get("truth") or {}
    phase = header["shells"][0]["phase"] if header.get("shells") else ""
    r, sigma2 = (truth.get(n, truth.get(f"{n}_{phase}")) for n in ("r", "sigma2"))
    return "" if r is None or sigma2 is None else f"{r:.3f} {sigma2:.4f}"


def _shares(header: dict[str, Any]) -> list[str]:
    """What the sample is made of, the largest share first; why it is not known."""
    composition = header.get("composition")
    if not composition:
        return []
    components = _components(composition.get("components"))
    if composition["method"] == "components":
        return components
    if not composition["in_domain"]:
        return [f"composition: {composition['reason']}", *components]
    shares = sorted(composition["fractions"], key=lambda one: -one["value"])
    truth = header.get("truth") or {}
    words = []
    for one in shares:
        true = truth.get(f"share_{one['phase']}")
        if one["value"] > 0.005:
            true = "" if true is None else f" [{true:.2f}]"  # of a simulation
            words.append(f"{one['phase']} {_pm(one, 2)}{true}")
    return [" ".join(words), *components]


def _mixture(header: dict[str, Any]) -> list[str]:
    """R of the nearest shell of each phase of a mixture."""
    phases = (header.get("mixture") or {}).get("phases") or []
    nearest = [(one["phase"], one["shells"][0]["r"]) for one in phases if one["shells"]]
    return [f"R {' '.join(f'{phase} {_pm(r, 3)}' for phase, r in nearest)}"] if nearest else []


def _components(components: dict[str, Any] | None) -> list[str]:
    """How many components the run has had so far, where it is more than one."""
    if not components or components["count"] == 1:
        return []
    if components["count"] is None:
        numbers = sorted((components["by_noise"], components["by_structure"]))
        return [f"{numbers[0]} or {numbers[1]} components"]
    return [f"{components['count']} components"]


def _change(header: dict[str, Any]) -> list[str]:
    """Whether the sample changes."""
    xanes = header.get("xanes") or {}
    if xanes.get("state") == "changing":
        return [f"changing since sweep {xanes['change_point']}"]
    return ["drifting"] if xanes.get("state") == "drifting" else []


def _pm(value: dict[str, Any], digits: int) -> str:
    """Value with its standard deviation in units of the last digit: 2.544(3)."""
    if value["value"] is None:
        return ""
    text = f"{value['value']:.{digits}f}"
    return text if value["std"] is None else f"{text}({value['std'] * 10**digits:.0f})"


def sparkline(values: Iterable[float]) -> str:
    """Values as bars between their least and largest."""
    finite = np.array([v for v in values if np.isfinite(v)])
    if finite.size == 0:
        return ""
    span = np.ptp(finite)
    steps = (finite - finite.min()) / span * (len(BARS) - 1) if span else np.zeros(finite.size)
    return "".join(BARS[round(step)] for step in steps)


class Trends:
    """R and σ² of the first shell, by element, edge and channel."""

    def __init__(self) -> None:
        self._series: OrderedDict[str, tuple[deque[float], deque[float]]] = OrderedDict()

    def add(self, header: dict[str, Any]) -> None:
        """Take a result."""
        if not header["shells"]:
            return
        shell = best_answer(header)[0][0]
        channel = SHORT.get(header["channel"], header["channel"])
        name = f"{header['element']} {header['edge']} {channel} {shell['id']}"
        series = self._series.setdefault(name, (deque(maxlen=TREND), deque(maxlen=TREND)))
        self._series.move_to_end(name)
        while len(self._series) > TRENDS:
            self._series.popitem(last=False)
        for values, parameter in zip(series, ("r", "sigma2"), strict=True):
            value = shell[parameter]["value"]
            values.append(np.nan if value is None else value)

    def lines(self) -> list[Text]:
        """One line a series."""
        return [
            Text(f"{name}  R {_trend(r, 3)}  σ² {_trend(sigma2, 4)}", no_wrap=True)
            for name, (r, sigma2) in sorted(self._series.items())
            if len(r) > 1
        ]


def _trend(values: Iterable[float], digits: int) -> str:
    finite = [v for v in values if np.isfinite(v)]
    if not finite:
        return ""
    return f"{min(finite):.{digits}f} {sparkline(finite)} {max(finite):.{digits}f}"


class Screen:
    """What `watch` shows: the table, trends, and a line about the daemon.

    One thread takes messages while rich's own draws.
    """

    def __init__(self, rows: int | None = ROWS) -> None:
        self._lock = threading.Lock()
        self.table = ResultTable(rows)
        self._trends = Trends()
        self._status: dict[str, Any] | None = None
        self._heard = time.monotonic()
        self._event: Event | None = None

    def take(self, message: Message) -> None:
        """Take a message."""
        header = message.header
        if header["kind"] in ("result", "rejected"):
            with self._lock:
                self.table.add(header, header["run_uid"][:6])
                if header["kind"] == "result":
                    self._trends.add(header)
        elif header["kind"] == "status":
            self.take_status(header)

    def take_status(self, header: dict[str, Any] | None) -> None:
        """Take the header of the latest status, if it is a new one."""
        if header is not None and header is not self._status:
            self._status = header
            self._heard = time.monotonic()

    def take_event(self, event: Event) -> None:
        """Take what happened to the subscription."""
        if event.kind in ("restarted", "lost", "recovered", "unanswered"):
            self._event = event

    def render(self) -> Group:
        """Return what is to be drawn."""
        with self._lock:
            return Group(self.table.render(), *self._trends.lines(), self._line())

    def _line(self) -> Text:
        silent = time.monotonic() - self._heard
        if self._status is None:
            return Text("waiting for the daemon…" if silent < AWAY else "no daemon answers here")
        beat = self._status.get("heartbeat") or 0.0
        if silent > max(AWAY, 3 * beat) and self._status["state"] != "stopped":
            return Text(f"daemon away for {silent:.0f} s", style="bold red")
        s = self._status
        text = f"{s['state']}  {s['rate']:.1f}/s  results {s['results']}  rejected {s['rejected']}"
        if reasons := s.get("degraded"):
            text += f"  {'; '.join(reasons)}"
        if s["drops"]:
            text += "  trouble: " + ", ".join(f"{n} {name}" for name, n in s["drops"].items())
        if self._event is not None:
            e = self._event
            count = "" if e.first is None or e.last is None else f"{e.last - e.first + 1} "
            text += f"  {count}{e.kind}"
        return Text(text)


def hear_status(address: str, timeout: float, keys: Path | None = None) -> dict[str, Any] | None:
    """Header of the next heartbeat; None where none comes within `timeout` s.

    A snapshot would be quicker, but it is served although the daemon's worker hangs.
    """
    with Subscriber(address, "status.", keys=keys) as subscriber:
        message = subscriber.receive(timeout)
    return None if message is None else message.header


def status_lines(header: dict[str, Any]) -> list[str]:
    """Status in plain words, one thing a line."""
    s = header
    lag = "no spectrum yet" if s["lag"] is None else f"{s['lag']:.2f} s from sweep end to result"
    audit = "off" if s["audit"] is None else _numbers(s["audit"])
    lines = [
        f"state     {s['state']}, up for {timedelta(seconds=round(s['uptime']))}",
        f"outcomes  {s['results']} results, {s['rejected']} rejected, now {s['rate']:.1f} a second",
        f"lag       {lag}",
        f"waiting   {_numbers(s['queues']) or 'nothing'}",
        f"rejected  {_numbers(s['rejections']) or 'none'}",
        f"drops     {_numbers(s['drops']) or 'none'}",
        f"audit     {audit}",
        f"models    {', '.join(s['models']) or 'none'}",
        f"versions  {', '.join(f'{name} {v}' for name, v in s['versions'].items())}",
        f"answers   {s.get('answers') or 'not told'}",
    ]
    if (source := s.get("source")) is not None:
        there = "connected" if source["connected"] else "nobody listens there"
        silent = source["silent"]
        latest = "no document yet" if silent is None else f"latest document {silent:.0f} s ago"
        lines.insert(1, f"source    {source['address']}, {there}, {latest}")
        lines += [
            f"silent    run {uid} is open and gets no documents" for uid in source["open_runs"]
        ]
    lines[1:1] = [f"degraded  {text}" for text in s.get("degraded", ())]
    lines += [
        f"lost      {reason}: {loss['documents']} documents, {loss['sweeps']} sweeps"
        for reason, loss in s.get("losses", {}).items()
    ]
    lines += [f"refused   model {name}: {why}" for name, why in s["refused_models"].items()]
    return lines + [f"problem   {text}" for text in s["problems"]]


def _numbers(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in numbers.items())


def as_list(array: NDArray[Any]) -> list[Any]:
    """Array as nested lists that JSON can hold: what is not finite becomes null."""
    plain = np.asarray(array, dtype=object)
    return np.where(np.isfinite(np.asarray(array, dtype=float)), plain, np.array(None)).tolist()


def as_json(message: Message) -> str:
    """Message as one line of JSON, arrays as lists."""
    arrays = {name: as_list(array) for name, array in message.arrays.items()}
    return json.dumps({**message.header, "arrays": arrays} if arrays else message.header)


def outcome_as_json(message: BaseMessage, arrays: Mapping[str, NDArray[Any]], **more: Any) -> str:
    """Outcome as one line of JSON: its header, arrays as lists, and what is added."""
    message.time = time.time()
    encode(message, arrays)  # fills in nothing but the list of arrays
    header = message.model_dump(by_alias=True, mode="json")
    if isinstance(message, Result):
        header["arrays"] = {name: as_list(array) for name, array in arrays.items()}
    return json.dumps({**header, **more})


def tell(text: str) -> None:
    """Say something on stderr, where it does not mix with results."""
    sys.stderr.write(f"exafsd: {text}\n")


def progress() -> Progress:
    """Progress bar on stderr; none where stderr is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def watch_address(
    address: str, topic: str, as_lines: bool, seconds: float | None, keys: Path | None = None
) -> None:
    """Follow a daemon until interrupted, or for `seconds`."""
    end = None if seconds is None else time.monotonic() + seconds
    screen = Screen()
    with Follower(address, topic, start="now", keys=keys, on_event=screen.take_event) as follower:
        try:
            if as_lines:
                for message in _until(follower, end):
                    if message is not None:
                        sys.stdout.write(as_json(message) + "\n")
                        sys.stdout.flush()
                return
            with Live(
                get_renderable=screen.render, console=Console(), refresh_per_second=REFRESH
            ) as live:
                for message in _until(follower, end):
                    if message is not None:
                        screen.take(message)
                    screen.take_status(follower.status)
                live.refresh()
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # the reader of our lines has gone
            sys.stderr.close()


def _until(follower: Follower, end: float | None) -> Iterator[Message | None]:
    """Messages until the time is over; None now and then where there is none."""
    while (left := 0.5 if end is None else min(0.5, end - time.monotonic())) > 0:
        try:
            yield follower.receive(left)
        except FrameError as error:
            sys.stderr.write(f"exafsd: {error}\n")

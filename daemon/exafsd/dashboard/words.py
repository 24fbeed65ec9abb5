"""Numbers, flags and states in plain words, escaped for HTML where they come off the wire."""

import math
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from exafsd.contract.vocabulary import Flag
from exafsd.dashboard.state import (
    NEAR_EDGE_NUMBERS,
    PARAMETERS,
    Health,
    Key,
    Point,
    Reading,
    Run,
    shells_of,
)

#: parameter -> (symbol, unit, decimals)
SHOWN = {
    "r": ("R", "Å", 4),
    "sigma2": ("σ²", "Å²", 5),
    "n_s02": ("N·S0²", "", 2),
    "n": ("N", "", 2),
    "e0": ("E0", "eV", 2),
}
#: the same of the near edge
NEAR_EDGE_SHOWN = {
    "edge_energy": ("edge energy", "eV", 2),
    "white_line": ("white line", "", 4),
    "white_line_area": ("area of the white line", "eV", 2),
    "distance_first": ("distance to the first", "noise", 1),
}
#: shares below it are not shown in large
LEAST_SHARE = 0.01
STATES = {
    "starting": ("◌", "the daemon is starting"),
    "ready": ("●", "the daemon is running"),
    "overloaded": ("▲", "the daemon has more sweeps than it can analyse"),
    "degraded": ("▲", "something is being lost or not kept"),
    "stopping": ("■", "the daemon is stopping"),
    "stopped": ("■", "the daemon has been stopped"),
}
EVENTS = {
    "back": "the daemon is back",
    "restarted": "the daemon was restarted",
    "stopped": "the daemon said that it stops",
    "lost": "messages were lost for good",
    "unanswered": "the daemon does not answer requests",
}


def text(value: Any, longest: int = 80) -> str:
    """What came off the wire, cut, without control characters, not yet escaped."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def number(reading: Reading, parameter: str) -> str:
    """``2.5443 ± 0.0012``; a dash where there is no number."""
    value, std = reading
    decimals = SHOWN[parameter][2]
    if math.isnan(value):
        return "–"
    spread = "" if math.isnan(std) else f" ± {std:.{decimals}f}"
    return f"{value:.{decimals}f}{spread}"


def flag(name: str) -> str:
    """Quality flag in plain words; an unknown one as it is."""
    return text(Flag.explain(name))


def run_label(run: Run) -> str:
    """How the picker names a run."""
    sample = run.sample.get("name") if isinstance(run.sample, dict) else run.sample
    clock = time.strftime("%d %b %H:%M:%S", time.localtime(run.began)) if run.began else ""
    scan = "" if run.scan_id is None else f"scan {text(run.scan_id, 12)}"
    named = [scan, text(sample, 40) if sample else "", clock]
    label = " · ".join(part for part in named if part) or text(run.uid, 8)
    return label if run.address is None else f"{label} · {text(run.address, 60)}"


def key_label(key: Key) -> str:
    """How the picker names a channel."""
    stream = "" if key.stream == "primary" else f" · {text(key.stream, 20)}"
    return f"{key.channel} · {text(key.element, 8)} {text(key.edge, 8)}{stream}"


def readout(point: Point | None, header: dict[str, Any] | None) -> str:
    """The line to be read from afar: parameters of the first shell, and whether to believe them."""
    if point is None or header is None:
        return '<div class="big"><span class="muted">no spectrum yet</span></div>'
    if point.kind == "rejected":
        return (
            f'<div class="big"><span class="bad">✕ sweep {point.sweep} rejected</span>'
            f'<span class="why">{escape(text(point.reason, 200))}</span></div>'
        )
    score = header["trust"]["score"]
    shown_score = "" if score is None else f" {score:.2f}"
    if point.kind == "withheld":
        return (
            f'<div class="big">{_shares(point) or _near_edge(point)}{_mixed(point)}'
            f"{_components(header)}"
            f"{_change(header)}{_convergence(header)}"
            f'<span class="warn">{_without(header, shown_score)}</span>'
            f'<span class="why">{escape(text(point.reason, 200))}</span></div>'
        )
    shell, values = next(iter(shells_of(header).items()))
    shown = ["r", "sigma2", "n" if "n" in values else "n_s02"]
    cells = "".join(_cell(name, values[name]) for name in shown)
    colour, state = ("warn", "⚑ flagged") if point.kind == "flagged" else ("good", "✓ trusted")
    why = f'<span class="why">{escape(text(point.reason, 200))}</span>' if point.reason else ""
    return (
        f'<div class="big">{_shares(point)}{_components(header)}{_change(header)}'
        f"{_convergence(header)}{cells}"
        f'<span class="cell"><span class="name">trust, '
        f"shell {escape(text(shell, 20))}</span>"
        f'<span class="{colour}">{state}{shown_score}</span></span>{why}</div>'
    )


def _without(header: dict[str, Any], score: str) -> str:
    """That there are no parameters: withheld, or nobody to read them."""
    asked = header.get("model") or header.get("candidates")
    return f"△ withheld{score}" if asked else "△ no model"


def _near_edge(point: Point) -> str:
    """Edge energy and white line, which every edge has."""
    cells = ""
    for place, name in list(zip(PARAMETERS, NEAR_EDGE_NUMBERS, strict=True))[:2]:
        value, std = point.near_edge.get(place, (math.nan, math.nan))
        if not math.isnan(value):
            symbol, unit, decimals = NEAR_EDGE_SHOWN[name]
            cells += _large(f"{symbol}{unit and f' / {unit}'}", value, std, decimals)
    return cells


def _count(header: dict[str, Any]) -> str:
    """How many components the run has had so far, by both criteria."""
    components = (header.get("composition") or {}).get("components")
    if not components:
        return ""
    numbers = sorted({components["by_noise"], components["by_structure"]})
    return " or ".join(f"{n:g}" for n in numbers)


def _components(header: dict[str, Any]) -> str:
    """The count in large, where there are no shares of phases to be read instead."""
    composition = header.get("composition") or {}
    count = _count(header)
    if not count or composition.get("fractions"):
        return ""
    why = composition["components"].get("reason")
    title = f' title="{escape(text(why, 200))}"' if why else ""
    return (
        f'<span class="cell"{title}><span class="name">components</span>'
        f'<span class="value">{count}</span></span>'
    )


def _change(header: dict[str, Any]) -> str:
    """That the sample changes; nothing where it is steady."""
    xanes = header.get("xanes") or {}
    state = xanes.get("state")
    if state not in ("changing", "drifting"):
        return ""
    since = f"since sweep {xanes.get('change_point')}" if state == "changing" else "sweep by sweep"
    return (
        f'<span class="cell"><span class="name">{escape(text(since, 24))}</span>'
        f'<span class="warn">◆ {state}</span></span>'
    )


def _convergence(header: dict[str, Any]) -> str:
    """Whether the run may be stopped, where a target is set."""
    said = header.get("convergence")
    if not said:
        return ""
    value, std = said.get("value"), said.get("std")
    name = escape(text(said["parameter"], 24))
    mean = "" if value is None or std is None else f": {value:.5g} ± {std:.2g}"
    label = f'<span class="name">{name}{mean}, wanted ± {said["target"]:.2g}</span>'
    if said.get("reached"):
        return f'<span class="cell">{label}<span class="good">✓ may stop</span></span>'
    more = said.get("sweeps_needed")
    words = f"{more} more sweeps" if more else "not yet"
    why = said.get("reason")
    if why:
        words = f'<span title="{escape(text(why, 200))}">go on</span>'
    return f'<span class="cell">{label}<span class="value">{words}</span></span>'


def _large(name: str, value: float, std: float, decimals: int) -> str:
    spread = "" if math.isnan(std) else f" ± {std:.{decimals}f}"
    return (
        f'<span class="cell"><span class="name">{name}</span>'
        f'<span class="value">{value:.{decimals}f}<span class="std">{spread}</span></span></span>'
    )


def _shares(point: Point) -> str:
    """What the sample is made of, if it is more than one phase; the largest share first."""
    shares = sorted(point.shares.items(), key=lambda item: -item[1][0])
    several = [(name, reading) for name, reading in shares if reading[0] >= LEAST_SHARE]
    if len(several) < 2:
        return ""
    return "".join(
        f'<span class="cell"><span class="name">share of {escape(text(name, 16))}</span>'
        f'<span class="value">{value:.2f}<span class="std"> ± {std:.2f}</span></span></span>'
        for name, (value, std) in several
    )


def _mixed(point: Point) -> str:
    """R of the first shell of every phase of a mixture."""
    symbol, unit, decimals = SHOWN["r"]
    first = [name for name in point.mixed if name.endswith("/1")]
    return "".join(
        _large(f"{symbol} of {escape(text(name, 16))} / {unit}", *point.shells[name]["r"], decimals)
        for name in first
    )


def _cell(parameter: str, reading: Reading) -> str:
    symbol, unit, decimals = SHOWN[parameter]
    value, std = reading
    first = "–" if math.isnan(value) else f"{value:.{decimals}f}"
    spread = "" if math.isnan(std) else f"± {std:.{decimals}f}"
    return (
        f'<span class="cell"><span class="name">{symbol}{unit and f" / {unit}"}</span>'
        f'<span class="value">{first}<span class="std"> {spread}</span></span></span>'
    )


def remarks(point: Point | None, header: dict[str, Any] | None) -> str:
    """Which spectrum this is, who read it, and what there is to say about it."""
    if point is None or header is None:
        return ""
    arrow = {"up": " ↑ in energy", "down": " ↓ in energy"}.get(header["direction"] or "", "")
    parts = [f"sweep {point.sweep}{arrow}"]
    n = header["averaged"]["n"]
    if n > 1:
        parts.append(f"average of {n}")
    parts += [
        f"{text(name, 30)} {_short(item['value'])} {text(item.get('unit') or '', 12)}"
        for name, item in header["context"].items()
        if name in point.context
    ]
    if point.kind != "rejected":
        model = (header["model"] or {}).get("name")
        parts.append(f"model {text(model, 40)}" if model else "no model")
        parts += [answer] if (answer := _answer(header)) else []
    count = _count(header)
    parts += [f"{count} component{'s' * (count != '1')} so far"] if count else []
    why = (header.get("convergence") or {}).get("reason")
    parts += [f"may I stop: {text(why, 160)}"] if why else []
    if header["guessed"]:
        parts.append(f"{' and '.join(map(text, header['guessed']))} guessed from the energies")
    limited = [s for s in header.get("shells") or [] if s.get("prior_limited")]
    parts += [f"{text(s['id'], 20)}: little said about {', '.join(map(text, s['prior_limited']))}"
              for s in limited]  # fmt: skip
    flags = [flag(name) for name in header["quality"]]
    said = " · ".join(escape(part) for part in parts)
    warned = "".join(f'<span class="flag">⚑ {escape(one)}</span>' for one in flags)
    return f'<div class="remarks">{said}{warned or " · no quality flags"}</div>'


def _answer(header: dict[str, Any]) -> str:
    """Where the values that are shown come from."""
    if header["best"] == "network" and header.get("read_by") == "fit":
        return "fitted about the crystal"
    return {"polish": "fitted (polish)", "network": "network"}.get(header["best"] or "", "")


def _short(value: float) -> str:
    """Four digits, or all before the point and one behind it."""
    return f"{round(value, 1):g}" if abs(value) >= 100 else f"{value:.4g}"


def legend(truth: bool, beside: str) -> str:
    """What the lines of the trends are."""
    items = ['<span class="line solid"></span>result', '<span class="line wide"></span>± 1σ']
    items += ['<span class="line dashed"></span>truth of the simulation'] if truth else []
    items += [f'<span class="line dotted"></span>{escape(text(beside, 24))}'] if beside else []
    return f'<div class="legend">{" ".join(f"<span>{item}</span>" for item in items)}</div>'


def alert(health: Health, address: str) -> str:
    """A banner where something is wrong with the daemon, else nothing."""
    where = escape(text(address))
    if (health.status or {}).get("state") == "stopped":
        return f'<div class="alert">■ The daemon at {where} has been stopped. Waiting for it.</div>'
    if not health.silent:
        return ""
    if health.silence is None:
        return f'<div class="alert">✕ No daemon answers at {where}. Waiting for it.</div>'
    return (
        f'<div class="alert">✕ The daemon at {where} is silent, for {health.silence:.0f} s now.'
        " What is shown is old. The page goes on by itself when it is back.</div>"
    )


def health_lines(healths: Sequence[tuple[str, Health]]) -> str:
    """A line for each daemon, with its address where there are several."""
    if len(healths) == 1:
        return health_line(healths[0][1])
    return "".join(health_line(health, address) for address, health in healths)


def health_line(health: Health, address: str = "") -> str:
    """State, rate, lag, queues, drops and audit of the daemon."""
    s = health.status
    where = f'<span class="item name">{escape(text(address))}</span>' if address else ""
    if s is None:
        return f'<div class="health">{where}<span class="item">waiting for the daemon</span></div>'
    if health.silent:
        mark, words = "✕", "the daemon is silent"
    else:
        mark, words = STATES.get(s["state"], ("?", text(s["state"])))
    good = s["state"] == "ready" and not health.silent
    lag = "–" if s["lag"] is None else f"{s['lag'] * 1e3:.0f} ms"
    items = [
        ("rate", f"{s['rate']:.1f} /s"),
        ("lag", lag),
        ("results", f"{s['results']}"),
        ("rejected", _counted(s["rejected"], s["rejections"])),
        ("waiting", ", ".join(f"{text(n, 20)} {q:g}" for n, q in s["queues"].items()) or "0"),
        ("dropped", _counted(sum(s["drops"].values()), s["drops"])),
        ("audit against Larch", _audit(s["audit"])),
    ]
    shown = "".join(
        f'<span class="item"><span class="name">{name}</span> {escape(value)}</span>'
        for name, value in items
    )
    happened = () if health.silent else health.events
    latest = [EVENTS[one.kind] for one in happened if one.kind in EVENTS][-1:]
    problems = [text(p, 160) for p in s.get("degraded", ())] or [
        text(p, 120) for p in s["problems"][-1:]
    ]
    last = "".join(f'<span class="item warn">{escape(one)}</span>' for one in latest + problems)
    return (
        f'<div class="health">{where}<span class="item {"good" if good else "bad"}">{mark} '
        f"{escape(words)}</span>{shown}{last}</div>"
    )


def _counted(total: float, reasons: dict[str, int]) -> str:
    """``3 (no_edge 2, overload 1)``."""
    by_reason = ", ".join(f"{text(name, 24)} {n}" for name, n in list(reasons.items())[:4])
    return f"{total:g}" + (f" ({by_reason})" if by_reason else "")


def _audit(audit: dict[str, float] | None) -> str:
    if audit is None or audit.get("off"):
        return "off"
    parts = [f"{audit.get('count', 0):g} spectra"]
    if "difference_max" in audit:
        parts.append(f"drift at most {audit['difference_max']:.1e}")
    if audit.get("alarms"):
        parts.append(f"{audit['alarms']:g} alarms")
    return ", ".join(parts)

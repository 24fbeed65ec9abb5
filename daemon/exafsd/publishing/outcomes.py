"""A sweep's outcome, and the begin and end of a run, as messages of the contract."""

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from exafsd.contract.messages import (
    Acquired,
    Averaged,
    ContextValue,
    Delivery,
    Rejected,
    RunStart,
    RunStop,
    Timing,
)
from exafsd.contract.vocabulary import Flag
from exafsd.spectra import Averaged as AveragedSweeps
from exafsd.spectra import Edge, Run, SpectrumId, Sweep
from exafsd.spectra import Rejected as RejectedSpectrum


def identity(
    spectrum: SpectrumId, quality: tuple[Flag, ...], averaged: AveragedSweeps | None = None
) -> dict[str, Any]:
    """Fields that result and rejection share (`Identity`); `averaged` is None for one sweep."""
    sweep, edge = spectrum.sweep, spectrum.edge
    start, end = (number(when) for when in sweep.acquired)
    uid, stream = text(sweep.run.uid), text(sweep.stream)
    mid = (start + end) / 2 if start is not None and end is not None else None
    n, first, last = averaged or (1, sweep.number, sweep.number)
    sweeps = f"{first}-{last}" if averaged else f"{sweep.number}"
    return {
        "id": f"{uid}/{stream}/{spectrum.channel}/{text(edge_token(sweep, edge))}/{sweeps}",
        "acquired": Acquired(start=start, mid=mid, end=end),
        "run_uid": uid,
        "scan_id": sweep.run.scan_id,
        "stream": stream,
        "channel": spectrum.channel,
        "sweep": sweep.number,
        "direction": sweep.direction,
        "averaged": Averaged(n=n, first=first, last=last),
        "sample": plain(sweep.run.sample if sweep.sample is None else sweep.sample),
        "revision": sweep.revision,
        "context": {
            text(name): ContextValue(
                value=plain(item.get("value")),
                unit=None if item.get("unit") is None else text(item.get("unit")),
                time=number(item.get("time")),
            )
            for name, item in sweep.context.items()
        },
        # what is known is known of the sample; the reference is another one
        "truth": None
        if spectrum.channel == "reference" or sweep.truth is None
        else dict(sweep.truth),
        "element": text(edge.element),
        "edge": text(edge.edge),
        "guessed": list(spectrum.guessed),
        "quality": [flag.value for flag in quality],
        "settings_sha256": spectrum.analysis.sha256,
        "timing_ms": Timing(assembled=sweep.assembled_ms),
    }


def edge_token(sweep: Sweep, edge: Edge) -> str:
    """Edge as it stands in ids: ``K``, and ``Cu-K`` where a run names several elements."""
    elements = {named.element for named in sweep.run.edges}
    return f"{edge.element}-{edge.edge}" if len(elements) > 1 else edge.edge


def rejection(rejected: RejectedSpectrum) -> Rejected:
    """Message of a rejected spectrum."""
    fields = identity(rejected.id, rejected.quality, rejected.averaged)
    reason, detail = rejected.error.reason.value, text(rejected.error.detail)
    return Rejected(**fields, reason=reason, detail=detail)


def run_start(run: Run, delivery: Delivery = "live") -> RunStart:
    """Message of a run that has begun; of several edges it names the first."""
    edge = run.edges[0] if run.edges else Edge("", "")
    return RunStart(
        run_uid=text(run.uid),
        scan_id=run.scan_id,
        element=text(edge.element or "unknown"),
        edge=text(edge.edge or "unknown"),
        sample=plain(run.sample),
        delivery=delivery,
    )


def run_stop(run: Run, exit_status: str, counts: Mapping[str, int]) -> RunStop:
    """Message of a run that is over; `counts` are its outcomes by kind."""
    return RunStop(
        run_uid=text(run.uid),
        scan_id=run.scan_id,
        exit_status=text(exit_status),
        results=counts.get("result", 0),
        rejected=counts.get("rejected", 0),
        detail="no stop document came" if exit_status == "lost" else None,
    )


#: metadata deeper, longer or with more items is cut: it goes onto every message
DEPTH, ITEMS, LENGTH = 8, 200, 2000


def text(value: Any) -> str:
    """Text that UTF-8 can hold, of bounded length."""
    short = str(value)[:LENGTH]
    return short if short.isascii() else short.encode("utf-8", "replace").decode()


def plain(value: Any, depth: int = DEPTH) -> Any:
    """Metadata of any origin as JSON can hold it, of bounded size."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, str):
        return text(value)
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        pairs = islice(value.items(), ITEMS)
        return {text(key): plain(item, depth - 1) for key, item in pairs}
    if isinstance(value, np.ndarray):
        value = value.ravel()[:ITEMS].tolist() if value.ndim else [value.item()]
    if isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value[:ITEMS]]
    return text(type(value).__name__)


def number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        converted = float(value)
    except (TypeError, ValueError):
        return None
    return converted if math.isfinite(converted) else None

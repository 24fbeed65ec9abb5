"""A sweep's outcome as a message of the contract."""

from typing import Any

import numpy as np

from exafsd.contract.messages import (
    Acquired,
    Averaged,
    ContextValue,
    Rejected,
    Timing,
)
from exafsd.spectra import Edge, Spectrum, Sweep
from exafsd.spectra import Rejected as RejectedSpectrum


def identity(
    sweep: Sweep,
    channel: str,
    edge: Edge,
    guessed: tuple[str, ...],
    quality: tuple[str, ...],
    settings_sha256: str,
) -> dict[str, Any]:
    """Fields that result and rejection share (`Identity`)."""
    start, end = sweep.acquired
    mid = (start + end) / 2 if start is not None and end is not None else None
    return {
        "id": f"{sweep.run.uid}/{sweep.stream}/{channel}/{edge_token(sweep, edge)}/{sweep.number}",
        "acquired": Acquired(start=start, mid=mid, end=end),
        "run_uid": sweep.run.uid,
        "scan_id": sweep.run.scan_id,
        "stream": sweep.stream,
        "channel": channel,
        "sweep": sweep.number,
        "direction": sweep.direction,
        "averaged": Averaged(n=1, first=sweep.number, last=sweep.number),
        "sample": plain(sweep.run.sample),
        "context": {name: ContextValue(**plain(v)) for name, v in sweep.context.items()},
        "truth": dict(sweep.truth) if sweep.truth is not None else None,
        "element": edge.element,
        "edge": edge.edge,
        "guessed": list(guessed),
        "quality": list(quality),
        "settings_sha256": settings_sha256,
        "timing_ms": Timing(assembled=sweep.assembled_ms),
    }


def edge_token(sweep: Sweep, edge: Edge) -> str:
    """Edge as it stands in ids: ``K``, and ``Cu-K`` where a run names several elements."""
    elements = {named.element for named in sweep.run.edges}
    return f"{edge.element}-{edge.edge}" if len(elements) > 1 else edge.edge


def of_spectrum(
    spectrum: Spectrum, quality: tuple[str, ...], settings_sha256: str
) -> dict[str, Any]:
    """`identity` of a spectrum."""
    return identity(
        spectrum.sweep, spectrum.channel, spectrum.edge, spectrum.guessed, quality, settings_sha256
    )


def rejection(rejected: RejectedSpectrum, settings_sha256: str) -> Rejected:
    """Message of a rejected spectrum."""
    fields = identity(
        rejected.sweep,
        rejected.channel,
        rejected.edge,
        rejected.guessed,
        rejected.quality,
        settings_sha256,
    )
    return Rejected(**fields, reason=rejected.reason, detail=rejected.detail)


def plain(value: Any) -> Any:
    """Metadata of any origin as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)

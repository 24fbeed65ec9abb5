"""Join streams without a shared clock: the energy is interpolated onto the detectors' times."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]


#: points of a stream kept while nothing is known to join them with
HELD_POINTS = 1_000_000


class Joiner:
    """Points of several monitor streams, joined on their timestamps.

    The stream with ``i0`` (or the first with a signal) sets the points; the columns of the
    others are interpolated linearly onto its times. A point is given out as soon as every
    stream has passed it; points before the first or after the last reading of another stream
    are dropped, since nothing is extrapolated.
    """

    def __init__(self) -> None:
        self._streams: dict[str, dict[str, NDArray[Any]]] = {}
        self._base: str | None = None

    def add_stream(self, name: str, roles: Mapping[str, str]) -> None:
        """Announce a stream and the columns it will bring."""
        self._streams[name] = {"time": np.empty(0), **{role: np.empty(0) for role in roles}}
        signals = [role for role in roles if role != "energy"]
        if signals and (self._base is None or "i0" in signals):
            self._base = name

    @property
    def base(self) -> str | None:
        """Stream whose times the points have; it names the sweeps."""
        return self._base

    @property
    def complete(self) -> bool:
        """Whether both energy and a signal have been announced."""
        return self._base is not None and any("energy" in s for s in self._streams.values())

    def push(self, name: str, columns: Columns) -> Columns | None:
        """Add points of one stream, times ascending; return the joined ones, if any."""
        held = self._streams[name]
        if len({len(values) for values in columns.values()}) > 1:
            raise ValueError("columns of a stream differ in length")
        for role in held:
            held[role] = np.concatenate([held[role], np.asarray(columns[role], float)])
        if not self.complete:  # its other half may never come: a run's memory must not grow
            for role in held:
                held[role] = held[role][-HELD_POINTS:]
        if (
            self._base is None
            or not self.complete
            or any(len(s["time"]) == 0 for s in self._streams.values())
        ):
            return None
        others = [s for n, s in self._streams.items() if n != self._base]
        base = self._streams[self._base]
        latest = min(s["time"][-1] for s in others)
        count = int(np.searchsorted(base["time"], latest, side="right"))
        if count == 0:
            return None
        times = base["time"][:count]
        joined: dict[str, NDArray[Any]] = {role: array[:count] for role, array in base.items()}
        for other in others:
            for role, array in other.items():
                if role != "time":
                    joined[role] = np.interp(times, other["time"], array)
        inside = times >= max(s["time"][0] for s in others)
        for role in base:
            base[role] = base[role][count:]
        for other in others:  # the last reading at or before the next base point is still needed
            keep = max(int(np.searchsorted(other["time"], times[-1], side="right")) - 1, 0)
            for role in other:
                other[role] = other[role][keep:]
        return {role: array[inside] for role, array in joined.items()} if inside.any() else None

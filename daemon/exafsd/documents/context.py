"""Chosen metadata that is copied onto results: temperature, sample position, known truth."""

from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from exafsd.documents.binding import Binding, lookup
from exafsd.documents.block import Block
from exafsd.settings.analysis import Adapter

#: readings of slow signals kept for lookup by time
REMEMBERED = 1024


class Context:
    """Chosen metadata of a run: from a row, from slow streams by time, from the start document."""

    def __init__(self, adapter: Adapter, start: Mapping[str, Any]) -> None:
        self._adapter = adapter
        self._start = start
        self._slow: dict[str, list[tuple[float, Any, str | None]]] = {}

    def remember(self, binding: Binding, block: Block) -> None:
        """Keep the context readings of a stream whose rows are not sweeps or points themselves."""
        if binding.has_energy and binding.has_signals:
            return
        for key in binding.context:
            if key in block.columns:
                readings = self._slow.setdefault(key, [])
                unit, values = binding.units.get(key), block.columns[key][-REMEMBERED:]
                times = np.nan_to_num(block.time[-REMEMBERED:]).tolist()
                readings += [(t, value, unit) for t, value in zip(times, values, strict=True)]
                if (
                    len(readings) > len(values)
                    and readings[-len(values) - 1][0] > readings[-len(values)][0]
                ):
                    readings.sort(key=itemgetter(0))  # two streams may have one signal
                if len(readings) > 2 * REMEMBERED:
                    del readings[:-REMEMBERED]

    def of(self, row: Mapping[str, Any], binding: Binding, when: float | None) -> dict[str, Any]:
        """Context of a sweep that ended at `when`: name to value, unit and time."""
        context: dict[str, Any] = {}
        for key in self._adapter.context:
            if key in row:
                context[key] = {"value": _plain(row[key]), "unit": binding.units.get(key)}
                context[key]["time"] = when
            elif key in self._slow:
                time, value, unit = self._latest(key, when)
                context[key] = {"value": _plain(value), "unit": unit, "time": time}
            elif (value := lookup(self._start, key)) is not None:
                context[key] = {"value": _plain(value), "unit": None, "time": None}
        return context

    def sample_of(self, row: Mapping[str, Any], when: float | None) -> Any:
        """Name of the sample, where a row or a slow stream has it; else None."""
        for key in self._adapter.sample:
            if key in row:
                return _plain(row[key])
            if key in self._slow:
                return _plain(self._latest(key, when)[1])
        return None

    def _latest(self, key: str, when: float | None) -> tuple[float, Any, str | None]:
        """Latest reading of a slow signal before a time; the first where there is none."""
        readings = self._slow[key]
        at = len(readings) if when is None else bisect_right(readings, when, key=itemgetter(0))
        return readings[max(at - 1, 0)]

    def truth_of(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        """Known parameters, where a simulation tells them."""
        truth = {}
        for name, key in self._adapter.truth.items():
            value = row.get(key)
            for path in (key, f"truth.{name}"):
                value = lookup(self._start, path) if value is None else value
            if isinstance(value, (int, float, np.number)):
                truth[name] = float(value)
        return truth or None


def _plain(value: Any) -> Any:
    """Value as a plain one; some devices write scalars as arrays of one."""
    if isinstance(value, (np.generic, np.ndarray)) and value.size == 1:
        return value.item()
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value

"""One result run as Bluesky documents: a start, one descriptor, one event per outcome, a stop.

Columns and array sizes must be known before the first event, and nobody tells them beforehand. So
the first outcomes are held until there are enough of them to see.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from exafsd.archive.catalog import RESULT_PLAN
from exafsd.contract.card import Card
from exafsd.contract.columns import Scalar, mixture_columns, model_columns, scalars, unique, units
from exafsd.contract.frames import ARRAY_UNITS, Message
from exafsd.contract.messages import RunStart, RunStop
from exafsd.settings.analysis import Analysis

#: the one stream of a result run
STREAM = "primary"
#: Outcomes written at a time, and looked at before the columns are settled. A tiled server is
#: three times slower in batches of 100: it takes its time for each request, not for its size.
BATCH = 500
#: Rejections, which have no arrays, are held longer: until there is a result to learn from.
HELD_REJECTIONS = 20 * BATCH
#: arrays that share a length
GROUPS = (("k", "chi_k2", "chi_k2_pred"), ("r", "chir_mag", "chir_mag_pred"),
          ("energy", "norm", "flat"))  # fmt: skip
#: arrays that only some results have, and the one beside which they may be expected
PREDICTED = {"chi_k2_pred": "chi_k2", "chir_mag_pred": "chir_mag"}

Emit = Callable[[str, dict[str, Any]], None]


class ResultRun:
    """Documents of one result run, given out as soon as its columns are settled.

    Parameters
    ----------
    start
        Of the raw run.
    analysis
        What the raw run is analysed with, overrides of its own included.
    cards
        Models that may read it, by name.
    version
        Of exafsd.
    emit
        Takes the documents.

    Attributes
    ----------
    taken, written
        Outcomes taken, and given out.
    cut
        Outcomes whose energies were more than there is room for: their arrays ``energy``,
        ``norm`` and ``flat`` are not in the run.
    """

    def __init__(
        self,
        start: RunStart,
        analysis: Analysis,
        cards: Mapping[str, Card],
        version: str,
        emit: Emit,
    ) -> None:
        self.taken = self.written = self.cut = 0
        self.uid = str(uuid.uuid4())
        self._start, self._analysis = start, analysis
        self._cards, self._version, self._emit = cards, version, emit
        self._held: list[Message] = []
        self._layout: _Layout | None = None

    def write(self, message: Message) -> None:
        """Take a result or a rejection."""
        self.taken += 1
        if self._layout is not None:
            self._event(self._layout, message)
            return
        self._held.append(message)
        some_result = any(m.header["kind"] == "result" for m in self._held)
        if len(self._held) >= (BATCH if some_result else HELD_REJECTIONS):
            self._open()

    def end(self, stop: RunStop) -> None:
        """Give out what is left, and the stop document."""
        layout = self._layout or self._open()
        missing = stop.results + stop.rejected - self.written
        status, reason = "success", ""
        if missing:
            status, reason = "fail", f"{missing} outcomes are missing"
        elif stop.exit_status == "lost":
            status, reason = "abort", "the raw run had not ended"
        self._emit(
            "stop",
            {
                "uid": str(uuid.uuid4()),
                "run_start": self.uid,
                "time": time.time(),
                "exit_status": status,
                "reason": reason,
                "num_events": {STREAM: self.written} if layout.keys else {},
                "original_exit_status": stop.exit_status,
                "results": stop.results,
                "rejected": stop.rejected,
                "spectra_too_long": self.cut,
            },
        )

    def _open(self) -> "_Layout":
        """Settle the columns; give out the start, the descriptor and what was held."""
        held, self._held = self._held, []
        self._layout = layout = _Layout(held, self._cards)
        self._emit("start", self._start_document(held))
        if layout.keys:
            self._emit("descriptor", layout.descriptor(self.uid))
        for message in held:
            self._event(layout, message)
        return layout

    def _event(self, layout: "_Layout", message: Message) -> None:
        header = message.header
        acquired = header["acquired"]
        times = (acquired["mid"], acquired["end"], acquired["start"], header["time"])
        at = next(when for when in times if when is not None)
        self.written += 1
        self.cut += layout.too_long(message)
        self._emit(
            "event",
            {
                "uid": f"{layout.uid}/{self.written}",
                "descriptor": layout.uid,
                "seq_num": self.written,
                "time": at,
                "data": layout.row(message),
                "timestamps": {},  # all alike, and tiled would make a column of each
            },
        )

    def _start_document(self, held: Sequence[Message]) -> dict[str, Any]:
        raw = self._start
        model = next((m.header["model"] for m in held if m.header.get("model")), None) or {}
        document: dict[str, Any] = {
            "uid": self.uid,
            "time": time.time(),
            "plan_name": RESULT_PLAN,
            "original_run_uid": raw.run_uid,
            "parent_uid": raw.run_uid,
            "parent_scan_id": raw.scan_id,
            "element": raw.element,
            "edge": raw.edge,
            "analysis": {
                "code": "exafsd",
                "version": self._version,
                "model": model.get("name"),
                "model_sha256": model.get("sha256"),
                "models": model_hashes(self._cards),
                "settings": self._analysis.model_dump(mode="json"),
                "settings_sha256": self._analysis.sha256,
            },
            "hints": {"dimensions": [[["sweep"], STREAM]]},
        }
        if isinstance(raw.sample, (str, dict)):  # what Bluesky allows
            document["sample"] = raw.sample
        return document


def model_hashes(cards: Mapping[str, Card]) -> dict[str, str]:
    """Models that an analysis could choose from, and the hashes of their graphs."""
    return {name: card.model_sha256 for name, card in sorted(cards.items())}


class _Layout:
    """Columns of a run, from its first outcomes and the cards of the models that read them."""

    def __init__(self, held: Sequence[Message], cards: Mapping[str, Card]) -> None:
        self.uid = str(uuid.uuid4())
        self._widths = _widths(held)
        rows = [scalars(message.header) for message in held]
        names = [name for row in rows for name in row]
        used: set[str] = {m.header["model"]["name"] for m in held if m.header.get("model")}
        names += [n for name in sorted(used & set(cards)) for n in model_columns(cards[name])]
        may: set[str] = {c["model"] for m in held if m.header.get("mixture")
                         for c in m.header["candidates"]}  # fmt: skip
        names += [n for name in sorted(may & set(cards)) for n in mixture_columns(cards[name])]
        types = {name: type(value) for row in reversed(rows) for name, value in row.items()}
        self._columns = {name: types.get(name, float) for name in unique(names)}
        self._units = {k: v for m in reversed(held) for k, v in units(m.header).items()}
        self.keys = self._data_keys() if held else {}

    def descriptor(self, run: str) -> dict[str, Any]:
        """Descriptor of the one stream."""
        fields = [n for n, kind in self._columns.items() if kind is float and f"{n}_std" in
                  self._columns and not n.endswith(("_polish", "_mixture"))]  # fmt: skip
        return {
            "uid": self.uid,
            "run_start": run,
            "name": STREAM,
            "time": time.time(),
            "data_keys": self.keys,
            "object_keys": {RESULT_PLAN: list(self.keys)},
            "hints": {RESULT_PLAN: {"fields": fields}},
            "configuration": {},
        }

    def row(self, message: Message) -> dict[str, Any]:
        """Values of one outcome, of every column; NaN, empty text or false where it has none."""
        numbers = scalars(message.header)
        values: dict[str, Any] = {
            name: _as(kind, numbers.get(name)) for name, kind in self._columns.items()
        }
        values["message"] = json.dumps(message.header)
        for name, width in self._widths.items():
            array = np.full(width, np.nan, dtype=_dtype(name))
            stored = message.arrays.get(name)
            if stored is not None and len(stored) <= width:
                array[: len(stored)] = stored
            values[name] = array
        return values

    def too_long(self, message: Message) -> bool:
        """Whether an array of an outcome does not fit."""
        return any(len(a) > self._widths.get(n, 0) for n, a in message.arrays.items())

    def _data_keys(self) -> dict[str, Any]:
        dtypes = {float: "number", int: "integer", bool: "boolean", str: "string"}
        columns = {**self._columns, "message": str}
        keys: dict[str, Any] = {
            name: {
                "dtype": dtypes[kind],
                "shape": [],
                "source": RESULT_PLAN,
                "units": self._units.get(name, ""),
            }
            for name, kind in columns.items()
        }
        for name, width in self._widths.items():
            keys[name] = {
                "dtype": "array",
                "shape": [width],
                "dtype_numpy": _dtype(name),
                "source": RESULT_PLAN,
                "units": ARRAY_UNITS[name],
            }
        return keys


def _widths(held: Sequence[Message]) -> dict[str, int]:
    """Room for each array: the longest so far, and as much more as the lengths differ.

    On a fixed grid all are equal, and nothing is left empty. Elsewhere the number of points
    depends on where points were dropped or merged.
    """
    widths: dict[str, int] = {}
    for group in GROUPS:
        arrays = [(n, a) for m in held for n, a in m.arrays.items() if n in group]
        sizes = [len(array) for _, array in arrays]
        present = {name for name, _ in arrays}
        present |= {name for name, beside in PREDICTED.items() if beside in present}
        for name in group:
            if name in present:
                widths[name] = 2 * max(sizes) - min(sizes)
    return widths


def _dtype(name: str) -> str:
    return "<f8" if name == "energy" else "<f4"  # as on the wire


def _as(kind: type, value: Scalar | None) -> Scalar:
    """A value in the type of its column, which the first outcome has settled."""
    if value is not None and isinstance(value, kind):
        return value
    if kind is float:
        numeric = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if numeric else float("nan")  # type: ignore[arg-type]
    return kind() if value is None or kind is not str else str(value)

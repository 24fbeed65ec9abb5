"""Rows of a stream, whatever kind of document brought them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exafsd.documents.binding import Binding
from exafsd.spectra import Floats


@dataclass(frozen=True)
class Block:
    """Rows of a stream: data key to sequence of values; sequence numbers and times, (n,).

    A stream may be described anew in mid-run, so rows have the binding that they came under.
    Times are in s and NaN where they are not known.
    """

    binding: Binding
    columns: Mapping[str, Any]
    seq: NDArray[np.int64]
    time: Floats
    stamps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    received: float | None = None
    #: where rows before a row are missing, (n,); None: nowhere
    gap: NDArray[np.bool_] | None = None
    #: set where the rows could not be read
    error: str | None = None
    #: whether that is because a file is outside of `source.asset_roots`
    outside: bool = False

    @classmethod
    def of_event(
        cls, event: Mapping[str, Any], binding: Binding, without: Sequence[str] = ()
    ) -> "Block":
        """Block of one event."""
        data = event["data"]
        columns = {key: [data[key]] for key in binding.keys if key in data and key not in without}
        return cls(binding, columns, seq_nums([event["seq_num"]]), np.array([_time(event)]))

    @classmethod
    def of_events(
        cls, events: Sequence[Mapping[str, Any]], binding: Binding, received: float | None
    ) -> "Block":
        """Block of several events, all with the same keys."""
        keys = set(binding.keys).intersection(*(e["data"] for e in events))
        columns = {key: [e["data"][key] for e in events] for key in keys}
        stamps = {
            key: [(e.get("timestamps") or {}).get(key, e["time"]) for e in events] for key in keys
        }
        return cls(
            binding,
            columns,
            seq_nums([e["seq_num"] for e in events]),
            np.array([_time(e) for e in events]),
            stamps,
            received,
        )

    @classmethod
    def of_page(cls, page: Mapping[str, Any], binding: Binding, received: float | None) -> "Block":
        """Block of an event page.

        Raises
        ------
        ValueError
            If a column is not as long as the page: nobody knows which values belong together.
        """
        columns = {key: page["data"][key] for key in binding.keys if key in page["data"]}
        by_key = page.get("timestamps") or {}
        stamps = {key: by_key[key] for key in columns if key in by_key}
        lengths = {key: len(values) for key, values in columns.items()}
        lengths |= {"seq_num": len(page["seq_num"]), "time": len(page["time"])}
        lengths |= {f"timestamps.{key}": len(values) for key, values in stamps.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a page differ in length: {lengths}")
        times = np.asarray(page["time"], dtype=float)
        return cls(binding, columns, seq_nums(page["seq_num"]), times, stamps, received)

    def only(self, rows: NDArray[Any]) -> "Block":
        """Block of some of the rows, by their places or a mask."""
        chosen = np.arange(len(self.seq))[rows].tolist()
        return replace(
            self,
            columns={key: [values[i] for i in chosen] for key, values in self.columns.items()},
            seq=self.seq[rows],
            time=self.time[rows],
            stamps={key: [values[i] for i in chosen] for key, values in self.stamps.items()},
        )


def seq_nums(values: ArrayLike) -> NDArray[np.int64]:
    """Sequence numbers as integers, (n,).

    Raises
    ------
    ValueError, TypeError, OverflowError
        If one of them is no number.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        array = np.array([int(value) for value in array.tolist()], dtype=np.int64)
    return array.astype(np.int64, copy=False)


def _time(event: Mapping[str, Any]) -> float:
    """Time of an event; the archive gives back stream_datum rows as events without timestamps."""
    return np.nan if event.get("timestamps") == {} else float(event["time"])

"""Rows of a stream, whatever kind of document brought them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from exafsd.documents.binding import Binding


@dataclass(frozen=True)
class Block:
    """Rows of a stream: data key to sequence of values, sequence numbers, times in s."""

    columns: Mapping[str, Any]
    seq: Sequence[int]
    time: Sequence[float | None]
    stamps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    received: float | None = None
    #: set where the rows could not be read
    error: str | None = None

    @classmethod
    def of_event(
        cls, event: Mapping[str, Any], binding: Binding, without: Sequence[str] = ()
    ) -> "Block":
        """Block of one event."""
        data = event["data"]
        columns = {key: [data[key]] for key in binding.keys if key in data and key not in without}
        return cls(columns, [int(event["seq_num"])], [_time(event)])

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
            columns,
            [int(e["seq_num"]) for e in events],
            [_time(e) for e in events],
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
        told = page.get("timestamps") or {}
        stamps = {key: told[key] for key in columns if key in told}
        lengths = {key: len(values) for key, values in columns.items()}
        lengths |= {"seq_num": len(page["seq_num"]), "time": len(page["time"])}
        lengths |= {f"timestamps.{key}": len(values) for key, values in stamps.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a page differ in length: {lengths}")
        seq = [int(number) for number in page["seq_num"]]
        return cls(columns, seq, [float(t) for t in page["time"]], stamps, received)

    def tail(self, count: int) -> "Block":
        """Block of the last rows."""
        return replace(
            self,
            columns={key: values[-count:] for key, values in self.columns.items()},
            seq=self.seq[-count:],
            time=self.time[-count:],
            stamps={key: values[-count:] for key, values in self.stamps.items()},
        )


def _time(event: Mapping[str, Any]) -> float | None:
    """Time of an event; the archive gives back stream_datum rows as events without timestamps."""
    return None if event.get("timestamps") == {} else float(event["time"])

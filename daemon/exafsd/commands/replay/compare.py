"""A new analysis beside the stored one: per parameter old, new, difference."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from exafsd.archive.results import headers, result_runs
from exafsd.contract.columns import Fitted, number, parameters

Header = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One parameter of one spectrum in both analyses; NaN where an analysis does not have it."""

    id: str
    channel: str
    name: str
    unit: str
    old: float
    old_std: float
    new: float
    new_std: float

    def as_json(self) -> str:
        """One line."""
        numbers = {n: getattr(self, n) for n in ("old", "old_std", "new", "new_std")}
        numbers["difference"] = self.new - self.old
        plain = {n: None if math.isnan(v) else v for n, v in numbers.items()}
        about = {"id": self.id, "channel": self.channel, "parameter": self.name, "unit": self.unit}
        return json.dumps({"kind": "comparison", **about, **plain})


@dataclass
class Comparison:
    """Collects differences of runs to the latest result run of each in a catalog."""

    catalog: Any
    #: outcomes of one side only
    only_old: int = 0
    only_new: int = 0
    #: results that are rejections on the other side
    changed_kind: int = 0
    #: what was made how: "exafsd 0.1.0, cu-k-fcc 1234abcd, settings 1234abcd" of old and new
    old_by: set[str] = field(default_factory=set[str])
    new_by: set[str] = field(default_factory=set[str])
    _stored: dict[str, Header] = field(default_factory=dict[str, Header])
    _pairs: dict[tuple[str, str, str, str], list[Difference]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def begin(self, raw_uid: str) -> bool:
        """Look up what is stored of a run; whether there is something."""
        stored_runs = result_runs(self.catalog, raw_uid)
        if not stored_runs:
            self._stored = {}
            return False
        self._stored = {header["id"]: header for header in headers(stored_runs[-1])}
        analysis = stored_runs[-1].metadata["start"]["analysis"]
        model = {"name": analysis["model"], "sha256": analysis["model_sha256"]}
        self.old_by.add(_made_by(model, analysis["settings_sha256"], analysis["version"]))
        return True

    def add(self, header: Header, version: str) -> list[Difference]:
        """Differences of a new outcome to the stored one of the same id."""
        self.new_by.add(_made_by(header.get("model"), header["settings_sha256"], version))
        old = self._stored.pop(header["id"], None)
        if old is None:
            self.only_new += 1
            return []
        self.changed_kind += old["kind"] != header["kind"]
        differences = list(_differences(old, header))
        for one in differences:
            key = (header["run_uid"][:6], header["channel"], one.name, one.unit)
            self._pairs[key].append(one)
        return differences

    def end(self) -> None:
        """The run is over: what is left of the stored ones has no new one."""
        self.only_old += len(self._stored)
        self._stored = {}

    def render(self) -> Table:
        """Medians over the sweeps of each run, and the largest difference."""
        title = f"old: {_listed(self.old_by)}\nnew: {_listed(self.new_by)}"
        caption = (
            f"medians over sweeps; {self.only_old} outcomes only in the old,"
            f" {self.only_new} only in the new analysis,"
            f" {self.changed_kind} a result in one and rejected in the other"
        )
        names = ("run", "channel", "parameter", "sweeps", "old", "new", "difference", "largest")
        table = Table(*names, title=title, caption=caption, title_justify="left")
        for (run, channel, name, unit), pairs in self._pairs.items():
            both = [p for p in pairs if not math.isnan(p.old + p.new)]
            steps = [p.new - p.old for p in both]
            table.add_row(
                run,
                channel,
                f"{name} {unit}".strip(),
                str(len(both)),
                _median([p.old for p in pairs]),
                _median([p.new for p in pairs]),
                _median(steps),
                f"{max(steps, key=abs):.4g}" if steps else "",
            )
        return table


def _differences(old: Header, new: Header) -> Iterator[Difference]:
    before, after = ({one.name: one for one in _numbers(header)} for header in (old, new))
    nothing = Fitted("", math.nan, math.nan, "")
    for name in dict.fromkeys([*before, *after]):
        a, b = before.get(name, nothing), after.get(name, nothing)
        unit = a.unit or b.unit
        yield Difference(new["id"], new["channel"], name, unit, a.value, a.std, b.value, b.std)


def _numbers(header: Header) -> Iterator[Fitted]:
    """What is compared: E0, edge step, and all fitted parameters."""
    if header["kind"] == "result":
        step = header["edge_step"]
        yield Fitted("e0", number(header["e0"]), math.nan, "eV")
        yield Fitted("edge_step", number(step["value"]), number(step["std"]), "")
        yield from parameters(header)


def _made_by(model: Header | None, settings_sha256: str, version: str) -> str:
    name = f"{model['name']} {model['sha256'][:8]}" if model and model["name"] else "no model"
    return f"exafsd {version}, {name}, settings {settings_sha256[:8]}"


def _listed(made_by: set[str]) -> str:
    return "; ".join(sorted(made_by)) or "nothing"


def _median(values: list[float]) -> str:
    numbers = [value for value in values if not math.isnan(value)]
    return f"{median(numbers):.6g}" if numbers else ""

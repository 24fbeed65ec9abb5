"""Spectra of a run for other programs: an Athena project through Larch, or XDI files.

Both hold what the results hold: normalised absorption, on the energy scale of the analysis.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exafsd.contract.columns import column
from exafsd.contract.frames import Message
from exafsd.exports.nexus import by_series


def write_athena(path: Path, outcomes: Sequence[Message]) -> int:
    """Write an Athena project; return how many spectra it has."""
    from larch import Group  # two seconds to import
    from larch.io import create_athena

    project = create_athena(str(path))
    for label, outcome in _spectra(outcomes):
        group = Group(
            filename=label,
            energy=outcome.arrays["energy"],
            mu=outcome.arrays["norm"],
            e0=outcome.header["e0"],
            edge_step=1.0,  # it is normalised
            atsym=outcome.header["element"],
            edge=outcome.header["edge"],
        )
        group.__name__ = label
        project.add_group(group)
    for group in project.groups.values():
        group.args["is_nor"] = "1"  # so that Athena does not normalise again
    project.save()
    return len(project.groups)


def write_xdi(folder: Path, start: Mapping[str, Any], outcomes: Sequence[Message]) -> int:
    """Write an XDI file for each spectrum; return how many. Larch reads XDI, but writes none."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for label, outcome in _spectra(outcomes):
        number += 1
        (folder / f"{label}.xdi").write_text(_xdi(start, outcome))
    return number


def _spectra(outcomes: Sequence[Message]) -> Iterator[tuple[str, Message]]:
    """Results that have a spectrum, each with a name of its own: ``transmission_Cu_K_17``."""
    for series, members in by_series(outcomes).items():
        for outcome in members:
            if {"energy", "norm"} <= outcome.arrays.keys():
                yield column(series, outcome.header["id"].rsplit("/", 1)[-1]), outcome


def _xdi(start: Mapping[str, Any], outcome: Message) -> str:
    header, arrays = outcome.header, outcome.arrays
    names = [name for name in ("norm", "flat") if name in arrays]
    fields = {
        "Column.1": "energy eV",
        **{f"Column.{n}": name for n, name in enumerate(names, start=2)},
        "Element.symbol": header["element"],
        "Element.edge": header["edge"],
        "Sample.name": _name(start),
        **_times(header["acquired"]),
        "Exafsd.run_uid": header["run_uid"],
        "Exafsd.id": header["id"],
        "Exafsd.channel": header["channel"],
        "Exafsd.e0": f"{header['e0']!r} eV",
        "Exafsd.edge_step": repr(header["edge_step"]["value"]),
        "Exafsd.settings_sha256": header["settings_sha256"],
    }
    lines = [f"# XDI/1.0 exafsd/{start['analysis']['version']}"]
    lines += [f"# {name}: {' '.join(str(value).split())}" for name, value in fields.items()]
    lines += [
        "# ///",
        "# normalised absorption, as analysed",
        "#---",
        f"# energy {' '.join(names)}",
    ]
    columns = [arrays[name] for name in ("energy", *names)]
    lines += [" ".join(map(str, row)) for row in zip(*columns, strict=True)]  # shortest exact text
    return "\n".join(lines) + "\n"


def _name(start: Mapping[str, Any]) -> Any:
    sample = start.get("sample")
    return sample.get("name") if isinstance(sample, Mapping) else sample


def _times(acquired: Mapping[str, float | None]) -> dict[str, str]:
    return {
        f"Scan.{name}_time": datetime.fromtimestamp(at, UTC).isoformat()
        for name in ("start", "end")
        if (at := acquired[name]) is not None
    }

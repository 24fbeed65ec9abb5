"""``exafsd references``: measured standards that samples are compared with."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from exafsd.composition.references import Reference, load, shipped_folder
from exafsd.composition.window import POST, PRE, Ranges
from exafsd.reduction.edge_middle import line
from exafsd.spectra import Floats


def gathered(folders: Sequence[Path], shipped: bool) -> tuple[list[Reference], list[str]]:
    """References of folders, and the shipped ones; what was refused."""
    return load([*([shipped_folder()] if shipped else []), *folders])


#: energy, eV, and normalised mu, by element and edge, and by name
Curves = dict[tuple[str, str], dict[str, dict[str, Floats]]]


def curves(folders: Sequence[Path]) -> tuple[Curves, list[str]]:
    """Shipped references and those of folders to be drawn; and what was refused."""
    drawn: Curves = {}
    references, refused = gathered(folders, shipped=True)
    for one in references:
        ranges = one.ranges
        x = one.energy - ranges.edge
        before = x < PRE[1]
        after = (x > POST[0]) & (one.energy < ranges.last)
        (low, rising), (high, _) = (line(x[part], one.mu[part]) for part in (before, after))
        norm = (one.mu - low - rising * x) / (high - low)
        of_edge = drawn.setdefault((one.edge.element, one.edge.edge), {})
        of_edge[one.name] = {"energy": one.energy, "norm": norm}
    return drawn, refused


def as_table(references: Sequence[Reference]) -> Table:
    """One line for each reference."""
    table = Table("reference", "edge", "range, eV", "points", "noise of 1 eV, %", "file")
    order = sorted(references, key=lambda one: (one.edge.element, one.edge.edge, one.name))
    for one in order:
        shipped = one.file.parent == shipped_folder()
        table.add_row(
            escape(one.name),
            f"{one.edge.element} {one.edge.edge}",
            f"{one.energy[0]:.0f} to {one.energy[-1]:.0f}",
            str(len(one.energy)),
            f"{100 * one.noise:.3f}",
            "comes with exafsd" if shipped else escape(str(one.file)),
        )
    return table


def described(reference: Reference) -> list[str]:
    """Lines about one reference: where it comes from, and what it is normalised by."""
    ranges: Ranges = reference.ranges
    lines = [
        f"{reference.name}  {reference.edge.element} {reference.edge.edge}",
        f"file      {reference.file}",
        f"energy    {reference.energy[0]:.1f} to {reference.energy[-1]:.1f} eV,"
        f" {len(reference.energy)} points",
        f"ranges    normalised from {ranges.first:.0f} and to {ranges.last:.0f} eV",
        f"noise     {reference.noise:.2g} of the edge step in 1 eV",
    ]
    for text in reference.file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = text.lstrip("# ").partition(": ")
        if name in ("Exafsd.source", "Sample.temperature"):
            lines.append(f"{name.rpartition('.')[2]:9} {value}")
    return lines

"""Measured spectra of standards: folders of XDI files, one for each compound."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from exafsd._version import __version__
from exafsd.composition import temperatures
from exafsd.composition.window import Ranges, near_edge
from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.reading import read_file
from exafsd.reduction import preparation
from exafsd.reduction.edge_middle import edge_middle
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.memory import RunMemory
from exafsd.settings.analysis import Analysis, Reduction
from exafsd.spectra import Edge, Floats, Spectrum, SpectrumError

#: names that a file may have
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
BAD_NAME = "cannot be a reference's name; use letters, digits and ._+-"
#: eV that a sweep of a file may be shorter than the longest to be averaged with it
SHORTER = 5.0
#: lines of a file in which its header is looked for
HEADER = 200
#: of references: each channel that a file has, the sample's before the foil's
CHANNELS = ("transmission", "fluorescence")


class ReferenceFileError(ValueError):
    """A file that is no reference; the text says why and what to do."""


@dataclass(frozen=True)
class Reference:
    """A measured spectrum of one compound, `energy` (n,) in eV and `mu` (n,) in any unit.

    `temperature` is that of the sample, K; None where it is not known.
    """

    name: str
    edge: Edge
    energy: Floats
    mu: Floats
    file: Path
    temperature: float | None = None

    @property
    def ranges(self) -> Ranges:
        """Where it can be normalised."""
        return Ranges.of(self.energy, edge_energy(self.edge.element, self.edge.edge))

    @cached_property
    def middle(self) -> float | None:
        """Where mu has risen by half the edge step, eV."""
        return edge_middle(self.energy, self.mu, edge_energy(self.edge.element, self.edge.edge))

    @property
    def noise(self) -> float:
        """Standard deviation of a bin of 1 eV, of the edge step."""
        return near_edge(self.energy, self.mu, self.ranges).noise


def shipped_folder() -> Path:
    """Folder of the references that come with exafsd."""
    return Path(__file__).parent / "shipped"


def measured(file: Path, edge: Edge | None = None) -> Spectrum:
    """The spectrum of a file of any format that exafsd reads; the mean of all whole ones in it.

    Raises
    ------
    ReferenceFileError
        If there is none that shows the near edge, or if it shows another edge.
    """
    analysis = Analysis(reduction=Reduction(channels=CHANNELS))
    try:
        sweeps = read_file(file, analysis, edge).sweeps
    except SpectrumError as error:
        raise ReferenceFileError(str(error)) from None
    memory, why = RunMemory(), f"{file} has no spectrum"
    spectra: list[Spectrum] = []
    for sweep in sweeps:
        for one in preparation.spectra(sweep, memory):
            if isinstance(one, Spectrum):
                spectra.append(one)
            else:
                why = f"{file}: {one.error.detail}"
    alike = [one for one in spectra if one.id.channel == spectra[0].id.channel]
    if not alike:
        raise ReferenceFileError(why)
    energy, mu = mean([(one.energy, one.mu) for one in alike])
    check(str(file), alike[0].id.edge, energy, mu)
    return Spectrum(alike[0].id, energy, mu)


def mean(spectra: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Energies (n,), eV, of the longest of spectra, and the mean of mu of all that are as long."""
    first = max(spectra, key=lambda one: one[0][-1] - one[0][0])[0]
    low, high = first[0] + SHORTER, first[-1] - SHORTER
    alike = [(e, mu) for e, mu in spectra if e[0] <= low and e[-1] >= high]
    return first, np.mean([np.interp(first, e, mu) for e, mu in alike], axis=0)


def check(source: str, edge: Edge, energy: Floats, mu: Floats) -> None:
    """Refuse what does not show the near edge.

    Raises
    ------
    ReferenceFileError
        It names the source, and says why.
    """
    try:
        near_edge(energy, mu, Ranges.of(energy, edge_energy(edge.element, edge.edge)))
    except SpectrumError as error:
        raise ReferenceFileError(f"{source} cannot be a reference: {error}") from None


def load(folders: Iterable[Path]) -> tuple[list[Reference], list[str]]:
    """References of folders by name, later folders before earlier ones, and what was refused."""
    references: dict[tuple[Edge, str], Reference] = {}
    refused: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            refused.append(f"{folder} is no folder of references; exafsd references add makes one")
            continue
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".xdi")
        except OSError as error:
            refused.append(f"{folder} cannot be read: {error.strerror or error}")
            continue
        for file in files:
            try:
                if not NAME.fullmatch(file.stem):
                    raise ReferenceFileError(f"{folder}: {file.stem!r} {BAD_NAME}")
                spectrum = measured(file)
            except ReferenceFileError as error:
                refused.append(str(error))
                continue
            edge = spectrum.id.edge
            references[edge, file.stem] = Reference(
                file.stem, edge, spectrum.energy, spectrum.mu, file, temperature(file)
            )
    return list(references.values()), refused


def temperature(file: Path) -> float | None:
    """Temperature of the sample, K, as the header of a file has it."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        return temperatures.of_header(islice(lines, HEADER))


def add(folder: Path, name: str, file: Path, edge: Edge | None = None) -> Reference:
    """Keep a measured file as a reference.

    Raises
    ------
    ReferenceFileError
        If the name cannot be a file's, is there already, or the file is none.
    """
    free_name(folder, name)
    spectrum = measured(file, edge)
    source = file.name.encode("utf-8", "replace").decode()
    about = {"Exafsd.source": source, "Exafsd.channel": spectrum.id.channel}
    reference = Reference(
        name, spectrum.id.edge, spectrum.energy, spectrum.mu, folder, temperature(file)
    )
    return keep(folder, reference, about)


def free_name(folder: Path, name: str) -> Path:
    """File that a new reference of a folder gets.

    Raises
    ------
    ReferenceFileError
        If the name cannot be a file's, or is there already.
    """
    if not NAME.fullmatch(name):
        raise ReferenceFileError(f"{name!r} {BAD_NAME}")
    target = folder / f"{name}.xdi"
    if target.exists():
        raise ReferenceFileError(f"{target} exists already; exafsd references remove {name} first")
    return target


def keep(folder: Path, reference: Reference, about: Mapping[str, str]) -> Reference:
    """Write a reference into a folder, with fields of its header that say where it comes from.

    Raises
    ------
    ReferenceFileError
        If its name cannot be a file's, or is there already.
    """
    target = free_name(folder, reference.name)
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(_xdi(reference, about), encoding="utf-8")
    return replace(reference, file=target)


def remove(folder: Path, name: str) -> Path:
    """Remove a reference from a folder.

    Raises
    ------
    ReferenceFileError
        If it is not there.
    """
    target = folder / f"{name}.xdi"
    if not NAME.fullmatch(name) or not target.is_file():
        raise ReferenceFileError(f"{folder} has no reference {name}")
    target.unlink()
    return target


def chosen(references: Sequence[Reference], edge: Edge, names: Sequence[str]) -> list[Reference]:
    """References of an edge; `names`: only these, in this order.

    Raises
    ------
    SpectrumError
        ``bad_settings`` if one that is named is not there for any edge.
    """
    if not names:
        return [one for one in references if one.edge == edge]
    names = list(dict.fromkeys(names))
    every = {one.name for one in references}
    missing = [name for name in names if name not in every]
    if missing:
        have = ", ".join(sorted(every)) or "none"
        raise SpectrumError(
            Reason.BAD_SETTINGS, f"there is no reference {', '.join(missing)}; there are: {have}"
        )
    return [one for name in names for one in references if one.name == name and one.edge == edge]


def _xdi(reference: Reference, about: Mapping[str, str]) -> str:
    fields = {
        "Column.1": "energy eV",
        "Column.2": "mutrans",
        "Element.symbol": reference.edge.element,
        "Element.edge": reference.edge.edge,
        "Sample.name": reference.name,
    }
    if reference.temperature is not None:
        fields["Sample.temperature"] = f"{reference.temperature:.6g} K"
    fields |= about
    lines = [f"# XDI/1.0 exafsd/{__version__}"]
    lines += [f"# {field}: {' '.join(str(value).split())}" for field, value in fields.items()]
    lines += ["# ///", "# a reference of exafsd: mu(E) as measured", "#---", "# energy mutrans"]
    rows = zip(reference.energy.tolist(), reference.mu.tolist(), strict=True)
    lines += [f"{e!r} {mu!r}" for e, mu in rows]
    return "\n".join(lines) + "\n"

"""Sweeps of a run as they were reduced, and means of them as references."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exafsd.composition import references, temperatures
from exafsd.composition.references import Reference, ReferenceFileError
from exafsd.contract.messages import Channel
from exafsd.contract.vocabulary import Flag
from exafsd.settings import Settings
from exafsd.settings.analysis import Average
from exafsd.spectra import Edge, Floats

#: names of the ends of a run
FIRST, LAST = "first", "last"
#: flags of sweeps that are no part of a mean
LEFT_OUT = {Flag.PARTIAL, Flag.GAP, Flag.ENERGY_UNSORTED, Flag.OUTLIER}


class Normalised(NamedTuple):
    """A sweep of a run: `energy` (n,), eV and calibrated, and normalised mu `norm` (n,)."""

    sweep: int
    channel: Channel
    edge: Edge
    energy: Floats
    norm: Floats
    temperature: float | None


def normalised(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Normalised | None:
    """Sweep of an outcome; None where it is no whole spectrum."""
    energy, norm = arrays.get("energy"), arrays.get("norm")
    if header["kind"] != "result" or energy is None or norm is None:
        return None
    if header["averaged"]["n"] > 1 or not LEFT_OUT.isdisjoint(header["quality"]):
        return None
    return Normalised(
        header["sweep"], header["channel"], Edge(header["element"], header["edge"]),
        np.asarray(energy, float), np.asarray(norm, float),
        temperatures.of_context(header["context"]),
    )  # fmt: skip


def mean_of(name: str, sweeps: Sequence[Normalised], source: str) -> Reference:
    """Mean of sweeps as a reference that is not kept yet; `source` is what errors call them.

    Raises
    ------
    ReferenceFileError
        If they do not show the near edge.
    """
    energy, norm = references.mean([(one.energy, one.norm) for one in sweeps])
    edge = sweeps[0].edge
    references.check(source, edge, energy, norm)
    measured = [one.temperature for one in sweeps if one.temperature is not None]
    kelvin = float(np.mean(measured)) if measured else None
    return Reference(name, edge, energy, norm, Path(), kelvin)


def means_of_ends(sweeps: Iterable[Normalised], count: int) -> list[Reference]:
    """Means of the first and of the last sweeps of a run, of each edge; not of the foil.

    Where a run is measured in two channels they are those of the one that comes first.
    """
    series: dict[Edge, dict[Channel, list[Normalised]]] = {}
    for one in sweeps:
        if one.channel != "reference":
            series.setdefault(one.edge, {}).setdefault(one.channel, []).append(one)
    ends: list[Reference] = []
    for channels in series.values():
        own = next(iter(channels.values()))
        if len(own) < 2 * count:
            continue  # ends would share sweeps
        for name, part in ((FIRST, own[:count]), (LAST, own[-count:])):
            try:
                ends.append(mean_of(name, part, f"the {name} sweeps"))
            except ReferenceFileError:  # too short for a linear combination, and told there
                continue
    return ends


def without_answers(settings: Settings) -> Settings:
    """Settings that only reduce, sweep by sweep."""
    return settings.model_copy(
        update={
            "reduction": settings.reduction.model_copy(update={"average": Average()}),
            "inference": settings.inference.model_copy(update={"enabled": False}),
            "composition": settings.composition.model_copy(update={"enabled": "off"}),
            "publish": settings.publish.model_copy(update={"arrays": ("energy", "norm")}),
        }
    )

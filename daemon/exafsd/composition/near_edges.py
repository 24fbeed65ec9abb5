"""What a run's near edges say, spectrum by spectrum, and what it remembers of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from exafsd.composition.change import ChangeDetector
from exafsd.composition.xanes import NearEdgeNumbers, near_edges
from exafsd.contract.messages import Channel, Direction, Value, Xanes
from exafsd.reduction.columns import INCOMPLETE
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import Edge, Floats, Spectrum, same

#: Farther from the tabulated edge than this, eV, the edge is looked for about the first E0 of the
#: run: the energy scale is not calibrated.
CALIBRATED = 12.0
#: what spectra have to have in common to be one series: stream, channel, edge, direction, whether
#: they are averages, and ranges of the normalisation
Key = tuple[str, Channel, Edge, Direction | None, bool, tuple[float, ...]]


@dataclass
class NearEdges:
    """Near edges of one run."""

    edges: dict[tuple[str, Channel, Edge], float] = field(
        default_factory=dict[tuple[str, Channel, Edge], float]
    )
    series: dict[Key, ChangeDetector] = field(default_factory=dict[Key, ChangeDetector])

    def measure(self, spectra: Sequence[tuple[Spectrum, float]]) -> list[NearEdgeNumbers | None]:
        """Numbers of the next spectra, each with its E0 in eV; those on one grid at once."""
        numbers: list[NearEdgeNumbers | None] = [None] * len(spectra)
        grids: list[tuple[Floats, float, list[int]]] = []
        for i, (spectrum, e0) in enumerate(spectra):
            edge = self._edge(_owner(spectrum), e0)
            energy = spectrum.energy
            if grids and grids[-1][1] == edge and same(grids[-1][0], energy):
                grids[-1][2].append(i)
            else:
                grids.append((energy, edge, [i]))
        for energy, edge, members in grids:
            mus = np.array([spectra[i][0].mu for i in members])
            for i, one in zip(members, near_edges(energy, mus, edge), strict=True):
                numbers[i] = one
        return numbers

    def follow(
        self, spectra: Sequence[Spectrum], numbers: Sequence[NearEdgeNumbers | None]
    ) -> list[Xanes | None]:
        """Numbers of the next spectra of the run, as they are published.

        Parameters
        ----------
        numbers
            Of the spectra, as `measure` gives them.

        Returns
        -------
        xanes
            None where a scan is too short.
        """
        xanes: list[Xanes | None] = [None] * len(spectra)
        for key, members in _by_series(spectra, numbers).items():
            series = self.series.get(key)
            if series is None:
                series = self.series[key] = ChangeDetector()
            own = [one for i in members if (one := numbers[i]) is not None]
            sweeps = [_taken(spectra[i]) for i in members]
            positions = series.follow(own, sweeps)
            for i, one, sweep, at in zip(members, own, sweeps, positions, strict=True):
                xanes[i] = Xanes(
                    edge_energy=_value(*one.edge_energy),
                    white_line=_value(*one.height),
                    white_line_area=_value(*one.area),
                    distance_first=at.first,
                    distance_previous=at.previous,
                    state=None if sweep is None else at.state,
                    change_point=at.change_point,
                )
        return xanes

    def _edge(self, owner: tuple[str, Channel, Edge], e0: float) -> float:
        edge = self.edges.get(owner)
        if edge is None:
            edge = self.edges[owner] = edge_about(owner[2], e0)
        return edge


def edge_about(edge: Edge, e0: float) -> float:
    """Where an edge is looked for, eV, in a series whose first spectrum has this E0."""
    tabulated = edge_energy(edge.element, edge.edge)
    return tabulated if abs(e0 - tabulated) < CALIBRATED else float(round(e0))


def _by_series(
    spectra: Sequence[Spectrum], numbers: Sequence[NearEdgeNumbers | None]
) -> dict[Key, list[int]]:
    """Places of spectra that have numbers, by their series."""
    places: dict[Key, list[int]] = {}
    for i, (spectrum, one) in enumerate(zip(spectra, numbers, strict=True)):
        if one is not None:
            direction, averaged = spectrum.id.sweep.direction, spectrum.averaged is not None
            key = *_owner(spectrum), direction, averaged, one.ranges
            places.setdefault(key, []).append(i)
    return places


def _taken(spectrum: Spectrum) -> int | None:
    """Sweep of a spectrum that its series takes: once, and only if it is whole."""
    sweep = spectrum.id.sweep
    whole = sweep.revision == 1 and INCOMPLETE.isdisjoint(spectrum.quality)
    return sweep.number if whole else None


def _owner(spectrum: Spectrum) -> tuple[str, Channel, Edge]:
    return spectrum.id.sweep.stream, spectrum.id.channel, spectrum.id.edge


def _value(value: float, std: float) -> Value:
    if not math.isfinite(value):
        return Value(None, None)
    return Value(value, std)

"""A sweep to spectra that can be reduced: mu(E), foil, rebinning, glitches, averages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from exafsd.contract.messages import Channel
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.reduction import edges
from exafsd.reduction.average import RunningAverage
from exafsd.reduction.calibration import Tracked, Tracker
from exafsd.reduction.columns import INCOMPLETE, Columns, absorption, absorptions, channels_of
from exafsd.reduction.deglitch import deglitch
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.foil import FoilTemplate
from exafsd.reduction.memory import RunMemory
from exafsd.reduction.rebin import (
    POINTS_PER_BIN,
    STILL_PER_BIN,
    CommonGrid,
    OwnGrid,
    covered,
    interpolate,
    rebin,
    xas_grid,
)
from exafsd.spectra import Edge, Floats, Rejected, Spectrum, SpectrumError, SpectrumId, Sweep

#: eV kept before an edge of a sweep that holds several, and left out before the next edge
BEFORE_EDGE, BEFORE_NEXT = 300.0, 30.0
UNKNOWN = Edge("unknown", "unknown")
NO_FOIL = Tracked(None)


#: what is ready of a sweep, by channel
Ready = Mapping[Channel, Columns]


def ready(sweeps: Sequence[Sweep]) -> list[Ready]:
    """mu(E) of sweeps that need no second look, made together; for `spectra`."""
    columns: list[dict[Channel, Columns]] = [{} for _ in sweeps]
    alike: dict[tuple[int, Channel], list[int]] = {}
    for i, sweep in enumerate(sweeps):
        for channel in channels_of(sweep, sweep.run.analysis.reduction.channels):
            alike.setdefault((id(sweep.run.analysis), channel), []).append(i)
    for (_, channel), members in alike.items():
        own = [sweeps[i] for i in members]
        analysis = own[0].run.analysis
        together = absorptions(own, channel, analysis.adapter, analysis.reduction)
        for i, one in zip(members, together, strict=True):
            if one is not None:
                columns[i][channel] = one
    return list(columns)


def spectra(
    sweep: Sweep, memory: RunMemory, ready: Ready = MappingProxyType({})
) -> list[Spectrum | Rejected]:
    """Spectra of every channel and edge of a sweep, or why there are none; then averages.

    What comes out depends on the sweeps of the run, which `memory` remembers, and their order
    alone. What is `ready` of it is not made again.
    """
    settings = sweep.run.analysis.reduction
    measured = _Measured(sweep, ready)
    foil = _follow_foil(memory, measured, sweep)
    prepared: list[Spectrum | Rejected] = []
    averages: list[Spectrum] = []
    for channel in channels_of(sweep, settings.channels):
        for spectrum in _of_channel(memory, measured, channel, foil):
            mean = None
            if settings.average.n > 1 and isinstance(spectrum, Spectrum):
                mean = _average(memory, spectrum)
            if mean is None or settings.average.singles:
                prepared.append(spectrum)
            if mean is not None:
                averages.append(mean)
    return prepared + averages


def refuse(sweep: Sweep, error: SpectrumError) -> Iterator[Rejected]:
    """One rejection for each channel and edge, without reading data or touching any state."""
    for channel in channels_of(sweep, sweep.run.analysis.reduction.channels):
        for edge in sweep.run.edges or (UNKNOWN,):
            yield _reject(SpectrumId(sweep, channel, edge), error)


class _Measured:
    """mu(E) of a sweep's channels, each computed once."""

    def __init__(self, sweep: Sweep, ready: Ready) -> None:
        self.sweep = sweep
        self._channels: dict[Channel, Columns | SpectrumError] = {**ready}

    def __call__(self, channel: Channel) -> Columns:
        if channel not in self._channels:
            try:
                self._channels[channel] = self._absorption(channel)
            except SpectrumError as error:
                self._channels[channel] = error
        prepared = self._channels[channel]
        if isinstance(prepared, SpectrumError):
            raise prepared
        return prepared

    def _absorption(self, channel: Channel) -> Columns:
        analysis = self.sweep.run.analysis
        settings = analysis.reduction
        energy, mu, quality = absorption(self.sweep, channel, analysis.adapter, settings)
        if len(energy) < settings.min_points:
            raise SpectrumError(Reason.TOO_FEW_POINTS, f"{len(energy)} distinct energies")
        return energy, mu, quality


def _follow_foil(memory: RunMemory, measured: _Measured, sweep: Sweep) -> Tracked:
    """Energy correction of a sweep from its reference channel."""
    settings = sweep.run.analysis.reduction
    if settings.calibration.source != "foil" and settings.e0_policy != "foil":
        return NO_FOIL
    tracker = memory.trackers.get(sweep.stream)
    if tracker is None:
        named = [edges.energy_or_zero(edge.element, edge.edge) for edge in sweep.run.edges]
        near = tuple(position for position in named if position)
        tracker = memory.trackers[sweep.stream] = Tracker(settings.calibration, near)
    if sweep.revision > 1:
        return tracker.held(sweep.direction)
    try:
        energy, mu, quality = measured("reference")
    except SpectrumError:
        return tracker.follow(sweep.number, sweep.direction, None, False)
    whole = INCOMPLETE.isdisjoint(quality)
    return tracker.follow(sweep.number, sweep.direction, (energy, mu), whole)


def _of_channel(
    memory: RunMemory, measured: _Measured, channel: Channel, foil: Tracked
) -> Iterator[Spectrum | Rejected]:
    """Spectra of the edges of one channel."""
    sweep = measured.sweep
    named = sweep.run.edges or (Edge("", ""),)
    try:
        energy, mu, quality = measured(channel)
    except SpectrumError as error:
        for edge in named:
            yield _reject(SpectrumId(sweep, channel, edge), error)
        return
    if foil.shift is not None:
        energy = energy + foil.shift.value
    quality += foil.flags
    if channel == "reference" and len(named) == 1:
        named = (_foil_edge(memory, sweep, named[0], energy, mu),)
    for edge in named:
        id_ = SpectrumId(sweep, channel, edge)
        try:
            edge, guessed = _resolve(edge, energy, mu)
            if channel == "reference" and edge not in sweep.run.edges:
                guessed = guessed or ("element", "edge")
            if guessed and channel != "reference":
                memory.guessed.setdefault(sweep.stream, edge)
            id_ = SpectrumId(sweep, channel, edge, guessed)
            position = edges.edge_energy(edge.element, edge.edge)
            part = energy, mu
            if len(named) > 1:
                own = _part(energy, position, named)
                part = energy[own], mu[own]
            spectrum = Spectrum(id_, *part, quality, energy_shift=foil.shift)
            yield _deglitched(_rebinned(memory, spectrum, position), position)
        except SpectrumError as error:
            yield _reject(id_, error, quality)


def _foil_edge(memory: RunMemory, sweep: Sweep, edge: Edge, energy: Floats, mu: Floats) -> Edge:
    """Edge of the reference channel: the run's own, unless the foil is plainly of another."""
    own = edge if edge.element else memory.guessed.get(sweep.stream, edge)
    position = edges.energy_or_zero(own.element, own.edge)
    if sweep.stream not in memory.foils and position:
        foil = FoilTemplate.of(
            energy, mu, (position,), sweep.run.analysis.reduction.calibration.window
        )
        if foil is None:
            return own
        memory.foils[sweep.stream] = own
        if abs(foil.e0 - position) > edges.EDGE_TOLERANCE:
            with suppress(SpectrumError):
                memory.foils[sweep.stream] = edges.guess(foil.e0)
    return memory.foils.get(sweep.stream, own)


def _rebinned(memory: RunMemory, spectrum: Spectrum, position: float) -> Spectrum:
    """Spectrum on the run's common grid, if it is to be rebinned."""
    settings = spectrum.id.analysis.reduction
    sweep, options = spectrum.id.sweep, settings.rebin
    if options.method == "off" or (options.method == "auto" and not memory.varies(sweep)):
        return spectrum
    energy, mu = spectrum.energy, spectrum.mu
    common = memory.grids.get((sweep.stream, spectrum.id.edge))
    if common is None:
        common = CommonGrid(xas_grid(position, options))
        memory.grids[sweep.stream, spectrum.id.edge] = common
    grid = common.grid
    own = covered(grid, energy)
    inside = np.searchsorted(energy, grid.edges[list(own)])
    if options.method == "auto":
        # a run that is rebinned stays so, even if a sweep has a few points less than the last
        enough = POINTS_PER_BIN if common.bins is None else STILL_PER_BIN
        if inside[1] - inside[0] < enough * (own[1] - own[0]):
            return _interpolated(memory, spectrum)
    bins = common.choose(own, INCOMPLETE.isdisjoint(spectrum.quality))
    if bins[1] - bins[0] < settings.min_points:
        return replace(spectrum, quality=(*spectrum.quality, Flag.REBIN_SPARSE))
    method: Literal["boxcar", "gaussian"] = "gaussian" if options.method == "gaussian" else "boxcar"
    rebinned = rebin(energy, mu, grid, bins, method)
    if rebinned is None:
        return replace(spectrum, quality=(*spectrum.quality, Flag.REBIN_SPARSE))
    return replace(
        spectrum,
        energy=grid.centres[slice(*bins)],
        mu=rebinned.mu,
        quality=(*spectrum.quality, Flag.REBIN_FILLED) if rebinned.empty else spectrum.quality,
        raw=(energy, mu),
    )


def _interpolated(memory: RunMemory, spectrum: Spectrum) -> Spectrum:
    """Spectrum on the energies of the run's first whole sweep."""
    energy, mu = spectrum.energy, spectrum.mu
    own = memory.own_grids.setdefault((spectrum.id.sweep.stream, spectrum.id.edge), OwnGrid())
    chosen = own.choose(energy, INCOMPLETE.isdisjoint(spectrum.quality))
    if len(chosen) < spectrum.id.analysis.reduction.min_points:
        return spectrum
    return replace(spectrum, energy=chosen, mu=interpolate(energy, mu, chosen), raw=(energy, mu))


def _deglitched(spectrum: Spectrum, position: float) -> Spectrum:
    threshold = spectrum.id.analysis.reduction.quality.deglitch
    if threshold is None:
        return spectrum
    done = deglitch(spectrum.energy, spectrum.mu, position, threshold)
    if done is None:
        return replace(spectrum, quality=(*spectrum.quality, Flag.GLITCHY))
    mu, removed = done
    if not removed:
        return spectrum
    return replace(spectrum, mu=mu, removed=removed, quality=(*spectrum.quality, Flag.DEGLITCHED))


def _average(memory: RunMemory, spectrum: Spectrum) -> Spectrum | None:
    """Running average with a new spectrum in it."""
    sweep = spectrum.id.sweep
    settings = spectrum.id.analysis.reduction.average
    apart = settings.directions == "separate"
    key = sweep.stream, spectrum.id.channel, spectrum.id.edge, sweep.direction if apart else None
    average = memory.averages.get(key)
    if average is None:
        average = memory.averages[key] = RunningAverage(settings)
    if sweep.revision > 1:  # a sweep is in an average once
        average.amend(spectrum)
        return None
    return average.add(spectrum)


def _reject(spectrum: SpectrumId, error: SpectrumError, quality: tuple[Flag, ...] = ()) -> Rejected:
    edge = spectrum.edge
    edge = Edge(edge.element or UNKNOWN.element, edge.edge or UNKNOWN.edge)
    return Rejected(replace(spectrum, edge=edge), error, quality)


def _resolve(edge: Edge, energy: Floats, mu: Floats) -> tuple[Edge, tuple[str, ...]]:
    """Edge with what the metadata left out, and the names of what was guessed."""
    low, high = float(energy[0]), float(energy[-1])
    if edge.element and edge.edge:
        position = edges.edge_energy(edge.element, edge.edge)
        if not low < position < high:
            raise SpectrumError(
                Reason.NO_EDGE,
                f"the {edge.element} {edge.edge} edge at {position:.0f} eV is not inside the scan"
                f" ({low:.0f} to {high:.0f} eV); check element, edge and the energy unit",
            )
        return edge, ()
    if edge.element:
        inside = edges.candidates(edge.element, low, high)
        if not inside:
            raise SpectrumError(
                Reason.NO_EDGE,
                f"{edge.element!r} has no edge between {low:.0f} and {high:.0f} eV; check the"
                " element and the energy unit",
            )
        return inside[0], ("edge",)
    guessed = edges.guess(find_e0(energy, mu), edge.edge)
    return guessed, ("element",) if edge.edge else ("element", "edge")


def _part(energy: Floats, position: float, named: tuple[Edge, ...]) -> slice:
    """Points that belong to an edge, where a sweep goes over several."""
    others = [edges.energy_or_zero(e.element, e.edge) for e in named]
    above = min((o for o in others if o > position), default=np.inf)
    begin = int(np.searchsorted(energy, position - BEFORE_EDGE))
    return slice(begin, int(np.searchsorted(energy, above - BEFORE_NEXT)))

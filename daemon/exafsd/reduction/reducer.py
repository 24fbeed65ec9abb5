"""A sweep to reduced spectra: channels, edges, E0 policy, quality. State belongs to the run."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from exafsd.analysis import Analysis
from exafsd.contract.grid import ETOK
from exafsd.contract.messages import Channel
from exafsd.contract.recipe import Recipe
from exafsd.reduction import edges, larch_engine
from exafsd.reduction.columns import absorption, channels_of
from exafsd.reduction.larch_engine import Frozen
from exafsd.spectra import Edge, ReducedSpectrum, Rejected, Spectrum, SpectrumError, Sweep

#: an edge step below this many of its own standard errors is no edge
EDGE_STEP_SIGMA = 5.0
#: a spectrum this much longer in k than the first of its run gives the run new ranges
LONGER = 1.05
#: an edge step below this share of mu is rounding, as of a straight line
SMALLEST_STEP = 1e-9
#: eV kept before an edge of a sweep that holds several, and left out before the next edge
BEFORE_EDGE, BEFORE_NEXT = 300.0, 30.0
UNKNOWN = Edge("unknown", "unknown")


def spectra_of(sweep: Sweep, analysis: Analysis) -> Iterator[Spectrum | Rejected]:
    """mu(E) of every channel and edge of a sweep, or why there is none."""
    for channel in channels_of(sweep, analysis.reduction.channels):
        named = sweep.run.edges or (Edge("", ""),)
        try:
            energy, mu, quality = absorption(sweep, channel, analysis.adapter, analysis.reduction)
            if len(energy) < analysis.reduction.min_points:
                raise SpectrumError("too_few_points", f"{len(energy)} distinct energies")
        except SpectrumError as error:
            for edge in named:
                yield _reject(sweep, channel, edge, (), error)
            continue
        for edge in named:
            guessed: tuple[str, ...] = ()
            try:
                edge, guessed = _resolve(edge, energy, mu)
                position = edges.edge_energy(edge.element, edge.edge)
                part = _part(energy, position, named)
                yield Spectrum(sweep, channel, edge, guessed, energy[part], mu[part], quality)
            except SpectrumError as error:
                yield _reject(sweep, channel, edge, guessed, error, quality)


def _reject(
    sweep: Sweep,
    channel: Channel,
    edge: Edge,
    guessed: tuple[str, ...],
    error: SpectrumError,
    quality: tuple[str, ...] = (),
) -> Rejected:
    known = Edge(edge.element or UNKNOWN.element, edge.edge or UNKNOWN.edge)
    return Rejected(sweep, channel, known, guessed, error.reason, error.detail, quality)


def _resolve(edge: Edge, energy: np.ndarray, mu: np.ndarray) -> tuple[Edge, tuple[str, ...]]:
    """Edge with what the metadata left out, and the names of what was guessed."""
    low, high = float(energy[0]), float(energy[-1])
    if edge.element and edge.edge:
        position = edges.edge_energy(edge.element, edge.edge)
        if not low < position < high:
            raise SpectrumError(
                "no_edge",
                f"the {edge.element} {edge.edge} edge at {position:.0f} eV is not inside the scan"
                f" ({low:.0f} to {high:.0f} eV); check element, edge and the energy unit",
            )
        return edge, ()
    if edge.element:
        inside = edges.candidates(edge.element, low, high)
        if not inside:
            raise SpectrumError(
                "no_edge",
                f"{edge.element!r} has no edge between {low:.0f} and {high:.0f} eV; check the"
                " element and the energy unit",
            )
        return inside[0], ("edge",)
    return edges.guess(larch_engine.edge_position(energy, mu)), ("element", "edge")


def _part(energy: np.ndarray, position: float, named: tuple[Edge, ...]) -> slice:
    """Points that belong to an edge, where a sweep goes over several."""
    if len(named) < 2:
        return slice(None)
    others = [edges.energy_or_zero(e.element, e.edge) for e in named]
    above = min((o for o in others if o > position), default=np.inf)
    begin = int(np.searchsorted(energy, position - BEFORE_EDGE))
    return slice(begin, int(np.searchsorted(energy, above - BEFORE_NEXT)))


class Reducer:
    """Reduces spectra; remembers E0 and ranges of each run, channel and edge until its end."""

    def __init__(self) -> None:
        self._frozen: dict[str, dict[tuple[Channel, Edge, Recipe], Frozen]] = {}

    def reduce(self, spectrum: Spectrum, analysis: Analysis, recipe: Recipe) -> ReducedSpectrum:
        """Reduce by the run's E0 policy.

        Raises
        ------
        SpectrumError
            If there is no edge or Larch fails.
        """
        settings = analysis.reduction
        run = self._frozen.setdefault(spectrum.sweep.run.uid, {})
        key = (spectrum.channel, spectrum.edge, recipe)
        frozen = run.get(key)
        e0 = settings.e0 if settings.e0_policy == "fixed" else None
        if settings.e0_policy == "fixed" and e0 is None:
            raise SpectrumError("bad_settings", "e0_policy is fixed, but reduction.e0 is not set")
        if frozen is not None and settings.e0_policy == "run":
            e0 = frozen.e0
        if frozen is not None and not _reaches_further(spectrum, frozen, recipe):
            recipe = frozen.recipe
        else:
            frozen = None
        reduced, found = larch_engine.reduce_mu(spectrum.energy, spectrum.mu, recipe, e0)
        flags = _quality(spectrum, reduced, settings.k_max_min)
        if frozen is None and not BAD_FLAGS & {*flags, *spectrum.quality}:
            run[key] = found
        return replace(reduced, quality=(*spectrum.quality, *flags))

    def end(self, run_uid: str) -> None:
        """Forget a run."""
        self._frozen.pop(run_uid, None)


def _reaches_further(spectrum: Spectrum, frozen: Frozen, recipe: Recipe) -> bool:
    """Whether a spectrum is clearly longer than the one that froze the run's ranges.

    A run may begin in the middle of a sweep; the ranges of that stump must not cut all others.
    """
    end = ETOK * max(float(spectrum.energy[-1]) - frozen.e0, 0.0)
    reach = min(end**0.5, recipe.autobk.kmax or np.inf)
    return reach > LONGER * (frozen.recipe.autobk.kmax or np.inf)


#: flags of a spectrum that must not decide E0 for its run
BAD_FLAGS = {"wrong_element", "short_k_range", "partial", "gap", "energy_unsorted"}


def _quality(spectrum: Spectrum, reduced: ReducedSpectrum, k_max_min: float) -> list[str]:
    """Flags of a reduced spectrum.

    Raises
    ------
    SpectrumError
        ``no_edge`` if the step at E0 is not above the scatter.
    """
    std = reduced.edge_step_std or 0.0
    rounding = SMALLEST_STEP * float(np.abs(spectrum.mu).max())
    if reduced.edge_step < max(EDGE_STEP_SIGMA * std, rounding):
        raise SpectrumError(
            "no_edge",
            f"the step at {reduced.e0:.1f} eV is {reduced.edge_step:.3g}, within"
            f" {EDGE_STEP_SIGMA:g} times its scatter ({std:.2g}): no sample, or no signal",
        )
    flags = []
    tabulated = edges.edge_energy(spectrum.edge.element, spectrum.edge.edge)
    if abs(reduced.e0 - tabulated) > edges.EDGE_TOLERANCE:
        flags.append("wrong_element")
    if reduced.k_data[1] < k_max_min:
        flags.append("short_k_range")
    return flags

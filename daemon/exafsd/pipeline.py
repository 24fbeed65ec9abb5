"""One spectrum's way, readable top to bottom: sweep, mu, chi(k), theta, message. No threads.

Sweeps that are there together go through it together: on one energy grid the reduction is a
matrix product, and the network reads a batch for little more than one spectrum.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exafsd.composition.composer import Composer
from exafsd.composition.purity import is_mixture
from exafsd.composition.references import Reference
from exafsd.composition.run_series import RunSeries, with_components
from exafsd.contract.messages import (
    Channel,
    Components,
    Composition,
    Mixture,
    Phase,
    Shell,
    Xanes,
)
from exafsd.contract.vocabulary import Reason
from exafsd.inference.candidates import MOST
from exafsd.inference.mixture_fit import Mixtures
from exafsd.inference.mixture_fit import Question as OfMixture
from exafsd.inference.placement import Placement
from exafsd.inference.reading import (
    Answer,
    Model,
    Question,
    Reader,
    Reading,
    Trends,
    answer,
    compare_fits,
    read_each,
    readers,
    structures_of,
)
from exafsd.inference.refinement.polish import OFF, SHED, Polished
from exafsd.inference.registry import Registry
from exafsd.logs import get_logger
from exafsd.outcome import Outcome, rejection, result
from exafsd.reduction import preparation
from exafsd.reduction.memory import RunMemory
from exafsd.reduction.reducer import Reducer, ReductionJob
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Floats, ReducedSpectrum, Spectrum, SpectrumError, Sweep, same
from exafsd.spectra import Rejected as RejectedSpectrum

log = get_logger(__name__)

#: combinations of settings and edge whose models are remembered
REMEMBERED = 256
#: why the reference channel gives nothing where there is no foil, or no detector behind it
NO_FOIL = (Reason.NO_EDGE, Reason.IR_ZERO, Reason.UNKNOWN_ELEMENT)
#: what the sweeps of a run have in common, by stream, channel, edge and model
RunTrends = dict[tuple[str, Channel, Edge], Trends]


@dataclass(frozen=True)
class _Panel:
    """Who may read the spectra of an edge under some settings.

    `reason` says why nobody may. `unasked` are models beyond those that can be asked. `placement`
    places E0; None where the settings have another policy.
    """

    readers: tuple[Reader, ...]
    reason: str | None
    unasked: tuple[str, ...] = ()
    placement: Placement | None = None


@dataclass(frozen=True)
class _Case:
    """A spectrum, who may read it, and what its run remembers."""

    spectrum: Spectrum
    panel: _Panel
    memory: RunMemory
    trends: Trends


class Pipeline:
    """From sweeps to outcomes.

    Parameters
    ----------
    registry
        Models to read spectra with.
    arrays
        Names of the arrays that results carry.
    reducer
        Reduces spectra.
    composer
        Says what samples are made of; None: without references.
    """

    def __init__(
        self,
        registry: Registry,
        arrays: tuple[str, ...],
        reducer: Reducer | None = None,
        composer: Composer | None = None,
    ) -> None:
        self._arrays = arrays
        self._reducer = reducer or Reducer()
        self._composer = composer or Composer(())
        self._mixtures = Mixtures(self._reducer)
        self._models: dict[str, Model] = {}
        self._panels: dict[tuple[str, Edge], _Panel] = {}
        self._memories: defaultdict[str, RunMemory] = defaultdict(RunMemory)
        self._trends: defaultdict[str, RunTrends] = defaultdict(dict)
        self._series: defaultdict[str, RunSeries] = defaultdict(RunSeries)
        self.adopt(registry)

    def adopt(self, registry: Registry) -> None:
        """Read what comes from now on with these models; trends of others are forgotten."""
        running = {name: m for name, m in self._models.items() if name in registry.bundles}
        self._models = {
            name: running[name]
            if name in running and running[name].bundle is bundle
            else Model.of(bundle)
            for name, bundle in registry.bundles.items()
        }
        compare_fits(list(self._models.values()))
        for trends in (one for run in self._trends.values() for one in run.values()):
            for name in [n for n in trends if self._models.get(n) is not running.get(n)]:
                del trends[name]
        self._registry, self._models_sha256 = registry, registry.sha256
        self._panels.clear()
        self._mixtures.forget()

    def process(self, sweep: Sweep) -> list[Outcome]:
        """One outcome for each channel and edge of a sweep; never raises on bad data."""
        return self.process_many([sweep])[0]

    def process_many(self, sweeps: Sequence[Sweep], room: bool = True) -> list[list[Outcome]]:
        """Outcomes of sweeps in order, one for each channel and edge; never raises on bad data.

        Parameters
        ----------
        room
            Whether there is time for fits, and for the polish where settings leave that open.
        """
        outcomes_of: list[list[Outcome]] = []
        cases: list[_Case] = []
        places: list[tuple[int, int]] = []
        for sweep, ready in zip(sweeps, _ready(sweeps), strict=True):
            memory = self.run_memory(sweep.run.uid)
            own: list[Outcome] = []
            for spectrum in _prepared(sweep, memory, ready):
                if isinstance(spectrum, RejectedSpectrum):
                    own.append(rejection(spectrum))
                else:
                    panel = self._panel(spectrum.id.edge, spectrum.id.analysis)
                    cases.append(_Case(spectrum, panel, memory, self._trends_of(spectrum)))
                    places.append((len(outcomes_of), len(own)))
                    own.append(PENDING)
            outcomes_of.append(own)
        for (i, j), outcome in zip(places, self._guarded(cases, room), strict=True):
            outcomes_of[i][j] = outcome
        return [
            list(_without_foil(outcomes, self.run_memory(sweep.run.uid)))
            for sweep, outcomes in zip(sweeps, outcomes_of, strict=True)
        ]

    def reject(self, sweep: Sweep, reason: Reason, detail: str) -> Iterator[Outcome]:
        """One rejection for each channel and edge, without looking at the data."""
        for spectrum in preparation.refuse(sweep, SpectrumError(reason, detail)):
            yield rejection(spectrum)

    def run_memory(self, run_uid: str) -> RunMemory:
        """What the reduction remembers of a run."""
        return self._memories[run_uid]

    def trends(self, run_uid: str) -> RunTrends:
        """What the sweeps of a run have in common."""
        return self._trends[run_uid]

    def series(self, run_uid: str) -> RunSeries:
        """What is remembered of a run to say whether its sample changes, and whether to stop."""
        return self._series[run_uid]

    def resume(self, run_uid: str, memory: RunMemory, trends: RunTrends, series: RunSeries) -> None:
        """Go on with a run of which this was saved."""
        self._memories[run_uid] = memory
        self._trends[run_uid] = trends
        self._series[run_uid] = series

    def end(self, run_uid: str) -> None:
        """Forget a run."""
        self._memories.pop(run_uid, None)
        self._trends.pop(run_uid, None)
        self._series.pop(run_uid, None)
        self._composer.forget(run_uid)

    def lend(self, run_uid: str, references: Sequence[Reference]) -> None:
        """Compare the spectra of a run with these references."""
        self._composer.lend(run_uid, references)

    def audit(self) -> list[str]:
        """Trouble that the audit against Larch has found since the last call."""
        return self._reducer.audit()

    def audit_metrics(self) -> dict[str, float] | None:
        """Numbers of the audit; None where there is none."""
        return self._reducer.audit_metrics()

    def close(self) -> None:
        """End what the pipeline has started."""
        self._reducer.close()

    def _trends_of(self, spectrum: Spectrum) -> Trends:
        sweep = spectrum.id.sweep
        key = sweep.stream, spectrum.id.channel, spectrum.id.edge
        return self.trends(sweep.run.uid).setdefault(key, {})

    def _panel(self, edge: Edge, analysis: Analysis) -> _Panel:
        key = (analysis.sha256, edge)
        panel = self._panels.get(key)
        if panel is None:
            if len(self._panels) >= REMEMBERED:
                self._panels.clear()
            panel = self._panels[key] = self._gathered(edge, analysis)
        return panel

    def _gathered(self, edge: Edge, analysis: Analysis) -> _Panel:
        inference, reduction = analysis.inference, analysis.reduction
        if not inference.enabled:
            return _Panel(readers([], reduction), "inference is off")
        bundles, reason = self._registry.candidates(edge, inference.model, inference.structure)
        names = [bundle.card.name for bundle in bundles]
        if names[:-MOST]:
            left_out = ",".join(names[:-MOST])
            log.warning("more models of an edge than are asked", asked=MOST, left_out=left_out)
        models = [self._models[name] for name in names[-MOST:]]
        placement = None
        if reduction.e0_policy == "model":
            placement = Placement([model.bundle.card for model in models])
        return _Panel(readers(models, reduction), reason, tuple(names[:-MOST]), placement)

    def _guarded(self, cases: list[_Case], room: bool) -> list[Outcome]:
        """Outcomes of all; where something unforeseen fails, one by one."""
        try:
            return self._outcomes(cases, room)
        except Exception as error:
            if len(cases) > 1:
                return [self._guarded([case], room)[0] for case in cases]
            return [_rejected(cases[0], _internal(cases[0].spectrum.id.sweep, error))]

    def _outcomes(self, cases: list[_Case], room: bool) -> list[Outcome]:
        """Reduce, read and report spectra."""
        done: list[Outcome] = [PENDING] * len(cases)
        unread: dict[int, list[Reading]] = {}
        for i, reduced in enumerate(self._reduced(cases)):
            if isinstance(reduced, SpectrumError):
                done[i] = _rejected(cases[i], reduced)
            else:
                unread[i] = reduced
        reduced_at = time.perf_counter()

        def unplaced(places: Sequence[tuple[int, int]]) -> list[Reading]:
            own = list(unread)
            return self._unplaced([(cases[own[i]], unread[own[i]][j]) for i, j in places])

        read = read_each(list(unread.values()), room, unplaced)
        compositions = self._composed({i: cases[i] for i in unread}, room)
        answers = answer(
            [
                Question(
                    readings,
                    _unpolished(cases[i], room),
                    cases[i].trends,
                    # what is read of a mixture says nothing of the material
                    teaches=cases[i].spectrum.id.sweep.revision == 1
                    and not is_mixture(compositions.get(i)),
                )
                for i, readings in zip(unread, read, strict=True)
            ]
        )
        e0s = {i: one.reading.shown.e0 for i, one in zip(unread, answers, strict=True)}
        mixtures = self._mixed(cases, unread, e0s, compositions, room)
        followed = self._followed([cases[i].spectrum for i in unread], answers)
        structures = structures_of(answers)
        for place, (i, best) in enumerate(zip(unread, answers, strict=True)):
            done[i] = self._result(
                cases[i], best, structures.get(place), compositions.get(i), mixtures.get(i),
                *followed[place], reduced_at,
            )  # fmt: skip
        return done

    def _followed(
        self, spectra: Sequence[Spectrum], answers: Sequence[Answer]
    ) -> list[tuple[Xanes | None, Components | None]]:
        """Near edges, and whether they change, those of one run together."""
        runs: dict[str, list[int]] = {}
        for i, spectrum in enumerate(spectra):
            runs.setdefault(spectrum.id.sweep.run.uid, []).append(i)
        followed: list[tuple[Xanes | None, Components | None]] = [(None, None)] * len(spectra)
        for uid, members in runs.items():
            own, e0s = [spectra[i] for i in members], [answers[i].reading.shown.e0 for i in members]
            try:
                said = self.series(uid).follow(own, e0s)
            except Exception:  # the results are there and must not be lost
                log.exception("near edges of a run failed")
                continue
            for i, one in zip(members, said, strict=True):
                followed[i] = one
        return followed

    def _composed(self, cases: Mapping[int, _Case], room: bool) -> dict[int, Composition | None]:
        """What samples are made of, where there is time to say so."""
        due = [
            i
            for i, case in cases.items()
            if case.spectrum.id.channel != "reference"
            and _has_time(case.spectrum.id.analysis.composition.enabled, room)
        ]
        try:
            return dict(zip(due, self._composer([cases[i].spectrum for i in due]), strict=True))
        except Exception:  # the other answers are there and must not be lost
            if len(due) > 1:
                return {
                    i: one for j in due for i, one in self._composed({j: cases[j]}, room).items()
                }
            log.exception("composition failed")
            return {}

    def _mixed(
        self,
        cases: Sequence[_Case],
        readings: Mapping[int, Sequence[Reading]],
        e0s: Mapping[int, float],
        compositions: Mapping[int, Composition | None],
        room: bool,
    ) -> dict[int, Mixture]:
        """EXAFS of samples of several phases, where models may read them and there is time."""
        due = {
            i: OfMixture(cases[i].spectrum, readings[i], e0s[i], said, self._composer.middles)
            for i, said in compositions.items()
            if said is not None
            and said.fractions
            and readings[i][0].reader.model is not None
            and _has_time(cases[i].spectrum.id.analysis.composition.exafs, room)
        }
        try:
            return dict(zip(due, self._mixtures(list(due.values())), strict=True))
        except Exception:  # the other answers are there and must not be lost
            if len(due) > 1:
                one_by_one = ({i: compositions[i]} for i in due)
                return {
                    i: one
                    for said in one_by_one
                    for i, one in self._mixed(cases, readings, e0s, said, room).items()
                }
            log.exception("fit of a mixture failed")
            return {}

    def _reduced(self, cases: list[_Case]) -> Iterator[list[Reading] | SpectrumError]:
        """Reduce each spectrum once by every recipe that its readers want.

        A reader for whose recipe that fails is out; if it fails for all there is no result.
        """
        jobs: list[ReductionJob] = []
        places: dict[tuple[int, int], int] = {}  # case and recipe to place among the jobs
        middles = _middles(cases)
        for i, case in enumerate(cases):
            placement, spectrum = case.panel.placement, case.spectrum
            e0 = placement.place(spectrum.energy, spectrum.mu, middles[i]) if placement else None
            for reader in case.panel.readers:
                for recipe in (reader.shown_by, reader.read_by):
                    if (i, id(recipe)) not in places:
                        places[i, id(recipe)] = len(jobs)
                        jobs.append(ReductionJob(spectrum, recipe, case.memory, e0))
        reduced = self._reducer.reduce(jobs)
        for i, case in enumerate(cases):
            unread: list[Reading] = []
            error = PENDING
            placement = case.panel.placement
            for reader in case.panel.readers:
                shown = reduced[places[i, id(reader.shown_by)]]
                own = reduced[places[i, id(reader.read_by)]]
                if isinstance(shown, ReducedSpectrum) and isinstance(own, ReducedSpectrum):
                    if placement is not None:
                        own.middles[placement.edge] = middles[i]
                    unread.append(Reading(reader, shown, own, case.panel.reason))
                error = next((x for x in (own, shown) if isinstance(x, SpectrumError)), error)
            yield unread or error

    def _unplaced(self, fits: Sequence[tuple[_Case, Reading]]) -> list[Reading]:
        """Readings for fits, reduced about the E0 that crystals are fitted from: Larch's.

        Where models of other materials place E0, it is that of metallic iron for an oxide: 10 eV
        off, so that the background takes the edge for signal.
        """
        jobs: dict[tuple[int, int], ReductionJob] = {}
        for case, one in fits:
            if _placed_for_others(case, one):
                for recipe in (one.reader.shown_by, one.reader.read_by):
                    job = ReductionJob(case.spectrum, recipe, case.memory, unplaced=True)
                    jobs.setdefault((id(case), id(recipe)), job)
        reduced = dict(zip(jobs, self._reducer.reduce(list(jobs.values())), strict=True))
        again: list[Reading] = []
        for case, one in fits:
            shown = reduced.get((id(case), id(one.reader.shown_by)))
            read = reduced.get((id(case), id(one.reader.read_by)))
            usable = isinstance(shown, ReducedSpectrum) and isinstance(read, ReducedSpectrum)
            again.append(replace(one, shown=shown, read=read) if usable else one)
        return again

    def _result(
        self,
        case: _Case,
        best: Answer,
        structure: tuple[list[Phase], list[Shell]] | None,
        composition: Composition | None,
        mixture: Mixture | None,
        xanes: Xanes | None,
        components: Components | None,
        reduced_at: float,
    ) -> Outcome:
        spectrum = case.spectrum
        flags = () if composition is None else self._composer.flags(spectrum, composition)
        message = result(
            spectrum, best, structure, with_components(composition, components), mixture, xanes,
            flags, case.panel.unasked, self._models_sha256,
        )  # fmt: skip
        try:
            self.series(spectrum.id.sweep.run.uid).converge(message, spectrum)
        except Exception:  # the result is there and must not be lost
            log.exception("the series of a run failed")
        received = spectrum.id.sweep.received
        if received is not None:
            message.timing_ms.reduced = (reduced_at - received) * 1e3
            message.timing_ms.inferred = (time.perf_counter() - received) * 1e3
        arrays = best.arrays
        sent = {n: one for n in self._arrays if (one := arrays.get(n)) is not None}
        return Outcome(message, sent, received)


#: place of an outcome that is not there yet
PENDING: Any = None


def _ready(sweeps: Sequence[Sweep]) -> list[preparation.Ready]:
    try:
        return preparation.ready(sweeps)
    except Exception:  # each is looked at on its own, which says what is wrong with it
        return [{} for _ in sweeps]


def _prepared(
    sweep: Sweep, memory: RunMemory, ready: preparation.Ready
) -> list[Spectrum | RejectedSpectrum]:
    try:
        return preparation.spectra(sweep, memory, ready)
    except Exception as error:  # one spectrum must never stop the next
        return list(preparation.refuse(sweep, _internal(sweep, error)))


def _placed_for_others(case: _Case, fit: Reading) -> bool:
    """Whether E0 of a spectrum is placed by models of materials that a fit knows nothing of."""
    placement, model = case.panel.placement, fit.reader.model
    if placement is None or placement.edge == 0 or model is None:
        return False
    return model.bundle.card.edge_position is None


def _middles(cases: Sequence[_Case]) -> list[float | None]:
    """Where each spectrum has risen by half, for its placement; those on one grid together."""
    middles: list[float | None] = [None] * len(cases)
    grids: list[tuple[Placement, Floats, list[int]]] = []
    for i, case in enumerate(cases):
        placement, energy = case.panel.placement, case.spectrum.energy
        if placement is None:
            continue
        if grids and grids[-1][0] is placement and same(grids[-1][1], energy):
            grids[-1][2].append(i)
        else:
            grids.append((placement, energy, [i]))
    for placement, energy, members in grids:
        mus = np.array([cases[i].spectrum.mu for i in members])
        for i, middle in zip(members, placement.middles(energy, mus), strict=True):
            middles[i] = middle
    return middles


def _unpolished(case: _Case, room: bool) -> Polished | None:
    """What the polish of a spectrum is without being made; None where it is to be made."""
    asked = case.spectrum.id.analysis.inference.polish
    if asked == "off":
        return OFF
    return None if _has_time(asked, room) else SHED


def _has_time(asked: str, room: bool) -> bool:
    """Whether something that may be left out under load is done."""
    return asked == "always" or (asked == "auto" and room)


def _rejected(case: _Case, error: SpectrumError) -> Outcome:
    spectrum = case.spectrum
    return rejection(RejectedSpectrum(spectrum.id, error, spectrum.quality, spectrum.averaged))


def _without_foil(outcomes: list[Outcome], memory: RunMemory) -> Iterator[Outcome]:
    """Outcomes; that a run has no reference foil is one of the first sweep alone."""
    for outcome in outcomes:
        message = outcome.message
        if (
            message.kind == "rejected"
            and message.channel == "reference"
            and message.reason in NO_FOIL
        ):
            if memory.no_foil:
                continue
            memory.no_foil = True
            detail = f"no foil's edge is to be seen, which is said once per run: {message.detail}"
            message = message.model_copy(update={"reason": Reason.NO_FOIL, "detail": detail})
            outcome = replace(outcome, message=message)
        yield outcome


def _internal(sweep: Sweep, error: Exception) -> SpectrumError:
    """Log an error that is ours; call in an ``except`` clause."""
    log.exception("internal error", run_uid=sweep.run.uid, sweep=sweep.number)
    text = f"internal error, please report it: {type(error).__name__}: {error}"
    return SpectrumError(Reason.INTERNAL, text)

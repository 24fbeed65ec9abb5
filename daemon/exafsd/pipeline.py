"""One spectrum's way, readable top to bottom: sweep, mu, chi(k), theta, message. No threads.

Sweeps that are there together go through it together: on one energy grid the reduction is a
matrix product, and the network reads a batch for little more than one spectrum.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from exafsd.contract.grid import K_GRID
from exafsd.contract.messages import (
    Calibrated,
    Candidate,
    ModelRef,
    Rejected,
    Result,
    Trust,
    Value,
)
from exafsd.inference.amplitude import UNREAD, recipe_sha256, with_numbers
from exafsd.inference.candidates import MOST
from exafsd.inference.reading import (
    Model,
    Reader,
    Reading,
    choose,
    finish,
    flags,
    read,
    readers,
)
from exafsd.inference.refinement.polish import OFF, SHED, Polished
from exafsd.inference.refinement.polish_message import best_of, polish_message
from exafsd.inference.registry import Registry
from exafsd.publishing import outcomes
from exafsd.reduction.preparation import Preparation
from exafsd.reduction.reducer import Job, Reducer
from exafsd.reduction.transform import fit_window
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, ReducedSpectrum, Spectrum, SpectrumError, Sweep
from exafsd.spectra import Rejected as RejectedSpectrum

log = logging.getLogger(__name__)

#: combinations of settings and edge whose models are remembered
REMEMBERED = 256


@dataclass(frozen=True)
class Outcome:
    """What is published of one sweep, channel and edge."""

    message: Result | Rejected
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Panel:
    """Who may read the spectra of an edge under some settings.

    `reason` says why nobody may. `unasked` are models beyond those that can be asked.
    """

    readers: tuple[Reader, ...]
    reason: str | None
    unasked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Case:
    """A spectrum, and who may read it."""

    spectrum: Spectrum
    analysis: Analysis
    panel: _Panel


class Pipeline:
    """From sweeps to outcomes.

    Parameters
    ----------
    registry
        Models to read spectra with.
    arrays
        Names of the arrays that results carry.
    reducer
        Reduces spectra and keeps what their runs have settled.
    """

    def __init__(
        self, registry: Registry, arrays: tuple[str, ...], reducer: Reducer | None = None
    ) -> None:
        self._registry = registry
        self._arrays = arrays
        self._preparation = Preparation()
        self._reducer = reducer or Reducer()
        self._models = {name: Model.of(bundle) for name, bundle in registry.bundles.items()}
        self._panels: dict[tuple[str, Edge], _Panel] = {}

    def process(self, sweep: Sweep, analysis: Analysis) -> list[Outcome]:
        """One outcome for each channel and edge of a sweep; never raises on bad data."""
        return self.process_many([(sweep, analysis)])[0]

    def process_many(
        self, sweeps: Sequence[tuple[Sweep, Analysis]], room: bool = True
    ) -> list[list[Outcome]]:
        """Outcomes of sweeps in order, one for each channel and edge; never raises on bad data.

        Parameters
        ----------
        room
            Whether there is time for the polish, where settings leave that open.
        """
        outcomes_of: list[list[Outcome]] = []
        cases: list[_Case] = []
        places: list[tuple[int, int]] = []
        for sweep, analysis in sweeps:
            mine: list[Outcome] = []
            for spectrum in self._prepared(sweep, analysis):
                if isinstance(spectrum, RejectedSpectrum):
                    mine.append(Outcome(outcomes.rejection(spectrum, analysis.sha256), {}))
                else:
                    cases.append(_Case(spectrum, analysis, self._panel(spectrum.edge, analysis)))
                    places.append((len(outcomes_of), len(mine)))
                    mine.append(PENDING)
            outcomes_of.append(mine)
        for (i, j), outcome in zip(places, self._guarded(cases, room), strict=True):
            outcomes_of[i][j] = outcome
        return outcomes_of

    def reject(
        self, sweep: Sweep, analysis: Analysis, reason: str, detail: str
    ) -> Iterator[Outcome]:
        """One rejection for each channel and edge, without looking at the data."""
        for spectrum in self._preparation.refuse(sweep, analysis, reason, detail):
            yield Outcome(outcomes.rejection(spectrum, analysis.sha256), {})

    def end(self, run_uid: str) -> None:
        """Forget the state of a run."""
        self._preparation.end(run_uid)
        self._reducer.end(run_uid)

    def audit(self) -> list[str]:
        """Trouble that the audit against Larch has found since the last call."""
        return self._reducer.audit()

    def audit_metrics(self) -> dict[str, float] | None:
        """Numbers of the audit; None where there is none."""
        return self._reducer.audit_metrics()

    def close(self) -> None:
        """End what the pipeline has started."""
        self._reducer.close()

    def _prepared(self, sweep: Sweep, analysis: Analysis) -> list[Spectrum | RejectedSpectrum]:
        try:
            return self._preparation.spectra(sweep, analysis)
        except Exception as error:  # one spectrum must never stop the next
            log.exception("internal error id=%s/%s", sweep.run.uid, sweep.number)
            return list(self._preparation.refuse(sweep, analysis, "internal", _report(error)))

    def _panel(self, edge: Edge, analysis: Analysis) -> _Panel:
        key = (analysis.sha256, edge)
        panel = self._panels.get(key)
        if panel is None:
            if len(self._panels) >= REMEMBERED:
                self._panels.clear()
            panel = self._panels[key] = self._gathered(edge, analysis)
        return panel

    def _gathered(self, edge: Edge, analysis: Analysis) -> _Panel:
        wanted, reduction = analysis.inference, analysis.reduction
        if not wanted.enabled:
            return _Panel(readers([], reduction), "inference is off")
        bundles, reason = self._registry.candidates(edge, wanted.model, wanted.structure)
        names = [bundle.card.name for bundle in bundles]
        if names[:-MOST]:
            log.warning("models not asked, more than %d fit: %s", MOST, ", ".join(names[:-MOST]))
        models = [self._models[name] for name in names[-MOST:]]
        return _Panel(readers(models, reduction), reason, tuple(names[:-MOST]))

    def _guarded(self, cases: list[_Case], room: bool) -> list[Outcome]:
        """Outcomes of all; where something unforeseen fails, one by one."""
        try:
            return self._outcomes(cases, room)
        except Exception as error:
            if len(cases) > 1:
                return [self._guarded([case], room)[0] for case in cases]
            sweep = cases[0].spectrum.sweep
            log.exception("internal error id=%s/%s", sweep.run.uid, sweep.number)
            return [_rejected(cases[0], SpectrumError("internal", _report(error)))]

    def _outcomes(self, cases: list[_Case], room: bool) -> list[Outcome]:
        """Reduce, read and report spectra."""
        found: list[Outcome] = [PENDING] * len(cases)
        readings: dict[int, list[Reading]] = {}
        for i, made in enumerate(self._reduced(cases)):
            if isinstance(made, SpectrumError):
                found[i] = _rejected(cases[i], made)
            else:
                readings[i] = made
        reduced_at = time.perf_counter()
        read([one for some in readings.values() for one in some])
        chosen = {i: choose(some) for i, some in readings.items()}
        finish([(best, _unpolished(cases[i], room)) for i, (best, _) in chosen.items()])
        for i, (best, scores) in chosen.items():
            found[i] = self._result(cases[i], best, scores, reduced_at)
        return found

    def _reduced(self, cases: list[_Case]) -> Iterator[list[Reading] | SpectrumError]:
        """Reduce each spectrum once by every recipe that its readers want.

        A reader for whose recipe that fails is out; if it fails for all there is no result.
        """
        jobs: list[Job] = []
        places: dict[tuple[int, int], int] = {}  # case and recipe to place among the jobs
        for i, case in enumerate(cases):
            for reader in case.panel.readers:
                for recipe in (reader.shown_by, reader.read_by):
                    if (i, id(recipe)) not in places:
                        places[i, id(recipe)] = len(jobs)
                        jobs.append(Job(case.spectrum, case.analysis, recipe))
        reduced = self._reducer.reduce(jobs)
        for i, case in enumerate(cases):
            made: list[Reading] = []
            error = PENDING
            for reader in case.panel.readers:
                shown = reduced[places[i, id(reader.shown_by)]]
                own = reduced[places[i, id(reader.read_by)]]
                if isinstance(shown, ReducedSpectrum) and isinstance(own, ReducedSpectrum):
                    made.append(Reading(reader, shown, own, case.panel.reason))
                error = next((x for x in (own, shown) if isinstance(x, SpectrumError)), error)
            yield made or error

    def _result(
        self, case: _Case, best: Reading, scores: list[Candidate], reduced_at: float
    ) -> Outcome:
        model, shown, prediction = best.reader.model, best.shown, best.prediction
        spectrum = case.spectrum
        phases = ref = fit = polish = shown_best = None
        amplitude = UNREAD
        if model is not None:
            card = model.bundle.card
            ref = _model_ref(card.name, card.sha256["pinn.onnx"])
            fit = fit_window(model.fit, best.read.k_data[1])
            if prediction is not None and best.reason is None and best.polished is not None:
                phases, shells = model.readout(prediction)
                recipe = recipe_sha256(best.reader.read_by, case.analysis.reduction.rebin)
                inference = case.analysis.inference
                amplitude = with_numbers(shells, card, spectrum.channel, inference, recipe)
                polish = polish_message(card, best.polished)
                shown_best = best_of(best.polished)
        unasked = [Candidate(model=name, score=None) for name in case.panel.unasked]
        message = Result(
            **outcomes.of_spectrum(
                spectrum,
                shown.quality + amplitude.quality + flags(best),
                case.analysis.sha256,
            ),
            e0=shown.e0,
            e0_policy=case.analysis.reduction.e0_policy,
            energy_shift=_shift(spectrum),
            edge_step=Value(value=shown.edge_step, std=shown.edge_step_std),
            deglitched=list(spectrum.removed),
            epsilon_k=shown.epsilon_k,
            k_data=shown.k_data,
            fit=fit,
            model=ref,
            candidates=scores + unasked,
            phases=phases,
            shells=amplitude.shells,
            s02=amplitude.s02,
            n_reason=amplitude.reason,
            r_factor=best.r_factor,
            polish=polish,
            best=shown_best,
            trust=Trust(
                score=best.trust, in_domain=amplitude.shells is not None, reason=best.reason
            ),
        )
        if spectrum.sweep.received is not None:
            message.timing_ms.reduced = (reduced_at - spectrum.sweep.received) * 1e3
            message.timing_ms.inferred = (time.perf_counter() - spectrum.sweep.received) * 1e3
        known = _arrays(best)
        wanted = ((name, known.get(name)) for name in self._arrays)
        return Outcome(message, {name: array for name, array in wanted if array is not None})


#: place of an outcome that is not there yet
PENDING: Any = None


def _unpolished(case: _Case, room: bool) -> Polished | None:
    """What the polish of a spectrum is without being made; None where it is to be made."""
    wanted = case.analysis.inference.polish
    if wanted == "off":
        return OFF
    return SHED if wanted == "auto" and not room else None


def _rejected(case: _Case, error: SpectrumError) -> Outcome:
    spectrum = case.spectrum
    rejected = RejectedSpectrum(
        spectrum.sweep,
        spectrum.channel,
        spectrum.edge,
        spectrum.guessed,
        error.reason,
        error.detail,
        spectrum.quality,
        spectrum.averaged,
    )
    return Outcome(outcomes.rejection(rejected, case.analysis.sha256), {})


def _report(error: Exception) -> str:
    return f"internal error, please report it: {type(error).__name__}: {error}"


def _shift(spectrum: Spectrum) -> Calibrated | None:
    shift = spectrum.energy_shift
    if shift is None:
        return None
    return Calibrated(value=shift.value, std=shift.std, source=shift.source)


@lru_cache(maxsize=REMEMBERED)
def _model_ref(name: str, sha256: str) -> ModelRef:
    return ModelRef(name=name, sha256=sha256)


def _arrays(best: Reading) -> dict[str, NDArray[Any] | None]:
    """Arrays of a result; chi(k) is zero beyond the data, predictions there are extrapolated."""
    shown, prediction = best.shown, best.prediction
    return {
        "energy": shown.energy,
        "norm": shown.norm,
        "flat": shown.flat,
        "k": K_GRID,
        "chi_k2": best.chi_k2,
        "chi_k2_pred": prediction.chi_k2_pred if prediction is not None else None,
        "r": shown.r,
        "chir_mag": shown.chir_mag,
        "chir_mag_pred": best.chir_mag_pred,
    }

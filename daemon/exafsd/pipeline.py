"""One spectrum's way, readable top to bottom: sweep, mu, chi(k), theta, message. No threads.

Sweeps that are there together go through it together: on one energy grid the reduction is a
matrix product, and the network reads a batch for little more than one spectrum.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.analysis import Analysis, Reduction
from exafsd.contract.grid import K_GRID, rows_to_grid
from exafsd.contract.messages import Calibrated, ModelRef, Rejected, Result, Trust, Value
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.inference.readout import read_structure, trust_score
from exafsd.inference.registry import Bundle, Registry
from exafsd.publishing import outcomes
from exafsd.reduction.preparation import Preparation
from exafsd.reduction.reducer import Job, Reducer
from exafsd.reduction.transform import grid_transform, r_factor
from exafsd.spectra import Floats, Prediction, ReducedSpectrum, Spectrum, SpectrumError, Sweep
from exafsd.spectra import Rejected as RejectedSpectrum

log = logging.getLogger(__name__)

#: combinations of settings and model whose recipes are remembered
REMEMBERED = 256


@dataclass(frozen=True)
class Outcome:
    """What is published of one sweep, channel and edge."""

    message: Result | Rejected
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Case:
    """A spectrum, the model that is to read it (or why there is none), and its recipes."""

    spectrum: Spectrum
    analysis: Analysis
    bundle: Bundle | None
    reason: str | None
    shown_by: Recipe
    read_by: Recipe


@dataclass
class _Reading:
    """What the network says of a reduced spectrum."""

    reason: str | None  # why there is nothing, or why it must not be believed
    chi_k2: NDArray[np.float32]  # (401,) as shown
    prediction: Prediction | None = None
    r_factor: float | None = None
    chir_mag_pred: Floats | None = None


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
        self._recipes: dict[tuple[str, str | None], tuple[Recipe, Recipe]] = {}

    def process(self, sweep: Sweep, analysis: Analysis) -> list[Outcome]:
        """One outcome for each channel and edge of a sweep; never raises on bad data."""
        return self.process_many([(sweep, analysis)])[0]

    def process_many(self, sweeps: Sequence[tuple[Sweep, Analysis]]) -> list[list[Outcome]]:
        """Outcomes of sweeps in order, one for each channel and edge; never raises on bad data."""
        outcomes_of: list[list[Outcome]] = []
        cases: list[_Case] = []
        places: list[tuple[int, int]] = []
        for sweep, analysis in sweeps:
            mine: list[Outcome] = []
            for spectrum in self._prepared(sweep, analysis):
                if isinstance(spectrum, RejectedSpectrum):
                    mine.append(Outcome(outcomes.rejection(spectrum, analysis.sha256), {}))
                else:
                    cases.append(self._case(spectrum, analysis))
                    places.append((len(outcomes_of), len(mine)))
                    mine.append(PENDING)
            outcomes_of.append(mine)
        for (i, j), outcome in zip(places, self._guarded(cases), strict=True):
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

    def _case(self, spectrum: Spectrum, analysis: Analysis) -> _Case:
        bundle, reason = self._choose(spectrum, analysis)
        key = (analysis.sha256, bundle.card.name if bundle is not None else None)
        recipes = self._recipes.get(key)
        if recipes is None:
            if len(self._recipes) >= REMEMBERED:
                self._recipes.clear()
            card = bundle.card.recipe if bundle is not None else Recipe()
            recipes = self._recipes[key] = recipes_of(analysis.reduction, card)
        return _Case(spectrum, analysis, bundle, reason, *recipes)

    def _choose(self, spectrum: Spectrum, analysis: Analysis) -> tuple[Bundle | None, str | None]:
        if not analysis.inference.enabled:
            return None, "inference is off"
        wanted = analysis.inference
        return self._registry.choose(spectrum.edge, wanted.model, wanted.structure)

    def _guarded(self, cases: list[_Case]) -> list[Outcome]:
        """Outcomes of all; where something unforeseen fails, one by one."""
        try:
            return self._outcomes(cases)
        except Exception as error:
            if len(cases) > 1:
                return [self._guarded([case])[0] for case in cases]
            sweep = cases[0].spectrum.sweep
            log.exception("internal error id=%s/%s", sweep.run.uid, sweep.number)
            return [_rejected(cases[0], SpectrumError("internal", _report(error)))]

    def _outcomes(self, cases: list[_Case]) -> list[Outcome]:
        """Reduce, read and report spectra."""
        jobs = [Job(c.spectrum, c.analysis, c.shown_by) for c in cases]
        apart = [i for i, c in enumerate(cases) if c.read_by is not c.shown_by]
        jobs += [Job(cases[i].spectrum, cases[i].analysis, cases[i].read_by) for i in apart]
        reduced = self._reducer.reduce(jobs)
        shown, read = reduced[: len(cases)], reduced[: len(cases)]
        for i, one in zip(apart, reduced[len(cases) :], strict=True):
            read[i] = one
        found: list[Outcome] = [PENDING] * len(cases)
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, (case, one, other) in enumerate(zip(cases, shown, read, strict=True)):
            for error in (one, other):
                if isinstance(error, SpectrumError):
                    found[i] = _rejected(case, error)
            if isinstance(one, ReducedSpectrum) and isinstance(other, ReducedSpectrum):
                name = case.bundle.card.name if case.bundle is not None else None
                alike[name, case.shown_by, one.k_data, other.k_data].append(i)
        reduced_at = time.perf_counter()
        for members in alike.values():
            group = [(cases[i], shown[i], read[i]) for i in members]
            readings = _read(group)  # type: ignore[arg-type]  # errors were sorted out above
            for i, (case, one, other), reading in zip(members, group, readings, strict=True):
                found[i] = self._result(case, one, other, reading, reduced_at)  # type: ignore[arg-type]
        return found

    def _result(
        self,
        case: _Case,
        shown: ReducedSpectrum,
        read: ReducedSpectrum,
        reading: _Reading,
        reduced_at: float,
    ) -> Outcome:
        bundle, prediction, reason = case.bundle, reading.prediction, reading.reason
        spectrum = case.spectrum
        phases = shells = model = fit = score = None
        if bundle is not None:
            model = _model_ref(bundle.card.name, bundle.card.sha256["pinn.onnx"])
            fit = fit_window(bundle.card.fit[0], read.k_data[1])
        if bundle is not None and prediction is not None:
            score = trust_score(bundle.card, prediction.ood)
            if reason is None:
                phases, shells = read_structure(bundle.card, prediction)
        message = Result(
            **outcomes.of_spectrum(spectrum, shown.quality, case.analysis.sha256),
            e0=shown.e0,
            e0_policy=case.analysis.reduction.e0_policy,
            energy_shift=_shift(spectrum),
            edge_step=Value(value=shown.edge_step, std=shown.edge_step_std),
            deglitched=list(spectrum.removed),
            epsilon_k=shown.epsilon_k,
            k_data=shown.k_data,
            fit=fit,
            model=model,
            phases=phases,
            shells=shells,
            r_factor=reading.r_factor,
            best="network" if shells is not None else None,
            trust=Trust(score=score, in_domain=shells is not None, reason=reason),
        )
        if spectrum.sweep.received is not None:
            message.timing_ms.reduced = (reduced_at - spectrum.sweep.received) * 1e3
            message.timing_ms.inferred = (time.perf_counter() - spectrum.sweep.received) * 1e3
        arrays = _arrays(shown, reading)
        return Outcome(message, {name: arrays[name] for name in self._arrays if name in arrays})


#: place of an outcome that is not there yet
PENDING: Any = None


def recipes_of(settings: Reduction, card: Recipe) -> tuple[Recipe, Recipe]:
    """Recipes for display and for the model; the same object where they are equal.

    Ranges in energy belong to the scan and hold for the model, too; the model's background and
    transform are its own, and what was asked for display is computed beside it.
    """
    read_by = card.model_copy(update={"pre_edge": settings.pre_edge})
    shown_by = Recipe(
        pre_edge=settings.pre_edge,
        autobk=settings.autobk or card.autobk,
        xftf=settings.xftf or card.xftf,
    )
    return shown_by, shown_by if read_by == shown_by else read_by


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


def _read(group: Sequence[tuple[_Case, ReducedSpectrum, ReducedSpectrum]]) -> list[_Reading]:
    """Let the model read spectra that have model, recipes and data range in common."""
    first, shown, read = group[0]
    bundle = first.bundle
    chi_k2, _ = rows_to_grid(np.stack([one.chi for _, one, _ in group]), 0.0, shown.k_data[1])
    readings = [
        _Reading(case.reason or _unfit(other, bundle, case.analysis.reduction.k_max_min), row)
        for (case, _, other), row in zip(group, chi_k2, strict=True)
    ]
    fit = [i for i, reading in enumerate(readings) if reading.reason is None]
    if bundle is None or not fit:
        return readings
    k_end = read.k_data[1]
    chi = np.stack([group[i][2].chi for i in fit])
    rows, mask = rows_to_grid(chi, bundle.card.k_grid.k_min, k_end)
    predictions = bundle.predictor.predict(rows, np.broadcast_to(mask, rows.shape))
    data, _ = rows_to_grid(chi, 0.0, k_end)
    exafs = np.stack([p.chi_k2_exafs for p in predictions])
    factors = r_factor(data, exafs, fit_window(bundle.card.fit[0], k_end), k_end)
    shown_k_end = shown.k_data[1]
    predicted = np.stack([p.chi_k2_pred for p in predictions])
    chir_mag = np.abs(grid_transform(first.shown_by.xftf, shown_k_end)(predicted))
    for n, i in enumerate(fit):
        readings[i].prediction = predictions[n]
        readings[i].r_factor = float(factors[n]) if np.isfinite(factors[n]) else None
        readings[i].chir_mag_pred = chir_mag[n]
        readings[i].reason = _distrust(bundle, predictions[n])
    return readings


def _unfit(read: ReducedSpectrum, bundle: Bundle | None, k_max_min: float) -> str | None:
    """Why a spectrum must not be given to its model; None if it may."""
    if bundle is None:
        return None
    if "wrong_element" in read.quality:
        return (
            f"the edge was found at {read.e0:.0f} eV, too far from {bundle.card.absorber}"
            f" {bundle.card.edge}: wrong element, or an uncalibrated monochromator"
        )
    shortest = max(k_max_min, bundle.card.thresholds.k_max_min)
    if read.k_data[1] < shortest:
        return (
            f"the data end at k = {read.k_data[1]:.1f}; the model needs {shortest:.1f} 1/angstrom"
        )
    return None


def _distrust(bundle: Bundle, prediction: Prediction) -> str | None:
    """Why the parameters are withheld; None if they may be believed."""
    if not (np.isfinite(prediction.theta).all() and np.isfinite(prediction.theta_cov).all()):
        return "the network's answer is not finite"
    if not prediction.ood <= bundle.card.thresholds.ood:
        return (
            f"out of the model's domain: the spectrum does not fit {bundle.card.name}"
            f" (score {prediction.ood:.3g}, limit {bundle.card.thresholds.ood:.3g})"
        )
    return None


@lru_cache(maxsize=REMEMBERED)
def fit_window(fit: FitWindow, k_end: float) -> FitWindow:
    """Fit window cut to the data, as the reference fits do."""
    return fit.model_copy(update={"k": (fit.k[0], min(fit.k[1], k_end - 0.5))})


def _shift(spectrum: Spectrum) -> Calibrated | None:
    shift = spectrum.energy_shift
    if shift is None:
        return None
    return Calibrated(value=shift.value, std=shift.std, source=shift.source)


@lru_cache(maxsize=REMEMBERED)
def _model_ref(name: str, sha256: str) -> ModelRef:
    return ModelRef(name=name, sha256=sha256)


def _arrays(shown: ReducedSpectrum, reading: _Reading) -> dict[str, NDArray[Any]]:
    """Arrays of a result; chi(k) is zero beyond the data, predictions there are extrapolated."""
    arrays: dict[str, NDArray[Any]] = {
        "energy": shown.energy,
        "norm": shown.norm,
        "flat": shown.flat,
        "k": K_GRID,
        "chi_k2": reading.chi_k2,
        "r": shown.r,
        "chir_mag": shown.chir_mag,
    }
    if reading.prediction is not None and reading.chir_mag_pred is not None:
        arrays["chi_k2_pred"] = reading.prediction.chi_k2_pred
        arrays["chir_mag_pred"] = reading.chir_mag_pred
    return arrays

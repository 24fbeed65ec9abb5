"""One spectrum's way, readable top to bottom: sweep, mu, chi(k), theta, message. No threads."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.analysis import Analysis
from exafsd.contract.grid import K_GRID, to_grid
from exafsd.contract.messages import ModelRef, Rejected, Result, Trust, Value
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.inference.readout import read_structure, trust_score
from exafsd.inference.registry import Bundle, Registry
from exafsd.publishing import outcomes
from exafsd.reduction.reducer import Reducer, spectra_of
from exafsd.reduction.transform import chi_r, r_factor
from exafsd.spectra import Prediction, ReducedSpectrum, Spectrum, SpectrumError, Sweep
from exafsd.spectra import Rejected as RejectedSpectrum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What is published of one sweep, channel and edge."""

    message: Result | Rejected
    arrays: Mapping[str, NDArray[Any]]


class Pipeline:
    """From sweeps to outcomes.

    Parameters
    ----------
    registry
        Models to read spectra with.
    arrays
        Names of the arrays that results carry.
    """

    def __init__(self, registry: Registry, arrays: tuple[str, ...]) -> None:
        self._registry = registry
        self._arrays = arrays
        self._reducer = Reducer()

    def process(self, sweep: Sweep, analysis: Analysis) -> Iterator[Outcome]:
        """One outcome for each channel and edge of a sweep; never raises on bad data."""
        sha256 = analysis.sha256
        for spectrum in spectra_of(sweep, analysis):
            if isinstance(spectrum, RejectedSpectrum):
                yield Outcome(outcomes.rejection(spectrum, sha256), {})
                continue
            try:
                yield self._result(spectrum, analysis, sha256)
            except SpectrumError as error:
                yield self._rejected(spectrum, error.reason, error.detail, sha256)
            except Exception as error:  # one spectrum must never stop the next
                log.exception("internal error id=%s/%s", sweep.run.uid, sweep.number)
                detail = f"internal error, please report it: {type(error).__name__}: {error}"
                yield self._rejected(spectrum, "internal", detail, sha256)

    def reject(
        self, sweep: Sweep, analysis: Analysis, reason: str, detail: str
    ) -> Iterator[Outcome]:
        """One rejection for each channel and edge, without looking at the data."""
        for spectrum in spectra_of(sweep, analysis):
            if isinstance(spectrum, RejectedSpectrum):
                yield Outcome(outcomes.rejection(spectrum, analysis.sha256), {})
            else:
                yield self._rejected(spectrum, reason, detail, analysis.sha256)

    def end(self, run_uid: str) -> None:
        """Forget the state of a run."""
        self._reducer.end(run_uid)

    def _rejected(self, spectrum: Spectrum, reason: str, detail: str, sha256: str) -> Outcome:
        rejected = RejectedSpectrum(
            spectrum.sweep,
            spectrum.channel,
            spectrum.edge,
            spectrum.guessed,
            reason,
            detail,
            spectrum.quality,
        )
        return Outcome(outcomes.rejection(rejected, sha256), {})

    def _result(self, spectrum: Spectrum, analysis: Analysis, sha256: str) -> Outcome:
        settings = analysis.reduction
        bundle, reason = self._choose(spectrum, analysis)
        card_recipe = bundle.card.recipe if bundle is not None else Recipe()
        # ranges in energy belong to the scan and hold for the model, too; the model's background
        # and transform are its own, and what was asked for display is computed beside it
        inferred_by = card_recipe.model_copy(update={"pre_edge": settings.pre_edge})
        shown_by = Recipe(
            pre_edge=settings.pre_edge,
            autobk=settings.autobk or card_recipe.autobk,
            xftf=settings.xftf or card_recipe.xftf,
        )
        shown = self._reducer.reduce(spectrum, analysis, shown_by)
        read = shown
        if bundle is not None and inferred_by != shown_by:
            read = self._reducer.reduce(spectrum, analysis, inferred_by)
        reduced_ms = _elapsed(spectrum.sweep)

        reason = reason or _unfit(read, bundle, settings.k_max_min)
        prediction = None
        if bundle is not None and reason is None:
            prediction = _predict(bundle, read)
        return self._message(
            spectrum, analysis, sha256, shown, read, bundle, prediction, reason, reduced_ms
        )

    def _choose(self, spectrum: Spectrum, analysis: Analysis) -> tuple[Bundle | None, str | None]:
        if not analysis.inference.enabled:
            return None, "inference is off"
        wanted = analysis.inference
        return self._registry.choose(spectrum.edge, wanted.model, wanted.structure)

    def _message(
        self,
        spectrum: Spectrum,
        analysis: Analysis,
        sha256: str,
        shown: ReducedSpectrum,
        read: ReducedSpectrum,
        bundle: Bundle | None,
        prediction: Prediction | None,
        reason: str | None,
        reduced_ms: float | None,
    ) -> Outcome:
        phases = shells = model = fit = factor = score = None
        if bundle is not None:
            model = ModelRef(name=bundle.card.name, sha256=bundle.card.sha256["pinn.onnx"])
            fit = _fit_window(bundle.card.fit[0], read)
        if bundle is not None and prediction is not None and fit is not None:
            score = trust_score(bundle.card, prediction.ood)
            data, _ = to_grid(read.k, read.chi, 0.0, read.k_data[1])
            factor = r_factor(data, prediction.chi_k2_exafs, fit, read.k_data[1])
            reason = _distrust(bundle, prediction)
            if reason is None:
                phases, shells = read_structure(bundle.card, prediction)
        message = Result(
            **outcomes.of_spectrum(spectrum, shown.quality, sha256),
            e0=shown.e0,
            e0_policy=analysis.reduction.e0_policy,
            edge_step=Value(value=shown.edge_step, std=shown.edge_step_std),
            epsilon_k=shown.epsilon_k,
            k_data=shown.k_data,
            fit=fit,
            model=model,
            phases=phases,
            shells=shells,
            r_factor=factor,
            best="network" if shells is not None else None,
            trust=Trust(score=score, in_domain=shells is not None, reason=reason),
        )
        message.timing_ms.reduced = reduced_ms
        message.timing_ms.inferred = _elapsed(spectrum.sweep)
        arrays = _arrays(shown, prediction)
        return Outcome(message, {name: arrays[name] for name in self._arrays if name in arrays})


def _elapsed(sweep: Sweep) -> float | None:
    """Milliseconds since the document that completed the sweep was received."""
    return None if sweep.received is None else (time.perf_counter() - sweep.received) * 1e3


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


def _predict(bundle: Bundle, read: ReducedSpectrum) -> Prediction:
    grid = bundle.card.k_grid
    chi_k2, mask = to_grid(read.k, read.chi, grid.k_min, read.k_data[1])
    return bundle.predictor.predict(chi_k2[None], mask[None])[0]


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


def _fit_window(fit: FitWindow, read: ReducedSpectrum) -> FitWindow:
    """Fit window cut to the data, as the reference fits do."""
    return fit.model_copy(update={"k": (fit.k[0], min(fit.k[1], read.k_data[1] - 0.5))})


def _arrays(shown: ReducedSpectrum, prediction: Prediction | None) -> dict[str, NDArray[Any]]:
    """Arrays of a result; chi(k) is zero beyond the data, predictions there are extrapolated."""
    chi_k2, _ = to_grid(shown.k, shown.chi, 0.0, shown.k_data[1])
    arrays: dict[str, NDArray[Any]] = {
        "energy": shown.energy,
        "norm": shown.norm,
        "flat": shown.flat,
        "k": K_GRID,
        "chi_k2": chi_k2,
        "r": shown.r,
        "chir_mag": shown.chir_mag,
    }
    if prediction is not None:
        _, chir = chi_r(prediction.chi_k2_pred, shown.recipe.xftf, shown.k_data[1])
        arrays["chi_k2_pred"] = prediction.chi_k2_pred
        arrays["chir_mag_pred"] = np.abs(chir)
    return arrays

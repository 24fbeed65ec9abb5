"""What is published of a spectrum: the result of an answer, or why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from exafsd.composition.purity import has_other_phases
from exafsd.contract.messages import (
    Calibrated,
    Candidate,
    Composition,
    Mixture,
    ModelRef,
    Phase,
    Rejected,
    Result,
    Shell,
    Trust,
    Value,
    Xanes,
)
from exafsd.contract.vocabulary import DOUBTS, Flag
from exafsd.inference.amplitude import UNREAD, recipe_sha256, with_numbers
from exafsd.inference.judgement import Judgement
from exafsd.inference.reading import Answer
from exafsd.inference.refinement.polish_message import best_of, polish_message
from exafsd.publishing import outcomes
from exafsd.reduction.transform import fit_window
from exafsd.spectra import Rejected as RejectedSpectrum
from exafsd.spectra import Spectrum

#: models whose names and hashes are remembered
REMEMBERED = 256


@dataclass(frozen=True)
class Outcome:
    """What is published of one sweep, channel and edge."""

    message: Result | Rejected
    arrays: Mapping[str, NDArray[Any]]
    #: time.perf_counter() when the document that completed the sweep was received, s
    received: float | None = None


def rejection(spectrum: RejectedSpectrum) -> Outcome:
    """Outcome of a rejected spectrum."""
    return Outcome(outcomes.rejection(spectrum), {}, spectrum.id.sweep.received)


def result(
    spectrum: Spectrum,
    best: Answer,
    structure: tuple[list[Phase], list[Shell]] | None,
    composition: Composition | None,
    mixture: Mixture | None,
    xanes: Xanes | None,
    flags: Sequence[Flag],
    unasked: Sequence[str],
    models_sha256: str,
) -> Result:
    """Message of an answer.

    Parameters
    ----------
    spectrum
        What was measured.
    best
        The answer of the model that is believed most, or of none.
    structure
        Its phases and shells; None where it is not believed.
    composition, mixture
        What the near edge and the EXAFS of all phases say, where that is known.
    xanes
        Numbers of the near edge, and whether it changes.
    flags
        What was noticed of the composition.
    unasked
        Models of the edge that were not asked.
    models_sha256
        Of all models that are loaded.
    """
    reading, judgement = best.reading, best.judgement
    model, shown = reading.reader.model, reading.shown
    analysis = spectrum.id.analysis
    phases = ref = fit = polish = shown_best = read_by = None
    amplitude = UNREAD
    if model is not None:
        card = model.bundle.card
        ref = _model_ref(card.name, model.sha256)
        fit = fit_window(model.fit, reading.read.k_data[1])
        if structure is not None and best.polished is not None:
            phases, shells = structure
            read_by = "network" if model.fitter is None else "fit"
            settings, recipe = analysis.inference, ""
            if settings.s02:  # a hash takes its time
                recipe = recipe_sha256(reading.reader.read_by, analysis.reduction.rebin)
            amplitude = with_numbers(shells, card, spectrum.id.channel, settings, recipe)
            polish = polish_message(card, best.polished)
            shown_best = best_of(card, best.polished)
    quality = (*shown.quality, *amplitude.quality, *judgement.flags, *flags)
    if structure is not None and model is not None and composition is not None:
        formulas = [one.formula for one in model.bundle.card.structures]
        if Flag.OTHER_PHASES not in quality and has_other_phases(composition, formulas):
            quality = (*quality, Flag.OTHER_PHASES)
    return Result.of(
        **outcomes.identity(spectrum.id, quality, spectrum.averaged),
        e0=shown.e0,
        e0_policy=analysis.reduction.e0_policy,
        energy_shift=_shift(spectrum),
        edge_step=Value(shown.edge_step, shown.edge_step_std),
        deglitched=list(spectrum.removed),
        epsilon_k=shown.epsilon_k,
        k_data=shown.k_data,
        fit=fit,
        model=ref,
        candidates=best.scores + [Candidate(model=name, score=None) for name in unasked],
        models_sha256=models_sha256,
        phases=phases,
        shells=amplitude.shells,
        read_by=read_by,
        s02=amplitude.s02,
        n_reason=amplitude.reason,
        r_factor=reading.r_factor,
        polish=polish,
        best=shown_best,
        composition=composition,
        mixture=mixture,
        xanes=xanes,
        trust=_trust(judgement, quality, amplitude.shells is not None),
        arrays=[],
    )


def _trust(judgement: Judgement, quality: Sequence[Flag], read: bool) -> Trust:
    doubts = [flag.words for flag in quality if flag in DOUBTS] if read else []
    state = "withheld" if not read else "flagged" if doubts else "trusted"
    return Trust(
        score=judgement.score, in_domain=read, state=state, doubts=doubts, reason=judgement.reason
    )


def _shift(spectrum: Spectrum) -> Calibrated | None:
    shift = spectrum.energy_shift
    if shift is None:
        return None
    return Calibrated(value=shift.value, std=shift.std, source=shift.source)


@lru_cache(maxsize=REMEMBERED)
def _model_ref(name: str, sha256: str) -> ModelRef:
    return ModelRef(name=name, sha256=sha256)

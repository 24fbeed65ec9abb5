"""What models say of reduced spectra: read in batches, the most plausible chosen, refined."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.grid import K_GRID, K_STEP, rows_to_grid
from exafsd.contract.messages import Candidate, Phase, Shell
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.contract.vocabulary import DOUBTS, Flag
from exafsd.inference import candidates
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.judgement import (
    AMBIGUOUS,
    Judge,
    Judgement,
    r_factor_denominator_floor,
    signal_end,
)
from exafsd.inference.predictor import Predictor, Rows
from exafsd.inference.readout import Readout
from exafsd.inference.refinement.polish import Polished, Polisher
from exafsd.inference.refinement.refiner import Refiner
from exafsd.inference.refinement.trend import Trend
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.registry import Bundle
from exafsd.inference.second_phase import Rival
from exafsd.logs import get_logger
from exafsd.reduction.transform import fit_weight, fit_window, grid_transform, misfit
from exafsd.settings.analysis import Reduction
from exafsd.spectra import Floats, Prediction, ReducedSpectrum

log = get_logger(__name__)

#: Least end of the data, 1/angstrom, to which a spectrum is cut where noise drowns the rest. Below
#: it a wrong structure fits too easily: Cu2S passes for copper on data to 9.5.
CLEAN_END = 10.0
#: Noise at the end that is not worth a second look, 1/angstrom.
NOT_CUT = 0.5
#: Why a spectrum that only a fit could read has no numbers.
NOT_FITTED = "there was no time for a fit while spectra came in; exafsd replay makes it"
#: What a spectrum must not have that is to teach the trend of its run.
UNSURE = DOUBTS | {Flag.PARTIAL, Flag.GAP}


@dataclass(frozen=True)
class Model:
    """A bundle at work; `fit` is the window of all its phases, or of its fit.

    `sha256` is its card's `model_sha256`, which takes time to make.
    `refiner` is None for an older bundle, whose polish is the fit of the nearest shells alone, and
    where `fitter` reads by a fit of its own, since there is no network.
    """

    bundle: Bundle
    sha256: str
    fitter: CrystalFit | None
    polisher: Polisher
    refiner: Refiner | None
    readout: Readout
    judge: Judge
    fit: FitWindow

    @classmethod
    def of(cls, bundle: Bundle) -> "Model":
        """Put a bundle to work."""
        card = bundle.card
        polisher = Polisher(card, bundle.equation, fit_weight)
        refiner = fitter = None
        window = candidates.common_window(card.fit)
        if bundle.predictor is None and bundle.waves is not None:
            fitter = CrystalFit(card, bundle.waves, bundle.equation, fit_weight)
            window = fitter.window
        elif bundle.waves is not None and Variables.of(card) is not None:
            refiner = Refiner(card, bundle.waves, fit_weight)
        return cls(
            bundle, card.model_sha256, fitter, polisher, refiner, Readout(card), Judge(card), window
        )


def compare_fits(models: Sequence[Model]) -> None:
    """Let the fits of every model look for the phases of the others of its edge."""
    edges: dict[tuple[str, str], list[Model]] = {}
    for model in models:
        edges.setdefault((model.bundle.card.absorber, model.bundle.card.edge), []).append(model)
    for alike in edges.values():
        rivals = {id(m): Rival.of(m.bundle.card, m.bundle.waves) for m in alike}
        for model in alike:
            others = [rivals[id(m)] for m in alike if m is not model]
            if model.fitter is not None:
                model.fitter.compare_with([rival for rival in others if rival is not None])


@dataclass(frozen=True)
class Reader:
    """A model with its recipes, or the recipe for a spectrum that no model reads.

    `k_max_min` is where data must end for the settings, 1/angstrom. `compared_in` is the window in
    which all candidates for a spectrum are compared; None where there is one only.
    """

    model: Model | None
    shown_by: Recipe
    read_by: Recipe
    k_max_min: float
    compared_in: FitWindow | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.bundle.card.name if self.model is not None else ""


@dataclass(frozen=True)
class Reading:
    """What one reader makes of a spectrum.

    `shown` is reduced as the settings ask, `read` as the model was given it. `reason` says why
    nothing was read, or why it must not be believed.
    """

    reader: Reader
    shown: ReducedSpectrum
    read: ReducedSpectrum
    reason: str | None
    prediction: Prediction | None = None
    trust: float | None = None
    r_factor: float | None = None
    #: the same, relative to half the material's usual signal where the spectrum has less
    usual_r_factor: float | None = None
    #: R-factor in the window that all candidates share
    misfit: float = np.nan
    #: where the noise begins before which the network was given the spectrum, 1/angstrom
    noisy_end: float | None = None


#: what the sweeps of a run have in common, by model
Trends = MutableMapping[str, Trend]


@dataclass(frozen=True)
class Question:
    """What all readers make of a spectrum, and what its run remembers.

    `skipped` is what its polish is without being made; None where it is to be made. `trends` are
    those of its run, stream and channel; None where it stands alone; `teaches` is false for a sweep
    of which these know an earlier reading.
    """

    readings: Sequence[Reading]
    skipped: Polished | None = None
    trends: Trends | None = None
    teaches: bool = True


@dataclass(frozen=True)
class Answer:
    """The reading that is published, whether it is believed, and what goes with it."""

    reading: Reading
    judgement: Judgement
    scores: list[Candidate]
    chi_k2: NDArray[np.float32]  # (401,) as shown
    chir_mag_pred: Floats | None = None
    polished: Polished | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any] | None]:
        """Of a result; chi(k) is zero beyond the data, predictions there are extrapolated."""
        shown, prediction = self.reading.shown, self.reading.prediction
        return {
            "energy": shown.energy,
            "norm": shown.norm,
            "flat": shown.flat,
            "k": K_GRID,
            "chi_k2": self.chi_k2,
            "chi_k2_pred": prediction.chi_k2_pred if prediction is not None else None,
            "r": shown.r,
            "chir_mag": shown.chir_mag,
            "chir_mag_pred": self.chir_mag_pred,
        }


def readers(models: Sequence[Model], reduction: Reduction) -> tuple[Reader, ...]:
    """Readers of models, at least one; recipes that are equal are one object."""
    recipes: dict[Recipe, Recipe] = {}
    window = candidates.common_window([m.fit for m in models]) if len(models) > 1 else None

    def reader(model: Model | None, card: Recipe) -> Reader:
        shown_by, read_by = (recipes.setdefault(r, r) for r in recipes_of(reduction, card))
        return Reader(model, shown_by, read_by, reduction.k_max_min, window)

    if not models:
        return (reader(None, Recipe()),)
    return tuple(reader(model, model.bundle.card.recipe) for model in models)


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


def read_each(
    unread: Sequence[Sequence[Reading]],
    room: bool = True,
    unplaced: Callable[[Sequence[tuple[int, int]]], Sequence[Reading]] | None = None,
) -> list[list[Reading]]:
    """Let models read spectra; (spectra, models), in order.

    Fits take ten times a network's time, so they are made only of spectra about which no network
    is sure, and where there is `room` for them. Those that are not made come back unread.

    Parameters
    ----------
    unread
        Reduced spectra and who may read them.
    room
        Whether there is time for fits.
    unplaced
        Reduces spectra anew for fits, by place (spectrum, model); None: they are not.
    """
    every = [list(spectrum) for spectrum in unread]

    def read_at(places: Sequence[tuple[int, int]]) -> None:
        done = read([every[i][j] for i, j in places])
        for (i, j), one in zip(places, done, strict=True):
            every[i][j] = one

    places = [(i, j) for i, spectrum in enumerate(every) for j in range(len(spectrum))]
    fits = [(i, j) for i, j in places if _by_fit(every[i][j])]
    read_at([place for place in places if place not in set(fits)] if fits else places)
    sure = {i for i in {i for i, _ in fits} if any(map(_is_sure, every[i]))}
    unsure = [(i, j) for i, j in fits if i not in sure]
    if room:
        if unplaced is not None and unsure:
            for (i, j), one in zip(unsure, unplaced(unsure), strict=True):
                every[i][j] = one
        read_at(unsure)
    else:
        for i, j in unsure:
            every[i][j] = replace(every[i][j], reason=every[i][j].reason or NOT_FITTED)
    return every


def _by_fit(one: Reading) -> bool:
    return one.reader.model is not None and one.reader.model.fitter is not None


def _is_sure(one: Reading) -> bool:
    """Whether a model has read a spectrum, and nothing speaks against it."""
    return one.prediction is not None and one.reason is None and not DOUBTS & {*_judged(one).flags}


def read(unread: Sequence[Reading]) -> list[Reading]:
    """Let models read their spectra, those of one model and data range together; in order.

    Spectra that have a reason already, or that their model must not be given, come back unread.
    """
    reasons = [one.reason or _unfit(one) for one in unread]
    readings = [
        one if reason == one.reason else replace(one, reason=reason)
        for one, reason in zip(unread, reasons, strict=True)
    ]
    fit = (i for i, one in enumerate(readings) if one.reason is None)
    for group in _alike(fit, lambda i: (id(readings[i].reader), readings[i].read.k_data)):
        model = readings[group[0]].reader.model
        if model is not None:
            done = _read(model, [readings[i] for i in group])
            for i, one in zip(group, done, strict=True):
                readings[i] = one
    return readings


def _unfit(unread: Reading) -> str | None:
    model = unread.reader.model
    return None if model is None else model.judge.unfit(unread.read, unread.reader.k_max_min)


def _read(model: Model, group: Sequence[Reading]) -> Iterable[Reading]:
    bundle, k_end = model.bundle, group[0].read.k_data[1]
    chi = np.array([one.read.chi for one in group])
    data, _ = rows_to_grid(chi, 0.0, k_end)
    noisy_ends: dict[int, float] = {}
    if bundle.predictor is not None:
        rows, mask = rows_to_grid(chi, bundle.card.k_grid.k_min, k_end)
        predictions = bundle.predictor.predict(rows, np.broadcast_to(mask, rows.shape))
        noisy_ends = _read_before_noise(bundle, bundle.predictor, predictions, rows, mask)
    elif model.fitter is not None:
        zeros = [model.judge.e0_shift(one.read) for one in group]
        noise = [one.read.epsilon_k for one in group]
        predictions = model.fitter(data, k_end, noise, zeros)
    else:
        return
    exafs = np.array([p.chi_k2_exafs for p in predictions])
    own = misfit(data, exafs, fit_window(model.fit, k_end), k_end)
    r_factors = common = own.r_factor()
    window = group[0].reader.compared_in
    if window is not None:
        common = misfit(data, exafs, fit_window(window, k_end), k_end).r_factor()
    usual_r_factors = own.r_factor(r_factor_denominator_floor(bundle.card, k_end))
    factors = zip(r_factors.tolist(), usual_r_factors.tolist(), common.tolist(), strict=True)
    for i, (one, prediction, three) in enumerate(zip(group, predictions, factors, strict=True)):
        r_factor, usual, shared = three
        yield Reading(
            one.reader,
            one.shown,
            one.read,
            reason=model.judge.distrust(one.read, prediction),
            prediction=prediction,
            trust=model.judge.score(prediction),
            r_factor=r_factor if math.isfinite(r_factor) else None,
            usual_r_factor=usual if math.isfinite(usual) else None,
            misfit=shared,
            noisy_end=noisy_ends.get(i),
        )


def _read_before_noise(
    bundle: Bundle,
    predictor: Predictor,
    predictions: list[Prediction],
    rows: Rows,
    mask: Rows,
) -> dict[int, float]:
    """Read spectra that do not fit once more, without an end that is mostly noise.

    Slow drifts and glitches of a detector are not white, and at high k larger than the signal.
    Such a spectrum would be withheld for the part that says nothing.

    Returns
    -------
    ends
        Place of each spectrum whose prediction is now that of its first part, and where that ends,
        1/angstrom.
    """
    limit = bundle.card.thresholds.ood
    strange = [i for i, p in enumerate(predictions) if p.ood > limit]
    if not strange:
        return {}
    fields = np.array([predictions[i].chi_k2_pred for i in strange])
    ends = signal_end(rows[strange], fields, mask)
    last_end = float(K_GRID[mask > 0].max()) - NOT_CUT
    again = [(i, end) for i, end in zip(strange, ends, strict=True) if CLEAN_END <= end <= last_end]
    if not again:
        return {}
    cut = np.array([mask * (end + K_STEP / 2 >= K_GRID) for _, end in again]).astype(np.float32)
    shorter = predictor.predict(rows[[i for i, _ in again]] * cut, cut)
    noisy_ends: dict[int, float] = {}
    for (i, end), prediction in zip(again, shorter, strict=True):
        if prediction.ood <= limit:
            predictions[i], noisy_ends[i] = prediction, float(end)
    return noisy_ends


def choose(readings: Sequence[Reading]) -> tuple[Reading, list[Candidate]]:
    """Choose the reading to publish; all models with their scores, the most plausible first."""
    done = [one for one in readings if one.prediction is not None]
    if not done:
        return readings[0], _scored(readings, {})
    k_end = min(one.read.k_data[1] for one in done)
    window = done[0].reader.compared_in
    n_idp = candidates.independent_points(fit_window(window, k_end)) if window else 0.0
    choice = candidates.choose([_contender(one) for one in done], n_idp)
    best, score = done[choice.best], choice.scores[choice.best]
    rivals = [f"{done[i].reader.name} ({choice.scores[i]:.2g})" for i in choice.rivals]
    others = [one.reader.name for one in done if one is not best]
    scores = {id(one): score for one, score in zip(done, choice.scores, strict=True)}
    scored = _scored(readings, scores)
    if best.reason is None and rivals:
        best = replace(best, reason=AMBIGUOUS.format(best.reader.name, score, ", ".join(rivals)))
    elif best.reason is not None and others:
        best = replace(best, reason=f"{best.reason}; less plausible still: {', '.join(others)}")
    return best, scored


def _contender(one: Reading) -> candidates.Contender:
    model = one.reader.model
    structures = model.bundle.card.structures if model is not None else ()
    return candidates.Contender(structures, one.trust or 0.0, one.reason is None, one.misfit)


def _scored(readings: Sequence[Reading], scores: dict[int, float]) -> list[Candidate]:
    scored = [
        Candidate(model=one.reader.name, score=scores.get(id(one)))
        for one in readings
        if one.reader.model is not None
    ]
    return sorted(scored, key=lambda c: -1.0 if c.score is None else c.score, reverse=True)


def answer(questions: Sequence[Question]) -> list[Answer]:
    """Choose, refine and judge; one answer for each spectrum, in the order of their runs."""
    choices = [choose(one.readings) for one in questions]
    best = [reading for reading, _ in choices]
    shapes: dict[int, bool] = {}
    read_by = (i for i, one in enumerate(best) if one.prediction is not None)
    for group in _alike(read_by, lambda i: id(best[i].reader.model)):
        model = best[group[0]].reader.model
        if model is not None:
            differ = model.judge.shapes([best[i].read for i in group])
            shapes.update(zip(group, differ, strict=True))
    judged = [_judged(one, shapes.get(i)) for i, one in enumerate(best)]
    polished = _refined(questions, best, judged)
    answers: dict[int, Answer] = {}
    for group in _alike(
        range(len(questions)), lambda i: (id(best[i].reader), best[i].shown.k_data)
    ):
        shown = _shown([best[i] for i in group])
        for i, arrays in zip(group, shown, strict=True):
            answers[i] = Answer(best[i], judged[i], choices[i][1], *arrays, polished[i])
    return [answers[i] for i in range(len(questions))]


def structures_of(answers: Sequence[Answer]) -> dict[int, tuple[list[Phase], list[Shell]]]:
    """Phases and shells of answers that are believed, by their places; those of a model at once."""
    groups: dict[int, list[int]] = {}
    for i, best in enumerate(answers):
        if best.reading.prediction is not None and best.polished is not None:
            groups.setdefault(id(best.reading.reader.model), []).append(i)
    structures: dict[int, tuple[list[Phase], list[Shell]]] = {}
    for members in groups.values():
        model = answers[members[0]].reading.reader.model
        read = [one for i in members if (one := answers[i].reading.prediction) is not None]
        if model is not None:
            structures.update(zip(members, model.readout.many(read), strict=True))
    return structures


def _judged(best: Reading, shape: bool | None = None) -> Judgement:
    model, reason = best.reader.model, best.reason
    if model is None:
        return Judgement(reason=reason)
    flags = model.judge.flags(
        best.read, best.prediction, reason is None, best.usual_r_factor, best.noisy_end, shape
    )
    return Judgement(best.trust, reason, flags)


def _shown(group: Sequence[Reading]) -> Iterable[tuple[NDArray[np.float32], Floats | None]]:
    """k^2 chi as shown, and |chi(R)| of the prediction where there is one."""
    reader, k_end = group[0].reader, group[0].shown.k_data[1]
    chi_k2, _ = rows_to_grid(np.array([one.shown.chi for one in group]), 0.0, k_end)
    predicted = [one.prediction.chi_k2_pred for one in group if one.prediction is not None]
    chir_mag = iter(())
    if predicted:
        transform = grid_transform(reader.shown_by.xftf, k_end)
        chir_mag = iter(np.abs(transform(np.array(predicted))))
    for one, row in zip(group, chi_k2, strict=True):
        yield row, None if one.prediction is None else next(chir_mag)


def _refined(
    questions: Sequence[Question], best: Sequence[Reading], judged: Sequence[Judgement]
) -> list[Polished | None]:
    """Polish of each reading that is believed, made unless it is skipped.

    Those that need nothing of each other are fitted together. A sweep that teaches its run's trend
    something comes before those after it, so that the numbers do not depend on the batch.
    """
    polished: list[Polished | None] = [None] * len(questions)
    waiting: list[int] = []
    for i, (question, one) in enumerate(zip(questions, best, strict=True)):
        if one.prediction is not None and one.reason is None:
            polished[i] = question.skipped
            if question.skipped is None:
                waiting.append(i)
    trends = {i: _trend(questions[i], best[i]) for i in waiting}
    while waiting:
        ready: list[tuple[int, bool]] = []
        later: list[int] = []
        taught: set[int] = set()
        for i in waiting:
            if id(trends[i]) in taught:
                later.append(i)
                continue
            learns = questions[i].teaches and _teaches(best[i], judged[i], trends[i])
            ready.append((i, learns))
            if learns:
                taught.add(id(trends[i]))
        for group in _alike(
            ready,
            lambda at: (id(best[at[0]].reader), best[at[0]].read.k_data, id(trends[at[0]]), at[1]),
        ):
            places, learns = [i for i, _ in group], group[0][1]
            fits = _polish([best[i] for i in places], trends[places[0]], learns)
            for i, fit in zip(places, fits, strict=True):
                polished[i] = fit
        waiting = later
    return polished


def _trend(question: Question, best: Reading) -> Trend | None:
    """The trend that a spectrum belongs to, begun if it is the first."""
    model = best.reader.model
    if question.trends is None or model is None or model.refiner is None:
        return None
    name = model.bundle.card.name
    if name not in question.trends:
        question.trends[name] = model.refiner.begin()
    return question.trends[name]


def _teaches(best: Reading, judged: Judgement, trend: Trend | None) -> bool:
    """Whether a trend has anything to learn from a spectrum about which there are no doubts."""
    model, prediction = best.reader.model, best.prediction
    if trend is None or model is None or model.refiner is None or prediction is None:
        return False
    if UNSURE & {*best.read.quality, *judged.flags}:
        return False
    return trend.teaches(float(prediction.theta[model.refiner.variables.sigma2]))


def _polish(group: Sequence[Reading], trend: Trend | None, learns: bool) -> list[Polished]:
    """Polish of readings by one model, with one data end."""
    model, k_end = group[0].reader.model, group[0].read.k_data[1]
    if model is None:
        return []
    predictions = [one.prediction for one in group if one.prediction is not None]
    data, _ = rows_to_grid(np.array([one.read.chi for one in group]), 0.0, k_end)
    noise = [one.read.epsilon_k for one in group]
    try:
        if model.refiner is None:
            return list(model.polisher(data, predictions, k_end, noise))
        zeros = [model.judge.e0_shift(one.read) for one in group]
        return model.refiner(data, predictions, k_end, noise, zeros, trend, learns)
    except Exception:  # whatever it is, the network's answer is there and must not be lost
        log.exception("polish failed", model=model.bundle.card.name)
        return [Polished("failed")] * len(group)


Item = TypeVar("Item")


def _alike(items: Iterable[Item], key: Callable[[Item], Hashable]) -> Iterable[list[Item]]:
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for one in items:
        groups[key(one)].append(one)
    return groups.values()

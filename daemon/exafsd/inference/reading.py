"""What models say of reduced spectra: read in batches, the most plausible chosen, polished."""

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.grid import K_GRID, K_STEP, rows_to_grid
from exafsd.contract.messages import Candidate
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.inference import candidates
from exafsd.inference.near_edge import Comparison
from exafsd.inference.predictor import Rows
from exafsd.inference.readout import Readout, fits_poorly, trust_score, usual_signal
from exafsd.inference.refinement.polish import Polished, Polisher
from exafsd.inference.registry import Bundle
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.transform import fit_weight, fit_window, grid_transform, misfit
from exafsd.settings.analysis import Reduction
from exafsd.spectra import Floats, Prediction, ReducedSpectrum

log = logging.getLogger(__name__)

#: Least end of the data, 1/angstrom, to which a spectrum is cut where noise drowns the rest. Below
#: it a wrong structure fits too easily: Cu2S passes for copper on data to 9.5.
CLEAN_END = 10.0
#: Noise at the end that is not worth a second look, 1/angstrom.
NOT_CUT = 0.5


@dataclass(frozen=True)
class Model:
    """A bundle at work; `fit` is the window of all its phases, `near_edge` None if not known."""

    bundle: Bundle
    polisher: Polisher
    readout: Readout
    fit: FitWindow
    near_edge: Comparison | None

    @classmethod
    def of(cls, bundle: Bundle) -> "Model":
        """Put a bundle to work."""
        card = bundle.card
        polisher = Polisher(card, bundle.equation, fit_weight)
        known = card.thresholds.near_edge
        usual = Comparison(known, edge_energy(card.absorber, card.edge)) if known else None
        return cls(bundle, polisher, Readout(card), candidates.common_window(card.fit), usual)


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


@dataclass
class Reading:
    """What one reader makes of a spectrum, filled in step by step.

    `reason` says why there is nothing, or why it must not be believed.
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
    chi_k2: NDArray[np.float32] | None = None  # (401,) as shown
    chir_mag_pred: Floats | None = None
    polished: Polished | None = None
    #: where the noise begins before which the network was given the spectrum, 1/angstrom
    noisy_end: float | None = None


def readers(models: Sequence[Model], reduction: Reduction) -> tuple[Reader, ...]:
    """Readers of models, at least one; recipes that are equal are one object."""
    known: dict[Recipe, Recipe] = {}
    window = candidates.common_window([m.fit for m in models]) if len(models) > 1 else None

    def reader(model: Model | None, card: Recipe) -> Reader:
        shown_by, read_by = (known.setdefault(r, r) for r in recipes_of(reduction, card))
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


def read(readings: Sequence[Reading]) -> None:
    """Let models read their spectra, those of one model and data range together.

    Spectra that have a reason already, or that their model must not be given, are left alone.
    """
    for one in readings:
        one.reason = one.reason or _unfit(one.read, one.reader)
    fit = (one for one in readings if one.reason is None)
    for group in _alike(fit, lambda one: (id(one.reader), one.read.k_data)):
        model = group[0].reader.model
        if model is not None:
            _read(model, group)


def _read(model: Model, group: Sequence[Reading]) -> None:
    bundle, k_end = model.bundle, group[0].read.k_data[1]
    chi = np.stack([one.read.chi for one in group])
    rows, mask = rows_to_grid(chi, bundle.card.k_grid.k_min, k_end)
    predictions = bundle.predictor.predict(rows, np.broadcast_to(mask, rows.shape))
    _read_before_noise(bundle, group, predictions, rows, mask)
    data, _ = rows_to_grid(chi, 0.0, k_end)
    exafs = np.stack([p.chi_k2_exafs for p in predictions])
    own = misfit(data, exafs, fit_window(model.fit, k_end), k_end)
    shared, window = own, group[0].reader.compared_in
    if window is not None:
        shared = misfit(data, exafs, fit_window(window, k_end), k_end)
    factors = (
        own.r_factor(), own.r_factor(usual_signal(bundle.card, k_end)), shared.r_factor()
    )  # fmt: skip
    for one, prediction, found in zip(group, predictions, zip(*factors, strict=True), strict=True):
        one.prediction = prediction
        one.r_factor, one.usual_r_factor = (float(f) if np.isfinite(f) else None for f in found[:2])
        one.misfit = float(found[2])
        one.trust = trust_score(bundle.card, prediction.ood)
        one.reason = _distrust(bundle, prediction)


def _read_before_noise(
    bundle: Bundle,
    group: Sequence[Reading],
    predictions: list[Prediction],
    rows: Rows,
    mask: Rows,
) -> None:
    """Read spectra that do not fit once more, without an end that is mostly noise.

    Slow drifts and glitches of a detector are not white, and at high k larger than the signal.
    Such a spectrum would be withheld for the part that says nothing.
    """
    strange = [i for i, p in enumerate(predictions) if p.ood > bundle.card.thresholds.ood]
    if not strange:
        return
    fields = np.stack([predictions[i].chi_k2_pred for i in strange])
    ends = noise_begins(rows[strange], fields, mask)
    most = float(K_GRID[mask > 0].max()) - NOT_CUT
    again = [(i, end) for i, end in zip(strange, ends, strict=True) if CLEAN_END <= end <= most]
    if not again:
        return
    cut = np.stack([mask * (end + K_STEP / 2 >= K_GRID) for _, end in again]).astype(np.float32)
    shorter = bundle.predictor.predict(rows[[i for i, _ in again]] * cut, cut)
    for (i, end), prediction in zip(again, shorter, strict=True):
        if prediction.ood <= bundle.card.thresholds.ood:
            predictions[i], group[i].noisy_end = prediction, float(end)


def noise_begins(chi_k2: Rows, predicted: Floats, mask: Rows) -> Floats:
    """From where on the prediction is less than what it leaves over, 1/angstrom.

    Parameters
    ----------
    chi_k2, predicted
        (n, 401) k^2 chi and the network's prediction of it.
    mask
        (401,) where there are data.

    Returns
    -------
    k
        (n,) where the power of signal less noise, summed from the start, is largest.
    """
    gain = np.cumsum(mask * (predicted**2 - (chi_k2 - predicted) ** 2), axis=1)
    return K_GRID[np.argmax(np.where(mask > 0, gain, -np.inf), axis=1)]


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
    rivals = [f"{_name(done[i])} ({choice.scores[i]:.2g})" for i in choice.rivals]
    others = [_name(one) for one in done if one is not best]
    if best.reason is None and rivals:
        best.reason = (
            f"ambiguous: {_name(best)} (score {score:.2g}) and {', '.join(rivals)} fit about"
            " equally well; say which it is by inference.model or inference.structure"
        )
    elif best.reason is not None and others:
        best.reason += f"; less plausible still: {', '.join(others)}"
    scores = {id(one): score for one, score in zip(done, choice.scores, strict=True)}
    return best, _scored(readings, scores)


def _contender(one: Reading) -> candidates.Contender:
    model = one.reader.model
    found = model.bundle.card.structures if model is not None else ()
    return candidates.Contender(found, one.trust or 0.0, one.reason is None, one.misfit)


def _scored(readings: Sequence[Reading], scores: dict[int, float]) -> list[Candidate]:
    found = [
        Candidate(model=_name(one), score=scores.get(id(one)))
        for one in readings
        if one.reader.model is not None
    ]
    return sorted(found, key=lambda c: -1.0 if c.score is None else c.score, reverse=True)


def flags(best: Reading) -> tuple[str, ...]:
    """What was noticed when the spectrum was read, for ``quality``.

    ``edge_moved`` where the edge is not at the energy at which the model's material has it,
    ``edge_shape`` where the near edge is not that of the model's material alone,
    ``noisy_end`` where the network was given only the part before the noise, ``poor_fit`` where
    it was believed, but fits worse than measured spectra of the material.
    """
    end = () if best.noisy_end is None else ("noisy_end",)
    return _edge_flags(best) + end + (("poor_fit",) if _fits_poorly(best) else ())


def _fits_poorly(best: Reading) -> bool:
    model, prediction, noise = best.reader.model, best.prediction, best.read.epsilon_k
    if model is None or prediction is None or noise is None:
        return False
    if best.reason is not None:  # what is withheld says so itself
        return False
    end, factor = best.read.k_data[1], best.usual_r_factor
    if best.noisy_end is not None:
        end, factor = best.noisy_end, None  # the R-factor is that of all the data
    return fits_poorly(model.bundle.card, prediction.ood, factor, noise, end)


def _edge_flags(best: Reading) -> tuple[str, ...]:
    model, read = best.reader.model, best.read
    if model is None:
        return ()
    card, found = model.bundle.card, []
    usual = card.thresholds.edge_shift
    if usual and not usual[0] <= read.e0 - edge_energy(card.absorber, card.edge) <= usual[1]:
        found.append("edge_moved")
    # a XANES scan has too little beyond the edge for a good normalisation
    long = best.prediction is not None
    if long and model.near_edge and model.near_edge.differs(read.energy, read.norm, read.e0):
        found.append("edge_shape")
    return tuple(found)


def finish(readings: Sequence[tuple[Reading, Polished | None]]) -> None:
    """Fill in what is published of chosen readings.

    Parameters
    ----------
    readings
        Each with what its polish is without being made; None where it is to be made.
    """
    skipped = {id(one): skip for one, skip in readings}
    for group in _alike(
        (one for one, _ in readings),
        lambda one: (id(one.reader), one.shown.k_data, one.read.k_data),
    ):
        _show(group)
        believed = [one for one in group if one.prediction is not None and one.reason is None]
        due = [one for one in believed if skipped[id(one)] is None]
        for one in believed:
            one.polished = skipped[id(one)]
        model = group[0].reader.model
        if due and model is not None:
            _polish(model, due)


def _show(group: Sequence[Reading]) -> None:
    reader, k_end = group[0].reader, group[0].shown.k_data[1]
    chi_k2, _ = rows_to_grid(np.stack([one.shown.chi for one in group]), 0.0, k_end)
    for one, row in zip(group, chi_k2, strict=True):
        one.chi_k2 = row
    told = [(one, one.prediction.chi_k2_pred) for one in group if one.prediction is not None]
    if told:
        transform = grid_transform(reader.shown_by.xftf, k_end)
        chir_mag = np.abs(transform(np.stack([predicted for _, predicted in told])))
        for (one, _), row in zip(told, chir_mag, strict=True):
            one.chir_mag_pred = row


def _polish(model: Model, group: Sequence[Reading]) -> None:
    k_end = group[0].read.k_data[1]
    predictions = [one.prediction for one in group if one.prediction is not None]
    data, _ = rows_to_grid(np.stack([one.read.chi for one in group]), 0.0, k_end)
    noise = [one.read.epsilon_k for one in group]
    try:
        polished = model.polisher(data, predictions, k_end, noise)
    except Exception:  # whatever it is, the network's answer is there and must not be lost
        log.exception("polish failed model=%s", model.bundle.card.name)
        polished = [Polished("failed")] * len(group)
    for one, found in zip(group, polished, strict=True):
        one.polished = found


def _alike(
    readings: Iterable[Reading], key: Callable[[Reading], Hashable]
) -> Iterable[list[Reading]]:
    groups: dict[Hashable, list[Reading]] = defaultdict(list)
    for one in readings:
        groups[key(one)].append(one)
    return groups.values()


def _name(reading: Reading) -> str:
    model = reading.reader.model
    return model.bundle.card.name if model is not None else ""


def _unfit(read: ReducedSpectrum, reader: Reader) -> str | None:
    """Why a spectrum must not be given to a model; None if it may."""
    if reader.model is None:
        return None
    card = reader.model.bundle.card
    if "wrong_element" in read.quality:
        return (
            f"the edge was found at {read.e0:.0f} eV, too far from {card.absorber} {card.edge}:"
            " wrong element, or an uncalibrated monochromator"
        )
    shortest = max(reader.k_max_min, card.thresholds.k_max_min)
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

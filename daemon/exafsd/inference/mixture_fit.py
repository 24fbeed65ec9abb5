"""EXAFS of a sample of several phases: one fit of what the models of its phases make together.

chi is the sum over phases of share times chi. How much there is of each phase is what the near
edge says: a share does the same to the EXAFS as N S0^2, so the fit holds the shares, and what they
may be off by widens the error bars of N S0^2. Where a sum of models misses more of a spectrum than
noise and errors of the theory explain, all error bars are wider by as much.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.grid import rows_to_grid
from exafsd.contract.messages import Composition, Fraction, Mixture, MixturePhase, Value
from exafsd.contract.recipe import Recipe
from exafsd.formula import compound
from exafsd.inference.candidates import common_window
from exafsd.inference.crystal_fit import EVALUATIONS
from exafsd.inference.placement import STEP
from exafsd.inference.reading import Model, Reading
from exafsd.inference.refinement.polish import OBJECTIVES
from exafsd.inference.refinement.reference_fit import shells_in_window
from exafsd.inference.refinement.theory import error_count
from exafsd.inference.refinement.trend import Expected
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.refinement.weighed import Goal, Prepared, Signal, WhitenedResiduals, prepare
from exafsd.reduction.reducer import Reducer
from exafsd.reduction.transform import fit_weight, fit_window
from exafsd.spectra import Floats, Prediction, ReducedSpectrum, Spectrum, SpectrumError

#: Share from which a phase is fitted, or must have a model for others to be: this much of another
#: phase moves R of the rest by less than 0.004 angstrom (see `exafsd.composition.purity`).
LEAST = 0.03
#: Share from which a phase may have numbers.
SEEN = 0.1
#: Share of the signal's sum of squares that is misfit of any other kind: what fits of crystals that
#: no network has read are given, since models leave out shells that others' windows reach.
FLOOR = 0.02
#: A phase has numbers where the spectrum narrows R of its nearest shell to this share of its prior.
NARROWED = 0.5
#: Variables of the nearest shell, and E0, of which none must end on a bound.
JUDGED = ((None, "e0_shift"), (1, "n_s02"), (1, "r"), (1, "sigma2"))
#: Evaluations after which FEFF's errors, which depend on the variables, are calculated again.
FIRST = 4
#: Spectra that are fitted together: what more of them need leaves the cache.
TOGETHER = 16


@dataclass(frozen=True)
class Question:
    """A spectrum, what models make of it, and what its near edge says it is made of.

    `middles` says where mu of each reference has risen by half, eV on the references' scale; `e0`
    is that of the result, eV, from which shifts of E0 count.
    """

    spectrum: Spectrum
    readings: Sequence[Reading]
    e0: float
    composition: Composition
    middles: Callable[[Spectrum], Mapping[str, float]]


@dataclass(frozen=True)
class MultiPhaseFitJob:
    """A spectrum and the phases that are fitted to it, each with its share and its model.

    `zeros` has each phase's zero of energy, eV. `recipe` is that of the spectrum's reduction, with
    E0 at `e0`, eV.
    """

    spectrum: Spectrum
    fractions: tuple[Fraction, ...]
    models: tuple[Model, ...]
    zeros: tuple[float, ...]
    recipe: Recipe

    @property
    def e0(self) -> float:
        """Mean of the zeros by shares: what is right for one phase is 8 eV off for another."""
        shares = [fraction.value or 0.0 for fraction in self.fractions]
        return round(float(np.average(self.zeros, weights=shares)) / STEP) * STEP


@dataclass(frozen=True)
class Fit:
    """Predictions of each phase, none where the fit did not end, and the R-factor of their sum.

    `resolution` is how near two shells of one element can be before they are one, angstrom.
    """

    phases: Sequence[Prediction]
    r_factor: float
    resolution: float


class Mixtures:
    """Mixtures of all phases that have models.

    Parameters
    ----------
    reducer
        Reduces their spectra with E0 for all of their phases.
    """

    def __init__(self, reducer: Reducer) -> None:
        self._reducer = reducer
        self._fits: dict[tuple[int, ...], MixtureFit] = {}

    def forget(self) -> None:
        """Forget fits of models that there were."""
        self._fits.clear()

    def __call__(self, questions: Sequence[Question]) -> list[Mixture]:
        """Mixture of each; those of the same models and data ends are fitted together."""
        mixtures: dict[int, Mixture] = {}
        jobs: dict[int, MultiPhaseFitJob] = {}
        for i, question in enumerate(questions):
            job = _job(question)
            if isinstance(job, str):
                mixtures[i] = Mixture(phases=[], reason=job)
            else:
                jobs[i] = job
        reduced = self._reducer.elsewhere([(j.spectrum, j.recipe, j.e0) for j in jobs.values()])
        groups: defaultdict[
            tuple[MixtureFit, float], list[tuple[int, MultiPhaseFitJob, ReducedSpectrum]]
        ] = defaultdict(list)
        for (i, job), one in zip(jobs.items(), reduced, strict=True):
            if isinstance(one, SpectrumError):
                mixtures[i] = Mixture(phases=[], reason=one.detail)
            else:
                groups[self._fit(job.models), one.k_data[1]].append((i, job, one))
        for (fit, k_end), members in groups.items():
            fits = fit([(job, one) for _, job, one in members], k_end)
            for (i, job, _), one in zip(members, fits, strict=True):
                mixtures[i] = _said(questions[i], job, one)
        return [mixtures[i] for i in range(len(questions))]

    def _fit(self, models: Sequence[Model]) -> "MixtureFit":
        key = tuple(map(id, models))
        if key not in self._fits:
            self._fits[key] = MixtureFit(models)
        return self._fits[key]


class MixtureFit:
    """Fits spectra of some phases.

    Parameters
    ----------
    models
        One for each phase. All with `Refinement` of one grid and the same errors of theory, and a
        near edge that says where E0 is.

    Raises
    ------
    ValueError
        If they are not.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models  # kept, since their ids are a key of `Mixtures`
        cards = [model.bundle.card for model in models]
        about = cards[0].refinement
        if about is None or not all(map(is_placed, models)):
            raise ValueError("a model of a mixture lacks what its fit needs")
        self._variables = [v for card in cards if (v := Variables.of(card)) is not None]
        self._waves = [w for model in models if (w := model.bundle.waves) is not None]
        every = self._variables
        ends = np.cumsum([0, *(len(v.ids) for v in every)]).tolist()
        self._own = [slice(*pair) for pair in pairwise(ends)]
        self._mean, self._std, self._low, self._high = (
            np.concatenate([getattr(v, name) for v in every])
            for name in ("mean", "std", "low", "high")
        )
        parameters = [p for card in cards for p in card.parameters]
        self._amplitude = np.array([p.name == "n_s02" for p in parameters])
        # nobody has read the spectrum before: what training drew from is what is likely
        nearest = self._amplitude | np.array([(p.shell, p.name) == (1, "r") for p in parameters])
        self._std[nearest] = np.array([p.prior.std for p in parameters])[nearest]
        self._e0 = [own.start + v.e0 for own, v in zip(self._own, every, strict=True)]
        self._std[self._e0] = [c.edge_position.zero_std for c in cards if c.edge_position]
        self._window = common_window([card.fit[0] for card in cards])

        def prepared(k_end: float) -> Prepared:
            return prepare(fit_weight, self._window, about, k_end, cards[0].recipe.autobk)

        self._prepared = lru_cache(maxsize=OBJECTIVES)(prepared)

    def __call__(
        self, jobs: Sequence[tuple[MultiPhaseFitJob, ReducedSpectrum]], k_end: float
    ) -> list[Fit]:
        """Fit spectra with one data end, 1/angstrom."""
        data, _ = rows_to_grid(np.stack([spectrum.chi for _, spectrum in jobs]), 0.0, k_end)
        prepared, k = self._prepared(k_end), fit_window(self._window, k_end).k
        resolution = float(np.pi / (2 * (k[1] - k[0])))
        fits: list[Fit] = []
        for start in range(0, len(jobs), TOGETHER):
            part = slice(start, start + TOGETHER)
            fits += self._fits(prepared, jobs[part], data[part], resolution)
        return fits

    def _fits(
        self,
        prepared: Prepared,
        jobs: Sequence[tuple[MultiPhaseFitJob, ReducedSpectrum]],
        chi_k2: NDArray[np.floating],
        resolution: float,
    ) -> list[Fit]:
        fractions = [job.fractions for job, _ in jobs]
        shares = np.array([[one.value or 0.0 for one in each] for each in fractions])
        unsure = np.array([[one.std or 0.0 for one in each] for each in fractions]) / shares

        def modelled(x: Floats, rows: NDArray[np.intp]) -> Signal:
            return self._signal(prepared, x, shares[rows])

        mean = np.tile(self._mean, (len(jobs), 1))
        mean[:, self._e0] = [np.subtract(job.zeros, spectrum.e0) for job, spectrum in jobs]
        epsilon = np.array([spectrum.epsilon_k or np.nan for _, spectrum in jobs])
        bounds = self._low, self._high
        start = np.clip(mean, *bounds)
        groups = modelled(start[:1], np.arange(1))[2][0].shape[2]
        goal = Goal.of(prepared, self._expected(groups), chi_k2, epsilon, mean, FLOOR)
        about = WhitenedResiduals(modelled, goal, start)
        about = WhitenedResiduals(modelled, goal, about.minimum(bounds, FIRST).x)
        end = about.minimum(bounds, EVALUATIONS)
        weighed = end.residual[:, : goal.data.shape[1]]
        misfit = (about.colour @ weighed[..., None])[..., 0]
        r_factor = np.sum(misfit**2, axis=1) / np.sum(goal.data**2, axis=1)
        beyond = np.maximum(np.sum(weighed**2, axis=1) / prepared.goal.n_idp, 1.0)
        inverse, nothing = end.inverse() * beyond[:, None, None], np.empty(0)
        phases: list[list[Prediction]] = [[] for _ in jobs]
        for i, (own, variables) in enumerate(zip(self._own, self._variables, strict=True)):
            theta, to_theta = variables.theta(end.x[:, own])
            cov = to_theta @ inverse[:, own, own] @ np.swapaxes(to_theta, 1, 2)
            off = np.where(self._amplitude[own], theta * unsure[:, i, None], 0.0)
            cov += off[:, :, None] * off[:, None, :]
            for b in np.flatnonzero(end.converged):
                bound = tuple(np.array(variables.ids)[end.bound[b, own]])
                phases[b].append(Prediction(theta[b], cov[b], nothing, nothing, 0.0, bound))
        return [Fit(one, float(r), resolution) for one, r in zip(phases, r_factor, strict=True)]

    def _expected(self, groups: int) -> Expected:
        """What is likely of the variables, and of FEFF's errors of groups of paths."""
        n, errors = len(self._mean), error_count(groups)
        none = np.zeros(errors)
        return Expected(self._mean, np.diag(self._std), none, np.zeros((errors, n)), np.eye(errors))

    def _signal(self, prepared: Prepared, x: Floats, shares: Floats) -> Signal:
        """What is fitted at variables (a, n), for shares (a, p)."""
        chi: list[Floats] = []
        slopes: list[Floats] = []
        real: list[Floats] = []
        imag: list[Floats] = []
        for i, own in enumerate(self._own):
            share = shares[:, i, None, None]
            signal = prepared.signal(self._variables[i], self._waves[i], x[:, own])
            chi.append(share[:, 0] * signal[0])
            slopes.append(share * signal[1])
            real.append(share * signal[2][0])
            imag.append(share * signal[2][1])
        waves = np.concatenate(real, axis=2), np.concatenate(imag, axis=2)
        return np.sum(chi, axis=0), np.concatenate(slopes, axis=2), waves


def is_placed(model: Model) -> bool:
    """Whether a model can be a phase of a mixture: it has what a fit needs, and its own E0."""
    card = model.bundle.card
    graph = model.bundle.waves is not None and Variables.of(card) is not None
    return graph and card.edge_position is not None


def _job(question: Question) -> MultiPhaseFitJob | str:
    """What is to be fitted to a spectrum, or why nothing is."""
    composition, spectrum = question.composition, question.spectrum
    if not composition.in_domain:
        return composition.reason or "its composition is not known"
    fractions = tuple(f for f in composition.fractions if (f.value or 0.0) >= LEAST)
    if len(fractions) < 2:
        return f"it is one phase, with less than {LEAST:g} of any other"
    middles, shift = question.middles(spectrum), composition.energy_shift
    readings: list[Reading] = []
    models: list[Model] = []
    zeros: list[float] = []
    for fraction in fractions:
        reading = next((r for r in reversed(question.readings) if _is_of(r, fraction.phase)), None)
        model = None if reading is None else reading.reader.model
        if reading is None or model is None:
            return f"there is no model of {fraction.phase}, whose share is {fraction.value:.2f}"
        card, middle = model.bundle.card, middles.get(fraction.phase)
        if not is_placed(model) or card.edge_position is None or middle is None:
            return f"where E0 of {fraction.phase} is, {card.name} does not say"
        unfit = model.judge.unfit(reading.read, reading.reader.k_max_min)
        if unfit is not None:
            return unfit
        readings.append(reading)
        models.append(model)
        zeros.append(middle + (shift.value or 0.0 if shift else 0.0) + card.edge_position.zero)
    abouts = [model.bundle.card.refinement for model in models]
    if len({(a.k_min, a.k_step, a.size, a.theory) for a in abouts if a is not None}) != 1:
        return (
            "the models of its phases differ in the points of k of their graphs or in their errors"
            " of theory: make them again with this exafsd"
        )
    largest = max(range(len(fractions)), key=lambda i: fractions[i].value or 0.0)
    recipe = readings[largest].read.recipe
    return MultiPhaseFitJob(spectrum, fractions, tuple(models), tuple(zeros), recipe)


def _is_of(reading: Reading, phase: str) -> bool:
    """Whether a model is of a phase, by its name or formula."""
    model = reading.reader.model
    if model is None or len(model.bundle.card.structures) != 1:
        return False
    (structure,) = model.bundle.card.structures
    return compound(phase) in (compound(structure.phase), compound(structure.formula))


def _said(question: Question, job: MultiPhaseFitJob, fit: Fit) -> Mixture:
    """What a fit says of each phase."""
    if not fit.phases:
        return Mixture(phases=[], reason="the fit did not end")
    fitted = {f.phase: i for i, f in enumerate(job.fractions)}
    phases: list[MixturePhase] = []
    for fraction in question.composition.fractions:
        share = Value(fraction.value, fraction.std)
        i = fitted.get(fraction.phase)
        if i is None:
            why = f"its share is below {LEAST:g}: it is left out"
            phases.append(MixturePhase(phase=fraction.phase, share=share, reason=why))
            continue
        model, reason = job.models[i], _doubt(job, fit, i)
        (phase,), shells = model.readout(fit.phases[i])
        inside = () if reason else shells_in_window(model.bundle.card)
        phases.append(
            MixturePhase(
                phase=fraction.phase,
                share=share,
                model=model.bundle.card.name,
                e0_shift=None if reason else _moved(phase.e0_shift, job.e0 - question.e0),
                shells=[shell for shell in shells if shell.shell in inside],
                reason=reason,
            )
        )
    return Mixture(phases=phases, r_factor=fit.r_factor)


def _moved(shift: Value | None, by: float) -> Value | None:
    """A shift of E0 that counts from elsewhere, eV."""
    return shift and Value(None if shift.value is None else shift.value + by, shift.std)


def _doubt(job: MultiPhaseFitJob, fit: Fit, i: int) -> str | None:
    """Why numbers of a phase are not published; None if they are."""
    card, prediction = job.models[i].bundle.card, fit.phases[i]
    if (job.fractions[i].value or 0.0) < SEEN:
        return f"its share is below {SEEN:g}"
    places = {(p.shell, p.name): n for n, p in enumerate(card.parameters)}
    nearest = card.parameters[places[1, "r"]]
    for other, model in zip(job.fractions, job.models, strict=True):
        rival = next(p for p in model.bundle.card.parameters if (p.shell, p.name) == (1, "r"))
        apart = abs((rival.r_eff or 0.0) - (nearest.r_eff or 0.0))
        more = (other.value or 0.0) > (job.fractions[i].value or 0.0)
        if more and rival.scatterer == nearest.scatterer and apart < fit.resolution:
            return (
                f"its nearest {nearest.scatterer} is {apart:.2f} angstrom from that of"
                f" {other.phase}, of which there is more; these data resolve {fit.resolution:.2f}"
            )
    for key in JUDGED:
        if card.parameters[places[key]].id in prediction.bound:
            return f"the fit ended on the bound of {card.parameters[places[key]].id}"
    std, prior = prediction.theta_cov[places[1, "r"], places[1, "r"]] ** 0.5, nearest.prior.std
    if std > NARROWED * prior:
        return f"too little is seen of it: R is uncertain by {std:.3f} angstrom"
    return None

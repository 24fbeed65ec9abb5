"""Spectra to reduced spectra: E0 policy, engine, audit, quality."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import numpy as np

from exafsd.contract.messages import Channel
from exafsd.contract.recipe import Recipe
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.reduction import edges
from exafsd.reduction.audit import Auditor
from exafsd.reduction.columns import INCOMPLETE, i0_like_mu
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.engine import Plans, by_larch, by_plan, check_e0
from exafsd.reduction.memory import RunMemory, Settled
from exafsd.reduction.plan import Plan
from exafsd.reduction.series import Series
from exafsd.reduction.verdict import AuditJob as AuditJob
from exafsd.spectra import Edge, Floats, ReducedSpectrum, Spectrum, SpectrumError, same

#: an edge step below this many of its own standard errors is no edge
EDGE_STEP_SIGMA = 5.0
#: an edge step below this share of mu is rounding, as of a straight line
SMALLEST_STEP = 1e-9
#: spectra of a series between two that are audited because their grid is new: the energies of an
#: encoder are new in every sweep
NEW_PLANS = 20
#: eV relative to E0 where mu has to be on the pre-edge line, and the share of the edge step by
#: which it may be off: N is wrong by about as much. Of 145 measured spectra, by which it was
#: chosen, 138 are within 0.03.
BELOW_EDGE, OFF_LINE = (-60.0, -25.0), 0.05
#: flags of a spectrum that must not decide E0 for its run
BAD_FLAGS = INCOMPLETE | {Flag.WRONG_ELEMENT, Flag.SHORT_K_RANGE}
#: place of a spectrum that has not been reduced yet
PENDING = SpectrumError(Reason.INTERNAL, "the spectrum was not reduced; please report it")


@dataclass(frozen=True)
class ReductionJob:
    """A spectrum that is to be reduced by a recipe, and what its run remembers.

    `e0` is where the materials it may be of have it, eV, for the policy ``model``; None where that
    is not known. `unplaced` says that it is not asked for beside others of the run that have it.
    """

    spectrum: Spectrum
    recipe: Recipe
    memory: RunMemory
    e0: float | None = None
    unplaced: bool = False


class Reducer:
    """Reduces spectra.

    Parameters
    ----------
    auditor
        Where some spectra are reduced once more by Larch; None: nowhere.
    audit_every
        One spectrum in so many of a series is audited, and the first.
    """

    def __init__(self, auditor: Auditor | None = None, audit_every: int = 200) -> None:
        self._plans = Plans()
        self._auditor = auditor
        self._audit_every = audit_every
        self._audited: WeakValueDictionary[str, Settled] = WeakValueDictionary()

    def reduce(self, jobs: Sequence[ReductionJob]) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce spectra by their runs' E0 policies, in order; equal grids in one product."""
        done: list[ReducedSpectrum | SpectrumError] = [PENDING] * len(jobs)
        series: dict[int, tuple[Settled, list[int]]] = {}
        shared: dict[tuple[int, Channel, Edge, int, bool], Settled] = {}
        for i, job in enumerate(jobs):
            id_ = job.spectrum.id
            # by the recipe itself, whose hash takes as long as a small product
            key = id(job.memory), id_.channel, id_.edge, id(job.recipe), job.unplaced
            settled = shared.get(key)
            if settled is None:
                settled = job.memory.settled_for(job.spectrum, job.recipe, job.unplaced)
                shared[key] = settled
            series.setdefault(id(settled), (settled, []))[1].append(i)
        for settled, members in series.values():
            begin = 0
            while begin < len(members):
                batch = self._next(settled, [jobs[i] for i in members[begin:]])
                for i, reduced in zip(members[begin:], batch, strict=False):
                    done[i] = reduced
                begin += len(batch)
        return done

    def elsewhere(
        self, spectra: Sequence[tuple[Spectrum, Recipe, float]]
    ) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce spectra again at other E0, in eV; their runs remember nothing of it.

        The ranges of their recipes are resolved, as `reduce` leaves them.
        """
        done: list[ReducedSpectrum | SpectrumError] = [PENDING] * len(spectra)
        groups: dict[int, tuple[Plan, list[int]]] = {}
        for i, (spectrum, recipe, e0) in enumerate(spectra):
            try:
                check_e0(spectrum.energy, e0)
                plan = self._plans.get(spectrum.energy, e0, recipe)
            except SpectrumError as error:
                done[i] = error
            else:
                groups.setdefault(id(plan), (plan, []))[1].append(i)
        for plan, members in groups.values():
            reduced = by_plan(plan, [spectra[i][0].mu for i in members])
            for i, one in zip(members, reduced, strict=True):
                done[i] = one
        return done

    def audit(self) -> list[str]:
        """Take the verdicts that have come; what they mean for the user, where it is trouble."""
        warnings: list[str] = []
        if self._auditor is None:
            return warnings
        for verdict in self._auditor.poll():
            settled = self._audited.get(verdict.key)
            before = settled is not None and settled.suspect
            if settled is not None and verdict.error is None:
                settled.suspect = verdict.alarm
            if verdict.error is not None:
                warnings.append(f"{verdict.id} could not be audited: {verdict.error}")
            elif verdict.alarm and not before:
                warnings.append(
                    f"{verdict.id}: the compiled reduction differs from Larch by"
                    f" {verdict.difference:.1e} and is worse; the series goes on with Larch, which"
                    " is slower, until they agree. Please report it"
                )
            elif before and not verdict.alarm:
                warnings.append(f"{verdict.id}: the compiled reduction agrees with Larch again")
        return warnings

    def audit_metrics(self) -> dict[str, float] | None:
        """Numbers of the audit; None where there is none."""
        return None if self._auditor is None else self._auditor.metrics()

    def close(self) -> None:
        """End the audit."""
        if self._auditor is not None:
            self._auditor.close()

    def _next(
        self, settled: Settled, jobs: Sequence[ReductionJob]
    ) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce the first job, and those after it that the same plan serves."""
        job = jobs[0]
        spectrum = job.spectrum
        settings = spectrum.id.analysis.reduction
        frozen = settled.frozen_for(spectrum, job.recipe)
        try:
            e0 = self._e0(settled, job)
            check_e0(spectrum.energy, e0)
            recipe = settled.recipe if frozen and settled.recipe is not None else job.recipe
            if settings.engine == "larch":
                reduced = [by_larch(spectrum.energy, spectrum.mu, e0, recipe)]
            else:
                reduced = self._by_plan(settled, jobs, e0, recipe, frozen)
        except SpectrumError as error:
            return [error]
        checked = [self._checked(settled, j, r) for j, r in zip(jobs, reduced, strict=False)]
        first = checked[0]
        if not frozen and isinstance(first, ReducedSpectrum) and not BAD_FLAGS & {*first.quality}:
            settled.e0, settled.recipe, settled.plan = first.e0, first.recipe, None
        return checked

    def _by_plan(
        self,
        settled: Settled,
        jobs: Sequence[ReductionJob],
        e0: float,
        recipe: Recipe,
        frozen: bool,
    ) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce with a plan the first job and those after it that it serves; audit some."""
        energy = jobs[0].spectrum.energy
        jobs = [jobs[0], *self._alike(settled, energy, e0, jobs[1:])] if frozen else jobs[:1]
        plan, new = settled.plan, False
        if not settled.meets(energy) and len(jobs) == 1:
            plan, new = Plan.compile(energy, e0, recipe, once=True), True
        elif plan is None or plan.e0 != e0 or not same(plan.energy, energy):
            plan, new = self._plans.get(energy, e0, recipe), True
            if frozen:
                settled.plan = plan
        planned = by_plan(plan, [job.spectrum.mu for job in jobs])
        if self._auditor is None:
            return planned
        suspect = settled.suspect
        self._audited[settled.key] = settled
        for job, reduced in zip(jobs, planned, strict=True):
            due = settled.due(self._audit_every)
            settled.unaudited += 1
            if new and settled.unaudited >= NEW_PLANS:
                due, settled.unaudited, new = True, 0, False
            if due and isinstance(reduced, ReducedSpectrum):
                self._auditor.submit(_audit_job(settled.key, job, recipe, reduced))
        if suspect:
            return [by_larch(j.spectrum.energy, j.spectrum.mu, e0, recipe) for j in jobs]
        return planned

    @staticmethod
    def _e0(settled: Settled, job: ReductionJob) -> float:
        settings = job.spectrum.id.analysis.reduction
        if settings.e0_policy == "fixed":
            if settings.e0 is None:
                raise SpectrumError(
                    Reason.BAD_SETTINGS, "e0_policy is fixed, but reduction.e0 is not set"
                )
            return settings.e0
        if settings.e0_policy == "model" and job.e0 is not None:
            return job.e0
        if settled.e0 is not None and settings.e0_policy != "auto":
            return settled.e0
        return find_e0(job.spectrum.energy, job.spectrum.mu)

    @staticmethod
    def _alike(
        settled: Settled, energy: Floats, e0: float, jobs: Sequence[ReductionJob]
    ) -> Iterator[ReductionJob]:
        """Jobs that a plan for some energies and E0 serves, up to the first that it does not."""
        for job in jobs:
            if (
                job.spectrum.id.analysis.reduction.e0_policy == "auto"
                or (job.e0 is not None and job.e0 != e0)
                or not same(job.spectrum.energy, energy)
                or not settled.frozen_for(job.spectrum, job.recipe)
            ):
                return
            yield job

    @staticmethod
    def _checked(
        settled: Settled, job: ReductionJob, reduced: ReducedSpectrum | SpectrumError
    ) -> ReducedSpectrum | SpectrumError:
        """Quality flags of a reduced spectrum, or why it is none."""
        if isinstance(reduced, SpectrumError):
            return reduced
        settings = job.spectrum.id.analysis.reduction
        try:
            flags = (*job.spectrum.quality, *_quality(job.spectrum, reduced, settings.k_max_min))
        except SpectrumError as error:
            return error
        if settled.i0_like_mu is None and INCOMPLETE.isdisjoint(flags):
            id_, shift = job.spectrum.id, job.spectrum.energy_shift
            e0 = reduced.e0 - (shift.value if shift else 0.0)
            settled.i0_like_mu = i0_like_mu(id_.sweep, id_.channel, e0)
        if settled.i0_like_mu:
            flags = (*flags, Flag.I0_LIKE_MU)
        limit = settings.quality.outlier
        once = job.spectrum.id.sweep.revision == 1  # a sweep is in its series once
        if limit is not None and once and not BAD_FLAGS.intersection(flags):
            kind = job.spectrum.id.sweep.direction, job.spectrum.averaged is not None
            usual = settled.usual.get(kind)
            if usual is None:
                usual = settled.usual[kind] = Series(limit)
            if usual.check(reduced.norm):
                flags = (*flags, Flag.OUTLIER)
        return replace(reduced, quality=flags) if flags else reduced


def _audit_job(key: str, job: ReductionJob, recipe: Recipe, reduced: ReducedSpectrum) -> AuditJob:
    spectrum = job.spectrum
    return AuditJob(
        key=key,
        id=f"{key} sweep {spectrum.id.sweep.number}",
        energy=spectrum.energy,
        mu=spectrum.mu,
        e0=reduced.e0,
        recipe=recipe,
        chi=reduced.chi,
        edge_step=reduced.edge_step,
        objective=reduced.objective,
        e0_found=job.spectrum.id.analysis.reduction.e0_policy == "auto",
        raw=spectrum.raw,
    )


def _quality(spectrum: Spectrum, reduced: ReducedSpectrum, k_max_min: float) -> list[Flag]:
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
            Reason.NO_EDGE,
            f"the step at {reduced.e0:.1f} eV is {reduced.edge_step:.3g}, within"
            f" {EDGE_STEP_SIGMA:g} times its scatter ({std:.2g}): no sample, or no signal",
        )
    flags: list[Flag] = []
    tabulated = edges.edge_energy(spectrum.id.edge.element, spectrum.id.edge.edge)
    if abs(reduced.e0 - tabulated) > edges.EDGE_TOLERANCE:
        flags.append(Flag.WRONG_ELEMENT)
    if reduced.k_data[1] < k_max_min:
        flags.append(Flag.SHORT_K_RANGE)
    first, last = reduced.energy.searchsorted([reduced.e0 + x for x in BELOW_EDGE])
    if last > first and abs(reduced.norm[first:last].mean()) > OFF_LINE:
        flags.append(Flag.PRE_EDGE_OFF)
    return flags

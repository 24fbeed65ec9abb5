"""Spectra to reduced spectra: E0 policy, engine, audit, quality. State belongs to the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from exafsd.contract.grid import ETOK
from exafsd.contract.messages import Channel, Direction
from exafsd.contract.recipe import Recipe
from exafsd.reduction import edges
from exafsd.reduction.audit import Auditor, Sampling
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.engine import Plans, by_larch, by_plan, check_e0
from exafsd.reduction.plan import Plan
from exafsd.reduction.series import Series
from exafsd.reduction.verdict import Job as AuditJob
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Floats, ReducedSpectrum, Spectrum, SpectrumError

#: an edge step below this many of its own standard errors is no edge
EDGE_STEP_SIGMA = 5.0
#: a spectrum this much longer in k than the first of its run gives the run new ranges
LONGER = 1.05
#: an edge step below this share of mu is rounding, as of a straight line
SMALLEST_STEP = 1e-9


@dataclass(frozen=True)
class Job:
    """A spectrum that is to be reduced by a recipe."""

    spectrum: Spectrum
    analysis: Analysis
    recipe: Recipe


Key = tuple[Channel, Edge, Recipe]
#: spectra of a series between two that are audited because their grid is new: the energies of an
#: encoder are new in every sweep
NEW_PLANS = 20
#: place of a spectrum that has not been reduced yet
PENDING = SpectrumError("internal", "the spectrum was not reduced; please report it")


@dataclass
class _Settled:
    """What a run has settled for one channel, edge and recipe."""

    key: str  # names it to the audit
    e0: float | None = None
    recipe: Recipe | None = None
    plan: Plan | None = None
    unaudited: int = 0  # spectra since one was audited for its new plan
    usual: dict[tuple[Direction | None, bool], Series] = field(
        default_factory=dict[tuple[Direction | None, bool], Series]
    )

    def frozen_for(self, spectrum: Spectrum, wanted: Recipe) -> bool:
        """Whether the run's ranges hold for a spectrum.

        A run may begin in the middle of a sweep; the ranges of that stump must not cut all
        others, so a clearly longer spectrum gets new ones.
        """
        if self.recipe is None or self.e0 is None:
            return False
        end = ETOK * max(float(spectrum.energy[-1]) - self.e0, 0.0)
        reach = min(end**0.5, wanted.autobk.kmax or np.inf)
        return reach <= LONGER * (self.recipe.autobk.kmax or np.inf)


class Reducer:
    """Reduces spectra; remembers E0 and ranges of each run, channel and edge until its end.

    Parameters
    ----------
    auditor
        Where some spectra are reduced once more by Larch; None: nowhere.
    audit_every
        One spectrum in so many of a series is audited, and the first.
    """

    def __init__(self, auditor: Auditor | None = None, audit_every: int = 200) -> None:
        self._runs: dict[str, dict[Key, _Settled]] = {}
        self._plans = Plans()
        self._auditor = auditor
        self._sampling = Sampling(audit_every)
        self._numbers = count(1)

    def reduce(self, jobs: Sequence[Job]) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce spectra by their runs' E0 policies, in order; equal grids in one product."""
        done: list[ReducedSpectrum | SpectrumError] = [PENDING] * len(jobs)
        settled: dict[int, tuple[_Settled, list[int]]] = {}
        for i, job in enumerate(jobs):
            spectrum = job.spectrum
            run = self._runs.setdefault(spectrum.sweep.run.uid, {})
            key = (spectrum.channel, spectrum.edge, job.recipe)
            mine = run.get(key)
            if mine is None:
                mine = run[key] = _Settled(key=self._name(spectrum))
            settled.setdefault(id(mine), (mine, []))[1].append(i)
        for mine, members in settled.values():
            begin = 0
            while begin < len(members):
                some = self._next(mine, [jobs[i] for i in members[begin:]])
                for i, reduced in zip(members[begin:], some, strict=False):
                    done[i] = reduced
                begin += len(some)
        return done

    def end(self, run_uid: str) -> None:
        """Forget a run."""
        self._runs.pop(run_uid, None)
        self._sampling.end(run_uid)

    def audit(self) -> list[str]:
        """Take the verdicts that have come; what they mean for the user, where it is trouble."""
        told: list[str] = []
        if self._auditor is None:
            return told
        for verdict in self._auditor.poll():
            before = self._sampling.suspect(verdict.key)
            self._sampling.settle(verdict)
            if verdict.error is not None:
                told.append(f"{verdict.id} could not be audited: {verdict.error}")
            elif verdict.alarm and not before:
                told.append(
                    f"{verdict.id}: the compiled reduction differs from Larch by"
                    f" {verdict.difference:.1e} and is worse; the series goes on with Larch, which"
                    " is slower, until they agree. Please report it"
                )
            elif before and not verdict.alarm:
                told.append(f"{verdict.id}: the compiled reduction agrees with Larch again")
        return told

    def audit_metrics(self) -> dict[str, float] | None:
        """Numbers of the audit; None where there is none."""
        return None if self._auditor is None else self._auditor.metrics()

    def close(self) -> None:
        """End the audit."""
        if self._auditor is not None:
            self._auditor.close()

    def _name(self, spectrum: Spectrum) -> str:
        edge = spectrum.edge
        number = next(self._numbers)  # two recipes of one channel are two series
        run = spectrum.sweep.run.uid
        return f"{run}/{spectrum.channel}/{edge.element}-{edge.edge}/{number}"

    def _next(
        self, settled: _Settled, jobs: Sequence[Job]
    ) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce the first job, and those after it that the same plan serves."""
        job = jobs[0]
        settings, spectrum = job.analysis.reduction, job.spectrum
        frozen = settled.frozen_for(spectrum, job.recipe)
        try:
            e0 = self._e0(settled, job)
            check_e0(spectrum.energy, e0)
            recipe = settled.recipe if frozen and settled.recipe is not None else job.recipe
            if settings.engine == "larch":
                some = [by_larch(spectrum.energy, spectrum.mu, e0, recipe)]
            else:
                some = self._by_plan(settled, jobs, e0, recipe, frozen)
        except SpectrumError as error:
            return [error]
        checked = [self._checked(settled, j, r) for j, r in zip(jobs, some, strict=False)]
        first = checked[0]
        if not frozen and isinstance(first, ReducedSpectrum) and not BAD_FLAGS & {*first.quality}:
            settled.e0, settled.recipe, settled.plan = first.e0, first.recipe, None
        return checked

    def _by_plan(
        self, settled: _Settled, jobs: Sequence[Job], e0: float, recipe: Recipe, frozen: bool
    ) -> list[ReducedSpectrum | SpectrumError]:
        """Reduce with a plan the first job and those after it that it serves; audit some."""
        spectrum = jobs[0].spectrum
        plan, new = settled.plan, False
        if plan is None or plan.e0 != e0 or not _same(plan.energy, spectrum.energy):
            plan, new = self._plans.get(spectrum.energy, e0, recipe), True
        if frozen:
            settled.plan = plan
            jobs = [jobs[0], *self._alike(settled, plan, jobs[1:])]
        else:
            jobs = jobs[:1]
        some = by_plan(plan, [job.spectrum.mu for job in jobs])
        if self._auditor is None:
            return some
        suspect = self._sampling.suspect(settled.key)
        for job, reduced in zip(jobs, some, strict=True):
            due = self._sampling.wanted(job.spectrum.sweep.run.uid, settled.key)
            settled.unaudited += 1
            if new and settled.unaudited >= NEW_PLANS:
                due, settled.unaudited, new = True, 0, False
            if due and isinstance(reduced, ReducedSpectrum):
                self._auditor.submit(_audit_job(settled.key, job, recipe, reduced))
        if suspect:
            return [by_larch(j.spectrum.energy, j.spectrum.mu, e0, recipe) for j in jobs]
        return some

    @staticmethod
    def _e0(settled: _Settled, job: Job) -> float:
        settings = job.analysis.reduction
        if settings.e0_policy == "fixed":
            if settings.e0 is None:
                raise SpectrumError(
                    "bad_settings", "e0_policy is fixed, but reduction.e0 is not set"
                )
            return settings.e0
        if settled.e0 is not None and settings.e0_policy != "auto":
            return settled.e0
        return find_e0(job.spectrum.energy, job.spectrum.mu)

    @staticmethod
    def _alike(settled: _Settled, plan: Plan, jobs: Sequence[Job]) -> Iterator[Job]:
        """Jobs that the plan serves as well, up to the first that it does not."""
        for job in jobs:
            energy = job.spectrum.energy
            if (
                job.analysis.reduction.e0_policy == "auto"
                or not _same(energy, plan.energy)
                or not settled.frozen_for(job.spectrum, job.recipe)
            ):
                return
            yield job

    @staticmethod
    def _checked(
        settled: _Settled, job: Job, reduced: ReducedSpectrum | SpectrumError
    ) -> ReducedSpectrum | SpectrumError:
        """Quality flags of a reduced spectrum, or why it is none."""
        if isinstance(reduced, SpectrumError):
            return reduced
        settings = job.analysis.reduction
        try:
            flags = (*job.spectrum.quality, *_quality(job.spectrum, reduced, settings.k_max_min))
        except SpectrumError as error:
            return error
        limit = settings.quality.outlier
        if limit is not None and not BAD_FLAGS.intersection(flags):
            kind = job.spectrum.sweep.direction, job.spectrum.averaged is not None
            usual = settled.usual.get(kind)
            if usual is None:
                usual = settled.usual[kind] = Series(limit)
            if usual.check(reduced.norm):
                flags = (*flags, "outlier")
        return replace(reduced, quality=flags)


def _audit_job(key: str, job: Job, recipe: Recipe, reduced: ReducedSpectrum) -> AuditJob:
    spectrum = job.spectrum
    return AuditJob(
        key=key,
        id=f"{key} sweep {spectrum.sweep.number}",
        energy=spectrum.energy,
        mu=spectrum.mu,
        e0=reduced.e0,
        recipe=recipe,
        chi=reduced.chi,
        edge_step=reduced.edge_step,
        objective=reduced.objective,
        e0_found=job.analysis.reduction.e0_policy == "auto",
        raw=spectrum.raw,
    )


def _same(one: Floats, other: Floats) -> bool:
    return one is other or np.array_equal(one, other)


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

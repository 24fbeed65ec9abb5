"""Larch's judgement of one reduced spectrum: whether the compiled plan is still Larch there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from larch import Group
from larch.xafs import autobk, find_e0, pre_edge
from larch.xafs.autobk import _resid, spline_eval
from larch.xafs.xafsft import ftwindow

from exafsd.contract.recipe import Autobk, Recipe
from exafsd.reduction.plan import background_unit
from exafsd.reduction.transform import NFFT
from exafsd.spectra import Floats

#: a difference of chi beyond this must be explained
DIFFERENCE = 1e-3
#: An objective this much above Larch's is worse than Larch's. Below it the difference is Larch's:
#: its leastsq stops at a relative change of 1e-6.
WORSE = 1e-6
#: part of chi, relative, that may not be mu less a spline of Larch's: rounding, and no more
OFF_SPLINE = 1e-6
#: chi is compared above this, 1/angstrom, where it does not depend on the edge's shape
K_MIN = 2.0


@dataclass(frozen=True)
class Job:
    """A spectrum as a plan reduced it; the arrays must not be written to afterwards."""

    key: str  # of the series that one plan serves: run, channel, edge
    id: str  # of the spectrum
    energy: Floats  # (n,) eV
    mu: Floats  # (n,)
    e0: float  # eV
    recipe: Recipe  # as asked for, so that the plan's choice of ranges is audited as well
    chi: Floats  # (m,)
    edge_step: float
    objective: float  # what the plan says of itself
    e0_found: bool = False  # whether e0 was found on this very spectrum
    raw: tuple[Floats, Floats] | None = None  # energy and mu as measured, before rebinning


@dataclass(frozen=True)
class Verdict:
    """What Larch says of a job; relative differences, NaN or None where there is nothing to say.

    `difference` is the k^2-weighted L2 norm above `K_MIN` between the two chi, `rebin_change`
    the same between chi of the raw and of the rebinned points, both by Larch.
    """

    key: str
    id: str
    difference: float = np.nan
    #: of the plan's chi, by Larch's own residual; not what the plan says
    objective: float = np.nan
    larch_objective: float = np.nan
    #: part of the plan's chi that is not mu less a spline on Larch's knots
    off_spline: float = np.nan
    #: what the plan said of its objective, against `objective`
    claim_difference: float = np.nan
    edge_step_difference: float = np.nan
    e0_difference: float | None = None
    rebin_change: float | None = None
    error: str | None = None

    @property
    def alarm(self) -> bool:
        """Whether the plan is wrong, and not only better than Larch's leastsq."""
        if self.error is not None or self.difference <= DIFFERENCE:
            return False
        fair = self.off_spline <= OFF_SPLINE
        return not (fair and self.objective <= self.larch_objective * (1 + WORSE))


def judge(job: Job) -> Verdict:
    """Reduce a job's spectrum with Larch and compare; never raises."""
    try:
        return _judged(job)
    except Exception as error:  # Larch raises whatever numpy and scipy raise inside it
        return Verdict(job.key, job.id, error=f"{type(error).__name__}: {error}")


def _judged(job: Job) -> Verdict:
    group, step = _larch(job.energy, job.mu, job.e0, job.recipe)
    differences: dict[str, Any] = {
        "edge_step_difference": abs(job.edge_step / group.edge_step - 1),
        "larch_objective": float(group.autobk_details.chisqr),
    }
    if job.e0_found:
        e0 = float(find_e0(job.energy, mu=job.mu, group=Group()))
        differences["e0_difference"] = abs(job.e0 / e0 - 1)
    if job.raw is not None:
        raw, _ = _larch(*job.raw, job.e0, job.recipe)
        m = min(len(raw.chi), len(group.chi))
        differences["rebin_change"] = _relative(group.chi[:m] - raw.chi[:m], raw.chi[:m], raw.k[:m])
    if len(job.chi) != len(group.chi):
        return Verdict(job.key, job.id, difference=np.inf, **differences)
    miss = job.chi - group.chi
    objective, off = _by_larch(group, step * miss, job.recipe.autobk)
    return Verdict(
        job.key,
        job.id,
        difference=_relative(miss, group.chi, group.k),
        objective=objective,
        off_spline=_relative(off / step, group.chi, group.k),
        claim_difference=abs(job.objective / objective - 1),
        **differences,
    )


def _larch(energy: Floats, mu: Floats, e0: float, recipe: Recipe) -> tuple[Any, float]:
    """Larch's group, and the edge step of the mu that its background was fitted to."""
    group: Any = Group(energy=energy, mu=mu)
    pre_edge(group, e0=e0, **recipe.pre_edge.model_dump())
    unit = background_unit(np.array([group.edge_step]))
    step = float(group.edge_step)
    if unit is not None:
        group.mu, step = mu / unit[0], step / unit[0]
    autobk(group, ek0=e0, edge_step=step, **recipe.autobk.model_dump())
    return group, step


def _by_larch(group: Any, excess: Floats, asked: Autobk) -> tuple[float, Floats]:
    """Objective of a background by Larch's own residual.

    `excess` (m,) is how much further mu - background of the plan is from zero than Larch's. The
    coefficients of the plan's spline are recovered from it; what remains, (m,), is no spline.
    """
    d = group.autobk_details
    kraw, mu = d.kraw[: d.iemax - d.iek0 + 1], group.mu[d.iek0 : d.iemax + 1]
    columns = [
        spline_eval(kraw, 0 * mu, d.knots, np.append(unit, np.zeros(4)), d.order, group.k)[1]
        for unit in np.eye(d.nspl)
    ]
    basis = np.array(columns).T
    moved = np.linalg.lstsq(basis, excess, rcond=None)[0]
    sill: Any = asked.dk  # Larch's annotation says int
    window = group.k**asked.kweight * ftwindow(
        group.k, xmin=asked.kmin, xmax=d.kmax, window=asked.win, dx=sill, dx2=sill
    )
    residual = _resid(
        d.coefs[: d.nspl] + moved, len(d.coefs), kraw, mu, None, d.knots, d.order, group.k,
        window, NFFT, d.irbkg, asked.nclamp, asked.clamp_lo, asked.clamp_hi,
    )  # fmt: skip
    return float(residual @ residual), excess - basis @ moved


def _relative(part: Floats, whole: Floats, k: Floats) -> float:
    weight = k**2 * (k > K_MIN)
    return float(np.linalg.norm(part * weight) / np.linalg.norm(whole * weight))

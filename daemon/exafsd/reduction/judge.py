"""Larch's judgement of one reduced spectrum: whether the compiled plan is still Larch there."""

from typing import Any

import numpy as np
from larch import Group
from larch.xafs import autobk, find_e0, pre_edge
from larch.xafs.autobk import _resid, spline_eval
from larch.xafs.xafsft import ftwindow

from exafsd.contract.recipe import Autobk, Recipe
from exafsd.reduction.plan import background_unit
from exafsd.reduction.transform import NFFT
from exafsd.reduction.verdict import AuditJob, Verdict
from exafsd.spectra import Floats

#: chi is compared above this, 1/angstrom, where it does not depend on the edge's shape
K_MIN = 2.0


def judge(job: AuditJob) -> Verdict:
    """Reduce a job's spectrum with Larch and compare; never raises."""
    try:
        return _judged(job)
    except Exception as error:  # Larch raises whatever numpy and scipy raise inside it
        return Verdict(job.key, job.id, error=f"{type(error).__name__}: {error}")


def _judged(job: AuditJob) -> Verdict:
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

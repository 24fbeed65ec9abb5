"""mu(E) to ReducedSpectrum by either engine: compiled plans, kept for reuse, or Larch itself."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from exafsd.contract.recipe import Recipe
from exafsd.contract.vocabulary import Reason
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.memory import grid_fingerprint
from exafsd.reduction.plan import Batch, Plan
from exafsd.spectra import Floats, ReducedSpectrum, SpectrumError

EngineName = Literal["plan", "larch"]
#: k range of the data as published starts at E0 itself, 1/angstrom
K_DATA_MIN = 0.0
#: compiled plans kept; one takes about half a megabyte
MAX_PLANS = 64


#: what tells grids apart at a glance, E0 and recipe
_Key = tuple[int, float, float, float, float, Recipe]


class Plans:
    """Compiled plans by energy grid, E0 and recipe; the ones not used for longest are dropped."""

    def __init__(self, size: int = MAX_PLANS) -> None:
        self._size = size
        self._plans: OrderedDict[_Key, Plan] = OrderedDict()
        self.compiled = 0

    def get(self, energy: Floats, e0: float, recipe: Recipe) -> Plan:
        """Plan for a grid, compiled if it is new."""
        key = *grid_fingerprint(energy), e0, recipe
        plan = self._plans.get(key)
        if plan is None or not np.array_equal(plan.energy, energy):
            plan = self._plans[key] = Plan.compile(energy, e0, recipe)
            self.compiled += 1
            if len(self._plans) > self._size:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return plan


def check_e0(energy: Floats, e0: float) -> None:
    """Refuse an edge energy that the scan does not contain.

    Raises
    ------
    SpectrumError
        ``no_edge``.
    """
    if not energy[1] < e0 < energy[-2]:
        raise SpectrumError(
            Reason.NO_EDGE,
            f"E0 = {e0:.1f} eV is not inside the scan ({energy[0]:.1f} to {energy[-1]:.1f} eV);"
            " check the scan range, the element and edge, or the E0 setting",
        )


def by_plan(plan: Plan, mus: Sequence[Floats]) -> list[ReducedSpectrum | SpectrumError]:
    """Reduce spectra (n,) on the plan's grid."""
    batch = plan.reduce(np.array(mus))
    return _unpacked(batch, plan.energy, plan.e0, plan.k, plan.r, plan.recipe, "plan")


def by_larch(
    energy: Floats, mu: Floats, e0: float, recipe: Recipe
) -> ReducedSpectrum | SpectrumError:
    """Reduce one spectrum with Larch."""
    from exafsd.reduction import larch_engine  # Larch takes seconds to import

    try:
        batch, k, r, resolved = larch_engine.reduce(energy, mu, e0, recipe)
    except SpectrumError as error:
        return error
    return _unpacked(batch, energy, e0, k, r, resolved, "larch")[0]


def reduce_mu(
    energy: Floats,
    mu: Floats,
    recipe: Recipe,
    e0: float | None = None,
    engine: EngineName = "plan",
) -> ReducedSpectrum:
    """Reduce one spectrum.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending and unique, and absorption in any unit; finite.
    recipe
        Larch arguments; what is null is resolved as Larch does.
    e0
        Edge energy in eV; None lets `find_e0` decide.
    engine
        The compiled plan, or Larch itself.

    Raises
    ------
    SpectrumError
        ``no_edge`` or ``larch_failed``, with the cause.
    """
    if e0 is None:
        e0 = find_e0(energy, mu)
    check_e0(energy, e0)
    if engine == "larch":
        reduced = by_larch(energy, mu, e0, recipe)
    else:
        reduced = by_plan(Plan.compile(energy, e0, recipe, once=True), [mu])[0]
    if isinstance(reduced, SpectrumError):
        raise reduced
    return reduced


def _unpacked(
    batch: Batch,
    energy: Floats,
    e0: float,
    k: Floats,
    r: Floats,
    recipe: Recipe,
    engine: EngineName,
) -> list[ReducedSpectrum | SpectrumError]:
    """Spectra of a batch, or what is wrong with them."""
    finite = (np.isfinite(batch.step) & np.isfinite(batch.chi).all(axis=1)).tolist()
    k_data = (K_DATA_MIN, recipe.autobk.kmax or float(k[-1]))
    numbers = zip(
        batch.step.tolist(), batch.edge_step.tolist(), batch.edge_step_std.tolist(),
        batch.epsilon_k.tolist(), batch.objective.tolist(), strict=True,
    )  # fmt: skip
    spectra: list[ReducedSpectrum | SpectrumError] = []
    for i, (step, edge_step, std, epsilon_k, objective) in enumerate(numbers):
        if not finite[i]:
            text = "its normalization or background is not finite"
            spectra.append(SpectrumError(Reason.LARCH_FAILED, text))
        elif step <= 0:  # Larch takes the step's absolute value
            text = f"mu falls at E0 = {e0:.1f} eV: are the detectors exchanged in [adapter]?"
            spectra.append(SpectrumError(Reason.NO_EDGE, text))
        else:
            spectra.append(
                ReducedSpectrum(
                    energy=energy,
                    e0=e0,
                    edge_step=edge_step,
                    edge_step_std=std if math.isfinite(std) else None,
                    norm=batch.norm[i],
                    flat=batch.flat[i],
                    k=k,
                    chi=batch.chi[i],
                    r=r,
                    chir_mag=batch.chir_mag[i],
                    epsilon_k=epsilon_k if math.isfinite(epsilon_k) else None,
                    k_data=k_data,
                    recipe=recipe,
                    objective=objective,
                    engine=engine,
                )
            )
    return spectra

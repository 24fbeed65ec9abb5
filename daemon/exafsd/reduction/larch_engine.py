"""mu(E) to chi(k) and chi(R) by Larch itself: the reference that every other engine must equal."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from larch import Group
from larch.xafs import autobk, estimate_noise, find_e0, pre_edge, xftf

from exafsd.contract.recipe import Recipe
from exafsd.spectra import Floats, ReducedSpectrum, SpectrumError

#: k range of the data as published starts at E0 itself, 1/angstrom
K_DATA_MIN = 0.0
#: R range of Larch's noise estimate, angstrom: no structure is left there.
NOISE_R = (15.0, 30.0)
#: smallest data end at which the noise estimate has enough points, 1/angstrom
NOISE_K_MIN, NOISE_K_SPAN = 2.0, 3.0


@dataclass(frozen=True)
class Frozen:
    """Ranges resolved on a run's first good spectrum, so that knots do not flip within a run."""

    e0: float
    recipe: Recipe


def edge_position(energy: Floats, mu: Floats) -> float:
    """E0 in eV by Larch's `find_e0`: the maximum of a smoothed derivative of mu."""
    return float(find_e0(energy, mu=mu, group=Group()))


def reduce_mu(
    energy: Floats, mu: Floats, recipe: Recipe, e0: float | None = None
) -> tuple[ReducedSpectrum, Frozen]:
    """Reduce one spectrum.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending and unique, and absorption in any unit; finite.
    recipe
        Larch arguments; what is null Larch chooses.
    e0
        Edge energy in eV; None lets `find_e0` decide.

    Returns
    -------
    reduced, frozen
        The spectrum, and E0 with all ranges resolved, to reduce the run's next one alike.

    Raises
    ------
    SpectrumError
        ``no_edge`` or ``larch_failed``, with what Larch said.
    """
    group: Any = Group(energy=energy, mu=mu)  # Larch adds attributes as it goes
    if e0 is None:
        e0 = edge_position(energy, mu)
    if not energy[1] < e0 < energy[-2]:
        raise SpectrumError(
            "no_edge",
            f"E0 = {e0:.1f} eV is not inside the scan ({energy[0]:.1f} to {energy[-1]:.1f} eV);"
            " check the scan range, the element and edge, or the E0 setting",
        )
    try:
        pre_edge(group, e0=e0, **recipe.pre_edge.model_dump())
        autobk(group, ek0=e0, **recipe.autobk.model_dump())
    except Exception as error:  # Larch raises whatever numpy and scipy raise inside it
        raise SpectrumError(
            "larch_failed", f"Larch could not reduce it: {type(error).__name__}: {error}"
        ) from error
    if not (np.isfinite(group.chi).all() and np.isfinite(group.norm).all()):
        raise SpectrumError("larch_failed", "Larch's normalization is not finite")

    at_e0 = int(np.searchsorted(energy, e0))
    if group.post_edge[at_e0] <= group.pre_edge[at_e0]:  # Larch takes the step's absolute value
        raise SpectrumError(
            "no_edge", f"mu falls at E0 = {e0:.1f} eV: are the detectors exchanged in [adapter]?"
        )
    k_end = float(group.autobk_details.kmax)
    window = recipe.xftf
    kmax = min(window.kmax, k_end - 0.5)
    transform: dict[str, Any] = window.model_dump() | {"kmax": max(kmax, window.kmin + 1.0)}
    xftf(group, **transform)
    details = group.pre_edge_details
    resolved = recipe.pre_edge.model_copy(
        update={
            name: getattr(details, name) for name in ("pre1", "pre2", "norm1", "norm2", "nnorm")
        }
    )
    autobk_range = recipe.autobk.model_copy(update={"kmax": k_end})
    frozen = Frozen(e0, recipe.model_copy(update={"pre_edge": resolved, "autobk": autobk_range}))
    reduced = ReducedSpectrum(
        energy=energy,
        e0=float(group.e0),
        edge_step=float(group.edge_step),
        edge_step_std=_edge_step_std(group, recipe.pre_edge.npre),
        norm=group.norm,
        flat=group.flat,
        k=group.k,
        chi=group.chi,
        r=group.r,
        chir_mag=group.chir_mag,
        epsilon_k=_epsilon_k(group, k_end),
        k_data=(K_DATA_MIN, k_end),
        recipe=frozen.recipe,
    )
    return reduced, frozen


def _epsilon_k(group: Any, k_end: float) -> float | None:
    """Noise of chi(k); the k range is given, because Larch's default reads too high."""
    if k_end < NOISE_K_MIN + NOISE_K_SPAN:
        return None
    out: Any = Group()
    window: dict[str, Any] = {"kmin": NOISE_K_MIN, "kmax": k_end, "kweight": 1}
    window |= {"rmin": NOISE_R[0], "rmax": NOISE_R[1]}
    try:
        estimate_noise(group.k, group.chi, group=out, **window)
    except IndexError:  # Larch found no k where the signal drops below the noise
        return None
    return float(out.epsilon_k)


def _edge_step_std(group: Any, npre: int) -> float | None:
    """Standard error of the edge step from the scatter about the two fitted curves.

    Pre- and post-edge values at E0 are each known to about scatter / sqrt(points) times the
    leverage of extrapolating a polynomial of degree n to the end of its range, (n + 1).
    The post-edge scatter contains the EXAFS itself: an upper bound.
    """
    details = group.pre_edge_details
    relative = group.energy - group.e0
    pre = (relative >= details.pre1) & (relative <= details.pre2)
    post = (relative >= details.norm1) & (relative <= details.norm2)
    variance = 0.0
    for where, curve, degree in (
        (pre, group.pre_edge, npre),
        (post, group.post_edge, details.nnorm),
    ):
        free = int(where.sum()) - degree - 1
        if free < 1:
            return None
        residual = (group.mu - curve)[where]
        variance += (degree + 1) ** 2 * float(residual @ residual) / free / where.sum()
    return float(np.sqrt(variance))

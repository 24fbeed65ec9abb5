"""mu(E) to chi(k) and chi(R) by Larch itself: the reference that the compiled plan must equal."""

from typing import Any

import numpy as np
from larch import Group
from larch.xafs import autobk, pre_edge, xftf

from exafsd.contract.recipe import Recipe
from exafsd.contract.vocabulary import Reason
from exafsd.reduction.normalization import index_nearest
from exafsd.reduction.plan import Batch, background_unit
from exafsd.reduction.transform import Noise, cut_to_data
from exafsd.spectra import Floats, SpectrumError


def reduce(
    energy: Floats, mu: Floats, e0: float, recipe: Recipe
) -> tuple[Batch, Floats, Floats, Recipe]:
    """Reduce one spectrum with Larch.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending and unique, and absorption in any unit; finite.
    e0
        Edge energy in eV, inside the scan.
    recipe
        Larch arguments; what is null Larch chooses.

    Returns
    -------
    batch, k, r, recipe
        A batch of one as `Plan.reduce` gives it, its grids, and the recipe with all ranges
        resolved.

    Raises
    ------
    SpectrumError
        ``larch_failed``, with what Larch said.
    """
    group: Any = Group(energy=energy, mu=mu)  # Larch adds attributes as it goes
    try:
        pre_edge(group, e0=e0, **recipe.pre_edge.model_dump())
        unit = background_unit(np.array([group.edge_step]))
        arguments: dict[str, Any] = recipe.autobk.model_dump() | {"ek0": e0}
        if unit is None:
            autobk(group, **arguments)
        else:
            group.mu = mu / unit[0]
            autobk(group, edge_step=group.edge_step / unit[0], **arguments)
        k_end = float(group.autobk_details.kmax)
        xftf(group, **cut_to_data(recipe.xftf, k_end).model_dump())
    except Exception as error:  # Larch raises whatever numpy and scipy raise inside it
        raise SpectrumError(
            Reason.LARCH_FAILED, f"Larch could not reduce it: {type(error).__name__}: {error}"
        ) from error
    details = group.pre_edge_details
    ranges = recipe.pre_edge.model_copy(
        update={
            name: getattr(details, name) for name in ("pre1", "pre2", "norm1", "norm2", "nnorm")
        }
    )
    background = recipe.autobk.model_copy(update={"kmax": k_end})
    resolved = recipe.model_copy(update={"pre_edge": ranges, "autobk": background})
    at_e0 = index_nearest(energy, e0)
    noise = Noise.of(group.k, k_end)
    chi = group.chi[None]
    batch = Batch(
        step=(group.post_edge - group.pre_edge)[[at_e0]],
        edge_step=np.array([group.edge_step]),
        edge_step_std=np.array([_edge_step_std(group, mu, recipe.pre_edge.npre)]),
        norm=group.norm[None],
        flat=group.flat[None],
        chi=chi,
        chir_mag=group.chir_mag[None],
        epsilon_k=np.array([np.nan]) if noise is None else noise(chi),
        objective=np.array([group.autobk_details.chisqr]),
    )
    return batch, group.k, group.r, resolved


def _edge_step_std(group: Any, mu: Floats, npre: int) -> float:
    """Standard error of the edge step as in `Normalization`, from Larch's own curves."""
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
            return np.nan
        residual = (mu - curve)[where]
        variance += (degree + 1) ** 2 * float(residual @ residual) / free / where.sum()
    return float(np.sqrt(variance))

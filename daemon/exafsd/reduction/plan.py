"""The compiled reduction: Larch's `pre_edge`, `autobk` and `xftf` for one grid, E0 and recipe.

What depends only on these three is computed once; what is left for a batch of spectra is a few
matrix products. `larch_engine` is the reference that this must equal.
"""

from dataclasses import dataclass

import numpy as np

from exafsd.contract.recipe import Recipe
from exafsd.contract.vocabulary import Reason
from exafsd.reduction.background import Background
from exafsd.reduction.normalization import Normalization
from exafsd.reduction.transform import Noise, Transform, data_transform, transformed
from exafsd.spectra import Floats, SpectrumError

#: largest edge step that can be an absorbance
LARGEST_STEP = 10.0


@dataclass(frozen=True)
class Batch:
    """Reduced spectra; NaN where a number is unknown."""

    step: Floats  # (b,) edge step with its sign: negative where mu falls at E0
    edge_step: Floats  # (b,)
    edge_step_std: Floats  # (b,)
    norm: Floats  # (b, n)
    flat: Floats  # (b, n)
    chi: Floats  # (b, m)
    chir_mag: Floats  # (b, l)
    epsilon_k: Floats  # (b,)
    objective: Floats  # (b,) of AUTOBK


def background_unit(edge_step: Floats) -> Floats | None:
    """What mu is divided by before AUTOBK, (b,); None where nothing is.

    AUTOBK's clamp grows with the square of mu: in raw counts it overrules everything else, and
    the minimum of its objective is no background any more (Larch's minimiser stops far from it).
    So mu with a step that no absorbance has is brought to a step of 1 first.
    """
    if not (edge_step > LARGEST_STEP).any():
        return None
    return np.where(edge_step > LARGEST_STEP, edge_step, 1.0)


@dataclass(frozen=True)
class Plan:
    """A reduction compiled for one energy grid, E0 and recipe."""

    energy: Floats
    e0: float
    recipe: Recipe  # all ranges resolved
    normalization: Normalization
    background: Background
    transform: Transform
    noise: Noise | None

    @classmethod
    def compile(cls, energy: Floats, e0: float, recipe: Recipe, once: bool = False) -> "Plan":
        """Prepare the reduction.

        Parameters
        ----------
        energy
            (n,) eV, ascending, at least 1 meV apart.
        e0
            Edge energy in eV, inside the scan.
        recipe
            Larch's arguments; what is null is resolved as Larch does.
        once
            Whether the plan is for one use, as where no two scans have the same energies. It is
            then made in a fraction of the time, and takes longer to use.

        Raises
        ------
        SpectrumError
            ``larch_failed`` where the scan does not allow what the recipe asks for.
        """
        try:
            normalization = Normalization.compile(energy, e0, recipe.pre_edge)
            background = Background.compile(energy, e0, recipe.autobk, once)
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:
            raise SpectrumError(Reason.LARCH_FAILED, f"it cannot be reduced: {error}") from error
        k, k_end = background.k, background.kmax
        resolved = recipe.model_copy(
            update={
                "pre_edge": normalization.ranges,
                "autobk": recipe.autobk.model_copy(update={"kmax": k_end}),
            }
        )
        return cls(
            energy=energy,
            e0=e0,
            recipe=resolved,
            normalization=normalization,
            background=background,
            transform=data_transform(k, recipe.xftf, k_end),
            noise=Noise.of(k, k_end),
        )

    @property
    def k(self) -> Floats:
        """(m,) 1/angstrom, from 0 in steps of 0.05."""
        return self.background.k

    @property
    def r(self) -> Floats:
        """(l,) angstrom."""
        return self.transform.r

    @property
    def k_end(self) -> float:
        """End of the data, 1/angstrom."""
        return self.background.kmax

    def reduce(self, mu: Floats) -> Batch:
        """Reduce spectra, (b, n), in any unit."""
        normal = self.normalization(mu)
        unit = background_unit(normal.edge_step)
        background = self.background(mu if unit is None else mu / unit[:, None])
        step = normal.edge_step if unit is None else normal.edge_step / unit
        chi = background.excess / step[:, None]
        if self.noise is None:
            chir, epsilon_k = self.transform(chi), np.full(len(mu), np.nan)
        elif len(mu) == 1:
            chir, high = transformed(chi, self.transform, self.noise.transform)
            epsilon_k = self.noise.of_transformed(high)
        else:
            chir, epsilon_k = self.transform(chi), self.noise(chi)
        return Batch(
            step=normal.step,
            edge_step=normal.edge_step,
            edge_step_std=normal.edge_step_std,
            norm=normal.norm,
            flat=normal.flat,
            chi=chi,
            chir_mag=np.abs(chir),
            epsilon_k=epsilon_k,
            objective=background.objective,
        )

"""Other phases: the crystals of the models that ship, with paths from FEFF."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exafsd.contract import K_GRID
from exafsd_training.simulation.simulate import REFF_MAX, clean_spectra, sample
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import Floats, PathTable, read_paths
from exafsd_training.theory.structures import Crystal, run_feff
from exafsd_training.zoo import configurations
from exafsd_training.zoo.configurations import ModelConfig

#: By how much all distances of a phase are stretched or shrunk at random: there are more phases
#: than those at hand.
STRETCH = 0.12


@dataclass(frozen=True)
class Phase:
    """What spectra of a phase are made from."""

    name: str
    parametrisation: Parametrisation
    table: PathTable

    @classmethod
    def of(cls, config: ModelConfig, folder: Path) -> "Phase":
        """That of a model that ships; its FEFF run ends up in `folder`, or is found there."""
        feff = run_feff(config.crystal(), config.absorber, config.edge, folder)
        table = read_paths(feff).within(REFF_MAX)
        return cls(config.name, parametrise(config.phase, table, config.fit, config.priors), table)

    def spectra(
        self, rng: np.random.Generator, n: int, temperature: Floats | None = None
    ) -> Floats:
        """Clean k^2 chi (n, 401) in 1/angstrom^2, at temperatures (n,) in K or any."""
        draw = sample(rng, n, self.parametrisation, self.table, temperature)
        return clean_spectra(draw, self.parametrisation, self.table)


def others(crystal: Crystal) -> Sequence[ModelConfig]:
    """The models that ship, without those of a crystal."""
    every = [
        (config, config.crystal()) for config in map(configurations.load, configurations.names())
    ]
    own = crystal.formula, crystal.space_group
    return [config for config, other in every if (other.formula, other.space_group) != own]


def other_phase_spectra(crystal: Crystal, folder: Path, n: int, seed: int) -> Floats:
    """Clean spectra (m, 401), about `n`, of all phases but that of a crystal, in random order.

    Every one has its distances stretched or shrunk at random by up to `STRETCH`.

    Parameters
    ----------
    crystal
        Of the model that is trained.
    folder
        For the FEFF runs.
    n, seed
        Number of spectra, and of everything random.
    """
    rng = np.random.default_rng(seed)
    configs = others(crystal)
    share = -(-n // len(configs))
    every = np.concatenate(list(_spectra(configs, folder, share, rng)))
    return rng.permutation(every)


def _spectra(
    configs: Sequence[ModelConfig], folder: Path, n: int, rng: np.random.Generator
) -> Iterator[Floats]:
    for config in configs:
        spectra = Phase.of(config, folder).spectra(rng, n)
        yield stretched(spectra, rng.uniform(1 - STRETCH, 1 + STRETCH, n))


def stretched(chi_k2: Floats, factor: Floats) -> Floats:
    """Spectra (n, 401) with all distances times `factor` (n,), but for phase shifts."""
    rows = zip(chi_k2, factor, strict=True)
    return np.array(
        [np.interp(K_GRID * f, K_GRID, row, right=0.0) / f**2 for row, f in rows], np.float32
    )

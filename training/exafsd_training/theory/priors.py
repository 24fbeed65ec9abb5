"""What training draws from, and how the shells of one sample vibrate together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from exafsd_training.theory.paths import Floats
from exafsd_training.theory.shells import Shell
from exafsd_training.theory.thermal import Bond, Vibration, reduced_mass, vibrate

#: Share of spectra whose E0 is anywhere in the bounds, less the margin a sigmoid cannot reach.
E0_ANYWHERE, E0_REACH = 0.3, 14.0
#: Spread of the logarithm of an Einstein temperature that is only a guess.
GUESS_SPREAD = 0.3
#: sigma2 of a farther shell of the same element over the nearest's, mean and standard
#: deviations: of all together, and of the logarithm of each.
FAR_RATIO = (1.25, 0.1, 0.12)
#: The same in compounds: of the nearest neighbours' element, and of others. Stiff bonds hold the
#: nearest ligand to the absorber, nothing holds the next. Set on normal modes
#: (`exafsd_training.simulation.lattice`) of NiO, MnO, CdO, TiO2, Cr2O3, ZnSe and FeS2, in which
#: ligands to 5 angstrom have 1.3 to 5 times the nearest's sigma2 and farther cations 0.7 to 1.5
#: times that of the nearest cation.
FAR_LIGANDS, FAR_OTHERS = (2.2, 0.4, 0.3), (1.1, 0.1, 0.25)
#: Mean, standard deviation of all together, and of the logarithm of each.
FarRatio = tuple[float, float, float]


@dataclass(frozen=True)
class Priors:
    """What training draws from.

    `n_s02` is a range relative to the crystal's N; `e0` mean and standard deviation in eV of most
    spectra. `einstein` holds Einstein temperatures in K of the first shells, as many as are known,
    with `spread` the standard deviation of their logarithm. `anharmonicity` is that of
    `exafsd_training.theory.thermal.Bond`, 1/angstrom. `far` are ratios like `FAR_RATIO`, of the
    nearest neighbours' element and of others.
    """

    n_s02: tuple[float, float] = (0.25, 1.25)
    e0: tuple[float, float] = (4.0, 4.5)
    einstein: tuple[float, ...] = ()
    spread: float = 0.18
    anharmonicity: tuple[float, float] = (0.0, 2.4)
    far: tuple[FarRatio, FarRatio] = (FAR_RATIO, FAR_RATIO)

    def e0_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of E0 as drawn, `E0_ANYWHERE` included, eV."""
        centre, width = self.e0
        usual = 1 - E0_ANYWHERE
        mean = usual * centre
        square = usual * (width**2 + centre**2) + E0_ANYWHERE * E0_REACH**2 / 3
        return mean, float(np.sqrt(square - mean**2))


def bond(shell: Shell, place: int, priors: Priors, spread: float) -> Bond:
    """The bond to a shell; `place` is 0 for the nearest."""
    return Bond(
        mass=reduced_mass(shell.absorber, shell.scatterer),
        einstein=priors.einstein[place] if place < len(priors.einstein) else None,
        spread=spread,
        anharmonicity=priors.anharmonicity,
        # frozen in the same potential; in a compound static disorder is bonds of different length.
        # Were it not skewed in metals, a hot foil might be a cold one in disorder, and its R was
        # read to rise by a tenth too little
        frozen_alike=shell.scatterer == shell.absorber,
    )


def vibrations(
    rng: np.random.Generator, temperature: Floats, shells: Sequence[Shell], priors: Priors
) -> list[Vibration]:
    """Draw what every shell does at each temperature (n,) in K.

    A shell whose Einstein temperature is known, the nearest, and the nearest of each other
    element are bonds of their own; farther shells of an element follow its nearest.
    """
    n = len(temperature)
    drawn: list[Vibration] = []
    nearest: dict[str, Vibration] = {}
    together = rng.normal(0, 1, n)
    for place, shell in enumerate(shells):
        tabulated = place < len(priors.einstein)
        if tabulated or shell.scatterer not in nearest:
            spread = priors.spread if tabulated or place == 0 else GUESS_SPREAD
            vibration = vibrate(rng, temperature, bond(shell, place, priors, spread))
            nearest.setdefault(shell.scatterer, vibration)
        else:
            mean, common, own = priors.far[shell.scatterer != shells[0].scatterer]
            ratio = (mean + common * together) * np.exp(rng.normal(0, own, n))
            thermal = nearest[shell.scatterer].thermal * ratio
            vibration = Vibration(thermal, np.zeros(n), np.zeros(n))
        if drawn:
            # disorder of one sample: the same spectra have it in every shell
            vibration = replace(vibration, static=drawn[0].static * rng.uniform(0.5, 2.5, n))
        drawn.append(vibration)
    return drawn

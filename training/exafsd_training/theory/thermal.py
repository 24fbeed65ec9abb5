"""What vibrations make of sigma2 and C3: the correlated Einstein model, anharmonic to third order.

One bond is one oscillator. sigma2 is that of Sevillano, Meuth and Rehr (Phys. Rev. B 20, 4908,
1979), C3 that of Van Hung and Rehr (Phys. Rev. B 56, 43, 1997).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: hbar^2 / (2 m_u k_B) in angstrom^2 K, for Einstein's sigma^2 with reduced mass in u.
EINSTEIN = 24.254337
#: Cu's Einstein temperature, K, and reduced mass, u: where nothing better is known, a bond is
#: taken to be as stiff as copper's.
COPPER = (232.0, 31.773)
#: Temperatures of training, K: half of the spectra uniform in the logarithm over the whole range,
#: the other half uniform above the second number.
TEMPERATURE = (5.0, 20.0, 1000.0)
#: Share of spectra with static disorder, and its mean, angstrom^2.
STATIC = (0.35, 0.002)
#: What C3 scatters by beyond the model, angstrom^3.
C3_SCATTER = 1.5e-5
#: Draws behind the mean and standard deviation that a card quotes.
DRAWS = 20_000


@dataclass(frozen=True)
class Bond:
    """Vibration of one bond.

    `einstein` is in K or None for a bond as stiff as copper's, `mass` the reduced mass in u,
    `spread` the standard deviation of the logarithm of the Einstein temperature. `anharmonicity`
    is the range of a = 6 k3/k in 1/angstrom: about 1.8 in a metal such as Cu, 0 in a harmonic bond.
    `frozen_alike` says that static displacements are as skewed as thermal ones.
    """

    mass: float
    einstein: float | None = None
    spread: float = 0.18
    anharmonicity: tuple[float, float] = (0.0, 2.4)
    frozen_alike: bool = False

    @property
    def temperature(self) -> float:
        """Einstein temperature in K."""
        return self.einstein or COPPER[0] * float(np.sqrt(COPPER[1] / self.mass))


@dataclass(frozen=True)
class Vibration:
    """Drawn values (n,): thermal and static sigma2 in angstrom^2, C3 in angstrom^3."""

    thermal: Floats
    static: Floats
    c3: Floats

    @property
    def sigma2(self) -> Floats:
        """Thermal and static together, angstrom^2."""
        return self.thermal + self.static


def reduced_mass(*symbols: str) -> float:
    """Reduced mass of a bond between two elements, u."""
    from xraydb import atomic_mass

    return float(1 / sum(1 / atomic_mass(symbol) for symbol in symbols))


def einstein_sigma2(temperature: Floats, einstein: Floats, mass: float) -> Floats:
    """sigma^2 in angstrom^2 of an Einstein oscillator.

    Parameters
    ----------
    temperature, einstein
        Temperature and Einstein temperature in K.
    mass
        Reduced mass in u.
    """
    return EINSTEIN / (mass * einstein) / np.tanh(einstein / (2 * temperature))


def third_cumulant(sigma2: Floats, zero_point: Floats, anharmonicity: Floats) -> Floats:
    """C3 in angstrom^3: a (sigma^4 - 2/3 sigma_0^4), sigma_0^2 at zero temperature.

    Parameters
    ----------
    sigma2, zero_point
        sigma^2 of what is skewed, and of vibrations at zero temperature, angstrom^2.
    anharmonicity
        a = 6 k3/k, 1/angstrom.
    """
    return anharmonicity * (sigma2**2 - 2 / 3 * zero_point**2)


def draw_temperature(rng: np.random.Generator, n: int) -> Floats:
    """Sample temperatures (n,), K."""
    lowest, low, high = TEMPERATURE
    logarithmic = np.exp(rng.uniform(np.log(lowest), np.log(high), n))
    return np.where(rng.random(n) < 0.5, logarithmic, rng.uniform(low, high, n))


def vibrate(rng: np.random.Generator, temperature: Floats, bond: Bond) -> Vibration:
    """Draw a bond's vibration for each temperature (n,) in K."""
    n = len(temperature)
    einstein = bond.temperature * np.exp(rng.normal(0, bond.spread, n))
    zero_point = einstein_sigma2(np.full(n, 1e-3), einstein, bond.mass)
    thermal = einstein_sigma2(temperature, einstein, bond.mass)
    share, mean = STATIC
    static = np.where(rng.random(n) < share, rng.exponential(mean, n), 0)
    skewed = thermal + static if bond.frozen_alike else thermal
    c3 = third_cumulant(skewed, zero_point, rng.uniform(*bond.anharmonicity, n))
    return Vibration(thermal, static, c3 + rng.normal(0, C3_SCATTER, n))

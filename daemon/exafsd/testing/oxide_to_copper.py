"""The physics of copper oxide that is reduced while it is heated: CuO, then Cu2O, then copper.

Near edges are measured ones, those that ship as references; beyond them the fine structure is
FEFF's, from the models that ship: no FEFF runs here. Heat damps both.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from exafsd.composition.references import load, shipped_folder
from exafsd.contract.grid import ETOK, K_GRID
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.refinement.weighed import onto_grid
from exafsd.inference.registry import load_bundle
from exafsd.inference.registry import shipped_folder as models_folder
from exafsd.reduction.edge_middle import edge_middle, line, rise
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import Floats
from exafsd.testing.heating import ROOM_K, TABLE_K, Counts, atomic, counted, trajectory, undulator


class Phase(NamedTuple):
    """A phase: its model, N S0^2 and R of its first shell at room temperature, and its bond.

    `einstein` is the temperature of the bond, K, `mass` its reduced mass, u, `expansion` in 1/K.
    """

    model: str
    n_s02: float
    r: float
    einstein: float
    mass: float
    expansion: float


#: sigma^2 at room temperature: 0.0041, 0.0036 and 0.0086 angstrom^2. N S0^2 of the oxides is what
#: Larch's feffit reads from measured spectra: with more, FEFF's fine structure does not fit the
#: measured near edges, which the judge of cu-k-cuo notices.
PHASES = {
    "CuO": Phase("cu-k-cuo", 2.5, 1.957, 600.0, 12.78, 7e-6),
    "Cu2O": Phase("cu-k-cu2o", 1.5, 1.849, 650.0, 12.78, 2e-6),
    "Cu": Phase("cu-k-fcc", 10.8, 2.556, 235.0, 31.77, 17e-6),
}
#: Einstein's sigma^2 is this over mass and temperature, angstrom^2 u K, times coth(theta / 2 T).
EINSTEIN = 24.254
#: K between which each phase becomes the next.
STEPS = ((420.0, 560.0), (620.0, 740.0))
#: Where measured near edges end and FEFF takes over, eV from the edge.
BLEND = (55.0, 90.0)
#: the line above the edge that is taken off a measured near edge, eV from it
POST = (45.0, 380.0)


class OxideToCopper:
    """Copper oxide with a foil of copper at room temperature behind it.

    Parameters
    ----------
    points
        Energies per sweep, at least 200.
    temperatures
        Range in K that `sweep` may be asked for.
    photons
        Mean counts of i0 per energy.
    """

    def __init__(
        self,
        points: int = 500,
        temperatures: tuple[float, float] = (ROOM_K, 800.0),
        photons: float = 1e8,
    ) -> None:
        if points < 200:
            raise ValueError(f"a sweep has at least 200 points, not {points}")
        self.energy = trajectory(points)
        low, high = min(*temperatures, ROOM_K), max(*temperatures, ROOM_K)
        self._kelvin = np.arange(low, high + 2 * TABLE_K, TABLE_K)
        self._before, self._step = atomic(self.energy)
        measured = {one.name: one for one in load([shipped_folder()])[0]}
        self._shapes = {
            name: _shapes(phase, measured[name].energy, measured[name].mu, self.energy,
                          self._kelvin)
            for name, phase in PHASES.items()
        }  # fmt: skip
        self._mu_reference = self._mu({"Cu": 1.0}, ROOM_K)
        self._i0 = undulator(points, photons)

    def sweep(self, temperature: float, direction: str, rng: np.random.Generator) -> Counts:
        """Measure once, with photon noise.

        Parameters
        ----------
        temperature
            K, inside the range given at the start.
        direction
            ``up`` or ``down``: the order of the points.
        rng
            Source of the noise.
        """
        mus = self._mu(shares(temperature), temperature), self._mu_reference
        return counted(self.energy, self._i0, mus, direction, self.truth(temperature), rng)

    def truth(self, temperature: float) -> dict[str, float]:
        """Shares, and R and sigma2 of each phase's first shell, angstrom and angstrom^2."""
        truth = {f"share_{name}": share for name, share in shares(temperature).items()}
        for name, phase in PHASES.items():
            truth[f"r_{name}"] = _r(phase, temperature)
            truth[f"sigma2_{name}"] = _sigma2(phase, temperature)
        return truth | {"temperature": temperature}

    def _mu(self, parts: Mapping[str, float], temperature: float) -> Floats:
        place = (temperature - self._kelvin[0]) / TABLE_K
        row = min(max(int(place), 0), len(self._kelvin) - 2)
        shape = np.zeros(len(self.energy))
        for name, share in parts.items():
            table = self._shapes[name]
            shape += share * (table[row] + (place - row) * (table[row + 1] - table[row]))
        return self._before + self._step * shape


def shares(temperature: float) -> dict[str, float]:
    """Shares of the phases at a temperature in K; their sum is 1."""
    first, second = (float(_smooth((temperature - low) / (high - low))) for low, high in STEPS)
    return {"Cu": first * second, "Cu2O": first * (1 - second), "CuO": 1 - first}


def _shapes(phase: Phase, measured: Floats, mu: Floats, energy: Floats, kelvin: Floats) -> Floats:
    """Absorption of a phase over the atomic step, (temperatures, n)."""
    edge = edge_energy("Cu", "K")
    risen, middle = rise(measured, mu, edge), edge_middle(measured, mu, edge)
    if risen is None or middle is None:
        raise ValueError("a reference that ships has no edge")
    x = measured - edge
    after = slice(*np.searchsorted(x, POST))
    level, slope = line(x[after], risen[after])
    flat = np.interp(energy, measured, risen - np.where(x > 0, level - 1 + slope * x, 0.0))
    bundle = load_bundle(models_folder() / phase.model)
    card, variables = bundle.card, Variables.of(bundle.card)
    position, about = card.edge_position, card.refinement
    if variables is None or position is None or about is None or bundle.waves is None:
        raise ValueError(f"the model {phase.model} has no refinement")
    states = np.tile(variables.mean, (len(kelvin), 1))
    states[:, variables.e0] = position.zero - position.e0
    states[:, variables.ids.index(f"{card.structures[0].phase}/1/n_s02")] = phase.n_s02
    states[:, variables.r] = [_r(phase, t) for t in kelvin]
    states[:, variables.sigma2] = [_sigma2(phase, t) for t in kelvin]
    waves = bundle.waves(variables.theta(states)[0])[1].sum(axis=2)
    onto = onto_grid(about.k_min, about.k_step, about.size)
    inside = onto.any(axis=1)
    k_model, waves = K_GRID[inside], waves @ onto[inside].T
    k = np.sqrt(ETOK * np.clip(energy - middle - position.e0, 0.0, None))
    chi = np.stack([CubicSpline(k_model, row)(np.clip(k, *k_model[[0, -1]])) for row in waves])
    chi = np.where((k >= k_model[0]) & (k <= k_model[-1]), chi, 0.0)
    hotter = np.array([_sigma2(phase, t) - _sigma2(phase, ROOM_K) for t in kelvin])
    damping = np.exp(-2 * k**2 * hotter[:, None])
    near = np.where(energy > middle, 1 + (flat - 1) * damping, flat)
    part = _smooth((energy - edge - BLEND[0]) / (BLEND[1] - BLEND[0]))
    return (1 - part) * near + part * (1 + chi)


def _r(phase: Phase, temperature: float) -> float:
    return phase.r * (1 + phase.expansion * (temperature - ROOM_K))


def _sigma2(phase: Phase, temperature: float) -> float:
    ratio = phase.einstein / (2 * temperature)
    return EINSTEIN / (phase.mass * phase.einstein) / float(np.tanh(ratio))


def _smooth(x: Floats | float) -> Floats:
    """0 below 0, 1 above 1, and even between."""
    inside = np.clip(x, 0.0, 1.0)
    return inside * inside * (3 - 2 * inside)

"""The physics of a copper foil that is heated: counts as a beamline would record them.

Nothing of the network's own equation is used: the fine structure is Larch's sum over FEFF paths,
the atomic background comes from xraydb.
"""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xraydb
from larch.xafs import feffpath
from larch.xafs.feffdat import ff2chi
from larch.xafs.feffrunner import feff8l
from larch.xafs.sigma2_models import sigma2_debye
from larixite import cif2feffinp
from larixite.amcsd import get_cif

from exafsd.contract.grid import ETOK
from exafsd.spectra import Floats

#: Copper, fcc, a = 3.615 angstrom (Wyckoff 1963).
AMCSD_CU = 11145
#: Paths as long as this enter the sum, angstrom: five shells and their multiple scattering.
PATH_MAX = 6.0
#: Debye temperature that gives copper's measured sigma^2 of 0.0085 angstrom^2 at 295 K.
DEBYE_K = 315.0
#: Thermal expansion of copper, 1/K and 1/K^2 about 295 K: 1.0 % at 850 K, as measured.
EXPANSION = (16.6e-6, 3.5e-9)
#: Third cumulant of the first shell at room temperature, angstrom^3 (Tranquada and Ingalls,
#: Phys. Rev. B 28, 3520, 1983); it grows as T^2 (classical limit).
C3_ROOM = 1.3e-4
ROOM_K = 295.0
#: Spacing of the tabulated temperatures: R moves by 1e-3 angstrom, so that linear interpolation
#: errs by (2 k dR)^2 / 8 = 1e-4 of chi at 14 1/angstrom, well below the photon noise.
TABLE_K = 20.0
#: E0 of the photoelectron and the first inflection of mu, which Larch finds as E0, eV.
E0, INFLECTION = 8984.0, 8979.0
#: mu rises in two steps, as metals with 4p features do: (share, position in eV, width in eV).
#: The first is as sharp as the core hole of 1.55 eV allows and holds the steepest point.
STEPS = ((0.41, INFLECTION, 1.55), (0.59, INFLECTION + 7.74, 4.19))
#: A peak and a dip, (share of the step, position in eV, standard deviation in eV), fitted so that
#: the near edge is that of measured copper, as near as the shipped model's card asks for.
FEATURES = ((0.206, INFLECTION, 1.21), (-0.081, INFLECTION + 17.87, 2.19))
#: chi fades in over this range of k, 1/angstrom; FEFF's paths mean nothing below.
FADE_IN = (0.5, 2.5)
#: Foil thickness, cm, and density, g/cm^3: an edge step of 1.5.
THICKNESS, DENSITY = 7.0e-4, 8.96


@dataclass(frozen=True)
class Counts:
    """One sweep over the edge: (n,) eV and counts in the order of measurement."""

    energy: Floats
    i0: Floats
    it: Floats
    ir: Floats
    truth: dict[str, float]


def undulator(points: int, photons: float) -> Floats:
    """Intensity of an undulator (n,), which falls through a scan and has structure, counts."""
    x = np.linspace(0.0, 1.0, points)
    return photons * (1.15 - 0.3 * x + 0.02 * np.sin(9.0 * x))


def counted(
    energy: Floats,
    intensity: Floats,
    mus: tuple[Floats, Floats],
    direction: str,
    truth: dict[str, float],
    rng: np.random.Generator,
) -> Counts:
    """Photons counted through a sample and a foil behind it, whose absorption is `mus`."""
    i0 = rng.poisson(intensity)
    it = rng.poisson(i0 * np.exp(-mus[0]))
    ir = rng.poisson(it * np.exp(-mus[1]))
    order = slice(None, None, -1 if direction == "down" else 1)
    columns = (counts[order].astype(float) for counts in (i0, it, ir))
    return Counts(energy[order], *columns, truth=truth)


def cache_folder() -> Path:
    """Folder for FEFF results: ``$XDG_CACHE_HOME/exafsd`` or ``~/.cache/exafsd``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exafsd"


def feff_paths(cache: Path) -> list[Path]:
    """Scattering paths of fcc copper, shortest first; FEFF8L runs once per cache folder.

    Parameters
    ----------
    cache
        Folder that keeps the result; about 3 s the first time.
    """
    folder = cache / f"feff8l-amcsd{AMCSD_CU}-Cu-K"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=cache) as name,
            Path(os.devnull).open("w") as silence,
            contextlib.redirect_stdout(silence),
            warnings.catch_warnings(action="ignore"),
        ):  # larixite and Larch leave files open, pymatgen warns of rounded positions, Larch talks
            work = Path(name) / "feff"
            work.mkdir()
            inp = work / "feff.inp"
            crystal: Any = get_cif(AMCSD_CU)
            inp.write_text(cif2feffinp(crystal.ciftext, "Cu", edge="K"))
            feff8l(feffinp=inp.name, folder=str(work), verbose=False)
            # renamed when complete: two demos may start at once, and one may be interrupted
            with contextlib.suppress(OSError):
                shutil.move(work, folder)
    return sorted(folder.glob("feff0*.dat"))


def trajectory(points: int, k_end: float = 15.2) -> Floats:
    """Energies of an upward sweep in eV: 5 eV steps, 0.5 eV at the edge, then even in k."""
    edge = INFLECTION + np.arange(-20.0, 26.0, 0.5)
    before = np.arange(INFLECTION - 150.0, edge[0] - 2.5, 5.0)
    k_start = np.sqrt(ETOK * (edge[-1] + 1.5 - INFLECTION))
    k = np.linspace(k_start, k_end, points - len(edge) - len(before))
    return np.concatenate([before, edge, INFLECTION + k**2 / ETOK])


class HeatedFoil:
    """A copper foil with a reference foil of copper at room temperature behind it.

    Parameters
    ----------
    cache
        Folder for FEFF's results, see `cache_folder`.
    points
        Energies per sweep, at least 200.
    temperatures
        Range in K that `sweep` may be asked for.
    photons
        Mean counts of i0 per energy.
    n_s02
        12 neighbours times S0^2.
    """

    def __init__(
        self,
        cache: Path,
        points: int = 500,
        temperatures: tuple[float, float] = (ROOM_K, 900.0),
        photons: float = 1e8,
        n_s02: float = 10.8,
    ) -> None:
        if points < 200:
            raise ValueError(f"a sweep has at least 200 points, not {points}")
        self.energy = trajectory(points)
        self.n_s02 = n_s02
        low, high = min(*temperatures, ROOM_K), max(*temperatures, ROOM_K)
        self._kelvin = np.arange(low, high + 2 * TABLE_K, TABLE_K)
        paths = _Paths(feff_paths(cache))
        self._r_cold = paths.r_cold
        k = np.sqrt(ETOK * np.clip(self.energy - E0, 0.0, None))
        fade = np.clip((k - FADE_IN[0]) / (FADE_IN[1] - FADE_IN[0]), 0.0, 1.0)
        fade = fade * fade * (3.0 - 2.0 * fade)
        self._chi = np.array([fade * paths.chi(k, t, n_s02 / 12.0) for t in self._kelvin])
        self._sigma2 = np.array([paths.sigma2(t) for t in self._kelvin])
        self._before, self._step = _atomic(self.energy)
        self._mu_reference = self._mu(ROOM_K)
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
        mus = self._mu(temperature), self._mu_reference
        return counted(self.energy, self._i0, mus, direction, self.truth(temperature), rng)

    def truth(self, temperature: float) -> dict[str, float]:
        """First-shell parameters at a temperature in K: angstrom, angstrom^2, angstrom^3, eV."""
        return {
            "r": self._r_cold * (1.0 + _expansion(temperature)),
            "sigma2": float(np.interp(temperature, self._kelvin, self._sigma2)),
            "n_s02": self.n_s02,
            "e0": E0,
            "c3": _third(temperature),
            "temperature": temperature,
        }

    def _mu(self, temperature: float) -> Floats:
        place = (temperature - self._kelvin[0]) / TABLE_K
        row = min(max(int(place), 0), len(self._kelvin) - 2)
        chi = self._chi[row] + (place - row) * (self._chi[row + 1] - self._chi[row])
        return self._before + self._step * (1.0 + chi)


class _Paths:
    """Larch's path sum with every parameter a function of temperature."""

    def __init__(self, files: Sequence[Path]) -> None:
        paths = [feffpath(str(file)) for file in files]
        self._paths = [path for path in paths if path.reff <= PATH_MAX]
        self.r_cold = float(self._paths[0].reff)

    def sigma2(self, temperature: float) -> float:
        return float(sigma2_debye(temperature, DEBYE_K, self._paths[0]))

    def chi(self, k: Floats, temperature: float, s02: float) -> Floats:
        for path in self._paths:
            path.s02 = s02
            path.deltar = path.reff * _expansion(temperature)
            path.sigma2 = sigma2_debye(temperature, DEBYE_K, path)
            path.third = _third(temperature) if path is self._paths[0] else 0.0
        total: Any = ff2chi(self._paths, k=np.maximum(k, 1e-3))
        return np.nan_to_num(total.chi)


def _expansion(temperature: float) -> float:
    """Relative expansion since room temperature."""
    warmer = temperature - ROOM_K
    return EXPANSION[0] * warmer + EXPANSION[1] * warmer * abs(warmer)


def _third(temperature: float) -> float:
    return C3_ROOM * (temperature / ROOM_K) ** 2


def _atomic(energy: Floats) -> tuple[Floats, Floats]:
    """Absorption without fine structure: below the edge, and the step; both no unit."""
    before, step = atomic(energy)
    shape = sum(
        share * (0.5 + np.arctan((energy - position) / (width / 2.0)) / np.pi)
        for share, position, width in STEPS
    )
    shape = shape + sum(
        share * np.exp(-0.5 * ((energy - position) / width) ** 2)
        for share, position, width in FEATURES
    )
    return before, shape * step


def atomic(energy: Floats) -> tuple[Floats, Floats]:
    """Copper's absorption below the edge, and the height of the step; both (n,) without unit."""
    below = np.geomspace(INFLECTION - 400.0, INFLECTION - 20.0, 20)
    above = np.geomspace(INFLECTION + 20.0, INFLECTION + 1500.0, 20)
    before, scale = _extrapolated(below, 1, energy), THICKNESS * DENSITY
    return scale * before, scale * (_extrapolated(above, 2, energy) - before)


def _extrapolated(at: Floats, degree: int, energy: Floats) -> Floats:
    """Copper's mass absorption in cm^2/g from one side of the edge, as a power law of energy."""
    fit: Any = np.polynomial.Polynomial.fit(np.log(at), np.log(_mu_elam(tuple(at))), degree)
    return np.exp(fit(np.log(energy)))


@lru_cache(maxsize=4)
def _mu_elam(energies: tuple[float, ...]) -> Floats:
    return np.asarray(xraydb.mu_elam("Cu", np.array(energies)))

"""AUTOBK takes some of the fine structure for background; fits do so with their models."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from exafsd.contract import K_GRID, Recipe, rows_to_grid
from exafsd.contract.grid import ETOK
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.reading import Model
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.background import Background, remainder
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction

K_END, NOISE = 14.5, 2e-4
AUTOBK = Recipe().autobk
#: of a quick scan, eV from the edge
ENERGY = np.concatenate([
    np.arange(-150.0, -20.0, 5.0), np.arange(-20.0, 40.0, 0.4),
    np.arange(3.24, K_END + 0.01, 0.05) ** 2 / ETOK,
])  # fmt: skip


def reduced(chi):
    """Chi on AUTOBK's grid (m,), from chi (401,) on a step of 1."""
    k = np.sqrt(np.maximum(ENERGY, 0.0) * ETOK)
    mu = np.where(ENERGY >= 0, 1.0 + CubicSpline(K_GRID, chi)(k), 0.0)
    return Background.compile(ENERGY, 0.0, AUTOBK)(mu[None]).excess[0]


class Material:
    """A bundle, and spectra of its equation that went through AUTOBK."""

    def __init__(self, name):
        self.bundle = load_bundle(shipped_folder() / name)
        self.model, self.variables = Model.of(self.bundle), Variables.of(self.bundle.card)
        self.ids = [id_.split("/", 1)[-1] for id_ in self.variables.ids]
        self.near_edge = np.zeros(K_GRID.size)

    def theta(self, **values):
        """Usual parameters with some others, by their names with ``_`` for ``/``."""
        x = self.variables.mean[None].copy()
        x[0, self.variables.e0] = 3.0
        for name, value in values.items():
            x[0, self.ids.index(name.lstrip("_").replace("_", "/", 1))] = value
        return self.variables.theta(x)[0][0]

    def spectrum(self, theta):
        """k^2 chi (1, 401) that is measured of a sample with these parameters."""
        chi = np.asarray(self.bundle.equation(theta[None])[0])[0].astype(float)
        return rows_to_grid(reduced(chi + self.near_edge)[None], 0.0, K_END)[0]

    def fitted(self, theta):
        """Relative errors, R in angstrom, of a fit with the crystal that nothing is taken off."""
        card, bundle = self.bundle.card, self.bundle
        calibration = card.calibration.model_copy(update={"bias": {}})
        card = card.model_copy(update={"calibration": calibration})
        fit = CrystalFit(card, bundle.waves, bundle.equation, fit_weight)
        (one,) = fit(self.spectrum(theta), K_END, [NOISE], [None])
        r, sigma2, number = (self.ids.index(f"1/{name}") for name in ("r", "sigma2", "n_s02"))
        relative = one.theta / theta - 1
        return one.theta[r] - theta[r], relative[sigma2], relative[number], one.ood

    def refined(self, theta, trend=None):
        """The refinement's answer for a spectrum with these parameters."""
        rows = self.spectrum(theta)
        start = Prediction(theta, np.eye(len(theta)), K_GRID, K_GRID, 0.0)
        given = [start], K_END, [NOISE], [3.0]
        (one,) = self.model.refiner(rows, *given, trend, trend is not None)
        return dict(zip(self.ids, one.fit.value, strict=True))


def test_the_loss_is_linear_and_known():
    """A bond of 1.9 angstrom with what it has in front of it: on any grid of energies."""
    chi = 0.6 * np.exp(-0.008 * K_GRID**2) / np.maximum(K_GRID, 1.0) ** 1.5
    chi *= np.sin(2 * 1.9 * K_GRID - 0.6)
    after = reduced(chi)
    k = K_GRID[: len(after)]
    expected = remainder(AUTOBK, k[-1]) @ chi[: len(after)]
    inside = (k > 3) & (k < 13)
    loss, wrong = (
        np.abs(k**2 * (after - other))[inside].max() for other in (chi[: len(after)], expected)
    )
    assert loss > 0.01
    assert wrong < 0.15 * loss


@pytest.mark.parametrize(
    "name, values",
    [
        ("cu-k-fcc", {"_1_sigma2": 0.022, "_1_r": 2.57, "_1_n_s02": 10.8}),
        ("cu-k-cu2o", {"_1_sigma2": 0.005, "_1_r": 1.853, "_1_n_s02": 1.6}),
        ("zn-k-zno", {"_1_sigma2": 0.006, "_1_r": 1.98, "_1_n_s02": 3.6}),
    ],
)
def test_short_bonds_and_hot_ones_are_read_right(name, values):
    """As if AUTOBK took nothing, R of hot copper was 0.015 angstrom long, N of Cu2O 13 % high."""
    material = Material(name)
    theta = material.theta(**values)
    read = material.refined(theta)
    truth = dict(zip(material.ids, theta, strict=True))
    assert read["1/r"] == pytest.approx(truth["1/r"], abs=0.004)
    assert read["1/sigma2"] == pytest.approx(truth["1/sigma2"], rel=0.05)
    assert read["1/n_s02"] == pytest.approx(truth["1/n_s02"], rel=0.05)


@pytest.mark.parametrize(
    "name",
    [
        "cr-k-k2cro4", "mn-k-mno2", "ti-k-rutile", "cr-k-cr2o3", "zr-k-zro2", "ni-k-nio",
        "ni-k-fcc",
    ],
)  # fmt: skip
def test_fits_with_a_crystal_lose_the_same(name):
    """As if AUTOBK took nothing, N was -25 (K2CrO4) to +14 % (ZrO2) off, and R up to 0.009 A."""
    material = Material(name)
    r, sigma2, number, misfit = material.fitted(material.theta(_1_sigma2=0.006))
    assert abs(r) < 0.002
    assert abs(sigma2) < 0.04
    assert abs(number) < 0.03
    assert misfit < 0.001


def test_what_a_near_edge_does_to_the_background_is_no_misfit():
    """A white line below k = 2, which no path has: only what AUTOBK makes of it is in the fit."""
    oxide = Material("zr-k-zro2")
    theta = oxide.theta(_1_sigma2=0.006)
    before = oxide.fitted(theta)
    oxide.near_edge = 0.3 * np.exp(-(((K_GRID - 0.9) / 0.4) ** 2))
    r, _, number, misfit = oxide.fitted(theta)
    assert abs(r - before[0]) < 0.004
    assert abs(number - before[2]) < 0.03
    assert misfit < 0.002


def test_sigma2_of_oxygen_is_not_that_of_the_metal_behind_it():
    """In a run, the nearest shell is seen worse than the next, whose disorder grows otherwise."""
    zinc_oxide = Material("zn-k-zno")
    trend = zinc_oxide.model.refiner.begin()
    for step in range(8):
        oxygen = 0.003 + 0.0004 * step
        # the metal's grows less than the card expects
        theta = zinc_oxide.theta(_1_sigma2=oxygen, _1_r=1.98, _1_n_s02=3.6, _2_sigma2=-0.08 * step)
        read = zinc_oxide.refined(theta, trend)
        assert read["1/sigma2"] == pytest.approx(oxygen, abs=0.0006)

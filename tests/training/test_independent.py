"""The independent simulator: its physics, and what is counted of readings."""

from pathlib import Path

import numpy as np
import pytest

from exafsd.contract import K_GRID
from exafsd_training.simulation.independent import MeasuredEdge, Simulator, Waves
from exafsd_training.simulation.lattice import Lattice, Springs
from exafsd_training.studies.independent import TEMPERATURES, Readings, rows_of
from exafsd_training.theory.structures import from_amcsd
from exafsd_training.theory.thermal import einstein_sigma2, reduced_mass

COPPER, SPHALERITE = 11145, 110


def test_waves_are_larchs(feff_folder: Path) -> None:
    from larch.xafs import feffpath, path2chi

    files = sorted(feff_folder.glob("feff0*.dat"))[:12]
    rng = np.random.default_rng(0)
    deltar = rng.normal(0, 0.02, (12, 2))
    sigma2, c3 = rng.uniform(0.004, 0.02, (12, 2)), rng.uniform(0, 3e-4, (12, 2))
    waves = Waves(files, 3.0)(deltar, sigma2, c3)
    total = np.zeros(K_GRID.size)
    for i, file in enumerate(files):
        path = feffpath(
            str(file), s02=1.0, e0=3.0, deltar=deltar[i, 1], sigma2=sigma2[i, 1], third=c3[i, 1]
        )
        path2chi(path, k=K_GRID.copy())
        total += path.chi
    above = K_GRID > 1.5
    np.testing.assert_allclose(waves[1][above], total[above], atol=1e-12)


@pytest.mark.parametrize(
    ("amcsd", "absorber", "bond"),
    [
        (COPPER, "Cu", ("Cu", "Cu")),
        (SPHALERITE, "Zn", ("Zn", "S")),
        (SPHALERITE, "S", ("Zn", "S")),  # not the first atom of the crystal
    ],
)
def test_a_lattice_has_the_sigma2_that_it_was_given(amcsd, absorber, bond) -> None:
    lattice = Lattice(from_amcsd(amcsd).cif, absorber, Springs())
    mass, kelvin = reduced_mass(*bond), np.array([20.0, 300.0, 800.0])
    usual = einstein_sigma2(kelvin, np.array([300.0]), mass)
    lattice.stiffened(float(usual[1]), 300.0)
    nearest = lattice.variance(lattice.share(lattice._bond), kelvin)
    assert nearest[1] == pytest.approx(usual[1], rel=1e-6)
    # many modes instead of one: nearly an oscillator at all temperatures
    np.testing.assert_allclose(nearest, usual, rtol=0.15)


def test_far_bonds_of_a_semiconductor_are_softer_than_those_of_a_metal() -> None:
    """Zn-Zn moves far more than Zn-S, Cu-Cu of the second shell hardly more than of the first."""
    ratios = {}
    for amcsd, absorber, far in (
        (COPPER, "Cu", np.array([3.61496, 0.0, 0.0])),
        (SPHALERITE, "Zn", np.array([2.70465, 2.70465, 0.0])),
    ):
        lattice = Lattice(from_amcsd(amcsd).cif, absorber, Springs())
        kelvin = np.array([300.0])
        near = lattice.variance(lattice.share(lattice._bond), kelvin)
        path = np.array([np.zeros(3), far])
        ratios[absorber] = float(lattice.variance(lattice.share(path), kelvin)[0] / near[0])
    assert 1.1 < ratios["Cu"] < 1.5
    assert ratios["Zn"] > 1.7


def test_springs_that_do_not_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="do not hold"):
        Lattice(from_amcsd(SPHALERITE).cif, "Zn", Springs(bending=-0.5))


def test_what_is_counted() -> None:
    """Errors of known size against known error bars, and slopes that are a tenth too small."""
    rng = np.random.default_rng(0)
    truth = np.tile([2.5, 0.01, 10.0], (4000, 1))
    std = np.tile([0.005, 0.001, 0.5], (4000, 1))
    value = truth + std * rng.normal(size=truth.shape) * [1.0, 0.5, 1.0]
    value[0] = np.nan
    none = {way: np.full_like(truth, np.nan) for way in ("network", "polish")}
    single = Readings(truth, dict.fromkeys(none, value), dict.fromkeys(none, std), none)
    series = np.zeros((len(TEMPERATURES), 3))
    series[:, 0] = 2.5 + 1e-5 * TEMPERATURES
    series[:, 1] = 0.01 + 1e-5 * TEMPERATURES
    read = series * 1.0
    read[:, 0] = 2.5 + 0.9e-5 * TEMPERATURES
    wide, narrow = np.full_like(series, 1.0), np.full_like(series, 1e-7)
    heated = Readings(
        series,
        dict.fromkeys(none, read),
        dict.fromkeys(none, read),
        {"network": narrow, "polish": wide},
    )
    rows = {(row.answer, row.parameter): row for row in rows_of(single, heated)}
    assert rows["network", "r"].coverage_90 == pytest.approx(0.9, abs=0.02)
    assert rows["network", "sigma2"].coverage_90 > 0.99
    assert rows["network", "r"].spectra == 3999
    assert rows["network", "n_s02"].rms == pytest.approx(0.05, rel=0.1)  # relative
    assert rows["polish", "r"].slope_ratio == pytest.approx(0.9)
    assert rows["polish", "r"].change_error == pytest.approx(-1e-6 * 600)
    assert rows["polish", "sigma2"].slope_ratio == pytest.approx(1.0)
    assert rows["polish", "n_s02"].slope_ratio is None
    assert (rows["polish", "r"].differences_90, rows["polish", "r"].slopes_90) == (1.0, 1.0)
    assert (rows["network", "r"].differences_90, rows["network", "r"].slopes_90) == (0.0, 0.0)


@pytest.mark.measured
def test_a_measurement_is_reduced_to_the_chi_that_was_put_in(
    measured: Path,
) -> None:
    """Copper at room temperature, through a measured near edge and Larch's background."""
    from exafsd.contract import Recipe
    from exafsd.reduction.edges import edge_energy
    from exafsd.reduction.engine import by_larch
    from exafsd.testing.heating import cache_folder
    from exafsd_training.reference.feffit import read_mu

    edge = edge_energy("Cu", "K")
    foil = MeasuredEdge.of(*read_mu(measured / "Cu" / "cu_metal_rt.xdi"), edge)
    simulator = Simulator(
        from_amcsd(COPPER), "Cu", "K", cache_folder(), einstein=230.0,
        expansion=1.75e-5, anharmonicity=(1.0, 2.0), zero=0.6, origins=(-2.1, -4.4),
        edges=[foil], position=edge,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    kelvin = np.array([293.0])
    sample = simulator.draw(rng, kelvin, own=True)
    chi, truth = simulator.chi(sample)
    energy, mu, again = simulator.measure(rng, sample)
    np.testing.assert_array_equal(truth.r, again.r)
    assert truth.r[0] == pytest.approx(simulator.reff * (1 + sample.strain[0]))
    zero = edge + sample.zero + sample.calibration
    reduced = by_larch(energy, mu[0], zero, Recipe())
    inside = (reduced.k > 4) & (reduced.k < 12)
    put_in = np.interp(reduced.k, K_GRID, chi[0])
    scatter = np.std((reduced.chi - put_in)[inside] * reduced.k[inside] ** 2)
    assert scatter < 0.1 * np.std(put_in[inside] * reduced.k[inside] ** 2)

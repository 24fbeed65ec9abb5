"""Temperature series: the truth they are made of, and slopes that are read from them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from exafsd.contract import K_GRID
from exafsd_training.cli import app
from exafsd_training.simulation.instrument import Atom
from exafsd_training.studies import trend
from exafsd_training.theory import structures
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import PathTable

KELVIN = np.array([100.0, 300.0, 500.0, 700.0])


class Reader:
    """A network that knows the truth, and reads slopes about the first temperature too steep."""

    def __init__(self, series: trend.Series, steeper: float) -> None:
        theta = series.theta
        self.theta = theta[:, :1] + steeper * (theta - theta[:, :1])
        self.done = 0

    def __call__(self, chi_k2: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        flat = self.theta.reshape(-1, self.theta.shape[-1])
        rows = slice(self.done, self.done + len(chi_k2))
        self.done += len(chi_k2)
        return {"theta": tf.constant(flat[rows])}


@pytest.fixture(scope="module")
def series(copper: Parametrisation, truth: PathTable) -> trend.Series:
    return trend.make_series(copper, truth, KELVIN, n=5, seed=2, noise=0.0)


def test_truth_is_a_hot_crystal(series: trend.Series, copper: Parametrisation) -> None:
    low, high = copper.bounds.T
    assert ((series.theta > low) & (series.theta < high)).all()
    r, sigma2, c3, n, e0 = (
        series.theta[..., copper.index(id_)]
        for id_ in ("1/r", "1/sigma2", "1/c3", "1/n_s02", "e0_shift")
    )
    np.testing.assert_allclose(trend.slopes(KELVIN, r), 1.7e-5 * copper.shells[0].reff)
    assert (np.ptp(n, axis=1) == 0).all()
    assert (np.ptp(e0, axis=1) == 0).all()
    # hot, an Einstein oscillator is classical: sigma2 proportional to T, C3 to its square
    np.testing.assert_allclose(sigma2[:, 3] / sigma2[:, 2], 7 / 5, rtol=0.04)
    np.testing.assert_allclose(c3[:, 3] / c3[:, 2], (7 / 5) ** 2, rtol=0.06)
    far = series.theta[..., copper.index("2/sigma2")]
    assert (far > sigma2).all()


def test_spectra_are_those_of_the_truth(series: trend.Series, copper: Parametrisation) -> None:
    equation = Equation(copper)
    inside = (K_GRID > 4) & (K_GRID < trend.END)
    assert (series.mask[..., inside] == 1).all()
    for theta, chi_k2 in zip(series.theta, series.chi_k2, strict=True):
        exafs = equation.chi_k2(tf.constant(theta, tf.float32)).numpy()[:, inside]
        likeness = [np.corrcoef(a, b)[0, 1] for a, b in zip(exafs, chi_k2[:, inside], strict=True)]
        # the rest are far shells and errors of the theory
        assert min(likeness) > 0.9
        size = chi_k2[:, inside].std(1)
        assert (np.diff(size) < 0).all()


def test_errors_of_the_theory_are_the_same_at_every_temperature(
    copper: Parametrisation, truth: PathTable
) -> None:
    kelvin = np.array([300.0, 300.0])
    quiet, noisy = (trend.make_series(copper, truth, kelvin, 2, 1, noise=x) for x in (0.0, 1e-3))
    np.testing.assert_allclose(quiet.chi_k2[:, 0], quiet.chi_k2[:, 1], atol=1e-4)
    assert np.abs(quiet.chi_k2[0] - quiet.chi_k2[1]).max() > 0.1
    inside = (K_GRID > 3) & (K_GRID < 13)
    off = (noisy.chi_k2 - quiet.chi_k2)[..., inside] / K_GRID[inside] ** 2
    assert off.std() == pytest.approx(1e-3, rel=0.1)


def test_slopes_of_straight_lines() -> None:
    values = np.array([[1.0, 3.0], [5.0, -2.0]]) @ np.stack([np.ones(4), KELVIN])
    np.testing.assert_allclose(trend.slopes(KELVIN, values), [3.0, -2.0])


@pytest.mark.parametrize("steeper, within", [(1.0, 1.0), (1.04, 1.0), (1.1, 0.0)])
def test_slopes_read_beside_true(
    series: trend.Series, copper: Parametrisation, steeper: float, within: float
) -> None:
    slopes = trend.read_series(Reader(series, steeper), copper, series, "path sums")
    assert [slope.parameter for slope in slopes] == ["Cu/1/r", "Cu/1/sigma2"]
    for slope in slopes:
        assert slope.ratio == pytest.approx(steeper, abs=1e-3)
        assert slope.within == within
        assert slope.series == 5


def test_a_series_through_the_instrument(copper: Parametrisation, truth: PathTable) -> None:
    drawn = trend.make_series(copper, truth, KELVIN[1:3], n=2, seed=4, atom=Atom("Cu", "K"))
    n = len(drawn.theta)
    assert 1 <= n <= 2
    assert drawn.chi_k2.shape == drawn.mask.shape == (n, 2, len(K_GRID))
    inside = (K_GRID > 4) & (K_GRID < 12)
    cold, hot = drawn.chi_k2[0][:, inside]
    assert np.corrcoef(cold, hot)[0, 1] > 0.9
    assert hot.std() < cold.std()


def test_the_command_writes_a_table(
    copper: Parametrisation, feff_folder, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(chi_k2: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"theta": tf.zeros((len(chi_k2), len(copper.parameters)))}

    model = SimpleNamespace(
        network=constant, parametrisation=copper, feff_folder=feff_folder, absorber="Cu",
        edge="K", settings=SimpleNamespace(seed=1),
    )  # fmt: skip
    monkeypatch.setattr(trend, "load_model", lambda folder: model)
    arguments = ["--lowest", "200", "--highest", "400", "--spectra", "2", "--series", "2",
                 "--through", "1"]  # fmt: skip
    result = CliRunner().invoke(app, ["trend", str(tmp_path), *arguments])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / trend.TREND).read_text())
    assert [row["made"] for row in rows] == ["path sums"] * 2 + ["instrument"] * 2
    assert all(row["ratio"] == 0 and row["within"] == 0 for row in rows)
    assert "200 to 400 K" in result.output


def test_a_model_that_nobody_named() -> None:
    gold = structures.from_amcsd(11140)
    assert structures.model_name(gold, "Au", "L3") == "au-l3-au"
    layered = structures.Crystal("Li Co O2", "x.cif", "", None)
    assert structures.model_name(layered, "Co", "K") == "co-k-licoo2"

"""The spline through measured points, at once and as a matrix, is FITPACK's."""

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from exafsd.reduction import spline


def grids():
    """Grids in k as scans have them: even in energy, with an encoder's noise, and wild."""
    rng = np.random.default_rng(0)
    for points in (4, 5, 7, 9, 20, 300, 4000):
        even = np.linspace(0, 900, points)
        steps = np.cumsum(rng.exponential(1, points) + 1e-2)
        for energy in (even, np.sort(np.abs(even + rng.normal(0, 0.02, points))), steps - steps[0]):
            yield np.sqrt(0.2625 * energy * 900 / energy[-1])


@pytest.mark.parametrize("x", [*grids()], ids=lambda x: f"{len(x)} points")
def test_values_and_matrix_are_those_of_the_interpolating_spline(x):
    at = 0.05 * np.arange(int(1.01 + x[-1] / 0.05))  # a little beyond the last point
    y = 3.0 + np.sin(3 * x) + 0.1 * np.random.default_rng(1).normal(size=(3, len(x)))
    expected = np.array([make_interp_spline(x, row, 3)(at) for row in y])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(spline.Values(x, at)(y), expected, atol=1e-10 * scale)
    matrix = spline.matrix(x, at)
    np.testing.assert_allclose((matrix @ y.T).T, expected, atol=1e-10 * scale)
    assert matrix.nnz <= 70 * len(at)  # what is far from a point does not count


def test_too_few_points_are_refused():
    x = np.arange(3.0)
    for make in (spline.Values, spline.matrix):
        with pytest.raises(ValueError, match="3 points"):
            make(x, x)

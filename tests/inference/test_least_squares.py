"""Many bounded fits at once, against scipy one by one."""

import numpy as np
import pytest
from scipy.optimize import least_squares, lsq_linear, nnls

from exafsd.inference.refinement.least_squares import MAX_EVALUATIONS, minimize_batch

FITS, ROWS = 40, 30


@pytest.mark.parametrize("count", [2, 4, 8])
def test_shares_that_are_not_negative_are_those_of_nnls(count: int) -> None:
    rng = np.random.default_rng(count)
    columns = rng.uniform(0.2, 1.0, (ROWS, count))  # alike, so that many shares end at zero
    data = rng.dirichlet(np.full(count, 0.3), FITS) @ columns.T + rng.normal(0, 0.1, (FITS, ROWS))

    def evaluate(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x @ columns.T - data[rows], np.broadcast_to(columns, (len(x), ROWS, count))

    start = np.full((FITS, count), 0.5)
    bounds = np.zeros(count), np.full(count, 5.0)
    begin = evaluate(start, np.arange(FITS))
    end = minimize_batch(evaluate, start, begin, bounds, np.sum(data**2, axis=1), ROWS - count)
    expected = np.array([nnls(columns, one)[0] for one in data])
    assert (expected == 0).any()
    np.testing.assert_allclose(end.x, expected, atol=1e-6)
    assert end.converged.all()
    # a linear problem is solved with its first step; the others see that it is
    assert end.evaluations <= 4 < MAX_EVALUATIONS


@pytest.mark.parametrize("width", [0.1, 0.15, 0.2])
def test_a_step_goes_to_the_least_misfit_inside_bounds(width: float) -> None:
    """Columns are so much alike that a step without bounds is far beyond several of them."""
    rng = np.random.default_rng(5)
    centre = rng.uniform(0, 1, (FITS, 1, 6))
    columns = np.exp(-(((np.linspace(0, 1, ROWS)[:, None] - centre) / width) ** 2))
    shares = rng.dirichlet(np.full(6, 0.2), FITS)
    data = (columns @ shares[..., None])[..., 0] + rng.normal(0, 0.1, (FITS, ROWS))

    def evaluate(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (columns[rows] @ x[..., None])[..., 0] - data[rows], columns[rows]

    start = np.full((FITS, 6), 0.5)
    begin = evaluate(start, np.arange(FITS))
    for high in (50.0, 0.6):
        bounds = np.zeros(6), np.full(6, high)
        end = minimize_batch(
            evaluate, start, begin, bounds, np.sum(data**2, axis=1), ROWS, tolerance=1e9
        )
        assert end.evaluations == 1  # one step, however large, is the last
        best = [lsq_linear(a, b, bounds).cost * 2 for a, b in zip(columns, data, strict=True)]
        np.testing.assert_array_less(end.cost, np.array(best) * (1 + 1e-6))
        assert ((end.x >= 0) & (end.x <= high)).all()


def test_a_curved_problem_ends_on_its_bounds_where_scipy_ends() -> None:
    rng = np.random.default_rng(0)
    t = np.linspace(0, 3, ROWS)
    truth = np.column_stack([rng.uniform(0.5, 2, FITS), rng.uniform(0.2, 3, FITS)])
    data = truth[:, :1] * np.exp(-truth[:, 1:] * t) + rng.normal(0, 0.02, (FITS, ROWS))
    bounds = np.array([0.8, 0.5]), np.array([1.6, 2.0])

    def evaluate(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        falling = np.exp(-x[:, 1:] * t)
        slopes = np.stack([falling, -t * x[:, :1] * falling], axis=2)
        return x[:, :1] * falling - data[rows], slopes

    start = np.full((FITS, 2), 1.0)
    begin = evaluate(start, np.arange(FITS))
    end = minimize_batch(evaluate, start, begin, bounds, np.sum(data**2, axis=1), ROWS - 2)
    assert end.converged.all()
    assert end.bound.any(axis=0).all()
    for one, row in zip(end.x, data, strict=True):
        peer = least_squares(
            lambda x, row=row: x[0] * np.exp(-x[1] * t) - row, np.ones(2), bounds=bounds
        )
        np.testing.assert_allclose(one, peer.x, atol=2e-3)


def test_variables_are_held_as_asked() -> None:
    columns = np.eye(3)[:, :2] + 0.5

    def evaluate(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x @ columns.T - np.array([1.0, -1.0, 0.0]), columns[None]

    start = np.full((1, 2), 0.5)
    bounds = np.zeros(2), np.full(2, 5.0)
    end = minimize_batch(evaluate, start, evaluate(start, np.arange(1)), bounds, np.full(1, 2.0), 1)
    assert end.bound.tolist() == [[False, True]]
    assert not end.inverse()[0, 1].any()
    free = end.inverse(np.zeros((1, 2), dtype=bool))
    np.testing.assert_allclose(free[0], np.linalg.inv(columns.T @ columns))

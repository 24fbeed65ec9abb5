"""A model's chi on few points of k says what its chi on the grid of data would say."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exafsd.contract import K_GRID
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.inference.refinement.polish import chi_rows
from exafsd.inference.refinement.weighed import onto_grid, prepare
from exafsd.inference.registry import read_card, shipped_folder
from exafsd.reduction.background import remainder
from exafsd.reduction.transform import fit_weight

THEORY = read_card(shipped_folder() / "cu-k-fcc").refinement.theory
#: Steps of the graphs that ship, and of those that shipped before.
STEPS = (0.15, 0.1)


def graph(step):
    """Points from 2 to at least 15 1/angstrom."""
    size = int(np.ceil(13.0 / step - 1e-6)) + 1
    return SimpleNamespace(k_min=2.0, k_step=step, size=size, theory=THEORY)


def wave(k, half_length, sigma2=0.005, phase=0.3):
    """A path's chi."""
    return np.cos(2 * half_length * k + phase) * np.exp(-2 * sigma2 * k**2)


@given(half_length=st.floats(0.8, 7.0), phase=st.floats(0.0, 6.3), step=st.sampled_from(STEPS))
def test_waves_are_drawn_between_the_points_of_a_graph(half_length, phase, step):
    about = graph(step)
    k = about.k_min + step * np.arange(about.size)
    inside = (k[0] - 1e-9 <= K_GRID) & (k[-1] + 1e-9 >= K_GRID)
    drawn = onto_grid(about.k_min, step, about.size) @ wave(k, half_length, phase=phase)
    off = drawn - wave(K_GRID, half_length, phase=phase)
    assert np.abs(off[inside]).max() < 3e-3
    assert np.sqrt(np.mean(off[inside] ** 2)) < 3e-4
    assert not drawn[~inside].any()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("k_end", [8.3, 10.3, 13.75, 17.0])
def test_what_is_fitted_does_not_depend_on_the_step(step, k_end):
    # data that end within the window cut it off: a sum over every second or third point is wrong
    window = FitWindow(k=(3.0, 14.0), r=(1.4, 4.5))
    coarse, fine = (
        (prepare(fit_weight, window, about, k_end, Recipe().autobk).matrix, about)
        for about in (graph(step), graph(0.05))
    )
    for half_length in (1.8, 2.5, 4.2):
        shown = [
            matrix @ wave(about.k_min + about.k_step * np.arange(about.size), half_length)
            for matrix, about in (coarse, fine)
        ]
        # beyond the last point of the finer graph the coarser one goes on for a part of its step
        close = 1e-5 if k_end < 14 else 1e-3
        assert np.linalg.norm(shown[0] - shown[1]) < close * np.linalg.norm(shown[1])


@pytest.mark.parametrize("k_end", [8.3, 12.0, 17.0])
def test_what_is_fitted_is_all_of_chi_r_in_the_window(k_end):
    # directions that the window hardly sees must not come in by rounding: fits would then differ
    # by a third of an error bar from one make of processor to another
    about, window, autobk = graph(0.1), FitWindow(k=(3.0, 14.0), r=(1.4, 4.5)), Recipe().autobk
    matrix = prepare(fit_weight, window, about, k_end, autobk).matrix
    rows = chi_rows(fit_weight, window, k_end) * K_GRID**2
    left = remainder(autobk, min(k_end, float(K_GRID[-1])))
    rows[:, : len(left)] = rows[:, : len(left)] @ left
    rows = rows @ onto_grid(about.k_min, about.k_step, about.size)
    whole = rows.T @ rows
    assert np.abs(matrix.T @ matrix - whole).max() < 1e-9 * np.abs(whole).max()

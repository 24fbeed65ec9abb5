"""Our windows are Larch's, digit for digit."""

from typing import get_args

import numpy as np
import pytest
from larch.xafs.xafsft import ftwindow

from exafsd.contract.grid import K_STEP
from exafsd.contract.recipe import Window
from exafsd.reduction.window import window


def larch_window(size, kmin, kmax, dk, name):
    k = K_STEP * np.arange(size, dtype="float64")
    return ftwindow(k, xmin=kmin, xmax=kmax, dx=dk, dx2=dk, window=name)


@pytest.mark.parametrize("name", get_args(Window))
def test_any_window_is_larchs(name):
    rng = np.random.default_rng(0)
    for _ in range(300):
        kmin, dk = rng.uniform(0, 5), rng.choice([0.0, 0.1, 1.0, 4.0, rng.uniform(0, 6)])
        kmax, size = kmin + rng.uniform(0.5, 16), int((kmin + dk) / K_STEP) + rng.integers(3, 400)
        case = int(size), round(kmin, 2), round(kmax, 2), float(dk), name
        np.testing.assert_array_equal(window(*case), larch_window(*case), err_msg=str(case))


@pytest.mark.parametrize("name", get_args(Window))
@pytest.mark.parametrize(
    "where",
    [(2, 0.0, 0.05, 0.0), (401, 0.0, 20.0, 0.0), (401, 3.0, 3.0, 1.0), (100, 2.0, 30.0, 4.0)],
)
def test_edges_of_the_grid(name, where):
    np.testing.assert_array_equal(window(*where, name), larch_window(*where, name))

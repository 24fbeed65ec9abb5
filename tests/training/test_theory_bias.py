"""What FEFF's errors do to a reference fit, against such a fit made with Larch."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from exafsd.contract import K_GRID
from exafsd_training.fitting.fit import Data, Settings, build
from exafsd_training.fitting.fit import _labels as labels
from exafsd_training.reference.feffit import GivenChi, feffit_reference
from exafsd_training.simulation.theory_bias import DATA_ENDS, MOST, theory_bias
from exafsd_training.studies.theory_error import typical
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation

VARIABLES = ("e0_shift", "1/n_s02", "1/r", "1/sigma2")


@pytest.mark.parametrize("end", [8.0, 12.5])
def test_is_what_feffit_misreads(copper: Parametrisation, feff_folder: Path, end: float) -> None:
    theta = typical(copper)
    theta[copper.index("1/c3")] = 0.0  # the reference has none
    chi = np.float64(Equation(copper, tf.float64).chi(tf.constant(theta[None])).numpy()[0])
    wrong = 1 + 0.1 * np.cos(np.pi * K_GRID / 20) + 0.2 * np.exp(-((K_GRID / 3.2) ** 2))
    spectra = [GivenChi(K_GRID, one, (0.0, end)) for one in (chi, wrong * chi)]
    right, read = (
        feffit_reference(one, copper, feff_folder, copper.window).value for one in spectra
    )
    error = K_GRID**2 * (wrong - 1) * chi
    (bias,) = theory_bias(copper, theta[None], error[None])
    place = DATA_ENDS.index(end)
    for id_ in VARIABLES:
        # one step of a fit that is not linear, and without what far shells do to it
        unit = copper.prior_std[copper.index(id_)]
        moved = read[id_] - right[id_]
        assert abs(bias[place, copper.index(id_)] - moved) < 0.15 * abs(moved) + 0.02 * unit
    # it is no small matter: a tenth of N
    assert abs(bias[place, copper.index("1/n_s02")]) > 0.5


def test_only_what_a_fit_has_is_moved(copper: Parametrisation, data: Data) -> None:
    fixed = [i for i, p in enumerate(copper.parameters) if p.id.split("/", 1)[1] not in VARIABLES]
    moved = [copper.index(id_) for id_ in VARIABLES]
    assert not data.direct.theory_bias[..., fixed].any()
    assert data.direct.theory_bias[..., moved].std((0, 1)).min() > 0
    assert (np.abs(data.direct.theory_bias) <= MOST * copper.prior_std + 1e-6).all()


def test_labels_follow_the_data_end(
    copper: Parametrisation, data: Data, settings: Settings
) -> None:
    model = build(copper, data.direct, settings)
    middle = np.float32(copper.bounds.mean(1))[None]
    step = np.float32(0.1 * copper.prior_std)
    bias = np.float32([[step * i for i in range(len(DATA_ENDS))]])

    def at(end: float) -> np.ndarray:
        mask = np.float32(end + 0.01 > K_GRID)[None]
        moved = labels(model)(*(tf.constant(x) for x in (middle, bias, mask)))
        return (moved.numpy()[0] - middle[0]) / step

    np.testing.assert_allclose(at(6.0), 0, atol=1e-3)
    np.testing.assert_allclose(at(9.5), 1, atol=1e-3)
    np.testing.assert_allclose(at(10.25), 1.5, atol=1e-3)
    np.testing.assert_allclose(at(19.0), len(DATA_ENDS) - 1, atol=1e-3)

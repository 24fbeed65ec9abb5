"""A second phase beside that of a fit shows in the EXAFS, if another model of the edge has it."""

import numpy as np
import pytest

from exafsd.contract.grid import K_GRID
from exafsd.contract.vocabulary import Flag
from exafsd.inference.judgement import Judge
from exafsd.inference.reading import Model, compare_fits
from exafsd.inference.registry import load_bundle, shipped_folder

K_END, NOISE = 14.0, 3e-4


@pytest.fixture(scope="module")
def models():
    names = ("ni-k-fcc", "ni-k-nio", "ni-k-nis")
    models = {name: Model.of(load_bundle(shipped_folder() / name)) for name in names}
    compare_fits(list(models.values()))
    return models


def exafs(model, seed):
    """k^2 chi at the crystal's values, some of them moved at random."""
    variables = model.fitter.variables
    x = variables.mean.copy()
    x += 0.15 * np.random.default_rng(seed).normal(size=x.size) * variables.std
    theta, _ = variables.theta(np.clip(x, variables.low, variables.high)[None])
    chi, _ = model.bundle.equation(theta)
    return np.asarray(chi[0], float) * K_GRID**2


def fitted(model, chi_k2, seed=0):
    noise = NOISE * np.random.default_rng(seed).normal(size=K_GRID.size) * K_GRID**2
    data = np.where(K_END >= K_GRID, chi_k2 + noise, 0.0)
    (prediction,) = model.fitter(data[None], K_END, [NOISE], [None])
    return prediction


@pytest.mark.parametrize(("first", "second"), [("ni-k-fcc", "ni-k-nio"), ("ni-k-nio", "ni-k-fcc")])
def test_a_second_phase_is_noticed_and_a_pure_one_is_not_taken_for_two(models, first, second):
    noticed = {share: 0 for share in (0.0, 0.3)}
    for seed in range(12):
        own, other = exafs(models[first], seed), exafs(models[second], 100 + seed)
        for share in noticed:
            prediction = fitted(models[first], (1 - share) * own + share * other, seed)
            noticed[share] += prediction.second_phase
            flags = Judge(models[first].bundle.card)._crystal.flags(prediction)
            assert (Flag.OTHER_PHASES in flags) is prediction.second_phase
    assert noticed[0.0] == 0
    assert noticed[0.3] >= 11


def test_without_another_model_of_the_edge_nothing_is_said():
    model = Model.of(load_bundle(shipped_folder() / "ni-k-fcc"))
    other = Model.of(load_bundle(shipped_folder() / "co-k-hcp"))
    compare_fits([model, other])
    rival = Model.of(load_bundle(shipped_folder() / "ni-k-nio"))
    mixed = 0.7 * exafs(model, 1) + 0.3 * exafs(rival, 2)
    assert not fitted(model, mixed).second_phase
    compare_fits([model, rival])  # as when a model is added to a running daemon
    assert fitted(model, mixed).second_phase

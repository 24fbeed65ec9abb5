"""The detector of other phases: what it learns from, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exafsd.contract import K_GRID
from exafsd_training.fitting.calibrate import HeldOutSpectra, calibrate, predict, simulated_scores
from exafsd_training.fitting.detector import Examples, learn
from exafsd_training.fitting.fit import Data, Settings, build, train
from exafsd_training.simulation import other_phases
from exafsd_training.simulation.other_phases import other_phase_spectra, others, stretched
from exafsd_training.simulation.simulate import Pool, clean_spectra, sample
from exafsd_training.theory.parametrisation import Parametrisation
from exafsd_training.theory.paths import PathTable
from exafsd_training.zoo import configurations


def test_every_model_is_another_phase_to_every_other_and_not_to_itself() -> None:
    names = [config.name for config in others(configurations.load("cu-k-cu2o").crystal())]
    assert names == [name for name in configurations.names() if name != "cu-k-cu2o"]


def test_a_stretched_spectrum_has_its_distances_stretched() -> None:
    wave = np.sin(2 * 2.0 * K_GRID)[None]
    longer = stretched(wave, np.array([0.9]))[0]
    # k^2 chi at k is that of chi at 0.9 k
    assert longer == pytest.approx(np.sin(2 * 1.8 * K_GRID) / 0.81, abs=2e-2)
    assert stretched(wave, np.array([1.1]))[0][K_GRID > 20 / 1.1 + 0.05].max() == 0


def test_feff_errors_can_be_drawn_larger(copper: Parametrisation, truth: PathTable) -> None:
    def spread(*rough: float) -> float:
        draw = sample(
            np.random.default_rng(3), 200, copper, truth, np.full(200, 300.0), rough or None
        )
        return float(np.std(draw.errors[0]))

    assert 1.3 * spread() < spread(1.0, 3.0) < 3 * spread()


def test_other_phases_come_in_random_order(
    short_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oxide = configurations.load("cu-k-cu2o")
    monkeypatch.setattr(other_phases, "others", lambda crystal: [oxide])
    spectra = other_phase_spectra(oxide.crystal(), short_model, 10, seed=1)
    assert spectra.shape == (10, len(K_GRID))
    assert (spectra == other_phase_spectra(oxide.crystal(), short_model, 10, seed=1)).all()
    assert len(np.unique(spectra[:, 200])) == 10


def test_the_detector_learns_and_the_reading_stays(
    copper: Parametrisation,
    truth: PathTable,
    data: Data,
    settings: Settings,
    tmp_path: Path,
) -> None:
    model = build(copper, data.direct, settings)
    train(model, data, settings, tmp_path)
    before = [v.numpy() for v in model.reading]

    rng = np.random.default_rng(5)
    own = clean_spectra(sample(rng, 600, copper, truth), copper, truth)
    other = stretched(own[::-1], rng.uniform(0.75, 0.85, 600))
    examples = Examples(own[:400], other[:400])
    reported: list[float] = []
    loss = learn(model, data, examples, settings, lambda share, loss: reported.append(share))
    assert loss < 0.6 < np.log(2)
    assert len(reported) == settings.detector_steps // 100
    assert all((v.numpy() == old).all() for v, old in zip(model.reading, before, strict=True))

    def corrupted(chi_k2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n = len(chi_k2)
        empty = np.zeros((n, 0), np.float32), np.zeros((n, 0, 0))
        pool = Pool(empty[0], chi_k2, chi_k2, np.full(n, 20, np.float32), empty[1])
        return HeldOutSpectra(pool, np.ones(n, np.float32)).corrupted(3, 5e-4, 12.0)

    pure, mixed = corrupted(own[400:]), corrupted(np.float32(0.5 * own[400:] + 0.5 * other[400:]))
    # uncalibrated, only EXAFS(theta) counts: the detector has no limit yet
    free = predict(model, *pure)["ood"]
    calibrate(model, copper, HeldOutSpectra.of(data.validation_direct, data.validation_instrument))
    ours, theirs = (predict(model, *x)["ood"] for x in (pure, mixed))
    assert (ours >= free).all()
    likely = simulated_scores().limit[0][0]
    assert np.mean(ours > np.maximum(free, likely)) < 0.2
    assert np.mean(theirs > likely) > 0.6


def test_without_steps_nothing_is_learnt(
    copper: Parametrisation, data: Data, settings: Settings
) -> None:
    model = build(copper, data.direct, settings)
    none = replace(settings, detector_steps=0, detector_spectra=512)
    clean = data.direct.clean[:50]
    before = [v.numpy() for layer in model.detector for v in layer.variables]
    assert np.isnan(learn(model, data, Examples(clean, clean), none))
    after = [v.numpy() for layer in model.detector for v in layer.variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))

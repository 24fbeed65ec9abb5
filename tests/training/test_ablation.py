"""Trainings with and without physics, side by side."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exafsd_training.fitting.calibrate import HeldOutSpectra
from exafsd_training.fitting.fit import Data, Settings, build
from exafsd_training.fitting.stages import Stages
from exafsd_training.model.losses import PHYSICS
from exafsd_training.studies import ablation
from exafsd_training.studies.ablation import (
    ABLATION,
    CONDITIONS,
    VARIANTS,
    UnseenSpectra,
    ablate,
    as_independent_table,
    as_table,
    label,
    plot_ablation,
    variant_weights,
)
from exafsd_training.theory.parametrisation import Parametrisation


@pytest.fixture
def held(data: Data) -> HeldOutSpectra:
    return HeldOutSpectra.of(data.validation_direct.take(slice(0, 20)), data.validation_instrument)


def test_variants_have_their_own_terms() -> None:
    for name, terms in VARIANTS.items():
        weights = variant_weights(name)
        assert {t for t in PHYSICS if getattr(weights, t)} == set(terms)
        assert weights.data > 0 and weights.theta > 0


def test_variants_are_trained_and_judged_side_by_side(
    copper: Parametrisation,
    data: Data,
    settings: Settings,
    held: HeldOutSpectra,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the second derivative of the path sum takes long to compile: once is enough
    few = {"data only": (), "all": tuple(PHYSICS)}
    monkeypatch.setattr(ablation, "VARIANTS", few)
    short = replace(settings, steps=2, epoch_steps=2)
    real = data.direct.clean[:3], np.ones((3, 401), np.float32)
    truth = data.direct.theta[:3, [2, 3, 1]]
    test = UnseenSpectra(real, truth, (real[0][1:], real[1][1:]))
    outcomes, independent = ablate(
        copper, data, held, short, tmp_path, real, variants=few, test=test
    )
    assert [o.variant for o in outcomes] == [n for n in few for _ in CONDITIONS]
    assert [o.variant for o in independent] == list(few)
    for one in independent:
        numbers = [*one.rms.values(), *one.likelihood.values(), one.r_factor]
        assert np.isfinite(numbers).all() and min(one.rms.values()) > 0
    assert as_independent_table(independent).row_count == len(few)
    for name, physics in few.items():
        header = (
            (tmp_path / f"{name.replace(' ', '-')}-1-scratch" / "history.csv")
            .read_text()
            .split()[0]
        )
        terms = {t for t in header.split(",") if "/" not in t} - {"epoch", "steps", "total"}
        assert terms == {"data", "theta", *physics}
    assert len(json.loads((tmp_path / ABLATION).read_text())) == len(outcomes)
    assert as_table(outcomes).row_count == len(outcomes)
    plot_ablation(outcomes, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000


def test_every_network_is_a_stage(
    copper: Parametrisation, data: Data, settings: Settings, held: HeldOutSpectra, tmp_path: Path
) -> None:
    variants = {"data only": (), "gauss_newton": ("gauss_newton",)}
    names = [label(name, seed) for seed in (1, 2) for name in variants]
    shown: list[str] = []
    stages = Stages(dict.fromkeys(names, 1.0), lambda name, *rest: shown.append(name))
    twice = replace(settings, steps=4, epoch_steps=2)
    ablate(copper, data, held, twice, tmp_path, None, ablation._reporter(stages), variants, seeds=2)
    assert list(dict.fromkeys(shown)) == names
    assert len(shown) == 3 * len(names)  # the beginning, and two epochs
    with np.load(tmp_path / "gauss_newton-2-scratch" / "weights.npz") as weights:
        assert weights["progress"][1:].tolist() == [4, 2]
    # a training that was complete goes on from its checkpoint, the layer included
    outcomes, _ = ablate(copper, data, held, twice, tmp_path, None, variants=variants)
    again = json.loads((tmp_path / ABLATION).read_text())
    assert [o.errors for o in outcomes] == [o["errors"] for o in again]


def test_without_other_measurements_there_is_no_r_factor(
    copper: Parametrisation, data: Data, settings: Settings
) -> None:
    model = build(copper, data.direct, settings)
    nothing = np.zeros((0, 401), np.float32)
    assert ablation._r_factor(model, copper, nothing, nothing) is None


def test_without_measured_spectra_their_variant_is_left_out(
    copper: Parametrisation,
    data: Data,
    settings: Settings,
    held: HeldOutSpectra,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = {"data only": (), "measured": ("measured",)}
    short = replace(settings, steps=2, epoch_steps=2)
    outcomes, _ = ablate(copper, data, held, short, tmp_path, None, variants=both)
    assert {o.variant for o in outcomes} == {"data only"}

"""Trainings with and without physics, side by side."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exafsd_training.fitting.calibrate import Held
from exafsd_training.fitting.fit import Data, Settings
from exafsd_training.model.losses import PHYSICS
from exafsd_training.studies import ablation
from exafsd_training.studies.ablation import (
    ABLATION,
    CONDITIONS,
    VARIANTS,
    Judge,
    ablate,
    as_independent_table,
    as_table,
    plot_ablation,
    variant_weights,
)
from exafsd_training.theory.parametrisation import Parametrisation


@pytest.fixture
def held(data: Data) -> Held:
    return Held.of(data.validation_direct.take(slice(0, 20)), data.validation_instrument)


def test_variants_have_their_own_terms() -> None:
    for name, terms in VARIANTS.items():
        weights = variant_weights(name)
        assert {t for t in PHYSICS if getattr(weights, t)} == set(terms)
        assert weights.data > 0 and weights.theta > 0


def test_variants_are_trained_and_judged_side_by_side(
    copper: Parametrisation,
    data: Data,
    settings: Settings,
    held: Held,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the second derivative of the path sum takes long to compile: once is enough
    few = {"data only": (), "all": tuple(PHYSICS)}
    monkeypatch.setattr(ablation, "VARIANTS", few)
    short = replace(settings, steps=2, epoch_steps=2)
    real = data.direct.clean[:3], np.ones((3, 401), np.float32)
    judge = Judge((real[0], real[1]), data.direct.theta[:3, [2, 3, 1]], (real[0][1:], real[1][1:]))
    outcomes, independent = ablate(
        copper, data, held, short, tmp_path, real, variants=few, judge=judge
    )
    assert [o.variant for o in outcomes] == [n for n in few for _ in CONDITIONS]
    assert [o.variant for o in independent] == list(few)
    for one in independent:
        numbers = [*one.rms.values(), *one.likelihood.values(), one.r_factor]
        assert np.isfinite(numbers).all() and min(one.rms.values()) > 0
    assert as_independent_table(independent).row_count == len(few)
    for name, physics in few.items():
        header = (tmp_path / f"{name.replace(' ', '-')}-1" / "history.csv").read_text().split()[0]
        terms = {t for t in header.split(",") if "/" not in t} - {"epoch", "steps", "total"}
        assert terms == {"data", "theta", *physics}
    assert len(json.loads((tmp_path / ABLATION).read_text())) == len(outcomes)
    assert as_table(outcomes).row_count == len(outcomes)
    plot_ablation(outcomes, tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000


def test_without_measured_spectra_their_variant_is_left_out(
    copper: Parametrisation,
    data: Data,
    settings: Settings,
    held: Held,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = {"data only": (), "measured": ("measured",)}
    short = replace(settings, steps=2, epoch_steps=2)
    outcomes, _ = ablate(copper, data, held, short, tmp_path, None, variants=both)
    assert {o.variant for o in outcomes} == {"data only"}

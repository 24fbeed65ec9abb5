"""What a trained model is judged by: spectra that it must not read, and how it denoises."""

import json
from pathlib import Path

import numpy as np
import pytest

from exafsd_training import denoise, heldout, workflow
from exafsd_training import negatives as module
from exafsd_training.negatives import NEGATIVES, negatives, other_phases


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second FEFF run that `short_model` has already made."""
    monkeypatch.setattr(heldout, "SECOND", heldout.NO_HOLE)


def test_other_phases_are_of_the_element_and_its_neighbours(short_model: Path) -> None:
    found = [config.name for config in other_phases(workflow.load_model(short_model))]
    assert {"cu-k-fcc", "cu-k-cuo", "cu-k-cu2o"} <= set(found)
    assert len(found) == 5
    assert "pt-l3-fcc" not in found


def test_counts_of_every_kind(short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPECTRA", 30)
    # one other phase will do: every one takes a FEFF run
    oxide = [c for c in other_phases(workflow.load_model(short_model)) if c.name == "cu-k-cu2o"]
    monkeypatch.setattr(module, "other_phases", lambda model: oxide)
    found = {kind.name: kind for kind in negatives(short_model)}
    assert list(found) == [
        "good", "cu-k-cu2o instead", "30% of cu-k-cu2o", "E0 beyond the bounds", "noise only"
    ]  # fmt: skip
    assert [kind.good for kind in found.values()] == [True, False, False, False, False]
    assert all(kind.spectra > 20 and np.isfinite(kind.median) for kind in found.values())
    assert found["noise only"].withheld == 1.0
    assert found["cu-k-cu2o instead"].median > found["good"].median
    assert len(json.loads((short_model / NEGATIVES).read_text())) == len(found)


def test_all_three_comparisons(short_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "SPECTRA", 40)
    cleaned, repeated, rebuilt = denoise.denoising(short_model)
    (one,) = cleaned
    assert one.spectra == "simulated"
    assert 0 < one.noise < 0.1
    assert 0 < one.filtered < one.raw
    assert 0 <= one.beats_filter <= 1
    assert not repeated
    assert rebuilt[0].whole <= rebuilt[0].network * 1.5
    assert set(json.loads((short_model / denoise.DENOISING).read_text())) == {
        "cleaned", "repeated", "rebuilt"
    }  # fmt: skip

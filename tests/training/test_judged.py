"""What a model must not read: other phases, mixtures, noise."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exafsd_training import negatives as module
from exafsd_training import structures, workflow
from exafsd_training.fit import Settings
from exafsd_training.negatives import NEGATIVES, negatives, other_phases


@pytest.fixture(scope="module")
def folder(settings: Settings, feff_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("negatives")
    shutil.copytree(feff_folder, out / feff_folder.name)
    short = replace(settings, steps=60, direct_spectra=1000)
    workflow.fit_model(structures.from_amcsd(11145), "Cu", "K", "smoke", out, short)
    return out


def test_other_phases_are_of_the_element_and_its_neighbours(folder: Path) -> None:
    found = [config.name for config in other_phases(workflow.load_model(folder))]
    assert {"cu-k-fcc", "cu-k-cuo", "cu-k-cu2o"} <= set(found)
    assert len(found) == 5
    assert "pt-l3-fcc" not in found


def test_counts_of_every_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPECTRA", 30)
    # one other phase will do: every one takes a FEFF run
    oxide = [c for c in other_phases(workflow.load_model(folder)) if c.name == "cu-k-cu2o"]
    monkeypatch.setattr(module, "other_phases", lambda model: oxide)
    found = {kind.name: kind for kind in negatives(folder)}
    assert list(found) == [
        "good", "cu-k-cu2o instead", "30% of cu-k-cu2o", "E0 beyond the bounds", "noise only"
    ]  # fmt: skip
    assert [kind.good for kind in found.values()] == [True, False, False, False, False]
    assert all(kind.spectra > 20 and np.isfinite(kind.median) for kind in found.values())
    assert found["noise only"].withheld == 1.0
    assert found["cu-k-cu2o instead"].median > found["good"].median
    assert len(json.loads((folder / NEGATIVES).read_text())) == len(found)

"""The published pointwise network: its data, splits, loss and report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from exafsd_training.studies import baseline as module
from exafsd_training.studies.baseline import (
    Points,
    Pointwise,
    baseline,
    read_khan_pairs,
    split_groups,
)

SEED = Path(__file__).resolve().parents[3] / "shared" / "data" / "seed"
K = np.arange(0, 12, 0.05)


def wave(r: float, size: float = 1.0) -> np.ndarray:
    return size * np.sin(2 * K * r) * K**2 * np.exp(-((K / 6) ** 2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six materials in the published layout; A_exp's input is its label."""
    folder = tmp_path / "seed" / "modelTraining_Datasets"
    for place, name in enumerate(["A", "A_exp", "B", "C", "CdS", "LiCoO2"]):
        theory = wave(2.0 + 0.1 * place)
        label = theory if name == "A_exp" else 0.8 * theory + 0.05 * wave(3.0)
        for kind, values in (("Labels", label), ("Input_data", theory)):
            (folder / kind / name).mkdir(parents=True)
            np.savetxt(folder / kind / name / f"{name}.dat", np.column_stack([K, values]))
    history = tmp_path / "seed" / "Output" / "Output_modelTraining"
    history.mkdir(parents=True)
    np.savetxt(
        history / "training_history.txt", [[1, 0.2, 0.3, 0.01, 0.02], [2, 0.1, 0.2, 0.03, 0.04]]
    )
    return tmp_path / "seed"


def test_pairs_say_when_input_is_label(data: Path) -> None:
    pairs = read_khan_pairs(data)
    assert [p.material for p in pairs if p.identical] == ["A_exp"]
    assert {p.group for p in pairs} == {"A", "B", "C", "CdS", "LiCoO2"}


def test_split_by_material_shares_none(data: Path) -> None:
    training_pairs = [p for p in read_khan_pairs(data) if p.material not in module.UNSEEN]
    held = split_groups(training_pairs, 1)
    assert held and held < {p.group for p in training_pairs}
    assert {p.material for p in training_pairs if p.group in held}.isdisjoint(
        {p.material for p in training_pairs if p.group not in held}
    )
    assert split_groups(training_pairs, 1) == held


def test_second_derivative_against_finite_differences(data: Path) -> None:
    points = Points.of(read_khan_pairs(data), "hybrid")
    model = Pointwise(points, 3)
    x = model.scaled(points.take(np.arange(0, 200, 20)))[0]
    u, second = model.curvature(x)
    h = 0.05
    step = tf.constant([[h, 0.0]])
    expected = (model(x + step) - 2 * u + model(x - step)) / h**2
    np.testing.assert_allclose(second, expected, atol=0.02 * float(np.abs(second).max()))


def test_report_and_history(data: Path, tmp_path: Path) -> None:
    report = baseline(data, tmp_path / "out", "hybrid", "material", 20, 1)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["identical"] == ["A_exp"]
    assert report["materials"] == ["A", "A_exp", "B", "C"]
    assert report["published"]["validation_data"] == 0.2
    assert [one["material"] for one in report["unseen"]] == ["CdS", "LiCoO2"]
    with (tmp_path / "out" / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20
    assert set(rows[0]) == {
        "epoch", "train_data", "train_physics", "validation_data", "validation_physics"
    }  # fmt: skip
    assert float(rows[-1]["train_data"]) < 0.5 * float(rows[0]["train_data"])
    again = baseline(data, tmp_path / "again", "hybrid", "material", 20, 1)
    assert again["losses"] == pytest.approx(report["losses"], rel=1e-3)


def test_blind_is_given_k_alone(data: Path) -> None:
    points = Points.of(read_khan_pairs(data), "blind")
    assert not points.x[:, 1].any()
    assert points.x[:, 0].max() > 11


@pytest.mark.measured
def test_published_data(tmp_path: Path) -> None:
    if not SEED.is_dir():
        pytest.skip("the data of Khan 2025 are not here")
    report = baseline(SEED, tmp_path, "hybrid", "points", 3, 1)
    assert len(report["materials"]) == 10
    assert report["identical"] == ["CuO_exp", "ZnFoil_exp", "ZnO_exp", "ZnSe_exp"]
    assert report["losses"]["validation_data"] < 0.2
    assert report["published"]["train_data"] == pytest.approx(0.0444, abs=1e-4)

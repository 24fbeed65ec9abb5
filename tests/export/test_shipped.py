"""The Cu bundle that ships with the daemon."""

from pathlib import Path

import numpy as np
import pytest

from exafsd.contract import K_SIZE, Card, Recipe, file_sha256, to_grid
from exafsd.inference.predictor import session
from exafsd_training.reference.feffit import feffit_reference, reduce_file
from exafsd_training.theory.parametrisation import parametrise
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.structures import from_amcsd, run_feff

FOILS = ("cu_metal_rt.xdi", "Cu_Foil_rt_2016Foils.xdi")
STRANGERS = ("Cu/Cu2S_13K_01.xdi", "Fe/Fe_Foil_rt_2016Foils.xdi", "Zn/ZnO.xdi",
             "Zn/Chorover13BM_Zn_sphalerite_rt_01.xdi")  # fmt: skip


def card_of(folder: Path) -> Card:
    return Card.model_validate_json((folder / "card.json").read_text())


def read(folder: Path, file: Path) -> tuple[dict[str, np.ndarray], Card]:
    card = card_of(folder)
    reduced = reduce_file(file, card.recipe)
    chi_k2, mask = to_grid(reduced.k, reduced.chi, card.k_grid.k_min, reduced.k_data[1])
    run = session((folder / "pinn.onnx").read_bytes())
    names = [output.name for output in run.get_outputs()]
    out = run.run(names, {"chi_k2": chi_k2[None], "mask": mask[None]})
    return {name: value[0] for name, value in zip(names, out, strict=True)}, card


def test_hashes_size_and_shapes(shipped: Path) -> None:
    card = card_of(shipped)
    for name, digest in card.sha256.items():
        assert file_sha256(shipped / name) == digest
    assert sum(file.stat().st_size for file in shipped.iterdir()) <= 3_000_000
    run = session((shipped / "pinn.onnx").read_bytes())
    zeros = np.zeros((2, K_SIZE), np.float32)
    theta = run.run(["theta"], {"chi_k2": zeros, "mask": zeros})[0]
    assert theta.shape == (2, len(card.parameters))
    assert card.name == shipped.name
    assert card.recipe == Recipe()


@pytest.mark.measured
def test_foils_against_feffit(
    shipped: Path, measured: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    card = card_of(shipped)
    folder = run_feff(from_amcsd(11145), "Cu", "K", tmp_path_factory.mktemp("feff"))
    copper = parametrise("Cu", read_paths(folder))
    for name in FOILS:
        file = measured / "Cu" / name
        out, _ = read(shipped, file)
        reference = feffit_reference(reduce_file(file, card.recipe), copper, folder, card.fit[0])
        theta = out["theta"]
        assert abs(theta[copper.index("1/r")] - reference.value["1/r"]) < 0.02
        assert abs(theta[copper.index("1/sigma2")] - reference.value["1/sigma2"]) < 0.002
        assert out["ood"] < card.thresholds.ood


@pytest.mark.measured
@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_are_flagged(shipped: Path, measured: Path, name: str) -> None:
    out, card = read(shipped, measured / name)
    assert out["ood"] > card.thresholds.ood

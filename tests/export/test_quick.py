"""From a structure file to a model that reads: the whole of `exafsd models add`, with FEFF."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf2onnx")

from exafsd.commands import model_add
from exafsd.contract.grid import K_GRID
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.registry import load_bundle
from exafsd.reduction.transform import fit_weight
from exafsd_export.equality import compare
from exafsd_training.theory.structures import from_amcsd, from_cif
from typed_commands import exafsd


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of nickel, and what was printed."""
    folder = tmp_path_factory.mktemp("quick")
    cif = folder / "nickel.cif"
    cif.write_text(from_amcsd(11153).cif)
    config = folder / "exafsd.toml"
    config.write_text(f'models = ["{folder / "models"}"]\n')
    (folder / "models").mkdir()
    done = exafsd("models", "add", cif, "--absorber", "Ni", "--edge", "K", "--config", config)
    return folder, done.stdout


def test_a_structure_file_becomes_a_model(made: tuple[Path, str]) -> None:
    folder, printed = made
    home = folder / "models" / "ni-k-nickel"
    assert str(home) in printed
    card = load_bundle(home).card
    assert (card.absorber, card.edge, card.training) == ("Ni", "K", None)
    nearest = next(p for p in card.parameters if p.name == "r" and p.shell == 1)
    assert (nearest.scatterer, nearest.degeneracy) == ("Ni", 12)
    assert nearest.r_eff == pytest.approx(3.524 / 2**0.5, abs=0.002)
    assert card.structures[0].source == "nickel.cif"
    assert all(0.2 < factor < 6 for factor in card.calibration.std_scale.values())
    assert all(0.8 < held <= 1 for held in card.calibration.coverage_90.values())
    assert sum(file.stat().st_size for file in home.iterdir()) < 0.15e6
    verified = exafsd("models", "verify", home).stdout
    assert re.search(r"^ok +ni-k-nickel", verified)
    listed = exafsd("models", "list", "--config", folder / "exafsd.toml").stdout
    assert "ni-k-nickel" in listed


def test_it_reads_what_the_shipped_one_reads(made: tuple[Path, str]) -> None:
    shipped = load_bundle(Path(model_add.__file__).parents[1] / "models" / "ni-k-fcc")
    own = load_bundle(made[0] / "models" / "ni-k-nickel")
    theta = np.array([p.prior.mean for p in shipped.card.parameters])
    theta[next(i for i, p in enumerate(shipped.card.parameters) if p.name == "r")] = 2.485
    chi, _ = shipped.equation(theta[None])
    data = np.where(K_GRID <= 14, chi[0] * K_GRID**2, 0.0)[None]
    (one,), (other,) = (
        CrystalFit(b.card, b.waves, b.equation, fit_weight)(data, 14.0, [1e-4], [None])
        for b in (own, shipped)
    )
    at = [p.id for p in own.card.parameters].index("Ni/1/r")
    assert one.theta[at] == pytest.approx(other.theta[at], abs=1e-3)
    assert one.ood < 0.01


def test_with_flat_priors_it_reads_what_feffit_reads(made: tuple[Path, str]) -> None:
    """A spectrum that Larch has summed from FEFF's paths."""
    folder = made[0]
    rows = compare(folder / "models" / "ni-k-nickel", [], folder, from_cif(folder / "nickel.cif"))
    assert {row.parameter for row in rows} == {"e0_shift", "1/n_s02", "1/r", "1/sigma2"}
    for row in rows:
        assert row.equal, row
    with pytest.raises(ValueError, match=r"nickel\.cif"):
        compare(folder / "models" / "ni-k-nickel", [], folder)


def test_without_an_exporter_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_add, "_exporter", lambda: None)
    cif, config = tmp_path / "a.cif", tmp_path / "exafsd.toml"
    cif.write_text("data_x\n")
    config.write_text(f'models = ["{tmp_path}"]\n')
    typed = ("models", "add", cif, "--absorber", "Ni", "--edge", "K")
    failed = exafsd(*typed, "--config", config, expect=1)
    assert "pip install exafsd-export" in failed.stderr
    assert "exafsd-export quick --cif" in failed.stderr
    assert "no folder of models" in exafsd(*typed, expect=1).stderr
    missing = ("models", "add", tmp_path / "b.cif", "--absorber", "Ni", "--edge", "K")
    assert "there is no file" in exafsd(*missing, "--config", config, expect=1).stderr

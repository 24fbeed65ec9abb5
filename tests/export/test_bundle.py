"""From a trained model to a proven bundle."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from exafsd.contract import Card, file_sha256
from exafsd.inference.predictor import session
from exafsd_export import bundle, prove
from exafsd_export.cli import app
from exafsd_export.convert import pinn_function
from exafsd_training.fitting.model_folder import load_model
from exafsd_training.studies.evaluation import evaluate

#: none where there are no measured spectra
FOILS = sorted((Path(__file__).parents[2] / ".." / "shared" / "data" / "xas" / "Cu").glob("*.xdi"))


@pytest.fixture(scope="module")
def exported(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A bundle, proven on simulated spectra and on the foils."""
    out = tmp_path_factory.mktemp("bundle") / "smoke"
    return out, bundle.make_bundle(model_folder, out, FOILS)


def test_every_output_is_proven_equal(exported: tuple[Path, dict]) -> None:
    _, differences = exported
    assert set(differences) == {
        "theta", "theta_cov", "chi_k2_pred", "chi_k2_exafs", "ood", "chi", "jacobian",
        "refinement real", "refinement imag", "refinement jacobian",
    }  # fmt: skip
    assert max(differences.values()) <= prove.TOLERANCE


@pytest.mark.measured
def test_equal_on_measured_spectra_too(exported: tuple[Path, dict], model_folder: Path) -> None:
    """On the foils alone: where simulated spectra are among them, they decide about the scale."""
    graph = onnx.load(exported[0] / "pinn.onnx")
    _, function = pinn_function(load_model(model_folder).network)
    spectra = [bundle._measured(file) for file in FOILS]
    assert max(prove.prove(graph, function, spectra).values()) <= prove.TOLERANCE


def test_card_and_graphs_belong_together(exported: tuple[Path, dict]) -> None:
    out, _ = exported
    card = Card.model_validate_json((out / "card.json").read_text())
    assert card.name == "smoke"
    for name, digest in card.sha256.items():
        assert file_sha256(out / name) == digest
    facts = {p.key: p.value for p in onnx.load(out / "pinn.onnx").metadata_props}
    assert facts == {"card_schema": "exafsd.card/1", "bundle": "smoke"}
    # no folder of the machine that made it
    assert not onnx.load(out / "pinn.onnx").graph.doc_string
    assert set(card.training.final_losses) == {"data", "theta", "total"}


def test_shapes_at_any_batch(exported: tuple[Path, dict]) -> None:
    out, _ = exported
    p = len(Card.model_validate_json((out / "card.json").read_text()).parameters)
    pinn = session((out / "pinn.onnx").read_bytes())
    equation = session((out / "equation.onnx").read_bytes())
    assert {i.name: i.type for i in pinn.get_inputs()} == dict.fromkeys(
        ("chi_k2", "mask"), "tensor(float)"
    )
    for n in (1, 3):
        spectra = np.ones((n, 401), np.float32)
        outputs = [o.name for o in pinn.get_outputs()]
        got = dict(
            zip(outputs, pinn.run(outputs, {"chi_k2": spectra, "mask": spectra}), strict=True)
        )
        assert {name: value.shape for name, value in got.items()} == {
            "theta": (n, p), "theta_cov": (n, p, p), "chi_k2_pred": (n, 401),
            "chi_k2_exafs": (n, 401), "ood": (n,),
        }  # fmt: skip
        chi, jacobian = equation.run(["chi", "jacobian"], {"theta": got["theta"]})
        assert chi.shape == (n, 401)
        assert jacobian.shape == (n, 401, p)
        np.testing.assert_allclose(
            chi * (np.arange(401) * 0.05) ** 2, got["chi_k2_exafs"],
            atol=1e-4 * np.abs(got["chi_k2_exafs"]).max(),
        )  # fmt: skip


def test_a_graph_that_differs_is_refused(
    exported: tuple[Path, dict], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = iter([onnx.load(exported[0] / name) for name in ("pinn.onnx", "equation.onnx")])
    monkeypatch.setattr(bundle, "convert", lambda module, function: next(graphs))
    monkeypatch.setattr(prove, "TOLERANCE", 1e-12)
    with pytest.raises(prove.NotEqualError, match="differs"):
        bundle.make_bundle(model_folder, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.measured
def test_evaluate_keeps_its_table(model_folder: Path, measured: Path) -> None:
    rows = evaluate(model_folder, [measured / "Cu" / "cu_metal_rt.xdi"])
    assert [row.parameter for row in rows] == [
        "Cu/e0_shift", "Cu/1/n_s02", "Cu/1/r", "Cu/1/sigma2"
    ]  # fmt: skip
    assert (model_folder / "accuracy.json").exists()


def test_help() -> None:
    for command in ([], ["bundle"]):
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0

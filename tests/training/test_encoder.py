"""The encoder: coordinates that all crystals share, its file, and trainings that start from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from exafsd.contract import K_GRID
from exafsd_training.cli import app
from exafsd_training.fitting.encoder_training import Constants, Lesson, losses_of, train_encoder
from exafsd_training.fitting.fit import Data, Settings, batches, build, start_field, train
from exafsd_training.model.encoder import (
    COORDINATES,
    SHIPPED,
    STRETCHES,
    Encoder,
    EncoderError,
    head_columns,
    shell_coordinates,
)
from exafsd_training.model.losses import negative_log_likelihood
from exafsd_training.model.network import Sizes
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import PathTable
from exafsd_training.theory.shells import MAX_SHELLS


@pytest.fixture(scope="module")
def lesson(copper: Parametrisation, data: Data, settings: Settings) -> Lesson:
    model = build(copper, data.direct, settings)
    return Lesson("cu", Constants.of(model, copper), batches(model, data, settings))


@pytest.fixture(scope="module")
def encoder_file(
    lesson: Lesson, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("encoder") / "encoder.npz"
    shares: list[float] = []
    short = replace(settings, steps=240, epoch_steps=80)
    losses = train_encoder([lesson], short, file, lambda share, losses: shares.append(share))
    assert set(losses) == {"theta", "clean"}
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    return file


def test_coordinates_say_by_what_a_shell_is_changed(copper: Parametrisation) -> None:
    nearest = copper.with_paths(copper.shells[0].paths)
    usual = {"sigma2": 0.006, "e0_shift": 4.0, "n_s02": 0.75 * 12}

    def spectrum(stretch: float, amplitude: float) -> np.ndarray:
        theta = [
            p.r_eff + stretch * (p.shell == 1) if p.name == "r" else usual.get(p.name, 0.0)
            for p in nearest.parameters
        ]
        theta[nearest.index("1/n_s02")] *= amplitude
        return Equation(nearest).chi_k2(tf.constant([theta], tf.float32)).numpy()[0]

    scale = np.full(K_GRID.size, 0.1)
    matrix = shell_coordinates(copper, scale)
    assert matrix.shape == (K_GRID.size, COORDINATES)
    factor = (spectrum(0.01, 0.8) / scale @ matrix).reshape(MAX_SHELLS, 2, len(STRETCHES))[0]
    middle = (STRETCHES > 5) & (STRETCHES < 10)
    expected = 0.8 * np.exp(2j * STRETCHES * 0.01)[middle]
    assert factor[0, middle] == pytest.approx(expected.real, abs=0.15)
    assert factor[1, middle] == pytest.approx(expected.imag, abs=0.15)


def test_heads_have_a_place_for_every_parameter(copper: Parametrisation, truth: PathTable) -> None:
    theta, pairs = head_columns(copper)
    assert len(set(theta)) == len(copper.parameters)
    assert len(set(pairs)) == len(pairs) == len(theta) * (len(theta) + 1) // 2
    # a farther shell with an R of its own
    wide = parametrise("Cu", truth, copper.window.model_copy(update={"r": (1.4, 4.0)}))
    assert len(head_columns(wide)[0]) == len(wide.parameters) > len(copper.parameters)


def test_a_started_network_answers_as_the_encoder(
    encoder_file: Path, lesson: Lesson, copper: Parametrisation, data: Data, settings: Settings
) -> None:
    model = build(copper, data.direct, settings)
    encoder = Encoder.load(encoder_file)
    encoder.start(model, copper)
    chi_k2, mask, clean, truth = next(iter(lesson.stream))
    theta, cholesky = model.structure(model.encode(chi_k2, mask))
    at = vars(lesson.constants)
    likelihood, _ = losses_of(encoder, [(at, (chi_k2, mask, clean, truth))])
    own = tf.reduce_mean(negative_log_likelihood(theta, cholesky, truth, model.unit))
    assert float(own) == pytest.approx(float(likelihood), abs=2e-3)

    def field_error() -> float:
        field = model.spectrum(model.encode(chi_k2, mask), model.field.basis(model.k))
        return float(tf.reduce_mean((field - clean) ** 2))

    before = field_error()
    start_field(model, data, settings)
    assert field_error() < 0.5 * before


def test_a_training_that_starts_from_it_is_ahead(
    encoder_file: Path, copper: Parametrisation, data: Data, settings: Settings, tmp_path: Path
) -> None:
    short = replace(settings, steps=40)
    losses = []
    for name in ("scratch", "encoder"):
        model = build(copper, data.direct, short)
        if name == "encoder":
            Encoder.load(encoder_file).start(model, copper)
            start_field(model, data, short)
        (tmp_path / name).mkdir()
        losses.append(train(model, data, short, tmp_path / name)["validation/total"])
    assert losses[1] < losses[0]


def test_an_encoder_of_other_sizes_is_refused(
    encoder_file: Path, copper: Parametrisation, data: Data, settings: Settings
) -> None:
    model = build(copper, data.direct, replace(settings, sizes=Sizes((32, 16), 24)))
    with pytest.raises(EncoderError, match=r"layers of \(96, 96\) and the network of \(32, 16\)"):
        Encoder.load(encoder_file).start(model, copper)


@pytest.mark.parametrize("content", [b"", b"no npz", None])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "other.npz"
    if content is None:
        np.savez(file, v0=np.zeros(3))
    else:
        file.write_bytes(content)
    with pytest.raises(EncoderError, match=r"other.npz"):
        Encoder.load(file)


def test_the_encoder_that_ships_fits_the_usual_network() -> None:
    assert Encoder.load(SHIPPED).widths == Sizes().encoder
    assert SHIPPED.stat().st_size < 3e6


def test_the_command_wants_crystals_of_the_table(tmp_path: Path) -> None:
    out = tmp_path / "encoder.npz"
    result = CliRunner().invoke(app, ["encoder", "xx-k-none", "--out", str(out)])
    assert result.exit_code == 1
    assert "xx-k-none" in str(result.exception)
    assert not out.exists()


def test_encoder_and_from_scratch_exclude_each_other(tmp_path: Path) -> None:
    arguments = ["--amcsd", "11145", "--absorber", "Cu", "--edge", "K", "--from-scratch"]
    result = CliRunner().invoke(app, ["fit", *arguments, "--encoder", str(tmp_path / "x.npz")])
    assert result.exit_code == 2

"""N from N·S0²: only where S0² is known, with an honest uncertainty; S0² from a foil."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from exafsd.archive.journal import Journal
from exafsd.commands.calibrate_s02 import FoilData, calibrate, calibrate_to_file, write
from exafsd.commands.terminal import ResultTable
from exafsd.contract.card import Card
from exafsd.contract.messages import Rejected, Result, Shell, Trust, Value
from exafsd.contract.recipe import Autobk, Recipe
from exafsd.contract.s02 import S02, Foil, S02File
from exafsd.contract.vocabulary import Flag
from exafsd.inference.amplitude import TRANSFER, divide, recipe_sha256, with_numbers
from exafsd.inference.registry import Registry, read_card, shipped_folder
from exafsd.inference.s02 import CalibrationError, measure
from exafsd.pipeline import Pipeline
from exafsd.service import wiring
from exafsd.settings.analysis import Analysis, Inference, Rebin, Reduction
from exafsd.settings.settings import load
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.heating import HeatedFoil
from reducing import analysed
from simulated import shapes
from typed_commands import exafsd

CARD = read_card(shipped_folder() / "cu-k-fcc")
RECIPE = recipe_sha256(CARD.recipe, Rebin())
#: S0² of the simulated beamline
S02_TRUE = 0.85
#: neighbours in the simulated sample: particles of 2 nm have about so many
N_TRUE = 8.0


def shell(n_s02: float = 10.2, std: float | None = 0.2, degeneracy: float = 12.0) -> Shell:
    nothing = Value(value=0.0, std=None)
    return Shell(
        id="Cu/1", phase="Cu", shell=1, site=1, scatterer="Cu", degeneracy=degeneracy, r_eff=2.556,
        n_s02=Value(value=n_s02, std=std), r=nothing, sigma2=nothing,
    )  # fmt: skip


def foil(**changes: str) -> Foil:
    fields = {
        "phase": "Cu", "model": CARD.name, "model_sha256": CARD.sha256["pinn.onnx"],
        "channel": "transmission", "recipe_sha256": RECIPE,
    }  # fmt: skip
    return Foil.model_validate({**fields, **changes})


def calibrated(of: Foil | None = None, value: float = 0.85, std: float = 0.02) -> Inference:
    return Inference(s02={"Cu-K": S02(value=value, std=std, foil=of)})


numbers = st.floats(0.1, 20.0)
errors = st.floats(0.0, 5.0)


@given(numbers, errors, st.floats(0.5, 1.2), st.floats(0.0, 0.3))
def test_errors_of_both_go_into_n(n_s02: float, n_std: float, s02: float, s02_std: float) -> None:
    n = divide(Value(value=n_s02, std=n_std), Value(value=s02, std=s02_std))
    assert n.value == pytest.approx(n_s02 / s02)
    expected = np.hypot(n_std / n_s02, s02_std / s02)
    assert n.std / n.value == pytest.approx(expected)


def test_the_std_of_n_is_that_of_drawn_values() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(10.2, 0.3, 200_000) / rng.normal(0.85, 0.02, 200_000)
    n = divide(Value(value=10.2, std=0.3), Value(value=0.85, std=0.02))
    assert n.value == pytest.approx(drawn.mean(), rel=2e-3)
    assert n.std == pytest.approx(drawn.std(), rel=2e-2)


def test_n_without_a_std_of_n_s02_has_none() -> None:
    assert divide(Value(value=10.0, std=None), Value(value=0.85, std=0.02)).std is None


@given(st.floats(0.5, 1.2), st.floats(0.0, 0.2))
def test_only_the_foils_own_way_keeps_its_std(value: float, std: float) -> None:
    """Another model, geometry or recipe, or none known: at least 0.05 more, in quadrature."""

    def carried(of: Foil | None, card: Card = CARD) -> Value:
        done = with_numbers([shell()], card, "transmission", calibrated(of, value, std), RECIPE)
        assert done.s02 is not None
        assert done.shells is not None
        assert done.shells[0].n == divide(shell().n_s02, done.s02)
        return done.s02

    assert carried(foil()).std == std
    other_model = CARD.model_copy(update={"sha256": {**CARD.sha256, "pinn.onnx": "0" * 64}})
    other_recipe = recipe_sha256(Recipe(autobk=Autobk(rbkg=1.2)), Rebin())
    other_grid = recipe_sha256(CARD.recipe, Rebin(method="boxcar"))
    for inflated in (
        carried(None),
        carried(foil(), other_model),
        carried(foil(channel="reference")),
        carried(foil(recipe_sha256=other_recipe)),
        carried(foil(recipe_sha256=other_grid)),
    ):
        assert inflated.std**2 >= std**2 + TRANSFER**2 - 1e-12
        assert inflated.std**2 >= std**2 + (TRANSFER * value) ** 2 - 1e-12


def test_without_s02_there_is_no_n_and_it_says_what_to_do() -> None:
    done = with_numbers([shell()], CARD, "transmission", Inference(), RECIPE)
    assert done.shells == [shell()]
    assert done.s02 is None
    assert "calibrate-s02" in done.reason
    elsewhere = Inference(s02={"Zn-K": S02(value=0.9, std=0.05)})
    assert with_numbers([shell()], CARD, "transmission", elsewhere, RECIPE).s02 is None


def test_several_phases_have_no_n() -> None:
    card = CARD.model_copy(update={"structures": [*CARD.structures, *CARD.structures]})
    done = with_numbers([shell()], card, "transmission", calibrated(), RECIPE)
    assert done.shells[0].n is None
    assert done.s02 is None
    assert "phases" in done.reason


@pytest.mark.parametrize("declared", [None, "thick", "dilute", "corrected"])
def test_fluorescence_must_be_declared(declared: str | None) -> None:
    settings = Inference.model_validate({**calibrated().model_dump(), "fluorescence": declared})
    done = with_numbers([shell()], CARD, "fluorescence", settings, RECIPE)
    assert done.shells[0].n_s02.value is not None  # always there
    if declared in ("dilute", "corrected"):
        assert done.shells[0].n is not None
        assert done.reason is None
        assert done.quality == ()
    else:
        assert done.shells[0].n is None
        assert "over-absorption" in done.reason
        assert done.quality == (Flag.FLUORESCENCE_AMPLITUDE,)
    through = with_numbers([shell()], CARD, "transmission", settings, RECIPE)
    assert through.shells[0].n is not None
    assert through.quality == ()


# a foil's results


def result(
    value: float = 10.2,
    std: float = 0.3,
    reason: str | None = None,
    model: str = "cu-k-fcc",
    quality: tuple[str, ...] = (),
) -> Result:
    return Result(
        id="u/s/transmission/K/1", acquired={"start": 5.0, "mid": None, "end": None}, run_uid="u",
        scan_id=None, stream="s", channel="transmission", sweep=1, direction=None,
        averaged={"n": 1, "first": 1, "last": 1}, sample=None, context={}, truth=None,
        element="Cu", edge="K", guessed=[], quality=list(quality), settings_sha256="0" * 64,
        timing_ms={}, e0=8979.0, e0_policy="run", edge_step={"value": 1.0, "std": None},
        epsilon_k=None, k_data=(0.0, 14.0), fit=None, model={"name": model, "sha256": "0" * 64},
        phases=None, shells=None if reason else [shell(value, std)], best=None,
        trust={"score": None, "in_domain": reason is None, "reason": reason},
    )  # fmt: skip


CARDS = {CARD.name: CARD, "another": CARD}


def test_s02_is_the_mean_and_its_std_has_noise_and_the_model() -> None:
    values = [10.0, 10.2, 10.4, 10.2]
    measured = measure([result(v, 0.3) for v in values], CARDS, 3)
    assert measured.value == pytest.approx(0.85)
    assert measured.scatter == pytest.approx(np.std(values, ddof=1) / 12)
    assert measured.noise == pytest.approx(measured.scatter / 2)
    assert measured.std == pytest.approx(np.hypot(0.3 / 12, measured.noise))
    alone = measure([result(10.2, 0.3)], CARDS, 1)
    assert alone.scatter is None
    assert alone.std == pytest.approx(0.3 / 12)


#: believed, but something speaks against it
FLAGGED = result().model_copy(
    update={
        "trust": Trust(
            score=0.9, in_domain=True, state="flagged", doubts=["another phase?"], reason=None
        )
    }
)
REJECTED = Rejected.model_validate(
    {
        **{n: v for n, v in result().model_dump().items() if n in Rejected.model_fields},
        "kind": "rejected",
        "reason": "no_edge",
        "detail": "no step at E0",
    }
)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([result(reason="out of domain")] * 2 + [result()] * 2, "2 of 4 .* out of domain"),
        ([FLAGGED] * 3, "3 of 3 .* another phase"),
        ([REJECTED] * 3, "no step at E0"),
        ([result()] * 2, "2 spectra are too few, 3"),
        ([result(8.0), result(10.0), result(12.0)], "scatters by 20%"),
        ([result(4.0)] * 3, r"0\.333"),
        ([result(15.0)] * 3, r"1\.250"),
        ([result(), result(model="another"), result()], "--model"),
        ([result(quality=(Flag.FLUORESCENCE_AMPLITUDE,))] * 3, "over-absorbed"),
        ([result(std=None)] * 3, "standard deviation"),
    ],
)
def test_a_foil_that_does_not_give_s02_is_refused(messages: list, says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        measure(messages, CARDS, 3)


# settings


def calibration(value: float = 0.85) -> S02File:
    evidence = {
        "sources": ["foil.xdi"], "spectra": 1, "withheld": 0, "degeneracy": 12, "scatter": None,
        "noise": None, "model_std": 0.02, "settings_sha256": "0" * 64, "measured": None,
        "made": 1.7e9, "version": "0",
    }  # fmt: skip
    s02 = S02(value=value, std=0.02, source="foil file foil.xdi", foil=foil())
    return S02File.model_validate(
        {"element": "Cu", "edge": "K", "s02": s02.model_dump(), "evidence": evidence}
    )


def with_file(path: Path) -> Analysis:
    return load(inference={"s02": {"Cu-K": str(path)}}).analysis


def test_settings_hold_what_is_in_the_file_and_not_where_it_is(tmp_path: Path) -> None:
    for name, value in (("a", 0.85), ("b", 0.85), ("c", 0.9)):
        write(calibration(value), tmp_path / name)
    one, same, other = (with_file(tmp_path / name) for name in "abc")
    assert one.inference.s02["Cu-K"].foil == foil()
    assert one.sha256 == same.sha256 != other.sha256
    assert one.sha256 != load().analysis.sha256
    assert str(tmp_path).encode() not in one.canonical
    again = type(load()).model_validate(
        load(inference={"s02": {"Cu-K": str(tmp_path / "a")}}).model_dump()
    )
    assert again.analysis.sha256 == one.sha256  # as for the processes of a replay


def test_a_file_of_another_edge_or_none_is_refused(tmp_path: Path) -> None:
    write(calibration(), tmp_path / "copper")
    (tmp_path / "broken").write_text("{}")
    config = tmp_path / "exafsd.toml"
    for edge, name, says in (
        ("Zn-K", "copper", "is for Cu-K"),
        ("Cu-K", "broken", "not a file written by exafsd calibrate-s02"),
        ("Cu-K", "missing", "No such file"),
        ("copper", "copper", "is for Cu-K"),
    ):
        config.write_text(f'[inference.s02]\n{edge} = "{tmp_path / name}"\n')
        with pytest.raises(ValueError, match=says):
            load(config)


def test_a_run_may_say_that_its_sample_is_dilute_and_nothing_about_s02() -> None:
    analysis = Analysis().for_run({"exafsd": {"fluorescence": "dilute"}})
    assert analysis.inference.fluorescence == "dilute"
    assert analysis.sha256 != Analysis().sha256
    for refused in ({"fluorescence": "perhaps"}, {"s02": {"Cu-K": "/etc/passwd"}}):
        with pytest.raises(ValueError, match="exafsd"):
            Analysis().for_run({"exafsd": refused})


# the whole way


@dataclass(frozen=True)
class Beamline:
    """A foil in a journal and a sample in a file, of one simulated beamline."""

    journal: Path
    uid: str
    sample: Path


@pytest.fixture(scope="module")
def beamline(feff_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Beamline:
    folder = tmp_path_factory.mktemp("amplitude")
    rng = np.random.default_rng(7)
    beam = HeatedFoil(feff_cache, 400, (295.0, 400.0), photons=1e7, n_s02=12 * S02_TRUE)
    sweeps: list[shapes.SweepData] = []
    for _ in range(4):
        counts = beam.sweep(300.0, "up", rng)
        sweeps.append((counts.energy, {"I0": counts.i0, "It": counts.it, "Ir": counts.ir}, {}))
    journal = Journal(folder / "journal")
    start = {"uid": "foil-run", "scan_id": 7, "time": 1.7e9, "element": "Cu", "edge": "K"}
    for name, document in shapes.array_events(sweeps, start):
        journal.write(name, document)
    journal.close()
    particles = HeatedFoil(
        feff_cache, 400, (295.0, 400.0), photons=1e7, n_s02=N_TRUE * S02_TRUE
    ).sweep(380.0, "up", rng)
    sample = folder / "particles.dat"
    columns = np.column_stack([particles.energy, particles.i0, particles.it])
    np.savetxt(sample, columns, header="energy i0 it")
    return Beamline(folder / "journal", "foil-run", sample)


def test_calibrate_on_a_foils_run_and_count_neighbours(beamline: Beamline, tmp_path: Path) -> None:
    path = tmp_path / "copper.json"
    printed = exafsd("calibrate-s02", beamline.journal, "--uid", beamline.uid, "--to", path).stdout
    assert "S0² of Cu-K" in printed
    calibration = S02File.model_validate_json(path.read_text())
    assert abs(calibration.s02.value - S02_TRUE) < 3 * calibration.s02.std
    assert calibration.s02.std < 0.1
    assert calibration.evidence.spectra == 4
    assert calibration.s02.source == "foil run foil-run"
    config = tmp_path / "exafsd.toml"
    config.write_text(f'[inference]\ns02 = {{ Cu-K = "{path}" }}\n')
    assert "Cu-K" in exafsd("check", "--config", config).stdout
    (line,) = exafsd(
        "analyze", beamline.sample, "--config", config, "--json", "--element", "Cu"
    ).stdout.splitlines()
    header = json.loads(line)
    n, n_s02 = header["shells"][0]["n"], header["shells"][0]["n_s02"]
    assert header["s02"] == {
        "value": calibration.s02.value, "std": calibration.s02.std, "source": "foil run foil-run"
    }  # fmt: skip  # the foil's own way: nothing added
    assert header["n_reason"] is None
    assert n["value"] == pytest.approx(n_s02["value"] / calibration.s02.value)
    assert n["std"] / n["value"] > n_s02["std"] / n_s02["value"]
    assert abs(n["value"] - N_TRUE) < 3 * n["std"]
    assert n["std"] < 0.15 * N_TRUE


def test_calibrating_twice_gives_the_same_and_other_channels_can_be_asked(
    beamline: Beamline,
) -> None:
    def foil_of(**changes: object) -> FoilData:
        return FoilData(**{"sources": (str(beamline.journal),), "uid": beamline.uid, **changes})

    one, two = (calibrate(foil_of(), load()) for _ in range(2))
    assert one.s02 == two.s02
    reference = calibrate(foil_of(channel="reference"), load())
    assert reference.s02.foil.channel == "reference"
    recipe = Recipe(autobk=Autobk(rbkg=1.2))
    assert one.s02.foil.recipe_sha256 != recipe_sha256(recipe, Rebin())
    for changes, says in (
        ({"channel": "fluorescence"}, "no fluorescence spectra .* transmission of Cu K"),
        ({"at_least": 5}, "too few, 5"),
        ({"edge": Edge("Zn", "K")}, "no transmission spectra"),
        ({"sources": ("a", "b")}, "one archive"),
    ):
        with pytest.raises(CalibrationError, match=says):
            calibrate(foil_of(**changes), load())


def test_what_cannot_be_read_is_said(beamline: Beamline, tmp_path: Path) -> None:
    path = tmp_path / "never.json"
    for sources, uid, says in (
        ([beamline.journal], "nobody", "no run 'nobody'"),
        ([tmp_path / "nothing.dat"], None, "No such file"),
        ([tmp_path / "no-catalog"], "u", "no-catalog"),
    ):
        foil = FoilData(tuple(map(str, sources)), uid)
        with pytest.raises((ValueError, LookupError, OSError, RuntimeError), match=says):
            calibrate_to_file(foil, load(), path)
    with pytest.raises(CalibrationError, match="inference is off"):
        calibrate(FoilData((str(beamline.sample),)), load(inference={"enabled": False}))
    arguments = ["calibrate-s02", beamline.sample, "--channel", "sideways", "--to", path]
    assert "exafsd: --channel" in exafsd(*arguments, expect=1).stderr
    assert not path.exists()


def test_fluorescence_in_the_pipeline(feff_cache: Path) -> None:
    """Counts of a dilute sample: N only where the run says so."""
    beam = HeatedFoil(feff_cache, 400, (295.0, 400.0), photons=1e8, n_s02=N_TRUE * S02_TRUE)
    counts = beam.sweep(300.0, "up", np.random.default_rng(3))
    signals = {"i0": counts.i0, "iff": 1e-3 * counts.i0 * np.log(counts.i0 / counts.it)}
    run = Run("u", edges=(Edge("Cu", "K"),))
    sweep = Sweep(run, "primary", 1, counts.energy, signals)
    analysis = Analysis(reduction=Reduction(), inference=calibrated())
    pipeline = Pipeline(Registry.load(), ())
    (undeclared,) = pipeline.process(analysed(sweep, analysis))
    assert undeclared.message.shells[0].n is None
    assert undeclared.message.shells[0].n_s02.value > 0
    assert Flag.FLUORESCENCE_AMPLITUDE in undeclared.message.quality
    assert "over-absorption" in undeclared.message.n_reason
    declared = analysis.for_run({"exafsd": {"fluorescence": "dilute"}})
    (dilute,) = pipeline.process(analysed(sweep, declared))
    assert abs(dilute.message.shells[0].n.value - N_TRUE) < 3 * dilute.message.shells[0].n.std
    assert Flag.FLUORESCENCE_AMPLITUDE not in dilute.message.quality
    assert dilute.message.s02.std >= TRANSFER  # no foil of its own
    table, shown = ResultTable(), Console(file=io.StringIO(), width=200)
    table.add(dilute.message.model_dump(mode="json"), "here")
    shown.print(table.render())
    assert f"N {dilute.message.shells[0].n.value:.1f}(" in shown.file.getvalue()
    pipeline.close()


@pytest.mark.measured
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Larch leaves files open
def test_one_measured_foil_calibrates_another(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "copper.json"
    foil = FoilData((str(data / "xas" / "Cu" / "cu_metal_rt.xdi"),))
    calibrate_to_file(foil, load(), path)
    settings = load(inference={"s02": {"Cu-K": str(path)}})
    pipeline = wiring.make_pipeline(settings)
    other = data / "xas" / "Cu" / "Cu_Foil_rt_2016Foils.xdi"
    session = wiring.make_session(settings, pipeline)
    _, outcome, _ = session.file(other, settings.analysis, None)
    pipeline.close()
    n = outcome.message.shells[0].n
    assert outcome.message.s02.source == "foil file cu_metal_rt.xdi"
    assert abs(n.value - 12) < n.std
    assert n.std < 1.0
    with pytest.raises(CalibrationError, match="withheld"):
        calibrate(FoilData((str(data / "xas" / "Cu" / "Cu2S_13K_01.xdi"),)), load())

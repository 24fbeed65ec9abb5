"""Messages, frames, card, grid: what others rely on."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from exafsd.contract import K_GRID, FrameError, decode, encode, to_grid
from exafsd.contract.messages import Result, RunStart, Shell, Status, Value, topic_of
from exafsd.contract.schemas import schemas
from exafsd.settings.settings import load
from exafsd.settings.template import schema_text, template

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def result(**changes):
    fields = {
        "id": "u/primary/transmission/K/1",
        "acquired": {"start": None, "mid": None, "end": 1.0},
        "run_uid": "u",
        "scan_id": 1,
        "stream": "primary",
        "channel": "transmission",
        "sweep": 1,
        "direction": "up",
        "averaged": {"n": 1, "first": 1, "last": 1},
        "sample": {"name": "foil"},
        "context": {},
        "truth": None,
        "element": "Cu",
        "edge": "K",
        "guessed": [],
        "quality": [],
        "settings_sha256": "0" * 64,
        "timing_ms": {},
        "e0": 8979.0,
        "e0_policy": "run",
        "edge_step": {"value": 1.0, "std": None},
        "epsilon_k": float("nan"),
        "k_data": (0.0, 14.0),
        "fit": None,
        "model": None,
        "phases": None,
        "shells": None,
        "best": None,
        "trust": {"score": None, "in_domain": False, "reason": "no model"},
    }
    return Result(**{**fields, **changes})


def test_schemas_on_disk_are_those_of_the_models():
    expected = {n: json.dumps(s, indent=2, sort_keys=True) + "\n" for n, s in schemas().items()}
    expected["settings.json"] = schema_text()
    on_disk = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert on_disk == expected, "run `make schemas`"


def test_a_message_has_every_field_of_the_design_and_validates():
    header = json.loads(encode(result())[1])
    jsonschema.validate(header, schemas()["message.result.json"])
    for name in [
        "schema",
        "kind",
        "publisher",
        "seq",
        "id",
        "time",
        "acquired",
        "run_uid",
        "scan_id",
        "stream",
        "channel",
        "sweep",
        "direction",
        "averaged",
        "sample",
        "context",
        "truth",
        "element",
        "edge",
        "guessed",
        "e0",
        "e0_policy",
        "energy_shift",
        "edge_step",
        "epsilon_k",
        "k_data",
        "fit",
        "quality",
        "model",
        "settings_sha256",
        "candidates",
        "phases",
        "shells",
        "s02",
        "r_factor",
        "polish",
        "best",
        "trust",
        "convergence",
        "xanes",
        "timing_ms",
        "arrays",
    ]:
        assert name in header, name
    assert header["schema"] == "exafsd/1"
    assert header["epsilon_k"] is None  # NaN is not JSON


def test_topics_end_with_a_dot():
    assert topic_of(result()) == "result.Cu.K."
    status = Status.model_construct()
    assert topic_of(status) == "status."


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.sampled_from(["k", "chi_k2", "norm"]),
)
def test_frames_round_trip(values, name):
    array = np.array(values, dtype=np.float32)
    message = decode(encode(result(), {name: array, "energy": np.arange(3.0) + 8979.123456}))
    np.testing.assert_array_equal(message.arrays[name], array)
    np.testing.assert_array_equal(message.arrays["energy"], np.arange(3.0) + 8979.123456)
    assert message.topic == "result.Cu.K."


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f[:1],
        lambda f: f[:-1],
        lambda f: [f[0], b"{", *f[2:]],
        lambda f: [f[0], b"[]", *f[2:]],
        lambda f: [f[0], f[1].replace(b"exafsd/1", b"exafsd/9"), *f[2:]],
        lambda f: [*f[:-1], f[-1][:-1]],
    ],
)
def test_spoilt_frames_are_refused(spoil):
    frames = encode(result(), {"k": np.arange(4.0)})
    with pytest.raises(FrameError):
        decode(spoil(frames))


@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63) - 1, 10**30])
def test_metadata_with_integers_of_any_size_are_encoded(number):
    message = RunStart.of(
        run_uid="u", scan_id=number, element="Cu", edge="K", sample=[{"n": number}], delivery="live"
    )
    header = json.loads(encode(message)[1])
    assert header["scan_id"] == number
    assert header["sample"] == [{"n": number}]
    assert header.keys() == {"schema", *RunStart.model_fields} - {"schema_"}


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError):
        result(surprise=1)


@given(st.floats(5, 19), st.floats(1, 4))
def test_grid_keeps_values_and_masks_outside(k_end, k_min):
    k = np.arange(0, k_end, 0.05)
    chi_k2, mask = to_grid(k, np.sin(k), k_min, k[-1])
    inside = mask > 0
    np.testing.assert_allclose(
        chi_k2[inside], (K_GRID**2 * np.sin(K_GRID))[inside], rtol=1e-4, atol=1e-4
    )
    assert not chi_k2[~inside].any()
    assert K_GRID[inside].max() <= k[-1] + 0.026
    assert K_GRID[inside].min() >= k_min - 0.026


def test_settings_template_is_the_defaults(tmp_path):
    path = tmp_path / "exafsd.toml"
    path.write_text(template())
    assert load(path).model_dump() == load().model_dump()


def test_settings_refuse_unknown_keys_and_the_environment_wins(tmp_path, monkeypatch):
    path = tmp_path / "exafsd.toml"
    path.write_text("[publish]\nhigh_water = 7\n")
    assert load(path).publish.high_water == 7
    monkeypatch.setenv("EXAFSD_PUBLISH__HIGH_WATER", "9")
    assert load(path).publish.high_water == 9
    path.write_text("[publish]\nhigh_watr = 7\n")
    with pytest.raises(ValidationError, match="high_watr"):
        load(path)
    path.write_text("[adapter]\npreset = 'nowhere'\n")
    with pytest.raises(ValidationError, match="nowhere"):
        load(path)


def test_a_part_is_checked_where_it_is_read_and_not_where_it_is_made():
    shell = {
        "id": "Cu/1", "phase": "Cu", "shell": 1, "site": 0, "scatterer": "Cu", "degeneracy": 12.0,
        "r_eff": 2.55, "n_s02": Value(11.0, 0.5), "r": Value(2.54, None),
        "sigma2": Value(0.008, float("nan")),
    }  # fmt: skip
    own = Shell(**shell)
    assert own.prior_limited is not Shell(**shell).prior_limited
    with pytest.raises(TypeError, match="std"):
        Value(1.0)
    with pytest.raises(TypeError, match="unit"):
        Value(value=1.0, std=None, unit="eV")
    header = json.loads(TypeAdapter(Shell).dump_json(own))
    assert (header["n"], header["sigma2"]) == (None, {"value": 0.008, "std": None})
    read = TypeAdapter(Shell).validate_python(header)
    assert (read.r, read.sigma2) == (own.r, Value(0.008, None))
    for wrong in ({"unit": "eV"}, {"r": {"value": "far", "std": None}}, {"shell": None}):
        with pytest.raises(ValidationError):
            TypeAdapter(Shell).validate_python(header | wrong)

"""Generated documents: the same sweeps in every shape, all valid; and the hostile ones are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulated import shapes
from simulated.hostile import corpus

WHOLE = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def some_sweeps(draw: Callable[..., Any]) -> list[shapes.SweepData]:
    points, count = draw(st.integers(2, 40)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return [
        (
            np.linspace(8800, 9000, points)[:: -1 if number % 2 else 1],
            {"I0": rng.random(points), "It": rng.random(points)},
            {"temperature": float(number)},
        )
        for number in range(count)
    ]


def columns(documents: list[tuple[str, dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Flat columns, whatever the shape."""
    by_key: dict[str, list[Any]] = {}
    files: dict[str, tuple[Path, str]] = {}
    data: dict[str, tuple[str, int]] = {}
    for name, doc in documents:
        if name == "resource":
            path = Path(doc["root"]) / doc["resource_path"]
            files[doc["uid"]] = (path, doc["resource_kwargs"]["dataset"])
        elif name == "datum":
            data[doc["datum_id"]] = (doc["resource"], doc["datum_kwargs"]["index"])
        elif name == "stream_resource":
            path = Path(doc["uri"].removeprefix("file://localhost"))
            files[doc["uid"]] = (path, doc["parameters"]["dataset"])
        elif name == "stream_datum":
            path, dataset = files[doc["stream_resource"]]
            with h5py.File(path) as file:
                rows = file[dataset][doc["indices"]["start"] : doc["indices"]["stop"]]
            by_key.setdefault(dataset.rsplit("/")[-1], []).append(rows)
        elif name in ("event", "event_page"):
            for key, value in doc["data"].items():
                if isinstance(value, str):
                    resource, index = data[value]
                    path, dataset = files[resource]
                    with h5py.File(path) as file:
                        value = file[dataset][index]
                by_key.setdefault(key, []).append(value)
    return {key: np.concatenate([np.ravel(v) for v in values]) for key, values in by_key.items()}


@WHOLE
@given(sweeps=some_sweeps(), page=st.integers(1, 60))
def test_every_shape_holds_the_same(
    sweeps: list[shapes.SweepData], page: int, tmp_path: Path
) -> None:
    generators = {
        "events": shapes.events(sweeps, {"element": "Cu"}),
        "event_pages": shapes.event_pages(sweeps, {"element": "Cu"}, page_size=page),
        "array_events": shapes.array_events(sweeps, {"element": "Cu"}),
        "monitors": shapes.monitors(sweeps, {"element": "Cu"}),
        "resource_datum": shapes.resource_datum(sweeps, {"element": "Cu"}, tmp_path),
        "stream_assets": shapes.stream_assets(sweeps, {"element": "Cu"}, tmp_path),
    }
    for title, generator in generators.items():
        documents = list(generator)
        for name, document in documents:
            schema_validators[DocumentNames[name]].validate(document)
        assert documents[0][1]["element"] == "Cu"
        values = columns(documents)
        for key in ("I0", "It"):
            expected = np.concatenate([signals[key] for _, signals, _ in sweeps])
            assert np.array_equal(values[key], expected), title
        if title != "monitors":  # there the encoder is read between the points
            expected = np.concatenate([energy for energy, _, _ in sweeps])
            assert np.array_equal(values["energy"], expected), title


def test_uid_can_be_given() -> None:
    sweep = (np.arange(3.0), {"I0": np.ones(3)}, {})
    assert next(shapes.array_events([sweep], {"uid": "mine"}))[1]["uid"] == "mine"


def test_hostile_corpus_is_large_and_fresh() -> None:
    first, second = list(corpus()), list(corpus())
    titles = [title for title, _ in first]
    assert len(titles) > 100
    assert len(set(titles)) == len(titles)
    uids = {str(d.get("uid")) for _, case in first for n, d in case
            if n == "start" and isinstance(d, dict)}  # fmt: skip
    again = {str(d.get("uid")) for _, case in second for n, d in case
             if n == "start" and isinstance(d, dict)}  # fmt: skip
    assert len(uids) > 80  # one case must not look like a repetition of another
    assert len(uids & again) < 20


@pytest.mark.parametrize("title", ["NaN", "event twice", "10 MB"])
def test_hostile_corpus_has(title: str) -> None:
    assert any(title in name for name, _ in corpus())

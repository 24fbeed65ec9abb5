"""Documents in, sweeps out: shapes, chunking, names, units, context, trouble."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from documents_in import SWEEPS, feed, make_router, problems_of, sweeps_of
from exafsd.documents.energy import HC
from exafsd.documents.items import Began, Ended
from exafsd.documents.splitter import TurningSplitter
from exafsd.settings.analysis import Analysis, adapter
from simulated import shapes
from simulated.hostile import corpus
from synthetic import METADATA


@pytest.mark.parametrize(
    "shape",
    ["events", "event_pages", "array_events", "monitors", "resource_datum", "stream_assets"],
)
def test_every_shape_gives_every_sweep(shape, tmp_path):
    needs_folder = shape in ("resource_datum", "stream_assets")
    arguments = (tmp_path,) if needs_folder else ()
    items = feed(getattr(shapes, shape)(SWEEPS, METADATA, *arguments), roots=[tmp_path])
    sweeps = sweeps_of(items)
    assert problems_of(items) == []
    assert isinstance(items[0], Began)
    assert isinstance(items[-1], Ended)
    assert [s.number for s in sweeps] == [1, 2, 3, 4]
    assert [s.direction for s in sweeps] == ["up", "down", "up", "down"]
    for sweep, (energy, columns, extras) in zip(sweeps, SWEEPS, strict=True):
        assert sweep.broken is None
        assert sweep.run.edges[0].element == "Cu"
        # turning points belong to one sweep or the other, and joins lose a point at the ends
        assert abs(len(sweep.energy) - len(energy)) <= 2
        order = np.argsort(energy)
        expected = np.interp(sweep.energy, energy[order], columns["It"][order])
        tolerance = 0.01 if shape == "monitors" else 1e-9
        inner = slice(3, -3)
        np.testing.assert_allclose(sweep.signals["it"][inner], expected[inner], rtol=tolerance)
        if shape != "monitors":
            assert sweep.context["temperature"]["value"] == extras["temperature"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 300))
def test_pages_of_any_size_give_the_same_sweeps(size):
    whole = sweeps_of(feed(shapes.events(SWEEPS, METADATA)))
    paged = sweeps_of(feed(shapes.event_pages(SWEEPS, METADATA, page_size=size)))
    assert len(whole) == len(paged)
    for a, b in zip(whole, paged, strict=True):
        np.testing.assert_array_equal(a.energy, b.energy)
        np.testing.assert_array_equal(a.signals["it"], b.signals["it"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_splitter_cuts_the_same_however_the_points_are_chunked(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    legs = data.draw(st.integers(1, 5))
    points = data.draw(st.integers(40, 120))  # steps stay below the turn of 20 eV
    up = np.linspace(8900, 9300, points)
    energy = np.concatenate([up if i % 2 == 0 else up[::-1] for i in range(legs)])
    energy = energy + rng.normal(0, 0.5, energy.size)
    whole = TurningSplitter(20.0)
    expected = [*whole.push({"energy": energy}), *whole.finish()]
    assert len(expected) == legs
    chunked = TurningSplitter(20.0)
    cut, at = [], 0
    while at < energy.size:
        size = data.draw(st.integers(1, 60))
        cut += chunked.push({"energy": energy[at : at + size]})
        at += size
    cut += chunked.finish()
    for a, b in zip(expected, cut, strict=True):
        np.testing.assert_array_equal(a.columns["energy"], b.columns["energy"])


def test_splitter_knows_flyback_and_leaves_unsorted_points_together():
    up = np.linspace(8900, 9300, 100)
    flyback = TurningSplitter(20.0)
    parts = flyback.push({"energy": np.concatenate([up, up, up])}) + flyback.finish()
    assert [len(p.columns["energy"]) for p in parts] == [100, 100, 100]
    shuffled = np.random.default_rng(1).permutation(up)
    splitter = TurningSplitter(20.0)
    assert splitter.push({"energy": shuffled}) == []
    assert len(splitter.finish()[0].columns["energy"]) == 100


def test_names_and_angles_of_a_beamline():
    """ISS-like: an encoder in pulses, d-spacing and offset in the metadata."""
    energy, columns, _ = SWEEPS[0]
    d, offset = 3.1356, 0.3
    pulses = (np.degrees(np.arcsin(HC / (2 * d * energy))) + offset) * 360000
    renamed = {"apb_ave_ch1": columns["I0"], "apb_ave_ch2": columns["It"]}
    documents = []
    for name, doc in shapes.array_events([(pulses, renamed, {})], {**METADATA}):
        if name == "start":
            doc = {**doc, "mono_d_spacing": d, "angle_offset": offset}
        if name == "descriptor":
            keys = dict(doc["data_keys"])
            keys["pb9_enc1"] = {**keys.pop("energy"), "units": "counts"}
            doc = {**doc, "data_keys": keys}
        if name == "event":
            fields = {**doc["data"]}
            fields["pb9_enc1"] = fields.pop("energy")
            doc = {**doc, "data": fields, "timestamps": dict.fromkeys(fields, 0.0)}
        documents.append((name, doc))
    (sweep,) = sweeps_of(feed(documents, analysis=Analysis(adapter=adapter("iss"))))
    np.testing.assert_allclose(sweep.energy, energy, rtol=1e-9)


def test_numbers_as_strings_and_summed_fluorescence():
    """BMM-like: XDI metadata, dead-time corrected elements, numbers as strings."""
    energy, columns, _ = SWEEPS[0]
    names = {"I0": columns["I0"], "It": columns["It"]}
    names |= {f"DTC{i}": columns["I0"] * 0.1 * i for i in (1, 2, 3, 4)}
    metadata = {"XDI": {"Element": {"symbol": "Cu", "edge": "K"}, "Sample": {"name": "foil"}}}
    documents = []
    for name, doc in shapes.events([(energy, names, {})], metadata):
        if name == "descriptor":
            keys = dict(doc["data_keys"])
            keys["dcm_energy"] = keys.pop("energy")
            doc = {**doc, "data_keys": keys}
        if name == "event":
            fields = {
                ("dcm_energy" if k == "energy" else k): str(v) for k, v in doc["data"].items()
            }
            doc = {**doc, "data": fields, "timestamps": dict.fromkeys(fields, 0.0)}
        documents.append((name, doc))
    (sweep,) = sweeps_of(feed(documents, analysis=Analysis(adapter=adapter("bmm"))))
    assert sweep.run.edges[0].element == "Cu"
    assert sweep.run.sample == "foil"
    np.testing.assert_allclose(sweep.signals["iff"], columns["I0"])


def test_an_unknown_energy_unit_rejects_every_sweep_with_the_reason():
    documents = []
    for name, doc in shapes.array_events(SWEEPS, METADATA):
        if name == "descriptor":
            keys = dict(doc["data_keys"])
            keys["energy"] = {**keys["energy"], "units": "furlong"}
            doc = {**doc, "data_keys": keys}
        documents.append((name, doc))
    items = feed(documents)
    assert [s.broken.reason for s in sweeps_of(items)] == ["energy_unit"] * 4
    assert "furlong" in problems_of(items)[0].detail


def test_a_run_may_name_its_columns_but_never_a_socket():
    renamed = [(e, {"ring": c["I0"], "It": c["It"]}, x) for e, c, x in SWEEPS]
    good = {**METADATA, "exafsd": {"adapter": {"i0": "ring"}}}
    assert "i0" in sweeps_of(feed(shapes.array_events(renamed, good)))[0].signals
    bad = {**METADATA, "exafsd": {"publish": {"address": "tcp://0.0.0.0:1"}}}
    items = feed(shapes.array_events(SWEEPS, bad))
    assert {s.broken.reason for s in sweeps_of(items)} == {"bad_settings"}
    assert "publish" in problems_of(items)[0].detail


def test_an_external_file_outside_the_roots_is_never_opened(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir(), outside.mkdir()
    for shape in (shapes.resource_datum, shapes.stream_assets):
        items = feed(shape(SWEEPS, METADATA, outside), roots=[inside])
        assert [s.broken.reason for s in sweeps_of(items)] == ["asset_missing"] * 4
        assert "asset_roots" in sweeps_of(items)[0].broken.detail


def test_a_late_file_is_waited_for_and_a_missing_one_rejected(tmp_path):
    for shape in (shapes.resource_datum, shapes.stream_assets):
        documents = list(shape(SWEEPS, METADATA, tmp_path))
        (path,) = tmp_path.glob("*.h5")
        hidden = path.rename(path.with_suffix(".hidden"))
        router = make_router(roots=[tmp_path], patience=0.3)
        items = []
        for name, document in documents:
            items += router.feed(name, document)
        assert sweeps_of(items) == []
        assert not any(isinstance(i, Ended) for i in items)  # the run waits for its file
        hidden.rename(path)
        items += router.poll()
        assert [s.broken for s in sweeps_of(items)] == [None] * 4
        assert isinstance(items[-1], Ended)
        path.unlink()
        gone = feed(documents, roots=[tmp_path], patience=0.1)
        assert {s.broken.reason for s in sweeps_of(gone)} == {"asset_missing"}
        assert len(sweeps_of(gone)) == 4


def test_an_aborted_run_flags_its_open_sweep():
    documents = list(shapes.events(SWEEPS[:1], METADATA))[:60]
    start = dict(documents)["start"]
    stop = {"uid": "s", "run_start": start["uid"], "time": 0.0, "exit_status": "abort"}
    (sweep,) = sweeps_of(feed([*documents, ("stop", stop)]))
    assert sweep.flags == ("partial",)


@pytest.mark.parametrize(("title", "documents"), [pytest.param(t, d, id=t) for t, d in corpus()])
def test_hostile_documents_never_stop_the_next_good_run(title, documents):
    router = make_router()
    for name, document in documents:
        list(router.feed(name, document))
    good = []
    for name, document in shapes.array_events(SWEEPS, {**METADATA, "uid": "after"}):
        good += router.feed(name, document)
    sweeps = [s for s in sweeps_of(good) if s.run.uid == "after"]
    assert [s.number for s in sweeps] == [1, 2, 3, 4]
    assert all(s.broken is None for s in sweeps)


def test_runs_that_never_stop_do_not_pile_up():
    router = make_router()
    began = 0
    for i in range(200):
        start = {"uid": f"run-{i}", "time": 0.0, **METADATA}
        began += sum(isinstance(x, Began) for x in router.feed("start", start))
    assert began == 200
    assert router.open_runs <= 64


def test_sweep_is_immutable():
    sweep = sweeps_of(feed(shapes.array_events(SWEEPS, METADATA)))[0]
    with pytest.raises(AttributeError):
        sweep.number = 3
    assert replace(sweep, number=3).number == 3

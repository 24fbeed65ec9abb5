"""The daemon in this process: outcomes, statuses, overload, settings of a run, a clean end."""

import threading
import time

import numpy as np
import pytest

from exafsd.client import Subscriber
from exafsd.service import wiring
from exafsd.service.live import Live
from exafsd.settings.settings import load
from simulated import shapes
from synthetic import METADATA, foil, sweep_columns

SWEEPS = [sweep_columns(i, points=500) for i in range(4)]


class Daemon:
    """A service in a thread, its inbox and a subscriber that is connected."""

    def __init__(self, tmp_path, **settings):
        publish = {"address": "tcp://127.0.0.1:*", "heartbeat": 0.1, **settings.pop("publish", {})}
        self.settings = load(publish=publish, **settings)
        self.service, self.inbox = wiring.make_service(self.settings, proxy=False)
        self.subscriber = Subscriber(self.service._publisher.address)
        self.messages = []
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()
        self.until(lambda m: m.header["kind"] == "status")

    def until(self, condition, timeout=30):
        """Collect messages up to the first that fits."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            message = self.subscriber.receive(0.1)
            if message is not None:
                self.messages.append(message)
                if condition(message):
                    return message
        pytest.fail(f"nothing came; last: {[m.topic for m in self.messages[-5:]]}")

    def measure(self, documents):
        """Feed a run and wait for its end."""
        for name, document in documents:
            self.inbox.put(name, document)
        return self.until(lambda m: m.header["kind"] == "run.stop").header

    def outcomes(self, kind=("result", "rejected")):
        """Headers of results and rejections so far."""
        return [m.header for m in self.messages if m.header["kind"] in kind]

    def close(self):
        """Stop and collect what is said until the end."""
        self.service.stop()
        self.until(lambda m: m.header.get("state") == "stopped")
        self.thread.join(10)
        self.subscriber.close()


@pytest.fixture
def daemon(tmp_path):
    daemons = []

    def make(**settings):
        daemons.append(Daemon(tmp_path, **settings))
        return daemons[-1]

    yield make
    for one in daemons:
        if one.thread.is_alive():
            one.close()


def test_every_sweep_and_channel_has_one_outcome(daemon):
    one = daemon()
    stop = one.measure(shapes.array_events(SWEEPS, METADATA))
    uid = stop["run_uid"]
    outcomes = one.outcomes()
    expected = {
        f"{uid}/primary/{c}/K/{n}" for c in ("transmission", "reference") for n in range(1, 5)
    }
    assert {f["id"] for f in outcomes} == expected
    assert len(outcomes) == 8
    assert (stop["results"], stop["rejected"], stop["exit_status"]) == (8, 0, "success")
    kinds = [m.header["kind"] for m in one.messages if m.header["kind"].startswith("run")]
    assert kinds == ["run.start", "run.stop"]
    first = outcomes[0]
    assert first["context"]["temperature"]["value"] == 300.0
    assert first["sample"] == {"name": "Cu foil"}
    assert first["settings_sha256"] == one.settings.analysis.sha256
    timing = first["timing_ms"]
    assert (
        0 <= timing["assembled"] <= timing["reduced"] <= timing["inferred"] <= timing["published"]
    )
    e0 = {f["e0"] for f in outcomes if f["channel"] == "transmission"}
    assert len(e0) == 1  # the policy run: one E0 for all of them


def test_arrays_are_those_of_the_header(daemon):
    one = daemon()
    one.measure(shapes.array_events(SWEEPS[:1], METADATA))
    message = next(m for m in one.messages if m.header["kind"] == "result")
    specs = {a["name"]: a for a in message.header["arrays"]}
    assert {"energy", "norm", "flat", "k", "chi_k2", "r", "chir_mag"} <= set(specs)
    for name, array in message.arrays.items():
        assert list(array.shape) == specs[name]["shape"]
        assert np.isfinite(array).all()
    assert message.arrays["k"].shape == (401,)
    np.testing.assert_allclose(message.arrays["energy"], np.sort(SWEEPS[0][0]))


def test_bad_sweeps_are_rejected_and_the_next_is_analysed(daemon):
    one = daemon(reduction={"channels": ["transmission"]})
    zero = {**SWEEPS[0][1], "I0": np.zeros(500)}
    nan = {**SWEEPS[0][1], "It": np.full(500, np.nan)}
    flat = {**SWEEPS[0][1], "It": SWEEPS[0][1]["I0"] * 0.5}
    bad = [(SWEEPS[0][0], columns, {"temperature": 1.0}) for columns in (zero, nan, flat)]
    stop = one.measure(shapes.array_events([*bad, SWEEPS[0]], METADATA))
    assert (stop["results"], stop["rejected"]) == (1, 3)
    outcomes = one.outcomes()
    assert [f["kind"] for f in outcomes] == ["rejected"] * 3 + ["result"]
    assert [f.get("reason") for f in outcomes[:3]] == ["i0_zero", "non_finite", "no_edge"]
    assert all(len(f["detail"]) > 20 for f in outcomes[:3])
    assert outcomes[0]["element"] == "Cu"


def test_trouble_is_told_in_the_status(daemon):
    one = daemon()
    one.inbox.put("event", {"descriptor": "nobody", "data": {}, "seq_num": 1})
    status = one.until(lambda m: m.header.get("problems")).header
    assert status["drops"] == {"unknown_descriptor": 1}
    assert "nobody" in status["problems"][0]
    assert status["state"] == "ready"
    assert {"exafsd", "numpy", "xraylarch"} <= set(status["versions"])


@pytest.mark.expects_error_log
def test_an_error_of_ours_is_told_and_the_next_sweep_is_analysed(daemon, monkeypatch):
    one = daemon(reduction={"channels": ["transmission"]})
    take, rows = one.service._session._router.feed, []

    def broken_once(name, document, received):
        if name == "event":
            rows.append(document)
            if len(rows) == 1:
                raise RuntimeError("a slip of ours")
        return take(name, document, received)

    monkeypatch.setattr(one.service._session._router, "feed", broken_once)
    stop = one.measure(shapes.array_events(SWEEPS[:2], METADATA))
    assert (stop["results"], stop["rejected"]) == (1, 0)
    status = one.until(lambda m: m.header.get("problems")).header
    assert "a slip of ours" in " ".join(status["problems"]) and status["drops"]["internal"] == 1


def deep(depth):
    return {"a": deep(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    "change",
    [
        {"sample": deep(400)},
        {"sample": "\ud800"},
        {"sample": {1: {2: object()}}},
        {"sample": "x" * 5_000_000},
        {"element": "Cu.K.x"},
        {"element": "E" * 100_000},
        {"scan_id": "seven"},
        {"edge": ["K", {}]},
        {"exafsd": 7},
        {"exafsd": {"xftf": {"rmax_out": 3e7}}},
    ],
    ids=lambda change: str(change)[:30],
)
def test_odd_metadata_never_stops_the_daemon(daemon, change):
    one = daemon(reduction={"channels": ["transmission"]})
    (_, start), *rest = shapes.array_events(SWEEPS[:2], METADATA)
    one.measure([("start", {**start, **change}), *rest])
    assert len(one.outcomes()) >= 2
    assert all(len(m.topic) < 40 and len(str(m.header)) < 60_000 for m in one.messages)
    one.messages.clear()
    assert one.measure(shapes.array_events(SWEEPS, METADATA))["results"] == 4


def test_odd_units_and_times_never_stop_the_daemon(daemon):
    one = daemon(reduction={"channels": ["transmission"]})
    documents = []
    for name, document in shapes.array_events(SWEEPS, METADATA):
        if name == "descriptor":
            keys = dict(document["data_keys"])
            keys["temperature"] = {**keys["temperature"], "units": {"not": "text"}}
            document = {**document, "data_keys": keys}
        if name == "event" and document["seq_num"] == 2:
            document = {**document, "time": float("nan"), "data": {**document["data"]}}
            document["data"]["temperature"] = b"\xff"
        documents.append((name, document))
    assert one.measure(documents)["results"] == 4


def test_overload_rejects_the_oldest_and_says_so(daemon):
    one = daemon(service={"max_lag": 1e-6})
    stop = one.measure(shapes.array_events(SWEEPS, METADATA))
    assert stop["rejected"] == 8
    assert {f["reason"] for f in one.outcomes()} == {"overload"}


def test_an_unknown_element_goes_to_its_own_topic(daemon):
    one = daemon()
    one.measure(shapes.array_events(SWEEPS[:1], {"element": "", "edge": "", "sample": "x"}))
    assert all(f["guessed"] == ["element", "edge"] for f in one.outcomes(("result",)))
    one.messages.clear()
    one.measure(shapes.array_events(SWEEPS[:1], {"element": "Zz", "edge": "K", "sample": "x"}))
    topics = {m.topic for m in one.messages if m.header["kind"] == "rejected"}
    assert topics == {"rejected.Zz.K."}


def test_stop_finishes_what_is_assembled(daemon):
    one = daemon()
    documents = list(shapes.array_events(SWEEPS, METADATA))[:-1]  # the stop never comes
    for name, document in documents:
        one.inbox.put(name, document)
    one.close()
    assert len(one.outcomes()) == 8
    (stop,) = [m.header for m in one.messages if m.header["kind"] == "run.stop"]
    assert stop["exit_status"] == "lost"
    states = [m.header["state"] for m in one.messages if m.header["kind"] == "status"]
    assert states[-2:] == ["stopping", "stopped"]


def test_a_run_may_choose_its_own_recipe(daemon):
    one = daemon(reduction={"channels": ["transmission"]})
    one.measure(shapes.array_events(SWEEPS[:1], METADATA))
    asked = {**METADATA, "exafsd": {"autobk": {"rbkg": 1.6}}}
    one.measure(shapes.array_events(SWEEPS[:1], asked))
    plain, changed = [m for m in one.messages if m.header["kind"] == "result"]
    assert plain.header["settings_sha256"] != changed.header["settings_sha256"]
    assert not np.allclose(plain.arrays["chi_k2"], changed.arrays["chi_k2"])


def test_no_model_still_publishes_the_spectrum(daemon):
    germanium = []
    for i in range(2):
        energy, mu = foil(500, e0=11103.0, low=10920.0, high=11970.0, noise=1e-4, seed=i)
        i0 = np.full(500, 1e6)
        germanium.append((energy, {"I0": i0, "It": i0 * np.exp(-mu)}, {"temperature": 300.0}))
    one = daemon()
    one.measure(shapes.array_events(germanium, {"element": "Ge", "edge": "K", "sample": "Ge"}))
    (first, _) = [m for m in one.messages if m.header["kind"] == "result"]
    assert first.header["shells"] is None
    assert first.header["phases"] is None
    assert first.header["model"] is None
    reason = first.header["trust"]["reason"]
    assert reason.startswith("no model for Ge K is loaded; exafsd-export quick --absorber Ge")
    assert "GeO2 (--amcsd 8431)" in reason
    assert np.abs(first.arrays["chi_k2"]).max() > 0


def test_live_in_a_run_engine_returns_at_once():
    """`RE.subscribe(Live(...))` with a real RunEngine: results come, the plan is not stalled."""
    import bluesky.plans as bp
    from bluesky import RunEngine

    from exafsd.testing.devices import SweepDetector

    live = Live(load(publish={"address": "tcp://127.0.0.1:*"}))
    subscriber = Subscriber(live._service._publisher.address, "")
    detector = SweepDetector(500)
    try:
        engine = RunEngine({}, context_managers=[])
        engine.subscribe(live)
        subscriber.receive(5)
        energy, columns, _ = SWEEPS[0]
        values = {"energy": energy, **columns, "temperature": 300.0}
        detector.read = lambda: {k: {"value": v, "timestamp": 0.0} for k, v in values.items()}
        keys = {
            k: {"source": "sim", "dtype": "array" if np.ndim(v) else "number", "shape": np.shape(v)}
            for k, v in values.items()
        }
        detector.describe = lambda: keys
        engine(bp.count([detector], num=3), **METADATA)
        got = []
        end = time.monotonic() + 20
        while len(got) < 6 and time.monotonic() < end:
            message = subscriber.receive(0.5)
            if message and message.header["kind"] == "result":
                got.append(message.header["id"])
        assert len(got) == 6
    finally:
        live.close()
        subscriber.close()

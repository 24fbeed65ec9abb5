"""RunEngine process, bluesky-0MQ-proxy, `exafsd run`, plain subscriber; then the same by replay."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import jsonschema
import numpy as np
import pytest
import zmq
from plain_subscriber import subscribe

from exafsd import codec
from exafsd.contract.schemas import schemas
from exafsd.testing.catalog_server import CatalogServer, write_profile
from exafsd.testing.parts import python_process
from exafsd.testing.processes import daemon, proxy

SHAPES = ("array", "event", "page", "monitor", "resource", "stream")
#: sweeps in the run of each shape
SWEEPS = 3
#: what may differ between live and replay
UNSTABLE = {"time", "publisher", "seq", "timing_ms", "acquired", "file", "delivery"}


class Listener:
    """Collects messages until something is seen."""

    def __init__(self, address):
        self._stream = subscribe(address)
        self.messages = []

    def until(self, condition, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            got = next(self._stream)
            if got is not None:
                self.messages.append(got)
                if condition(got[1]):
                    return got
        pytest.fail(f"nothing came; topics: {[m[0] for m in self.messages[-8:]]}")

    def close(self):
        self._stream.close()


class Site:
    """Everything of a beamline, on this machine."""

    def __init__(self, folder, listener, running, address, into, server, journal, assets):
        self.folder, self.listener, self.running = folder, listener, running
        self.address, self.into, self.server = address, into, server
        self.journal, self.assets = journal, assets
        self.profiles = folder / "profiles"

    def beamline(self, *arguments):
        """Run the simulated beamline to its end."""
        with python_process(
            "beamline", self.folder, "-m", "exafsd.testing.beamline", "--proxy", self.into,
            "--assets", str(self.assets), "--tiled", self.server.uri, *arguments,
            environment={"TILED_API_KEY": self.server.api_key},
        ) as one:  # fmt: skip
            assert one.process.wait(180) == 0, one.tail()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    journal, assets = folder / "journal", folder / "assets"
    assets.mkdir()
    with ExitStack() as stack:
        # live equals replay where nothing was shed, and this machine may be slow
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("EXAFSD_INFERENCE__POLISH", "always")
        environment.setenv("EXAFSD_CONVERGENCE__PARAMETER", "white_line")
        environment.setenv("EXAFSD_CONVERGENCE__TARGET", "0.001")
        into, out = stack.enter_context(proxy(folder))
        server = stack.enter_context(CatalogServer(folder / "catalog", [assets]))
        running, address = stack.enter_context(
            daemon(folder, out, "tcp://127.0.0.1:*", journal, assets)
        )
        listener = Listener(address)
        stack.callback(listener.close)
        listener.until(lambda h: h["kind"] == "status" and h["state"] == "ready")
        whole_site = Site(folder, listener, running, address, into, server, journal, assets)
        # monitors make 1,000 documents a sweep; PUB and proxy drop what a busy machine takes too
        # late (ZeroMQ's default of 1,000 messages a socket), and live would differ from the catalog
        whole_site.beamline("--shape", *SHAPES, "--sweeps", str(SWEEPS), "--rate", "1")
        ended = 0
        while ended < len(SHAPES):
            listener.until(lambda h: h["kind"] == "run.stop")
            ended = sum(m[1]["kind"] == "run.stop" for m in listener.messages)
        yield whole_site


def outcomes(site):
    """Header and arrays by id, of all runs."""
    by_id = {}
    for _, header, arrays in site.listener.messages:
        if header["kind"] in ("result", "rejected"):
            assert header["id"] not in by_id, "one outcome per sweep, channel and edge"
            by_id[header["id"]] = (header, arrays)
    return by_id


def by_run(site):
    """Outcomes of each shape, in the order the runs were made."""
    runs = {}
    for _, header, _ in site.listener.messages:
        if header["kind"] == "run.start":
            runs[header["run_uid"]] = []
    for header, arrays in outcomes(site).values():
        runs[header["run_uid"]].append((header, arrays))
    return dict(zip(SHAPES, runs.values(), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_yields_one_outcome_per_sweep_and_channel(site, shape):
    outcomes = by_run(site)[shape]
    expected = {(c, n) for c in ("transmission", "reference") for n in range(1, SWEEPS + 1)}
    assert {(h["channel"], h["sweep"]) for h, _ in outcomes} == expected
    assert [h["kind"] for h, _ in outcomes] == ["result"] * len(expected)
    for header, arrays in outcomes:
        assert header["element"] == "Cu"
        assert arrays["k"].shape == (401,)
        assert np.isfinite(arrays["chi_k2"]).all()


def test_messages_are_valid_and_numbered_without_a_gap(site):
    by_file, validators = schemas(), {}
    last = {}
    for topic, header, _ in site.listener.messages:
        kind = header["kind"]
        if kind not in validators:  # looking at the schema itself takes longest
            schema = by_file[f"message.{kind}.json"]
            validator = jsonschema.validators.validator_for(schema)
            validator.check_schema(schema)
            validators[kind] = validator(schema)
        validators[kind].validate(header)
        assert topic.endswith(".")
        if topic in last:
            assert header["seq"] == last[topic] + 1
        last[topic] = header["seq"]


def test_the_network_reads_the_simulated_foil(site):
    """Truth comes from Larch path sums, prediction from the network: they must meet."""
    errors = []
    for header, _ in by_run(site)["array"]:
        assert header["model"]["name"] == "cu-k-fcc"
        if header["channel"] == "transmission":
            assert header["trust"]["in_domain"], header["trust"]
            first = header["shells"][0]
            errors.append(
                (first["r"]["value"] - header["truth"]["r"],
                 first["sigma2"]["value"] - header["truth"]["sigma2"])
            )  # fmt: skip
        else:  # the foil behind the sample is not heated
            assert header["channel"] == "reference"
            assert header["truth"] is None
    errors = np.abs(errors)
    assert (errors[:, 0] < 0.02).all(), errors
    assert (errors[:, 1] < 0.002).all(), errors


def test_hostile_frames_do_not_stop_the_next_run(site):
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.connect(site.into)
    time.sleep(1.0)  # PUB drops what it sends before the proxy is there
    for frame in (
        b"garbage",
        b" start " + codec.dumps({"uid": "x"})[:-2],
        b" start " + pickle.dumps({"uid": "y"}),
        b" surprise " + codec.dumps({}),
        b" descriptor " + codec.dumps({"uid": "d", "run_start": "nobody", "data_keys": {}}),
        b" event " + codec.dumps({"descriptor": "nobody", "data": {}}),
        b" stop " + codec.dumps({"run_start": "nobody"}),
    ):
        socket.send(frame)
    status = site.listener.until(lambda h: h["kind"] == "status" and sum(h["drops"].values()) >= 7)[
        1
    ]
    socket.close(linger=0)
    context.term()
    reasons = {"bad_frame", "pickle", "unknown_name", "unknown_run", "unknown_descriptor"}
    assert reasons <= set(status["drops"])
    before = len(outcomes(site))
    site.beamline("--shape", "array", "--sweeps", "2", "--rate", "10")
    site.listener.until(lambda h: h["kind"] == "run.stop" and h["results"] == 4)
    assert len(outcomes(site)) == before + 4


def test_watch_shows_truth_beside_prediction_and_json_for_pipes(site):
    command = [sys.executable, "-m", "exafsd.cli", "watch", site.address]
    wide = {**os.environ, "COLUMNS": "140"}
    outputs = [site.folder / "watch.txt", site.folder / "watch.jsonl"]
    with ExitStack() as stack:
        both = [
            subprocess.Popen(c, stdout=stack.enter_context(out.open("w")), env=wide)
            for c, out in zip((command, [*command, "--json"]), outputs, strict=True)
        ]
        end = time.monotonic() + 60
        while not outputs[1].stat().st_size and time.monotonic() < end:
            time.sleep(0.1)  # a status will come: it is connected, and so is the other by then
        time.sleep(2)
        site.beamline("--shape", "array", "--sweeps", "2", "--rate", "10")
        site.listener.until(lambda h: h["kind"] == "run.stop")
        time.sleep(2)
        for process in both:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    shown, piped = (out.read_text() for out in outputs)
    assert "true R σ²" in shown
    assert "4 results, 0 rejected" in shown
    results = [h for h in map(json.loads, piped.splitlines()) if h["kind"] == "result"]
    assert len(results) == 4
    assert len(results[0]["arrays"]["chi_k2"]) == 401
    assert results[0]["truth"]["r"] == pytest.approx(2.56, abs=0.1)


def replayed(archive, site, **environment):
    """Outcomes of `exafsd replay ARCHIVE --json` by id."""
    config = site.folder / "exafsd.toml"
    done = subprocess.run(
        [sys.executable, "-m", "exafsd.cli", "replay", archive, "--json", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    headers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({h["id"] for h in headers}) == len(headers)
    return {h["id"]: h for h in headers}


def assert_same(live, again):
    """Same ids; parameters and arrays to float32 rounding."""
    assert set(again) == set(live)
    for name, (header, arrays) in live.items():
        other = again[name]
        assert header.get("quality") == other.get("quality"), name  # "gap": documents were lost
        assert set(other["arrays"] if other["kind"] == "result" else []) == set(arrays)
        for key, array in arrays.items():
            scale = np.abs(array).max()
            np.testing.assert_allclose(
                np.array(other["arrays"][key], float),
                array,
                rtol=1e-5,
                atol=1e-5 * scale,
                err_msg=f"{name}: {key}",
            )
        for key in set(header) - UNSTABLE - {"arrays"}:
            assert_close(header[key], other[key], f"{name}: {key}")


def assert_close(a, b, where):
    if isinstance(a, dict):
        assert set(a) == set(b), where
        for key in a:
            if key not in ("time",):
                assert_close(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, f"{where}[{i}]")
    elif isinstance(a, float) and isinstance(b, (int, float)):
        assert b == pytest.approx(a, rel=1e-5, abs=1e-7), where
    else:
        assert a == b, where


def test_live_journal_and_catalog_agree(site):
    """Runs last: it ends the server, so that the embedded profile may open its storage."""
    live = outcomes(site)
    assert len(live) >= 2 * SWEEPS * len(SHAPES)
    assert_same(live, replayed(str(site.journal), site))
    server = site.server
    assert_same(live, replayed(server.uri, site, TILED_API_KEY=server.api_key))
    server.stop()
    write_profile(site.folder / "catalog", "embedded", site.profiles, [site.assets])
    assert_same(live, replayed("embedded", site, TILED_PROFILES=str(site.profiles)))


def test_replay_publishes_over_zeromq(site):
    address_file = site.folder / "replay-address"
    environment = {
        **os.environ,
        "EXAFSD_PUBLISH__ADDRESS_FILE": str(address_file),
        "EXAFSD_PUBLISH__ADDRESS": "tcp://127.0.0.1:*",
    }
    command = [sys.executable, "-m", "exafsd.cli", "replay", str(site.journal), "--last", "1"]
    process = subprocess.Popen([*command, "--publish"], env=environment)
    end = time.monotonic() + 60
    while not address_file.exists() and time.monotonic() < end:
        time.sleep(0.02)
    listener = Listener(address_file.read_text().strip())
    try:
        listener.until(lambda h: h.get("sweep") == 2 and h["channel"] == "reference")
    finally:
        listener.close()
        assert process.wait(60) == 0


def test_sigterm_ends_the_daemon_with_stopped_and_exit_0(site):
    began = time.monotonic()
    site.running.process.send_signal(signal.SIGTERM)
    site.listener.until(lambda h: h.get("state") == "stopped")
    assert site.running.process.wait(10) == 0
    assert time.monotonic() - began < 8
    log = site.running.log.read_text()
    assert "Traceback" not in log
    assert " level=error " not in log


def test_exafsd_run_never_imports_tensorflow_nor_waits_for_larch(tmp_path):
    """Start the real command far enough to have loaded its models, then look.

    Larch takes two seconds to import: those who judge by it have processes of their own.
    """
    address = tmp_path / "address"
    code = (
        "import sys, threading, time, os, signal, pathlib\n"
        "from exafsd.commands.cli import app\n"
        f"bound = pathlib.Path({str(address)!r})\n"
        "def end():\n"
        "    while not bound.exists():\n        time.sleep(0.1)\n"
        "    time.sleep(1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=end, daemon=True).start()\n"
        "try:\n    app(['run'], standalone_mode=False)\n"
        "except SystemExit:\n    pass\n"
        "bad = {'tensorflow', 'keras', 'tf2onnx', 'larch'} & set(sys.modules)\n"
        "loaded = {'onnxruntime', 'exafsd.reduction.plan'} <= set(sys.modules)\n"
        "sys.exit('imported ' + str(bad) if bad else 0 if loaded else 'not started')\n"
    )
    environment = {
        **os.environ,
        "EXAFSD_PUBLISH__ADDRESS": "tcp://127.0.0.1:*",
        "EXAFSD_PUBLISH__ADDRESS_FILE": str(address),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stderr

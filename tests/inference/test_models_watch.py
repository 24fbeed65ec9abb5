"""Bundles that appear, change or leave while a daemon runs."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import bundles
from exafsd.client import Subscriber
from exafsd.inference.registry import Registry
from exafsd.inference.watch import ModelWatch
from exafsd.service import wiring
from exafsd.settings.settings import load
from simulated import shapes
from synthetic import METADATA, sweep_columns


def write(folder: Path, name: str, ood: float = 0.0) -> Path:
    """A bundle of copper in a folder, in place of one of that name."""
    shutil.rmtree(folder / name, ignore_errors=True)
    return bundles.write(folder, bundles.copper(name=name), ood=ood)


def looked(watch: ModelWatch) -> Registry | None:
    """What a watch has loaded after two looks, which must find the same."""
    watch.look()
    watch.look()
    return watch.take()


def test_bundles_appear_change_and_leave(tmp_path):
    write(tmp_path, "first")
    registry = Registry.load([tmp_path])
    watch = ModelWatch([tmp_path], registry, 1.0)
    assert looked(watch) is None  # nothing has changed
    write(tmp_path, "second")
    fresh = looked(watch)
    assert fresh is not None
    assert {"first", "second"} <= fresh.bundles.keys()
    assert fresh.bundles["first"] is registry.bundles["first"]  # not loaded again
    assert fresh.sha256 != registry.sha256
    write(tmp_path, "first", ood=0.5)
    changed = looked(watch)
    assert changed is not None
    assert changed.bundles["first"] is not registry.bundles["first"]
    assert changed.bundles["second"] is fresh.bundles["second"]
    shutil.rmtree(tmp_path / "first")
    left = looked(watch)
    assert left is not None
    assert "first" not in left.bundles
    assert left.bundles["cu-k-fcc"] is registry.bundles["cu-k-fcc"]  # it ships


def test_a_bundle_that_is_being_written_is_left_alone(tmp_path):
    watch = ModelWatch([tmp_path], Registry.load([tmp_path]), 1.0)
    home = write(tmp_path, "slow")
    card = (home / "card.json").read_bytes()
    (home / "card.json").write_bytes(card[:100])
    watch.look()
    assert watch.take() is None  # seen once
    (home / "card.json").write_bytes(card)
    watch.look()
    assert watch.take() is None  # it has changed since
    watch.look()
    fresh = watch.take()
    assert fresh is not None
    assert "slow" in fresh.bundles


@pytest.mark.expects_error_log
def test_a_damaged_bundle_is_refused_and_the_others_stay(tmp_path):
    write(tmp_path, "good")
    watch = ModelWatch([tmp_path], Registry.load([tmp_path]), 1.0)
    home = write(tmp_path, "bad")
    (home / "pinn.onnx").write_bytes(b"no graph")
    fresh = looked(watch)
    assert fresh is not None
    assert "good" in fresh.bundles
    assert "SHA-256" in fresh.refused["bad"]


def test_a_daemon_takes_up_models_without_losing_a_sweep(tmp_path):
    """Sweeps at 20/s while a bundle appears, is replaced, and leaves: each has one outcome."""
    models = tmp_path / "models"
    models.mkdir()
    settings = load(
        publish={"address": "tcp://127.0.0.1:*", "heartbeat": 0.1},
        models=[str(models)],
        service={"models_every": 0.1},
        reduction={"channels": ["transmission"]},
        inference={"polish": "off"},
        composition={"enabled": "off"},
    )
    service, inbox = wiring.make_service(settings, proxy=False)
    headers = []
    sweeps = [sweep_columns(i, points=400) for i in range(60)]
    documents = list(shapes.array_events(sweeps, METADATA))
    events = [i for i, (name, _) in enumerate(documents) if name == "event"]
    acts = {
        events[10]: lambda: write(models, "cu-new"),
        events[25]: lambda: write(models, "cu-new", ood=0.3),
        events[40]: lambda: shutil.rmtree(models / "cu-new"),
    }
    thread = threading.Thread(target=service.run)
    with Subscriber(service._publisher.address) as subscriber:

        def collect(seconds: float, until: str = "") -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                message = subscriber.receive(0.02)
                if message is not None:
                    headers.append(message.header)
                    if message.header["kind"] == until:
                        return

        thread.start()
        collect(10, "status")
        for i, (name, document) in enumerate(documents):
            if i in acts:
                acts[i]()
            inbox.put(name, document)
            if name == "event":
                collect(0.05)
        collect(30, "run.stop")
        service.stop()
        thread.join(20)
    results = [h for h in headers if h["kind"] in ("result", "rejected")]
    numbers = [h["sweep"] for h in results]
    assert sorted(numbers) == list(range(1, len(sweeps) + 1))  # each once, none lost
    offered = ["cu-new" in {c["model"] for c in h["candidates"]} for h in results]
    assert not offered[0]
    assert any(offered)
    assert not offered[-1]
    sets = list(dict.fromkeys(h["models_sha256"] for h in results))
    assert len(sets) == 3  # without, with it, with the other one; without again is as before
    loaded = [tuple(h["models"]) for h in headers if h["kind"] == "status"]
    assert any("cu-new" in names for names in loaded)
    assert np.array_equal(numbers, sorted(numbers))

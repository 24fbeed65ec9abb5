"""Messages as the daemon sends them, without a daemon, and a publisher to send them."""

import socket
import time

import numpy as np
import pytest

from exafsd.contract.messages import Rejected, Result, RunStart, RunStop, Status
from exafsd.testing.parts import free_ports

#: arrays of a result from a scan of 500 points
ARRAYS = {
    **{name: np.linspace(0, 1, 500) for name in ("energy", "norm", "flat")},
    **{name: np.linspace(0, 20, 401) for name in ("k", "chi_k2", "chi_k2_pred")},
    **{name: np.linspace(0, 10, 326) for name in ("r", "chir_mag", "chir_mag_pred")},
}


def value(number, std=0.01):
    return {"value": number, "std": std}


SHELL = {
    "id": "Cu/1", "phase": "Cu", "shell": 1, "site": 1, "scatterer": "Cu", "degeneracy": 12,
    "r_eff": 2.556, "n_s02": value(10.8), "n": None, "r": value(2.54), "sigma2": value(0.009),
    "c3": None,
}  # fmt: skip


def identity(sweep, run, channel, element):
    return {
        "id": f"{run}/primary/{channel}/K/{sweep}", "run_uid": run, "scan_id": 1,
        "acquired": {"start": None, "mid": None, "end": 1.7e9 + sweep}, "stream": "primary",
        "channel": channel, "sweep": sweep, "direction": "up",
        "averaged": {"n": 1, "first": sweep, "last": sweep}, "sample": {"name": "foil"},
        "context": {"temperature": {"value": 300.0 + sweep, "unit": "K"}},
        "truth": {"r": 2.55}, "element": element, "edge": "K", "guessed": [], "quality": ["noisy"],
        "settings_sha256": "0" * 64, "timing_ms": {},
    }  # fmt: skip


def result(sweep=1, run="run", channel="transmission", element="Cu", **changes):
    fields = {
        "e0": 8979.0, "e0_policy": "run", "edge_step": value(1.0), "epsilon_k": 1e-4,
        "k_data": (0.0, 14.0), "fit": None, "model": {"name": "cu", "sha256": "f" * 64},
        "phases": [{"phase": "Cu", "fraction": None, "e0_shift": value(5.0)}],
        "shells": [SHELL], "best": "network",
        "trust": {"score": 0.9, "in_domain": True, "reason": None},
        "xanes": {
            "edge_energy": value(8985.8), "white_line": value(1.05), "white_line_area": value(0.3),
            "distance_first": 1.1, "distance_previous": 0.9, "state": "steady",
            "change_point": None,
        },
    }  # fmt: skip
    return Result(**{**identity(sweep, run, channel, element), **fields, **changes})


def rejected(sweep=1, run="run", channel="transmission", element="Cu"):
    fields = identity(sweep, run, channel, element)
    return Rejected(**fields, reason="no_edge", detail="no edge was found")


def run_start(run="run"):
    return RunStart(run_uid=run, scan_id=1, element="Cu", edge="K", sample=None)


def run_stop(run="run"):
    return RunStop(run_uid=run, scan_id=1, exit_status="success", results=1, rejected=0)


def status(state="ready", **changes):
    fields = {
        "uptime": 1.0, "results": 0, "rejected": 0, "rate": 0.0, "rejections": {}, "drops": {},
        "queues": {"inbox": 0}, "lag": None, "models": ["cu"], "refused_models": {},
        "versions": {"exafsd": "0"}, "problems": [],
    }  # fmt: skip
    return Status(state=state, **{**fields, **changes})


def until(condition, seconds=20.0, step=0.01):
    """Wait for something to become true, and give it back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(step)
    raise AssertionError(f"{condition} did not come true in {seconds} s")


def collect(subscriber, enough, seconds=20.0):
    """Messages of a subscriber up to the first for which `enough` is true."""
    messages = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = subscriber.receive(0.1)
        if message is not None:
            messages.append(message)
            if enough(message):
                return messages
    raise AssertionError(f"nothing came; so far {[m.topic for m in messages[-5:]]}")


def joined(publisher, subscriber):
    """Send statuses until one arrives: PUB drops what it sends before a subscriber is known."""

    def arrived():
        publisher.send(status())
        return subscriber.receive(0.05)

    until(arrived)
    while subscriber.receive(0.1):
        pass


def collect_headers(follower, condition, timeout=30):
    """Headers of messages up to the first that fits."""
    headers = []
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        message = follower.receive(0.1)
        if message is not None:
            headers.append(message.header)
            if condition(message.header):
                return headers
    pytest.fail(f"nothing came; last: {headers[-2:]}")


def adjacent_ports():
    """Two ports in a row that nobody uses: results, and requests behind it."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port + 1)):
                return port

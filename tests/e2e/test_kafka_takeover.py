"""Three daemons share the runs of a topic, one is killed in mid-run: every sweep comes once."""

import json
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from exafsd.client import Follower
from exafsd.testing.parts import free_ports, python_process, wait_for
from kafka_cluster import PROMPT, Cluster
from simulated import shapes
from synthetic import METADATA, sweep_columns

#: settings of the example that users begin with
EXAMPLE = Path(__file__).parents[2] / "deploy" / "kafka" / "exafsd.toml"
TOPIC, RESULTS = "beamline.bluesky.runengine.documents", "beamline.exafsd.results"
RUNS, SWEEPS = 9, 12
#: s between two sweeps of a run, and after which the kill comes
EVERY, KILL = 0.8, 3.0


def measure(cluster, uid):
    """A run in real time."""
    sweeps = [sweep_columns(n, points=250) for n in range(SWEEPS)]
    for name, document in shapes.array_events(sweeps, {**METADATA, "uid": uid}):
        cluster.send(TOPIC, [(name, document)], uid)
        if name == "event":
            time.sleep(EVERY)


def test_a_daemon_is_killed_and_every_sweep_comes_once(tmp_path):
    cluster = Cluster()
    cluster.make(TOPIC)
    environment = {
        "EXAFSD_SOURCE__KAFKA__SERVERS": json.dumps(cluster.servers),
        "EXAFSD_SOURCE__KAFKA__OPTIONS": json.dumps(PROMPT),
        "EXAFSD_SOURCE__KAFKA__BEGIN": "earliest",
        "EXAFSD_PUBLISH__KAFKA__SERVERS": json.dumps(cluster.servers),
        "EXAFSD_SERVICE__AUDIT_EVERY": "0",
        "EXAFSD_INFERENCE__POLISH": "off",
        "EXAFSD_COMPOSITION__ENABLED": "off",
    }
    received, last = Counter(), {}
    with ExitStack() as stack:
        addresses, parts = [], {}
        for port in free_ports(3):
            addresses.append(f"tcp://127.0.0.1:{port}")
            answers = f"tcp://127.0.0.1:{free_ports(1)[0]}"
            own = {"EXAFSD_PUBLISH__ADDRESS": addresses[-1], "EXAFSD_PUBLISH__ANSWERS": answers}
            command = ("-m", "exafsd.cli", "run", "--config", str(EXAMPLE))
            parts[addresses[-1]] = stack.enter_context(
                python_process(f"daemon-{port}", tmp_path, *command, environment=environment | own)
            )
        for one in parts.values():
            wait_for(lambda one=one: "partition assigned" in one.log.read_text(), one, "share")
        follower = stack.enter_context(Follower(addresses, start="ring"))
        runs = [threading.Thread(target=measure, args=(cluster, f"run-{n}")) for n in range(RUNS)]
        for thread in runs:
            thread.start()
        began, killed, by_whom, resumed = time.monotonic(), None, {}, set()
        ended = set()
        while len(ended) < RUNS and time.monotonic() < began + 90:
            if killed is None and time.monotonic() > began + KILL:
                killed = next(a for a in addresses if by_whom.get("run-0") == a)
                parts[killed].process.send_signal(signal.SIGKILL)
            message = follower.receive(0.1)
            if message is None:
                continue
            header = message.header
            if header["kind"] == "run.stop":
                ended.add(header["run_uid"])
                last[header["run_uid"]] = header
            elif "id" in header:
                received[header["id"]] += 1
                by_whom[header["run_uid"]] = follower.address_of(message)
                if header["delivery"] == "resumed":
                    resumed.add(header["run_uid"])
        while (message := follower.receive(2.0)) is not None and message.topic != "status.":
            received[message.header.get("id")] += 1
        for thread in runs:
            thread.join()
        own = Counter(by_whom.values())
    expected = {
        f"run-{n}/primary/{channel}/K/{sweep}"
        for n in range(RUNS)
        for channel in ("transmission", "reference")
        for sweep in range(1, SWEEPS + 1)
    }
    assert set(received) == expected
    assert set(received.values()) == {1}
    assert "run-0" in resumed and by_whom["run-0"] != killed
    assert {one["exit_status"] for one in last.values()} == {"success"}
    assert {one["results"] + one["rejected"] for one in last.values()} == {2 * SWEEPS}
    assert len(own) == 2  # the two that are left
    counts = cluster.ends(TOPIC)
    assert sum(counts) == RUNS * (SWEEPS + 3)
    # in Kafka results are at least once, under the key of their run
    sent = cluster.messages(RESULTS, len(expected) + 2 * RUNS)
    ids = {json.loads(message.value()).get("id") for message in sent}
    assert len(ids & expected) > 0 and {m.key().decode() for m in sent} <= set(last)

"""The daemon on Kafka: a mock cluster of librdkafka, documents as bluesky-kafka sends them."""

import json
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from exafsd.cli import app
from exafsd.client import Follower
from exafsd.contract.frames import decode
from exafsd.service import wiring
from exafsd.settings.settings import load
from kafka_cluster import PROMPT, Cluster
from messages import collect_headers
from simulated import shapes
from synthetic import METADATA, sweep_columns

TOPIC = "beamline.bluesky.runengine.documents"
SWEEPS = [sweep_columns(n, points=300) for n in range(6)]


def run(uid):
    return list(shapes.array_events(SWEEPS, {**METADATA, "uid": uid}))


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


class Daemon:
    """A service in a thread of this process, in a group of its own name."""

    def __init__(self, cluster, topic, group, publish=None, **kafka):
        source = {"servers": cluster.servers, "topics": [topic], "group": group, **kafka}
        self.settings = load(
            source={"kafka": {"options": PROMPT, **source}},
            publish={"address": "tcp://127.0.0.1:*", "heartbeat": 0.1, **(publish or {})},
            reduction={"channels": ["transmission"]},
            inference={"polish": "off"},
            composition={"enabled": "off"},
            service={"audit_every": 0, "models_every": 0},
        )
        self.service, _ = wiring.make_service(self.settings)
        self.address = self.service._publisher.address
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()

    def __enter__(self):
        self.follower = Follower(self.address, start="ring")
        return self

    def collect(self, condition, timeout=30):
        return collect_headers(self.follower, condition, timeout)

    def joined(self):
        return self.collect(lambda h: h["kind"] == "status" and h["source"]["connected"])

    def stop(self):
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def __exit__(self, *_):
        self.follower.close()
        self.stop()


def ended(uid):
    return lambda h: h["kind"] == "run.stop" and h["run_uid"] == uid


def ids(headers):
    return [h["id"] for h in headers if "id" in h]


def outcomes_of(uid):
    return [f"{uid}/primary/transmission/K/{n}" for n in range(1, len(SWEEPS) + 1)]


def test_a_run_comes_through_kafka_and_its_results_go_there(cluster):
    results = {"servers": cluster.servers, "topic": "results"}
    with Daemon(cluster, TOPIC, "one", {"kafka": results}, begin="earliest") as daemon:
        cluster.send(TOPIC, run("first"))
        headers = daemon.collect(ended("first"))
        (status,) = daemon.collect(lambda h: h["kind"] == "status")[-1:]
        assert status["queues"]["kafka"] == 0 and not status["degraded"]
        assert status["source"]["address"].endswith(TOPIC)
    assert ids(headers) == outcomes_of("first")
    sent = cluster.messages("results", len(SWEEPS) + 2)
    assert {message.key() for message in sent} == {b"first"}
    assert [json.loads(m.value())["kind"] for m in sent] == [
        "run.start", *["result"] * len(SWEEPS), "run.stop"
    ]  # fmt: skip
    by_name = dict(sent[1].headers())
    topic = by_name.pop("exafsd.topic")
    message = decode([topic, sent[1].value(), *by_name.values()])
    assert list(by_name) == [f"exafsd.array.{name}" for name in message.arrays]
    assert np.isfinite(message.arrays["chi_k2"]).all()
    assert ids([message.header]) == ids(headers)[:1] and message.header["publisher"]


def test_a_run_that_was_open_is_rebuilt_and_one_that_had_ended_is_not(cluster):
    """Two runs in one partition, the first of which ends after the second has begun."""
    topic, key = "overlapping", "same"
    ending, going_on = run("ending"), run("going-on")
    with Daemon(cluster, topic, "two", begin="earliest") as first:
        first.joined()
        cluster.send(topic, ending[:4], key)
        cluster.send(topic, going_on[:3], key)
        cluster.send(topic, ending[4:], key)
        headers = first.collect(ended("ending"))
        headers += first.collect(lambda h: h["kind"] == "status")
        began = headers[-1]["uptime"]  # a mark is committed a second after it was right
        headers += first.collect(lambda h: h["kind"] == "status" and h["uptime"] > began + 4)
    (offset,) = [o for o, words in cluster.committed(topic, "two").values() if words != "0"]
    assert offset == 4  # the start document of the run that is open
    assert any("kafka_one_key" in text for h in headers for text in h.get("problems", ()))
    assert not any(h["kind"] == "run.stop" and h["run_uid"] == "going-on" for h in headers)
    with Daemon(cluster, topic, "two") as second:
        cluster.send(topic, going_on[3:], key)
        headers = second.collect(ended("going-on"))
        cluster.send(topic, run("later"), key)
        headers += second.collect(ended("later"))
        (status,) = second.collect(lambda h: h["kind"] == "status")[-1:]
    assert ids(headers) == outcomes_of("going-on") + outcomes_of("later")
    delivered = {h["run_uid"]: h["delivery"] for h in headers if "id" in h}
    assert delivered == {"going-on": "resumed", "later": "live"}
    assert not status["drops"], status["problems"]  # the end of the run that had ended is no loss


def test_what_begins_before_a_group_does_is_not_read_and_told(cluster):
    topic = "earlier"
    documents = run("one")
    cluster.send(topic, documents[:4])
    with Daemon(cluster, topic, "three") as daemon:
        daemon.joined()
        time.sleep(4)  # until the group has its partitions
        cluster.send(topic, documents[4:], "one")
        status = daemon.collect(lambda h: h["kind"] == "status" and h["drops"])[-1]
        assert "unknown_descriptor" in status["drops"]


def test_documents_without_a_key_and_payloads_that_are_none_are_refused_in_words(cluster):
    topic = "keyless"
    with Daemon(cluster, topic, "four", begin="earliest") as daemon:
        cluster.send_bytes(topic, b"\x92\xa5start\x80", key=None)
        cluster.send_bytes(topic, b"not msgpack", key="x")
        cluster.send(topic, run("good"))
        headers = daemon.collect(ended("good"))
        headers += daemon.collect(lambda h: h["kind"] == "status" and len(h["drops"]) == 2)
    assert ids(headers) == outcomes_of("good")
    assert headers[-1]["drops"] == {"kafka_key": 1, "bad_frame": 1}
    assert any("key" in text for text in headers[-1]["degraded"])
    assert any("use the uid of its run" in text for text in headers[-1]["problems"])


def test_a_second_daemon_takes_its_share_in_order(cluster):
    """What is given away goes on at the other daemon; together they have every outcome once."""
    topic = "shared"
    runs = {f"run-{n}": run(f"run-{n}") for n in range(8)}
    with Daemon(cluster, topic, "five", begin="earliest") as first:
        for documents in runs.values():
            cluster.send(topic, documents[:5])
        begun = set()
        headers = first.collect(
            lambda h: "id" in h and (begun.add(h["id"]) or len(begun) == 3 * len(runs))
        )
        with Daemon(cluster, topic, "five", begin="earliest") as second:
            others = second.collect(lambda h: h.get("delivery") == "resumed")
            for uid, documents in runs.items():
                cluster.send(topic, documents[5:], uid)
            ends = set()
            end = time.monotonic() + 40
            while len(ends) < len(runs) and time.monotonic() < end:
                for daemon, heard in ((first, headers), (second, others)):
                    message = daemon.follower.receive(0.05)
                    if message is not None:
                        heard.append(message.header)
                        if message.header["kind"] == "run.stop":
                            ends.add(message.header["run_uid"])
    assert ends == set(runs)
    assert set(ids(headers)) | set(ids(others)) == {i for uid in runs for i in outcomes_of(uid)}
    twice = set(ids(headers)) & set(ids(others))
    assert twice and all(h["delivery"] == "resumed" for h in others if h.get("id") in twice)
    ends = [h for h in headers + others if h["kind"] == "run.stop"]
    assert {(h["exit_status"], h["results"]) for h in ends} == {("success", len(SWEEPS))}


def test_no_broker_is_told(cluster):
    class Nowhere:
        servers = ("127.0.0.1:9",)

    with Daemon(Nowhere, "any", "six") as daemon:
        status = daemon.collect(lambda h: h["kind"] == "status" and h["degraded"])[-1]
        assert "no broker answers at source.kafka.servers 127.0.0.1:9" in status["degraded"]


def test_settings_that_cannot_be(cluster, tmp_path, monkeypatch):
    kafka = {"servers": cluster.servers, "topics": ["t"]}
    with pytest.raises(ValueError, match=r"journal.folder is set beside source.kafka"):
        load(source={"kafka": kafka}, journal={"folder": tmp_path})
    with pytest.raises(ValueError, match=r"exafsd sets group.id itself"):
        load(source={"kafka": {**kafka, "options": {"group.id": "mine"}}})
    secret = {**kafka, "options": {"sasl.password": "rosebud"}}
    assert "rosebud" not in load(source={"kafka": secret}).model_dump_json()
    config = tmp_path / "exafsd.toml"
    config.write_text(
        f"[source]\nkafka = {{ servers = {cluster.servers}, topics = ['t'],"
        " options = { 'no.such' = '1' } }\n"
    )
    answer = CliRunner().invoke(app, ["run", "--config", str(config)])
    assert answer.exit_code == 1 and "no.such" in answer.output
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)  # as if it were not installed
    config.write_text(f"[source]\nkafka = {{ servers = {cluster.servers}, topics = ['t'] }}\n")
    for command in ("run", "check"):
        answer = CliRunner().invoke(app, [command, "--config", str(config)])
        assert answer.exit_code == 1 and "pip install 'exafsd[kafka]'" in answer.output

"""How many daemons, partitions and cores a facility needs, from what a spectrum costs here.

First a daemon on a mock cluster of Kafka is given spectra, paced and all at once: its processor
time for each. Then a working day is simulated, second by second: runs of beamlines fall on
partitions by their key, partitions on daemons, and a daemon that gets more than it can do falls
behind. Prints JSON.

    python tests/bench/facility.py [--hours 8] [--fast 20] [--slow 10]
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from exafsd.client import Follower  # noqa: E402
from exafsd.testing.parts import free_ports, python_process, wait_for  # noqa: E402
from kafka_cluster import PROMPT, Cluster  # noqa: E402
from simulated import shapes  # noqa: E402
from synthetic import METADATA, sweep_columns  # noqa: E402

TOPIC, POINTS, CHUNK = "bench", 400, 150
#: spectra/s of beamlines that measure fast, and of the others
FAST, SLOW = 100.0, 1.0
#: s that a run takes and that lie between two runs, on the average
RUN, PAUSE = 60.0, 15.0
#: s by which no spectrum may be late
LATE = 2.0
#: share of a core that a daemon may use in the long run
FULL = 0.8


def measure() -> dict[str, float]:
    """Processor ms of a daemon on Kafka for a spectrum, at 100/s and as fast as it can."""
    cluster = Cluster()
    cluster.make(TOPIC)
    columns = [sweep_columns(number, POINTS) for number in range(8)]
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "exafsd.toml"
        options = "{ " + ", ".join(f"'{k}' = '{v}'" for k, v in PROMPT.items()) + " }"
        config.write_text(
            f"[source.kafka]\nservers = {json.dumps(cluster.servers)}\ntopics = ['{TOPIC}']\n"
            f"begin = 'earliest'\noptions = {options}\n"
            f"[publish]\naddress = '{address}'\n[inference]\nmodel = 'cu-k-fcc'\n"
            "[reduction]\nchannels = ['transmission']\n"
        )
        command = ("-m", "exafsd.cli", "run", "--config", str(config))
        with (
            python_process("daemon", folder, *command) as daemon,
            Follower(address, start="ring") as heard,
        ):
            wait_for(lambda: "partition assigned" in daemon.log.read_text(), daemon, "share")
            process = psutil.Process(daemon.process.pid)
            _run(cluster, heard, process, columns, "warm", 100.0)
            paced = [_run(cluster, heard, process, columns, f"paced-{n}", 100.0) for n in range(3)]
            fast = [_run(cluster, heard, process, columns, f"fast-{n}", None) for n in range(3)]
        cluster.ends(TOPIC)
    return {
        "processor_ms_at_100_per_s": round(1e3 * min(cpu for cpu, _ in paced), 2),
        "processor_ms_at_once": round(1e3 * min(cpu for cpu, _ in fast), 2),
        "spectra_per_s_at_once": round(max(rate for _, rate in fast), 0),
    }


def _run(cluster, heard, process, columns, uid, rate) -> tuple[float, float]:
    """A run; processor s for each spectrum, and spectra/s as outcomes came."""
    sweeps = [columns[number % len(columns)] for number in range(CHUNK)]
    documents = list(shapes.array_events(sweeps, {**METADATA, "uid": uid}))

    def send():
        for name, document in documents:
            cluster.send(TOPIC, [(name, document)], uid)
            if rate is not None:
                time.sleep(1 / rate)

    before = sum(process.cpu_times()[:2])
    began = time.perf_counter()
    if rate is None:
        cluster.send(TOPIC, documents, uid)
    else:
        threading.Thread(target=send).start()
    first, outcomes = None, 0
    while True:
        message = heard.receive(30)
        if message is None:
            sys.exit(f"{uid}: no outcome within 30 s")
        if message.header.get("run_uid") != uid:
            continue
        if "id" in message.header:
            first = first or time.perf_counter()
            outcomes += 1
        elif message.header["kind"] == "run.stop":
            break
    took = time.perf_counter() - (first or began)
    return (sum(process.cpu_times()[:2]) - before) / outcomes, outcomes / took


def day(rng, hours: float, fast: int, slow: int, partitions: int) -> np.ndarray:
    """Spectra of each second and partition, (seconds, partitions)."""
    seconds = int(3600 * hours)
    change = np.zeros((seconds + 1, partitions))
    for rate in [FAST] * fast + [SLOW] * slow:
        now = rng.uniform(0, RUN)
        while now < seconds:
            end = now + rng.exponential(RUN)
            partition = rng.integers(partitions)  # as the hash of a run's uid falls
            change[int(now), partition] += rate
            change[min(int(end), seconds), partition] -= rate
            now = end + rng.exponential(PAUSE)
    return np.cumsum(change, axis=0)[:-1]


def worst_wait(arriving: np.ndarray, daemons: int, cost: float) -> tuple[float, float]:
    """Latest that any spectrum is, and 99 in 100 seconds, s; `cost`: s of a core a spectrum."""
    owner = np.arange(arriving.shape[1]) % daemons
    work = np.stack([arriving[:, owner == n].sum(axis=1) for n in range(daemons)], axis=1) * cost
    waiting, waits = np.zeros(daemons), np.zeros(len(work))
    for second, more in enumerate(work):
        waiting = np.maximum(waiting + more - 1.0, 0.0)
        waits[second] = waiting.max()
    return float(waits.max()), float(np.percentile(waits, 99))


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--fast", type=int, default=20)
    parser.add_argument("--slow", type=int, default=10)
    parser.add_argument("--cost", type=float, help="ms of a core a spectrum; else measured")
    asked = parser.parse_args()
    measured = {} if asked.cost else measure()
    costs = {"given": asked.cost} if asked.cost else {
        "paced": measured["processor_ms_at_100_per_s"],
        "at once": measured["processor_ms_at_once"],
    }  # fmt: skip
    answers = []
    for name, cost in costs.items():
        for partitions in (12, 24, 48, 96, 192):
            arriving = day(
                np.random.default_rng(1), asked.hours, asked.fast, asked.slow, partitions
            )
            load = arriving.sum(axis=1).mean() * cost / 1e3
            for daemons in range(max(1, int(np.ceil(load / FULL))), partitions + 1):
                worst, usual = worst_wait(arriving, daemons, cost / 1e3)
                if worst <= LATE:
                    break
            else:
                daemons = None
            answers.append(
                {
                    "cost": name, "ms": cost, "partitions": partitions, "daemons": daemons,
                    "cores_busy": round(load, 2), "worst_wait_s": round(worst, 2),
                    "wait_s_99": round(usual, 2),
                }
            )  # fmt: skip
    sys.stdout.write(json.dumps({"measured": measured, "facility": answers}, indent=1) + "\n")


if __name__ == "__main__":
    main()

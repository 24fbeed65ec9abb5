"""From document to result through tiled beside ZeroMQ, the same documents in one run. Prints JSON.

One daemon is behind `bluesky-0MQ-proxy`, one follows a tiled server with a streaming cache in
memory. Each document is published, and then written by `TiledWriter`, in the same process. Latency
is from then to the result at a subscriber. `as fast as it is written`: the next document comes when
the writer has returned, so that is how fast it writes; ZeroMQ gets them at the same rate.

    python tests/bench/followed.py [--seconds 20] [--rates 1 5 10] [--points 500] [--batches 1 10]
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bluesky.callbacks.zmq import Publisher
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from exafsd.client import Follower  # noqa: E402
from exafsd.codec import dumps  # noqa: E402
from exafsd.testing.catalog_server import CatalogServer  # noqa: E402
from exafsd.testing.parts import python_process, wait_for  # noqa: E402
from exafsd.testing.processes import proxy  # noqa: E402
from simulated import shapes  # noqa: E402
from synthetic import METADATA, sweep_columns  # noqa: E402

SETTINGS = """
[reduction]
channels = ["transmission"]
[inference]
model = "cu-k-fcc"
[composition]
enabled = "off"
[service]
audit_every = 0
[publish]
address = "tcp://127.0.0.1:*"
"""
#: s for the last results
PATIENCE = 30.0


class Receiver(threading.Thread):
    """Notes when the result of each sweep came."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._follower = Follower(address, start="now")
        self.arrived: dict[tuple[str, int], float] = {}
        self.ended: set[str] = set()
        self.ready = False
        self.start()

    def run(self) -> None:
        while True:
            message = self._follower.receive(0.2)
            if message is None:
                continue
            header = message.header
            if header["kind"] == "status":
                self.ready |= header["source"]["connected"]
            elif header["kind"] == "run.stop":
                self.ended.add(header["run_uid"])
            elif "sweep" in header:
                self.arrived[header["run_uid"], header["sweep"]] = time.perf_counter()


@contextmanager
def daemon(folder: Path, source: str) -> Iterator[Receiver]:
    """``exafsd run`` on a source."""
    folder.mkdir()
    address, config = folder / "address", folder / "exafsd.toml"
    config.write_text(
        f"[source]\n{source}\n{SETTINGS}address_file = '{address}'\n[journal]\n"
        f"folder = '{folder / 'journal'}'\n"
    )
    with python_process(
        "daemon", folder, "-m", "exafsd.cli", "run", "--config", str(config)
    ) as running:
        wait_for(address.exists, running, "address")
        receiver = Receiver(address.read_text().strip())
        wait_for(lambda: receiver.ready, running, "connection")
        yield receiver


def one_run(
    receivers: dict[str, Receiver], publish: Any, write: Any, sweeps: int, points: int,
    rate: float | None,
) -> dict[str, Any]:  # fmt: skip
    """A run of array events; latencies in ms by way."""
    uid = f"bench-{time.time_ns()}"
    columns = [sweep_columns(n % 8, points=points) for n in range(sweeps)]
    sent, written = {}, []
    began = due = time.perf_counter()
    number = 0
    for name, document in shapes.array_events(columns, {**METADATA, "uid": uid}):
        if name == "event":
            number += 1
            due += 0.0 if rate is None else 1.0 / rate
            time.sleep(max(due - time.perf_counter(), 0.0))
            sent[number] = time.perf_counter()
        publish(name, document)
        before = time.perf_counter()
        write(name, document)
        if name == "event":
            written.append(time.perf_counter() - before)
    took = time.perf_counter() - began
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end and any(uid not in r.ended for r in receivers.values()):
        time.sleep(0.05)
    report: dict[str, Any] = {
        "sweeps_per_s": round(sweeps / took, 2),
        "write_ms": round(1e3 * float(np.median(written)), 1),
    }
    for way, receiver in receivers.items():
        late = [1e3 * (receiver.arrived[uid, n] - at) for n, at in sent.items()
                if (uid, n) in receiver.arrived]  # fmt: skip
        report[way] = {
            "p50_ms": round(float(np.percentile(late, 50)), 1) if late else None,
            "p99_ms": round(float(np.percentile(late, 99)), 1) if late else None,
            "lost": sweeps - len(late),
        }
    zmq, tiled = (report[way]["p50_ms"] for way in ("zeromq", "tiled"))
    report["ratio_p50"] = round(tiled / zmq, 1) if zmq and tiled else None
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rates", type=float, nargs="*", default=[1.0, 5.0, 10.0])
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 10])
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    reports = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(CatalogServer(folder / "catalog", streaming=True))
        os.environ["TILED_API_KEY"] = server.api_key
        into, out = stack.enter_context(proxy(folder))
        receivers = {
            "zeromq": stack.enter_context(daemon(folder / "zeromq", f"address = '{out}'")),
            "tiled": stack.enter_context(
                daemon(folder / "tiled", f"tiled = {{ catalog = '{server.uri}' }}")
            ),
        }
        publish = Publisher(into, serializer=dumps)
        client = from_uri(server.uri, api_key=server.api_key)
        for batch in asked.batches:
            writer = TiledWriter(client, batch_size=batch)
            one_run(receivers, publish, writer, 10, asked.points, 5.0)  # all is loaded then
            for rate in [*asked.rates, None]:
                sweeps = 100 if rate is None else max(round(asked.seconds * rate), 10)
                name = f"batch {batch}, " + (
                    "as fast as it is written" if rate is None else f"{rate:g} sweeps/s"
                )
                reports[name] = one_run(receivers, publish, writer, sweeps, asked.points, rate)
                sys.stderr.write(f"{name}: {reports[name]}\n")
    sys.stdout.write(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A daemon that is killed again and again while runs go on, and what is left of them."""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import zmq
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from exafsd import codec
from exafsd.archive.journal import read_journal
from exafsd.archive.outcome_log import folder_beside, read_log
from exafsd.client import Follower
from exafsd.outcome import Outcome
from exafsd.service import wiring
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from exafsd.testing.parts import free_ports, python_process, wait_for
from exafsd.testing.processes import proxy
from simulated import shapes
from synthetic import METADATA, sweep_columns

#: s before a kill within which a document may be on its way, and after a start until it is taken
UNDER_WAY, CONNECTING = 0.1, 0.5
#: with an archive that the beamline writes itself; nothing that depends on other sweeps
BACKFILL = """
[reduction]
channels = ["transmission"]
[backfill]
catalog = "{catalog}"
wait = 20.0
"""
MEMORY = """
[reduction]
channels = ["transmission", "reference"]
[reduction.average]
n = 3
[reduction.calibration]
source = "foil"
"""
SETTINGS = """
[source]
address = "{source}"
[publish]
address = "{address}"
address_file = "{folder}/address"
[journal]
folder = "{folder}/journal"
fsync = "never"
[inference]
polish = "off"
[composition]
enabled = "off"
"""


@dataclass
class Record:
    """What was sent, written, logged and received; keys are run uid and number of the event."""

    kills: int = 0
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    #: times at which no daemon can be expected to take documents
    away: list[tuple[float, float]] = field(default_factory=list)
    journaled: Counter = field(default_factory=Counter)
    #: (id, revision) of outcomes in the logs, and what the documents in the journal should give
    logged: Counter = field(default_factory=Counter)
    expected: Counter = field(default_factory=Counter)
    received: Counter = field(default_factory=Counter)
    #: runs that have been archived when they stopped, where what was missed is fetched
    archived: set[str] = field(default_factory=set)
    #: sweeps in the logs by run uid and number, where what was missed is fetched
    sweeps: Counter = field(default_factory=Counter)
    #: s that the archive needed for a run, and what daemons said of runs that stayed incomplete
    archiving: list[float] = field(default_factory=list)
    unfilled: list[str] = field(default_factory=list)
    #: largest relative difference of a number to that of an undisturbed run
    difference: float = 0.0

    def due(self):
        """Events that must be in the journal: those of runs that the daemon has seen begin."""
        begun = {uid for uid, _ in self.journaled}
        return {
            (uid, number)
            for (uid, number), at in self.sent.items()
            if uid in begun and not any(a <= at < b for a, b in self.away)
        }

    def describe(self):
        """Counts in words."""
        if self.archived:
            sent = [key for key in self.sent if key[0] in self.archived]
            return (
                f"{self.kills} kills: {len(self.archived)} runs with {len(sent)} sweeps were sent"
                f" and archived in at most {max(self.archiving):.1f} s each,"
                f" {len(set(sent) & set(self.sweeps))} of them are in the logs"
            )
        resent = sum(n - 1 for n in self.received.values() if n > 1)
        return (
            f"{self.kills} kills: {len(self.sent)} sweeps sent, {len(self.due())} of them to a"
            f" living daemon, {len(self.journaled)} in the journal;"
            f" {self.expected.total()} outcomes due, {self.logged.total()} in the logs,"
            f" {len(self.received)} received, {resent} of them again;"
            f" largest difference {self.difference:.1e}"
        )

    def wrong(self):
        """What does not hold, in words."""
        if self.archived:
            archived = {key for key in self.sent if key[0] in self.archived}
            missing = archived - set(self.sweeps)
            twice = [key for key, n in self.sweeps.items() if n > 1]
            return [f"{len(missing)} sweeps are not in the logs: {sorted(missing)[:3]}"] * bool(
                missing
            ) + [f"{len(twice)} sweeps are in the logs twice: {twice[:3]}"] * bool(twice)
        faults = []
        if lost := self.due() - set(self.journaled):
            faults.append(f"{len(lost)} sweeps are not in the journal: {sorted(lost)[:3]}")
        if twice := [k for k, n in self.journaled.items() if n > 1]:
            faults.append(f"{len(twice)} sweeps are in the journal twice")
        if missing := self.expected - self.logged:
            faults.append(f"{missing.total()} outcomes are not logged: {sorted(missing)[:3]}")
        if more := self.logged - self.expected:
            faults.append(f"{more.total()} outcomes too many are logged: {sorted(more)[:3]}")
        if unheard := set(self.logged) - set(self.received):
            faults.append(f"{len(unheard)} outcomes were not received: {sorted(unheard)[:3]}")
        if again := [k for k, n in self.received.items() if n > 1]:
            faults.append(f"{len(again)} outcomes were received again: {sorted(again)[:3]}")
        if self.difference > 1e-5:
            faults.append(f"numbers differ by {self.difference:.1e}")
        return faults


def kill_often(folder, kills, seed=0, rate=20.0, sweeps=60, at_start=0.2, backfill=False):
    """Kill a daemon so often while two streams of runs go on; the record.

    `at_start`: share of the kills that come while the daemon is starting; `backfill`: runs are
    archived in a tiled server when they stop, and the daemon may fetch from it.
    """
    rng, record, over = random.Random(seed), Record(kills), threading.Event()
    with ExitStack() as stack:
        server = stack.enter_context(CatalogServer(folder / "catalog")) if backfill else None
        if server is not None:
            stack.enter_context(_key(server.api_key))
        more = MEMORY if server is None else BACKFILL.format(catalog=server.uri)
        into, out = stack.enter_context(proxy(folder))
        address = f"tcp://127.0.0.1:{_pair()}"
        config = folder / "exafsd.toml"
        config.write_text(SETTINGS.format(source=out, address=address, folder=folder) + more)
        threads = [
            threading.Thread(target=_follow, args=(address, record, over)),
            *(
                threading.Thread(
                    target=_measure, args=(into, record, over, rate / 2, sweeps, n, server)
                )
                for n in range(2)
            ),
        ]
        daemon = stack.enter_context(_Daemon(folder, config, record))
        daemon.start()
        for thread in threads:
            thread.start()
        try:
            time.sleep(2.0)
            record.away.append((0.0, time.time()))  # until all are connected
            for _ in range(kills):
                time.sleep(rng.uniform(0.5, 4.0))
                away = time.time() - UNDER_WAY
                daemon.kill()
                if rng.random() < at_start:
                    daemon.start(wait=False)
                    time.sleep(rng.uniform(1.0, 6.0))
                    daemon.kill()
                daemon.start()
                record.away.append((away, time.time() + CONNECTING))
            time.sleep(2.0)
            if server is not None:  # two runs more, and what was missed of all
                time.sleep(sweeps / (rate / 2) + 30.0)
        finally:
            over.set()
            for thread in threads:
                thread.join(300)
        daemon.end()
    if backfill:
        _read_logs(folder, record)
    else:
        _read(folder, config, record)
    return record


@contextmanager
def _key(api_key):
    """Key of the archive in the environment, which the daemon inherits."""
    os.environ["TILED_API_KEY"] = api_key
    try:
        yield
    finally:
        del os.environ["TILED_API_KEY"]


class _Daemon:
    def __init__(self, folder, config, record):
        self._folder, self._config, self._stack, self._record = folder, config, None, record
        self._address = folder / "address"

    def __enter__(self):
        return self

    def start(self, wait=True):
        self._address.unlink(missing_ok=True)
        self._stack = ExitStack()
        command = ("-m", "exafsd.cli", "run", "--config", str(self._config))
        self._part = self._stack.enter_context(python_process("daemon", self._folder, *command))
        if wait:
            wait_for(lambda: "ready models" in self._part.log.read_text(), self._part, "word")

    def kill(self):
        self._part.process.send_signal(signal.SIGKILL)
        self._part.process.wait()
        self._close()

    def end(self):
        assert self._part.stop() == 0, self._part.tail()
        self._close()

    def _close(self):
        lines = self._part.log.read_text().splitlines()
        self._record.unfilled += [line for line in lines if "goes on without what" in line]
        self._stack.close()

    def __exit__(self, *_):
        if self._stack is not None:
            self._stack.close()


def _pair():
    while True:
        (port,) = free_ports(1)
        if port < 65000:
            return port


def _measure(into, record, over, rate, sweeps, stream, server):
    """Runs one after the other; every sweep an event."""
    client = None if server is None else from_uri(server.uri, api_key=server.api_key)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.linger = 0
        publisher.connect(into)
        time.sleep(0.5)
        number = 0
        while not over.is_set():
            uid = f"run-{stream}-{number}"
            number += 1
            columns = [sweep_columns(n, points=400, e0=8979.0 + 0.01 * n) for n in range(4)] * (
                sweeps // 4
            )
            documents = list(shapes.array_events(columns, {**METADATA, "uid": uid}))
            for name, document in documents:
                publisher.send(b" ".join([b"", name.encode(), codec.dumps(document)]))
                if name == "event":
                    record.sent[uid, document["seq_num"]] = time.time()
                    time.sleep(1 / rate)
                if over.is_set():
                    return
            if client is not None:
                begun = time.monotonic()
                writer = TiledWriter(client)
                for name, document in documents:
                    writer(name, document)
                record.archiving.append(time.monotonic() - begun)
                record.archived.add(uid)


def _follow(address, record, over):
    with Follower(address, start="ring") as follower:
        quiet = 0
        while quiet < 20:  # what is still on its way is waited for
            message = follower.receive(0.2)
            if message is not None and "id" in message.header:
                record.received[message.header["id"], message.header["revision"]] += 1
            quiet = quiet + 1 if message is None or "id" not in message.header else 0
            quiet = quiet if over.is_set() else 0


def _read_logs(folder, record):
    """Sweeps in the logs, of the runs that the archive has had for long enough."""
    for path in folder_beside(folder / "journal").glob("*.log"):
        for entry in read_log(path):
            if entry.id:
                uid, *_, number = entry.id.split("/")
                record.sweeps[uid, int(number)] += 1


def _read(folder, config, record):
    """Journal and logs, and what an undisturbed session makes of the journal."""
    settings = load(config)
    logged = {}
    for path in folder_beside(folder / "journal").glob("*.log"):
        for entry in read_log(path):
            if entry.id:
                record.logged[entry.key] += 1
                logged[entry.key] = msgpack.unpackb(msgpack.packb(entry.frames))[1]
    pipeline = wiring.make_pipeline(settings)
    for run in read_journal(folder / "journal"):
        damage = []
        documents = list(run.documents(damage.append))
        assert not damage, damage
        for name, document in documents:
            if name == "event":
                record.journaled[run.start["uid"], document["seq_num"]] += 1
        session = wiring.make_session(settings, pipeline)
        stopped = documents[-1][0] == "stop"
        for name, document in documents:
            for event in session.feed(name, document):
                _compare(event, logged, record)
        for event in session.flush() if not stopped else ():
            _compare(event, logged, record)


def _compare(event, logged, record):
    if not isinstance(event, Outcome):
        return
    message = event.message
    key = message.id, message.revision
    record.expected[key] += 1
    if key in logged and message.kind == "result":
        theirs = type(message).model_validate_json(logged[key])
        pairs = [(message.e0, theirs.e0), (message.edge_step.value, theirs.edge_step.value)]
        for ours, other in zip(message.shells or (), theirs.shells or (), strict=True):
            pairs += [(ours.r.value, other.r.value), (ours.sigma2.value, other.sigma2.value)]
        worst = max(abs(a - b) / max(abs(a), 1e-9) for a, b in pairs)
        record.difference = max(record.difference, worst)


def main():
    """From the command line: the long form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backfill", action="store_true", help="with an archive to fetch from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exafsd-kills-") as folder:
        record = kill_often(Path(folder), options.kills, options.seed, backfill=options.backfill)
    sys.stdout.write(f"{record.describe()}\n")
    for text in record.wrong():
        sys.stdout.write(f"WRONG: {text}\n")
    for line in record.unfilled:
        sys.stdout.write(f"{line}\n")
    return bool(record.wrong())


if __name__ == "__main__":
    sys.exit(main())

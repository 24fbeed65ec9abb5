"""What a subscriber waits for: a late joiner, a recovery, and others beside one that is frozen.

``python tests/bench/wire.py [--quick]`` prints a table; `measure_wire` gives the numbers. The
publisher is a process of its own, subscribers are here, over real sockets on one machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from exafsd.client import Answers, Follower, Subscriber
from exafsd.publishing import Publisher
from messages import ARRAYS, result, run_start, status

#: messages per second while latencies are taken: SuperXAS gives 100 spectra/s in two channels
RATE = 200
#: messages that fill every queue of a subscriber that does not read, whatever the kernel takes
FILL = 4000
#: runs and channels of the state that a late joiner gets
RUNS, CHANNELS = 32, ("transmission", "reference")
#: subscriber that is going to be stopped
READER = """
import sys
from exafsd.client import Subscriber
with Subscriber(sys.argv[1]) as subscriber:
    for message in subscriber:
        print(message.topic, flush=True)
"""


def publish() -> None:
    """Process that publishes as it is told on stdin, and prints how long sending took, in ms."""
    publisher = Publisher("tcp://127.0.0.1:*")
    print(publisher.address, flush=True)
    sweep = 0
    for line in sys.stdin:
        command, count, rate = line.split()
        took = []
        due = time.monotonic()
        for number in range(int(count)):
            if command == "status":
                publisher.send(status())
                continue
            sweep += 1
            run = f"run {number * RUNS // int(count)}" if command == "fill" else "live"
            message = result(sweep, run=run, channel=CHANNELS[sweep % len(CHANNELS)])
            if float(rate):
                due += 1 / float(rate)
                time.sleep(max(0.0, due - time.monotonic()))
            began = time.perf_counter()
            publisher.send(message, ARRAYS)
            took.append((time.perf_counter() - began) * 1e3)
        if command == "fill":
            publisher.send(run_start("run"))
        publisher.send(status())
        print(json.dumps(took), flush=True)
    publisher.close()


class Remote:
    """The publisher's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--publish"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()

    def begin(self, command: str, count: int, rate: float = 0.0) -> None:
        """Tell it what to send."""
        self._process.stdin.write(f"{command} {count} {rate}\n")
        self._process.stdin.flush()

    def end(self) -> list[float]:
        """Wait until all is sent; ms that each `send` took."""
        return json.loads(self._process.stdout.readline())

    def send(self, command: str, count: int, rate: float = 0.0) -> list[float]:
        """Tell it and wait."""
        self.begin(command, count, rate)
        return self.end()

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def late_joiner(remote: Remote, repeats: int) -> list[float]:
    """Ms from making a follower until it has the latest result of every run and channel."""
    took = []
    with Answers(remote.address) as ask:
        state = len(ask.snapshot("result."))
    for _ in range(repeats):
        began = time.perf_counter()
        with Follower(remote.address, "result.") as follower:
            for _ in range(state):
                if follower.receive(10) is None:
                    sys.exit("the state is not complete")
            took.append((time.perf_counter() - began) * 1e3)
    return took


def recovery(remote: Remote, lost: int, repeats: int) -> list[float]:
    """Ms from sending the message after a gap until it and all that were lost are delivered."""
    took = []
    for _ in range(repeats):
        with Follower(remote.address, "result.", start="now") as follower:
            _heard(remote, follower)
            remote.send("live", 1)
            first = follower.receive(10).header["seq"]
            follower._links[0]._socket.disconnect(remote.address)
            time.sleep(0.2)
            remote.send("live", lost)
            follower._links[0]._socket.connect(remote.address)
            time.sleep(0.2)
            began = time.perf_counter()
            remote.begin("live", 1)
            numbers = [follower.receive(10).header["seq"] for _ in range(lost + 1)]
            took.append((time.perf_counter() - began) * 1e3)
            remote.end()
            if numbers != list(range(first + 1, first + lost + 2)):
                sys.exit("the recovery is not exact")
    return took


def _heard(remote: Remote, follower: Follower) -> None:
    while follower.status is None:
        remote.send("status", 1)
        follower.receive(0.05)


@contextmanager
def frozen(remote: Remote) -> Iterator[None]:
    """A subscriber that was stopped, its queues full."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, remote.address], stdout=subprocess.PIPE
    )
    try:
        os.set_blocking(reader.stdout.fileno(), False)
        while not reader.stdout.read():
            remote.send("status", 1)
            time.sleep(0.05)
        reader.send_signal(signal.SIGSTOP)
        remote.send("live", FILL)
        yield
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()


def latencies(remote: Remote, seconds: float) -> tuple[list[float], list[float]]:
    """Ms from a message's time stamp to its arrival with arrays, and of each `send`."""
    count = int(seconds * RATE)
    with Subscriber(remote.address, ("result.", "status.")) as subscriber:
        while subscriber.receive(0.1) is None:
            remote.send("status", 1)
        while subscriber.receive(0.2) is not None:
            pass
        remote.begin("live", count, RATE)
        took = []
        while len(took) < count:
            message = subscriber.receive(10)
            if message is None:
                sys.exit(f"{count - len(took)} messages were lost")
            took.append((time.time() - message.header["time"]) * 1e3)
        return took, remote.end()


@contextmanager
def replaying(remote: Remote) -> Iterator[None]:
    """A client that replays the ring without a pause."""
    code = (
        "import sys\nfrom exafsd.client import Answers\n"
        "with Answers(sys.argv[1]) as ask:\n    while True:\n"
        "        for message in ask.replay('result.Cu.K.'):\n            pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, remote.address])
    time.sleep(1.0)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_wire(quick: bool = False) -> dict[str, Any]:
    """All numbers, in ms."""
    seconds, repeats = (3.0, 1) if quick else (10.0, 3)
    remote = Remote()
    try:
        remote.send("fill", 2000 if quick else 10_000)
        joined = late_joiner(remote, 5 if quick else 20)
        recovered = recovery(remote, 1000, repeats)
        control, beside, sent, busy = [], [], [], []
        for _ in range(repeats):
            took, sending = latencies(remote, seconds)
            control.append(np.percentile(took, [50, 99]))
            sent.append(np.percentile(sending, [50, 99]))
            with frozen(remote):
                beside.append(np.percentile(latencies(remote, seconds)[0], [50, 99]))
            with replaying(remote):
                busy.append(np.percentile(latencies(remote, seconds)[1], [50, 99]))
    finally:
        remote.close()
    control, beside, sent, busy = (
        min(x, key=lambda p: p[1]) for x in (control, beside, sent, busy)
    )
    return {
        "late_joiner": {"median": float(np.median(joined)), "worst": max(joined)},
        "recovery": {"best": min(recovered), "worst": max(recovered)},
        "control": {"p50": control[0], "p99": control[1]},
        "frozen": {"p50": beside[0], "p99": beside[1], "added_p99": beside[1] - control[1]},
        "send": {"p50": sent[0], "p99": sent[1]},
        "send_while_replaying": {"p50": busy[0], "p99": busy[1]},
    }


def report(figures: dict[str, Any]) -> str:
    """Numbers as a Markdown table, with the bars."""
    late, added = figures["late_joiner"]["worst"], figures["frozen"]["added_p99"]
    rows = [
        (f"late joiner has the state of {RUNS} runs, {len(CHANNELS)} channels",
         figures["late_joiner"], f"200: {'met' if late <= 200 else 'missed'}"),
        ("1,000 lost messages recovered", figures["recovery"], ""),
        ("latency, nobody frozen", figures["control"], ""),
        ("latency beside a frozen subscriber", figures["frozen"],
         f"1 added to p99: {'met' if added <= 1 else 'missed'}"),
        ("one call of send", figures["send"], ""),
        ("the same while a client replays the ring", figures["send_while_replaying"], ""),
    ]  # fmt: skip
    lines = ["| | ms | at most |", "|---|---|---|"]
    for name, numbers, bar in rows:
        values = ", ".join(f"{key} {value:.2f}" for key, value in numbers.items())
        lines.append(f"| {name} | {values} | {bar} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="short runs, for trying")
    parser.add_argument("--publish", action="store_true", help="be the publisher's process")
    asked = parser.parse_args()
    if asked.publish:
        publish()
    else:
        print(report(measure_wire(asked.quick)))


if __name__ == "__main__":
    main()

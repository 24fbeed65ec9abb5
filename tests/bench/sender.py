"""Process that plays a beamline: documents at a given rate, or as fast as results come back.

Prints what it sent as JSON; times of the documents that completed sweeps go to a file.
"""

import argparse
import json
import sys
import time

import numpy as np
import zmq

from documents import Load, frames

#: s for the subscription of the other end to arrive: PUB drops what it sends before
SETTLE = 1.5
#: s without an outcome after which a waiting sender gives up
PATIENCE = 30.0


class Outcomes:
    """Counts outcomes as they are published."""

    def __init__(self, context: zmq.Context, address: str, channels: int) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.set_hwm(0)
        for topic in ("result.", "rejected."):
            self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._socket.connect(address)
        self._channels = channels
        self.outcomes = 0

    def wait_for(self, sweeps: int) -> None:
        """Return when those of so many sweeps have come."""
        while self.outcomes < sweeps * self._channels:
            if not self._socket.poll(int(PATIENCE * 1e3)):
                sys.exit(f"no outcome within {PATIENCE:.0f} s; {self.outcomes} came")
            self._socket.recv_multipart()
            self.outcomes += 1

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)


def send(
    socket: zmq.Socket,
    load: Load,
    seconds: float,
    limit: float,
    rate: float | None,
    outcomes: Outcomes | None,
    window: int,
) -> tuple[dict, list[float]]:
    """One run of `seconds` or `limit` sweeps; what was sent, and when each sweep was complete."""
    uid, stream, stop = frames(load)
    socket.send(next(stream)[0])
    socket.send(next(stream)[0])
    frame, points = next(stream)
    time.sleep(0.3)  # the run's start is not part of what is measured
    began = deadline = time.monotonic()
    late, completed, sent, size = [], [], 0, 0
    documents = 0
    while True:
        if rate is not None:
            deadline += 1 / rate
            wait = deadline - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            elif sent:
                late.append(-wait)
        elif outcomes is not None:
            outcomes.wait_for(len(completed) - window)
        now = time.monotonic()
        completed += [now] * (points // load.points - len(completed))
        socket.send(frame)
        documents, sent, size = documents + 1, points, size + len(frame)
        whole = points % load.points == 0  # a piece of a sweep might have no edge
        if whole and (now - began >= seconds or len(completed) >= limit):
            break
        frame, points = next(stream)
    ended = time.monotonic()
    socket.send(stop)
    summary = {
        "uid": uid,
        "documents": documents,
        "sweeps": -(-sent // load.points),
        "points": sent,
        "bytes": size,
        "began": began,
        "ended": ended,
        "late": max(late, default=0.0),
    }
    return summary, completed


def main() -> None:
    """Send one run, or several after each other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="in-port of the proxy")
    parser.add_argument("load", type=json.loads)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--sweeps", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, help="documents/s; else as fast as results come")
    parser.add_argument("--results", help="where results are published, without --rate")
    parser.add_argument("--window", type=int, default=64, help="sweeps under way, without --rate")
    parser.add_argument("--channels", type=int, default=1, help="outcomes of a sweep")
    parser.add_argument("--times", help="file for the times")
    asked = parser.parse_args()
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.set_hwm(0)
    socket.connect(asked.address)
    outcomes = Outcomes(context, asked.results, asked.channels) if asked.results else None
    time.sleep(SETTLE)
    summary, completed = send(
        socket, Load(**asked.load), asked.seconds, asked.sweeps, asked.rate, outcomes, asked.window
    )
    if asked.times:
        np.save(asked.times, completed)
    print(json.dumps(summary), flush=True)
    if outcomes is not None:
        outcomes.close()
    socket.close(linger=10_000)
    context.term()


if __name__ == "__main__":
    main()

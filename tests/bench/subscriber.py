"""Process that notes when results arrive, until a run stops; it looks into them afterwards."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import zmq

#: s without any message after which something is wrong
PATIENCE = 60.0


def main() -> None:
    """Collect the outcomes of the next run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="where results are published")
    parser.add_argument("ready", type=Path, help="file that is made when messages arrive")
    parser.add_argument("arrived", help="file for sweep, arrival and the publisher's own times")
    asked = parser.parse_args()
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set_hwm(0)
    socket.setsockopt_string(zmq.SUBSCRIBE, "")
    socket.connect(asked.address)
    results, sizes, status, stop = [], None, None, None
    while stop is None:
        if not socket.poll(int(PATIENCE * 1e3)):
            break
        got = socket.recv_multipart()
        now = time.monotonic()
        topic = got[0]
        if topic.startswith((b"result.", b"rejected.")):
            results.append((now, got[1]))
            if topic.startswith(b"result."):
                sizes = [len(part) for part in got]
        elif topic == b"status.":
            asked.ready.touch()
            status = json.loads(got[1])
        elif topic == b"run.stop.":
            stop = json.loads(got[1])
    rows, rejected, trusted = [], {}, 0
    for at, header in results:
        content = json.loads(header)
        if content["kind"] == "rejected":
            rejected[content["reason"]] = rejected.get(content["reason"], 0) + 1
        else:
            timing = content.get("timing_ms") or {}
            trusted += (content.get("trust") or {}).get("in_domain") is True
            stages = [timing.get(s) for s in ("assembled", "reduced", "inferred", "published")]
            rows.append([content["sweep"], at, *(np.nan if s is None else s for s in stages)])
    np.save(asked.arrived, np.array(rows, dtype=float).reshape(-1, 6))
    content = {
        "results": len(rows),
        "rejected": rejected,
        "trusted": trusted,
        "sizes": sizes,
        "first": results[0][0] if results else None,
        "last": results[-1][0] if results else None,
        "run": stop and stop["run_uid"],
        "drops": status and status.get("drops"),
        "problems": status and status.get("problems"),
    }
    print(json.dumps(content), flush=True)
    socket.close(linger=0)
    context.term()


if __name__ == "__main__":
    main()

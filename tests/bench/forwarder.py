"""The control: takes documents and publishes messages as large as results, without looking in."""

import argparse
import json
import os
from pathlib import Path

import zmq

from exafsd import codec

#: ms after which an idle forwarder says that it lives
HEARTBEAT = 200


def main() -> None:
    """Forward until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", help="out-port of the proxy")
    parser.add_argument("address_file", type=Path)
    parser.add_argument("sizes", type=json.loads, help="bytes of each part of a result")
    asked = parser.parse_args()
    context = zmq.Context()
    source = context.socket(zmq.SUB)
    source.set_hwm(0)
    source.setsockopt(zmq.SUBSCRIBE, b"")
    source.connect(asked.source)
    publish = context.socket(zmq.PUB)
    publish.bind("tcp://127.0.0.1:*")
    partial = asked.address_file.with_suffix(".part")
    partial.write_text(publish.getsockopt_string(zmq.LAST_ENDPOINT))
    partial.replace(asked.address_file)
    topic = b"result.Cu.K.".ljust(asked.sizes[0])
    buffers = [os.urandom(size) for size in asked.sizes[2:]]
    run, number = "", 0
    while True:
        if not source.poll(HEARTBEAT):
            publish.send_multipart([b"status.", b"{}"])
            continue
        _, name, payload = source.recv().split(b" ", 2)
        if name == b"event":
            number += 1
            header = b'{"kind": "result", "sweep": %d}' % number
            publish.send_multipart([topic, header.ljust(asked.sizes[1]), *buffers], copy=False)
        elif name == b"start":
            run, number = codec.loads(payload)["uid"], 0
        elif name == b"stop":
            publish.send_multipart([b"run.stop.", json.dumps({"run_uid": run}).encode()])


if __name__ == "__main__":
    main()

"""A subscriber written from docs/reference/messages.md alone: pyzmq, json and numpy."""

import json

import numpy as np
import zmq


def subscribe(address):
    """Yield (topic, header, arrays), or None now and then when nothing came."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(address)
    try:
        while True:
            if not socket.poll(200):
                yield None
                continue
            topic, header, *buffers = socket.recv_multipart()
            header = json.loads(header)
            arrays = {
                spec["name"]: np.frombuffer(buffer, dtype=spec["dtype"]).reshape(spec["shape"])
                for spec, buffer in zip(header.get("arrays", []), buffers, strict=True)
            }
            yield topic.decode(), header, arrays
    finally:
        socket.close(linger=0)
        context.term()

"""How long a call takes for each spectrum of a batch."""

import time

BATCH = 64


def milliseconds(call) -> float:
    """The least of five, per spectrum."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) / BATCH * 1e3

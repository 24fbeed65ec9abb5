"""A subscriber that stops reading: bounded memory, and the others lose nothing."""

import os
import signal
import subprocess
import sys

import psutil

from exafsd.client import Subscriber
from exafsd.publishing import Publisher, Ring
from messages import ARRAYS, joined, result, status, until

#: takes messages and says so, until it is stopped and ended
READER = """
import sys
from exafsd.client import Subscriber
with Subscriber(sys.argv[1]) as subscriber:
    for message in subscriber:
        print(message.header["seq"], flush=True)
"""
#: messages kept for a subscriber, messages sent, and the size of one
HIGH_WATER, SENT, SIZE = 200, 6000, 19_000


def test_a_frozen_subscriber_costs_bounded_memory_and_others_lose_nothing():
    publisher = Publisher("tcp://127.0.0.1:*", high_water=HIGH_WATER, ring=Ring(100, 10_000_000))
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, publisher.address], stdout=subprocess.PIPE
    )
    try:
        os.set_blocking(reader.stdout.fileno(), False)

        def reads():
            publisher.send(status())
            return reader.stdout.read()

        until(reads, step=0.05)
        with Subscriber(publisher.address, ("result.", "status.")) as subscriber:
            joined(publisher, subscriber)

            def send(first, last):
                """One by one, so that the good subscriber has no reason to lose any."""
                for sweep in range(first, last + 1):
                    publisher.send(result(sweep), ARRAYS)
                    message = subscriber.receive(10)
                    assert message is not None, f"message {sweep} was lost"
                    assert message.header["sweep"] == sweep

            send(1, 300)  # the ring is full
            before = psutil.Process().memory_info().rss
            reader.send_signal(signal.SIGSTOP)
            send(301, SENT)
            grown = psutil.Process().memory_info().rss - before
        message_bytes = publisher.ring.size[1] / publisher.ring.size[0]
        assert message_bytes > 0.9 * SIZE
        # its queue is full: what went into it, not what was sent (114 MB); twice for the allocator
        assert grown < 2 * HIGH_WATER * SIZE + 15_000_000, f"{grown / 1e6:.0f} MB"
    finally:
        reader.send_signal(signal.SIGCONT)
        reader.kill()
        reader.wait()
        reader.stdout.close()
        publisher.close()

"""Followers over real sockets: late joiners, forced loss, restarts, silence, asyncio."""

import asyncio
import os
import socket
import time

import numpy as np
import pytest
import zmq

from exafsd.client import (
    AsyncFollower,
    AsyncSubscriber,
    Follower,
    FrameError,
)
from exafsd.contract.answers import answers_address
from exafsd.publishing import Publisher
from messages import ARRAYS, collect, joined, result, run_start, status, until


@pytest.fixture
def publisher():
    one = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    yield one
    one.close()


def sweeps(messages):
    return [m.header["sweep"] for m in messages if m.header["kind"] == "result"]


def cut(follower, publisher, sends):
    """What `sends` sends is lost to the follower: its connection is down meanwhile."""
    follower._links[0]._socket.disconnect(publisher.address)
    time.sleep(0.1)  # libzmq takes the pipe down in a thread of its own
    sends()
    follower._links[0]._socket.connect(publisher.address)


def pump(publisher, follower, count, seconds=20):
    """So many messages of a follower, while the publisher says that it is there."""
    got = []

    def complete():
        publisher.send(status())
        message = follower.receive(0.05)
        while message is not None and len(got) < count:
            got.append(message)
            message = follower.receive(0) if len(got) < count else None
        return len(got) == count

    until(complete, seconds)
    return got


def heartbeat(publisher, follower):
    """Send statuses until one has reached the follower."""
    before = follower.status

    def heard():
        publisher.send(status())
        follower.receive(0.05)
        return follower.status is not before

    until(heard)


def test_a_late_joiner_has_the_current_state_at_once(publisher):
    publisher.send(run_start())
    for sweep in range(1, 51):
        publisher.send(result(sweep), ARRAYS)
        publisher.send(result(sweep, channel="reference"), ARRAYS)
    with Follower(publisher.address) as follower:
        got = [follower.receive(5) for _ in range(3)]
        assert [m.topic for m in got] == ["run.start.", "result.Cu.K.", "result.Cu.K."]
        assert {m.header["channel"] for m in got[1:]} == {"transmission", "reference"}
        assert sweeps(got) == [50, 50]
        assert got[1].arrays["k"].shape == (401,)
        assert follower.publisher == publisher.uuid


@pytest.mark.parametrize("lost", [1, 300])
def test_lost_messages_are_recovered_exactly(publisher, lost):
    events = []
    with Follower(publisher.address, "result.", on_event=events.append) as follower:
        publisher.send(result(1), ARRAYS)
        got = pump(publisher, follower, 1)

        def loses():
            for sweep in range(2, lost + 2):
                publisher.send(result(sweep), ARRAYS)

        cut(follower, publisher, loses)
        got += pump(publisher, follower, lost)  # nothing comes after them: the status tells
        publisher.send(result(lost + 2), ARRAYS)
        got += pump(publisher, follower, 1)
        assert follower.receive(0.2) is None
    assert [m.header["seq"] for m in got] == list(range(1, lost + 3))
    assert sweeps(got) == list(range(1, lost + 3))
    np.testing.assert_array_equal(got[1].arrays["k"], ARRAYS["k"].astype("f4"))
    recovered = [(e.first, e.last) for e in events if e.kind == "recovered"]
    assert (2, lost + 1) in recovered
    assert {"lost", "unanswered"}.isdisjoint(event.kind for event in events)


def test_history_from_the_ring(publisher):
    for sweep in range(1, 121):
        publisher.send(result(sweep), ARRAYS)
    with Follower(publisher.address, "result.", start="ring") as follower:
        assert sweeps(collect(follower, lambda m: m.header["sweep"] == 120)) == list(range(1, 121))


def test_only_what_comes_from_now_on(publisher):
    publisher.send(result(1))
    with Follower(publisher.address, start="now") as follower:
        joined(publisher, follower)
        publisher.send(result(2))
        assert sweeps(collect(follower, lambda m: m.topic == "result.Cu.K.")) == [2]


def test_a_restart_is_noticed_and_nothing_of_the_new_publisher_is_lost():
    events = []
    first = Publisher("tcp://127.0.0.1:*", heartbeat=0.1)
    address = first.address
    with Follower(address, "result.", silent=0.4, on_event=events.append) as follower:
        heartbeat(first, follower)
        first.send(result(1))
        collect(follower, lambda m: True)
        first.send(status("stopped"))
        first.close()

        def events_of(kind):
            follower.receive(0.05)
            return kind in [event.kind for event in events]

        until(lambda: events_of("gone"))
        second = Publisher(address, heartbeat=0.1)
        try:
            for sweep in (1, 2, 3):  # before the follower is connected again
                second.send(result(sweep, run="next"))
            assert sweeps(pump(second, follower, 3)) == [1, 2, 3]
            assert follower.publisher == second.uuid
            assert {"stopped", "gone", "back", "restarted"} <= {event.kind for event in events}
            assert "lost" not in {event.kind for event in events}
        finally:
            second.close()


def _quiet_port() -> int:
    """A port that is free, and the next one, below those that systems give to clients.

    A client that asks a free port of its own range may be connected to itself.
    """
    for port in range(20_000 + os.getpid() % 5_000, 32_000, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def test_a_follower_may_be_there_before_the_daemon():
    address = f"tcp://127.0.0.1:{_quiet_port()}"
    events = []
    with Follower(address, "result.", silent=0.3, on_event=events.append) as follower:
        assert follower.receive(2.5) is None  # long enough for several requests to be in vain
        assert [event.kind for event in events] == ["gone"]
        publisher = Publisher(address)
        try:
            publisher.send(result(1))
            assert sweeps(pump(publisher, follower, 1)) == [1]
            heartbeat(publisher, follower)  # the result may have come by the snapshot
            assert [event.kind for event in events] == ["gone", "back"]
        finally:
            publisher.close()


def test_the_status_says_where_to_ask_when_it_is_not_the_next_port():
    one = Publisher("tcp://127.0.0.1:*", answers="tcp://127.0.0.1:*")
    try:
        assert one.answers != answers_address(one.address)
        one.send(result(1))
        with Follower(one.address, "result.") as follower:
            assert sweeps(pump(one, follower, 1)) == [1]
    finally:
        one.close()


def test_a_foreign_publisher_is_refused():
    context = zmq.Context()
    foreign = context.socket(zmq.PUB)
    port = foreign.bind_to_random_port("tcp://127.0.0.1")
    try:
        for nonsense in ([b"result.", b"not json"], [b"result.", b'{"schema": "exafsd/1"}']):
            with Follower(f"tcp://127.0.0.1:{port}") as follower:

                def refused(follower=follower, nonsense=nonsense):
                    foreign.send_multipart(nonsense)
                    try:
                        assert follower.receive(0.05) is None
                    except FrameError:
                        return True
                    return False

                until(refused)
    finally:
        foreign.close(linger=0)
        context.term()


def test_asyncio_subscriber_and_follower(publisher):
    for sweep in (1, 2, 3):
        publisher.send(result(sweep), ARRAYS)

    async def watch():
        async with (
            AsyncFollower(publisher.address, "result.", start="ring") as follower,
            AsyncSubscriber(publisher.address, "result.") as subscriber,
        ):
            old = [await follower.receive(5) for _ in range(3)]
            assert await subscriber.receive(0.05) is None
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.create_task(tick())
            live = None
            while live is None:
                publisher.send(result(4))
                live = await subscriber.receive(0.1)
            new = []
            async for message in follower:
                new.append(message)
                if message.header["seq"] >= live.header["seq"]:
                    break
            await follower.receive(0.2)
            ticking.cancel()
            return old, live, new, ticks

    old, live, new, ticks = asyncio.run(watch())
    assert sweeps(old) == [1, 2, 3]
    assert live.header["sweep"] == 4
    assert [m.header["seq"] for m in new] == list(range(4, 4 + len(new)))
    assert ticks > 3  # waiting does not block the loop

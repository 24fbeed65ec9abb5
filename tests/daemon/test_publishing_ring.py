"""The ring and the snapshot: what is kept, and that it is bounded."""

import tracemalloc

import pytest

from exafsd.contract.frames import encode
from exafsd.contract.messages import topic_of
from exafsd.publishing.ring import PAGE_BYTES, RUNS, Ring
from messages import ARRAYS, rejected, result, run_start, run_stop, status


class Feeder:
    """Numbers messages as the publisher does."""

    def __init__(self, ring):
        self.ring, self.seq = ring, {}

    def __call__(self, message, arrays=None):
        topic = topic_of(message)
        message.seq = self.seq[topic] = self.seq.get(topic, 0) + 1
        message.time = float(sum(self.seq.values()))
        self.ring.add(topic, message, encode(message, arrays))


def replayed(ring, topic, first, last, **more):
    """Numbers of all pages, and the number of pages."""
    numbers, pages = [], 0
    while first is not None:
        page, _, first = ring.replay(topic, first, last, **more)
        numbers += [stored.seq for stored in page]
        pages += 1
    return numbers, pages


def test_ranges_come_back_exactly_whatever_the_order_of_topics():
    ring = Ring()
    feed = Feeder(ring)
    for i in range(1, 301):
        feed(result(i, element="Cu" if i % 3 else "Zn"))
    assert replayed(ring, "result.Zn.K.", 7, 23)[0] == list(range(7, 24))
    assert replayed(ring, "result.Cu.K.", 1, 10_000)[0] == list(range(1, 201))
    page, missing, following = ring.replay("result.Cu.K.", 150, 10_000)
    assert (missing.first, missing.last, following) == (201, 10_000, None)
    assert len(page) == 51
    assert ring.replay("result.Fe.K.", 1, 5)[0] == []


def test_pages_are_bounded_and_go_on():
    ring = Ring()
    feed = Feeder(ring)
    for i in range(1, 121):
        feed(result(i), ARRAYS)
    page, _, following = ring.replay("result.Cu.K.", 1, 120)
    assert sum(stored.size for stored in page) <= PAGE_BYTES
    assert following == len(page) + 1
    numbers, pages = replayed(ring, "result.Cu.K.", 1, 120)
    assert numbers == list(range(1, 121))
    assert pages >= 3


def test_a_run_can_be_picked():
    ring = Ring()
    feed = Feeder(ring)
    for i in range(1, 101):
        feed(result(i, run=f"run{i % 4}"))
    assert replayed(ring, "result.Cu.K.", 1, 100, run_uid="run1")[0] == list(range(1, 101, 4))


@pytest.mark.parametrize(("limit", "most_bytes"), [(50, 10**9), (10**6, 1_000_000)])
def test_the_oldest_are_forgotten_by_number_and_by_bytes(limit, most_bytes):
    ring = Ring(limit, most_bytes)
    feed = Feeder(ring)
    for i in range(1, 201):
        feed(result(i, element="Cu" if i <= 180 else "Zn"), ARRAYS)
    messages, size = ring.size
    assert messages <= limit
    assert size <= most_bytes
    assert messages >= min(limit, 30)  # a bound, not a reason to keep nothing
    page, missing, _ = ring.replay("result.Cu.K.", 1, 180)
    assert missing.first == 1
    assert not page or page[0].seq == missing.last + 1
    _, spans = ring.snapshot("result.Cu.")
    assert spans["result.Cu.K."].first == missing.last + 1
    assert spans["result.Cu.K."].last == 180


def test_memory_does_not_grow_once_the_ring_is_full():
    ring = Ring(200, 10**9)
    feed = Feeder(ring)

    def fill():
        for i in range(400):
            feed(result(i, run=f"run{i // 5}"), ARRAYS)

    fill()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    fill()
    fill()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # what was allocated before is replaced by what is traced, so this is the size of the ring
    full = sum(ring.size[1:]) + ring.snapshot_size[1]
    assert after - before < 1.5 * full


def test_the_snapshot_is_the_latest_of_each_run_channel_and_edge():
    ring = Ring()
    feed = Feeder(ring)
    for run in ("a", "b"):
        feed(run_start(run))
        for i in range(1, 4):
            for channel in ("transmission", "reference"):
                feed(result(i, run, channel), ARRAYS)
        feed(result(4, run, "transmission", element="Zn"), ARRAYS)
        feed(rejected(5, run))
        feed(run_stop(run))
    feed(status())
    feed(status("overloaded"))
    state, spans = ring.snapshot("")
    assert [stored.topic for stored in state if stored.run_uid == "b"] == [
        "run.start.", "result.Cu.K.", "result.Cu.K.", "result.Zn.K.", "rejected.Cu.K.", "run.stop.",
    ]  # fmt: skip
    assert [stored.topic for stored in state].count("status.") == 1
    assert b"overloaded" in state[-1].frames[1]
    assert spans["result.Cu.K."].last == 12
    assert "status." not in spans
    assert {stored.topic for stored in ring.snapshot("rejected.")[0]} == {"rejected.Cu.K."}


def test_a_result_without_arrays_does_not_displace_one_with():
    ring = Ring()
    feed = Feeder(ring)
    feed(result(1), ARRAYS)
    feed(result(2), {})
    assert [(k.seq, len(k.frames)) for k in ring.snapshot("result.")[0]] == [(1, 11), (2, 2)]


def test_runs_are_forgotten_oldest_first():
    ring = Ring()
    feed = Feeder(ring)
    for i in range(3 * RUNS):
        feed(result(1, run=f"run{i}"), ARRAYS)
        feed(result(2, run="again and again"), ARRAYS)
    runs, size = ring.snapshot_size
    assert runs == RUNS
    state, _ = ring.snapshot("")
    assert size == sum(stored.size for stored in state)
    assert {stored.run_uid for stored in state} == {
        "again and again", *(f"run{i}" for i in range(2 * RUNS + 1, 3 * RUNS))
    }  # fmt: skip

"""Order, completeness and liveness, without sockets: every message once, whatever is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.client.answers import messages_of
from exafsd.client.recovery import HELD, PATIENCE, TRIES, Recovery
from exafsd.contract.answers import AskReplay, AskSnapshot, ErrorReply, ReplayReply, SnapshotReply
from exafsd.contract.frames import decode, encode
from exafsd.contract.messages import topic_of
from exafsd.publishing.ring import Ring
from messages import result, status


class Wire:
    """A publisher with a ring; `deliver` decides what reaches the client."""

    def __init__(self, name="first", ring=None):
        self.name, self.ring, self.seq, self.sent = name, ring or Ring(), {}, []

    def send(self, message):
        topic = topic_of(message)
        message.publisher = self.name
        message.seq = self.seq[topic] = self.seq.get(topic, 0) + 1
        message.time = float(sum(self.seq.values()))
        if topic == "status.":
            message.seqs = self.ring.last()
        frames = encode(message)
        self.ring.add(topic, message, frames)
        self.sent.append(decode(frames))
        return self.sent[-1]

    def answer(self, client, now):
        """Serve what the client asks, as the ROUTER does."""
        while client.requests:
            ask = client.requests.popleft()
            if isinstance(ask, AskSnapshot):
                state, spans = self.ring.snapshot(ask.topic)
                reply = SnapshotReply(id=ask.id, publisher=self.name, topics=spans, frames=[])
            elif ask.publisher not in (None, self.name):
                reply, state = ErrorReply(id=ask.id, reason="other_publisher", detail="gone"), []
            else:
                state, missing, after = self.ring.replay(ask.topic, ask.from_, ask.to)
                reply = ReplayReply(
                    id=ask.id, publisher=self.name, topic=ask.topic, frames=[], missing=missing,
                    next=after,
                )  # fmt: skip
            frames = [frame for message in state for frame in message.frames]
            client.answered(reply, messages_of([len(k.frames) for k in state], frames), now)


def drain(client):
    delivered = [(m.topic, m.header["publisher"], m.header["seq"]) for m in client.ready]
    client.ready.clear()
    return delivered


def kinds(client):
    events = [event.kind for event in client.events]
    client.events.clear()
    return events


def client(start="now", topics=("",)):
    return Recovery(topics, start, silent=3.0, now=0.0)


def test_a_gap_is_asked_for_and_closed_in_order():
    wire, one = Wire(), client()
    for sweep in range(1, 11):
        message = wire.send(result(sweep))
        if sweep not in (4, 5, 8):
            one.hear(message, 0.0)
    assert [seq for _, _, seq in drain(one)] == [1, 2, 3]
    assert [(a.from_, a.to) for a in one.requests] == [(4, 5)]
    wire.answer(one, 0.0)
    assert [seq for _, _, seq in drain(one)] == [4, 5, 6, 7, 8, 9, 10]
    assert kinds(one) == ["recovered"]


def test_what_was_sent_last_is_missed_by_the_next_status():
    wire, one = Wire(), client()
    one.hear(wire.send(result(1)), 0.0)
    wire.send(result(2))
    one.hear(wire.send(status()), 1.0)
    wire.answer(one, 1.0)
    assert [t for t in drain(one) if t[0] != "status."] == [
        ("result.Cu.K.", "first", 1), ("result.Cu.K.", "first", 2),
    ]  # fmt: skip


def test_a_late_joiner_has_the_state_and_then_everything():
    wire = Wire()
    for sweep in range(1, 6):
        wire.send(result(sweep))
    one = client("snapshot")
    early = wire.send(result(6))
    one.hear(early, 0.0)  # before the snapshot came
    assert not one.ready
    wire.send(result(7))  # lost: sent before the subscription was there
    wire.answer(one, 0.0)
    assert [seq for _, _, seq in drain(one)] == [6, 7]
    one.hear(wire.send(result(8)), 0.0)
    assert [seq for _, _, seq in drain(one)] == [8]
    late = client("snapshot")
    wire.answer(late, 0.0)
    assert [seq for _, _, seq in drain(late)] == [8]
    late.hear(wire.send(result(9, element="Zn")), 0.0)
    assert drain(late) == [("result.Zn.K.", "first", 1)]


def test_everything_that_is_kept_comes_first_if_asked_for():
    wire = Wire(ring=Ring(5))
    for sweep in range(1, 9):
        wire.send(result(sweep))
    one = client("ring")
    wire.answer(one, 0.0)
    assert [seq for _, _, seq in drain(one)] == [4, 5, 6, 7, 8]


def test_what_the_ring_has_forgotten_is_told_as_lost():
    wire, one = Wire(ring=Ring(3)), client()
    one.hear(wire.send(result(1)), 0.0)
    for sweep in range(2, 9):
        wire.send(result(sweep))
    one.hear(wire.send(result(9)), 0.0)
    wire.answer(one, 0.0)
    assert [seq for _, _, seq in drain(one)] == [1, 7, 8, 9]
    (lost,) = [event for event in one.events if event.kind == "lost"]
    assert (lost.topic, lost.first, lost.last) == ("result.Cu.K.", 2, 6)


def test_a_publisher_that_does_not_answer_does_not_hold_back_what_came():
    wire, one = Wire(), client()
    one.hear(wire.send(result(1)), 0.0)
    wire.send(result(2))
    one.hear(wire.send(result(3)), 0.0)
    now = 0.0
    for _ in range(TRIES + 1):
        one.requests.clear()
        now += PATIENCE + 0.01
        one.tick(now)
    assert [seq for _, _, seq in drain(one)] == [1, 3]
    assert {"unanswered", "lost"} <= set(kinds(one))


def test_a_restart_is_told_and_the_new_publisher_is_complete():
    wire, one = Wire(), client("snapshot")
    wire.answer(one, 0.0)
    one.hear(wire.send(result(1)), 0.0)
    wire.send(result(2))
    one.hear(wire.send(result(3)), 0.0)
    again = Wire("second")
    for sweep in (1, 2):
        again.send(result(sweep))
    one.hear(again.send(result(3)), 0.0)
    again.answer(one, 0.0)
    assert [(p, seq) for _, p, seq in drain(one)] == [
        ("first", 1), ("first", 3), ("second", 1), ("second", 2), ("second", 3),
    ]  # fmt: skip
    assert kinds(one)[:2] == ["lost", "restarted"]
    one.hear(wire.sent[-1], 0.0)  # a straggler
    assert not one.ready


def test_silence_is_told_once_and_so_is_the_return():
    wire, one = Wire(), client()
    one.hear(wire.send(status(heartbeat=1.0)), 0.0)
    one.tick(2.9)
    assert kinds(one) == []
    one.tick(3.1)
    one.tick(4.0)
    assert kinds(one) == ["gone"]
    one.hear(wire.send(status()), 5.0)
    assert kinds(one) == ["back"]
    one.hear(wire.send(status("stopped")), 5.0)
    assert kinds(one) == ["stopped"]


def test_a_slow_heartbeat_is_not_silence():
    wire, one = Wire(), client()
    message = wire.send(status(heartbeat=5.0))
    message.header["heartbeat"] = 5.0
    one.hear(message, 0.0)
    one.tick(14.0)
    assert kinds(one) == []
    one.tick(15.1)
    assert kinds(one) == ["gone"]


def test_only_wanted_topics_are_delivered_and_recovered():
    wire = Wire()
    for sweep in range(1, 4):
        wire.send(result(sweep))
        wire.send(result(sweep, element="Zn"))
    one = client("snapshot", ("result.Cu.", "run."))
    assert one.requests[0].topic == "r"
    wire.answer(one, 0.0)
    one.hear(wire.send(status()), 0.0)
    assert {topic for topic, _, _ in drain(one)} == {"result.Cu.K."}
    assert not one.requests
    assert one.status is not None  # known although it is not delivered


def test_what_waits_is_bounded_and_still_recovered():
    wire, one = Wire(), client()
    one.hear(wire.send(result(1)), 0.0)
    wire.send(result(2))
    for sweep in range(3, HELD + 500):
        one.hear(wire.send(result(sweep)), 0.0)
    assert len(one._topics["result.Cu.K."].held) == HELD
    wire.answer(one, 0.0)
    assert [seq for _, _, seq in drain(one)] == list(range(1, HELD + 500))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["now", "snapshot", "ring"]))
def test_whatever_is_lost_every_message_comes_once_and_in_order(data, start):
    wire, one = Wire(), client(start)
    before = data.draw(st.integers(0, 5))
    for sweep in range(before):
        wire.send(result(sweep))
    wire.answer(one, 0.0)
    fates = data.draw(st.lists(st.sampled_from(["heard", "lost", "twice", "answer"]), max_size=40))
    heard_at = None
    for number, fate in enumerate(fates):
        message = wire.send(result(number, element="Cu" if number % 3 else "Zn"))
        if fate in ("heard", "twice", "answer"):
            heard_at = number if heard_at is None else heard_at
            one.hear(message, 0.0)
        if fate == "twice":
            one.hear(message, 0.0)
        if fate == "answer":
            wire.answer(one, 0.0)
    one.hear(wire.send(status()), 0.0)
    wire.answer(one, 0.0)
    got = [key for key in drain(one) if key[0] != "status."]
    assert len(set(got)) == len(got)
    for topic in {key[0] for key in got}:
        numbers = [seq for name, _, seq in got if name == topic]
        assert numbers == sorted(numbers)
    if start != "now":  # nothing sent after the snapshot is ever missing
        new = {(m.topic, "first", m.header["seq"]) for m in wire.sent[before:-1]}
        assert new <= set(got)
    assert all(isinstance(ask, AskReplay | AskSnapshot) for ask in one.requests)

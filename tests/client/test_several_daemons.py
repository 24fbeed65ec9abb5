"""One follower, and one page, of several daemons."""

import re
import time
from contextlib import ExitStack

import pytest

from exafsd.client import Follower, Message
from exafsd.client.owed import Delivered
from exafsd.dashboard import words
from exafsd.dashboard.state import State
from exafsd.publishing import Publisher
from exafsd.testing.parts import python_process
from messages import result, run_start, status, until


@pytest.fixture
def two():
    publishers = [Publisher("tcp://127.0.0.1:*", heartbeat=0.1) for _ in range(2)]
    yield publishers
    for publisher in publishers:
        publisher.close()


def addresses(publishers):
    return [publisher.address for publisher in publishers]


def together(follower, publishers):
    """Until the follower has heard all."""

    def heard():
        for publisher in publishers:
            publisher.send(status())
        follower.receive(0.05)
        return all(follower.statuses.values())

    until(heard)


def received(follower, count):
    messages = []
    until(lambda: len(messages) >= count or messages.append(follower.receive(1.0)), 20)
    assert follower.receive(0.3) is None
    return messages


def test_outcomes_of_all_come_once_though_one_goes_on_with_runs_of_another(two):
    events = []
    with Follower(addresses(two), "result.", start="now", on_event=events.append) as follower:
        together(follower, two)
        for sweep in (1, 2, 3):
            two[0].send(result(sweep, run="a"))
            two[1].send(result(sweep, run="b"))
        first = received(follower, 6)
        for sweep in (1, 2, 3, 4):
            two[1].send(result(sweep, run="a", delivery="resumed"))
        second = received(follower, 1)
        two[0].send(result(4, run="a"))  # what the former had still to send
        two[0].send(result(5, run="b"))
        third = received(follower, 1)
        assert {follower.address_of(m) for m in first} == set(addresses(two))
        assert follower.address_of(Message("", {"publisher": "of old"}, {})) is None
        two[0].close()

        def gone():
            two[1].send(status())
            follower.receive(0.1)
            return "gone" in [e.kind for e in events]

        until(gone, 20)
    by_run = {run: [m.header["sweep"] for m in first if m.header["run_uid"] == run] for run in "ab"}
    assert by_run == {"a": [1, 2, 3], "b": [1, 2, 3]}
    assert [m.header["id"] for m in second] == ["a/primary/transmission/K/4"]
    assert [m.header["id"] for m in third] == ["b/primary/transmission/K/5"]
    assert [e.address for e in events if e.kind == "gone"] == [two[0].address]


def test_one_address_for_requests_does_not_serve_two_daemons():
    with pytest.raises(ValueError, match="each of several daemons says where it is"):
        Follower(["tcp://127.0.0.1:1", "tcp://127.0.0.1:3"], answers="tcp://127.0.0.1:2")


def test_outcomes_of_a_run_of_any_length_are_remembered():
    delivered = Delivered()

    def again(sweep, **more):
        return delivered.again({"id": f"run/primary/transmission/K/{sweep}", **more})

    order = [*range(1, 60_000, 2), *range(2, 60_000, 2)]
    assert not any(again(sweep, publisher="a") for sweep in order)
    assert len(next(iter(delivered._series.values())).spans) == 1
    assert all(again(n, publisher="b", delivery="resumed") for n in range(1, 60_000))
    assert not again(1, delivery="replay") and not again(1, revision=2)
    assert again(1, publisher="a") and not again(1, publisher="b")  # measured again


def test_the_page_says_how_each_daemon_is():
    state = State(addresses=["tcp://one:1", "tcp://two:1"])
    state.take(Message("status.", status().model_dump(mode="json"), {}), "tcp://two:1")
    state.heard(address="tcp://two:1")
    lines = words.health_lines(state.healths())
    assert 'tcp://one:1</span><span class="item">waiting for the daemon' in lines
    assert "the daemon is running" in lines.partition("tcp://two:1")[2]
    late = time.monotonic() + 2.5
    alerts = [words.alert(state.health(late, a), a) for a, _ in state.healths()]
    assert "No daemon answers at tcp://one:1" in alerts[0] and "is silent" in alerts[1]


def test_the_dashboard_command_follows_several(two, tmp_path):
    with ExitStack() as stack:
        command = ("-m", "exafsd.cli", "dashboard", *addresses(two), "--port", "0")
        page = stack.enter_context(python_process("dashboard", tmp_path, *command))
        url = until(lambda: re.search(r"dashboard at (\S+), following (.*)", page.tail()), 60)
        assert url[2].strip() == ", ".join(addresses(two))
        for number, publisher in enumerate(two):
            publisher.send(status())
            publisher.send(run_start(f"run-{number}"))
            publisher.send(result(1, run=f"run-{number}"))
        from urllib.request import urlopen

        def exported(run):
            two[0].send(status())
            two[1].send(status())
            try:
                return run in urlopen(f"{url[1]}export/run.csv?run={run}").read().decode()
            except OSError:
                return False

        for number in (0, 1):
            until(lambda run=f"run-{number}": exported(run), 30)

"""Results out: numbering, addresses, a client that needs nothing else."""

import subprocess
import sys

import pytest

from exafsd.client import Subscriber
from exafsd.contract.messages import RunStop
from exafsd.publishing import AddressError, Publisher, check_address


def run_stop(uid="u"):
    return RunStop(run_uid=uid, scan_id=1, exit_status="success", results=1, rejected=0)


@pytest.fixture
def publisher():
    one = Publisher("tcp://127.0.0.1:*")
    yield one
    one.close()


def connected(publisher, subscriber):
    """PUB drops what it sends before a subscriber is known."""
    for _ in range(200):
        publisher.send(run_stop("probe"))
        if subscriber.receive(0.05):
            break
    while subscriber.receive(0.05):
        pass


def test_messages_are_numbered_by_topic(publisher):
    with Subscriber(publisher.address, "run.stop.") as subscriber:
        connected(publisher, subscriber)
        for _ in range(3):
            publisher.send(run_stop())
        got = [subscriber.receive(2).header for _ in range(3)]
    assert [g["seq"] - got[0]["seq"] for g in got] == [0, 1, 2]
    assert {g["publisher"] for g in got} == {publisher.uuid}
    assert got[0]["time"] <= got[1]["time"]


def test_an_address_in_use_is_said(publisher):
    with pytest.raises(AddressError, match="cannot be bound"):
        Publisher(publisher.address)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5580", "tcp://*:5580", "tcp://192.168.1.4:1"])
def test_only_loopback_is_bound_unless_waived(address):
    with pytest.raises(AddressError, match="loopback"):
        check_address(address, insecure=False)
    check_address(address, insecure=True)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://localhost:1", "ipc:///tmp/x"])
def test_loopback_is_allowed(address):
    check_address(address, insecure=False)


def test_client_imports_only_its_three_packages():
    code = (
        "import sys, exafsd.client, exafsd.contract;"
        "allowed = {'numpy', 'pydantic', 'zmq', 'exafsd'};"
        "heavy = {'larch', 'scipy', 'bluesky', 'tiled', 'onnxruntime', 'msgpack', 'typer', 'rich'};"
        "bad = heavy & {m.split('.')[0] for m in sys.modules};"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_foreign_publisher_is_refused_by_the_client():
    import zmq

    from exafsd.client import FrameError

    context = zmq.Context()
    foreign = context.socket(zmq.PUB)
    port = foreign.bind_to_random_port("tcp://127.0.0.1")
    try:
        with Subscriber(f"tcp://127.0.0.1:{port}") as subscriber:
            for _ in range(200):
                foreign.send_multipart([b"result.", b"not json"])
                try:
                    if subscriber.receive(0.05) is not None:
                        pytest.fail("nonsense was taken for a message")
                except FrameError:
                    break
            else:
                pytest.fail("nothing arrived")
    finally:
        foreign.close(linger=0)
        context.term()

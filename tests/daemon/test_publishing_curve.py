"""Keys: who is let in to which socket, and what key files must look like."""

import os
import stat

import pytest
import zmq

from exafsd.client import Answers, Follower, NoAnswer, Subscriber
from exafsd.commands.check import check_settings
from exafsd.publishing import AddressError, KeyFileError, Publisher, ServerKeys, make_keys
from exafsd.service.wiring import make_publisher
from exafsd.settings.settings import load
from messages import joined, result, status, until
from typed_commands import exafsd


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "keys"
    make_keys(folder, ["alice"])
    return folder


@pytest.fixture
def publisher(keys):
    server = ServerKeys.load(keys / "server.key_secret", keys / "allowed")
    one = Publisher("tcp://127.0.0.1:*", keys=server)
    one.send(result(1))
    yield one
    one.close()


def stranger(tmp_path, keys):
    """Keys of a client that the server does not know, but that knows the server's key."""
    make_keys(tmp_path / "other", ["mallory"])
    kit = tmp_path / "other" / "clients" / "mallory"
    (kit / "server.key").write_bytes((keys / "server.key").read_bytes())
    return kit


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_right_key_gets_everything_from_both_sockets(publisher, keys):
    kit = keys / "clients" / "alice"
    with (
        Subscriber(publisher.address, keys=kit) as subscriber,
        Answers(publisher.address, keys=kit) as ask,
    ):
        joined(publisher, subscriber)
        publisher.send(result(2))
        assert subscriber.receive(5).header["sweep"] == 2
        assert ask.snapshot("result.")[0].header["sweep"] == 2


@pytest.mark.parametrize("who", ["plain", "stranger", "wrong server"])
def test_plain_and_unknown_peers_get_nothing_and_are_counted(publisher, keys, tmp_path, who):
    if who == "plain":
        kit = None
    elif who == "stranger":
        kit = stranger(tmp_path, keys)
    else:
        make_keys(tmp_path / "elsewhere", ["alice"])
        kit = tmp_path / "elsewhere" / "clients" / "alice"
    good = keys / "clients" / "alice"
    with (
        Subscriber(publisher.address, keys=kit) as nosy,
        Subscriber(publisher.address, keys=good) as friend,
        Answers(publisher.address, keys=kit, timeout=1.0) as ask,
    ):
        joined(publisher, friend)
        until(lambda: publisher._answers.drops["refused_peer"] >= 2)
        for sweep in range(2, 22):
            publisher.send(result(sweep))
        for sweep in range(2, 22):
            assert friend.receive(5).header["sweep"] == sweep
        with pytest.raises(NoAnswer):
            ask.snapshot()
        assert nosy.receive(0.5) is None
        publisher.send(status(drops={}))
        assert friend.receive(5).header["drops"]["refused_peer"] >= 2


def test_a_key_is_added_and_taken_away_without_a_restart(publisher, keys):
    make_keys(keys, ["bob"])
    kit = keys / "clients" / "bob"
    with Answers(publisher.address, keys=kit) as ask:
        assert ask.snapshot("result.")
    allowed = keys / "allowed" / "bob.key"
    public_keys = allowed.read_bytes()
    allowed.unlink()
    with Answers(publisher.address, keys=kit, timeout=0.7) as ask, pytest.raises(NoAnswer):
        ask.snapshot("result.")
    with Follower(publisher.address, keys=kit, silent=0.5) as follower:
        assert follower.receive(1.0) is None
        allowed.write_bytes(public_keys)  # a follower that was refused comes in by itself
        until(lambda: follower.receive(0.1))


def test_a_damaged_client_key_only_locks_out_its_owner(publisher, keys):
    bad = keys / "allowed" / "damaged.key"
    bad.write_text("nonsense\n")
    try:
        with Answers(publisher.address, keys=keys / "clients" / "alice") as ask:
            assert ask.snapshot("result.")
    finally:
        bad.unlink()


def test_with_keys_other_addresses_are_allowed(keys):
    server = ServerKeys.load(keys / "server.key_secret", keys / "allowed")
    with pytest.raises(AddressError, match=r"exafsd keys"):
        Publisher("tcp://0.0.0.0:*")
    one = Publisher("tcp://0.0.0.0:*", keys=server)
    try:
        port = one.address.rpartition(":")[2]
        here = f"tcp://127.0.0.1:{port}"
        one.send(result(1))
        with Answers(here, keys=keys / "clients" / "alice") as ask:
            assert ask.snapshot("result.")
        with Answers(here, timeout=0.7) as ask, pytest.raises(NoAnswer):
            ask.snapshot()
    finally:
        one.close()


def test_key_files_are_private_and_never_overwritten(tmp_path):
    folder = tmp_path / "keys"
    paths = make_keys(folder, ["alice", "bob"])
    assert mode(folder) == 0o700
    secrets = [path for path in paths if path.name.endswith("_secret")]
    assert {path.name for path in secrets} == {
        "server.key_secret", "alice.key_secret", "bob.key_secret"
    }  # fmt: skip
    assert {mode(path) for path in secrets} == {0o600}
    assert all(path.is_file() for path in paths)
    server = (folder / "server.key_secret").read_bytes()
    with pytest.raises(KeyFileError, match="already"):
        make_keys(folder, ["alice"])
    make_keys(folder, ["carol"])
    assert (folder / "server.key_secret").read_bytes() == server
    for name in ("../evil", "", ".hidden", "a/b", "x" * 80):
        with pytest.raises(KeyFileError, match="name"):
            make_keys(folder, [name])
    folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        make_keys(folder, ["dave"])


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path, wrong):
    folder = tmp_path / "keys"
    make_keys(folder, ["alice"])
    secret = folder / "server.key_secret"
    secret.chmod(wrong)
    settings = load(publish={"curve": {"secret": secret, "clients": folder / "allowed"}})
    with pytest.raises(KeyFileError, match=r"read by others.*chmod 600"):
        make_publisher(settings)
    assert any("chmod 600" in problem for problem in check_settings(settings)[1])
    secret.chmod(0o400)
    assert not check_settings(settings)[1]
    (folder / "allowed").chmod(0o777)
    assert any("chmod 700" in problem for problem in check_settings(settings)[1])


def test_files_that_are_no_keys_are_refused(tmp_path):
    folder = tmp_path / "keys"
    make_keys(folder, ["alice"])
    allowed = folder / "allowed"
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("x")
    nonsense.chmod(0o600)
    (folder / "server.key").chmod(0o600)
    for secret, clients, why in (
        (tmp_path / "missing", allowed, "does not exist"),
        (nonsense, allowed, "not a key file"),
        (folder / "server.key", allowed, "no secret key"),
        (folder / "server.key_secret", tmp_path / "missing", "does not exist"),
        (folder / "server.key_secret", nonsense, "not a folder"),
    ):
        with pytest.raises(KeyFileError, match=why):
            ServerKeys.load(secret, clients)
    with pytest.raises(ValueError, match="not the folder of a client"):
        Subscriber("tcp://127.0.0.1:9", keys=tmp_path)


def test_the_command_makes_keys_and_the_daemon_refuses_open_ones(tmp_path):
    folder = tmp_path / "keys"
    done = exafsd("keys", folder, "--client", "alice")
    assert str(folder / "clients" / "alice") in done.stdout
    exafsd("keys", folder, "--client", "alice", expect=1)
    secret = folder / "server.key_secret"
    config = tmp_path / "exafsd.toml"
    config.write_text(
        '[publish]\naddress = "tcp://0.0.0.0:*"\n'
        f'curve = {{ secret = "{secret}", clients = "{folder / "allowed"}" }}\n'
    )
    exafsd("check", "--config", config)
    secret.chmod(0o644)
    for command in ("check", "run"):
        done = exafsd(command, "--config", config, expect=1)
        assert "chmod 600" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_plain_pyzmq_client_with_keys(publisher, keys):
    """As docs/howto/secure.md has it."""
    kit = keys / "clients" / "alice"
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    server, _ = zmq.auth.load_certificate(kit / "server.key")
    public, secret = zmq.auth.load_certificate(kit / "alice.key_secret")
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = server, public, secret
    socket.setsockopt(zmq.SUBSCRIBE, b"result.")
    socket.connect(publisher.address)

    def arrived():
        publisher.send(result(1))
        return socket.poll(50)

    until(arrived)
    assert socket.recv_multipart()[0] == b"result.Cu.K."
    socket.close(linger=0)
    context.term()


def test_the_umask_does_not_matter(tmp_path):
    before = os.umask(0)
    try:
        make_keys(tmp_path / "keys", ["alice"])
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys" / "server.key_secret") == 0o600
    assert mode(tmp_path / "keys" / "clients" / "alice" / "alice.key_secret") == 0o600
    ServerKeys.load(tmp_path / "keys" / "server.key_secret", tmp_path / "keys" / "allowed")

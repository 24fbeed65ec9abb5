"""CURVE: key files for server and clients, and who is let in."""

import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator

from exafsd.logs import get_logger

log = get_logger(__name__)

SERVER = "server"
#: what a client may be called: it becomes a file name
CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")


class KeyFileError(ValueError):
    """A key file that is missing, wrong, or open to others."""


@dataclass(frozen=True)
class ServerKeys:
    """The server's own pair, and the folder of public keys that are let in."""

    public: bytes
    secret: bytes
    clients: Path

    @classmethod
    def load(cls, secret: Path, clients: Path) -> "ServerKeys":
        """Read and check.

        Raises
        ------
        KeyFileError
            If others than the owner can read the secret or put a key into the folder, or either
            is not there.
        """
        for path, forbidden, what in (
            (secret, stat.S_IRWXG | stat.S_IRWXO, "can be read by others than its owner"),
            (clients, stat.S_IWGRP | stat.S_IWOTH, "can be written by others than its owner"),
        ):
            if not path.exists():
                raise KeyFileError(f"{path} does not exist; `exafsd keys DIR` makes key files")
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & forbidden:
                right = "700" if path.is_dir() else "600"
                raise KeyFileError(f"{path} {what} (mode {mode:o}): chmod {right} {path}")
        public, private = _read(secret)
        if private is None:
            raise KeyFileError(f"{secret} has no secret key in it; name the file *.key_secret")
        if not clients.is_dir():
            raise KeyFileError(f"{clients} is not a folder of client keys")
        return cls(public, private, clients)

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Let only keyed peers connect to a socket that is not bound yet."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_server = True


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return load_certificate(path)
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} is not a key file: {error}") from None


class Gate:
    """Answers libzmq's question whether a client's key is known.

    The folder is read again when it has changed, so keys are added and taken away without a
    restart; who is connected already stays.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], clients: Path) -> None:
        self._folder = clients
        self._changed: int | None = None
        self._known: frozenset[bytes] = frozenset()
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether to let in the owner of a public key; called by the authenticator."""
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed != self._changed:
                self._known = frozenset(map(self._public, self._folder.glob("*.key"))) - {b""}
                self._changed = changed
        except OSError as error:
            log.warning("client keys cannot be read", detail=str(error))
            return False
        return key in self._known

    def _public(self, path: Path) -> bytes:
        try:
            return _read(path)[0]
        except KeyFileError as error:
            log.warning("client key is left out", detail=str(error))
            return b""

    def close(self) -> None:
        """End the authenticator."""
        self._authenticator.stop()


def make_keys(folder: Path, clients: list[str]) -> list[Path]:
    """Make the server's key if there is none, and keys for clients; the files made.

    Parameters
    ----------
    folder
        Gets ``server.key`` (public) and ``server.key_secret``; ``allowed/NAME.key``, the public
        keys that the server lets in; and ``clients/NAME/``, what the client needs.

    Raises
    ------
    KeyFileError
        If the folder is open to others, or a key is there already: none is ever overwritten.
    """
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
    elif stat.S_IMODE(folder.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{folder} can be opened by others than its owner: chmod 700 {folder}")
    for name in clients:
        if not CLIENT.fullmatch(name):
            raise KeyFileError(f"{name!r} cannot be a client's name: letters, digits, _ . -")
        if (folder / "clients" / name).exists() or (folder / "allowed" / f"{name}.key").exists():
            raise KeyFileError(f"{folder / 'clients' / name} is there already")
    paths: list[Path] = []
    server = folder / f"{SERVER}.key"
    if not server.exists():
        paths += _pair(folder, SERVER, folder, folder)
    for name in clients:
        kit, allowed = folder / "clients" / name, folder / "allowed"
        for place in (kit.parent, kit, allowed):
            place.mkdir(mode=0o700, exist_ok=True)
        paths += _pair(folder, name, allowed, kit)
        (kit / server.name).write_bytes(server.read_bytes())
        paths.append(kit / server.name)
    return paths


def _pair(folder: Path, name: str, public_to: Path, secret_to: Path) -> list[Path]:
    """Make a key pair; the secret is readable for its owner only from the beginning."""
    with tempfile.TemporaryDirectory(dir=folder) as private_folder:  # of mode 0700
        public, secret = (Path(path) for path in create_certificates(private_folder, name))
        secret.chmod(0o600)
        public.chmod(0o644)
        return [public.rename(public_to / public.name), secret.rename(secret_to / secret.name)]

"""Keys of a client, for a publisher that lets in only those it knows."""

from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import load_certificate  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True)
class ClientKeys:
    """Public key of the server, and the client's own pair."""

    server: bytes
    public: bytes
    secret: bytes

    @classmethod
    def load(cls, folder: Path | str) -> "ClientKeys":
        """Keys from the folder that ``exafsd keys`` made for this client.

        Raises
        ------
        ValueError
            If it does not hold ``server.key`` and one ``*.key_secret``.
        """
        server = Path(folder) / "server.key"
        own = list(Path(folder).glob("*.key_secret"))
        if not server.is_file() or len(own) != 1:
            raise ValueError(
                f"{folder} is not the folder of a client: it needs server.key and one"
                " NAME.key_secret, as `exafsd keys` puts them into DIR/clients/NAME"
            )
        public, secret = load_certificate(own[0])
        if secret is None:
            raise ValueError(f"{own[0]} has no secret key in it")
        return cls(load_certificate(server)[0], public, secret)

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Use the keys on a socket that is not connected yet."""
        socket.curve_serverkey = self.server
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret

"""The PUB socket: messages out, numbered by topic. Used from one thread only."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import zmq
from numpy.typing import NDArray

from exafsd.contract.frames import encode
from exafsd.contract.messages import BaseMessage, topic_of

log = logging.getLogger(__name__)

#: s that messages already queued may take to leave on close
LINGER = 1.0


class AddressError(ValueError):
    """An address that must not or cannot be bound."""


def check_address(address: str, insecure: bool) -> None:
    """Refuse anything but loopback, unless waived.

    Raises
    ------
    AddressError
        If others than this machine could connect.
    """
    if insecure or address.startswith(("ipc://", "inproc://")):
        return
    try:
        host = urlparse(address.replace("*", "0")).hostname or ""
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise AddressError(
            f"publish.address {address!r} is not a loopback address: anyone who can reach it could"
            " read the results. Use tcp://127.0.0.1:PORT, or set publish.insecure = true"
        )


class Publisher:
    """Sends messages of schema ``exafsd/1``.

    Parameters
    ----------
    address
        ``tcp://127.0.0.1:5580``; with port ``*`` any free one.
    high_water
        Messages kept for each subscriber that does not keep up.

    Raises
    ------
    AddressError
        If the address cannot be bound.
    """

    def __init__(
        self,
        address: str,
        high_water: int = 1000,
        insecure: bool = False,
        address_file: Path | None = None,
    ) -> None:
        check_address(address, insecure)
        self.uuid = str(uuid.uuid4())
        self._seq: Counter[str] = Counter()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set_hwm(high_water)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise AddressError(
                f"publish.address {address!r} cannot be bound: {error}; is another exafsd running?"
            ) from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if address_file is not None:
            # whole or not at all: others wait for this file
            partial = address_file.with_name(address_file.name + ".part")
            partial.write_text(self.address + "\n")
            partial.replace(address_file)
        log.info("publishing address=%s publisher=%s", self.address, self.uuid)

    def send(self, message: BaseMessage, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Number, stamp and send a message."""
        topic = topic_of(message)
        self._seq[topic] += 1
        message.publisher = self.uuid
        message.seq = self._seq[topic]
        message.time = time.time()
        self._socket.send_multipart(encode(message, arrays), copy=False)

    def close(self) -> None:
        """Send what is queued and close."""
        self._socket.close(linger=int(LINGER * 1000))
        self._context.term()

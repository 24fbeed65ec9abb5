"""Results out, over ZeroMQ."""

from exafsd.publishing.keys import KeyFileError, ServerKeys, make_keys
from exafsd.publishing.library import Library
from exafsd.publishing.publisher import AddressError, Publisher, check_address
from exafsd.publishing.ring import Ring

__all__ = [
    "AddressError",
    "KeyFileError",
    "Library",
    "Publisher",
    "Ring",
    "ServerKeys",
    "check_address",
    "make_keys",
]

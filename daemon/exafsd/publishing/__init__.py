"""Results out, over ZeroMQ."""

from exafsd.publishing.publisher import AddressError, Publisher, check_address

__all__ = ["AddressError", "Publisher", "check_address"]

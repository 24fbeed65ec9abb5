"""exafsd: live structural parameters from quick-XAFS scans.

The bare installation is the contract and the client; everything that reduces, infers and
publishes needs the ``daemon`` extra.
"""

from exafsd._version import __version__

__all__ = ["__version__"]

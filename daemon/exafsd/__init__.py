"""exafsd: live structural parameters from quick-XAFS scans.

What a script needs is found here: `Live` (exafsd inside a RunEngine's process), `load_settings`,
`Subscriber` and `Follower` (results over ZeroMQ), and `dumps` (documents for bluesky's proxy).
The bare installation is the contract and the client; everything that reduces, infers and
publishes needs the ``daemon`` extra.
"""

from typing import TYPE_CHECKING

from exafsd._version import __version__
from exafsd.lazy import front_door

if TYPE_CHECKING:
    from exafsd.client import Follower, Subscriber
    from exafsd.codec import dumps
    from exafsd.service.live import Live
    from exafsd.settings.settings import load as load_settings

__all__ = ["Follower", "Live", "Subscriber", "__version__", "dumps", "load_settings"]

__getattr__ = front_door(
    __name__,
    {
        "Follower": "exafsd.client:Follower",
        "Live": "exafsd.service.live:Live",
        "Subscriber": "exafsd.client:Subscriber",
        "dumps": "exafsd.codec:dumps",
        "load_settings": "exafsd.settings.settings:load",
    },
)

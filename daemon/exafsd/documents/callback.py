"""Source inside a RunEngine's own process: ``RE.subscribe(callback)``."""

from collections.abc import Mapping
from typing import Any

from exafsd.codec import plain
from exafsd.documents.inbox import Inbox


class Callback:
    """Hands documents to the daemon's own thread and returns at once; never raises into a plan.

    A RunEngine holds bound methods weakly but callables strongly, so subscribe the object.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take a copy of a document, since the RunEngine adds keys to its own."""
        self._inbox.put(name, plain(document))

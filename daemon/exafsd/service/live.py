"""exafsd inside a RunEngine's own process."""

import threading
from typing import Any

from exafsd.documents.callback import Callback
from exafsd.service.wiring import make_service
from exafsd.settings import Settings


class Live:
    """exafsd inside a RunEngine's process: ``RE.subscribe(live)``, and `close` at the end.

    The work is done in a thread of its own; a document costs the plan microseconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._service, inbox = make_service(settings, proxy=False)
        self._callback = Callback(inbox)
        self._thread = threading.Thread(target=self._service.run, name="exafsd", daemon=True)
        self._thread.start()

    def __call__(self, name: str, document: Any) -> None:
        """Take a document."""
        self._callback(name, document)

    def close(self) -> None:
        """Finish what has been received and stop."""
        self._service.stop()
        self._thread.join()

"""The one subscription of the process, in a thread of its own."""

import threading
from collections.abc import Sequence
from pathlib import Path

from exafsd.client import Event, Follower, FrameError
from exafsd.dashboard.state import State
from exafsd.logs import get_logger

log = get_logger(__name__)


class Receiver(threading.Thread):
    """Follows the daemons and puts what it hears into the state.

    Parameters
    ----------
    state
        Where messages go.
    addresses, answers, keys
        As of `exafsd.client.Follower`.
    """

    def __init__(
        self,
        state: State,
        addresses: Sequence[str],
        answers: str | None = None,
        keys: Path | None = None,
    ) -> None:
        super().__init__(name="receiver", daemon=True)
        self._state = state
        self._over = threading.Event()
        # made here, so that wrong keys or addresses are told at once; used only by the thread
        self._follower = Follower(
            addresses, start="ring", answers=answers, keys=keys, on_event=self._tell
        )

    def _tell(self, event: Event) -> None:
        self._state.tell(event)
        if event.kind in ("lost", "unanswered"):
            log.warning(
                event.kind, address=event.address,
                topic=event.topic, first=event.first, last=event.last, detail=event.detail,
            )  # fmt: skip

    def run(self) -> None:
        """Receive until `stop`."""
        with self._follower as follower:
            while not self._over.is_set():
                try:
                    message = follower.receive(0.2)
                    if message is not None:
                        address = follower.address_of(message)
                        if address is not None:
                            self._state.heard(address=address)
                        self._state.take(message, address)
                except (FrameError, KeyError, TypeError, ValueError) as error:
                    # one strange message must not end the page
                    log.warning("message not understood", detail=repr(error))

    def stop(self) -> None:
        """End the thread and close its sockets."""
        self._over.set()
        self.join(5.0)

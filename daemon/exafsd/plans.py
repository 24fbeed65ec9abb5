"""Plan stubs for a RunEngine that listens to the daemon. They need bluesky and the client alone."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import bluesky.plan_stubs as bps

from exafsd.client import DEFAULT_ADDRESS, Follower, FrameError, Message

#: s between looks where no sweep is measured by the stub itself
LOOK = 0.1
#: messages taken at one look: a plan must not be held up by a daemon that sends many
TAKEN = 1000

Plan = Generator[Any, Any, Any]


class Stopped(NamedTuple):
    """Why measuring ended, the latest word on convergence, and how many sweeps were measured.

    `why` is ``converged``, ``timeout``, ``sweeps`` (as many as were allowed) or ``gone``: the
    daemon was silent.
    """

    why: Literal["converged", "timeout", "sweeps", "gone"]
    convergence: dict[str, Any] | None
    sweeps: int


def until_converged(
    run_uid: str,
    sweep: Callable[[], Plan] | None = None,
    *,
    timeout: float,
    address: str = DEFAULT_ADDRESS,
    answers: str | None = None,
    keys: Path | str | None = None,
    channel: str | None = None,
    edge: str | None = None,
    most: int | None = None,
    silent: float = 10.0,
) -> Plan:
    """Measure sweeps until the daemon says that the run may be stopped; never for ever.

    What is to be reached is in the daemon's ``[convergence]``, or in the run's start document as
    ``exafsd={"convergence": {"parameter": ..., "target": ...}}``. A daemon that is away, or has no
    such target, does not stop the plan before its time; nor does it raise.

    Parameters
    ----------
    run_uid
        Of the run that is open, as ``bps.open_run`` returns it.
    sweep
        Makes the plan that measures one sweep; None: sweeps are measured by something else, for
        example a flyer, and this only waits.
    timeout
        s after which it ends in any case, but for the sweep under way.
    address, answers, keys
        Of the daemon, as of `exafsd.client.Follower`.
    channel, edge
        Which results count, for example ``fluorescence`` and ``K``; None: the first that comes.
    most
        Sweeps to measure at most; None: as many as the time allows.
    silent
        s without a message of the daemon, which sends one a second at least, after which it is
        taken to be gone.

    Returns
    -------
    Stopped
        Why it ended.

    Raises
    ------
    ValueError
        If `timeout` is not a number above 0.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    listening = _Listening(run_uid, channel, edge, address, answers, keys)
    with closing(listening):
        start, measured = time.monotonic(), 0
        while True:
            listening.look()
            why = listening.done(silent)
            if why is None and most is not None and measured >= most:
                why = "sweeps"
            if time.monotonic() - start >= timeout:
                why = why or "timeout"
            if why is not None:
                return Stopped(why, listening.convergence, measured)
            if sweep is None:
                yield from bps.sleep(LOOK)
            else:
                yield from sweep()
                measured += 1


class _Listening:
    """What the daemon says of a run."""

    def __init__(
        self,
        run_uid: str,
        channel: str | None,
        edge: str | None,
        address: str,
        answers: str | None,
        keys: Path | str | None,
    ) -> None:
        self._run_uid, self._channel, self._edge = run_uid, channel, edge
        self.convergence: dict[str, Any] | None = None
        self._heard = time.monotonic()
        self._follower = Follower(address, ("result.", "status."), answers=answers, keys=keys)

    def look(self) -> None:
        """Take what has come, without waiting."""
        for _ in range(TAKEN):
            try:
                message = self._follower.receive(0)
            except FrameError:  # of something else that publishes there
                continue
            if message is None:
                return
            self._heard = time.monotonic()
            self._take(message)

    def done(self, silent: float) -> Literal["converged", "gone"] | None:
        """Why to end, if there is a reason."""
        if self.convergence is not None and self.convergence.get("reached"):
            return "converged"
        return "gone" if time.monotonic() - self._heard > silent else None

    def close(self) -> None:
        """Close the sockets."""
        self._follower.close()

    def _take(self, message: Message) -> None:
        header = message.header
        if header["kind"] != "result" or header["run_uid"] != self._run_uid:
            return
        if self._channel not in (None, header["channel"]):
            return
        if self._edge not in (None, header["edge"]):
            return
        if header.get("convergence") is not None:
            self.convergence = header["convergence"]

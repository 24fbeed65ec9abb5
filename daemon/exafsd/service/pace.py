"""Whether there is time for fits and compositions: a rule on what they cost and how fast they come.

A bucket of time: it fills by `SHARE` of the time that passes, and every spectrum takes what it
would cost to process it completely, whether that is done or not. So it is done for all spectra of
a scan or for none, but for the first of a fast scan.
"""

from collections import deque

#: s that a spectrum takes with fits and composition, until that has been measured. 400 points take
#: 4 to 6 ms on two shared cores, 4,000 points with energies of their own 20 ms.
COST = 5e-3
#: batches of which the cheapest counts: a pause of the machine is not the cost of a spectrum
MEASURED = 3
#: s after which one batch is processed completely where there is no room, to measure what it costs
AGAIN = 10.0
#: Share of the time that spectra may take so: complete answers matter more than ms where scans are
#: slow; what waits too long is cut short all the same (`LATE`).
SHARE = 0.6
#: s that a spectrum is taken for at most: at 20 a second or fewer there is always room, however
#: busy the machine is
DEAREST = SHARE / 20
#: s in a full bucket: what the first spectra of a fast scan may take
FULL = 0.1
#: s in a bucket after a rush: until it has been made up for, two more have to pass
EMPTY = -2.0 * SHARE
#: s that one batch may take
LONGEST = 0.4
#: s that a sweep may have waited; beyond it the daemon is behind, and not just jittering. A few are
#: soon done, however long a busy machine let them wait.
LATE, LATE_FEW, FEW = 0.1, 1.0, 8


class Pace:
    """The bucket; times in s, of any clock that does not go back."""

    def __init__(self) -> None:
        self._content, self._filled = FULL, float("-inf")
        self._costs: deque[float] = deque([COST], maxlen=MEASURED)
        self._measured = float("-inf")

    def count(self, spectra: int, now: float, seconds: float, complete: bool) -> None:
        """Spectra that have been processed in so many `seconds`, `complete` or in short."""
        if complete and spectra:
            self._costs.append(seconds / spectra)
            self._measured = now
        self._fill(now)
        self._content = max(EMPTY, self._content - spectra * self._cost())

    def room(self, spectra: int, waited: float, now: float) -> bool:
        """Whether `spectra` more, which have `waited` already, can be processed completely."""
        self._fill(now)
        if waited > (LATE if spectra > FEW else LATE_FEW) or spectra * self._cost() > LONGEST:
            return False
        return self._content > 0 or now - self._measured > AGAIN

    def _cost(self) -> float:
        return min(*self._costs, DEAREST)

    def _fill(self, now: float) -> None:
        self._content = min(FULL, self._content + SHARE * (now - self._filled))
        self._filled = now

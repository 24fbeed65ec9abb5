"""Whether there is time for the polish: a rule on how fast spectra come."""

from collections import deque

#: What a polish may take, s a spectrum. A first shell takes 1.5 to 2.9 ms on two shared cores.
POLISH = 3e-3
#: Share of the time that polishing may take. More would show in the latency of the next spectra.
SHARE = 0.2
#: s that a sweep may have waited; beyond it the daemon is behind, and not just jittering
LATE = 0.1
#: s over which spectra are counted: some sweeps of a slow scan, and soon enough for a fast one
WINDOW = 2.0


class Pace:
    """Counts spectra of the last `WINDOW`; times in s, of any clock that does not go back."""

    def __init__(self) -> None:
        self._counted: deque[tuple[float, int]] = deque()
        self._total = 0

    def count(self, spectra: int, now: float) -> None:
        """Spectra that have been processed."""
        self._counted.append((now, spectra))
        self._total += spectra

    def room(self, spectra: int, waited: float, now: float) -> bool:
        """Whether `spectra` more, which have `waited` already, can be polished."""
        while self._counted and self._counted[0][0] <= now - WINDOW:
            self._total -= self._counted.popleft()[1]
        return waited <= LATE and (self._total + spectra) * POLISH <= SHARE * WINDOW

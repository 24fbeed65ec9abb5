"""Whether there is time for fits and compositions: a rule on how fast spectra come."""

from collections import deque

#: s that a spectrum may take with fits and composition, until it has been measured. 400 points take
#: 4 to 6 ms on two shared cores, 4,000 points with energies of their own 20 ms.
COST = 5e-3
#: s that it is taken for at least
CHEAPEST = 1e-3
#: batches of which the cheapest counts: a pause of the machine is not the cost of a spectrum
MEASURED = 3
#: s after which a measured cost counts half if there was no room since, so that it is measured
#: again some time
HALVED = 10.0
#: Share of the time that spectra may take so. More would show in the latency of the next spectra.
SHARE = 0.4
#: s that a sweep may have waited; beyond it the daemon is behind, and not just jittering
LATE = 0.1
#: s over which spectra are counted: some sweeps of a slow scan, and soon enough for a fast one
WINDOW = 2.0


class Pace:
    """Counts spectra of the last `WINDOW`; times in s, of any clock that does not go back."""

    def __init__(self) -> None:
        self._counted: deque[tuple[float, int]] = deque()
        self._total = 0
        self._costs: deque[float] = deque([COST], maxlen=MEASURED)
        self._measured: float | None = None

    def count(self, spectra: int, now: float, seconds: float, complete: bool) -> None:
        """Spectra that have been processed in so many `seconds`, `complete` or in short."""
        self._counted.append((now, spectra))
        self._total += spectra
        if complete and spectra:
            self._costs.append(seconds / spectra)
            self._measured = now

    def room(self, spectra: int, waited: float, now: float) -> bool:
        """Whether `spectra` more, which have `waited` already, can be processed completely."""
        while self._counted and self._counted[0][0] <= now - WINDOW:
            self._total -= self._counted.popleft()[1]
        if self._measured is None:
            self._measured = now
        age = now - self._measured
        cost = max(CHEAPEST, min(self._costs) * 0.5 ** (age / HALVED))
        return waited <= LATE and (self._total + spectra) * cost <= SHARE * WINDOW

"""Memory of the daemon over a long time: resident size while spectra keep coming."""

import time
from pathlib import Path
from threading import Event, Thread

import psutil
from rates import daemon_site, measure

from documents import Load

#: sweeps of one run; the next begins when it has ended
RUN = 20_000
#: share of the spectra after which everything is warm: caches full, the allocator at its size
WARM = 0.1
#: s between two looks
STEP = 1.0
#: what may be left out under load is not
COMPOSITION = '[composition]\nenabled = "always"\n'


def measure_memory(folder: Path, spectra: int) -> dict[str, float]:
    """Sizes in MB, of the daemon alone, from the time when it is warm.

    Spectra of 500 points in array events, as fast as results come: copper oxide that is reduced,
    with composition and components of every spectrum.
    """
    sizes: list[tuple[int, float]] = []  # spectra until then, MB
    done = 0
    began = time.monotonic()
    lost = 0
    with daemon_site(folder, more=COMPOSITION) as site:
        process = psutil.Process(site.listener.process.pid)
        stopping = Event()

        def look() -> None:
            while not stopping.wait(STEP):
                sizes.append((done, process.memory_info().rss / 1e6))

        watching = Thread(target=look)
        watching.start()
        try:
            while done < spectra:
                # a tenth of a long run, so that the warm part of a short one is told apart
                run = min(RUN, max(spectra // 20, 500), spectra - done)
                lost += measure(site, Load(oxide=True), sweeps=run).lost
                done += run
                print(f"{done} spectra, {lost} lost, {sizes[-1][1]:.1f} MB", flush=True)
        finally:
            stopping.set()
            watching.join()
        children = sum(c.memory_info().rss for c in process.children(recursive=True)) / 1e6
    warm = [size for at, size in sizes if at >= WARM * spectra]
    return {
        "spectra": done,
        "lost": lost,
        "seconds": time.monotonic() - began,
        "start": sizes[0][1],
        "warm": warm[0],
        "most": max(warm),
        "end": warm[-1],
        "growth": max(warm) - warm[0],
        "children": children,
    }

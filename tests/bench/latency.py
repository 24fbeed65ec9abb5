"""Latency of two daemons in alternating blocks of one run, and the ratio with its upper bound.

``latency.py PAIR [--rate 100] [--points 500] [--blocks 10] [--seconds 10]``. The pairs are in
`PAIRS`. Each block is a run of array events to one of the daemons, with the other one idle beside
it; who begins changes from block to block. The bound is the upper end of a one-sided 95 % interval
of the mean of the blocks' log ratios, by Student's t.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from rates import Site, daemon_site, measure
from scipy.stats import t
from versus import BASE, checked_out

from documents import Load

#: ratios that may not be exceeded, of p50 and of p99; with composition more is done for a spectrum
BARS = {"composition": (1.5, 1.5)}
USUAL_BARS = (1.15, 1.30)
#: runs that a journal holds from before
OLD_RUNS, OLD_BYTES = 50_000, 4096
COMPOSITION = '[composition]\nenabled = "{}"\n'


def with_old_runs(folder: Path) -> AbstractContextManager[Site]:
    """A daemon whose journal is full of old runs, so that it deletes some at every run's start."""
    journal = folder / "journal"
    journal.mkdir(parents=True, mode=0o700)
    for number in range(OLD_RUNS):
        path = journal / f"20200101T{number:06d}-old-{number}.msgpack"
        path.write_bytes(bytes(OLD_BYTES))
        path.chmod(0o600)
    limit = f'[journal]\nfolder = "{journal}"\nmax_bytes = {OLD_RUNS * OLD_BYTES}\n'
    return daemon_site(folder / "site", journal=None, more=limit)


#: what is compared: the first is the control
PAIRS: dict[str, tuple[Callable[[Path], AbstractContextManager[Site]], ...]] = {
    "journal": (daemon_site, lambda folder: daemon_site(folder, journal=True)),
    "old-runs": (daemon_site, with_old_runs),
    "composition": tuple(
        lambda folder, choice=choice: daemon_site(folder, more=COMPOSITION.format(choice))
        for choice in ("off", "always")
    ),
}


def bound(ratios: np.ndarray) -> float:
    """Upper 95 % bound of the mean ratio."""
    logs = np.log(ratios)
    spread = logs.std(ddof=1) / np.sqrt(len(logs))
    return float(np.exp(logs.mean() + t.ppf(0.95, len(logs) - 1) * spread))


def compare(
    control: Site, tried: Site, load: Load, rate: float, blocks: int, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """p50 and p99 in ms of each block, (blocks, 2), of both."""
    rows: tuple[list, list] = [], []
    for block in range(blocks):
        for place in ((0, 1), (1, 0))[block % 2]:
            one = measure((control, tried)[place], load, seconds=seconds, rate=rate)
            if one.lost:
                raise SystemExit(f"{one.lost} outcomes lost")
            rows[place].append((one.p50, one.p99))
    return np.array(rows[0]), np.array(rows[1])


def main() -> None:
    """Measure a pair once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", choices=[*PAIRS, "base"])
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--noise", type=float, default=0.0, help="of an encoder, eV")
    parser.add_argument("--oxide", action="store_true", help="copper oxide that is reduced")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    load = Load(points=asked.points, noise=asked.noise, oxide=asked.oxide)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exafsd-latency-")))
        if asked.pair == "base":
            checkout = stack.enter_context(checked_out(BASE))
            pair = (lambda path: daemon_site(path, checkout=checkout), daemon_site)
        else:
            pair = PAIRS[asked.pair]
        sites = [stack.enter_context(make(folder / str(i))) for i, make in enumerate(pair)]
        control, tried = compare(*sites, load, asked.rate, asked.blocks, asked.seconds)
    bars = BARS.get(asked.pair, USUAL_BARS)
    for place, name in enumerate(("p50", "p99")):
        a, b = control[:, place], tried[:, place]
        limit = bound(b / a)
        print(
            f"{asked.pair} {name}: control {np.median(a):.2f} ms, tried {np.median(b):.2f} ms,"
            f" ratio {np.exp(np.log(b / a).mean()):.3f}, upper 95 % bound {limit:.3f},"
            f" bar {bars[place]}: {'met' if limit <= bars[place] else 'missed'}"
        )


if __name__ == "__main__":
    main()

"""The pipeline beside that of another commit: sweeps a second, in turn in one run.

``versus.py [--base COMMIT] [--rounds 3]`` prints a table of ratios. Every measurement is a process
of its own (`sweep_rate.py`), the two commits by turns, and the ratio is the median of the rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from documents import sweeps

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: the first edition, which compiles a plan for every grid
BASE = "2e15f6b"
#: of an encoder, eV
NOISE = 0.02


@dataclass(frozen=True)
class Case:
    """What is measured; `least` is the ratio to reach, 0 where there is none."""

    name: str
    points: int
    noise: bool
    batch: int
    count: int
    more: tuple[str, ...] = ()
    least: float = 0.0


CASES = (
    Case("new energies, 4,000 points, one by one", 4000, True, 1, 100, least=10.0),
    Case("new energies, 500 points, one by one", 500, True, 1, 250, least=5.0),
    Case("new energies, 500 points, by 64", 500, True, 64, 256),
    Case("repeated energies, 500 points, by 64", 500, False, 64, 2048, least=2.2),
    Case("repeated energies, 500 points, one by one", 500, False, 1, 500),
    Case("dispersive, 2,000 spectra of 1,000 points, by 64", 1000, False, 64, 2000),
    Case("two channels, 500 points, by 64", 500, False, 64, 1024,
         ("--channels", "transmission", "reference")),
    Case("with refinement and composition, 500 points, by 64", 500, False, 64, 256, ("--room",)),
)  # fmt: skip


def write_sweeps(folder: Path, case: Case) -> Path:
    """Sweeps of a case, (sweeps, 4, points), as many as have energies of their own."""
    path = folder / f"{case.points}-{'new' if case.noise else 'same'}.npz"
    if path.exists():
        return path
    columns = np.array(sweeps(case.points, even=True))
    if case.noise:
        rng = np.random.default_rng(3)
        columns = columns[np.arange(400) % len(columns)]
        columns[:, 0] += NOISE * rng.normal(size=columns[:, 0].shape)
    np.savez(path, sweeps=columns)
    return path


def rate(checkout: Path, data: Path, case: Case) -> dict[str, float]:
    """What `sweep_rate.py` says of the code of a checkout."""
    paths = [str(checkout / part) for part in ("daemon", "training")]
    command = [
        sys.executable, str(HERE / "sweep_rate.py"), str(data), "--batch", str(case.batch),
        "--count", str(case.count), *case.more,
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        command, env=environment, cwd=checkout, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Work tree of a commit, for a while."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="exafsd-base-") as name:
        checkout = Path(name) / "base"
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), commit], check=True)
        try:
            yield checkout
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


def measure_versus(
    base: str = BASE, rounds: int = 3, quick: bool = False
) -> list[tuple[Case, list[dict[str, float]], list[dict[str, float]]]]:
    """Cases with what was measured of the other commit, and of this one."""
    measured = []
    with checked_out(base) as checkout, tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            data = write_sweeps(Path(folder), case)
            old, new = [], []
            for _ in range(1 if quick else rounds):
                old.append(rate(checkout, data, case))
                new.append(rate(ROOT, data, case))
            measured.append((case, old, new))
            print(case.name, *(f"{summary(one):,.0f}" for one in (old, new)), flush=True)
    return measured


def summary(rates: list[dict[str, float]], name: str = "per_second") -> float:
    """Median of what the rounds gave."""
    return float(np.median([one[name] for one in rates]))


def rows_of(
    measured: list[tuple[Case, list[dict[str, float]], list[dict[str, float]]]],
) -> list[tuple[str, ...]]:
    """Rows of a table: rates, their ratio, and whether it is reached."""
    rows = []
    for case, old, new in measured:
        ratios = [b["per_second"] / a["per_second"] for a, b in zip(old, new, strict=True)]
        ratio = float(np.median(ratios))
        reached = f"{case.least:g}: {'met' if ratio >= case.least else 'missed'}"
        rows.append((
            case.name, f"{summary(old):,.0f}", f"{summary(new):,.0f}", f"{ratio:.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}", reached if case.least else "",
        ))  # fmt: skip
    old, new = (
        float(np.median([one["first_s"] for row in measured for one in row[place]]))
        for place in (1, 2)
    )
    rows.append(("cold start: s from imports to the first results", f"{old:.2f}", f"{new:.2f}",
                 f"{new / old:.2f}", "", ""))  # fmt: skip
    return rows


HEAD = ("sweeps a second", "base", "now", "ratio", "of each round", "to reach")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for row in (HEAD, *rows_of(measure_versus(asked.base, asked.rounds))):
        print(" | ".join(row))

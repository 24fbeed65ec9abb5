"""The networks' graphs beside those of another commit: time a spectrum, and how far outputs differ.

Run ``python tests/bench/graphs.py [COMMIT]``; times are the least of 30, by turns in one process.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from exafsd.contract.grid import K_GRID
from exafsd.inference.predictor import session

ROOT = Path(__file__).parents[2]
#: the last commit with paths as the last axis
BEFORE = "63574af"
TURNS, BATCHES = 30, (1, 16)


def spectra(count: int) -> dict[str, np.ndarray]:
    """A damped wave with noise, (count, 401), on data from 2 to 13 1/angstrom."""
    noise = np.random.default_rng(0).normal(size=(count, len(K_GRID)))
    chi_k2 = 0.2 * noise + np.sin(5 * K_GRID) * np.exp(-K_GRID / 8)
    mask = np.tile((K_GRID > 2) & (K_GRID < 13), (count, 1))
    return {"chi_k2": chi_k2.astype(np.float32), "mask": mask.astype(np.float32)}


def main() -> None:
    """Print a line for each network."""
    commit = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    for file in sorted(ROOT.glob("daemon/exafsd/models/*/pinn.onnx")):
        show = ["git", "show", f"{commit}:{file.relative_to(ROOT)}"]
        former = subprocess.run(show, cwd=ROOT, capture_output=True, check=True).stdout
        pair = [session(graph) for graph in (former, file.read_bytes())]
        words, far = [], 0.0
        for count in BATCHES:
            given = spectra(count)
            outputs = [graph.run(None, given) for graph in pair]
            far = max(far, *(np.abs(a - b).max() / np.abs(a).max()
                             for a, b in zip(*outputs, strict=True)))  # fmt: skip
            least = [np.inf, np.inf]
            for _ in range(TURNS):
                for i, graph in enumerate(pair):
                    began = time.perf_counter()
                    graph.run(None, given)
                    least[i] = min(least[i], time.perf_counter() - began)
            old, new = (1e6 * one / count for one in least)
            words.append(f"{count} at once: {old:.0f} and {new:.0f} us ({new / old:.2f})")
        print(f"{file.parent.name}: {', '.join(words)}; outputs differ by {far:.1e}")


if __name__ == "__main__":
    main()

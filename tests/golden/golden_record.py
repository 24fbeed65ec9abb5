"""The golden record: what exafsd makes of measured spectra and of one run of each shape.

``python tests/golden/golden_record.py compare BASE`` runs the commit BASE and the working tree
side by side and asks for equality bit for bit: the guard of a refactoring. ``... record`` writes
the record that is kept beside this file, with which `test_golden` compares. Both go in by commands
that users have, `exafsd analyze --json` and `exafsd replay --json`, which take one sweep at a time,
have no time limits and shed nothing, so that any commit can be compared with any other.
"""

import argparse
import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for helpers that the tests use, too

from golden_runs import write_journal

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
RECORD = Path(__file__).parent / "record.json.gz"
#: fields that depend on when something ran, and on how many messages came before
VOLATILE = frozenset({"time", "timing_ms", "publisher", "seq"})
#: values of an array that the record keeps
DIGEST = 32
#: other machines add up in another order: chi(k) relative to its maximum, and all other numbers;
#: correlations differ by up to 5e-5 of themselves between three kernels of BLAS, all else by less
CHI, RELATIVE = 1e-7, 2e-4
#: numbers below this are rounding
NOTHING = 1e-9
#: settings that the runs are analysed by
SETTINGS = {
    "plain": "",
    "rich": """
[reduction]
e0_policy = "foil"
[reduction.average]
n = 3
[reduction.calibration]
source = "foil"
[reduction.quality]
deglitch = 10
""",
}

Line = dict[str, Any]


def lines(checkout: Path, data: Path, journal: Path) -> dict[str, list[Line]]:
    """Outcomes by where they came from: files by their path, runs by settings and uid."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    outcomes: dict[str, list[Line]] = {}
    for line in _run(checkout, "analyze", "--json", *map(str, files)):
        name = str(Path(line.pop("file")).relative_to(data))
        line["detail"] = str(line.get("detail")).replace(str(data), "DATA")
        outcomes.setdefault(f"file {name}", []).append(line)
    for kind, text in SETTINGS.items():
        settings = journal.parent / f"{kind}.toml"
        settings.write_text(f'[source]\nasset_roots = ["{journal.parent}"]\n{text}')
        for line in _run(checkout, "replay", str(journal), "--json", "--config", str(settings)):
            outcomes.setdefault(f"run {line['run_uid']} {kind}", []).append(line)
    return outcomes


def _python(checkout: Path, *arguments: str) -> str:
    """Output of Python with the code of a checkout."""
    paths = [str(checkout / part) for part in ("daemon", "training", "export")]
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):  # 1: some spectrum gave no result
        raise RuntimeError(f"{arguments} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _run(checkout: Path, *arguments: str) -> Iterator[Line]:
    for text in _python(checkout, "-m", "exafsd.cli", *arguments).splitlines():
        line = json.loads(text)
        yield {name: value for name, value in line.items() if name not in VOLATILE}


def digest(line: Line) -> Line:
    """Line with arrays as their lengths and `DIGEST` values, evenly spread."""
    arrays = line.get("arrays")
    if not arrays:
        return line
    return {**line, "arrays": {name: _digest(array) for name, array in arrays.items()}}


def _digest(array: list[float]) -> Line:
    at = np.unique(np.linspace(0, len(array) - 1, DIGEST).astype(int))
    largest = max((abs(value) for value in array if value is not None), default=0.0)
    values = [array[i] for i in at]
    return {"length": len(array), "largest": largest, "values": values}


def differences(
    old: Mapping[str, list[Line]], new: Mapping[str, list[Line]], exact: bool
) -> Iterator[str]:
    """What differs, in words; fields that only the new outcomes have are none."""
    for name in sorted({*old, *new}):
        before, after = old.get(name, []), new.get(name, [])
        if len(before) != len(after):
            yield f"{name}: {len(before)} outcomes before, {len(after)} after"
            continue
        for a, b in zip(before, after, strict=True):
            where = f"{name} {a.get('id', '')}"
            yield from _differences(where, a, b, exact)


def _differences(where: str, old: Any, new: Any, exact: bool, scale: float = 0.0) -> Iterator[str]:
    if isinstance(old, dict):
        if not isinstance(new, dict):
            yield f"{where}: {old!r:.80} became {new!r:.80}"
            return
        largest = float(old.get("largest") or 0.0)
        chi = where.endswith("chi_k2")
        for name, value in old.items():
            if name not in new:
                yield f"{where}.{name} is gone"
                continue
            limit = (CHI if chi else RELATIVE) * largest
            yield from _differences(f"{where}.{name}", value, new[name], exact, limit)
    elif isinstance(old, list):
        if not isinstance(new, list) or len(old) != len(new):
            yield f"{where}: {old!r:.80} became {new!r:.80}"
            return
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{where}[{i}]", a, b, exact, scale)
    elif not _same(old, new, exact, scale):
        yield f"{where}: {old!r:.80} became {new!r:.80}"


def _same(old: Any, new: Any, exact: bool, scale: float) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (old, new))
    if exact or not numbers or (isinstance(old, int) and isinstance(new, int)):
        return type(old) is type(new) and old == new
    if scale:
        return abs(old - new) <= scale
    return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=NOTHING)


def load(path: Path = RECORD) -> dict[str, list[Line]]:
    """The record that is kept."""
    return json.loads(gzip.decompress(path.read_bytes()))


def _rounded(value: Any) -> Any:
    """Numbers with eleven digits: the limits need nine."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.11g}") if isinstance(value, float) else value


def _fits(checkout: Path) -> str:
    """Digest of a short seeded training by the code of a checkout."""
    script = checkout / "tests" / "golden" / "short_fit.py"
    if not script.is_file():
        return f"{script.name} is not in {checkout.name}"
    return _python(checkout, str(script)).splitlines()[-1]


def _compare(base: str, data: Path, fit: bool) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = write_journal(folder / "runs", data)
        checkout = folder / "base"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), base], check=True)
        try:
            old = lines(checkout, data, journal)
            trained = [_fits(checkout), _fits(ROOT)] if fit else []
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)
        new = lines(ROOT, data, journal)
    wrong = list(differences(old, new, exact=True))
    print("\n".join(wrong[:50]))
    count = sum(map(len, old.values()))
    print(f"{count} outcomes of {len(old)} files and runs: {len(wrong) or 'no'} differences")
    if fit:
        equal = "equal" if trained[0] == trained[1] else f"different: {', '.join(trained)}"
        print(f"short trainings are {equal}")
    return 1 if wrong or len(set(trained)) > 1 else 0


def _record(data: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcomes = lines(ROOT, data, write_journal(Path(folder) / "runs", data))
    digests = {
        name: [digest(line) for line in outcome_lines] for name, outcome_lines in outcomes.items()
    }
    text = json.dumps(_rounded(digests), separators=(",", ":"), sort_keys=True)
    RECORD.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{sum(map(len, digests.values()))} outcomes, {RECORD.stat().st_size} bytes in {RECORD}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of measured spectra")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("record")
    comparison = actions.add_parser("compare")
    comparison.add_argument("base", help="commit to compare with")
    comparison.add_argument("--fit", action="store_true", help="a short training as well (90 s)")
    chosen = parser.parse_args()
    data_folder = chosen.data.resolve()
    if chosen.action == "record":
        sys.exit(_record(data_folder))
    sys.exit(_compare(chosen.base, data_folder, chosen.fit))

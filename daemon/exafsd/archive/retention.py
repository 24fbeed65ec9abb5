"""How much a journal keeps: a running total, so that no run's start looks at the old ones."""

import os
from collections.abc import Sequence
from pathlib import Path


class Retention:
    """Deletes the files of the oldest runs where folders are larger than they may be.

    Files of one run have one name up to the first dot, which begins with the run's start.

    Parameters
    ----------
    folders
        That hold the files.
    max_bytes
        That they may have together; 0: any.
    """

    def __init__(self, folders: Sequence[Path], max_bytes: int) -> None:
        self._folders, self._max_bytes = folders, max_bytes
        self._sizes: dict[str, int] = {}
        self._endings: set[str] = set()
        names: dict[str, int] = {}
        for folder in folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, dot, ending = entry.name.partition(".")
                    if dot and "-" in stem and entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        names[stem] = names.get(stem, 0) + size
                        self._endings.add(ending)
        for stem in sorted(names):
            self._sizes[stem] = names[stem]
        self.total = sum(self._sizes.values())

    def grew(self, stem: str, size: int, ending: str) -> None:
        """Count bytes of a run; a run that is new is the youngest."""
        self._sizes[stem] = self._sizes.get(stem, 0) + size
        self._endings.add(ending)
        self.total += size

    def make_room(self, busy: set[str]) -> int:
        """Delete the oldest runs, but not the `busy` ones; how many were."""
        deletions = 0
        while self._max_bytes and self.total > self._max_bytes:
            stem = next((s for s in self._sizes if s not in busy), None)
            if stem is None:
                break
            for folder in self._folders:
                for ending in self._endings:
                    (folder / f"{stem}.{ending}").unlink(missing_ok=True)
            self.total -= self._sizes.pop(stem)
            deletions += 1
        return deletions

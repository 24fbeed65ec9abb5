"""Model bundles that appear, change or leave while the daemon runs."""

import threading
from collections.abc import Sequence
from pathlib import Path

from exafsd.inference.registry import Registry, bundle_folders
from exafsd.logs import get_logger

log = get_logger(__name__)

#: of the files that make a bundle
SUFFIXES = {".json", ".onnx"}
#: names and ages of the files of each bundle's folder
Fingerprint = dict[Path, tuple[tuple[str, int, int], ...]]


class ModelWatch:
    """Looks at folders of bundles now and then, and loads them anew when they have changed.

    A folder that is still being written is left alone until two looks find it alike.

    Parameters
    ----------
    roots
        Folders of bundles, or bundles.
    registry
        What was loaded from them.
    every
        s between two looks.
    """

    def __init__(self, roots: Sequence[Path], registry: Registry, every: float) -> None:
        self._roots, self._registry, self._every = tuple(roots), registry, every
        self._loaded = self._latest = self._look()
        self._fresh: Registry | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        if self._roots:
            self._thread.start()

    def stop(self) -> None:
        """End, and wait for a look under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def take(self) -> Registry | None:
        """The models as they are now, once after they have changed; else None."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self.look()
            except Exception:  # the models that are loaded go on
                log.exception("models cannot be looked at")

    def look(self) -> None:
        """Look once, and load what has changed."""
        now, before = self._look(), self._latest
        self._latest = now
        if now == self._loaded or now != before:
            return
        unchanged = {folder for folder, files in now.items() if self._loaded.get(folder) == files}
        self._registry = Registry.load(self._roots, self._registry.of_folders(unchanged))
        self._loaded = now
        self._fresh = self._registry

    def _look(self) -> Fingerprint:
        looked: Fingerprint = {}
        for folder in bundle_folders(self._roots):
            try:
                files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
                stats = [(file.name, file.stat()) for file in files]
            except OSError:  # gone, or going
                stats = []
            looked[folder] = tuple((name, s.st_mtime_ns, s.st_size) for name, s in stats)
        return looked

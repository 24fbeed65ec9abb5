"""What a run remembers, as one object that can be saved, and loaded in another process.

A saved state can always be made again from the run's documents. So it is read only by the version
of exafsd that has written it, and whatever is not as it was written is refused.
"""

import io
import pickle
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from exafsd._version import __version__
from exafsd.composition.run_series import RunSeries
from exafsd.documents.assembler import RunAssembler
from exafsd.documents.unpickle import ALLOWED
from exafsd.pipeline import RunTrends
from exafsd.reduction.memory import RunMemory
from exafsd.spectra import Sweep

#: first line of a saved state: its format, and the version whose classes it holds
HEAD = f"exafsd.run-state/1 {__version__}\n".encode()
#: bytes of the checksum that follows it
CHECKSUM = 4
#: numpy's arrays and plain containers, which a state may hold
PLAIN = ALLOWED | {
    ("collections", "deque"), ("collections", "Counter"), ("collections", "defaultdict"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
}  # fmt: skip
#: Modules whose own classes it may hold. A class of any other, such as one that starts a process
#: or opens a file, must not be made of bytes.
OWN = re.compile(
    r"exafsd\.(spectra|settings\.analysis|contract\.(recipe|vocabulary|s02)|service\.run_state"
    r"|documents\.(assembler|binding|block|context|corrections|energy|external|joiner|numbering|splitter"
    r"|stream)|reduction\.(average|calibration|foil|memory|rebin|series)"
    r"|composition\.(change|components|convergence|decomposition|near_edges|run_series)|inference\.refinement\.trend)"
)


class StateError(ValueError):
    """Bytes that are no state of this version, or not all of it."""


@dataclass
class RunState:
    """Everything that a run remembers between two documents.

    Attributes
    ----------
    assembler
        Its streams: rows held back, numbering, the open sweep.
    memory
        E0, ranges, foil, grids, averages, and the series that outliers stand out from.
    counts
        Its outcomes by kind.
    trends
        What its sweeps have in common, as the refinement has learned it.
    pending
        Sweeps that are cut, but not processed.
    series
        Near edges and means, which say whether the sample changes, and whether to stop.
    """

    assembler: RunAssembler
    memory: RunMemory
    trends: RunTrends
    counts: Counter[str]
    pending: list[Sweep]
    series: RunSeries = field(default_factory=RunSeries)

    def dump(self, clock: float) -> bytes:
        """State as bytes.

        Parameters
        ----------
        clock
            The router's, s.
        """
        body = pickle.dumps((clock, self), protocol=5)
        return HEAD + zlib.crc32(body).to_bytes(CHECKSUM, "little") + body

    @classmethod
    def load(cls, data: bytes, clock: float) -> "RunState":
        """State of bytes.

        Parameters
        ----------
        clock
            This process's router's, s; deadlines are moved to it.

        Raises
        ------
        StateError
            If they are of another version, damaged, or hold what no state holds.
        """
        head, body = data[: len(HEAD)], data[len(HEAD) + CHECKSUM :]
        checksum = int.from_bytes(data[len(HEAD) : len(HEAD) + CHECKSUM], "little")
        if head != HEAD:
            raise StateError(f"it begins with {head!r}, not with {HEAD!r}: another version's")
        if zlib.crc32(body) != checksum:
            raise StateError("its checksum is wrong: it is damaged or incomplete")
        try:
            saved_at, state = _OwnClasses(io.BytesIO(body)).load()
        except Exception as error:  # a pickle raises whatever its opcodes hit
            raise StateError(f"{type(error).__name__}: {error}") from None
        state.assembler.resume(clock - saved_at)
        return state


class _OwnClasses(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Classes that a state is made of; nothing that could do harm."""
        plain = (module, name) in PLAIN
        named = super().find_class(module, name) if plain or OWN.fullmatch(module) else None
        if plain or (isinstance(named, type) and named.__module__ == module):
            return named
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a saved state")

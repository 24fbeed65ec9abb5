"""What a run remembers, as one object that can be saved, and loaded in another process.

A saved state can always be made again from the run's documents. So it is read only by the version
of exafsd that has written it, and whatever is not as it was written is refused.
"""

import io
import pickle
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from exafsd._version import __version__
from exafsd.documents.assembler import RunAssembler
from exafsd.documents.unpickle import ALLOWED
from exafsd.reduction.memory import RunMemory
from exafsd.spectra import Sweep

#: first line of a saved state: its format, and the version whose classes it holds
HEAD = f"exafsd.run-state/1 {__version__}\n".encode()
#: bytes of the checksum that follows it
CHECKSUM = 4
#: what a state may hold besides numpy's arrays and plain classes of exafsd
PLAIN = {
    ("collections", "deque"), ("collections", "Counter"), ("collections", "defaultdict"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
}  # fmt: skip


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
    pending
        Sweeps that are cut, but not processed.
    """

    assembler: RunAssembler
    memory: RunMemory
    counts: Counter[str]
    pending: list[Sweep]

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
            first = head.partition(b"\n")[0]
            raise StateError(f"it begins with {first!r}, not with {HEAD!r}: another version's")
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
        """Classes of exafsd, numpy's arrays and plain containers; nothing that could do harm."""
        if (module, name) in ALLOWED | PLAIN:
            return super().find_class(module, name)
        named = super().find_class(module, name) if module.startswith("exafsd.") else None
        if isinstance(named, type):
            return named
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state")

"""Files of records, each with its length and checksum: what a cut or a flipped bit leaves is known.

A file begins with a line that names its format. A record is its length, a CRC32 of length and
content, the content, and the length again, so that the latest records are read without the others.
"""

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: length of the content and CRC32, little-endian; and the length again behind the content
_BEFORE, _BEHIND = struct.Struct("<II"), struct.Struct("<I")
OVERHEAD = _BEFORE.size + _BEHIND.size
#: what is kept on disk is for its owner alone
FILE_MODE, FOLDER_MODE = 0o600, 0o700
#: bytes of a first line, at most
LINE = 64


class FormatError(ValueError):
    """A file of another format, or of a later version; the text names it and says what to do."""


class DamagedError(ValueError):
    """A record that is not as it was written; the text names the file and what is whole of it."""


@dataclass(frozen=True)
class Format:
    """A kind of file and its version.

    Attributes
    ----------
    name
        For example ``exafsd.journal``.
    version
        That is written, and the latest that can be read.
    """

    name: str
    version: int

    @property
    def line(self) -> bytes:
        """First line of a file."""
        return f"{self.name}/{self.version}\n".encode()

    def check(self, path: Path, line: bytes) -> None:
        """Refuse a first line of another format or a later version; raises `FormatError`."""
        if line == self.line:
            return
        name, slash, version = line.rstrip(b"\n").partition(b"/")
        if slash and name == self.name.encode() and version.isdigit():
            raise FormatError(
                f"{path.name} is {self.name}/{int(version)}, and this exafsd reads up to"
                f" {self.name}/{self.version}: read it with the version that has written it"
            )
        raise FormatError(f"{path.name} is damaged at its beginning, or no file of {self.name}")


class Record(NamedTuple):
    """Content of a record and the place in the file where it ends."""

    content: bytes
    end: int


class RecordFile:
    """A file that records are appended to; unbuffered, so that a killed process loses nothing.

    Attributes
    ----------
    path, size
        Of the file; `size` in bytes.
    """

    def __init__(self, path: Path, format_: Format) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        try:
            self.size = os.fstat(self._file).st_size
            if not self.size:
                self._write(format_.line)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):  # a file without its first line is none
                if not path.stat().st_size:
                    path.unlink()
            raise

    def append(self, content: bytes, sync: bool = False) -> int:
        """Write a record; the place where it ends.

        Raises
        ------
        OSError
            If it cannot be written; nothing of it is left in the file.
        """
        checksum = zlib.crc32(content, len(content))
        before = _BEFORE.pack(len(content), checksum)
        self._write(before, content, _BEHIND.pack(len(content)))
        if sync:
            self.sync()
        return self.size

    def sync(self) -> None:
        """Have everything on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, *parts: bytes) -> None:
        size = sum(map(len, parts))
        try:
            if os.writev(self._file, parts) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):  # half a record would hide all that follow
                os.ftruncate(self._file, self.size)
            raise
        self.size += size


def read_records(
    path: Path, format_: Format, start: int = 0, end: int | None = None
) -> Iterator[Record]:
    """Records of a file in order.

    Parameters
    ----------
    start
        Place where a record begins; 0: the first one.
    end
        Place where the last record that is wanted ends; None: the end of the file.

    Raises
    ------
    FormatError
        If the file is no such file.
    DamagedError
        At the first record that is not whole; those before it have been given.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size if end is None else end
        line = file.readline(LINE)
        if not line:
            return  # its writer was killed before the first line
        format_.check(path, line)
        at = max(start, len(line))
        file.seek(at)
        while at < size:
            before = file.read(_BEFORE.size)
            length, checksum = _BEFORE.unpack(before) if len(before) == _BEFORE.size else (size, 0)
            if at + OVERHEAD + length > size:
                raise DamagedError(f"{path.name} is incomplete after byte {at} of {size}")
            content, behind = file.read(length), file.read(_BEHIND.size)
            if zlib.crc32(content, length) != checksum or behind != _BEHIND.pack(length):
                raise DamagedError(
                    f"{path.name} is damaged after byte {at} of {size}: a checksum is wrong"
                )
            at += OVERHEAD + length
            yield Record(content, at)


def latest_records(path: Path, format_: Format) -> Iterator[bytes]:
    """Contents of the records of a file, the last one first, up to one that is damaged."""
    with path.open("rb") as file:
        line = file.readline(LINE)
        try:
            format_.check(path, line)
        except FormatError:
            return
        at = file.seek(0, os.SEEK_END)
        while at >= len(line) + OVERHEAD:
            file.seek(at - _BEHIND.size)
            (length,) = _BEHIND.unpack(file.read(_BEHIND.size))
            begin = at - OVERHEAD - length
            if begin < len(line):
                return
            file.seek(begin)
            before = _BEFORE.unpack(file.read(_BEFORE.size))
            content = file.read(length)
            if before != (length, zlib.crc32(content, length)):
                return
            yield content
            at = begin


def cut(path: Path, end: int) -> int:
    """Cut a file off at `end`; bytes cut off, which are kept beside it as ``.cut``."""
    with path.open("r+b") as file:
        file.seek(end)
        rest = file.read()
        if rest:
            beside = os.open(
                path.with_name(f"{path.name}.cut"),
                os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE,
            )  # fmt: skip
            with os.fdopen(beside, "wb") as other, contextlib.suppress(OSError):  # a full disk
                other.write(rest)
            file.truncate(end)
    return len(rest)


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, unless there is one."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)

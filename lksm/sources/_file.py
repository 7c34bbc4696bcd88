"""Opening a file source: a regular file, mapped once, read-only, never copied.

`open_file` is the one place where the errors of a reader are translated: inside it, a `SourceError` gets
the path put before its reason, and an `OSError` becomes a `SourceError`, or `OutOfMemory` where there was no
room to map the file. So readers say the reason only.

The mapping shows the file as it is. A file that shrinks while it is mapped ends the program with SIGBUS,
as with any mapping; a file that is written to breaks the promise that its pages are immutable.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import OutOfMemory, SourceError

Bytes: TypeAlias = npt.NDArray[np.uint8]

_KINDS = (
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a regular, non-empty file for reading and translate errors to `SourceError`, path first."""
    if "\0" in path:
        raise SourceError(f"{path!r}: a path cannot hold a null byte")
    try:
        _expect_regular_file(os.stat(path))  # before opening: opening some devices has effects
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            _expect_regular_file(os.fstat(file.fileno()))
            yield file
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except OSError as error:
        kind = OutOfMemory if error.errno == errno.ENOMEM else SourceError
        raise kind(f"{path}: {error.strerror or error}") from error


def file_size(file: BinaryIO) -> int:
    """Size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def map_file(file: BinaryIO) -> Bytes:
    """The whole file as one read-only uint8 (size,) array; pages are read when they are looked at."""
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, dtype=np.uint8)


def data_extents(file: BinaryIO) -> list[tuple[int, int]]:
    """Where the file has data: (start, stop) offsets in order; what lies between are holes.

    One extent for the whole file where the file system cannot tell.
    """
    descriptor, size = file.fileno(), file_size(file)
    extents: list[tuple[int, int]] = []
    stop = 0
    while stop < size:
        try:
            start = os.lseek(descriptor, stop, os.SEEK_DATA)
            stop = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                break
            if error.errno == errno.EINVAL:
                return [(0, size)]
            raise
        extents.append((start, min(stop, size)))
    return extents


def expect_page_size(page_size: int) -> None:
    """Raise `SourceError` unless the page size, in bytes, is a positive power of two."""
    if page_size < 1 or page_size & (page_size - 1):
        raise SourceError(f"page size is {page_size}, expected a power of two")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO put in place of the file must not block us


def _expect_regular_file(status: os.stat_result) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise SourceError(f"is a {kind}, expected a file")
    if status.st_size == 0:
        raise SourceError("is empty, expected at least one page")

"""inotify, as much of it as watching directories of control files takes. Kernel: inotify(7)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, IS_DIRECTORY = 0x4000, 0x8000, 0x40000000
_ONLY_DIRECTORY = 0x01000000

_HEAD = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Change(NamedTuple):
    """Something happened to `name` in the directory that `watch` stands for; -1 with OVERFLOW."""

    watch: int
    mask: int
    name: str


def parse(buffer: bytes) -> Iterator[Change]:
    """The records of one read."""
    offset = 0
    while offset < len(buffer):
        watch, mask, _cookie, length = _HEAD.unpack_from(buffer, offset)
        offset += _HEAD.size
        yield Change(watch, mask, os.fsdecode(buffer[offset : offset + length].rstrip(b"\0")))
        offset += length


class Inotify:
    """One inotify descriptor; it never blocks."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        return self._fd

    def add(self, directory: str, mask: int) -> int:
        """Watch a directory; returns the number its changes carry. OSError if it cannot be."""
        return self.add_file(directory, mask | _ONLY_DIRECTORY)

    def add_file(self, path: str, mask: int) -> int:
        """Watch a file, whose changes have no name."""
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask), path)

    def remove(self, watch: int) -> None:
        """Watch it no more; no error if that is so already."""
        _libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Change]:
        """What has happened since, in order."""
        changes: list[Change] = []
        while True:
            try:
                changes.extend(parse(os.read(self._fd, _BUFFER_BYTES)))
            except BlockingIOError:
                return changes

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int, path: str | None = None) -> int:
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code == errno.ENOSPC:
        # untested: a system-wide limit
        raise OSError(code, "no inotify watch is left (fs.inotify.max_user_watches)", path)
    raise OSError(code, os.strerror(code), path)

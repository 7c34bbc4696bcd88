"""Maps the pages of files ahead of the scanner, on a thread of its own.

A scan reads a few lines of most pages, in order. Left alone it would stop for every sixteen pages until the
kernel has mapped them, and on a cold file wait for the disk in small pieces. This thread asks for the same
pages in large pieces, in the same order; nothing but time depends on it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

_MADV_POPULATE_READ = 22  # Linux 5.14; no constant in the mmap module before Python 3.14
_PIECE_BYTES = 4 << 20


class Prefault:
    """`with Prefault(arrays):` maps the bytes of read-only file mappings while the body runs.

    It stops at half of the machine's memory, where mapping ahead would push out what the scanner
    still needs, and where the kernel does not know the request.
    """

    def __init__(self, arrays: Iterable[npt.NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lksm-prefault", daemon=True)

    def __enter__(self) -> Prefault:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        left = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
        libc = ctypes.CDLL(None)
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for array in self._arrays:
            start = array.__array_interface__["data"][0]
            stop = start + array.nbytes
            start -= start % mmap.PAGESIZE
            for at in range(start, stop, _PIECE_BYTES):
                size = min(_PIECE_BYTES, stop - at)
                left -= size
                if self._is_over.is_set() or left < 0 or libc.madvise(at, size, _MADV_POPULATE_READ):
                    return

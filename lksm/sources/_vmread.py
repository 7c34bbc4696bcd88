"""Bytes of another process, straight into our arrays: process_vm_readv, else /proc/PID/mem.

Only pages known to be present may be asked for: reading an absent one would fault it in. And only pages
mapped once may be read by process_vm_readv: it pins what it reads, and since Linux 6.0 pinning a page that
is shared after fork (or by KSM) first gives the process a copy of its own. /proc/PID/mem does not pin.
"""

from __future__ import annotations

import ctypes
import errno
import os
from types import TracebackType

import numpy as np
import numpy.typing as npt

_MOST_VECTORS = 1024  # per system call (IOV_MAX): as many pages, 4 MiB, may each be a vector
_UNAVAILABLE = (errno.ENOSYS, errno.EPERM)  # old kernel; seccomp, or no right (then /proc/PID/mem says so)

_libc = ctypes.CDLL(None, use_errno=True)


class MemoryReader:
    """Reads pages of `pid`.

    Raises ProcessLookupError when the process has no memory any more, PermissionError when that is not
    allowed.
    """

    def __init__(self, pid: int, page_size: int) -> None:
        self._pid = pid
        self._page_size = page_size
        self._mem = -1  # /proc/PID/mem, opened at the first need
        self._vm_readv = getattr(_libc, "process_vm_readv", None)
        if self._vm_readv is not None:
            self._vm_readv.restype = ctypes.c_ssize_t
            vectors = [ctypes.c_void_p, ctypes.c_ulong]
            self._vm_readv.argtypes = [ctypes.c_int, *vectors, *vectors, ctypes.c_ulong]

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mem >= 0:
            os.close(self._mem)

    def read(
        self, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], may_pin: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Copy the pages at addresses `sources` (there) to `targets` (here), int64 (n,).

        may_pin, bool (n,): which pages process_vm_readv may read. Returns bool (n,): which pages could be
        read; the target of another one is undefined.
        """
        is_read = np.zeros(len(sources), np.bool_)
        for kind in (np.flatnonzero(may_pin), np.flatnonzero(~may_pin)):
            for start in range(0, len(kind), _MOST_VECTORS):
                piece = kind[start : start + _MOST_VECTORS]
                is_read[piece] = self._read_piece(sources[piece], targets[piece], bool(may_pin[piece[0]]))
        return is_read

    def _read_piece(
        self, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], may_pin: bool
    ) -> npt.NDArray[np.bool_]:
        is_read = np.zeros(len(sources), np.bool_)
        done = 0
        while done < len(sources):
            nr_read = self._transfer(sources[done:], targets[done:]) if may_pin and self._vm_readv else 0
            is_read[done : done + nr_read] = True
            done += nr_read
            if done < len(sources):  # not to be pinned, gone, or PROT_NONE, which only /proc/PID/mem reads
                nr_read = self._read_mem(sources[done:], targets[done:])
                is_read[done : done + nr_read] = True
                done += max(nr_read, 1)
        return is_read

    def _transfer(self, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> int:
        """One process_vm_readv; returns how many leading pages it read."""
        assert self._vm_readv is not None
        there, here = self._vectors(sources), self._vectors(targets)
        nbytes: int = self._vm_readv(self._pid, here.ctypes.data, len(here), there.ctypes.data, len(there), 0)
        if nbytes >= 0:
            return nbytes // self._page_size
        code = ctypes.get_errno()
        if code == errno.ESRCH:
            raise ProcessLookupError(code, os.strerror(code))  # untested: it ends between two looks
        if code in _UNAVAILABLE:
            self._vm_readv = None
        return 0

    def _vectors(self, addresses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Pages as struct iovec, int64 (k, 2): successive pages become one vector."""
        cuts = np.flatnonzero(addresses[1:] - addresses[:-1] != self._page_size) + 1
        vectors = np.empty((len(cuts) + 1, 2), np.int64)
        vectors[0, 0] = addresses[0]
        vectors[1:, 0] = addresses[cuts]
        vectors[:, 1] = len(addresses)
        vectors[:-1, 1] = cuts
        vectors[1:, 1] -= cuts
        vectors[:, 1] *= self._page_size
        return vectors

    def _read_mem(self, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> int:
        """Read the first run of pages that follow each other on both sides; returns how many it read."""
        if self._mem < 0:
            self._mem = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        size = min(int(self._vectors(sources)[0, 1]), int(self._vectors(targets)[0, 1]))
        run = (ctypes.c_char * size).from_address(int(targets[0]))
        try:
            return os.preadv(self._mem, [run], int(sources[0])) // self._page_size
        except OSError as error:  # untested: no such page was met
            if error.errno == errno.EIO:
                return 0
            raise

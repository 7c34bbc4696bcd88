"""Which pages of a process are present, and in which frame: /proc/PID/pagemap and its PAGEMAP_SCAN.

Looking changes nothing: no page is faulted in, no flag is cleared. Page numbers are addresses divided by
the page size. Kernel: Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import struct
from itertools import pairwise
from types import TracebackType

import numpy as np
import numpy.typing as npt

PAGE_SIZE = mmap.PAGESIZE

# bits of a pagemap entry
_PRESENT = np.uint64(1 << 63)
_SWAPPED = np.uint64(1 << 62)
_FILE = np.uint64(1 << 61)
_GUARD = np.uint64(1 << 58)
_EXCLUSIVE = np.uint64(1 << 56)
_FRAME = np.uint64((1 << 55) - 1)

# categories of PAGEMAP_SCAN, and of `Pagemap.ranges`
IS_FILE = 1 << 2
IS_PRESENT = 1 << 3
IS_SWAPPED = 1 << 4
IS_ZERO = 1 << 5
IS_GUARD = 1 << 8

_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_ARGUMENT = struct.Struct(
    "12Q"
)  # size flags start end walk_end vec vec_len max_pages inverted mask anyof return
_SCAN_RANGES = 4096  # ranges returned by one call
_CHUNK = 1 << 18  # entries read at once: 2 MiB
_WIDEST_GAP = 512  # reading over a smaller gap is cheaper than a second call


class Pagemap:
    """The open pagemap of one process. `scan_mask` 0 forces plain entries, as on kernels before 6.7.

    Creation raises FileNotFoundError or ProcessLookupError if the process is gone, another OSError if the
    pagemap cannot be read or the kernel has none.
    """

    def __init__(self, pid: int, *, scan_mask: int | None = None) -> None:
        try:
            self._fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/stat"):
                # untested: a kernel without pagemaps
                raise OSError(errno.ENOTSUP, "this kernel has no pagemap") from None
            raise
        self._mask = scan_mask_of_kernel() if scan_mask is None else scan_mask
        self.scans = self._mask != 0  # `ranges` costs little over empty addresses

    def __enter__(self) -> Pagemap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def ranges(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Pages from `start` to `stop` that are present or swapped.

        Returns int64 (k, 3): first page, page after the last, categories (`IS_...` bits) they share.
        """
        if self._mask:
            return self._scan(start, stop)
        parts = [
            categorize(self.entries(np.arange(page, min(page + _CHUNK, stop), dtype=np.int64)), page)
            for page in range(start, stop, _CHUNK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 3), np.int64)

    def entries(self, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Raw entries of ascending page numbers, uint64 (n,); 0 for what is beyond the address space."""
        entries = np.zeros(len(pages), np.uint64)
        gaps = np.flatnonzero(np.diff(pages) > _WIDEST_GAP) + 1
        edges = [0, *gaps.tolist(), len(pages)] if len(pages) else []
        for start, end in pairwise(edges):
            while start < end:
                stop = min(start + int(np.searchsorted(pages[start:end], pages[start] + _CHUNK)), end)
                first, last = int(pages[start]), int(pages[stop - 1])
                run = self._read(first, last + 1 - first)
                entries[start:stop] = run if len(run) == stop - start else run[pages[start:stop] - first]
                start = stop
        return entries

    def _read(self, first: int, nr_pages: int) -> npt.NDArray[np.uint64]:
        run = np.zeros(nr_pages, np.uint64)
        os.preadv(self._fd, [run.view(np.uint8).data], first * 8)
        return run

    def _scan(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        parts = []
        ranges = np.empty((_SCAN_RANGES, 3), np.int64)
        address, end = start * PAGE_SIZE, stop * PAGE_SIZE
        while address < end:
            found = _scan_once(self._fd, address, end, ranges, self._mask)
            parts.append(ranges[:found].copy())
            # Not where the kernel says it stopped: that is stale (6.18) when it was through all the same.
            address = int(ranges[-1, 1]) if found == len(ranges) else end
        result = np.concatenate(parts) if parts else np.empty((0, 3), np.int64)
        result[:, :2] //= PAGE_SIZE
        return result


def is_present(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of these pagemap entries are pages in memory?"""
    present: npt.NDArray[np.bool_] = (entries & _PRESENT) != 0
    return present


def is_mapped_once(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of these pagemap entries are pages that no other mapping has?"""
    alone: npt.NDArray[np.bool_] = (entries & _EXCLUSIVE) != 0
    return alone


def frames(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Frame numbers of pagemap entries; 0 where nothing is present or numbers are hidden."""
    return np.where(is_present(entries), entries & _FRAME, np.uint64(0))


def shareable_frames(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Like `frames`, but 0 for anonymous pages that are mapped exactly once, so have nobody to share with."""
    alone = (entries & (_EXCLUSIVE | _FILE)) == _EXCLUSIVE
    return np.where(alone, np.uint64(0), frames(entries))


def categorize(entries: npt.NDArray[np.uint64], first: int) -> npt.NDArray[np.int64]:
    """What PAGEMAP_SCAN would say of the entries of successive pages from `first`: int64 (k, 3) ranges."""
    if not len(entries):
        return np.empty((0, 3), np.int64)
    categories = np.zeros(len(entries), np.int64)
    bits = ((_PRESENT, IS_PRESENT), (_SWAPPED, IS_SWAPPED), (_FILE, IS_FILE), (_GUARD, IS_GUARD))
    for bit, category in bits:
        categories[(entries & bit) != 0] |= category
    if zero := zero_frame():  # untested: the kernel hides frames from others than root
        categories[frames(entries) == zero] |= IS_ZERO
    edges = np.concatenate(([0], np.flatnonzero(np.diff(categories)) + 1, [len(categories)]))
    starts, stops = edges[:-1], edges[1:]
    kept = (categories[starts] & (IS_PRESENT | IS_SWAPPED)) != 0
    return np.stack((first + starts[kept], first + stops[kept], categories[starts[kept]]), axis=1)


def frames_are_visible() -> bool:
    """May this process see frame numbers (CAP_SYS_ADMIN)? Asked of a page of our own."""
    return _own_frame(touch=True) != 0


def zero_frame() -> int:
    """Frame of the kernel's shared page of zeros, 0 if hidden."""
    return _own_frame(touch=False)


@functools.cache
def scan_mask_of_kernel() -> int:
    """Categories that PAGEMAP_SCAN of this kernel can return; 0 if it has none (before Linux 6.7)."""
    usual = IS_FILE | IS_PRESENT | IS_SWAPPED | IS_ZERO
    ranges = np.empty((1, 3), np.int64)
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # untested: a kernel without pagemaps
        return 0
    try:
        for mask in (usual | IS_GUARD, usual):  # guard pages: since 6.15
            try:
                _scan_once(fd, PAGE_SIZE, 2 * PAGE_SIZE, ranges, mask)
            except OSError:  # untested: kernels before 6.15
                continue
            return mask
        return 0  # untested: kernels before 6.7
    finally:
        os.close(fd)


def _scan_once(fd: int, start: int, end: int, ranges: npt.NDArray[np.int64], mask: int) -> int:
    """One call: fills `ranges` (byte addresses) as far as there are any and room, returns how many."""
    vector = (ranges.ctypes.data, len(ranges))
    argument = _SCAN_ARGUMENT.pack(
        _SCAN_ARGUMENT.size, 0, start, end, 0, *vector, 0, 0, 0, IS_PRESENT | IS_SWAPPED, mask
    )
    return int(fcntl.ioctl(fd, _PAGEMAP_SCAN, bytearray(argument)))  # the kernel writes to it


def _own_frame(*, touch: bool) -> int:
    """Frame number of a fresh private page of ours, written to or only read."""
    with mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        if touch:
            page[0] = 1
        else:
            page.read(1)  # maps the shared page of zeros
        anchor = ctypes.c_char.from_buffer(page)
        address = ctypes.addressof(anchor)
        del anchor  # or the mapping could not be closed
        try:
            with Pagemap(os.getpid(), scan_mask=0) as pagemap:
                return int(frames(pagemap.entries(np.array([address // PAGE_SIZE], np.int64)))[0])
        except OSError:  # a process that changed its user may not read even its own
            return 0

"""Where the pages of a snapshot lie: a few numpy arrays, their pages numbered through as rows.

A row number names one stored page of the whole snapshot. Equal rows are one physical page.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import OutOfMemory
from ..memory import Region, RegionFlag

ABSENT = -1  # row of a page that is not stored
PENDING = -2  # row of a page that is still to be given one

_WIDEST_GAP = 64  # absent pages that a region may bridge when there are too many ranges
_MAX_REGIONS = 1024  # per process; above this, neighbouring ranges are joined

Rows = npt.NDArray[np.int64]


class Store:
    """Arrays of pages, uint8 (k, page_size) each, at most `max_rows` pages in all."""

    def __init__(self, page_size: int, max_rows: int) -> None:
        self.page_size = page_size
        self.max_rows = max_rows
        self.nr_rows = 0
        self._arrays: list[npt.NDArray[np.uint8]] = []
        self._first_rows: list[int] = []
        self._free = np.empty(0, np.int64)

    def recycle(self, rows_in_use: Sequence[Rows]) -> None:
        """From now on every row not among `rows_in_use` may be given out again."""
        is_free = np.ones(self.nr_rows, np.bool_)
        for rows in rows_in_use:
            is_free[rows[rows >= 0]] = False
        self._free = np.flatnonzero(is_free)

    def lend(self, nr_pages: int) -> Rows:
        """Row numbers for up to `nr_pages` pages, fewer when the store is full."""
        reused, self._free = self._free[:nr_pages], self._free[nr_pages:]
        nr_new = min(nr_pages - len(reused), self.max_rows - self.nr_rows)
        if nr_new <= 0:
            return reused
        try:
            self._arrays.append(np.empty((nr_new, self.page_size), np.uint8))
        except MemoryError as error:
            raise OutOfMemory(f"no memory for a snapshot of {nr_new * self.page_size} bytes") from error
        self._first_rows.append(self.nr_rows)
        self.nr_rows += nr_new
        return np.concatenate((reused, np.arange(self.nr_rows - nr_new, self.nr_rows)))

    def addresses(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Where the pages of these rows lie in our memory, int64 (n,)."""
        index = self.array_index(rows)
        bases = np.array([array.ctypes.data for array in self._arrays], np.int64)
        return bases[index] + (rows - np.array(self._first_rows, np.int64)[index]) * self.page_size

    def array_index(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Which array each of these rows lies in."""
        return np.searchsorted(np.array(self._first_rows, np.int64), rows, side="right").astype(np.int64) - 1

    def region(self, address: int, rows: Rows, flags: RegionFlag) -> Region:
        """The region at `address` whose pages are `rows` (some may be ABSENT, all others in one array)."""
        index = int(self.array_index(rows[:1])[0])
        array, first = self._arrays[index], self._first_rows[index]
        start = int(rows[0]) - first
        if bool((np.diff(rows) == 1).all()):
            return Region(address, array[start : start + len(rows)], flags=flags)
        return Region(address, array, np.where(rows >= 0, rows - first, np.int64(ABSENT)), flags=flags)


class Holders:
    """Which processes hold which rows, told one after the other."""

    def __init__(self) -> None:
        self._is_taken = np.empty(0, np.bool_)

    def first(self, rows: Rows, nr_rows: int) -> npt.NDArray[np.bool_]:
        """For each page of the next process: is it the first page, in order, that lies in its row?"""
        if nr_rows > len(self._is_taken):
            is_taken = np.zeros(nr_rows, np.bool_)
            is_taken[: len(self._is_taken)] = self._is_taken
            self._is_taken = is_taken
        is_first = rows >= 0
        is_first[is_first] = ~self._is_taken[rows[is_first]]
        pages = np.flatnonzero(is_first)
        holder = np.empty(nr_rows, np.int64)
        holder[rows[pages[::-1]]] = pages[::-1]  # of pages in one row, the first is written last
        is_first[pages] = holder[rows[pages]] == pages
        self._is_taken[rows[pages]] = True
        return is_first


def first_holders(all_rows: Sequence[Rows], nr_rows: int) -> list[npt.NDArray[np.bool_]]:
    """For each process and page: is it the first page, in order, that lies in its row?"""
    holders = Holders()
    return [holders.first(rows, nr_rows) for rows in all_rows]


def split_into_regions(
    pages: npt.NDArray[np.int64], rows: Rows, flags: npt.NDArray[np.uint16], store: Store, *, may_bridge: bool
) -> tuple[list[Region], npt.NDArray[np.int64]]:
    """Regions for stored pages in address order, and for each page the region it is in.

    One region per run of pages that follow each other here and there. A process in shreds would have tens
    of thousands of them: then, if `may_bridge`, runs in one array are joined by `Region.rows`, the pages
    between them absent.
    """
    if not len(pages):
        return [], np.empty(0, np.int64)
    step = np.diff(pages)
    must_cut = (np.diff(store.array_index(rows)) != 0) | (np.diff(flags) != 0)
    cut = must_cut | (step != 1) | (np.diff(rows) != 1)
    if may_bridge and int(cut.sum()) >= _MAX_REGIONS:
        cut = must_cut | (step > _narrowest_gap(step[cut & ~must_cut], _MAX_REGIONS))
    edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(pages)]
    regions = []
    for start, stop in pairwise(edges):
        spread = np.full(int(pages[stop - 1] - pages[start]) + 1, ABSENT, np.int64)
        spread[pages[start:stop] - pages[start]] = rows[start:stop]
        regions.append(
            store.region(int(pages[start]) * store.page_size, spread, RegionFlag(int(flags[start])))
        )
    return regions, np.repeat(np.arange(len(regions)), np.diff(edges))


def _narrowest_gap(steps: npt.NDArray[np.int64], nr_cuts: int) -> int:
    """The smallest step to bridge up to, so that about `nr_cuts` wider ones remain."""
    if len(steps) <= nr_cuts:
        return 1
    kept = int(np.partition(steps, len(steps) - nr_cuts)[len(steps) - nr_cuts])
    return min(kept, _WIDEST_GAP)

"""Where pages are: their addresses in their processes, and which of them are physically one.

Built once from the regions of all processes; the arrays are of one entry per region.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..engine import Engine
from ..memory import Region

ABSENT = -3  # entry of a page table, as in Engine.page_table
REPEATED = -4  # entry of ours: one page with an earlier one, so it does not count again

Table = npt.NDArray[np.int64]


class Places:
    """The regions of an engine's processes. `regions[i]` are those of process i, `tables[i]` its pages.

    In `tables` a page that is physically one with an earlier page is REPEATED; otherwise they are what
    `Engine.page_table` gives.
    """

    def __init__(self, engine: Engine) -> None:
        self._page_size = engine.page_size
        processes = engine.processes
        self.regions: list[tuple[Region, ...]] = [process.regions for process in processes]
        self.tables: list[Table] = [engine.page_table(process) for process in processes]
        everything = [region for regions in self.regions for region in regions]
        lengths = np.array([nr_pages(region) for region in everything], np.int64)
        nr_regions = np.array([len(regions) for regions in self.regions], np.int64)
        self._first_pages = np.cumsum(lengths) - lengths  # counted over all processes
        self._addresses = np.array([region.address for region in everything], np.uint64)
        lengths_before = np.concatenate(([0], np.cumsum(lengths)))
        self._process_pages = lengths_before[np.cumsum(nr_regions) - nr_regions]
        self.nr_repeated = self._mark_repeated(everything, lengths)

    def addresses(
        self, processes: npt.NDArray[np.int64], pages: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """The address of page `pages[i]` of process `processes[i]`."""
        if not len(pages):
            return np.empty(0, np.uint64)
        numbers = self._process_pages[processes] + pages
        index = np.searchsorted(self._first_pages, numbers, side="right") - 1
        within = (numbers - self._first_pages[index]).astype(np.uint64)
        result: npt.NDArray[np.uint64] = self._addresses[index] + within * np.uint64(self._page_size)
        return result

    def page_at(self, process: int, address: int) -> int | None:
        """The page of a process that contains an address, whether present or not; None: no region does."""
        first = 0
        found = None
        for region in self.regions[process]:
            offset = address - region.address
            if 0 <= offset < nr_pages(region) * self._page_size:
                found = first + offset // self._page_size
                if self.tables[process][found] != ABSENT:
                    return found
            first += nr_pages(region)
        return found

    def _mark_repeated(self, regions: Sequence[Region], lengths: Table) -> int:
        """Enter REPEATED for every page that lies where an earlier one does; returns how many there are."""
        suspects = np.flatnonzero(_may_repeat(regions))
        if not len(suspects):
            return 0
        table = np.concatenate(self.tables)
        pages = _ranges(self._first_pages[suspects], lengths[suspects])
        bases = np.array([_pointer(regions[index]) for index in suspects.tolist()], np.int64)
        rows = np.concatenate([_rows(regions[index]) for index in suspects.tolist()])
        is_present = table[pages] != ABSENT
        where = (np.repeat(bases, lengths[suspects]) + rows * self._page_size)[is_present]
        _, first = np.unique(where, return_index=True)
        is_first = np.zeros(len(where), np.bool_)
        is_first[first] = True
        table[pages[is_present][~is_first]] = REPEATED
        self.tables = np.split(table, self._process_pages[1:])
        return len(where) - len(first)


def nr_pages(region: Region) -> int:
    """Pages of a region, absent ones included."""
    return len(region.array if region.rows is None else region.rows)


def _may_repeat(regions: Sequence[Region]) -> npt.NDArray[np.bool_]:
    """Which regions name their pages by rows, or overlap another one in memory."""
    starts = np.array([_pointer(region) for region in regions], np.int64)
    stops = starts + np.array([region.array.nbytes for region in regions], np.int64)
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate(stops[order])
    joins = np.zeros(len(regions), np.bool_)
    joins[1:] = starts[order][1:] < reach[:-1]
    result = np.array([region.rows is not None for region in regions], np.bool_)
    result[order[joins]] = True
    result[order[:-1][joins[1:]]] = True
    return result


def _pointer(region: Region) -> int:
    return int(region.array.__array_interface__["data"][0])


def _rows(region: Region) -> Table:
    return np.arange(len(region.array)) if region.rows is None else region.rows


def _ranges(starts: Table, lengths: Table) -> Table:
    """All numbers of the ranges that begin at `starts`: (5, 9), (2, 3) -> 5 6 9 10 11."""
    begins = np.cumsum(lengths) - lengths
    numbers: Table = np.arange(int(lengths.sum())) + np.repeat(starts - begins, lengths)
    return numbers

"""How many pages of each process are all zero: exactly, and nearly always without looking at any page.

The engine is asked for what became of pages of zeros. A page in no frame is looked at only where it may be
zero: if they have a frame with room for more, or if none was visited, a page without a twin cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..engine import Engine
from ..memory import Region
from ._places import Places, Table, nr_pages

_HEAD_BYTES = 16  # what is looked at first: few pages that are not zero begin with so many zeros
_CHUNK_BYTES = 1 << 22

_PRIVATE = -1


def one_frame_each(engine: Engine, places: Places) -> bool:
    """Has each content that is merged one frame, and each frame two pages at least?

    The limit may have split a content; and after the first round a frame may be left with one page.
    """
    has_room = engine.knobs.max_page_sharing >= sum(map(len, places.tables))
    return has_room and engine.counters().scan_round <= 1


def count_zero_pages(engine: Engine, places: Places, nr_unshared: Sequence[int]) -> list[int]:
    """For each process the pages of zeros it has, merged or not; those already shared count once."""
    is_simple = one_frame_each(engine, places)
    entry = engine.find(bytes(engine.page_size)) if is_simple else _PRIVATE
    frames = np.array([entry] if entry >= 0 else [], np.int64) if is_simple else _frames_of_zeros(places)
    knows_all = entry != _PRIVATE
    counts = []
    for index, table in enumerate(places.tables):
        zero = int(np.isin(table, frames).sum()) if len(frames) > 1 else _count(table, frames)
        nr_private = int((table == _PRIVATE).sum())
        if nr_private and not (knows_all and nr_private == nr_unshared[index]):
            zero += _zero_pages(places.regions[index], table == _PRIVATE)
        counts.append(zero)
    return counts


def _count(table: Table, frames: npt.NDArray[np.int64]) -> int:
    return int((table == frames[0]).sum()) if len(frames) else 0


def _frames_of_zeros(places: Places) -> npt.NDArray[np.int64]:
    """All frames of zeros, found by looking at one page of each frame.

    The groups do not tell them all: a content that the limit has split has several frames.
    """
    table = np.concatenate(places.tables)
    frames, first = np.unique(table, return_index=True)
    is_wanted = np.zeros(len(table), np.bool_)
    is_wanted[first[frames >= 0]] = True
    found = [np.empty(0, np.int64)]
    begin = 0
    for regions, own in zip(places.regions, places.tables, strict=True):
        pages = _zero_page_numbers(regions, is_wanted[begin : begin + len(own)])
        found.append(own[pages])
        begin += len(own)
    return np.concatenate(found)


def _zero_pages(regions: Sequence[Region], is_wanted: npt.NDArray[np.bool_]) -> int:
    return len(_zero_page_numbers(regions, is_wanted))


def _zero_page_numbers(regions: Sequence[Region], is_wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Of the wanted pages of a process, those whose bytes are all zero.

    The first bytes of all of them are looked at together, and then the rest of those where these are zero.
    """
    wanted = np.flatnonzero(is_wanted)
    heads = [
        region.array[_rows(region, pages), :_HEAD_BYTES] for region, pages in _by_region(regions, wanted)
    ]
    doubtful = wanted[~np.concatenate([np.empty((0, _HEAD_BYTES), np.uint8), *heads]).any(axis=1)]
    found = [_are_zero(region, pages) for region, pages in _by_region(regions, doubtful)]
    zero: npt.NDArray[np.int64] = doubtful[np.concatenate([np.empty(0, np.bool_), *found])]
    return zero


def _by_region(
    regions: Sequence[Region], pages: npt.NDArray[np.int64]
) -> Iterator[tuple[Region, npt.NDArray[np.int64]]]:
    """Ascending page numbers, taken apart by region and counted from the region's first page."""
    stops = np.cumsum([nr_pages(region) for region in regions])
    edges = np.searchsorted(pages, stops).tolist()
    for region, stop, begin, end in zip(regions, stops.tolist(), [0, *edges], edges, strict=False):
        if begin < end:
            yield region, pages[begin:end] - (stop - nr_pages(region))


def _rows(region: Region, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return pages if region.rows is None else region.rows[pages]


def _are_zero(region: Region, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool (n,): which pages of a region are zero; copied in chunks, so that they take little memory."""
    rows = _rows(region, pages)
    step = max(1, _CHUNK_BYTES // region.array.shape[1])
    return np.concatenate(
        [~region.array[rows[start : start + step]].any(axis=1) for start in range(0, len(rows), step)]
    )

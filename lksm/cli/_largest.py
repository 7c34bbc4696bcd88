"""The largest groups, from the page tables alone: for a report of a few of a million groups.

`Engine.groups` visits every merged content, wherever it lies in memory; here tables are counted, and what a
group has besides its number of pages is found for those that are shown. Right as long as a content has one
frame: no limit has split any.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._places import Places

_DTYPE = np.dtype(
    [(name, np.int64) for name in ("frame", "pages", "processes", "first_process", "first_page")]
)


def sharers(places: Places) -> npt.NDArray[np.int64]:
    """int64 (k,): how many pages each frame has, by its number."""
    counts = np.zeros(1, np.int64)
    for table in places.tables:
        own = np.bincount(table[table >= 0], minlength=len(counts))
        own[: len(counts)] += counts
        counts = own
    return counts


def largest(places: Places, nr_sharers: npt.NDArray[np.int64], top: int) -> npt.NDArray[np.void]:
    """The first `top` groups, in the order of `Engine.groups`: its fields but `digest` and `zero`."""
    frames = _largest_frames(nr_sharers, top)
    found = np.zeros(len(frames), _DTYPE)
    found["frame"], found["pages"] = frames, nr_sharers[frames]
    found["first_process"] = -1
    number = np.full(len(nr_sharers) + 1, -1, np.int64)  # by frame, and by -1 for what is in none
    number[frames] = np.arange(len(frames))
    for index, table in enumerate(places.tables):
        numbers = number[np.maximum(table, -1)]
        pages = np.flatnonzero(numbers >= 0)
        first = np.full(len(frames), -1, np.int64)
        first[numbers[pages[::-1]]] = pages[::-1]  # of the pages in one frame, the first is written last
        is_new = (first >= 0) & (found["first_process"] < 0)
        found["processes"] += first >= 0
        found["first_process"][is_new] = index
        found["first_page"][is_new] = first[is_new]
    return found


def _largest_frames(nr_sharers: npt.NDArray[np.int64], top: int) -> npt.NDArray[np.int64]:
    """Frames with at least two pages: most pages first, and of equal ones the lowest number."""
    least = 2
    if len(nr_sharers) > top:
        least = max(least, int(np.partition(nr_sharers, len(nr_sharers) - top)[len(nr_sharers) - top]))
    more = np.flatnonzero(nr_sharers > least)
    frames = np.concatenate((more, np.flatnonzero(nr_sharers == least)[: top - len(more)]))
    return frames[np.argsort(-nr_sharers[frames], kind="stable")]

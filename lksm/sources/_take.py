"""Taking pages: give every page a row, pages in one frame the same row, and read each row once.

A page may change hands while we look: its process writes to it and gets another frame. So after reading,
the frame numbers of shared pages are looked up again; a page whose own frame or whose first holder's frame
is another one now is taken once more, apart. Frames shared before and after were write-protected in
between, so what was read is what all of them hold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _pagemap
from ._ahead import ahead
from ._pagemap import Pagemap
from ._procfs import Mapping, What, is_wanted, read_mappings
from ._store import ABSENT, PENDING, Rows, Store, first_holders
from ._vmread import MemoryReader

Progress: TypeAlias = Callable[[int, int], object]

_BATCH = 4096  # pages of one job: between looking whether they are still present and having read them
_WIDEST_TABLE = 32  # entries per number for finding equal numbers by a table
_ATTEMPTS = 3  # the last one shares nothing, so it always succeeds

_Mask = npt.NDArray[np.bool_]


@dataclass(eq=False)
class Space:
    """One address space being taken; the arrays are parallel, one entry per page in address order.

    pages: page numbers. frames: frame numbers, 0 where unknown or not shared. flags: `RegionFlag` bits.
    rows: where each page is stored. left_out: number of pages not taken, by the reason in `live`.
    """

    pid: int
    pages: npt.NDArray[np.int64]
    frames: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint16]
    rows: Rows
    left_out: Counter[str] = field(default_factory=Counter)
    knows_flags: bool = True
    seconds: float = 0.0
    error: OSError | None = None


def look(pid: int, what: What, *, with_frames: bool) -> Space:
    """Find the pages of `what` that `pid` has in memory, without touching any. Every row is PENDING.

    Raises OSError (FileNotFoundError, ProcessLookupError, PermissionError) if that is not possible.
    """
    begun = time.monotonic()
    mappings, knows_flags = read_mappings(pid)
    left_out: Counter[str] = Counter()
    with Pagemap(pid) as pagemap:
        found = [
            _select(pagemap, mapping, what, left_out) for mapping in mappings if is_wanted(mapping, what)
        ]
        pages = np.concatenate([np.empty(0, np.int64), *found])
        entries = pagemap.entries(pages) if with_frames else None
    frames = np.zeros(len(pages), np.uint64) if entries is None else _pagemap.shareable_frames(entries)
    flags = [mapping.flags for mapping in mappings if is_wanted(mapping, what)]
    return Space(
        pid=pid,
        pages=pages,
        frames=frames,
        flags=np.repeat(np.array(flags, np.uint16), [len(part) for part in found]),
        rows=np.full(len(pages), PENDING, np.int64),
        left_out=left_out,
        knows_flags=knows_flags,
        seconds=time.monotonic() - begun,
    )


def take(
    spaces: Sequence[Space], store: Store, *, one_array: bool = False, progress: Progress | None = None
) -> None:
    """Give all PENDING pages their rows and read every row that is held, into the store.

    Afterwards rows are row numbers or ABSENT. New rows come from one array per family of processes that
    share frames, or, with `one_array`, from one for all. A process that could not be read has `error` set
    and no pages stored.
    """
    for _ in take_in_turn(spaces, store, one_array=one_array, progress=progress):
        pass


def take_in_turn(
    spaces: Sequence[Space], store: Store, *, one_array: bool = False, progress: Progress | None = None
) -> Generator[Space, None, None]:
    """The same, and yields every space, in order, as soon as it and all of its family have been taken."""
    families = _assign_rows(spaces, store, one_array)
    is_first = first_holders([space.rows for space in spaces], store.nr_rows)
    is_settled = [False] * len(spaces)
    nr_yielded = 0
    for nr_read in _read(spaces, is_first, store, progress):
        for family in families:
            if family[-1] == nr_read - 1:
                _settle([spaces[index] for index in family], [is_first[index] for index in family], store)
                for index in family:
                    is_settled[index] = True
        while nr_yielded < len(spaces) and is_settled[nr_yielded]:
            yield spaces[nr_yielded]
            nr_yielded += 1


def _settle(spaces: Sequence[Space], is_first: Sequence[_Mask], store: Store) -> None:
    """Take pages of one family once more, as often as they no longer share the frame they were taken with."""
    is_handled = [np.ones(len(space.rows), np.bool_) for space in spaces]
    for attempt in range(1, _ATTEMPTS):  # untested: frames that change at every attempt
        if not _verify(spaces, is_handled, is_first, store):
            return
        is_handled = [space.rows == PENDING for space in spaces]
        if attempt == _ATTEMPTS - 1:
            for space in spaces:  # untested: frames that change at every attempt
                space.frames[space.rows == PENDING] = 0
        _assign_rows(spaces, store, one_array=True)
        is_first = first_holders([space.rows for space in spaces], store.nr_rows)
        to_read = [first & handled for first, handled in zip(is_first, is_handled, strict=True)]
        for _ in _read(spaces, to_read, store, None):
            pass


def _select(pagemap: Pagemap, mapping: Mapping, what: What, left_out: Counter[str]) -> npt.NDArray[np.int64]:
    """Page numbers of `what` in one mapping; counts what is left out."""
    first, last = mapping.start // _pagemap.PAGE_SIZE, mapping.stop // _pagemap.PAGE_SIZE
    counts_untouched = mapping.accessible and (mapping.anonymous or what != "anon")
    if not mapping.occupied and not pagemap.scans:
        left_out["untouched"] += (last - first) * counts_untouched
        return np.empty(0, np.int64)
    ranges = pagemap.ranges(first, last)
    sizes, categories = ranges[:, 1] - ranges[:, 0], ranges[:, 2]
    is_present = (categories & _pagemap.IS_PRESENT) != 0
    is_file = (categories & _pagemap.IS_FILE) != 0
    # kernels differ in how they report the huge page of zeros; a mapping without a file has no file page
    is_zero = is_present & (((categories & _pagemap.IS_ZERO) != 0) | (is_file & mapping.anonymous))
    is_swapped = ~is_present & ((categories & _pagemap.IS_GUARD) == 0)
    left_out["zero"] += int(sizes[is_zero].sum())
    left_out["swapped"] += int(sizes[is_swapped].sum())
    left_out["untouched"] += (last - first - int(sizes.sum())) * counts_untouched
    is_chosen = is_present & ~is_zero & ~(is_file & (what == "anon"))
    return _expand(ranges[is_chosen, 0], sizes[is_chosen])


def _expand(starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All numbers of the ranges that begin at `starts`: (5, 9), (2, 3) -> 5 6 9 10 11."""
    begins = np.cumsum(sizes) - sizes
    numbers: npt.NDArray[np.int64] = np.arange(int(sizes.sum())) + np.repeat(starts - begins, sizes)
    return numbers


def _assign_rows(spaces: Sequence[Space], store: Store, one_array: bool) -> list[list[int]]:
    """Give every PENDING page a row; of pages in one frame, the first one's. Returns the families."""
    candidates = [np.flatnonzero((space.rows == PENDING) & (space.frames != 0)) for space in spaces]
    owner = np.repeat(np.arange(len(spaces)), [len(pages) for pages in candidates])
    frames = np.concatenate(
        [np.empty(0, np.uint64)]
        + [space.frames[pages] for space, pages in zip(spaces, candidates, strict=True)]
    )
    leader = _first_equal(frames)
    follows = leader != np.arange(len(leader))
    families = [list(range(len(spaces)))]
    if not one_array:
        families = _families(len(spaces), owner[follows], owner[leader[follows]])
    needs_row = [space.rows == PENDING for space in spaces]
    begin = 0
    for mask, pages in zip(needs_row, candidates, strict=True):
        mask[pages[follows[begin : begin + len(pages)]]] = False
        begin += len(pages)
    for family in families:
        _hand_out(store, [spaces[index] for index in family], [needs_row[index] for index in family])
    _follow(spaces, candidates, leader, follows)
    return families


def _first_equal(frames: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each position, the first position that holds the same number."""
    if not len(frames):
        return np.empty(0, np.int64)
    lowest = frames.min()
    span = int(frames.max() - lowest) + 1
    if span > _WIDEST_TABLE * len(frames):
        _, first, inverse = np.unique(frames, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)
    positions = np.arange(len(frames))
    numbers = (frames - lowest).astype(np.int64)
    table = np.empty(span, np.int64)  # ten times faster than sorting
    table[numbers[::-1]] = positions[::-1]  # of equal numbers, the first is written last
    result: npt.NDArray[np.int64] = table[numbers]
    return result


def _hand_out(store: Store, family: Sequence[Space], needs_row: Sequence[_Mask]) -> None:
    counts = [int(mask.sum()) for mask in needs_row]
    rows = store.lend(sum(counts))
    for space, mask, count in zip(family, needs_row, counts, strict=True):
        pages, mine, rows = np.flatnonzero(mask), rows[:count], rows[count:]
        space.rows[pages[: len(mine)]] = mine
        space.rows[pages[len(mine) :]] = ABSENT
        space.left_out["over the limit"] += count - len(mine)


def _follow(
    spaces: Sequence[Space], candidates: Sequence[npt.NDArray[np.int64]], leader: Rows, follows: _Mask
) -> None:
    """Give the later pages of a frame the row of the first."""
    rows = np.concatenate(
        [np.empty(0, np.int64)] + [space.rows[pages] for space, pages in zip(spaces, candidates, strict=True)]
    )
    rows, begin = rows[leader], 0
    for space, pages in zip(spaces, candidates, strict=True):
        end = begin + len(pages)
        space.rows[pages] = rows[begin:end]
        space.left_out["over the limit"] += int(((rows[begin:end] == ABSENT) & follows[begin:end]).sum())
        begin = end


def _families(nr_spaces: int, one: Rows, other: Rows) -> list[list[int]]:
    """Spaces that share frames, directly or through others, in order; `one[i]` shares with `other[i]`."""
    family = list(range(nr_spaces))
    for pair in np.unique(one * nr_spaces + other).tolist():
        left, right = divmod(pair, nr_spaces)
        old, new = max(family[left], family[right]), min(family[left], family[right])
        family = [new if member == old else member for member in family]
    members: dict[int, list[int]] = {}
    for index, head in enumerate(family):
        members.setdefault(head, []).append(index)
    return list(members.values())


class _Job(NamedTuple):
    """Pages of one space, by their places in it, and the rows to read them into."""

    space: Space
    batch: npt.NDArray[np.int64]
    rows: Rows
    is_last: bool


class _Outcome(NamedTuple):
    """What became of a job. is_read, bool (n,): which of its pages; nothing was read if there is an error."""

    job: _Job
    is_read: _Mask
    seconds: float
    error: OSError | None


def _read(
    spaces: Sequence[Space], to_read: Sequence[_Mask], store: Store, progress: Progress | None
) -> Iterator[int]:
    """Read the rows of the pages of `to_read`, by threads; what is noted of it is noted on this one.

    Yields 1, 2, 3 ...: how many spaces have been read, those without pages too.
    """
    total = sum(int(mask.sum()) for mask in to_read) * store.page_size
    done, nr_read = 0, 0
    for outcome in ahead(partial(_read_batch, store), _jobs(spaces, to_read)):
        _note(outcome)
        done += len(outcome.job.batch) * store.page_size
        if progress is not None and total:
            progress(done, total)
        if outcome.job.is_last:
            nr_read += 1
            yield nr_read


def _jobs(spaces: Sequence[Space], to_read: Sequence[_Mask]) -> Iterator[_Job]:
    """One after the other, at least one for each space."""
    for space, mask in zip(spaces, to_read, strict=True):
        wanted = np.flatnonzero(mask)
        for start in range(0, max(len(wanted), 1), _BATCH):
            batch = wanted[start : start + _BATCH]
            yield _Job(space, batch, space.rows[batch], start + _BATCH >= len(wanted))


def _read_batch(store: Store, job: _Job) -> _Outcome:
    """Read what is still present, so nothing is faulted in. On any thread: changes only bytes of rows."""
    begun = time.monotonic()
    space, batch, rows, _ = job
    is_read, error = np.zeros(len(batch), np.bool_), None
    if space.error is not None or not len(batch):
        return _Outcome(job, is_read, 0.0, None)
    try:
        with Pagemap(space.pid) as pagemap, MemoryReader(space.pid, store.page_size) as reader:
            entries = pagemap.entries(space.pages[batch])
            is_present = _pagemap.is_present(entries)
            is_read[is_present] = reader.read(
                space.pages[batch[is_present]] * store.page_size,
                store.addresses(rows[is_present]),
                _pagemap.is_mapped_once(entries[is_present]),
            )
    except OSError as failure:  # untested: it ends while its pages are read
        error = failure
    return _Outcome(job, is_read, time.monotonic() - begun, error)


def _note(outcome: _Outcome) -> None:
    """Pages that could not be read become ABSENT; all pages of a process that could not be read."""
    space, batch = outcome.job.space, outcome.job.batch
    space.seconds += outcome.seconds
    if space.error is not None:  # untested: it ended while others of its pages were read
        return
    if outcome.error is not None:  # untested: it ended while its pages were read
        space.error = outcome.error
        space.rows[:] = ABSENT
        return
    space.rows[batch[~outcome.is_read]] = ABSENT
    space.left_out["vanished"] += int((~outcome.is_read).sum())


def _verify(
    spaces: Sequence[Space], is_handled: Sequence[_Mask], is_first: Sequence[_Mask], store: Store
) -> bool:
    """Make PENDING again every page that no longer shares the frame it was taken with; is there any?"""
    is_shared = np.zeros(store.nr_rows, np.bool_)
    for space, handled, first in zip(spaces, is_handled, is_first, strict=True):
        is_shared[space.rows[handled & ~first & (space.rows >= 0)]] = True
    if not is_shared.any():
        return False
    frame_of_row = np.zeros(store.nr_rows, np.uint64)  # 0 unless the first holder has it still
    others: list[tuple[Space, Rows, npt.NDArray[np.uint64]]] = []
    for space, handled, first in zip(spaces, is_handled, is_first, strict=True):
        pages = np.flatnonzero(handled & (space.rows >= 0))
        pages = pages[is_shared[space.rows[pages]]]
        entries = _entries_now(space, pages)
        kept = np.where(_pagemap.frames(entries) == space.frames[pages], space.frames[pages], np.uint64(0))
        leads = first[pages]
        frame_of_row[space.rows[pages[leads]]] = kept[leads]
        others.append((space, pages[~leads], kept[~leads]))
        space.frames[pages] = _pagemap.shareable_frames(entries)
    found = False
    for space, pages, kept in others:
        moved = pages[(kept == 0) | (kept != frame_of_row[space.rows[pages]])]
        space.rows[moved] = PENDING
        found = found or len(moved) > 0
    return found


def _entries_now(space: Space, pages: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    if not len(pages):  # untested: a process with nothing to verify
        return np.empty(0, np.uint64)
    try:
        with Pagemap(space.pid) as pagemap:
            return pagemap.entries(space.pages[pages])
    except OSError:  # gone: nothing is shared with it any more
        return np.zeros(len(pages), np.uint64)

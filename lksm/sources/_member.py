"""One process of a snapshot: its pages, and where they were attached.

Attached pages are counted through all regions in order of address, so whoever follows a process has to
remember each region that was ever mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..memory import Region
from ._facts import Facts
from ._procfs import What
from ._store import Store, split_into_regions
from ._take import Space


@dataclass(frozen=True, eq=False)
class Member:
    """One process of a snapshot, and where its pages were attached.

    homes: for each page of `space`, which entry of the layout it is in. first_pages, lengths: the layout,
    all regions in order of mapping, int64 page numbers and numbers of pages.
    """

    facts: Facts
    what: What
    space: Space
    homes: npt.NDArray[np.int64]
    first_pages: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def page_indices(self) -> npt.NDArray[np.int64]:
        """Index of each page of `space` in the process it was attached as."""
        order = np.argsort(self.first_pages, kind="stable")
        begins = np.empty(len(order), np.int64)
        begins[order] = np.cumsum(self.lengths[order]) - self.lengths[order]
        return begins[self.homes] + self.space.pages - self.first_pages[self.homes]


def laid_out(member: Member, store: Store) -> Member:
    """The member with only its stored pages, laid out as its regions will be attached."""
    space = _stored(member.space)
    regions, homes = split_into_regions(space.pages, space.rows, space.flags, store, may_bridge=True)
    return Member(member.facts, member.what, space, homes, *_layout(regions, store.page_size))


def _stored(space: Space) -> Space:
    is_stored = space.rows >= 0
    if not is_stored.all():
        space.pages, space.rows = space.pages[is_stored], space.rows[is_stored]
        space.frames, space.flags = space.frames[is_stored], space.flags[is_stored]
    return space


def _layout(regions: Sequence[Region], page_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first_pages = [region.address // page_size for region in regions]
    lengths = [len(region.array if region.rows is None else region.rows) for region in regions]
    return np.array(first_pages, np.int64), np.array(lengths, np.int64)


def keep_rows(old: Space, new: Space) -> None:
    """Pages that were there before keep their rows."""
    index, is_known = _find(new.pages, old.pages)
    is_known &= old.flags[index] == new.flags if len(old.flags) else False
    new.rows[is_known] = old.rows[index[is_known]]


def _find(
    needles: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where each needle stands in `ascending`, and whether it does (if not, its index means nothing)."""
    if not len(ascending):
        return np.zeros(len(needles), np.int64), np.zeros(len(needles), np.bool_)  # untested: no page at all
    index = np.minimum(np.searchsorted(ascending, needles), len(ascending) - 1)
    return index, ascending[index] == needles


def differences(
    old: Member, new: Member, store: Store
) -> tuple[Member, tuple[tuple[int, int], ...], tuple[Region, ...]]:
    """The new member in the old one's layout, the page indices that are no more, the regions that are new."""
    space = _stored(new.space)
    index, is_kept = _find(space.pages, old.space.pages)
    is_kept &= old.space.rows[index] == space.rows if len(old.space.rows) else False
    is_over = np.ones(len(old.space.pages), np.bool_)
    is_over[index[is_kept]] = False
    fresh = ~is_kept
    regions, fresh_homes = split_into_regions(
        space.pages[fresh], space.rows[fresh], space.flags[fresh], store, may_bridge=False
    )
    homes = np.empty(len(space.pages), np.int64)
    homes[is_kept] = old.homes[index[is_kept]]
    homes[fresh] = fresh_homes + len(old.lengths)
    first_pages, lengths = _layout(regions, store.page_size)
    member = Member(
        new.facts,
        new.what,
        space,
        homes,
        np.concatenate((old.first_pages, first_pages)),
        np.concatenate((old.lengths, lengths)),
    )
    return member, _as_ranges(np.sort(old.page_indices()[is_over])), tuple(regions)


def _as_ranges(indices: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges: 1 2 5 -> (1, 3) (5, 6)."""
    if not len(indices):
        return ()
    edges = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), len(indices)]
    return tuple((int(indices[start]), int(indices[stop - 1]) + 1) for start, stop in pairwise(edges))

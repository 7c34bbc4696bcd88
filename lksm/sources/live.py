"""Live processes by pid: a copy of the pages that are in memory, and copies of it later on.

Nothing is faulted in, stopped or written: pages in swap, pages never touched and the kernel's shared page
of zeros are left out and reported. The zero page is nobody's memory, so it is neither stored nor counted,
as in KSM. Pages that are one physical page already (fork, same frame number) are stored once; without
CAP_SYS_ADMIN frame numbers are hidden, each is stored by itself, and `already_shared_pages` is None.

A process that runs meanwhile may write to a page while it is copied; `frozen` and `notes` tell.

To follow processes over time: `snapshot(pids, retakable=True)`, attach with `immutable=False`, and for each
round `retake`, then for every `Change` first `unmap` its ranges, then `map` its regions, then scan.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import get_args

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped,unused-ignore]

from ..errors import SourceError
from ..memory import Region
from . import _pagemap, _procfs
from ._facts import Facts, facts_of, holds_still
from ._procfs import What
from ._store import Store, first_holders, split_into_regions
from ._take import Space, look, take
from ._types import Gone, Refused, Skipped, Snapshot, SourceProcess

__all__ = ["Change", "LiveSnapshot", "Retake", "all_pids", "retake", "snapshot"]

Progress = Callable[[int, int], object]

_LEFT_OUT = {
    "untouched": ("untouched pages", "never touched, so there is nothing to read"),
    "swapped": ("swapped pages", "reading them would bring them back into memory"),
    "zero": ("zero page mappings", "the kernel's shared page of zeros is not memory of the process"),
    "vanished": ("vanished pages", "no longer present when they were to be read"),
    "over the limit": ("pages over the limit", "the snapshot has taken all the memory it may"),
}


@dataclass(frozen=True, eq=False)
class LiveSnapshot(Snapshot):
    """A `Snapshot` of live processes. `members` and `store` are for `retake`, empty if not asked for."""

    members: tuple[_Member, ...] = field(default=(), repr=False)
    store: Store | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Change:
    """What `retake` found different in the pages of one process, besides bytes changed in place.

    unmapped: ranges (start, stop) of page indices, counted as if every region attached or mapped so far
    stood in order of address (of equal addresses: in order of mapping), before `mapped` is mapped.
    mapped: regions to map after that. They may lie where pages are absent or were unmapped, now or earlier.
    process: the whole process as it is now. Who would rather detach the old one and attach this, whenever
    there is anything in `unmapped` or `mapped`, must always do so: indices count what was mapped.
    """

    pid: int
    unmapped: tuple[tuple[int, int], ...]
    mapped: tuple[Region, ...]
    process: SourceProcess


@dataclass(frozen=True, eq=False)
class Retake:
    """The outcome of one `retake`: the snapshot to retake next time, and what changed.

    `snapshot` holds the processes as they are now, and what was skipped, refused and gone this time.
    """

    snapshot: LiveSnapshot
    changes: tuple[Change, ...]


@dataclass(frozen=True, eq=False)
class _Member:
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


class _Report:
    """Collects what could not be used."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self.refused: list[Refused] = []
        self.gone: list[Gone] = []

    def add_error(self, pid: int, name: str | None, error: OSError | SourceError) -> None:
        """A process could not be used: gone, or refused with the reason."""
        if isinstance(error, SourceError):
            self.refused.append(Refused(f"pid {pid}", str(error)))
        elif isinstance(error, (FileNotFoundError, ProcessLookupError)):
            self.gone.append(Gone(pid, name))
        elif isinstance(error, PermissionError):
            reason = "not permitted: needs CAP_SYS_PTRACE, or the same user and leave to trace it"
            self.refused.append(Refused(f"pid {pid}", reason))
        else:
            self.refused.append(
                Refused(f"pid {pid}", f"its memory could not be read: {error.strerror or error}")
            )

    def add_left_out(self, space: Space, page_size: int) -> None:
        """Pages of a process that were not taken."""
        for key, (what, reason) in _LEFT_OUT.items():
            if nr_pages := space.left_out[key]:
                self.skipped.append(Skipped(f"pid {space.pid}", what, nr_pages * page_size, reason))


def all_pids() -> list[int]:
    """Every process that has user memory, except this one. Kernel threads and zombies are left out."""
    return [pid for pid in psutil.pids() if pid != os.getpid() and _procfs.has_user_memory(pid)]


def snapshot(
    pids: Iterable[int],
    *,
    page_size: int | None = None,
    what: What = "anon",
    limit_bytes: int | None = None,
    retakable: bool = False,
    progress: Progress | None = None,
) -> LiveSnapshot:
    """Copy the pages that the processes `pids` have in memory now.

    what
        "anon": anonymous pages of private mappings that KSM could merge, copied pages of private file
        mappings included. "private": all present pages of private mappings. "all": shared mappings too.
        Regions that KSM excludes carry their `RegionFlag`s. Device memory is never read.
    limit_bytes
        How much memory the copy may take; None: half of what is available. Pages beyond, in the order of
        `pids` and of addresses, are left out and reported.
    retakable
        The pages will be taken again by `retake`, so they are not immutable.
    progress
        Called as `progress(done_bytes, total_bytes)` while reading.

    A process that vanishes or refuses is reported, the others go on. Raises `SourceError` for a page size
    that is not the system's, an unknown `what` or a bad limit; `OutOfMemory` if the copy finds no room.
    """
    size = _checked_page_size(page_size)
    if what not in get_args(What):
        raise SourceError(f"what is {what!r}, expected one of {', '.join(get_args(What))}")
    store = Store(size, _checked_limit(limit_bytes) // size)
    report = _Report()
    with_frames = _pagemap.frames_are_visible()
    admitted = [_admit(pid, what, with_frames, report) for pid in dict.fromkeys(pids)]
    members = [member for member in admitted if member is not None]
    take([member.space for member in members], store, progress=progress)
    living = _survivors(members, report)
    settled = [_settled(member, store) for member in living]
    processes = _processes(settled, store, with_frames, immutable=not retakable, report=report)
    return LiveSnapshot(
        processes=tuple(process for process in processes if process.regions),
        skipped=tuple(report.skipped),
        refused=tuple(report.refused),
        gone=tuple(report.gone),
        members=tuple(settled) if retakable else (),
        store=store if retakable else None,
    )


def retake(previous: LiveSnapshot, *, progress: Progress | None = None) -> Retake:
    """Read the pages of a retakable snapshot again, into the same arrays, and tell which came and went.

    All its processes are retaken together, because pages may be stored once for several of them: a page
    that has since been written by one of them gets storage of its own. (Pages that share a frame only
    since then stay stored apart.) The limit of the first snapshot applies to everything stored. Storage of
    pages that have gone is used again, so no engine may scan between this call and the unmapping of
    `Change.unmapped`. `previous` must not be used again. Raises `SourceError` if it is not retakable.
    """
    store = previous.store
    if store is None:
        raise SourceError("the snapshot cannot be taken again: it was not made with retakable=True")
    report = _Report()
    with_frames = _pagemap.frames_are_visible()
    renewed: list[_Member] = []
    before: dict[int, _Member] = {}
    for old in previous.members:
        member = _admit(old.space.pid, old.what, with_frames, report)
        if member is not None and member.facts.status.started != old.facts.status.started:
            report.gone.append(Gone(old.space.pid, old.facts.name))
        elif member is not None:
            _keep_rows(old.space, member.space)
            before[old.space.pid] = old
            renewed.append(member)
    spaces = [member.space for member in renewed]
    store.recycle([space.rows for space in spaces])
    take(spaces, store, one_array=True, progress=progress)
    changed = [_changed(before[member.space.pid], member, store) for member in _survivors(renewed, report)]
    members = tuple(member for member, _, _ in changed)
    processes = _processes(members, store, with_frames, immutable=False, report=report)
    changes = [
        Change(member.space.pid, unmapped, mapped, process)
        for (member, unmapped, mapped), process in zip(changed, processes, strict=True)
    ]
    return Retake(
        LiveSnapshot(
            processes=tuple(process for process in processes if process.regions),
            skipped=tuple(report.skipped),
            refused=tuple(report.refused),
            gone=tuple(report.gone),
            members=members,
            store=store,
        ),
        tuple(changes),
    )


def _checked_page_size(page_size: int | None) -> int:
    if page_size is not None and page_size != _pagemap.PAGE_SIZE:
        raise SourceError(f"page size {page_size}, live processes have pages of {_pagemap.PAGE_SIZE} bytes")
    return _pagemap.PAGE_SIZE


def _checked_limit(limit_bytes: int | None) -> int:
    if limit_bytes is None:
        return int(psutil.virtual_memory().available) // 2
    if limit_bytes < 0:
        raise SourceError(f"limit_bytes is {limit_bytes}, expected 0 or more")
    return limit_bytes


def _admit(pid: int, what: What, with_frames: bool, report: _Report) -> _Member | None:
    """Look at one process; None if it cannot be used, which is then reported."""
    name = None
    try:
        facts = facts_of(pid)
        name = facts.name
        space = look(pid, what, with_frames=with_frames)
    except (OSError, SourceError) as error:
        report.add_error(pid, name, error)
        return None
    nothing = np.empty(0, np.int64)
    return _Member(facts, what, space, nothing, nothing, nothing)


def _survivors(members: Sequence[_Member], report: _Report) -> list[_Member]:
    """Members that could be read and are still the process they were; the others are reported."""
    living = []
    for member in members:
        pid, name = member.space.pid, member.facts.name
        error: OSError | None = member.space.error
        try:
            status = _procfs.read_status(pid)
            if status.started != member.facts.status.started or status.state in "ZX":
                error = ProcessLookupError(f"pid {pid}")
        except OSError as gone:
            error = gone
        if error is None:
            living.append(member)
        else:
            report.add_error(pid, name, error)
    return living


def _settled(member: _Member, store: Store) -> _Member:
    """The member with only its stored pages, laid out as its regions will be attached."""
    space = _stored(member.space)
    regions, homes = split_into_regions(space.pages, space.rows, space.flags, store, may_bridge=True)
    return _Member(member.facts, member.what, space, homes, *_layout(regions, store.page_size))


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


def _keep_rows(old: Space, new: Space) -> None:
    """Pages that were there before keep their rows."""
    index, is_known = _find(new.pages, old.pages)
    is_known &= old.flags[index] == new.flags if len(old.flags) else False
    new.rows[is_known] = old.rows[index[is_known]]


def _find(
    needles: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where each needle stands in `ascending`, and whether it does (if not, its index means nothing)."""
    if not len(ascending):
        return np.zeros(len(needles), np.int64), np.zeros(len(needles), np.bool_)
    index = np.minimum(np.searchsorted(ascending, needles), len(ascending) - 1)
    return index, ascending[index] == needles


def _changed(
    old: _Member, new: _Member, store: Store
) -> tuple[_Member, tuple[tuple[int, int], ...], tuple[Region, ...]]:
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
    member = _Member(
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


def _processes(
    members: Sequence[_Member], store: Store, with_frames: bool, *, immutable: bool, report: _Report
) -> list[SourceProcess]:
    """What the members look like to the outside; what was left out goes to the report."""
    is_first = first_holders([member.space.rows for member in members], store.nr_rows)
    processes = []
    for member, first in zip(members, is_first, strict=True):
        space, facts = member.space, member.facts
        regions, _ = split_into_regions(space.pages, space.rows, space.flags, store, may_bridge=True)
        frozen = facts.frozen and holds_still(space.pid)
        report.add_left_out(space, store.page_size)
        if not regions:
            reason = f"no present page of {member.what!r} was taken"
            report.skipped.append(Skipped(f"pid {space.pid}", "process", 0, reason))
        processes.append(
            SourceProcess(
                source=f"pid {space.pid}",
                name=facts.name,
                pid=space.pid,
                regions=tuple(regions),
                immutable=immutable,
                frozen=frozen,
                runtime_ms=facts.runtime_ms,
                faults=facts.status.faults,
                already_shared_pages=int((~first).sum()) if with_frames else None,
                notes=_notes(space, frozen),
            )
        )
    return processes


def _notes(space: Space, frozen: bool) -> tuple[str, ...]:
    how = "while it held still" if frozen else "while it was running, so pages may be torn"
    notes = [f"taken in {space.seconds:.2f} s {how}"]
    if not space.knows_flags:
        notes.append("smaps could not be read, so mappings to exclude were told by their names")
    return tuple(notes)

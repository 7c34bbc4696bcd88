"""Live processes by pid: a copy of the pages that are in memory, and copies of it later on.

Nothing is faulted in, stopped or written: pages in swap, pages never touched and the kernel's shared page
of zeros are left out and reported. The zero page is nobody's memory, so it is neither stored nor counted,
as in KSM. Pages that are one physical page already (fork, same frame number) are stored once; without
CAP_SYS_ADMIN frame numbers are hidden, each is stored by itself, and `already_shared_pages` is None.

A process that runs meanwhile may write to a page while it is copied; `frozen` and `notes` tell.

To follow processes over time: `snapshot(pids, retakable=True)`, attach with `immutable=False`, and for each
round `retake`, then for every `Change` first `unmap` its ranges, then `map` its regions, then scan. Or begin
with `snapshot([], retakable=True)` and `retake` each process when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped,unused-ignore]

from ..errors import SourceError
from ..memory import Region
from . import _pagemap, _procfs
from ._facts import facts_of, holds_still
from ._joint import join
from ._left_out import Report
from ._member import Member, differences, keep_rows, laid_out
from ._procfs import What
from ._store import Holders, Store, first_holders, split_into_regions
from ._take import Space, look, take, take_in_turn
from ._types import Gone, Skipped, Snapshot, SourceProcess

__all__ = [
    "Change",
    "LiveSnapshot",
    "Reading",
    "Retake",
    "Usage",
    "all_pids",
    "forget",
    "refusal",
    "resident_bytes",
    "retake",
    "snapshot",
    "usage",
]

Progress = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class LiveSnapshot(Snapshot):
    """A `Snapshot` of live processes. The further fields are for `retake`, empty if not asked for."""

    members: tuple[Member, ...] = field(default=(), repr=False)
    store: Store | None = field(default=None, repr=False)
    what: What = "anon"


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


class Usage(NamedTuple):
    """What a process has used so far, in all its threads: CPU time in milliseconds, and page faults."""

    runtime_ms: int
    faults: int


def resident_bytes(pid: int) -> int:
    """How much of the process `pid` is in memory, roughly; 0 if it is gone."""
    return _procfs.resident_pages(pid) * _pagemap.PAGE_SIZE


def all_pids() -> list[int]:
    """Every process that has user memory, except this one. Kernel threads and zombies are left out."""
    return [pid for pid in psutil.pids() if pid != os.getpid() and _procfs.has_user_memory(pid)]


def refusal(pid: int) -> str | None:
    """Why the process `pid` cannot be taken, in one line; None if it can be. Its memory is not looked at."""
    report = Report()
    try:
        facts_of(pid)
        with _pagemap.Pagemap(pid):
            return None
    except (OSError, SourceError) as error:
        report.add_error(pid, None, error)
    return report.refused[0].reason if report.refused else "there is no such process"


def usage(pid: int) -> Usage | None:
    """CPU time and page faults of the process `pid` so far; None if it is gone."""
    try:
        status = _procfs.read_status(pid)
    except OSError:
        return None
    return Usage(status.runtime_ms, status.faults)


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
    reading = Reading(
        pids, page_size=page_size, what=what, limit_bytes=limit_bytes, retakable=retakable, progress=progress
    )
    for _ in reading:
        pass
    return reading.snapshot()


class _Abandoned(Exception):
    pass


class Reading:
    """A `snapshot` that is being made: iterate over its processes while the next ones are read.

    Arguments and errors are those of `snapshot`. All processes are looked at when this is made; a process is
    given out when it has been read, and with it those that share frames with it. Threads read ahead, a few
    requests of 16 MiB, and only while the iteration goes on; there are none when it has ended, however. Use
    it once, on one thread at a time.
    """

    def __init__(
        self,
        pids: Iterable[int],
        *,
        page_size: int | None = None,
        what: What = "anon",
        limit_bytes: int | None = None,
        retakable: bool = False,
        progress: Progress | None = None,
    ) -> None:
        size = _checked_page_size(page_size)
        if what not in get_args(What):
            raise SourceError(f"what is {what!r}, expected one of {', '.join(get_args(What))}")
        self._store = Store(size, _checked_limit(limit_bytes) // size)
        self._what: What = what
        self._is_retakable = retakable
        self._progress = progress
        self._is_abandoned = False
        self._report = Report()
        self._with_frames = _pagemap.frames_are_visible()
        admitted = [_admit(pid, what, self._with_frames, self._report) for pid in dict.fromkeys(pids)]
        self._members = [member for member in admitted if member is not None]
        self._settled: list[Member] = []
        self._processes: list[SourceProcess] = []

    def __iter__(self) -> Iterator[SourceProcess]:
        """Each process that has pages, in the order of `pids`."""
        with suppress(_Abandoned), closing(self._taken()) as taken:
            yield from taken

    def abandon(self) -> None:
        """Nobody wants the rest: an iteration that is under way, on another thread, ends soon."""
        self._is_abandoned = True

    def _taken(self) -> Generator[SourceProcess, None, None]:
        holders = Holders()
        spaces = [member.space for member in self._members]
        with closing(take_in_turn(spaces, self._store, progress=self._go_on)) as taken:
            yield from self._processes_of(taken, holders)

    def _processes_of(self, taken: Iterable[object], holders: Holders) -> Iterator[SourceProcess]:
        for member, _ in zip(self._members, taken, strict=True):
            for living in _survivors([member], self._report):
                settled = laid_out(living, self._store)
                first = holders.first(settled.space.rows, self._store.nr_rows)
                process = _process(
                    settled, first, self._store, self._with_frames,
                    immutable=not self._is_retakable, report=self._report,
                )  # fmt: skip
                self._settled.append(settled)
                if process.regions:
                    self._processes.append(process)
                    yield process

    def _go_on(self, done: int, total: int) -> None:
        if self._is_abandoned:
            raise _Abandoned
        if self._progress is not None:
            self._progress(done, total)

    def snapshot(self) -> LiveSnapshot:
        """Everything, when the iteration is over."""
        return LiveSnapshot(
            processes=tuple(self._processes),
            skipped=tuple(self._report.skipped),
            refused=tuple(self._report.refused),
            gone=tuple(self._report.gone),
            members=tuple(self._settled) if self._is_retakable else (),
            store=self._store if self._is_retakable else None,
            what=self._what,
        )


def retake(
    previous: LiveSnapshot, pids: Iterable[int] | None = None, *, progress: Progress | None = None
) -> Retake:
    """Read the pages of a retakable snapshot again, into the same arrays, and tell which came and went.

    pids
        Only these are read. One that is not in the snapshot joins it: all its pages are `mapped`. The others
        stay as they are, and have no `Change`. None: all of the snapshot.

    A page that is stored once for several processes, and has been written by one of them since, gets storage
    of its own; a page that is new here and one with a page stored already shares its storage. (What is read
    of it then is right for all who hold it.) Pages that are stored apart, and share a frame only since then,
    stay apart.

    The limit of the first snapshot applies to everything stored. Storage of pages that have gone is used
    again, so no engine may scan between this call and the unmapping of `Change.unmapped`. `previous` must not
    be used again. Raises `SourceError` if it is not retakable.
    """
    store = previous.store
    if store is None:
        raise SourceError("the snapshot cannot be taken again: it was not made with retakable=True")
    report = Report()
    with_frames = _pagemap.frames_are_visible()
    before = {member.space.pid: member for member in previous.members}
    chosen = list(before if pids is None else dict.fromkeys(pids))
    kept = [member for pid, member in before.items() if pid not in set(chosen)]
    renewed = _renewed(chosen, before, previous.what, with_frames, report)
    spaces = [member.space for member in renewed]
    joint = join(spaces, [member.space for member in kept], store)
    store.recycle([space.rows for space in spaces] + [member.space.rows for member in kept])
    take([*joint, *spaces], store, one_array=True, progress=progress)
    outcomes = [
        _outcome(before.get(member.space.pid), member, store) for member in _survivors(renewed, report)
    ]
    members = [member for member, _, _ in outcomes]
    processes = _processes(members, store, with_frames, immutable=False, report=report, others=kept)
    changes = tuple(
        Change(process.pid or 0, unmapped, process.regions if mapped is None else mapped, process)
        for (_, unmapped, mapped), process in zip(outcomes, processes, strict=True)
    )
    return Retake(_continued(previous, kept, members, processes, report), changes)


def forget(previous: LiveSnapshot, pids: Iterable[int]) -> LiveSnapshot:
    """The snapshot without these processes; their storage is used again by the next `retake`.

    No engine may know them by then. `previous` must not be used again.
    """
    gone = set(pids)
    return replace(
        previous,
        processes=tuple(process for process in previous.processes if process.pid not in gone),
        members=tuple(member for member in previous.members if member.space.pid not in gone),
    )


def _renewed(
    pids: Iterable[int], before: Mapping[int, Member], what: What, with_frames: bool, report: Report
) -> list[Member]:
    """The processes as they are now, with the rows that their pages had; those that are gone are reported."""
    renewed = []
    for pid in pids:
        old, member = before.get(pid), _admit(pid, what, with_frames, report)
        if member is None:
            continue
        if old is not None and member.facts.status.started != old.facts.status.started:
            report.gone.append(Gone(pid, old.facts.name))
            continue
        if old is not None:
            keep_rows(old.space, member.space)
        renewed.append(member)
    return renewed


def _outcome(
    old: Member | None, new: Member, store: Store
) -> tuple[Member, tuple[tuple[int, int], ...], tuple[Region, ...] | None]:
    """The new member, the page indices that are no more, the regions that are new; None: all it has."""
    return (laid_out(new, store), (), None) if old is None else differences(old, new, store)


def _continued(
    previous: LiveSnapshot,
    kept: Iterable[Member],
    taken: Iterable[Member],
    processes: Iterable[SourceProcess],
    report: Report,
) -> LiveSnapshot:
    """The snapshot to go on with: what was taken now is as it is now, the rest as it was."""
    living = {member.space.pid: member for member in (*kept, *taken)}
    places = dict.fromkeys([*(member.space.pid for member in previous.members), *living])
    members = [living[pid] for pid in places if pid in living]
    known = {process.pid: process for process in (*previous.processes, *processes)}
    found = [known.get(member.space.pid) for member in members]
    return LiveSnapshot(
        processes=tuple(process for process in found if process is not None and process.regions),
        skipped=tuple(report.skipped),
        refused=tuple(report.refused),
        gone=tuple(report.gone),
        members=tuple(members),
        store=previous.store,
        what=previous.what,
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


def _admit(pid: int, what: What, with_frames: bool, report: Report) -> Member | None:
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
    return Member(facts, what, space, nothing, nothing, nothing)


def _survivors(members: Sequence[Member], report: Report) -> list[Member]:
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


def _processes(
    members: Sequence[Member],
    store: Store,
    with_frames: bool,
    *,
    immutable: bool,
    report: Report,
    others: Sequence[Member] = (),
) -> list[SourceProcess]:
    """What the members look like to the outside; what was left out goes to the report."""
    rows = [member.space.rows for member in (*others, *members)]
    is_first = first_holders(rows, store.nr_rows)[len(others) :]
    return [
        _process(member, first, store, with_frames, immutable=immutable, report=report)
        for member, first in zip(members, is_first, strict=True)
    ]


def _process(
    member: Member,
    is_first: npt.NDArray[np.bool_],
    store: Store,
    with_frames: bool,
    *,
    immutable: bool,
    report: Report,
) -> SourceProcess:
    """What one member looks like; is_first, bool (n,): which of its pages no earlier process has."""
    space, facts = member.space, member.facts
    regions, _ = split_into_regions(space.pages, space.rows, space.flags, store, may_bridge=True)
    frozen = facts.frozen and holds_still(space.pid)
    report.add_left_out(space, store.page_size)
    if not regions:
        reason = f"no present page of {member.what!r} was taken"
        report.skipped.append(Skipped(f"pid {space.pid}", "process", 0, reason))
    return SourceProcess(
        source=f"pid {space.pid}",
        name=facts.name,
        pid=space.pid,
        regions=tuple(regions),
        immutable=immutable,
        frozen=frozen,
        runtime_ms=facts.runtime_ms,
        faults=facts.status.faults,
        already_shared_pages=int((~is_first).sum()) if with_frames else None,
        notes=_notes(space, frozen),
    )


def _notes(space: Space, frozen: bool) -> tuple[str, ...]:
    how = "while it held still" if frozen else "while it was running, so pages may be torn"
    notes = [f"taken in {space.seconds:.2f} s {how}"]
    if not space.knows_flags:
        notes.append("smaps could not be read, so mappings to exclude were told by their names")
    return tuple(notes)

"""An engine that follows live processes: what happens to them, and, only when it scans them, their pages.

A process is attached when it is first seen, with a stand-in for its memory: one page above all addresses that
a process can have, the same for all. Just before the first scan of it that page goes and its own pages come.
So nothing is read of a process that ends before it is scanned, or that no scan asks for, and a scan sees
pages that were read for it. Who is in the queue is asked before every batch, so late arrivals are read too.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..counters import ProcessState
from ..engine import Engine
from ..memory import Region
from ..process import Process
from ..sources import Refused, live
from ..sources.events import Event, Kind
from ._progress import Report

_STAND_IN = np.zeros((1, mmap.PAGESIZE), np.uint8)
_STAND_IN_ADDRESS = 1 << 63  # where user space ends
_MUCH_BYTES = 1 << 28  # to read at once: a fraction of a second
_MAX_REGIONS = 1 << 14  # mapped so far; then a process is attached anew, so that its past is forgotten
"""Every region ever mapped is remembered, by the engine and by the snapshot."""


@dataclass(frozen=True)
class Scanned:
    """A process of a scan, and why it was in it: "frozen", "new", or neither."""

    pid: int
    name: str
    why: str


@dataclass(eq=False)
class _Followed:
    """A process that is attached. nr_regions: how many were mapped so far; None: it was never read."""

    process: Process
    nr_regions: int | None = None


class Follower:
    """The processes that an engine follows, by pid.

    bytes_read: of all processes so far. `named` are taken for long-lived, whatever CPU time they have used,
    because somebody asked for them.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: live.LiveSnapshot,
        *,
        named: Iterable[int] = (),
        drops_flags: bool = False,
    ) -> None:
        self.bytes_read = 0
        self._refused: list[Refused] = []
        self._over_limit: dict[str, int] = {}  # bytes of a source that found no room when it was last read
        self._engine = engine
        self._snapshot = snapshot
        self._named = frozenset(named)
        self._drops_flags = drops_flags
        self._followed: dict[int, _Followed] = {}
        self._fresh: set[int] = set()  # read since the last scan wrapped up
        self._scanned: dict[int, Scanned] = {}  # of the scan that goes on

    @property
    def nr_processes(self) -> int:
        return len(self._followed)

    @property
    def nr_frozen(self) -> int:
        return sum(followed.process.frozen for followed in self._followed.values())

    @property
    def bytes_over_limit(self) -> int:
        """How much of the processes has found no room, as far as they were read."""
        return sum(self._over_limit.values())

    def take_refused(self) -> list[Refused]:
        """Processes that could not be read, each told once."""
        refused, self._refused = self._refused, []
        return refused

    # --- events

    def apply(self, event: Event) -> None:
        """Tell the engine what happened to a process."""
        followed = self._followed.get(event.pid)
        if event.kind is Kind.START:
            self._attach(event.pid, event.name, event.frozen)
        elif followed is None:  # it was refused
            return
        elif event.kind is Kind.EXIT:
            self._drop(event.pid)
        elif event.kind is Kind.FREEZE:
            followed.process.freeze()
        else:
            followed.process.thaw()
            self._fresh.discard(event.pid)

    def _attach(self, pid: int, name: str, frozen: bool) -> None:
        used = live.usage(pid)
        process = self._engine.attach(
            Region(_STAND_IN_ADDRESS, _STAND_IN),
            name=name,
            pid=pid,
            frozen=frozen,
            runtime_ms=None if pid in self._named or used is None else used.runtime_ms,
        )
        process.faults = used.faults if used is not None else 0
        self._followed[pid] = _Followed(process)

    def _drop(self, pid: int) -> None:
        self._followed.pop(pid).process.exit()
        self._snapshot = live.forget(self._snapshot, [pid])
        self._fresh.discard(pid)
        self._over_limit.pop(f"pid {pid}", None)

    # --- before a crawl

    def refresh(self) -> None:
        """What the crawler's choice depends on: CPU time (too short a life?) and page faults (VIPs)."""
        for pid, followed in self._followed.items():
            used = live.usage(pid)
            if used is not None:
                followed.process.faults = used.faults
                if pid not in self._named:
                    followed.process.runtime_ms = used.runtime_ms

    # --- before a batch

    def read_what_is_scanned(self, progress: Report | None = None) -> bool:
        """Read the pages of the processes in the queue that were not read since the last scan.

        Some of them, if that is much: False means that more are to be read before the next batch. So events
        do not have to wait for all of it.
        """
        waiting = self._stale()
        stale = _some(waiting)
        if stale:
            self._read(stale, progress)
        return len(stale) == len(waiting)

    def _stale(self) -> list[int]:
        pids = [process.pid for process in self._engine.queue]
        return [pid for pid in pids if pid is not None and pid not in self._fresh]

    def _read(self, stale: list[int], progress: Report | None) -> None:
        retaken = live.retake(self._snapshot, stale, progress=progress)
        self._snapshot = retaken.snapshot
        self._refused.extend(retaken.snapshot.refused)
        for pid in stale:
            self._over_limit.pop(f"pid {pid}", None)
        for skipped in retaken.snapshot.skipped:
            if skipped.what == "pages over the limit":
                # untested: more memory than --limit while it is watched
                self._over_limit[skipped.source] = skipped.nbytes
        for change in retaken.changes:
            self._apply(change, self._followed[change.pid])
        read = {change.pid for change in retaken.changes}
        for pid in stale:
            if pid not in read:
                self._drop(pid)

    def _apply(self, change: live.Change, followed: _Followed) -> None:
        process = followed.process
        if change.pid not in self._scanned:
            self._scanned[change.pid] = Scanned(change.pid, change.process.name, _why(process))
        process.name = change.process.name
        if followed.nr_regions is None:
            process.unmap(0, 1)  # the stand-in; it keeps its number, which is the last one of all
        for start, stop in change.unmapped:
            process.unmap(start, stop)
        for region in change.mapped:
            process.map(self._comparable(region))
        if change.mapped:
            process.advise("mergeable")  # or the next crawl would be the first to see the new pages
        followed.nr_regions = (followed.nr_regions or 0) + len(change.mapped)
        self._fresh.add(change.pid)
        self.bytes_read += change.process.nbytes

    def _comparable(self, region: Region) -> Region:
        """The region without its flags, if more was asked for than what the kernel could merge."""
        return Region(region.address, region.array, region.rows) if self._drops_flags else region

    # --- after a scan

    def scanned(self) -> list[Scanned]:
        """Who was in the scan that has wrapped up; the next one reads everything anew."""
        scanned = list(self._scanned.values())
        self._scanned = {}
        self._fresh = set()
        for pid, followed in list(self._followed.items()):
            if (followed.nr_regions or 0) > _MAX_REGIONS:
                name, frozen = followed.process.name, followed.process.frozen
                self._drop(pid)
                self._attach(pid, name, frozen)
        return scanned


def _some(pids: list[int]) -> list[int]:
    """The first processes of a list, at least one, up to so much memory that it is enough for once."""
    nbytes = 0
    for number, pid in enumerate(pids, 1):
        nbytes += live.resident_bytes(pid)
        if nbytes >= _MUCH_BYTES:
            return pids[:number]
    return pids


def _why(process: Process) -> str:
    if process.frozen:
        return "frozen"
    return "new" if process.state & ProcessState.NEWCOMER else ""

"""One address space whose pages may be merged, and what the policy knows of its owner."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ._core import CoreProcess
from ._lock import FairLock
from .counters import ProcessState, ProcessStats
from .crawler import Pending, SlotState
from .errors import InvalidMemory, ProcessGone
from .memory import PageRun, Region, as_page_runs, check_domain, check_node

Advice = Literal["mergeable", "unmergeable"]
_ITEM_BYTES = 64  # the kernel's figure for one item, used by its profit formula


class Host(Protocol):
    """What a process asks of the engine it belongs to; the lock is held for all of it."""

    page_size: int
    nr_nodes: int
    lock: FairLock

    def register(self, process: Process) -> None: ...

    def changed(self) -> None: ...

    def freeze(self, process: Process) -> None: ...

    def thaw(self, process: Process) -> None: ...

    def forked(self, parent: Process, child: Process) -> None: ...

    def exited(self, process: Process) -> None: ...


class Process:
    """An attached address space; made by `Engine.attach` and `Process.fork`.

    Pages are numbered in address order, over all regions, absent ones included. Every method may be called
    from any thread. After `exit`, or when the engine is closed, methods raise `ProcessGone`.

    faults
        Page faults so far; the owner may set it, and `write` counts one.
    runtime_ms
        CPU time so far in milliseconds, or None if the process is known to be long-lived.
    """

    def __init__(
        self,
        host: Host,
        core: CoreProcess,
        runs: list[PageRun],
        *,
        name: str,
        pid: int | None,
        domain: int,
        immutable: bool,
        tracked: bool,
        frozen: bool,
        runtime_ms: int | None,
    ) -> None:
        self._host = host
        self._core: CoreProcess | None = core
        self._runs = runs
        self._registered_at: int | None = None
        self._faults_seen = 0
        self._frozen = frozen
        self._immutable = immutable
        self._tracked = tracked
        self._domain = domain
        self._merge_any = False
        self.name = name
        self.pid = pid
        self.faults = 0
        self.runtime_ms = runtime_ms

    def __repr__(self) -> str:
        return f"<lksm.Process {self.name!r}{' (exited)' if self.exited else ''}>"

    @property
    def _alive(self) -> CoreProcess:
        """The core's handle, for the engine; `ProcessGone` if there is none any more."""
        if self._core is None:
            raise ProcessGone(f"process {self.name!r} has exited, or its engine is closed")
        return self._core

    # --- what it is ------------------------------------------------------------------------------

    @property
    def nr_pages(self) -> int:
        """Pages of all regions, absent ones included."""
        with self._host.lock:
            _ = self._alive
            return sum(run.nr_pages for run in self._runs)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions in address order; arrays are uint8 (n, page_size) views of the owner's memory.

        `node` is that of the region when it was attached, or last moved as a whole.
        """
        with self._host.lock:
            _ = self._alive
            return tuple(
                Region(r.address, r.pages, r.rows, r.node, r.flags, r.key, r.role) for r in self._runs
            )

    @property
    def domain(self) -> int:
        """Its pages merge only with those of this domain.

        Storing another one, 0 to 2**32 - 1, unmerges the process first: its pages are private and its items
        are gone, and the counters of both domains say so at once. ValueError: out of range. OutOfMemory: it
        stays where it is.
        """
        return self._domain

    @domain.setter
    def domain(self, domain: int) -> None:
        check_domain(domain)
        with self._host.lock:
            self._alive.set_domain(domain)
            self._domain = int(domain)

    @property
    def frozen(self) -> bool:
        """Is its task frozen, so that its pages hold still?"""
        return self._frozen

    @property
    def exited(self) -> bool:
        return self._core is None

    @property
    def state(self) -> ProcessState:
        """State bits: FROZEN or LISTED, NEWCOMER or SCANNED (spec 7.5)."""
        with self._host.lock:
            status = self._alive.status()
            state = ProcessState.FROZEN if self._frozen else ProcessState.LISTED
        if status.is_newcomer:
            state |= ProcessState.NEWCOMER
        if status.is_scanned:
            state |= ProcessState.SCANNED
        return state

    def stats(self) -> ProcessStats:
        """What this process contributes to the counters (spec 12.6)."""
        with self._host.lock:
            status, merge_any = self._alive.status(), self._merge_any
        return ProcessStats(
            pages=status.nr_mapped,
            rmap_items=status.rmap_items,
            merging_pages=status.merging_pages,
            zero_pages=status.zero_pages,
            unshared=status.unshared,
            volatile=status.rmap_items - status.merging_pages - status.unshared,
            window=tuple(status.window[i] for i in range(status.nr_window)),
            nr_merged=status.nr_merged,
            nr_scans=status.nr_scans,
            elapsed_ms=status.elapsed,
            profit_bytes=(status.merging_pages + status.zero_pages) * self._host.page_size
            - status.rmap_items * _ITEM_BYTES,
            mergeable=status.is_mergeable,
            merge_any=merge_any,
        )

    # --- its memory ------------------------------------------------------------------------------

    def read(self, page: int, n: int = 1) -> npt.NDArray[np.uint8]:
        """A copy of n pages, uint8 (n, page_size). InvalidMemory if one is absent or out of range."""
        start, stop = self._range(page, page + n)
        with self._host.lock:
            return self._alive.read(start, stop - start)

    def write(self, page: int, data: npt.NDArray[np.uint8] | bytes, offset: int = 0) -> None:
        """Writes bytes within one page and counts a fault.

        The page is private at once, even for equal bytes; counters follow at its next visit (spec 4.1), but
        `zero_pages` at once.
        A page shared by fork is copied first. InvalidMemory: immutable or read-only memory, an absent
        page, or bytes that do not fit. OutOfMemory: no room for the copy; nothing was written.
        """
        source = _as_bytes(data)
        start, _ = self._range(page, page + 1)
        if not 0 <= offset <= self._host.page_size - source.nbytes:
            raise InvalidMemory(
                f"{source.nbytes} bytes at offset {offset} do not fit a page of {self._host.page_size}"
            )
        with self._host.lock:
            core = self._alive
            if not self._immutable and not self._run_of(start).pages.flags.writeable:
                raise InvalidMemory(f"page {start} lies in an array that is read-only")
            core.write(start, offset, source)
            self.faults += 1

    def touch(self, start: int, stop: int) -> None:
        """The owner wrote pages start to stop - 1 with plain numpy: counts a fault for each.

        Whether a page changed is seen at its next visit, touched or not; only tracked memory is not looked at
        again before it is touched, wherever its bytes are mapped. InvalidMemory: no such pages.
        """
        start, stop = self._range(start, stop)
        with self._host.lock:
            self._alive.touch(start, stop)
            self.faults += stop - start

    def map(self, region: Region) -> None:
        """Adds a region; pages above it get higher numbers. A crawl makes its pages mergeable, as in attach;
        with `merge_any` they are so at once.

        It may lie over pages that are absent or unmapped: they keep their numbers. InvalidMemory: not whole
        pages, or it lies over a page that is present. OutOfMemory: nothing was added.
        """
        if not isinstance(region, Region):
            raise InvalidMemory(f"region is a {type(region).__name__}, expected a Region")
        (run,) = as_page_runs(region, page_size=self._host.page_size, nr_nodes=self._host.nr_nodes)
        with self._host.lock:
            runs = sorted([*self._runs, run], key=lambda each: each.address)
            self._alive.map(run, is_immutable=self._immutable, is_tracked=self._tracked)
            self._runs = runs  # keeps the array alive; nothing that may fail stands in between
            if self._merge_any and self._alive.join():
                self._host.register(self)
            self._host.changed()

    def unmap(self, start: int, stop: int) -> None:
        """Pages start to stop - 1 become absent; they keep their numbers. InvalidMemory: no such pages."""
        start, stop = self._range(start, stop)
        with self._host.lock:
            self._alive.unmap(start, stop)

    def move(self, start: int, stop: int, node: int) -> None:
        """The owner has moved pages start to stop - 1 to that memory node.

        A merged page takes its frame along, for all who share it; where that is filed follows at the next
        visit of one of its pages (spec 9.2). Of a page that several processes map (fork) each is to tell.
        InvalidMemory: no such node or pages. OutOfMemory: nothing has moved.
        """
        start, stop = self._range(start, stop)
        check_node(node, self._host.nr_nodes)
        with self._host.lock:
            runs = _moved(self._runs, start, stop, node)
            self._alive.move(start, stop, node)
            self._runs = runs

    def advise(self, advice: Advice, start: int = 0, stop: int | None = None) -> None:
        """Offers pages for merging, or takes them out.

        "mergeable" registers the process and clears an opt-out (spec 7.2). "unmergeable" opts out for
        good: merged and zero pages are private at once; counters follow at the next scan (spec 4.2), but
        `zero_pages` at once. ValueError: another advice. InvalidMemory: no such pages.
        """
        if advice not in ("mergeable", "unmergeable"):
            raise ValueError(f"advice is {advice!r}, expected 'mergeable' or 'unmergeable'")
        with self._host.lock:
            core = self._alive
            start, stop = self._range(start, self.nr_pages if stop is None else stop)
            core.advise(start, stop, is_mergeable=advice == "mergeable")
            if advice == "mergeable" and core.status().is_mergeable:
                self._host.register(self)

    @property
    def merge_any(self) -> bool:
        """Are all pages offered for merging, also those of regions that are mapped later? (spec 12.1)

        True registers the process and is `advise("mergeable")` for all pages, opted out or not. False is
        `advise("unmergeable")` for all: merged pages are private at once, and no crawl marks them again. To
        set what is set already does nothing. A forked child inherits it.
        """
        with self._host.lock:
            _ = self._alive
            return self._merge_any

    @merge_any.setter
    def merge_any(self, is_wanted: bool) -> None:
        with self._host.lock:
            core = self._alive
            if bool(is_wanted) == self._merge_any:
                return
            core.advise(0, self.nr_pages, is_mergeable=bool(is_wanted))
            self._merge_any = bool(is_wanted)
            if self._merge_any:
                self._host.register(self)

    # --- its life --------------------------------------------------------------------------------

    def _slot_state(self) -> SlotState:
        """What the policy needs to know; the caller holds the engine's lock."""
        status = self._alive.status()
        return SlotState(
            registered_at=self._registered_at if status.is_registered else None,
            is_frozen=self._frozen,
            pending=Pending(status.pending),
            is_scanned=status.is_scanned,
            is_cursor=status.is_cursor,
            score=status.nr_merged,
            completion=status.completion,
            faults=self.faults,
            faults_seen=self._faults_seen,
            runtime_ms=self.runtime_ms,
            elapsed_ms=status.elapsed,
            domain=self._domain,
        )

    def freeze(self) -> None:
        """Its task was frozen: it waits for a scan, also one that is running now (spec 7.5).

        If it is not registered yet, the next crawl registers it (spec 7.6).
        """
        with self._host.lock:
            _ = self._alive
            self._frozen = True
            self._host.freeze(self)

    def thaw(self) -> None:
        """Its task runs again (spec 7.5)."""
        with self._host.lock:
            _ = self._alive
            self._frozen = False
            self._host.thaw(self)

    def fork(self, name: str | None = None) -> Process:
        """A child that shares this process's regions, and its registration, advice and `merge_any`.

        Before the first `write` to a shared page, by either side, the child gets a copy of that page.
        Writes with plain numpy reach both. Pages that both still share are one page: never a saving.
        OutOfMemory: there is no child.
        """
        with self._host.lock:
            core = self._alive.fork()
            try:
                child = Process(
                    self._host,
                    core,
                    list(self._runs),
                    name=name or f"{self.name}-child",
                    pid=None,
                    domain=self._domain,
                    immutable=self._immutable,
                    tracked=self._tracked,
                    frozen=False,
                    runtime_ms=0,
                )
                child._merge_any = self._merge_any
            except BaseException:  # untested: no memory, in tests/test_no_memory.py
                core.destroy()
                raise
            try:
                self._host.forked(self, child)
            except BaseException:  # untested: no memory, in tests/test_no_memory.py
                child.exit()
                raise
            return child

    def exit(self) -> None:
        """Leaves: at return nothing of it is linked or counted, and its arrays are released.

        Never fails, and may be called during a scan. Exiting twice is exiting once.
        """
        with self._host.lock:
            if self._core is not None:
                self._core.destroy()
                self._core = None  # nothing that may fail stands in between
                self._runs.clear()
            self._host.exited(self)

    def _release(self) -> None:
        """Forgets the core's handle and the arrays: the core knows them no more."""
        self._core = None
        self._runs = []

    # --- helpers ---------------------------------------------------------------------------------

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        nr_pages = self.nr_pages
        if not 0 <= start <= stop <= nr_pages:
            raise InvalidMemory(f"pages {start} to {stop} are not within the {nr_pages} of {self.name!r}")
        return int(start), int(stop)

    def _run_of(self, page: int) -> PageRun:
        firsts = [0]
        for run in self._runs[:-1]:
            firsts.append(firsts[-1] + run.nr_pages)
        return self._runs[bisect_right(firsts, page) - 1]


def _moved(runs: list[PageRun], start: int, stop: int, node: int) -> list[PageRun]:
    """The runs, of which those that lie within pages start to stop - 1 are on that node now."""
    moved, first = [], 0
    for run in runs:
        after = first + run.nr_pages
        moved.append(replace(run, node=node) if start <= first and after <= stop else run)
        first = after
    return moved


def _as_bytes(data: npt.NDArray[np.uint8] | bytes) -> npt.NDArray[np.uint8]:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return np.frombuffer(data, np.uint8)
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "buifc":
        raise InvalidMemory(f"data is a {type(data).__name__}, expected bytes or an array of plain numbers")
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)

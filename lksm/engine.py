"""The engine: processes come and go, scans run, and everybody may ask what happened."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _fork, effects
from ._core import MAX_NODES, MAX_WINDOW, REASON_NAMES, Core
from ._crew import Crew
from ._lock import FairLock
from .clock import Clock, CpuClock, VirtualClock
from .counters import Counters, ScanReport
from .crawler import Mode
from .driver import Driver
from .errors import InvalidMemory
from .knobs import Knobs, Sysfs
from .memory import Memory, as_page_runs, check_domain, check_node
from .process import Process
from .report import Explanation, Facts, Reason, explanation
from .scheduler import Scheduler


class Engine:
    """Merges identical pages of the processes attached to it.

    Nothing runs by itself: scans are asked for with `full`, `partial` or in steps with `crawl` and `scan`; or
    the knob `run` says when they are due, and `start`, `advance` or `turn` drives them.

    policy
        "lksm": scans when processes freeze, on request or at long intervals; the checksum gate applies in
        the initial rounds only. "ksm": pass after pass over everything, with the order of steps of today's
        KSM (spec 12.2), `smart_scan` on, and `run` 0, 1 or 2.
    page_size
        Bytes; a power of two from 64 to 2**30.
    nodes
        Number of memory nodes that regions may name, 1 to 256. Whether their pages are compared with each
        other is the knob `merge_across_nodes`.
    secure
        Every frame is a copy of the engine's own: none is lent by immutable memory.
    seed
        Fixes which bytes keys are taken from. None: a random one. Counters and groups do not depend on it.
    clock
        Any callable that returns milliseconds; a `VirtualClock` in tests. None: the monotonic clock.
    cpu_clock
        Any callable that returns CPU milliseconds of the calling thread: what scans cost, for the knob
        `advisor_mode`. None: the system's.
    threads
        How many threads look at the bytes of pages during large scans; one of them, whoever drives, decides.
        Results and counters do not depend on it. The others start with the first large scan and end with
        `close`. None: one for each CPU that this process may use.
    initial_rounds
        The gate is closed in rounds below this: a page must hold still for a round first (spec 3.4.1). So
        many full scans come first when scans start by themselves (spec 5.3).
    max_vips
        A partial scan adds processes with recent merges until these, frozen and new ones are this many
        (spec 5.6).
    short_lived_ms
        A crawl leaves out processes that have used less CPU time, in milliseconds (spec 5.4).
    merge_window
        Over how many of its last scans the merges of a process count for that, 1 to 16 (spec 2.7).
    filter
        Leave out pages of regions that have a `Region.key`: those at offsets where no page of any region with
        that key and role, in the same domain, has ever merged (spec 11).
    filter_maturity
        A filter only learns until it is more than so many rounds old.
    filter_sweep_interval
        Every so many full scans one leaves nothing out, so that filters learn what merges by now. 0: none
        does by itself.
    auto_join
        Does a crawl register every process that has not opted out, or only those advised mergeable?
    knobs
        Start values of `Engine.knobs`, by name. KnobError if out of range.

    The constructor raises ValueError for arguments out of range, KnobError for knobs, and OutOfMemory. A scan
    with no room to remember a page raises OutOfMemory; it may be asked for again.

    All methods may be called from any thread, also during a scan. Use of a closed engine raises
    `ProcessGone`. If a turn of the threads fails, `run` becomes 0 and the next call of a method of the engine
    raises what it raised.
    """

    def __init__(
        self,
        *,
        policy: Literal["lksm", "ksm"] = "lksm",
        page_size: int = 4096,
        nodes: int = 1,
        seed: int | None = None,
        clock: Clock | None = None,
        cpu_clock: CpuClock | None = None,
        threads: int | None = None,
        initial_rounds: int = 3,
        max_vips: int = 20,
        short_lived_ms: int = 100,
        merge_window: int = 3,
        auto_join: bool = True,
        secure: bool = False,
        filter: bool = False,  # noqa: A002
        filter_maturity: int = 5,
        filter_sweep_interval: int = 64,
        **knobs: int | str,
    ) -> None:
        if policy not in ("lksm", "ksm"):
            raise ValueError(f"policy is {policy!r}, expected 'lksm' or 'ksm'")
        _check_page_size(page_size)
        _check_at_least("nodes", nodes, 1)
        if nodes > MAX_NODES:
            raise ValueError(f"nodes is {nodes}, expected 1 to {MAX_NODES}")
        if threads is None:
            threads = len(os.sched_getaffinity(0))
        _check_at_least("threads", threads, 1)
        _check_at_least("initial_rounds", initial_rounds, 0)
        _check_at_least("max_vips", max_vips, 0)
        _check_at_least("short_lived_ms", short_lived_ms, 0)
        _check_at_least("merge_window", merge_window, 1)
        _check_at_least("filter_maturity", filter_maturity, 0)
        _check_at_least("filter_sweep_interval", filter_sweep_interval, 0)
        if merge_window > MAX_WINDOW:
            raise ValueError(f"merge_window is {merge_window}, expected 1 to {MAX_WINDOW}")
        is_upstream = policy == "ksm"
        self.page_size = page_size
        self._nr_nodes = nodes
        self._lock = FairLock()
        self._is_upstream = is_upstream
        self.knobs = Knobs({"smart_scan": int(is_upstream), **knobs}, self._lock, self._apply_knob)
        effects.check_start_values(self.knobs, knobs, is_upstream=is_upstream)
        self.sysfs = Sysfs(self.knobs, self._show)
        self._core: Core | None = Core(
            page_size=page_size,
            seed=int.from_bytes(os.urandom(8), "little") if seed is None else seed % 2**64,
            initial_rounds=initial_rounds,
            max_page_sharing=self.knobs.max_page_sharing,
            merge_window=merge_window,
            gate_first=is_upstream,
            nr_nodes=nodes,
            is_secure=secure,
            filter_maturity=min(filter_maturity, 2**63) if filter else None,
        )
        self._core.set_merge_across_nodes(bool(self.knobs.merge_across_nodes))
        self._core.set_smart_scan(bool(self.knobs.smart_scan))
        self._core.set_prune_delay(self.knobs.stable_node_chains_prune_millisecs)
        self._core.set_use_zero_pages(bool(self.knobs.use_zero_pages))
        self._clock = _monotonic_ms if clock is None else clock
        self._nr_attached = Counter[int]()  # by domain
        self._crew = Crew(self._core, threads, page_size)
        self._scheduler = Scheduler(
            self._core,
            self._crew,
            self.knobs,
            self._lock,
            self._clock,
            _thread_cpu_ms if cpu_clock is None else cpu_clock,
            page_size=page_size,
            nr_nodes=nodes,
            is_upstream=is_upstream,
            initial_rounds=initial_rounds,
            max_vips=max_vips,
            short_lived_ms=short_lived_ms,
            auto_join=auto_join,
            filter_sweep_interval=filter_sweep_interval,
        )
        self._driver = Driver(self._scheduler, self._clock)
        _fork.join(self._driver)

    def __repr__(self) -> str:
        if self._core is None:
            return "<lksm.Engine (closed)>"
        threads = ", running" if self.is_running else ""
        if self._driver.was_forked:
            threads = ", no threads: they stayed in the parent process"
        nr_processes = len(self._scheduler.processes)
        return f"<lksm.Engine {nr_processes} processes, {self.page_size}-byte pages{threads}>"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Core:
        """The core, for a public method: `ProcessGone` if there is none, or what a thread has failed with."""
        self._driver.check_usable()
        assert self._core is not None
        return self._core

    def _check_open(self) -> None:
        self._driver.check_usable()

    # --- processes -------------------------------------------------------------------------------

    def attach(
        self,
        memory: Memory,
        *,
        name: str | None = None,
        pid: int | None = None,
        address: int = 0,
        node: int = 0,
        domain: int = 0,
        mergeable: bool | None = None,
        immutable: bool = False,
        tracked: bool = False,
        frozen: bool = False,
        runtime_ms: int | None = None,
    ) -> Process:
        """Makes an address space known; the arrays are kept alive until it exits, and never copied.

        memory
            A C-contiguous array of any plain numeric dtype whose bytes are whole pages, at least one, at any
            byte alignment; a list of such arrays, which follow each other from `address`; or `Region`s.
        domain
            Pages merge only within one domain, 0 to 2**32 - 1.
        mergeable
            True: advised at once. False: opted out, sticky. None: registered by the next crawl.
        immutable
            The owner's promise that the bytes never change: pages are lent, not copied.
        tracked
            The owner's promise to write by `Process.write` only, or to tell with `Process.touch`: a page that
            was looked at is not read again before that.
        frozen
            The task is frozen: its pages bypass the gate (spec 3.2).
        runtime_ms
            CPU time so far; None: long-lived.

        InvalidMemory says what is wrong with the memory, ValueError that there is no such domain, OutOfMemory
        that there is no room to remember it; then nothing is attached.
        """
        runs = as_page_runs(
            memory, page_size=self.page_size, address=address, node=node, nr_nodes=self._nr_nodes
        )
        check_domain(domain)
        with self._lock:
            core = self._open.create_process(domain)
            try:
                for run in runs:
                    core.map(run, is_immutable=immutable, is_tracked=tracked)
                process = Process(
                    self._scheduler,
                    core,
                    runs,
                    name=f"process-{self._nr_attached[domain] + 1}" if name is None else name,
                    pid=pid,
                    domain=domain,
                    immutable=immutable,
                    tracked=tracked,
                    frozen=frozen,
                    runtime_ms=runtime_ms,
                )
            except BaseException:
                core.destroy()
                raise
            self._nr_attached[domain] += 1
            try:
                self._scheduler.attached(process)
                if mergeable is not None:
                    process.advise("mergeable" if mergeable else "unmergeable")
            except BaseException:  # untested: no memory, in tests/test_no_memory.py
                process.exit()
                raise
        return process

    @property
    def processes(self) -> tuple[Process, ...]:
        """Live processes in order of attachment."""
        with self._lock:
            self._check_open()
            return tuple(self._scheduler.processes)

    @property
    def queue(self) -> tuple[Process, ...]:
        """Processes that wait to be scanned, in order; the one being scanned is among them."""
        with self._lock:
            self._check_open()
            return self._scheduler.queue

    def detach(self, process: Process) -> None:
        """The same as `process.exit()`. InvalidMemory: no process of this engine."""
        self._check_member(process)
        process.exit()

    def close(self) -> None:
        """Stops the threads, detaches everything and frees all memory. Closing twice is closing once."""
        with self._driver.stopped(), self._lock:
            if self._core is not None:
                self._driver.close()
                self._scheduler.release()
                self._crew.close()
                self._core.close()
                self._core = None
        self._driver.tell_failure()

    def _check_member(self, process: Process) -> None:
        if not isinstance(process, Process) or process._host is not self._scheduler:
            raise InvalidMemory(f"{process!r} is no process of this engine")
        self._check_open()

    # --- scans, one by one -------------------------------------------------------------------------

    def crawl(self, mode: Mode, *, unfiltered: bool = False) -> int:
        """Prepares a scan: registers, queues, begins a round. Returns the length of the queue.

        "full": every process. "partial": frozen ones, new ones and those with recent merges (spec 5.6).
        unfiltered: the scan visits what filters would leave out.
        BusyError while a scan is unfinished, or the threads run. ValueError: another mode. With run 2 nothing
        is queued.
        """
        if mode not in ("full", "partial"):
            raise ValueError(f"mode is {mode!r}, expected 'full' or 'partial'")
        return self._driver.crawl(mode, unfiltered=unfiltered)

    def scan(self, nr_pages: int | None = None) -> int:
        """Visits one batch of the prepared scan; the default is the knob `pages_to_scan`.

        Returns the pages visited, 0 if nothing was left. The call that exhausts the queue also wraps up.
        OutOfMemory if no page could be visited; the cursor stays, so the call may be repeated. BusyError
        while the threads run. ValueError: a negative number.
        """
        if nr_pages is not None and nr_pages < 0:
            raise ValueError(f"nr_pages is {nr_pages}, expected 0 or more")
        return self._driver.scan(self.knobs.pages_to_scan if nr_pages is None else nr_pages)

    def full(self, *, unfiltered: bool = False) -> ScanReport:
        """One crawl and its scan to completion, on this thread. An unfinished scan is finished first.

        unfiltered: it visits what filters would leave out. BusyError while the threads run.
        """
        return self._driver.whole("full", unfiltered=unfiltered)

    def partial(self) -> ScanReport:
        """The same as `full`, for a partial scan: who froze, who is new, who merged a lot (spec 5.6)."""
        return self._driver.whole("partial")

    def settle(self, max_rounds: int = 16) -> Counters:
        """Full scans until two whole rounds change nothing and no page is on its first look.

        Stops after `max_rounds` in any case. Smart scan and filters are off meanwhile: every page is visited.
        BusyError while the threads run.
        """
        quiet = 0
        with self._driver.driving():
            self._core_smart_scan(False)
            try:
                for _ in range(max_rounds):
                    before = self._tree_counts()
                    report = self.full(unfiltered=True)
                    is_quiet = before == self._tree_counts() and not (report.merged or report.broken)
                    quiet = quiet + 1 if is_quiet else 0
                    if quiet == 2:
                        break
            finally:
                self._core_smart_scan(bool(self.knobs.smart_scan))
            return self.counters()

    def _core_smart_scan(self, is_on: bool) -> None:
        with self._lock:
            self._open.set_smart_scan(is_on)

    def _tree_counts(self) -> tuple[int, ...]:
        """What a quiet round leaves as it is, and the pages that the gate held back."""
        with self._lock:
            now = self._open.counters(None)
            counts = (now.pages_shared, now.pages_sharing, now.pages_unshared, now.rmap_items)
            return (*counts, now.zero_pages, now.nr_gated)

    @property
    def scanning(self) -> Mode | None:
        """The mode of the scan that is under way, prepared and not wrapped up; None if there is none."""
        with self._lock:
            self._check_open()
            return self._scheduler.mode

    @property
    def on_crawl(self) -> Callable[[], object]:
        """Called before each crawl chooses whom to scan: the time to renew `faults` and `runtime_ms`.

        By whoever drives, and nobody else can use the engine meanwhile; what it raises, the crawl raises.
        """
        return self._scheduler.on_crawl

    @on_crawl.setter
    def on_crawl(self, call: Callable[[], object]) -> None:
        self._scheduler.on_crawl = call

    @property
    def last_scan(self) -> ScanReport | None:
        """The report of the last scan that ended, whoever drove it; None before the first."""
        with self._lock:
            self._check_open()
            return self._scheduler.last_scan

    # --- scans that fall due -------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        """Moves a `VirtualClock` on by `ms` milliseconds and runs every turn that falls due, in order.

        ValueError if the clock is another one; BusyError while the threads run.
        """
        if not isinstance(self._clock, VirtualClock):
            raise ValueError("advance() needs an engine with a VirtualClock")
        if ms < 0:
            raise ValueError(f"ms is {ms}, expected 0 or more")
        self._driver.advance(self._clock, ms)

    def turn(self) -> int | None:
        """Runs one turn of the crawler or the scanner if one is due: for an event loop of your own.

        Returns milliseconds until the next turn is due: 0, another is due now; None, only an event (a
        freeze, a knob, ...) can bring one. BusyError while the threads run.
        """
        return self._driver.turn()

    # --- threads -------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Do the engine's threads run, in this process?"""
        return self._driver.is_running

    def start(self) -> None:
        """Starts the threads `ksm_crawld` and `ksmd`, which scan as the knob `run` says.

        They sleep until something is due and end with `stop`, `close` or the interpreter. A process made by
        os.fork() has none, until it starts its own. BusyError if they run already.
        """
        self._driver.start()

    def stop(self) -> None:
        """Returns when the threads have ended; an unfinished scan stays prepared. Stopping twice is once.

        BusyError in a signal handler that has interrupted another method of the engine.
        """
        with self._driver.stopped():
            pass
        self._driver.tell_failure()

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """`start` on entry, `stop` on exit. BusyError if the threads run already."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    # --- memory nodes ----------------------------------------------------------------------------------

    @contextmanager
    def offlining(self, node: int) -> Iterator[None]:
        """A memory node goes offline: no batch is scanned inside the block, and `run` and the knobs that need
        that nothing is shared cannot be stored (EBUSY). Writes are as ever.

        At its end every frame that still lies on the node is gone, and its pages are private: those that
        `Process.move` has moved meanwhile stay merged. If the block raises, no frame goes (spec 9.3).
        InvalidMemory: no such node. BusyError inside another such block, and for scans asked for within it.
        Scans asked for by other threads, `stop` and `close` wait until it ends; a scan that is under way on
        another thread is waited for.
        """
        check_node(node, self._nr_nodes)
        with self._driver.offlining():
            yield
            with self._lock:
                self._open.offline(node)

    # --- knobs -----------------------------------------------------------------------------------

    def _apply_knob(self, name: str, value: int | str) -> None:
        """What a new value does, before it is stored; the lock is held. KnobError refuses it."""
        effects.apply(
            name,
            value,
            knobs=self.knobs,
            core=self._open,
            scheduler=self._scheduler,
            is_upstream=self._is_upstream,
        )

    # --- reports ---------------------------------------------------------------------------------

    def counters(self, domain: int | None = None) -> Counters:
        """A consistent snapshot; of one domain, or of all.

        What is counted of a domain does not depend on any other: `last_scan_ms` is the sum of what the last
        scans of its processes took, `general_profit` has its own bookkeeping. Only `full_scans` and
        `scan_round` are the engine's. A domain that its last process has left counts from 0 again.
        ValueError: no domain.
        """
        _check_selected(domain)
        with self._lock:
            now = self._open.counters(domain)
            memory = self._open.memory(domain)
            bookkeeping = sum(size for purpose, size in memory.items() if purpose != "frames")
            last_scan_ms, proc_scan_ms = self._scheduler.durations(domain)
            tracked = now.pages_shared + now.pages_sharing + now.pages_unshared
            return Counters(
                pages_shared=now.pages_shared,
                pages_sharing=now.pages_sharing,
                pages_unshared=now.pages_unshared,
                pages_volatile=max(0, now.rmap_items - tracked),
                rmap_items=now.rmap_items,
                stable_node_chains=now.stable_node_chains,
                stable_node_dups=now.stable_node_dups,
                full_scans=self._scheduler.full_scans,
                scan_round=now.scan_round,
                scanning_process=now.nr_registered,
                nr_frozen=now.nr_frozen,
                nr_scannable=now.nr_scannable,
                pages_scanned=now.pages_scanned,
                pages_skipped=now.pages_skipped,
                nr_regions=now.nr_regions,
                zero_pages=now.zero_pages,
                merged=now.merged,
                broken=now.broken,
                last_scan_ms=last_scan_ms,
                proc_scan_ms=proc_scan_ms,
                general_profit=(now.pages_sharing + now.zero_saved) * self.page_size - bookkeeping,
                bytes_compared=now.bytes_compared,
                bytes_hashed=now.bytes_hashed,
            )

    def _show(self, name: str) -> int | str:
        """What a read-only file shows."""
        if name != "region_share":
            return int(getattr(self.counters(), name))
        with self._lock:
            now = self._open.counters(None)
        shares = {
            "heap": 0,  # of the caller's regions none is known to be a heap or stack
            "stack": 0,
            "file_data": now.share_data,
            "file_bss": now.share_bss,
            "conflicted": now.share_conflicted,
        }
        return " ".join(f"{kind}:{count}" for kind, count in shares.items())

    def page_table(self, process: Process) -> npt.NDArray[np.int64]:
        """int64 (n,): frame id >= 0 (equal ids: merged together), -1 private, -2 on the zero frame, -3 absent
        or unmapped. InvalidMemory: no process of this engine.
        """
        self._check_member(process)
        with self._lock:
            return process._alive.page_table(process.nr_pages)

    def groups(
        self, min_pages: int = 2, domain: int | None = None, *, with_digests: bool = True
    ) -> npt.NDArray[np.void]:
        """One row for each merged content, most pages first.

        Structured array: `frame` lowest frame id, `pages`, `processes`, `digest` XXH3 of the bytes (seed 0;
        0 if `with_digests` is false: reading every content takes time), `zero`, `first_process` (index in
        `processes`), `first_page`. ValueError: no domain.
        """
        _check_selected(domain)
        with self._lock:
            found = self._open.groups(min_pages=min_pages, domain=domain, with_digests=with_digests)
        order = np.lexsort((found["frame"], -found["pages"]))
        return found.take(order)  # found[order] would forget to tell if there is no memory

    def sharing_matrix(self) -> npt.NDArray[np.int64]:
        """int64 (P, P) over `processes`: [i, j] pages of i merged into frames that j uses too.

        [i, i] is the number of pages of i that are merged. OutOfMemory: no room to count.
        """
        with self._lock:
            return self._open.sharing_matrix(len(self._scheduler.processes))

    def explain(self, process: Process, page: int, *, across_domains: bool = False) -> Explanation:
        """Why a page is or is not merged. InvalidMemory if there is no such page.

        What is said depends on the page's own domain only, unless `across_domains`: then a page that is not
        merged may be told to have a twin in another one (OTHER_DOMAIN).
        """
        self._check_member(process)
        with self._lock:
            if page < 0:
                raise InvalidMemory(f"page {page} is not within the {process.nr_pages} of {process.name!r}")
            found = process._alive.explain(page, across_domains=across_domains)
            other = None
            if found.other_process >= 0:
                other = (self._scheduler.processes[found.other_process].name, int(found.other_page))
            facts = Facts(
                process=process.name,
                page=page,
                frame=int(found.frame) if found.frame >= 0 else None,
                nr_sharers=int(found.nr_sharers),
                other=other,
                is_private=bool(found.is_private),
                is_filtered=bool(found.is_filtered),
                max_page_sharing=self.knobs.max_page_sharing,
            )
            return explanation(Reason[REASON_NAMES[found.reason]], facts)

    def digest(self, process: Process, page: int) -> int:
        """XXH3 of a page, seed 0: the same number that `groups` shows. InvalidMemory if it is absent."""
        self._check_member(process)
        with self._lock:
            return process._alive.digest(page)

    def find(self, content: bytes, *, domain: int = 0) -> int:
        """Where pages with these bytes are filed, as entries of a page table say it, without a walk.

        The frame they are merged into, one of them if the limit has split it; -2: the zero frame; -1: there
        is one page, and it has no twin; -3: none is filed, though pages may wait, or not have been visited.
        InvalidMemory: `content` is not one page.
        """
        if len(content) != self.page_size:
            raise InvalidMemory(f"content of {len(content)} bytes, expected one page of {self.page_size}")
        with self._lock:
            return self._open.find(content, domain)

    def memory(self) -> dict[str, int]:
        """Bytes reserved by the engine, by purpose.

        `frames` are copies of pages, the rest is bookkeeping. The notes of `threads` are not in it: 800 KiB
        from the first large scan on, however many pages there are.
        """
        with self._lock:
            return self._open.memory()

    def check(self) -> list[str]:
        """Broken invariants (docs/invariants.md), one line each; empty when sound. Changes nothing."""
        with self._lock:
            return self._open.check()


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _thread_cpu_ms() -> float:
    return time.thread_time_ns() / 1_000_000


def _check_selected(domain: int | None) -> None:
    """ValueError if that is neither a domain nor None, for all of them."""
    if domain is not None:
        check_domain(domain)


def _check_page_size(page_size: object) -> None:
    if (
        isinstance(page_size, bool)
        or not isinstance(page_size, int)
        or not 64 <= page_size <= 2**30
        or page_size & (page_size - 1)
    ):
        raise ValueError(f"page_size is {page_size!r}, expected a power of two from 64 to {2**30}")


def _check_at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}, expected an integer of at least {least}")

"""The engine: processes come and go, scans run, and everybody may ask what happened."""

from __future__ import annotations

import errno
import secrets
import threading
import time
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import crawler
from ._core import REASON_NAMES, Core, CoreProcess
from ._lock import FairLock
from .clock import Clock
from .counters import Counters, ScanReport
from .errors import BusyError, InvalidMemory, KnobError, ProcessGone
from .knobs import Knobs, Sysfs
from .memory import Memory, PageRun, as_page_runs
from .process import Process
from .report import Explanation, Facts, Reason, explanation

Mode = Literal["full"]
RUN_UNMERGE = 2
_BATCH_PAGES = 4096  # of a scan to completion: how long other threads may have to wait


class Engine:
    """Merges identical pages of the processes attached to it. Nothing runs by itself.

    policy
        "lksm": the checksum gate applies in the initial rounds only.
    page_size
        Bytes; a power of two from 64 to 2**30.
    nodes
        Number of memory nodes that regions may name; pages of all nodes are compared with each other.
    seed
        Fixes which bytes keys are taken from. None: a random one. Counters and groups do not depend on it.
    clock
        Any callable that returns milliseconds; a `VirtualClock` in tests. None: the monotonic clock.
    initial_rounds
        The gate is closed in rounds below this: a page must hold still for a round first (spec 3.4.1).
    auto_join
        Does a crawl register every process that has not opted out, or only those advised mergeable?
    knobs
        Start values of `Engine.knobs`, by name. KnobError if out of range.

    All methods may be called from any thread, also during a scan. Use of a closed engine raises
    `ProcessGone`.
    """

    def __init__(
        self,
        *,
        policy: Literal["lksm"] = "lksm",
        page_size: int = 4096,
        nodes: int = 1,
        seed: int | None = None,
        clock: Clock | None = None,
        initial_rounds: int = 3,
        auto_join: bool = True,
        **knobs: int,
    ) -> None:
        if policy != "lksm":
            raise ValueError(f"policy is {policy!r}, expected 'lksm'")
        _check_page_size(page_size)
        _check_at_least("nodes", nodes, 1)
        _check_at_least("initial_rounds", initial_rounds, 0)
        self.page_size = page_size
        self._nr_nodes = nodes
        self._lock = FairLock()
        self.knobs = Knobs(knobs, self._lock, self._apply_knob)
        self.sysfs = Sysfs(self.knobs, lambda name: int(getattr(self.counters(), name)))
        self._core: Core | None = Core(
            page_size=page_size,
            seed=secrets.randbits(64) if seed is None else seed % 2**64,
            initial_rounds=initial_rounds,
            max_page_sharing=self.knobs.max_page_sharing,
        )
        self._clock = _monotonic_ms if clock is None else clock
        self._auto_join = auto_join
        self._processes: list[Process] = []
        self._nr_attached = 0
        self._nr_registered = 0
        self._scan_lock = threading.RLock()  # one scan to completion at a time; before self._lock
        self._mode: Mode | None = None  # of the scan that has been prepared and is not finished
        self._scan_began = 0
        self._scan_round = 0
        self._full_scans = 0
        self._last_scan_ms = 0
        self._proc_scan_ms = 0

    def __repr__(self) -> str:
        if self._core is None:
            return "<lksm.Engine (closed)>"
        return f"<lksm.Engine {len(self._processes)} processes, {self.page_size}-byte pages>"

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _open(self) -> Core:
        if self._core is None:
            raise ProcessGone("the engine is closed")
        return self._core

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
        frozen
            The task is frozen: its pages bypass the gate (spec 3.2).
        runtime_ms
            CPU time so far; None: long-lived.

        InvalidMemory says what is wrong with the memory; then nothing is attached.
        """
        runs = as_page_runs(
            memory, page_size=self.page_size, address=address, node=node, nr_nodes=self._nr_nodes
        )
        if not 0 <= domain < 2**32:
            raise ValueError(f"domain is {domain}, expected 0 to {2**32 - 1}")
        with self._lock:
            core = self._open.create_process(domain)
            try:
                for run in runs:
                    core.map(run, is_immutable=immutable)
            except BaseException:
                core.destroy()
                raise
            process = self._add(
                core,
                runs,
                name=name,
                pid=pid,
                domain=domain,
                immutable=immutable,
                frozen=frozen,
                runtime_ms=runtime_ms,
            )
            if mergeable is not None:
                process.advise("mergeable" if mergeable else "unmergeable")
        return process

    def _add(self, core: CoreProcess, runs: list[PageRun], *, name: str | None, **facts: object) -> Process:
        self._nr_attached += 1
        label = f"process-{self._nr_attached}" if name is None else name
        process = Process(self, core, runs, name=label, **facts)  # type: ignore[arg-type]
        self._processes.append(process)
        return process

    @property
    def processes(self) -> tuple[Process, ...]:
        """Live processes in order of attachment."""
        with self._lock:
            _ = self._open
            return tuple(self._processes)

    def detach(self, process: Process) -> None:
        """The same as `process.exit()`."""
        self._check_member(process)
        process.exit()

    def close(self) -> None:
        """Detaches everything and frees all memory. Closing twice is closing once."""
        with self._scan_lock, self._lock:
            if self._core is None:
                return
            for process in self._processes:
                process._release()
            self._processes = []
            self._core.close()
            self._core = None

    def _check_member(self, process: Process) -> None:
        if not isinstance(process, Process) or process._host is not self:
            raise InvalidMemory(f"{process!r} is no process of this engine")

    # What processes ask of their engine (process.Host); the lock is held.

    def _register(self, process: Process) -> None:
        state = process._slot_state()
        if not state.is_registered:
            process._alive.register()
            self._nr_registered += 1
            process._registered_at = self._nr_registered
            if self._may_queue():
                process._apply(crawler.enqueue(state.is_frozen))

    def _forked(self, parent: Process, child: CoreProcess, name: str | None) -> Process:
        process = self._add(
            child,
            list(parent._runs),
            name=name or f"{parent.name}-child",
            pid=None,
            domain=parent.domain,
            immutable=parent._immutable,
            frozen=False,
            runtime_ms=0,
        )
        if parent._registered_at is not None and process._slot_state().is_registered:
            self._nr_registered += 1
            process._registered_at = self._nr_registered
        return process

    def _exited(self, process: Process) -> None:
        self._processes.remove(process)
        self._wrap_up_if_exhausted()

    def _may_queue(self) -> bool:
        return self.knobs.run != RUN_UNMERGE

    # --- scanning --------------------------------------------------------------------------------

    def crawl(self, mode: Mode) -> int:
        """Prepares a full scan: registers, queues, begins a round. Returns the length of the queue.

        BusyError while a scan is unfinished. With run 2 nothing is queued.
        """
        if mode != "full":
            raise ValueError(f"mode is {mode!r}, expected 'full'")
        with self._scan_lock, self._lock:
            if self._mode is not None:
                raise BusyError("a scan is unfinished; finish it with scan()")
            return self._prepare_full()

    def scan(self, nr_pages: int | None = None) -> int:
        """Visits one batch of the prepared scan; the default is the knob `pages_to_scan`.

        Returns the pages visited, 0 if nothing was left. The call that exhausts the queue also wraps up.
        OutOfMemory if no page could be visited; the cursor stays, so the call may be repeated.
        """
        if nr_pages is not None and nr_pages < 0:
            raise ValueError(f"nr_pages is {nr_pages}, expected 0 or more")
        with self._scan_lock, self._lock:
            return self._batch(self.knobs.pages_to_scan if nr_pages is None else nr_pages)

    def full(self) -> ScanReport:
        """One crawl and its scan to completion, on this thread. An unfinished scan is finished first."""
        with self._scan_lock:
            self._finish()
            with self._lock:
                before = self._open.counters(None).crawl_round
                self._prepare_full()
                if self._open.counters(None).crawl_round == before:
                    return ScanReport("full", before, 0, 0, 0, 0, 0)
            began = self._clock()
            self._finish()
            with self._lock:
                now = self._open.counters(None)
                return ScanReport(
                    mode="full",
                    round=now.crawl_round,
                    nr_slots=now.nr_scanned_slots,
                    pages_scanned=now.round_pages,
                    merged=now.round_merged,
                    broken=now.round_broken,
                    elapsed_ms=int(self._clock() - began),
                )

    def settle(self, max_rounds: int = 16) -> Counters:
        """Full scans until two whole rounds change nothing and no page is on its first look.

        Stops after `max_rounds` in any case.
        """
        quiet = 0
        with self._scan_lock:
            for _ in range(max_rounds):
                before = self._tree_counts()
                report = self.full()
                is_quiet = before == self._tree_counts() and not (report.merged or report.broken)
                quiet = quiet + 1 if is_quiet else 0
                if quiet == 2:
                    break
            return self.counters()

    def _tree_counts(self) -> tuple[int, ...]:
        """What a quiet round leaves as it is, and the pages that the gate held back."""
        with self._lock:
            now = self._open.counters(None)
            counts = (now.pages_shared, now.pages_sharing, now.pages_unshared, now.rmap_items)
            return (*counts, now.nr_gated)

    def _prepare_full(self) -> int:
        core = self._open
        if not self._may_queue():
            return 0
        states = [process._slot_state() for process in self._processes]
        registration = [
            process._registered_at if state.is_registered else None
            for process, state in zip(self._processes, states, strict=True)
        ]
        for process, state in zip(self._processes, states, strict=True):
            if self._auto_join and process._alive.join() and not state.is_registered:
                process._alive.register()
        for position in crawler.full_order(states, registration):
            process = self._processes[position]
            if not process._slot_state().is_registered:
                continue
            if registration[position] is None:
                self._nr_registered += 1
                process._registered_at = self._nr_registered
            process._alive.clear_scanned()
            process._apply(crawler.enqueue(process.frozen))
        core.begin_round()
        self._scan_began = int(self._clock())
        self._mode = "full" if core.has_queue() else None
        counters = core.counters(None)
        return int(counters.nr_scannable + counters.nr_frozen)

    def _batch(self, nr_pages: int) -> int:
        core = self._open
        if self._mode is None:
            return 0
        visited = 0
        while nr_pages and not visited and core.has_queue():
            visited = core.scan(nr_pages, int(self._clock()))
        self._wrap_up_if_exhausted()
        return visited

    def _finish(self) -> None:
        while True:
            with self._lock:
                _ = self._open
                if self._mode is None:
                    return
                self._batch(_BATCH_PAGES)

    def _wrap_up_if_exhausted(self) -> None:
        """The end of a scan: statistics, and the next one may be prepared (spec 6.3, 6.5)."""
        core = self._open
        if self._mode is None or core.has_queue():
            return
        self._mode = None
        self._full_scans += 1
        self._last_scan_ms = int(self._clock()) - self._scan_began
        nr_slots = core.counters(None).nr_scanned_slots
        if nr_slots:
            self._proc_scan_ms = self._last_scan_ms // nr_slots

    # --- knobs -----------------------------------------------------------------------------------

    def _apply_knob(self, name: str, value: int) -> None:
        """What a new value does; the lock is held."""
        core = self._open
        if name == "run" and value == RUN_UNMERGE and self.knobs.run != RUN_UNMERGE:
            core.unmerge()
            self._mode = None
        elif name == "max_page_sharing":
            try:
                core.set_max_page_sharing(value)
            except BusyError as error:
                raise KnobError(errno.EBUSY, str(error)) from None

    # --- reports ---------------------------------------------------------------------------------

    def counters(self, domain: int | None = None) -> Counters:
        """A consistent snapshot; of one domain, or of all.

        Rounds, events and times are the engine's, whatever the domain.
        """
        with self._lock:
            now = self._open.counters(domain)
            bookkeeping = sum(size for purpose, size in self._open.memory().items() if purpose != "frames")
            tracked = now.pages_shared + now.pages_sharing + now.pages_unshared
            return Counters(
                pages_shared=now.pages_shared,
                pages_sharing=now.pages_sharing,
                pages_unshared=now.pages_unshared,
                pages_volatile=max(0, now.rmap_items - tracked),
                rmap_items=now.rmap_items,
                stable_node_chains=now.stable_node_chains,
                stable_node_dups=now.stable_node_dups,
                full_scans=self._full_scans,
                scan_round=now.scan_round,
                scanning_process=now.nr_registered,
                nr_frozen=now.nr_frozen,
                nr_scannable=now.nr_scannable,
                pages_scanned=now.pages_scanned,
                pages_skipped=0,
                zero_pages=0,
                merged=now.merged,
                broken=now.broken,
                last_scan_ms=self._last_scan_ms,
                proc_scan_ms=self._proc_scan_ms,
                general_profit=now.pages_sharing * self.page_size - bookkeeping,
            )

    def page_table(self, process: Process) -> npt.NDArray[np.int64]:
        """int64 (n,): frame id >= 0 (equal ids: merged together), -1 private, -3 absent or unmapped."""
        self._check_member(process)
        with self._lock:
            return process._alive.page_table(process.nr_pages)

    def groups(
        self, min_pages: int = 2, domain: int | None = None, *, with_digests: bool = True
    ) -> npt.NDArray[np.void]:
        """One row for each merged content, most pages first.

        Structured array: `frame` lowest frame id, `pages`, `processes`, `digest` XXH3 of the bytes (seed 0;
        0 if `with_digests` is false: reading every content takes time), `zero`, `first_process` (index in
        `processes`), `first_page`.
        """
        with self._lock:
            found = self._open.groups(min_pages=min_pages, domain=domain, with_digests=with_digests)
        return found[np.lexsort((found["frame"], -found["pages"]))]

    def sharing_matrix(self) -> npt.NDArray[np.int64]:
        """int64 (P, P) over `processes`: [i, j] pages of i merged into frames that j uses too.

        [i, i] is the number of pages of i that are merged.
        """
        with self._lock:
            return self._open.sharing_matrix(len(self._processes))

    def explain(self, process: Process, page: int) -> Explanation:
        """Why a page is or is not merged. InvalidMemory if there is no such page."""
        self._check_member(process)
        with self._lock:
            if page < 0:
                raise InvalidMemory(f"page {page} is not within the {process.nr_pages} of {process.name!r}")
            found = process._alive.explain(page)
            other = None
            if found.other_process >= 0:
                other = (self._processes[found.other_process].name, int(found.other_page))
            facts = Facts(
                process=process.name,
                page=page,
                frame=int(found.frame) if found.frame >= 0 else None,
                nr_sharers=int(found.nr_sharers),
                other=other,
                is_private=bool(found.is_private),
                max_page_sharing=self.knobs.max_page_sharing,
            )
            return explanation(Reason[REASON_NAMES[found.reason]], facts)

    def digest(self, process: Process, page: int) -> int:
        """XXH3 of a page, seed 0: the same number that `groups` shows. InvalidMemory if it is absent."""
        self._check_member(process)
        with self._lock:
            return process._alive.digest(page)

    def memory(self) -> dict[str, int]:
        """Bytes reserved by the engine, by purpose; `frames` are copies of pages, the rest bookkeeping."""
        with self._lock:
            return self._open.memory()

    def check(self) -> list[str]:
        """Broken invariants (docs/invariants.md), one line each; empty when sound. Changes nothing."""
        with self._lock:
            return self._open.check()


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


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

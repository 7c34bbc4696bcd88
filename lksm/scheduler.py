"""The turns of crawler and scanner, and the hooks between them: everything under the engine's lock.

Decisions are `crawler`'s, pages are the core's; here they meet. Nothing sleeps here: a turn does what is due
now and says when it wants the next one, so that threads, a virtual clock and somebody's event loop can all
drive the same turns (spec 5, 6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from . import advisor, crawler
from ._core import Core
from ._crew import SLICE_PAGES, Crew
from ._lock import FairLock
from .clock import Clock, CpuClock
from .counters import ScanReport
from .crawler import (
    RUN_MERGE,
    RUN_ONESHOT,
    RUN_STOP,
    RUN_UNMERGE,
    Action,
    Cause,
    Crawler,
    Mode,
    SlotState,
    View,
)
from .errors import OutOfMemory
from .knobs import Knobs
from .process import Process
from .stopwatch import Stopwatch

_SLICE_BYTES = 1 << 24  # visited before other threads get their turn
_RETRY_MS = 1000  # after a batch that found no memory


def _nobody() -> None:
    pass


class Scheduler:
    """Prepares scans and runs them. Who calls holds the engine's lock, but for turns, `batch` and `halt`.

    mode: of the scan that has been prepared and has not been wrapped up; None: no scan is under way.
    is_offlining: a memory node is going offline, so batches wait.
    on_crawl: called before a crawl chooses whom to scan. wake_crawler, wake_scanner: called when a turn has
    fallen due because of an event.
    """

    def __init__(
        self,
        core: Core,
        crew: Crew,
        knobs: Knobs,
        lock: FairLock,
        clock: Clock,
        cpu_clock: CpuClock,
        *,
        page_size: int,
        nr_nodes: int,
        is_upstream: bool,
        initial_rounds: int,
        max_vips: int,
        short_lived_ms: int,
        auto_join: bool,
        filter_sweep_interval: int,
    ) -> None:
        self._core = core
        self._crew = crew
        self._knobs = knobs
        self.lock = lock
        self.page_size = page_size
        self.nr_nodes = nr_nodes
        self._clock = clock
        self._is_upstream = is_upstream
        self._initial_rounds = initial_rounds
        self._max_vips = max_vips
        self._short_lived_ms = 0 if is_upstream else short_lived_ms
        self._auto_join = auto_join
        self._filter_sweep_interval = filter_sweep_interval
        self.processes: list[Process] = []
        self._candidates: dict[Process, None] = {}  # frozen but not registered, in order of freezing
        self._nr_registered = 0
        self._crawler = Crawler()
        self.crawl_due: int | None = self._now()
        self.scan_due: int | None = None
        self.on_crawl: Callable[[], object] = _nobody
        self.wake_crawler: Callable[[], None] = _nobody
        self.wake_scanner: Callable[[], None] = _nobody
        self._is_halting = False
        self.is_offlining = False
        self.mode: Mode | None = None
        self._cause: Cause = "call"
        self._serves_request = False
        self._nr_prepared = 0
        self._owes_sweep = False  # a scan that filters must not shorten has not been finished yet
        self._nr_full = 0  # full scans among these
        self._began = 0
        self._nap_until = 0
        self._unboosted: int | None = None  # what pages_to_scan is when the boost is over
        self._stopwatch = Stopwatch(clock, cpu_clock)
        self._history = advisor.History()
        self.full_scans = 0
        self.last_scan_ms = 0
        self.proc_scan_ms = 0
        self.last_scan: ScanReport | None = None

    def sleep_alone(self) -> None:
        """Nobody is to be woken any more."""
        self.wake_crawler = self.wake_scanner = _nobody
        self._is_halting = False

    def forget_other_threads(self) -> None:
        """In a child made by os.fork(), which has this thread only."""
        self.sleep_alone()
        self._crew.forget_other_threads()

    def release(self) -> None:
        """The engine is closed: forgets every process."""
        for process in self.processes:
            process._release()
        self.processes.clear()
        self._candidates.clear()
        self.mode = None

    def halt(self, is_halting: bool) -> None:
        """Whoever drives the turns wants the one that is running to end soon, or not any more."""
        self._is_halting = is_halting

    def _now(self) -> int:
        return int(self._clock())

    @property
    def crawl_round(self) -> int:
        """Scans prepared so far."""
        return int(self._core.counters(None).crawl_round)

    @property
    def queue(self) -> tuple[Process, ...]:
        """The processes that wait to be scanned, in order; the one being scanned is among them."""
        by_slot = {process._alive.address: process for process in self.processes}
        return tuple(by_slot[address] for address in self._core.queue())

    def durations(self, domain: int | None) -> tuple[int, int]:
        """Milliseconds of the last scan, and a process; of a domain: of the last ones of its processes."""
        if domain is None:
            return self.last_scan_ms, self.proc_scan_ms
        statuses = [process._alive.status() for process in self.processes if process.domain == domain]
        scanned = [int(status.elapsed) for status in statuses if status.completion]
        return sum(scanned), sum(scanned) // max(1, len(scanned))

    # --- events ----------------------------------------------------------------------------------

    def crawl_now(self) -> None:
        """The crawler's next turn is due."""
        self.crawl_due = self._now()
        self.wake_crawler()

    def scan_now(self) -> None:
        """The scanner's next turn is due, if it is not napping."""
        self.scan_due = self._now()
        self.wake_scanner()

    def attached(self, process: Process) -> None:
        """A process has been attached or forked; it may be frozen already."""
        self.processes.append(process)
        if process.frozen:
            self.freeze(process)
        self.changed()

    def changed(self) -> None:
        """There may be new pages to merge; only upstream's crawler wants to know at once (spec 12.1)."""
        if self._is_upstream and self.mode is None:
            self.crawl_now()

    def register(self, process: Process) -> None:
        """The scanner is to know the process, and to visit it unless everything is being unmerged."""
        self._forget_candidate(process)
        if not process._alive.status().is_registered:
            process._alive.register()
            self._note_registration(process)
            if self.may_queue:
                self._enqueue(process)
        self.changed()

    def forked(self, parent: Process, child: Process) -> None:
        """The core has registered the child if its parent is; it waits for nothing (D-50)."""
        if child._alive.status().is_registered:
            self._note_registration(child)
        self.attached(child)

    def freeze(self, process: Process) -> None:
        """Its task is frozen now (spec 7.5, 7.6). Wakes the crawler if that matters to it (spec 5.12)."""
        action = crawler.on_freeze(process._slot_state())
        if action is Action.ADD_CANDIDATE:
            if not self._auto_join or process in self._candidates:
                return
            self._candidates[process] = None
        elif action is Action.NOTHING:
            return
        else:
            self._apply(process, action)
        if self._knobs.run == RUN_MERGE and self.mode is None:
            self.crawl_now()

    def thaw(self, process: Process) -> None:
        """Its task runs again (spec 7.5, 7.6)."""
        action = crawler.on_thaw(process._slot_state())
        if action is Action.DROP_CANDIDATE:
            self._forget_candidate(process)
        else:
            self._apply(process, action)
            self._wrap_up_if_exhausted()

    def exited(self, process: Process) -> None:
        """The core knows the process no more. May be said twice."""
        if process not in self.processes:
            return
        self._forget_candidate(process)
        self.processes.remove(process)
        self._wrap_up_if_exhausted()

    @property
    def may_queue(self) -> bool:
        return self._knobs.run != RUN_UNMERGE

    def _forget_candidate(self, process: Process) -> None:
        self._candidates.pop(process, None)

    def _note_registration(self, process: Process) -> None:
        self._nr_registered += 1
        process._registered_at = self._nr_registered
        process._faults_seen = process.faults

    def _enqueue(self, process: Process) -> None:
        self._apply(process, crawler.enqueue(process.frozen))

    @staticmethod
    def _apply(process: Process, action: Action) -> None:
        core = process._alive
        match action:
            case Action.ENQUEUE_NORMAL | Action.ENQUEUE_FROZEN:
                core.enqueue(is_frozen=action is Action.ENQUEUE_FROZEN)
            case Action.DEQUEUE:
                core.dequeue()
            case Action.REQUEUE_WHEN_DONE | Action.DO_NOT_REQUEUE:
                core.requeue_frozen(action is Action.REQUEUE_WHEN_DONE)
            case Action.NOTHING | Action.ADD_CANDIDATE | Action.DROP_CANDIDATE:  # untested: there is no other
                pass

    # --- the crawler -----------------------------------------------------------------------------

    def crawl_turn(self) -> int | None:
        """Does what is due and returns when the next turn is: a time, or None until an event."""
        with self.lock:
            now = self._now()
            if self._is_upstream:
                plan = crawler.upstream_turn(self._view())
            else:
                self._crawler, plan = crawler.turn(self._crawler, self._view(), now)
            self.crawl_due = plan.until
            if plan.prepare is not None:
                nr_queued = self.prepare(plan.prepare, plan.cause)
                if not self._is_upstream:
                    self.crawl_due = now
                if plan.cause == "request" and not nr_queued:
                    self._knobs.put("one_shot_scanning", 0)
            return self.crawl_due

    def _view(self) -> View:
        knobs = self._knobs
        return View(
            run=knobs.run,
            request=knobs.one_shot_scanning,
            is_scanning=self.mode is not None,
            is_waiting=bool(self._candidates) or self._core.has_queue(),
            crawl_round=self.crawl_round,
            initial_rounds=self._initial_rounds,
            full_scan_interval=knobs.full_scan_interval,
        )

    def prepare(self, mode: Mode, cause: Cause, *, unfiltered: bool = False) -> int:
        """Chooses who is scanned and begins a round; returns the length of the queue.

        With run 2 nothing is chosen and no round begins (spec 5.10). `unfiltered`: filters leave nothing out;
        nor do they when a full scan is a sweep.
        """
        if not self.may_queue:
            return 0
        self.on_crawl()
        now = self._now()
        self._crawler = replace(self._crawler, ready_at=None)
        self._drain_candidates()
        chosen = Counter(state.domain for state in self._states() if state.pending is crawler.Pending.FROZEN)
        chosen += self._join_newcomers()
        if mode == "partial":
            self._add_vips(chosen)
        else:
            self._add_others(now, chosen.total())
        self._nr_full += mode == "full"
        is_sweep = mode == "full" and crawler.is_sweep(self._nr_full, self._filter_sweep_interval)
        self._owes_sweep = self._owes_sweep or unfiltered or is_sweep
        self._core.set_unfiltered(self._owes_sweep)
        self._core.begin_round(now)
        self._nr_prepared += 1
        self._began = now
        self._stopwatch.restart()
        if self._core.has_queue():
            self.mode, self._cause, self._serves_request = mode, cause, cause == "request"
            if mode == "partial":
                self._unboosted = self._knobs.pages_to_scan
                self._knobs.put("pages_to_scan", self._knobs.scan_boost)
            if not self._is_upstream:
                self._nap_until = now
            self.scan_now()
        else:
            self._owes_sweep = False
        queued = self._core.counters(None)
        return int(queued.nr_scannable + queued.nr_frozen)

    def _drain_candidates(self) -> None:
        """Processes frozen before they were known, the latest first (spec 5.5)."""
        while self._candidates:
            process, _ = self._candidates.popitem()
            if process._alive.join():
                self.register(process)

    def _join_newcomers(self) -> Counter[int]:
        """Registers who has come; pages mapped since the last crawl become mergeable (spec 5.4).

        Returns how many came, by domain.
        """
        came = Counter[int]()
        if not self._auto_join:
            return came
        states = self._states()
        for position in crawler.long_lived(states, self._short_lived_ms):
            process = self.processes[position]
            if process._alive.join() and states[position].registered_at is None:
                self.register(process)
                came[process.domain] += 1
        return came

    def _add_vips(self, nr_chosen: Counter[int]) -> None:
        states = self._states()
        for position in reversed(crawler.vips(states, nr_chosen, self._max_vips)):
            process = self.processes[position]
            process._faults_seen = process.faults
            self._requeue(process)
            process._alive.move_to_front()

    def _add_others(self, now: int, nr_new: int) -> None:
        states = self._states()
        chosen = crawler.others(states)
        due = crawler.next_full(
            now,
            [states[i] for i in chosen],
            nr_new=nr_new,
            proc_scan_ms=self.proc_scan_ms,
            interval_ms=self._knobs.full_scan_interval,
        )
        self._crawler = crawler.prepared(self._crawler, due)
        for position in chosen:
            self._requeue(self.processes[position])

    def _states(self) -> list[SlotState]:
        return [process._slot_state() for process in self.processes]

    def _requeue(self, process: Process) -> None:
        process._alive.clear_scanned()
        self._enqueue(process)

    # --- the scanner -----------------------------------------------------------------------------

    def scan_turn(self) -> int | None:
        """One batch if one is due; returns when the next is: a time, or None until an event (spec 6.1)."""
        with self.lock:
            self.scan_due = self._next_batch()
            if self.scan_due is None or self._now() < self.scan_due:
                return self.scan_due
            self._stopwatch.nap_ended()
            nr_pages, prepared = self._knobs.pages_to_scan, self._nr_prepared
        try:
            self.batch(nr_pages, lambda: self._nr_prepared == prepared and not self._is_parked)
            least_nap = 0
        except OutOfMemory:  # the cursor stays: the page is visited again
            least_nap = _RETRY_MS
        with self.lock:
            is_over = self.mode is None or self._nr_prepared != prepared
            if self._is_upstream or not is_over:  # no nap follows a scan, but one follows a pass
                least_nap = max(least_nap, int(is_over))
                self._nap_until = self._now() + max(least_nap, self._knobs.sleep_millisecs)
            self.scan_due = self._next_batch()
            return self.scan_due

    def _next_batch(self) -> int | None:
        """When the next batch is due; None: not before an event."""
        return None if self._is_parked else self._nap_until

    @property
    def _is_parked(self) -> bool:
        is_idle = self.mode is None or not crawler.is_merging(self._knobs.run)
        return is_idle or not self._knobs.pages_to_scan or self._is_halting or self.is_offlining

    def batch(self, nr_pages: int, may_go_on: Callable[[], bool] = lambda: True) -> int:
        """Visits up to `nr_pages` pages of a scan and returns how many. Takes the lock, slice by slice.

        OutOfMemory if not even one could be visited; the cursor stays.
        """
        visited = 0
        slice_pages = self._slice_pages()
        while visited < nr_pages:
            with self.lock:
                if self.mode is None or not may_go_on():
                    break
                wanted = min(slice_pages, nr_pages - visited)
                try:
                    found = self._stopwatch.run(partial(self._scan, wanted, self._now()))
                except OutOfMemory:
                    if not visited:
                        raise
                    break
                visited += found
                self._wrap_up_if_exhausted()
                if self._is_upstream and visited and not self._core.is_walking():  # a batch ends with a walk
                    break
        return visited

    def _slice_pages(self) -> int:
        """How many pages are visited before other threads get their turn."""
        nr_pages = max(1, _SLICE_BYTES // self.page_size)
        if self._crew.is_alone or self._is_advised:
            return nr_pages
        return min(4 * nr_pages, SLICE_PAGES)

    @property
    def _is_advised(self) -> bool:
        """Is there an advisor? It asks what a scan costs the thread that scans: one scans alone."""
        return bool(self._knobs.advisor_mode != "none")

    def _scan(self, nr_pages: int, now: int) -> int:
        return (self._core if self._is_advised else self._crew).scan(nr_pages, now)

    def _wrap_up_if_exhausted(self) -> None:
        if self.mode is not None and not self._core.has_queue():
            self._owes_sweep = False
            if self.mode == "full":
                self.full_scans += 1
                self._ask_advisor()
            self._wrap_up()

    def _ask_advisor(self) -> None:
        """A full scan is complete: the advisor, if there is one, says how large batches are from now on."""
        knobs = self._knobs
        if knobs.advisor_mode == "none":
            return
        self._history, nr_pages = advisor.advise(
            self._history,
            advisor.Wishes(
                target_scan_time=knobs.advisor_target_scan_time,
                max_cpu=knobs.advisor_max_cpu,
                max_pages=knobs.advisor_max_pages_to_scan,
            ),
            pages_to_scan=knobs.pages_to_scan,
            elapsed_ms=self._stopwatch.elapsed_ms,
            cpu_ms=self._stopwatch.cpu_ms,
        )
        knobs.put("pages_to_scan", nr_pages)

    def _wrap_up(self) -> None:
        """The end of a scan, finished or not: chains, statistics; the next may be prepared (6.3, 6.5)."""
        now = self._now()
        done = self._core.counters(None)
        assert self.mode is not None
        self._core.prune_chains(now)
        self.last_scan_ms = now - self._began
        if done.nr_begun_slots:
            self.proc_scan_ms = self.last_scan_ms // done.nr_begun_slots
        self.last_scan = ScanReport(
            mode=self.mode,
            round=done.crawl_round,
            nr_slots=done.nr_scanned_slots,
            pages_scanned=done.round_pages,
            merged=done.round_merged,
            broken=done.round_broken,
            elapsed_ms=self.last_scan_ms,
            cause=self._cause,
        )
        self.cancel()
        self.crawl_now()

    def cancel(self) -> None:
        """No scan is under way any more; a request that it served is done, a boost is over."""
        if self._unboosted is not None:
            self._knobs.put("pages_to_scan", self._unboosted)
            self._unboosted = None
        if self._serves_request:
            self._knobs.put("one_shot_scanning", 0)
            self._serves_request = False
        self.mode = None

    # --- knobs -----------------------------------------------------------------------------------

    def set_run(self, run: int) -> None:
        """What a new value of `run` does, before it is stored (spec 8.3)."""
        before = self._knobs.run
        if run == before:
            return
        if before == RUN_ONESHOT:
            self._knobs.put("one_shot_scanning", 0)
            self._serves_request = False
        if run == RUN_UNMERGE:
            self._core.unmerge()
            self.cancel()
            self._owes_sweep = False
            if self._is_upstream:  # its file shows the round, which begins anew (spec 12.5)
                self.full_scans = 0
        elif crawler.is_merging(before) and not crawler.is_merging(run) and self.mode is not None:
            self._wrap_up()
        self._crawler = replace(self._crawler, ready_at=None)
        self.crawl_now()
        self.scan_now()

    def stop(self) -> None:
        """`run` becomes 0, whatever it takes."""
        try:
            self.set_run(RUN_STOP)
        finally:
            self._knobs.put("run", RUN_STOP)

    def set_advisor(self, mode: str) -> None:
        """What a new value of `advisor_mode` does, before it is stored (spec 12.4).

        A boost goes on until its partial scan ends; the new batch size is for what comes then.
        """
        if mode == self._knobs.advisor_mode:
            return
        self._history = advisor.History()
        is_off = mode == "none"
        nr_pages = advisor.PAGES_WITHOUT_ADVISOR if is_off else self._knobs.advisor_min_pages_to_scan
        if self._unboosted is None:
            self._knobs.put("pages_to_scan", nr_pages)
        else:
            self._unboosted = nr_pages
        self.scan_now()

    def end_nap(self) -> None:
        """`sleep_millisecs` has another value (spec 6.2)."""
        self._nap_until = self._now()
        self.scan_now()

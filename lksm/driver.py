"""Who takes the turns, one at a time: a caller now, a virtual clock, an event loop, or two threads."""

from __future__ import annotations

import atexit
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .clock import Clock, VirtualClock
from .counters import ScanReport
from .crawler import Mode
from .daemon import Daemon
from .errors import BusyError, ProcessGone
from .scheduler import Scheduler

_FOR_EVER = 2**64


class Driver:
    """Drives the turns of one scheduler.

    failure: what a thread has failed with, until somebody has been told. was_forked: this is a child made by
    os.fork(), and the threads stayed in the parent.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._lock = scheduler.lock
        self._scan_lock = threading.RLock()  # one drives at a time; taken before the engine's lock
        self._daemon: Daemon | None = None
        self._is_closed = False
        self.was_forked = False
        self.failure: BaseException | None = None
        _drivers.add(self)

    def check_usable(self) -> None:
        """Raises what a thread has failed with, once; ProcessGone if the engine is closed."""
        self.tell_failure()
        if self._is_closed:
            raise ProcessGone("the engine is closed")

    def tell_failure(self) -> None:
        """Raises what a thread has failed with, once."""
        with self._lock:
            failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Nobody else drives meanwhile. BusyError if the threads do."""
        with self._scan_lock:
            self.check_usable()
            if self.is_running:
                raise BusyError("the engine's threads run; stop() them first")
            yield

    @contextmanager
    def offlining(self) -> Iterator[None]:
        """A memory node goes offline: nobody scans meanwhile. Turns can be taken, but no batch is due."""
        scheduler = self._scheduler
        with self._scan_lock:
            with self._lock:
                self._check_scannable()
                scheduler.is_offlining = True
            try:
                yield
            finally:
                with self._lock:
                    scheduler.is_offlining = False
                    scheduler.scan_now()

    def _check_scannable(self) -> None:
        self.check_usable()
        if self._scheduler.is_offlining:
            raise BusyError("a memory node is going offline")

    # --- now, on this thread

    def crawl(self, mode: Mode, *, unfiltered: bool = False) -> int:
        """Prepares a scan and returns the length of the queue. BusyError while one is unfinished."""
        with self.driving(), self._lock:
            self._check_scannable()
            if self._scheduler.mode is not None:
                raise BusyError("a scan is unfinished; finish it with scan()")
            return self._scheduler.prepare(mode, "call", unfiltered=unfiltered)

    def scan(self, nr_pages: int) -> int:
        """Visits so many pages of the prepared scan and returns how many there were."""
        with self.driving():
            self._check_scannable()
            return self._scheduler.batch(nr_pages)

    def whole(self, mode: Mode, *, unfiltered: bool = False) -> ScanReport:
        """Finishes what is unfinished, then prepares a scan and finishes that."""
        scheduler = self._scheduler
        with self.driving():
            self._check_scannable()
            self._finish()
            with self._lock:
                nr_queued = scheduler.prepare(mode, "call", unfiltered=unfiltered)
                number = scheduler.crawl_round
            if nr_queued:
                self._finish()
            with self._lock:
                report = scheduler.last_scan
                if nr_queued and report is not None and report.round == number:
                    return report
                return ScanReport(mode, number, 0, 0, 0, 0, 0)

    def _finish(self) -> None:
        while self._scheduler.mode is not None:
            self._scheduler.batch(_FOR_EVER)

    # --- when it is due

    def advance(self, clock: VirtualClock, ms: int) -> None:
        """Moves the clock on and takes every turn that falls due, in order."""
        with self.driving():
            end = clock() + ms
            while (due := self._next_due()) is not None and due <= end:
                clock.tick(max(0, due - clock()))
                self._take_turn()
            clock.tick(max(0, end - clock()))

    def turn(self) -> int | None:
        """Takes one turn if one is due; returns milliseconds until the next is, None: not before an event."""
        with self.driving():
            due = self._next_due()
            if due is not None and due <= self._clock():
                self._take_turn()
                due = self._next_due()
            return None if due is None else max(0, due - int(self._clock()))

    def _next_due(self) -> int | None:
        scheduler = self._scheduler
        dues = [due for due in (scheduler.crawl_due, scheduler.scan_due) if due is not None]
        return min(dues, default=None)

    def _take_turn(self) -> None:
        """The turn that has been due for longest; the crawler's first."""
        scheduler = self._scheduler
        if scheduler.crawl_due is not None and scheduler.crawl_due == self._next_due():
            scheduler.crawl_turn()
        else:
            scheduler.scan_turn()

    # --- threads

    @property
    def is_running(self) -> bool:
        """Do the threads run, in this process?"""
        return self._daemon is not None and self._daemon.is_alive

    def start(self) -> None:
        """Starts the threads. BusyError if they run already."""
        with self.driving():
            self._stop_threads()  # none that runs, but one may have ended
            scheduler = self._scheduler
            with self._lock:
                self._daemon = Daemon(
                    scheduler.crawl_turn,
                    scheduler.scan_turn,
                    self._clock,
                    on_error=self._failed,
                    on_halt=scheduler.halt,
                )
                scheduler.wake_crawler = self._daemon.wake_crawler
                scheduler.wake_scanner = self._daemon.wake_scanner
                self.was_forked = False
            try:
                self._daemon.start()
            except BaseException:  # untested: a system without room for threads
                self._stop_threads()
                raise

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Returns when the threads have ended; nobody drives meanwhile. BusyError inside another call."""
        if self._lock.is_mine():  # its threads wait for it, so it cannot wait for them
            raise BusyError("the engine is in the middle of another call of this thread")
        with self._scan_lock:
            self._stop_threads()
            yield

    def close(self) -> None:
        """There is nothing to drive any more."""
        self._is_closed = True

    def _stop_threads(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()
            self._scheduler.sleep_alone()
            self._daemon = None

    def _failed(self, error: BaseException) -> None:
        """A turn of a thread has failed: no more scans until somebody has been told."""
        with self._lock:
            self.failure = error
            with suppress(Exception):  # it may fail for the same reason
                self._scheduler.stop()

    def forget_other_threads(self) -> None:
        """In a child made by os.fork(), which has this thread only and holds the engine's lock."""
        self._lock.forget_other_threads()
        if self._scan_lock.acquire(blocking=False):
            self._scan_lock.release()
        else:
            self._scan_lock = threading.RLock()
        self.was_forked = self.was_forked or self._daemon is not None
        self._daemon = None
        self._scheduler.forget_other_threads()


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


@atexit.register
def _tell_untold() -> None:
    """What a thread has failed with, if nobody has called to hear of it."""
    for driver in list(_drivers):
        if driver.failure is not None:
            traceback.print_exception(driver.failure)  # untested: a program that ends and has not asked

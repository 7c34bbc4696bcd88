"""The threads that help the one that scans (`Engine(threads=)`).

A scan hashes bytes, compares bytes, and changes trees. Of the first two the scanning thread asks others early
for what the pages it comes to will need; all of it is the core's, which lets go of the GIL. Here threads are
sent and waited for, and whether that pays is measured. Results and counters are those of one thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ._core import Core

SLICE_PAGES = 16384  # the lock is held for so many, so that sending threads costs little of that
LEAST_PAGES = 1024  # nobody is sent for a scan of fewer,
LEAST_BYTES = 1 << 22  # unless they are large
LEAST_ASKED = 16  # nor if not one page in so many has something to help with
PAUSE_PAGES = SLICE_PAGES  # before it is tried again
LONGEST_PAUSE_PAGES = 8 * SLICE_PAGES  # each time in a row that it was not worth it, twice as long
FIRST_HELPED = 2  # slices, for in the first one threads begin
PROBE_SLICES = 16  # of so many, one is scanned in the way that was slower
PROBE_PAGES = 2048  # are scanned alone to see whether that is faster: enough to tell
PATIENCE = 8  # a slice that was slower than those before counts as an eighth


class Crew:
    """So many threads, the caller's included, that scan the pages of one core together.

    The others start with the first large scan, and sleep between scans. Who calls holds the engine's lock, so
    nobody takes memory away before they have returned.
    """

    def __init__(self, core: Core, nr_threads: int, page_size: int) -> None:
        self._core = core
        self._page_size = page_size
        self._nr_others = nr_threads - 1
        self._pool: ThreadPoolExecutor | None = None
        self._nr_unhelped = 0  # pages that will be visited before others are sent again
        self._pause = PAUSE_PAGES
        self._nr_slices = 0
        self._costs: dict[bool, float | None] = {True: None, False: None}  # seconds a page, with help or not

    @property
    def is_alone(self) -> bool:
        return not self._nr_others

    def close(self) -> None:
        """The threads end."""
        if self._pool is not None:
            self._pool.shutdown()
        self.forget_other_threads()

    def forget_other_threads(self) -> None:
        """In a child made by os.fork(): they stayed in the parent."""
        self._pool = None

    def scan(self, nr_pages: int, now: int) -> int:
        """`Core.scan`, with help if that is worth it."""
        least = max(1, min(LEAST_PAGES, LEAST_BYTES // self._page_size))
        if self.is_alone or min(nr_pages, self._core.nr_waiting(least)) < least:
            return self._core.scan(nr_pages, now)
        if self._nr_unhelped:
            self._nr_unhelped = max(0, self._nr_unhelped - nr_pages)
            return self._core.scan(nr_pages, now)
        if not self._is_help_faster():
            nr_pages = nr_pages if self._is_alone_faster else min(nr_pages, PROBE_PAGES)
            return self._timed(False, self._core.scan, nr_pages, now)
        nr_before = self._core.nr_asked
        nr_scanned = self._timed(True, self._scan_with_help, nr_pages, now)
        if (self._core.nr_asked - nr_before) * LEAST_ASKED >= nr_scanned:
            self._pause = PAUSE_PAGES
        else:
            self._nr_unhelped = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_PAGES)
        return nr_scanned

    def _is_help_faster(self) -> bool:
        """By what has been seen; the memory of some machines gives two threads less than one."""
        self._nr_slices += 1
        if self._costs[True] is None or self._costs[False] is None:
            return self._costs[True] is None or self._nr_slices <= FIRST_HELPED
        return self._is_alone_faster is (self._nr_slices % PROBE_SLICES == 0)

    @property
    def _is_alone_faster(self) -> bool:
        helped, alone = self._costs[True], self._costs[False]
        return helped is not None and alone is not None and alone <= helped

    def _timed(self, is_helped: bool, scan: Callable[[int, int], int], nr_pages: int, now: int) -> int:
        began = time.perf_counter()
        nr_scanned = scan(nr_pages, now)
        cost = (time.perf_counter() - began) / max(nr_scanned, 1)
        before = self._costs[is_helped]
        if before is not None and cost > before:  # other load makes slices slower, never faster
            cost = before + (cost - before) / PATIENCE
        self._costs[is_helped] = cost
        return nr_scanned

    def _scan_with_help(self, nr_pages: int, now: int) -> int:
        core = self._core
        errand = _Errand(core.help, core.end_help)
        try:
            core.begin_help(self._nr_others)
            self._send(errand)
            return core.scan(nr_pages, now)
        finally:
            try:
                errand.end()
            finally:  # Ctrl-C may have come where the first one begins
                errand.end()

    def _send(self, errand: _Errand) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._nr_others, thread_name_prefix="lksm-crew")
        try:
            for _ in range(self._nr_others):
                self._pool.submit(errand.run)
        except RuntimeError:  # no thread can be had, any more perhaps: those that there are do it all
            self._pool.shutdown(wait=False)
            self._pool = None


class _Errand:
    """What other threads are sent for, until they are called back. Who has not begun by then never does."""

    def __init__(self, work: Callable[[], None], call_back: Callable[[], None]) -> None:
        self._work = work
        self._call_back = call_back
        self._changed = threading.Condition()
        self._nr_busy = 0
        self._is_over = False

    def run(self) -> None:
        with self._changed:
            if self._is_over:
                return
            self._nr_busy += 1
        try:
            self._work()
        finally:
            with self._changed:
                self._nr_busy -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Returns when nobody is busy with it any more: Ctrl-C waits for that too."""
        interrupt: BaseException | None = None
        while True:
            try:
                self._call_back()
                with self._changed:
                    self._is_over = True
                    while self._nr_busy:
                        self._changed.wait()
                break
            except BaseException as error:  # untested: where Ctrl-C is ignored
                interrupt = error
        if interrupt is not None:
            raise interrupt

"""The threads that look at pages before one thread visits them (`Engine(threads=)`).

A scan hashes bytes, compares bytes, and changes trees. The first two are done ahead for a stretch of pages,
by all threads at once. Then one thread visits these pages, while the others take the samples of the next
stretch. All of it is the core's, which lets go of the GIL; here threads are sent and waited for. Results
and counters are those of one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ._core import Core, CorePreview
from .errors import OutOfMemory

STRETCH_PAGES = 4096  # in a preview
SLICE_STRETCHES = 4  # the lock is held for so many
LEAST_PAGES = 1024  # nobody is sent for a scan of fewer
LEAST_LOOKS = 8  # nor if not one page in so many has to be looked at
LEAST_TWINS = 16  # nor if not one in so many has a twin: samples alone are not worth it
PAUSE_PAGES = 4 * STRETCH_PAGES  # before it is tried again
LONGEST_PAUSE_PAGES = 32 * STRETCH_PAGES  # each time in a row that it was not worth it, twice as long


class Crew:
    """So many threads, the caller's included, that scan the pages of one core together.

    The others start with the first large scan, and sleep between scans. Who calls holds the engine's lock, so
    nobody takes memory away before they have returned.
    """

    def __init__(self, core: Core, nr_threads: int) -> None:
        self._core = core
        self._nr_others = nr_threads - 1
        self._pool: ThreadPoolExecutor | None = None
        self._previews: list[CorePreview] = []  # of the next stretch, and of the two that follow it
        self._nr_unseen = 0  # pages that will be visited before previews are tried again
        self._pause = PAUSE_PAGES

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
        """`Core.scan`; it may end where the walk over the queue does, and others wait for the next."""
        core = self._core
        if self.is_alone or nr_pages < LEAST_PAGES:
            return core.scan(nr_pages, now)
        if self._nr_unseen:
            self._nr_unseen = max(0, self._nr_unseen - nr_pages)
            return core.scan(nr_pages, now)
        nr_scanned = 0
        noted = [0, 0]  # visits to come in the two stretches ahead
        try:
            if not core.is_walking():  # the walk begins: only then is it known where
                nr_scanned = core.scan(1, now)
            while nr_scanned < nr_pages and core.is_walking():
                nr_left = nr_pages - nr_scanned
                if noted[0] or (not self._nr_unseen and self._begin(noted, nr_left)):
                    nr_scanned += self._visit(noted, nr_left, now)
                else:
                    nr_scanned += core.scan(nr_left, now)
        except OutOfMemory:
            if not nr_scanned:
                raise
        return nr_scanned

    def _begin(self, noted: list[int], nr_left: int) -> bool:
        """Looks at the first stretch, and takes the samples of the second. False: it is not worth it."""
        if not self._previews:
            self._previews = [self._core.create_preview(STRETCH_PAGES) for _ in range(3)]
        first, second, _ = self._previews
        nr_visits = self._collect(first, None)
        if nr_visits < LEAST_PAGES:
            return False
        self._all(first.keys)
        if not self._find_twins(first, nr_visits):
            return False
        self._all(first.compares)
        noted[:] = nr_visits, self._collect(second, first) if nr_visits < nr_left else 0
        if noted[1]:
            self._all(second.keys)
        return True

    def _visit(self, noted: list[int], nr_left: int, now: int) -> int:
        """Visits the first stretch, up to `nr_left` pages of it; returns how many.

        Meanwhile the others go on with the second, and take the samples of the third.
        """
        first, second, third = self._previews
        nr_visits, nr_second = noted
        nr_third = 0
        visit = partial(self._core.scan_previewed, first, min(nr_visits, nr_left), now)
        if not nr_second:
            nr_scanned = visit()
        else:
            has_twins = self._find_twins(second, nr_second)
            if has_twins and nr_visits + nr_second < nr_left:
                nr_third = self._collect(third, second)
            steps = [second.compares] * has_twins + [third.keys] * bool(nr_third)
            nr_scanned = self._meanwhile(steps, visit)
        self._previews = [second, third, first]
        noted[:] = nr_second, nr_third
        return nr_scanned

    def _collect(self, preview: CorePreview, after: CorePreview | None) -> int:
        """How many pages will be visited; 0: nothing is previewed."""
        nr_visits, nr_looks = preview.collect(after)
        if nr_looks * LEAST_LOOKS >= nr_visits:
            return nr_visits
        self._wait_a_while()
        return 0

    def _find_twins(self, preview: CorePreview, nr_visits: int) -> bool:
        """Finds what pages will be compared with; False: hardly any has anything."""
        self._all(preview.twins)
        if preview.nr_found * LEAST_TWINS >= nr_visits:
            self._pause = PAUSE_PAGES
            return True
        self._wait_a_while()
        return False

    def _wait_a_while(self) -> None:
        self._nr_unseen = self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_PAGES)

    def _all(self, step: Callable[[], None]) -> None:
        """All threads take the step, this one too."""
        self._meanwhile([step], _nothing)

    def _meanwhile(self, steps: list[Callable[[], None]], own: Callable[[], int]) -> int:
        """The others take these steps while this thread does its own, then helps. All are back then."""

        def work() -> None:
            for step in steps:
                step()

        if not steps:
            return own()
        errand = _Errand(work)
        try:
            self._send(errand)
            result = own()
            work()
            return result
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


def _nothing() -> int:
    return 0


class _Errand:
    """What other threads are sent for. Who has not begun when it ends never does."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
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
                with self._changed:
                    self._is_over = True
                    while self._nr_busy:
                        self._changed.wait()
                break
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

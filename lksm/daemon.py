"""The two threads, `ksm_crawld` and `ksmd`: they sleep until a turn is due, or until they are woken."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from .clock import Clock

Turn = Callable[[], int | None]


class _Sleeper:
    """One thread: turn after turn, and sleep in between. An event during a turn is not lost."""

    def __init__(
        self, name: str, turn: Turn, clock: Clock, on_error: Callable[[BaseException], None]
    ) -> None:
        self._turn = turn
        self._clock = clock
        self._on_error = on_error
        self._is_woken = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._is_woken.set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def tell_to_end(self) -> None:
        self._is_over = True
        self._is_woken.set()

    def join(self) -> None:
        """Returns when the thread has ended; a turn that is running ends first."""
        # untested: Ctrl-C before it has begun
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        has_failed = False
        while True:
            self._is_woken.clear()
            if self._is_over:
                return
            try:
                due = self._turn()
                self._is_woken.wait(None if due is None else self._seconds_until(due))
                has_failed = False
            except BaseException as error:
                self._on_error(error)
                if has_failed:  # no turn succeeds any more: do not go on failing at full speed
                    return  # untested: a second failure at once
                has_failed = True

    def _seconds_until(self, due: int) -> float:
        return min(max(0, due - self._clock()) / 1000, threading.TIMEOUT_MAX)


class Daemon:
    """The running pair of threads of one engine; ends with the interpreter at the latest."""

    def __init__(
        self,
        crawl_turn: Turn,
        scan_turn: Turn,
        clock: Clock,
        *,
        on_error: Callable[[BaseException], None],
        on_halt: Callable[[bool], None],
    ) -> None:
        self._on_halt = on_halt
        self._crawler = _Sleeper("ksm_crawld", crawl_turn, clock, on_error)
        self._scanner = _Sleeper("ksmd", scan_turn, clock, on_error)
        self.wake_crawler = self._crawler.wake
        self.wake_scanner = self._scanner.wake

    @property
    def is_alive(self) -> bool:
        return self._crawler.is_alive and self._scanner.is_alive

    def start(self) -> None:
        """If it raises, `stop` is still to be called."""
        with _running_lock:
            _running.add(self)
        self._crawler.start()
        self._scanner.start()

    def stop(self) -> None:
        """Returns when both threads have ended; `on_halt` may shorten their turns."""
        self._on_halt(True)
        try:
            self._crawler.tell_to_end()
            self._scanner.tell_to_end()
            self._crawler.join()
            self._scanner.join()
        finally:
            self._on_halt(False)
        with _running_lock:
            _running.discard(self)


_running: weakref.WeakSet[Daemon] = weakref.WeakSet()
_running_lock = threading.Lock()


@atexit.register
def _stop_all() -> None:
    """No thread may be in the core while the interpreter is taken apart."""
    with _running_lock:
        daemons = list(_running)
    for daemon in daemons:
        with suppress(Exception):
            daemon.stop()


def forget_all() -> None:
    """In a forked child: the threads stayed in the parent."""
    global _running, _running_lock
    _running, _running_lock = weakref.WeakSet(), threading.Lock()

"""The lock of an engine: reentrant, and fair between a scan and everybody else."""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """A reentrant lock that a thread taking it again and again cannot keep from the others.

    A scan takes the lock for every batch. With a plain lock it would usually win it back before a waiting
    thread wakes. Here whoever waits holds the turnstile, so the scan queues up behind it.
    """

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._lock = threading.RLock()
        self._owner = 0
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner != me:
            with self._turnstile:
                self._lock.acquire()
            self._owner = me
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = 0
            self._lock.release()

    def forget_other_threads(self) -> None:
        """In a child made by os.fork() whose only thread holds the lock: nobody waits any more."""
        self._turnstile = threading.Lock()

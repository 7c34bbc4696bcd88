"""The lock of an engine: reentrant, and fair between a scan and everybody else."""

from __future__ import annotations

import _thread
import threading


class FairLock(_thread.RLock):  # type: ignore[misc,unused-ignore]
    """A reentrant lock that a thread taking it again and again cannot keep from the others.

    A scan takes the lock for every batch. With a plain lock it would usually win it back before a waiting
    thread wakes. Here whoever waits holds the turnstile, so the scan queues up behind it. Ctrl-C while it is
    waited for leaves it as it was; leaving it is a single step.
    """

    # Taking it once more. After a call Python looks for Ctrl-C, and nobody could tell then whether the lock
    # was taken; after an attribute it does not look.
    _once_more = property(_thread.RLock.acquire)

    def __init__(self) -> None:
        self._turnstile = threading.Lock()

    def __enter__(self) -> bool:  # type: ignore[override,unused-ignore]
        if self.is_mine():
            is_taken: bool = self._once_more
            return is_taken
        try:
            with self._turnstile:
                return self.acquire()
        except BaseException:  # untested: tests/test_lock.py does, and traces it itself
            if self.is_mine():
                self.release()
            raise

    def is_mine(self) -> bool:
        """Does the calling thread hold it?"""
        is_mine: bool = self._is_owned()  # type: ignore[attr-defined,unused-ignore]
        return is_mine

    def forget_other_threads(self) -> None:
        """In a child made by os.fork() whose only thread holds the lock: nobody waits any more."""
        self._turnstile = threading.Lock()

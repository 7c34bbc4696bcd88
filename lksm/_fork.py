"""os.fork(): no engine is in the middle of anything when its memory is copied, and the child is told."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from . import daemon
from ._lock import FairLock


class Forkable(Protocol):
    """What has a lock, and perhaps threads, that a child would find in the middle of something."""

    _lock: FairLock

    def forget_other_threads(self) -> None: ...


_members: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held: list[Forkable] = []
_lock = threading.RLock()  # over these two; taken before any engine's


def join(member: Forkable) -> None:
    """From now on, forks wait until its lock is free."""
    with _lock:
        _members.add(member)


def _before() -> None:
    _lock.acquire()
    for member in list(_members):
        _held.append(member)
        member._lock.__enter__()


def _after_in_parent() -> None:
    while _held:
        lock = _held.pop()._lock
        if lock.is_mine():  # untested: Ctrl-C in between
            lock.__exit__(None, None, None)
    _lock.release()


def _after_in_child() -> None:
    daemon.forget_all()
    for member in _held:
        member.forget_other_threads()
    _after_in_parent()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

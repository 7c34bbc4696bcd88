"""What happens to processes: they start, are frozen and thawed, and end.

    with Watcher(cgroups=["/sys/fs/cgroup/app.slice"]) as watcher:
        while not watcher.is_over:
            for event in watcher.wait():
                print(event.kind.value, event.pid, event.name)

What the kernel tells is waited for, none of it is polled: pidfds tell the ends, inotify on the directories of
cgroups tells freezing, thawing and moves between groups, the process connector tells starts.

There is no event for a process that a signal or a tracer stopped, which holds still too: that is looked at
every `poll_seconds`. Nor is there one for a freezer of version 1 that gets from FREEZING to FROZEN: only
while some group is on that way it is looked at, first after 10 ms and then less and less often. Where the
connector or a pidfd cannot be had `notes` says so, and starts or ends are looked for every `poll_seconds`.
"""

from __future__ import annotations

import enum
import os
import selectors
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import _cgroup
from ._facts import holds_still
from ._groups import Groups
from ._proc_events import open_connector
from ._selection import Selection
from ._watched import Watched, membership_of, watched

__all__ = ["Event", "Kind", "Watcher"]

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 1.0  # at a group that is FREEZING


class Kind(enum.Enum):
    """What happened to a process."""

    START = "start"
    """It is watched from now on: it was there already, was started, or came into a watched group."""
    FREEZE = "freeze"
    """It holds still: its cgroup froze it, or a signal or a tracer stopped it."""
    THAW = "thaw"
    EXIT = "exit"
    """It is watched no more: it ended, or left the watched groups."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to one process.

    started: its start time in clock ticks after boot, which tells it from a later one of the same pid.
    name: as the kernel has it, cut to 15 bytes. frozen: does it hold still now?
    """

    kind: Kind
    pid: int
    started: int
    name: str
    frozen: bool


class Watcher:
    """Watches processes given by pid, by cgroup (with all groups below it), or simply all.

    pids
        Process ids, watched wherever they go. Those that are not there are not watched later either.
    cgroups
        Directories of cgroups, of version 2 or of the freezer hierarchy of version 1; `SourceError` if one
        is neither.
    every_process
        All processes that have user memory, but this very one.
    poll_seconds
        How often to look for what no event tells; 0: never.

    Use it as a context manager, or `close` it. `wait` and `close` belong to one thread; `wake` may be called
    from any, and a signal may write to `wakeup_fd`.
    """

    def __init__(
        self,
        *,
        pids: Iterable[int] = (),
        cgroups: Iterable[str | os.PathLike[str]] = (),
        every_process: bool = False,
        poll_seconds: float = 2.0,
    ) -> None:
        mounts = Path("/proc/self/mountinfo").read_text()
        self._selection = Selection(pids, cgroups, every_process, mounts)
        self._poll_seconds = poll_seconds
        self._poll_at = time.monotonic() + poll_seconds
        self._events: list[Event] = []
        self._watched: dict[int, Watched] = {}
        self._freezing: dict[str, float] = {}  # groups on their way, and how long to wait between looks
        self._freezing_at = 0.0
        self._lacks_pidfds = False
        with ExitStack() as opened:  # what is open already is closed if the next cannot be had
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._waker, self._wakeup_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened.callback(os.close, self._waker)
            opened.callback(os.close, self._wakeup_fd)
            self._selector.register(self._waker, selectors.EVENT_READ, self._woken)
            self._groups = Groups(mount for _, _, mount in _cgroup.freezer_mounts(mounts))
            opened.callback(self._groups.close)
            self._selector.register(self._groups, selectors.EVENT_READ, self._read_groups)
            self._connector = open_connector() if self._selection.is_open else None
            if self._connector is not None:
                opened.callback(self._connector.close)
                self._selector.register(self._connector, selectors.EVENT_READ, self._read_starts)
            opened.callback(self._release)
            for group in self._groups.watched:  # nothing will tell of those that are on their way already
                self._expect_freeze(group)
            self._list()
            self._opened = opened.pop_all()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives every descriptor back. Closing twice is closing once."""
        self._opened.close()

    @property
    def wakeup_fd(self) -> int:
        """A byte written here ends `wait`; writing never blocks. For `signal.set_wakeup_fd`."""
        return self._wakeup_fd

    def wake(self) -> None:
        """Ends `wait`, from any thread."""
        with suppress(BlockingIOError):  # there are enough bytes in it already
            os.write(self._wakeup_fd, b"\0")

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are watched now."""
        return tuple(self._watched)

    @property
    def is_over(self) -> bool:
        """Can nothing happen any more? No process is watched, and none can come."""
        return not (self._watched or self._events or self._selection.may_come)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not told at once, or not at all, and why; a line each."""
        every = f"looked for every {self._poll_seconds:g} s" if self._poll_seconds else "not seen"
        notes = [] if self._groups.note is None else [self._groups.note]
        if self._connector is None and self._selection.is_open:
            notes.append(f"the kernel tells us no starts of processes (CAP_NET_ADMIN), so they are {every}")
        if self._lacks_pidfds:
            notes.append(f"a pidfd cannot be had for all processes (ulimit -n), so ends are {every}")
        return tuple(notes)

    def wait(self, timeout_seconds: float | None = None) -> list[Event]:
        """Waits until something happens and returns all of it, for each process in order.

        The processes that are there at the beginning start in the first call. Returns an empty list after
        `timeout_seconds` (None: never), or when woken.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            is_woken = False
            for key, _ in sorted(self._selector.select(self._patience(deadline)), key=_ends_first):
                if isinstance(key.data, Watched):
                    self._end(key.data)
                else:
                    is_woken |= bool(key.data())
            self._look_again()
            events, self._events = self._events, []
            if events or is_woken or (deadline is not None and time.monotonic() >= deadline):
                return events

    # --- what descriptors tell

    def _woken(self) -> bool:
        with suppress(BlockingIOError):
            while os.read(self._waker, 4096):
                pass
        return True

    def _read_starts(self) -> None:
        assert self._connector is not None
        started = self._connector.read()
        for pid in started.pids:
            self._begin(pid)
        if started.is_lost:
            self._list()

    def _read_groups(self) -> None:
        touched = self._groups.read()
        if touched.is_lost:
            self._list()
            for known in list(self._watched.values()):
                if self._check_group(known):  # untested: events are lost and it has left its group
                    self._check_frozen(known)
        for group in touched.members | touched.freezers:
            self._expect_freeze(group)  # first: it may be there when its processes are looked at
            may_begin = self._selection.has_group(group)
            for pid in _cgroup.members(group):
                process = self._watched.get(pid)
                if process is None:
                    if may_begin:
                        self._begin(pid)
                elif self._check_group(process) and group in touched.freezers:
                    self._check_frozen(process)

    # --- what has to be looked at

    def _expect_freeze(self, group: str) -> None:
        """Looks again soon if its freezer is on its way."""
        if self._groups.is_on_its_way(group):
            self._freezing[group] = _FIRST_LOOK_SECONDS
            self._freezing_at = time.monotonic() + _FIRST_LOOK_SECONDS

    def _patience(self, deadline: float | None) -> float | None:
        """How long to wait for descriptors, at most."""
        if self._events:
            return 0.0
        ends = [] if deadline is None else [deadline]
        if self._freezing:
            ends.append(self._freezing_at)
        if self._poll_seconds and not self.is_over:
            ends.append(self._poll_at)
        return max(min(ends) - time.monotonic(), 0.0) if ends else None

    def _look_again(self) -> None:
        now = time.monotonic()
        if self._freezing and now >= self._freezing_at:
            self._look_at_freezing(now)
        if self._poll_seconds and now >= self._poll_at:
            self._poll()
            self._poll_at = time.monotonic() + self._poll_seconds

    def _look_at_freezing(self, now: float) -> None:
        for group, wait in list(self._freezing.items()):
            if self._groups.is_on_its_way(group):
                self._freezing[group] = min(wait * 2, _LONGEST_LOOK_SECONDS)
                continue
            del self._freezing[group]
            for pid in _cgroup.members(group):
                if pid in self._watched:  # untested: one that is not watched joins while its group freezes
                    self._check_frozen(self._watched[pid])
        self._freezing_at = now + min(self._freezing.values(), default=0.0)

    def _poll(self) -> None:
        if self._connector is None and self._selection.is_open:
            self._list()
        for process in list(self._watched.values()):
            was_stopped = process.is_stopped
            if not process.lives():
                if process.held.fd is None:  # untested: its pidfd tells it a moment later
                    self._end(process)
            elif process.is_stopped != was_stopped:
                self._check_frozen(process)

    def _list(self) -> None:
        for pid in self._selection.candidates():
            self._begin(pid)

    # --- processes

    def _release(self) -> None:
        for process in self._watched.values():
            process.held.close()
        self._watched = {}

    def _begin(self, pid: int) -> None:
        """Watch a process from now on, if it is one to watch and not watched already."""
        known = self._watched.get(pid)
        if known is not None:
            if known.lives():
                return
            self._end(known)  # its pid has been used again
        if not self._selection.wants(pid, membership_of(pid)):
            return
        process = watched(pid)
        if process is None:
            return
        self._watched[pid] = process
        if process.held.fd is None:
            self._lacks_pidfds = True
        else:
            self._selector.register(process.held.fd, selectors.EVENT_READ, process)
        self._tell(Kind.START, process)

    def _check_group(self, process: Watched) -> bool:
        """Has it moved to another group? Is it still one to watch?"""
        membership = membership_of(process.pid)
        if not membership or membership == process.membership:
            return True
        process.membership = membership
        if not self._selection.wants(process.pid, membership):
            self._end(process)
            return False
        self._check_frozen(process)
        return True

    def _check_frozen(self, process: Watched) -> None:
        frozen = holds_still(process.pid)
        if frozen != process.frozen and process.lives():
            process.frozen = frozen
            self._tell(Kind.FREEZE if frozen else Kind.THAW, process)

    def _end(self, process: Watched) -> None:
        if self._watched.get(process.pid) is not process:
            return  # untested: it ended twice
        del self._watched[process.pid]
        if process.held.fd is not None:
            self._selector.unregister(process.held.fd)
        process.held.close()
        self._tell(Kind.EXIT, process)

    def _tell(self, kind: Kind, process: Watched) -> None:
        self._events.append(Event(kind, process.pid, process.started, process.name, process.frozen))


def _ends_first(ready: tuple[selectors.SelectorKey, int]) -> bool:
    """Sorts the ends of processes before what may be the start of another one with the same pid."""
    return not isinstance(ready[0].data, Watched)

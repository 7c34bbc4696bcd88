"""Real processes in real cgroups: what happens to them, and what `Watcher` tells of it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cgroups import DEADLINE_SECONDS, Group, new_group, release, until
from lksm.errors import SourceError
from lksm.sources import _pidfd, events
from lksm.sources._facts import holds_still
from lksm.sources._groups import Groups, Touched
from lksm.sources.events import Event, Kind, Watcher

GONE_PID = 2**22 + 1  # beyond any pid_max


@contextlib.contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    process = subprocess.Popen(["sleep", "1000"])
    try:
        yield process
    finally:
        if process.poll() is None:
            release(process.pid)
            process.kill()
            process.wait()


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A cgroup of either version."""
    with new_group(request.param) as made:
        yield made


def wait_for(watcher: Watcher, *kinds: Kind, pid: int) -> list[Event]:
    """The next events of a process, up to the last of these kinds, which come in this order."""
    found: list[Event] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found) < len(kinds):
        assert time.monotonic() < deadline, f"waiting for {kinds}, found {found}"
        found.extend(event for event in watcher.wait(1.0) if event.pid == pid)
    assert tuple(event.kind for event in found) == kinds
    return found


def descriptors() -> list[str]:
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"), key=int)


# ---- by pid


def test_a_process_by_pid_starts_and_exits() -> None:
    """A process that is watched by pid starts in the first wait, and exits when it ends."""
    with sleeper() as process, Watcher(pids=[process.pid]) as watcher:
        [event] = watcher.wait(0)
        assert (event.kind, event.pid, event.name, event.frozen) == (Kind.START, process.pid, "sleep", False)
        assert watcher.pids == (process.pid,)
        assert watcher.wait(0) == [] and not watcher.is_over
        process.kill()
        [gone] = wait_for(watcher, Kind.EXIT, pid=process.pid)
        assert gone.started == event.started
        assert watcher.is_over and watcher.pids == () and watcher.wait(0) == []


def test_a_pid_that_is_not_there() -> None:
    """Without a process there is nothing to watch."""
    with Watcher(pids=[GONE_PID]) as watcher:
        assert watcher.is_over
        assert watcher.wait(0) == []


def test_a_zombie_is_not_there() -> None:
    """A process that has ended is none, though nobody has asked for its status."""
    with sleeper() as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with Watcher(pids=[process.pid]) as watcher:
            assert watcher.is_over


def test_a_stopped_process_is_frozen() -> None:
    """A process that a signal stopped holds still, which is seen at the next look."""
    with sleeper() as process, Watcher(pids=[process.pid], poll_seconds=0.05) as watcher:
        wait_for(watcher, Kind.START, pid=process.pid)
        process.send_signal(signal.SIGSTOP)
        [event] = wait_for(watcher, Kind.FREEZE, pid=process.pid)
        assert event.frozen
        process.send_signal(signal.SIGCONT)
        wait_for(watcher, Kind.THAW, pid=process.pid)


def test_frozen_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1: a group that gets from FREEZING to FROZEN while it is looked at is not missed."""
    with new_group(1) as group, sleeper() as process, Watcher(cgroups=[group]) as watcher:
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        looked_at: list[int] = []

        def look(pid: int) -> bool:
            looked_at.append(pid)
            return len(looked_at) > 1 and holds_still(pid)

        monkeypatch.setattr(events, "holds_still", look)
        monkeypatch.setattr(Groups, "is_on_its_way", staticmethod(lambda _: not looked_at))
        group.freeze()
        wait_for(watcher, Kind.FREEZE, pid=process.pid)


def test_a_pid_that_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with the pid of one that was watched is another one: the first exits, then it starts."""
    with sleeper() as process, Watcher(pids=[process.pid]) as watcher:
        [first] = watcher.wait(0)
        known = watcher._watched[process.pid]
        known.held = replace(known.held, status=replace(known.held.status, started=first.started - 1))
        watcher._begin(process.pid)
        exited, started = watcher.wait(0)
        assert (exited.kind, exited.started) == (Kind.EXIT, first.started - 1)
        assert (started.kind, started.started) == (Kind.START, first.started)


def test_a_pid_by_pid_is_frozen_by_its_cgroup(group: Group) -> None:
    """A process watched by pid is watched in whatever group it is, also when it comes there later."""
    with sleeper() as process, Watcher(pids=[process.pid], poll_seconds=0) as watcher:
        wait_for(watcher, Kind.START, pid=process.pid)
        group.add(process.pid)
        group.freeze()
        wait_for(watcher, Kind.FREEZE, pid=process.pid)
        group.thaw()
        wait_for(watcher, Kind.THAW, pid=process.pid)


# ---- by cgroup; nothing is polled, so all that is seen was told


def test_members_of_a_cgroup_start(group: Group) -> None:
    """Processes of a group and of those below it are there at the beginning, frozen or not."""
    frozen = group.below("frozen")
    with sleeper() as one, sleeper() as two:
        group.add(one.pid)
        frozen.add(two.pid)
        frozen.freeze()
        with Watcher(pids=[two.pid], poll_seconds=0) as before:
            if not before.wait(0)[0].frozen:
                wait_for(before, Kind.FREEZE, pid=two.pid)
        with Watcher(cgroups=[group], poll_seconds=0) as watcher:
            found = {event.pid: (event.kind, event.frozen) for event in watcher.wait(0)}
    assert found == {one.pid: (Kind.START, False), two.pid: (Kind.START, True)}


def test_freezing_and_thawing(group: Group) -> None:
    """A group that is frozen, or whose ancestor is, freezes its processes, and thawing thaws them."""
    below = group.below("kid").below("kid")
    with sleeper() as process, Watcher(cgroups=[group], poll_seconds=0) as watcher:
        below.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        for frozen in (below, group):
            frozen.freeze()
            wait_for(watcher, Kind.FREEZE, pid=process.pid)
            frozen.thaw()
            wait_for(watcher, Kind.THAW, pid=process.pid)


def test_a_parent_that_is_not_watched_is_frozen(group: Group) -> None:
    """What freezes a group may lie above all that was asked for."""
    below = group.below("kid")
    with sleeper() as process:
        below.add(process.pid)
        with Watcher(cgroups=[below], poll_seconds=0) as watcher:
            wait_for(watcher, Kind.START, pid=process.pid)
            group.freeze()
            wait_for(watcher, Kind.FREEZE, pid=process.pid)


def test_moving(group: Group) -> None:
    """A process that is moved into a group starts, into a frozen one freezes, and out of all exits."""
    frozen = group.below("frozen")
    frozen.freeze()
    top = Group(group.path.parent, group.version)
    with sleeper() as process, Watcher(cgroups=[group], poll_seconds=0) as watcher:
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        frozen.add(process.pid)
        wait_for(watcher, Kind.FREEZE, pid=process.pid)
        group.add(process.pid)
        wait_for(watcher, Kind.THAW, pid=process.pid)
        top.add(process.pid)
        wait_for(watcher, Kind.EXIT, pid=process.pid)
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)


def test_freezing_is_told_of_a_group_that_nobody_looked_at() -> None:
    """A group of version 2 tells that it is frozen though none of its files was ever read."""
    with new_group(2) as group, sleeper() as process:
        groups = Groups([str(group)])
        try:
            group.add(process.pid)
            until(lambda: str(group) in groups.read().freezers)  # it has its first process
            until(lambda: not groups.read().freezers)
            group.freeze()
            until(lambda: str(group) in groups.read().freezers)
        finally:
            groups.close()


def test_new_groups(group: Group) -> None:
    """A group made later belongs to it; when all are removed nothing can come any more."""
    with Watcher(cgroups=[group], poll_seconds=0) as watcher, sleeper() as process:
        below = group.below("new").below("newer")
        below.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        process.kill()
        wait_for(watcher, Kind.EXIT, pid=process.pid)
        process.wait()
        assert not watcher.is_over
        for path in (below.path, below.path.parent, group.path):
            Group(path, group.version).remove()
        assert watcher.wait(0) == [] and watcher.is_over
        group.path.mkdir()  # as it was, for the fixture


_FORKS = "echo $$ > {}/cgroup.procs && sleep 1000 & wait"


def test_a_start_is_told(group: Group) -> None:
    """A process that a member starts is a member, told at once where the kernel tells starts."""
    with Watcher(cgroups=[group], poll_seconds=0) as watcher:
        if watcher.notes:
            pytest.skip(watcher.notes[0])
        _sees_a_fork(watcher, group)


def test_a_start_is_looked_for(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell starts they are looked for, and a note says so."""
    monkeypatch.setattr(events, "open_connector", lambda: None)
    with Watcher(cgroups=[group], poll_seconds=0.05) as watcher:
        [note] = watcher.notes
        assert "CAP_NET_ADMIN" in note and "every 0.05 s" in note
        _sees_a_fork(watcher, group)
    with Watcher(pids=[os.getpid()]) as watcher:
        assert watcher.notes == (), "no other process is asked for"


def _sees_a_fork(watcher: Watcher, group: Group) -> None:
    shell = subprocess.Popen(
        ["sh", "-c", "read go; sleep 1000 & echo $!; wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child = 0
    try:
        group.add(shell.pid)
        wait_for(watcher, Kind.START, pid=shell.pid)
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        child = int(shell.stdout.readline())
        wait_for(watcher, Kind.START, pid=child)
        os.kill(child, signal.SIGKILL)
        wait_for(watcher, Kind.EXIT, pid=child)
    finally:
        shell.kill()
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        shell.communicate()


def test_a_frozen_process_that_is_killed(group: Group) -> None:
    """A process that is killed while it is frozen exits."""
    with sleeper() as process, Watcher(cgroups=[group], poll_seconds=0) as watcher:
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        group.freeze()
        wait_for(watcher, Kind.FREEZE, pid=process.pid)
        process.kill()
        group.thaw()  # version 1 kills when it thaws
        deadline = time.monotonic() + DEADLINE_SECONDS
        while process.pid in watcher.pids:
            assert time.monotonic() < deadline
            watcher.wait(1)


def test_a_freezer_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A freezer of version 1 that takes its time is looked at until it has frozen all."""
    looks = iter([True, True, True])
    still = False

    def is_on_its_way(_group: str) -> bool:
        nonlocal still
        still = not next(looks, False)
        return not still

    with new_group(1) as group, sleeper() as process, Watcher(cgroups=[group], poll_seconds=0) as watcher:
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        monkeypatch.setattr(Groups, "is_on_its_way", staticmethod(is_on_its_way))
        monkeypatch.setattr(events, "holds_still", lambda _pid: still)
        group.freeze()
        wait_for(watcher, Kind.FREEZE, pid=process.pid)
        assert watcher._freezing == {}


def test_a_freezer_that_was_on_its_way_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1: who begins to watch between FREEZING and FROZEN is told of the freeze too."""
    still = False
    with new_group(1) as group, sleeper() as process:
        group.add(process.pid)
        monkeypatch.setattr(
            Groups, "is_on_its_way", staticmethod(lambda path: path == str(group) and not still)
        )
        monkeypatch.setattr(events, "holds_still", lambda _pid: still)
        with Watcher(cgroups=[group], poll_seconds=0) as watcher:
            wait_for(watcher, Kind.START, pid=process.pid)
            still = True
            wait_for(watcher, Kind.FREEZE, pid=process.pid)
            assert watcher._freezing == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_random_moves_end_as_they_are(group: Group, seed: int) -> None:
    """Whatever is done to groups and processes, in the end the events add up to what is so."""
    print("seed", seed)
    choose = random.Random(seed)
    places = [group, group.below("a"), group.below("b")]
    places += [places[1].below("x"), Group(group.path.parent, group.version)]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(sleeper()) for _ in range(4)]
        watcher = stack.enter_context(Watcher(cgroups=[group], poll_seconds=0))
        state: dict[int, bool] = {}

        def follow() -> None:
            for event in watcher.wait(0.01):
                if event.kind is Kind.EXIT:
                    assert state.pop(event.pid) is not None
                else:
                    assert (event.pid in state) is (event.kind is not Kind.START)
                    assert event.kind is Kind.START or state[event.pid] is not event.frozen
                    state[event.pid] = event.frozen

        for _ in range(40):
            place = choose.choice(places[:-1])
            choose.choice(
                [
                    place.freeze,
                    place.thaw,
                    lambda: choose.choice(places).add(choose.choice(processes).pid),
                ]
            )()
            if choose.random() < 0.5:
                follow()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            follow()
            inside = [pid for place in places[:-1] for pid in members(place)]
            if state == {pid: holds_still(pid) for pid in inside}:
                break
            assert time.monotonic() < deadline, (state, inside)


def members(place: Group) -> list[int]:
    return [int(line) for line in (place.path / "cgroup.procs").read_text().split()]


def test_a_loss_of_events_is_made_up_for(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel has more to tell than it can, everything is looked at anew."""
    with sleeper() as process, sleeper() as other, Watcher(cgroups=[group], poll_seconds=0) as watcher:
        group.add(process.pid)
        wait_for(watcher, Kind.START, pid=process.pid)
        group.freeze()
        group.add(other.pid)
        monkeypatch.setattr(watcher._groups, "read", lambda: Touched(is_lost=True))
        wait_for(watcher, Kind.FREEZE, pid=process.pid)
        assert other.pid in watcher.pids


# ---- all


def test_every_process() -> None:
    """All processes with memory are watched, but this very one; who comes starts, who ends exits."""
    with Watcher(every_process=True, poll_seconds=0.1) as watcher:
        first = {event.pid for event in watcher.wait(0)}
        assert os.getppid() in first and os.getpid() not in first and 2 not in first
        assert not watcher.is_over
        with sleeper() as process:
            wait_for(watcher, Kind.START, pid=process.pid)
            process.kill()
            wait_for(watcher, Kind.EXIT, pid=process.pid)


def test_starts_that_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """When starts come faster than they are read, all processes are listed."""
    with Watcher(every_process=True, poll_seconds=0) as watcher:
        if watcher._connector is None:
            pytest.skip(watcher.notes[0])
        watcher.wait(0)
        real = watcher._connector.read
        monkeypatch.setattr(watcher._connector, "read", lambda: real()._replace(pids=[], is_lost=True))
        with sleeper() as process:
            wait_for(watcher, Kind.START, pid=process.pid)


# ---- waiting, waking, closing


def test_waking() -> None:
    """A wait without end is ended from another thread, and by a byte in the wake-up descriptor."""
    with sleeper() as process, Watcher(pids=[process.pid], poll_seconds=0) as watcher:
        watcher.wait(0)
        thread = threading.Timer(0.05, watcher.wake)
        thread.start()
        assert watcher.wait(None) == []
        thread.join()
        os.write(watcher.wakeup_fd, b"x")
        assert watcher.wait(None) == []
        for _ in range(100_000):  # more than a pipe holds
            watcher.wake()
        assert watcher.wait(None) == []
        assert watcher.wait(0) == []


def test_closing_gives_all_descriptors_back(group: Group) -> None:
    """However it ended, and whatever it watched, no descriptor is left."""
    before = descriptors()
    with sleeper() as process, Watcher(every_process=True, cgroups=[group]) as watcher:
        watcher.wait(0)
        group.add(process.pid)
        watcher.wait(0)
        watcher.close()
    watcher.close()
    assert descriptors() == before


def test_a_beginning_that_fails_gives_all_descriptors_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened before something could not be is closed."""

    def fail(_pid: int) -> None:
        raise MemoryError

    before = descriptors()
    monkeypatch.setattr(events, "watched", fail)
    with pytest.raises(MemoryError):
        Watcher(every_process=True)
    assert descriptors() == before


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pidfd can be had the end of a process is looked for, and a note says so."""
    monkeypatch.setattr(_pidfd, "_open", lambda _pid: None)
    with sleeper() as process, Watcher(pids=[process.pid], poll_seconds=0.05) as watcher:
        wait_for(watcher, Kind.START, pid=process.pid)
        assert "pidfd" in watcher.notes[0]
        process.kill()
        wait_for(watcher, Kind.EXIT, pid=process.pid)


def test_too_few_descriptors() -> None:
    """Holding a process does without a descriptor when there is none left, and fails when it is gone."""
    with pytest.raises(ProcessLookupError):
        _pidfd.hold(GONE_PID)
    with sleeper() as process:
        held = _pidfd.hold(process.pid)
        assert held.fd is not None and not _pidfd.has_ended(held.fd)
        process.kill()
        process.wait()
        assert _pidfd.has_ended(held.fd)
        held.close()


def test_what_is_no_cgroup(tmp_path: Path) -> None:
    """A path that is no cgroup with a freezer is refused in one line that names it."""
    with pytest.raises(SourceError, match="there is no such cgroup"):
        Watcher(cgroups=[tmp_path / "missing"])
    with pytest.raises(SourceError, match="no cgroup of version 2"):
        Watcher(cgroups=[tmp_path])
    memory = Path("/sys/fs/cgroup/memory")
    if (memory / "cgroup.procs").exists():
        with pytest.raises(SourceError, match="freezer hierarchy"):
            Watcher(cgroups=[memory])

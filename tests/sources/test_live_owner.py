"""What a snapshot of a live process says of its owner: name, time, faults, whether it is frozen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from live_child import (
    Child,
    needs_root,
    pages_at,
)
from lksm.sources import _cgroup, live

_FILLED = "m = private(40)\nfor page in range(20): fill(m, page, page)"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.01)


def test_name_cpu_time_and_faults_are_those_of_the_process() -> None:
    """Name, CPU time of all threads and page faults come with the pages."""
    burn = """
def burn():
    while time.thread_time() < 0.15: pass
thread = threading.Thread(target=burn); thread.start(); thread.join()
"""
    with Child(_FILLED + burn) as child:
        expected = psutil.Process(child.pid)
        [process] = live.snapshot([child.pid]).processes
        assert process.name == expected.name()
        times = expected.cpu_times()
    assert process.runtime_ms is not None
    assert 130 <= process.runtime_ms <= (times.user + times.system) * 1000 + 1
    assert process.faults is not None
    assert process.faults >= 20


def test_a_running_process_is_not_frozen_and_may_be_torn() -> None:
    """A running process is not frozen, and the notes say how long it took and that pages may be torn."""
    with Child() as child:
        [process] = live.snapshot([child.pid]).processes
    assert not process.frozen
    assert process.immutable
    assert "taken in" in process.notes[0]
    assert "torn" in process.notes[0]


def test_a_stopped_process_is_frozen() -> None:
    """A process stopped by a signal holds still; continued, it does not."""
    with Child() as child:
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        [stopped] = live.snapshot([child.pid]).processes
        os.kill(child.pid, signal.SIGCONT)
        child.do("pass")
        [running] = live.snapshot([child.pid]).processes
    assert stopped.frozen
    assert "torn" not in stopped.notes[0]
    assert not running.frozen


def _freezer_root(kind: str) -> Path:
    needs_root()
    mounts = Path("/proc/self/mountinfo").read_text()
    for root, mount in _cgroup._mounts_of(mounts, kind):
        if root == "/" and os.access(mount, os.W_OK):
            return Path(mount)
    pytest.skip(f"no writable {kind} freezer is mounted")


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A fresh group two levels below the root of the freezer named by the parameter; removed afterwards."""
    outer = _freezer_root(request.param) / f"lksm-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        try:
            inner.mkdir(parents=True)
        except OSError as error:
            pytest.skip(f"no group can be made: {error}")
        yield inner
    finally:
        for directory in (inner, outer):
            if directory.exists():
                wait_for(lambda directory=directory: not (directory / "cgroup.procs").read_text())  # type: ignore[misc]
                directory.rmdir()


@pytest.mark.parametrize(
    ("group", "file", "freeze", "thaw"),
    [("cgroup2", "cgroup.freeze", "1", "0"), ("cgroup", "freezer.state", "FROZEN", "THAWED")],
    indirect=["group"],
    ids=["v2", "v1"],
)
def test_a_process_in_a_frozen_group_is_frozen(group: Path, file: str, freeze: str, thaw: str) -> None:
    """Freezing the group, or the one above it, makes the process frozen; its pages can be read."""
    with Child(_FILLED) as child:
        address = child.ask("address(m)")
        (group / "cgroup.procs").write_text(str(child.pid))
        assert not live.snapshot([child.pid]).processes[0].frozen
        for frozen in (group, group.parent):
            try:
                (frozen / file).write_text(freeze)
                wait_for(lambda: _cgroup.is_frozen(child.pid))
                [process] = live.snapshot([child.pid]).processes
            finally:
                (frozen / file).write_text(thaw)
            assert process.frozen
            assert len(pages_at(process, address, 40)) == 20
            wait_for(lambda: not _cgroup.is_frozen(child.pid))
        assert not live.snapshot([child.pid]).processes[0].frozen

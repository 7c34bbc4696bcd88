"""What is asked of a process or a group that has vanished in between: an answer, never an error."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lksm.kernel.memory import proportional_bytes
from lksm.sources._cgroup import is_frozen
from lksm.sources._groups import subgroups
from lksm.sources._pidfd import has_ended, hold
from lksm.sources._watched import Watched


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def test_a_process_that_has_ended() -> None:
    """It does not live, is not frozen, takes no memory, and nobody can hold it."""
    process = sleeper()
    held = hold(process.pid)
    watched = Watched(process.pid, held, "", False, False)
    assert watched.lives() and held.fd is not None and not has_ended(held.fd)
    assert proportional_bytes(process.pid) > 0
    end(process)
    assert not watched.lives() and has_ended(held.fd)
    assert not is_frozen(process.pid)
    assert proportional_bytes(process.pid) == 0
    with pytest.raises(ProcessLookupError, match="there is no such process"):
        hold(process.pid)
    held.close()


def test_a_process_that_is_a_zombie() -> None:
    """One that has ended and was not waited for does not live either, and nobody can hold it."""
    process = sleeper()
    watched = Watched(process.pid, hold(process.pid), "", False, False)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not watched.lives()
    with pytest.raises(ProcessLookupError, match="there is no such process"):
        hold(process.pid)
    watched.held.close()
    end(process)


def test_a_group_that_is_gone(tmp_path: Path) -> None:
    """It has no groups below."""
    (tmp_path / "below").mkdir()
    assert subgroups(str(tmp_path)) == [str(tmp_path / "below")]
    assert subgroups(str(tmp_path / "gone")) == []


def test_without_a_descriptor_to_spare() -> None:
    """Where none is left, neither for a pidfd nor to read, the system's error is raised and none is kept."""
    process = sleeper()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.listdir("/proc/self/fd")
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            hold(process.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir("/proc/self/fd") == before
    end(process)

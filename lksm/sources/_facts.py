"""Who owns an address space: name, CPU time, page faults, and whether it holds still."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped,unused-ignore]

from ..errors import SourceError
from . import _cgroup, _procfs
from ._procfs import Status


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the owner of an address space, in units of `SourceProcess`."""

    status: Status
    name: str
    runtime_ms: int | None
    frozen: bool


def holds_still(pid: int) -> bool:
    """Is it frozen by its cgroup, or are all its threads stopped by a signal or a tracer?"""
    states = set(_procfs.thread_states(pid))
    return _cgroup.is_frozen(pid) or (bool(states & {"T", "t"}) and states <= {"T", "t", "Z", "X"})


def facts_of(pid: int) -> Facts:
    """Facts about a process; SourceError says why it has no memory to take, OSError that it is gone."""
    if pid <= 0:
        raise SourceError("not a process id")
    if pid == os.getpid():
        raise SourceError("this very process: taking its pages would change them")
    status = _procfs.read_status(pid)
    if status.is_kernel_thread:
        raise SourceError("kernel thread has no memory")
    if status.state in "ZX":
        raise SourceError("zombie has no memory")
    if (group := _procfs.thread_group(pid)) != pid:
        raise SourceError(f"a thread of process {group}")
    name, runtime_ms = _name_and_runtime(pid, status)
    return Facts(status, name, runtime_ms, holds_still(pid))


def _name_and_runtime(pid: int, status: Status) -> tuple[str, int | None]:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return process.name(), round((times.user + times.system) * 1000)
    except psutil.NoSuchProcess as error:  # untested: it ends, or forbids, between two looks
        raise ProcessLookupError(f"pid {pid}") from error
    except psutil.AccessDenied:
        return status.name, None

"""One process that is watched, and what was last known of it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import _procfs
from ._facts import holds_still
from ._pidfd import Held, hold


@dataclass(eq=False)
class Watched:
    """A process that is watched.

    membership: the text of /proc/PID/cgroup. is_stopped: was its first thread stopped by a signal or a
    tracer? frozen: did it hold still? The last three are as of the last look.
    """

    pid: int
    held: Held
    membership: str
    is_stopped: bool
    frozen: bool

    @property
    def started(self) -> int:
        return self.held.status.started

    @property
    def name(self) -> str:
        return self.held.status.name

    def lives(self) -> bool:
        """Is it still there? Also looks whether it is stopped."""
        try:
            status = _procfs.read_status(self.pid)
        except OSError:
            return False
        if status.started != self.started or status.state in "ZX":
            return False
        self.is_stopped = status.state in "Tt"
        return True


def watched(pid: int) -> Watched | None:
    """Take hold of a process; None if it is gone."""
    try:
        held = hold(pid)
    except OSError:
        return None
    is_stopped = held.status.state in "Tt"
    return Watched(pid, held, membership_of(pid), is_stopped, holds_still(pid))


def membership_of(pid: int) -> str:
    """The groups of a process, as the kernel writes them; nothing if it is gone."""
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes())
    return ""

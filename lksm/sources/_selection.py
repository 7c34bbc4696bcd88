"""Which processes are to be watched: some by pid, all of some cgroups, or simply all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ..errors import SourceError
from . import _cgroup
from ._groups import is_within, subgroups
from ._procfs import has_user_memory

_MAX_MEMBERSHIPS = 4096


class Selection:
    """What was asked for. `SourceError` if a path is no cgroup that has a freezer.

    pids are watched wherever they go; processes of the directories `cgroups`, and of groups below, as long
    as they are there; with `every_process`, whatever has user memory but this very process.
    """

    def __init__(
        self, pids: Iterable[int], cgroups: Iterable[str | os.PathLike[str]], every_process: bool, mounts: str
    ) -> None:
        self.pids = frozenset(pids)
        self.cgroups = [_checked_group(os.fspath(path), mounts) for path in cgroups]
        self.every_process = every_process

        @lru_cache(_MAX_MEMBERSHIPS)
        def groups_of(membership: str) -> tuple[str, ...]:
            return tuple(str(file.parent) for file in _cgroup.freezer_files(membership, mounts))

        self._groups_of = groups_of

    @property
    def is_open(self) -> bool:
        """Is it more than single processes, so that others may come?"""
        return self.every_process or bool(self.cgroups)

    @property
    def may_come(self) -> bool:
        """May other processes come now? Not if all groups have been removed."""
        return self.every_process or any(map(os.path.isdir, self.cgroups))

    def wants(self, pid: int, membership: str) -> bool:
        """Is a process with this text of /proc/PID/cgroup one to watch?"""
        if pid in self.pids:
            return True
        if pid == os.getpid() or not has_user_memory(pid):
            return False
        return self.every_process or any(map(self.has_group, self._groups_of(membership)))

    def has_group(self, group: str) -> bool:
        """Are processes of this group to be watched because of it?"""
        return self.every_process or any(is_within(group, path) for path in self.cgroups)

    def candidates(self) -> Iterator[int]:
        """Processes that are there now and may be wanted; some more than once."""
        yield from self.pids
        if self.every_process:
            yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
        waiting = list(self.cgroups)
        while waiting:
            group = waiting.pop()
            yield from _cgroup.members(group)
            waiting.extend(subgroups(group))


def _checked_group(path: str, mounts: str) -> str:
    """The directory of a group as it is named elsewhere here."""
    real = Path(path).resolve()
    if not real.exists():
        raise SourceError(f"{path}: there is no such cgroup")
    directory = _cgroup.group_directory(str(real), mounts) if (real / "cgroup.procs").exists() else None
    if directory is None:
        raise SourceError(f"{path}: no cgroup of version 2, nor one of the freezer hierarchy of version 1")
    return str(directory)

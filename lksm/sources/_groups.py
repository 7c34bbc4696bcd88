"""All groups of the freezer hierarchies, and what happens in them.

One inotify watch on the directory of each group tells everything: groups made and removed, `cgroup.procs`
and `tasks` written (processes moved in), `freezer.state` written (version 1), and `cgroup.events` changed
(version 2: frozen, thawed, first process, last process gone). Version 2 tells each group whose state changed;
version 1 only the group that was written to, so there all groups below it count as touched. All groups are
watched, not only those with processes of interest: a process may be frozen by moving it to a frozen group.

In version 2 `cgroup.events` has a watch of its own, too. The kernel changes it, not somebody who has it open,
and it tells so only while the file is in its cache: a watch on the directory does not keep it there (6.18).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from . import _inotify
from ._inotify import Inotify

_MASK = _inotify.CREATE | _inotify.DELETE | _inotify.MODIFY | _inotify.MOVED_FROM | _inotify.MOVED_TO
_MEMBERS = ("cgroup.procs", "tasks", "cgroup.threads")
_EVENTS = "cgroup.events"
_FREEZERS = ("freezer.state", _EVENTS)


@dataclass
class Touched:
    """Directories of groups whose processes, and whose freezer, may be others than before.

    is_lost: more happened than could be told, so anything may be.
    """

    members: dict[str, None] = field(default_factory=dict)
    freezers: dict[str, None] = field(default_factory=dict)
    is_lost: bool = False


class Groups:
    """The groups below some mount points. `note`: why some are not watched, or None."""

    def __init__(self, mounts: Iterable[str]) -> None:
        self.note: str | None = None
        self._inotify = Inotify()
        self._mounts = list(mounts)
        self._path: dict[int, str] = {}
        self._watch: dict[str, int] = {}
        self._file_watch: dict[str, int] = {}
        for mount in self._mounts:
            self._add(mount)

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()

    @staticmethod
    def is_on_its_way(group: str) -> bool:
        """Is a freezer of version 1 about to stop its processes? Nothing tells when it has."""
        try:
            with open(os.path.join(group, "freezer.state")) as file:
                return file.read().strip() == "FREEZING"
        except OSError:
            return False

    @property
    def watched(self) -> list[str]:
        """All of them."""
        return list(self._watch)

    def below(self, group: str) -> list[str]:
        """The group and all below it that are watched."""
        return [path for path in self._watch if is_within(path, group)]

    def read(self) -> Touched:
        """What has happened since."""
        touched = Touched()
        for change in self._inotify.read():
            if change.mask & _inotify.OVERFLOW:
                touched.is_lost = True
            elif change.watch in self._path:
                self._apply(change, self._path[change.watch], touched)
        if touched.is_lost:
            self._add_missing()
        return touched

    def _apply(self, change: _inotify.Change, group: str, touched: Touched) -> None:
        path = os.path.join(group, change.name)
        if change.mask & _inotify.IGNORED:
            self._forget(group)
        elif not change.name:
            touched.freezers[group] = None
        elif change.mask & _inotify.IS_DIRECTORY:
            if change.mask & (_inotify.DELETE | _inotify.MOVED_FROM):
                for gone in self.below(path):
                    self._forget(gone)
            else:
                touched.members.update(dict.fromkeys(self._add(path)))
        elif change.name in _MEMBERS:
            touched.members[group] = None
        elif change.name in _FREEZERS:
            is_version_1 = change.name == "freezer.state"
            touched.freezers.update(dict.fromkeys(self.below(group) if is_version_1 else [group]))

    def _add(self, top: str) -> list[str]:
        """Watch a group and all below it. Watched first and listed then, so that none is missed."""
        added: list[str] = []
        waiting = [top]
        while waiting:
            group = waiting.pop()
            if self._add_one(group):
                added.append(group)
                waiting.extend(subgroups(group))
        return added

    def _add_one(self, path: str) -> bool:
        try:
            watch = self._inotify.add(path, _MASK)
        except OSError as error:
            if os.path.isdir(path):  # untested: a group that goes meanwhile
                self.note = f"not all cgroups can be watched, {path}: {error.strerror}"
            return False
        self._path[watch] = path
        self._watch[path] = watch
        with suppress(OSError):  # version 1 has none, nor has the first group
            file_watch = self._inotify.add_file(os.path.join(path, _EVENTS), _inotify.MODIFY)
            self._path[file_watch] = path
            self._file_watch[path] = file_watch
        return True

    def _add_missing(self) -> None:
        """After a loss of events: forget groups that are no more, watch those that are new."""
        for path in [path for path in self._watch if not os.path.isdir(path)]:
            self._forget(path)  # untested: a group that goes while events are lost
        for mount in self._mounts:
            self._add(mount)

    def _forget(self, path: str) -> None:
        for watches in (self._watch, self._file_watch):
            watch = watches.pop(path, None)
            if watch is not None:
                self._path.pop(watch, None)
                self._inotify.remove(watch)  # a removed group does not end its watch by itself


def subgroups(group: str) -> list[str]:
    """Directories of the groups right below; none if it has vanished."""
    try:
        with os.scandir(group) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def is_within(path: str, group: str) -> bool:
    return path == group or path.startswith(group.rstrip("/") + "/")

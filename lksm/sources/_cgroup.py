"""Cgroups that have a freezer, of version 1 and of version 2, either may be mounted: is a process frozen?

Both files say what is effective: a frozen ancestor shows in them. Kernel: cgroup-v1/freezer-subsystem.rst
and cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def is_frozen(pid: int, *, proc: Path = Path("/proc")) -> bool:
    """Has a freezer stopped every thread of `pid`? False when that cannot be found out."""
    try:
        membership = (proc / str(pid) / "cgroup").read_text()
        mounts = (proc / "self" / "mountinfo").read_text()
    except OSError:
        return False
    return any(_says_frozen(file) for file in freezer_files(membership, mounts))


def freezer_mounts(mounts: str) -> list[tuple[str, str, str]]:
    """(kind, root within the hierarchy, mount point) of every hierarchy with a freezer, each group once.

    `mounts` is the text of /proc/self/mountinfo; kind is "cgroup" or "cgroup2".
    """
    found: list[tuple[str, str, str]] = []
    for kind in ("cgroup2", "cgroup"):
        for root, mount in _mounts_of(mounts, kind):
            if not any(kind == other and PurePosixPath(root).is_relative_to(top) for other, top, _ in found):
                found.append((kind, root, mount))
    return found


def group_directory(path: str, mounts: str) -> Path | None:
    """The directory of the group at `path` as `freezer_files` names it; None if it has no freezer."""
    best: tuple[int, str] | None = None
    for kind, controllers in (("cgroup2", ""), ("cgroup", "freezer")):
        for root, mount in _mounts_of(mounts, kind):
            if PurePosixPath(path).is_relative_to(mount) and (best is None or len(mount) > best[0]):
                name = PurePosixPath(root) / PurePosixPath(path).relative_to(mount)
                best = len(mount), f"{0 if kind == 'cgroup2' else 1}:{controllers}:{name}"
    if best is None:
        return None
    return next((file.parent for file in freezer_files(best[1], mounts)), None)


def members(group: str) -> list[int]:
    """Processes of a group itself, not of those below it; none if it has vanished."""
    try:
        text = (Path(group) / "cgroup.procs").read_text()
    except OSError:  # also of a threaded group of version 2
        return []
    return [pid for pid in dict.fromkeys(map(int, text.split())) if pid]


def freezer_files(membership: str, mounts: str) -> Iterator[Path]:
    """The files that tell: from the text of /proc/PID/cgroup and of /proc/self/mountinfo."""
    for line in membership.splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            kind, name = "cgroup2", "cgroup.events"
        elif "freezer" in controllers.split(","):
            kind, name = "cgroup", "freezer.state"
        else:
            continue
        for root, mount in _mounts_of(mounts, kind):
            if PurePosixPath(group).is_relative_to(root):
                yield Path(mount) / PurePosixPath(group).relative_to(root) / name
                break


def _mounts_of(mounts: str, kind: str) -> Iterator[tuple[str, str]]:
    """(root within the hierarchy, mount point) of the mounts that can hold a freezer of this kind."""
    for line in mounts.splitlines():
        place, _, system = line.partition(" - ")
        filesystem, _, options = system.split(" ", 2)
        if filesystem == kind and (kind == "cgroup2" or "freezer" in options.split(",")):
            root, mount = place.split()[3:5]
            yield _unescaped(root), _unescaped(mount)


def _says_frozen(file: Path) -> bool:
    try:
        text = file.read_text()
    except OSError:  # the root group has no such file, and a group may vanish
        return False
    return text.strip() == "FROZEN" or "frozen 1" in text.splitlines()


def _unescaped(path: str) -> str:
    """Undo mountinfo's octal escapes of blanks and backslashes."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")

"""Cgroups made for a test: of both versions, with a freezer, gone at its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lksm.sources import _cgroup

DEADLINE_SECONDS = 120.0  # generous: a test waits for what must happen, it does not measure
VERSIONS = {1: "cgroup", 2: "cgroup2"}


class Group:
    """A cgroup, by its directory."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.version = version

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def add(self, pid: int) -> None:
        """Move a process here."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def freeze(self) -> None:
        self._set("FROZEN", "1")

    def thaw(self) -> None:
        self._set("THAWED", "0")

    def below(self, name: str) -> Group:
        """A new group below this one."""
        group = Group(self.path / name, self.version)
        group.path.mkdir()
        return group

    def remove(self) -> None:
        """Remove the group, which must be empty."""
        until(lambda: _removed(self.path))

    def _set(self, state_1: str, state_2: str) -> None:
        name, state = ("freezer.state", state_1) if self.version == 1 else ("cgroup.freeze", state_2)
        (self.path / name).write_text(state)


@contextlib.contextmanager
def new_group(version: int) -> Iterator[Group]:
    """A group with a name of its own, in the hierarchy of a version; skips the test where there is none."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a cgroup")
    mounts = _cgroup.freezer_mounts(Path("/proc/self/mountinfo").read_text())
    tops = [Path(mount) for kind, _, mount in mounts if kind == VERSIONS[version]]
    if not tops:
        pytest.skip(f"no cgroup hierarchy of version {version} with a freezer is mounted")
    group = Group(tops[0] / f"lksm-test-{os.getpid()}-{secrets.token_hex(4)}", version)
    try:
        group.path.mkdir()
    except OSError as error:
        pytest.skip(f"a cgroup cannot be made: {error}")
    try:
        yield group
    finally:
        _dissolve(group, tops[0])


def release(pid: int) -> None:
    """Move a process out of every frozen group, or killing it would have to wait."""
    for _, _, mount in _cgroup.freezer_mounts(Path("/proc/self/mountinfo").read_text()):
        with contextlib.suppress(OSError):
            (Path(mount) / "cgroup.procs").write_text(str(pid))


def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _dissolve(group: Group, top: Path) -> None:
    """Thaw and empty a group and all below it, and remove them."""
    directories = [Path(path) for path, _, _ in os.walk(group.path, topdown=False)]
    for directory in directories:
        with contextlib.suppress(OSError):
            Group(directory, group.version).thaw()
    for directory in directories:
        for pid in _cgroup.members(str(directory)):
            with contextlib.suppress(OSError):
                (top / "cgroup.procs").write_text(str(pid))
        until(lambda directory=directory: _removed(directory))  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            directory.rmdir()
        except OSError:
            return False
    return True

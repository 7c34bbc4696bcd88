"""What the kernel says of processes and cgroups, as bytes and text: no process is needed to read it."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import struct
from pathlib import Path

import pytest

from lksm.sources import _cgroup, _groups, _inotify, _proc_events
from lksm.sources._groups import Groups

MOUNTS = """\
25 30 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
28 25 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
29 25 0:24 /box /mnt/my\\040box rw - cgroup cgroup rw,freezer
"""


def test_inotify_records() -> None:
    """A buffer holds records of different lengths, names padded with zeros; bytes of a name are kept."""
    first = struct.pack("iIII", 3, _inotify.MODIFY, 0, 16) + b"cgroup.procs".ljust(16, b"\0")
    second = struct.pack("iIII", -1, _inotify.OVERFLOW, 0, 0)
    third = struct.pack("iIII", 4, _inotify.CREATE | _inotify.IS_DIRECTORY, 7, 16) + b"\xff".ljust(16, b"\0")
    assert list(_inotify.parse(first + second + third)) == [
        (3, _inotify.MODIFY, "cgroup.procs"),
        (-1, _inotify.OVERFLOW, ""),
        (4, _inotify.CREATE | _inotify.IS_DIRECTORY, os.fsdecode(b"\xff")),
    ]
    assert list(_inotify.parse(b"")) == []


def datagram(what: int, data: bytes = b"", *, answers: int = 0, index: int = 1) -> bytes:
    """A message of the process connector."""
    event = struct.pack("=IIQ", what, 0, 0) + data.ljust(24, b"\0")
    body = struct.pack("=IIIIHH", index, 1, 5, answers, len(event), 0) + event
    return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body


def test_messages_of_the_connector() -> None:
    """A process that starts is told from a thread that starts, and from everything else."""
    process = datagram(_proc_events._FORK, struct.pack("=IIII", 10, 10, 20, 20))
    thread = datagram(_proc_events._FORK, struct.pack("=IIII", 10, 10, 21, 20))
    exit_ = datagram(0x80000000, struct.pack("=IIII", 20, 20, 0, 0))
    other = datagram(_proc_events._FORK, struct.pack("=IIII", 1, 1, 2, 2), index=9)
    answer = datagram(0, answers=78)
    said = list(_proc_events.parse(process + thread + exit_ + other + answer))
    assert [event.started for event in said] == [20, None, None, None]
    assert said[-1] == (0, 78, None)
    assert list(_proc_events.parse(b"")) == list(_proc_events.parse(process[:40])) == []
    endless = struct.pack("=IHHII", 0, 0, 0, 0, 0) + process[16:]
    assert len(list(_proc_events.parse(endless))) <= 1


def test_requests_to_the_connector() -> None:
    """A request names the connector, our number, and perhaps the one kind of event that is wanted."""
    plain = _proc_events.request(1, 77)
    assert struct.unpack_from("=I", plain)[0] == len(plain) == 40
    assert struct.unpack_from("=IIIIHHI", plain, 16) == (1, 1, 0, 77, 4, 0, 1)
    assert struct.unpack_from("=HHII", _proc_events.request(1, 77, only=1), 32) == (8, 0, 1, 1)


class FakeSocket:
    """A netlink socket that answers what it was told to, then would block."""

    def __init__(self, *answers: bytes | OSError, sender: int = 0) -> None:
        self.answers = list(answers)
        self.sender = sender

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[int, int]]:
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer, (self.sender, 1)


def test_messages_that_were_lost() -> None:
    """When more processes start than are read in time, that is told, with those that were read."""
    start = datagram(_proc_events._FORK, struct.pack("=IIII", 10, 10, 20, 20))
    listening = FakeSocket(start, OSError(errno.ENOBUFS, "no room"), start)
    assert _proc_events.Connector(listening).read() == ([20, 20], True)  # type: ignore[arg-type]


def test_messages_of_somebody_else() -> None:
    """Only the kernel is believed."""
    start = datagram(_proc_events._FORK, struct.pack("=IIII", 10, 10, 20, 20))
    assert _proc_events.Connector(FakeSocket(start, sender=77)).read() == ([], False)  # type: ignore[arg-type]


def test_no_connector_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is refused, or a kernel that does not answer, means no connector, and no leak."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    gc.collect()
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        assert _proc_events.open_connector() is None
    monkeypatch.setattr(_proc_events, "_is_answered", lambda *_: False)
    assert _proc_events.open_connector() is None
    assert os.listdir("/proc/self/fd") == before


def test_the_connector_tells_starts() -> None:
    """A process that starts is told at once."""
    connector = _proc_events.open_connector()
    if connector is None:
        pytest.skip("the kernel does not tell us starts of processes")
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        found: list[int] = []
        while pid not in found:
            assert select.select([connector], [], [], 60)[0]
            found.extend(connector.read().pids)
    finally:
        connector.close()


def test_mounts_with_a_freezer() -> None:
    """Both hierarchies that have one, each group once; other controllers are none."""
    assert _cgroup.freezer_mounts(MOUNTS) == [
        ("cgroup2", "/", "/sys/fs/cgroup/unified"),
        ("cgroup", "/", "/sys/fs/cgroup/freezer"),
    ]


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/sys/fs/cgroup/unified/a/b", "/sys/fs/cgroup/unified/a/b"),
        ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/freezer"),
        ("/mnt/my box/kid", "/sys/fs/cgroup/freezer/box/kid"),
        ("/sys/fs/cgroup/memory/a", None),
        ("/home", None),
    ],
)
def test_the_directory_of_a_group(path: str, directory: str | None) -> None:
    """A group that can be reached in several ways has one name."""
    found = _cgroup.group_directory(path, MOUNTS)
    assert (None if found is None else str(found)) == directory


def test_members_of_a_group(tmp_path: Path) -> None:
    """Each process once; one of another pid namespace has no number here."""
    (tmp_path / "cgroup.procs").write_text("12\n7\n12\n0\n")
    assert _cgroup.members(str(tmp_path)) == [12, 7]
    assert _cgroup.members(str(tmp_path / "missing")) == []


# ---- Groups, over directories that only look like cgroups


def test_groups_of_version_2_tell_themselves(tmp_path: Path) -> None:
    """A change of `cgroup.events` touches its own group, one of `cgroup.procs` the members."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    groups = Groups([str(tmp_path)])
    try:
        (tmp_path / "a" / "cgroup.events").write_text("frozen 1")
        (tmp_path / "a" / "b" / "cgroup.procs").write_text("1")
        (tmp_path / "a" / "cpu.stat").write_text("")
        touched = groups.read()
        assert list(touched.freezers) == [str(tmp_path / "a")]
        assert list(touched.members) == [str(tmp_path / "a" / "b")]
        assert not groups.read().members
    finally:
        groups.close()


def test_groups_of_version_1_stand_for_all_below(tmp_path: Path) -> None:
    """A change of `freezer.state` touches the group and all below it, and no namesake beside it."""
    for name in ("a/b/c", "a/d", "ab"):
        (tmp_path / name).mkdir(parents=True)
    groups = Groups([str(tmp_path)])
    try:
        (tmp_path / "a" / "freezer.state").write_text("FREEZING")
        expected = {str(tmp_path / name) for name in ("a", "a/b", "a/b/c", "a/d")}
        assert set(groups.read().freezers) == expected
        assert groups.is_on_its_way(str(tmp_path / "a"))
        assert not groups.is_on_its_way(str(tmp_path / "ab"))
    finally:
        groups.close()


def test_groups_that_come_and_go(tmp_path: Path) -> None:
    """New groups are watched, also several levels made at once; removed and renamed ones are let go."""
    groups = Groups([str(tmp_path)])
    try:
        (tmp_path / "a" / "b").mkdir(parents=True)
        assert set(groups.read().members) >= {str(tmp_path / "a")}
        groups.read()
        assert set(groups.below(str(tmp_path))) == {str(tmp_path / name) for name in ("", "a", "a/b")}
        (tmp_path / "a").rename(tmp_path / "z")
        assert str(tmp_path / "z" / "b") in groups.read().members
        (tmp_path / "z" / "b" / "cgroup.procs").write_text("1")
        assert list(groups.read().members) == [str(tmp_path / "z" / "b")]
        (tmp_path / "z" / "b" / "cgroup.procs").unlink()
        (tmp_path / "z" / "b").rmdir()
        groups.read()
        assert set(groups.below(str(tmp_path))) == {str(tmp_path), str(tmp_path / "z")}
    finally:
        groups.close()


def test_a_loss_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an overflow everything may be different: that is told, and what is there is watched."""
    groups = Groups([str(tmp_path)])
    try:
        (tmp_path / "a").mkdir()
        with monkeypatch.context() as patch:
            overflow = _inotify.Change(-1, _inotify.OVERFLOW, "")
            patch.setattr(groups._inotify, "read", lambda: [overflow])
            assert groups.read().is_lost
        groups.read()
        (tmp_path / "a" / "cgroup.procs").write_text("1")
        assert list(groups.read().members) == [str(tmp_path / "a")]
    finally:
        groups.close()


def test_no_watch_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more watches, a note says so, and the rest works."""
    (tmp_path / "a").mkdir()
    real = _inotify.Inotify.add

    def add(self: _inotify.Inotify, directory: str, mask: int) -> int:
        if directory.endswith("/a"):
            raise OSError(errno.ENOSPC, "no inotify watch is left", directory)
        return real(self, directory, mask)

    monkeypatch.setattr(_inotify.Inotify, "add", add)
    groups = Groups([str(tmp_path)])
    groups.close()
    assert groups.note is not None and "no inotify watch is left" in groups.note
    assert groups.below(str(tmp_path)) == [str(tmp_path)]


def test_a_directory_that_cannot_be_watched(tmp_path: Path) -> None:
    """The errors of inotify are those of any file."""
    inotify = _inotify.Inotify()
    try:
        with pytest.raises(FileNotFoundError):
            inotify.add(str(tmp_path / "missing"), _inotify.CREATE)
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            inotify.add(str(tmp_path / "file"), _inotify.CREATE)
    finally:
        inotify.close()


@pytest.mark.parametrize(
    ("path", "group", "is_so"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
    ],
)
def test_within(path: str, group: str, is_so: bool) -> None:
    """A group is within another by whole names."""
    assert _groups.is_within(path, group) is is_so

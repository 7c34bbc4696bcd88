"""What /proc tells about a process in text: its mappings and its status line.

Parsing is apart from reading, so tests can feed it text. Kernel: Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ..memory import RegionFlag

What: TypeAlias = Literal["anon", "private", "all"]

_PROC = Path("/proc")
_PF_KTHREAD = 0x00200000
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_USER_LIMIT = 1 << 63  # [vsyscall] and the like lie above; no process owns them
_NEVER_READ = RegionFlag.IO | RegionFlag.PFNMAP  # reading a device may have side effects
_SPECIAL = {"[vsyscall]": _NEVER_READ, "[vdso]": RegionFlag.DONTEXPAND, "[sigpage]": RegionFlag.DONTEXPAND}
_PLAIN_DEVICES = ("/dev/zero", "/dev/shm/", "/dev/hugepages/")

# VmFlags of smaps -> why the mapping must not be merged
_EXCLUDED = {
    "sh": RegionFlag.SHARED,
    "ms": RegionFlag.SHARED,  # may be made shared
    "pf": RegionFlag.PFNMAP,
    "io": RegionFlag.IO,
    "de": RegionFlag.DONTEXPAND,
    "ht": RegionFlag.HUGETLB,
    "mm": RegionFlag.MIXEDMAP,
    "ar": RegionFlag.ARCH_SPECIAL,
    "dp": RegionFlag.DROPPABLE,
}


@dataclass(frozen=True)
class Mapping:
    """One mapping of an address space, in byte addresses.

    flags: why it must not be merged. anonymous: no file behind it. accessible: it may be read, written or
    executed (otherwise it only reserves addresses). occupied: something is in memory or swap, or unknown.
    """

    start: int
    stop: int
    flags: RegionFlag
    anonymous: bool
    accessible: bool
    occupied: bool = True


@dataclass(frozen=True)
class Status:
    """The line of /proc/PID/stat, as far as it is used.

    state: one letter. started: clock ticks after boot, tells a process from a later one of the same pid.
    faults: minor and major page faults of all threads. runtime_ms: CPU time of all threads.
    """

    name: str
    state: str
    is_kernel_thread: bool
    faults: int
    started: int
    runtime_ms: int = 0


def parse_status(line: str) -> Status:
    """Parse one line of /proc/PID/stat; the name may hold spaces and parentheses."""
    opening, closing = line.index("("), line.rindex(")")
    fields = line[closing + 2 :].split()  # the first one is field 3 of proc(5)
    return Status(
        name=line[opening + 1 : closing],
        state=fields[0],
        is_kernel_thread=bool(int(fields[6]) & _PF_KTHREAD),
        faults=int(fields[7]) + int(fields[9]),
        started=int(fields[19]),
        runtime_ms=(int(fields[11]) + int(fields[12])) * 1000 // _TICKS_PER_SECOND,
    )


def parse_smaps(text: str) -> list[Mapping]:
    """Mappings of /proc/PID/smaps, in address order and apart from each other."""
    return _apart(_from_smaps(header, values) for header, values in _blocks(text) if _in_user_space(header))


def parse_maps(text: str) -> list[Mapping]:
    """Mappings of /proc/PID/maps, likewise; what VmFlags would say is guessed from the names."""
    return _apart(_mapping(line, _guess_flags(line)) for line in text.splitlines() if _in_user_space(line))


def read_status(pid: int) -> Status:
    """Status of `pid`; raises FileNotFoundError or ProcessLookupError when it is gone."""
    return parse_status((_PROC / str(pid) / "stat").read_text(errors="replace"))


def thread_states(pid: int) -> list[str]:
    """The state letter of every thread of `pid` that still exists."""
    states = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                states.append(parse_status((task / "stat").read_text(errors="replace")).state)
    return states


def thread_group(pid: int) -> int:
    """The process that `pid` belongs to: itself, unless it is a thread of another one."""
    for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return pid  # untested: every kernel says it


def has_user_memory(pid: int) -> bool:
    """Has `pid` an address space? Kernel threads, zombies and processes that are gone have none."""
    return _statm(pid, 0) > 0


def resident_pages(pid: int) -> int:
    """Pages of `pid` that are in memory, shared ones included; 0 if it is gone."""
    return _statm(pid, 1)


def _statm(pid: int, field: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[field])
    except (OSError, IndexError, ValueError):
        return 0


def read_mappings(pid: int) -> tuple[list[Mapping], bool]:
    """All mappings of `pid`, and whether their VmFlags are known (smaps) or guessed (maps only)."""
    directory = _PROC / str(pid)
    try:
        return parse_smaps((directory / "smaps").read_text(errors="replace")), True
    except (PermissionError, FileNotFoundError):
        return parse_maps((directory / "maps").read_text(errors="replace")), False


def is_wanted(mapping: Mapping, what: What) -> bool:
    """Does a snapshot of `what` look into this mapping at all?"""
    if mapping.flags & _NEVER_READ:
        return False
    if what == "anon":
        return mapping.flags == RegionFlag.NONE
    return what == "all" or not mapping.flags & RegionFlag.SHARED


def _apart(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Cut off what an earlier mapping holds: one that grows while the file is read is listed twice."""
    result: list[Mapping] = []
    end = 0
    for mapping in mappings:
        if mapping.stop > end:
            result.append(replace(mapping, start=max(mapping.start, end)))
            end = mapping.stop
    return result


def _blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    header, values = "", dict[str, str]()
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key[0].isupper():
            values[key] = value
            continue
        if header:
            yield header, values
        header, values = line, {}
    if header:  # untested: a process without mappings
        yield header, values


def _from_smaps(header: str, values: dict[str, str]) -> Mapping:
    if "VmFlags" not in values:  # kernels before 3.8
        return _mapping(header, _guess_flags(header))  # untested: kernels before 3.8
    flags = RegionFlag.NONE
    for mnemonic in values["VmFlags"].split():
        flags |= _EXCLUDED.get(mnemonic, RegionFlag.NONE)
    sizes = [
        values[key].split()[0]
        for key in ("Rss", "Swap", "Private_Hugetlb", "Shared_Hugetlb")
        if key in values
    ]
    return _mapping(header, flags, occupied=any(size != "0" for size in sizes) if sizes else True)


def _mapping(header: str, flags: RegionFlag, *, occupied: bool = True) -> Mapping:
    fields = header.split(maxsplit=5)
    start, _, stop = fields[0].partition("-")
    return Mapping(
        start=int(start, 16),
        stop=int(stop, 16),
        flags=flags,
        anonymous=fields[4] == "0",
        accessible=fields[1][:3] != "---",
        occupied=occupied,
    )


def _in_user_space(header: str) -> bool:
    return int(header.partition("-")[0], 16) < _USER_LIMIT


def _guess_flags(header: str) -> RegionFlag:
    fields = header.split(maxsplit=5)
    name = fields[5].strip() if len(fields) > 5 else ""
    flags = RegionFlag.SHARED if fields[1][3] == "s" else RegionFlag.NONE
    if name.startswith("[vvar"):
        return flags | _NEVER_READ
    if name.startswith(("/anon_hugepage", "/dev/hugepages/")):
        return flags | RegionFlag.HUGETLB
    if name.startswith("/dev/") and not name.startswith(_PLAIN_DEVICES):
        return flags | _NEVER_READ
    return flags | _SPECIAL.get(name, RegionFlag.NONE)

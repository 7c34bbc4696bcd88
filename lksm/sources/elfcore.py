"""ELF cores: memory dumped segment by segment, by gcore, the kernel's core dumper, QEMU and others.

Three states of memory have to be told apart. *Present*: its bytes are in the file. *Absent*: the segment
is larger in memory than in the file (filesz < memsz), or the file was cut off; such memory was not dumped,
so it is left out and reported, and never taken for zeros. *Zero*: present, and all bytes are zero; this
includes holes of a sparse file, with which gdb and the kernel save zero pages.

From segments to regions, each step on a list in address order:

    segments -> extents (bytes in the file) -> without overlaps -> runs (joined) -> whole pages -> regions

A dump of a machine (QEMU's dump-guest-memory, /proc/vmcore) is addressed by physical addresses, since its
virtual ones are zero or name the same page several times. It also holds video memory and firmware. Nothing
in its headers tells these from RAM, so every segment is used, and a note says how much may not be RAM.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import SourceError
from ..memory import Region
from ._elf_headers import CoreHeaders, Segment, read_headers
from ._file import Bytes, MappedFile, expect_page_size, open_file
from ._types import Skipped, Snapshot, SourceProcess

_ADDRESS_LIMIT = 1 << 64
_MOST_VIEWS = 16  # of a byte of the file, on average: machine dumps show some pages at two or three addresses
_PC_DEVICES = (0xE000_0000, 1 << 32)  # where a PC has devices and firmware, and RAM only by special request
_PC = frozenset({"EM_386", "EM_X86_64"})
_MACHINE_DUMPS = frozenset({"QEMU", "VMCOREINFO"})  # who writes notes only into dumps of whole machines


class _Extent(NamedTuple):
    """Bytes of memory that are in the file."""

    address: int
    offset: int
    nbytes: int


class _Lost(NamedTuple):
    """Bytes of memory that cannot be used, and why."""

    address: int
    nbytes: int
    reason: str


def load(path: str | os.PathLike[str], *, page_size: int = 4096) -> Snapshot:
    """Map an ELF core of either class and byte order as one process.

    Regions are views of one read-only mapping, at whatever byte offset the dump put them; segments that
    follow each other in the file and in memory are one region. For every segment, the bytes in regions
    and the bytes in `skipped` add up to its size. Raises `SourceError` for a file that is not an ELF
    core, for headers that contradict themselves, and if not one whole page is there.
    """
    source = os.fspath(path)
    with open_file(source) as file:
        expect_page_size(page_size)
        mapped = MappedFile(file, source)
        data = mapped.bytes
        headers = read_headers(file, data)
        physical = _is_physical(headers)
        lost: list[_Lost] = []
        extents = _extents(headers.segments, physical, len(data), lost)
        _expect_honest(extents, len(data))
        runs = _whole_pages(_joined(_without_overlaps(extents, lost)), page_size, lost)
        if not runs:
            raise SourceError(_nothing_there(headers, lost))
    program = headers.program
    process = SourceProcess(
        source=source,
        name=(program.name if program else "") or os.path.basename(source),
        pid=program.pid if program else None,
        regions=tuple(_region(data, run, page_size) for run in runs),
        notes=_notes(headers, physical, runs),
        file=mapped,
    )
    return Snapshot(processes=(process,), skipped=tuple(_skipped(source, item) for item in sorted(lost)))


def _is_physical(headers: CoreHeaders) -> bool:
    """Whether segments are to be addressed by p_paddr.

    So it is in dumps of machines, unless the writer left p_paddr at -1. A dump without a note that says so
    is one if no segment has a virtual address and some have a physical one.
    """
    segments = headers.segments
    if any(segment.physical + segment.memory_bytes > _ADDRESS_LIMIT for segment in segments):
        return False
    if not any(segment.physical for segment in segments):
        return False
    return bool(headers.note_owners & _MACHINE_DUMPS) or not any(segment.virtual for segment in segments)


def _extents(segments: Iterable[Segment], physical: bool, file_size: int, lost: list[_Lost]) -> list[_Extent]:
    """What of each segment is in the file, by address; what is not is added to `lost`."""
    extents = []
    for segment in segments:
        address = segment.physical if physical else segment.virtual
        nbytes = max(segment.memory_bytes, segment.file_bytes)
        if address + nbytes > _ADDRESS_LIMIT:
            raise SourceError(f"has a segment at {address:#x} of {nbytes} bytes, outside 64 bits")
        dumped = min(segment.file_bytes, segment.memory_bytes)
        present = max(0, min(dumped, file_size - segment.offset))
        if present:
            extents.append(_Extent(address, segment.offset, present))
        if present < dumped:
            lost.append(_Lost(address, dumped - present, "beyond the end of the file, the dump is truncated"))
        if dumped < segment.memory_bytes:
            lost.append(_Lost(address, segment.memory_bytes - dumped, "not dumped"))
        if dumped < segment.file_bytes:
            lost.append(_Lost(address, segment.file_bytes - dumped, "in the file but not in memory"))
    return sorted(extents)


def _expect_honest(extents: Iterable[_Extent], file_size: int) -> None:
    """Megabytes of a file must not stand for terabytes of memory, each page of which takes bookkeeping."""
    nbytes = sum(extent.nbytes for extent in extents)
    if nbytes > _MOST_VIEWS * file_size:
        raise SourceError(
            f"has segments of {nbytes} bytes in a file of {file_size}, all views of the same bytes"
        )


def _without_overlaps(extents: Iterable[_Extent], lost: list[_Lost]) -> list[_Extent]:
    """Cut off what an extent shares with those before it: an address has one content."""
    disjoint = []
    free = 0  # the first address behind all extents so far
    for extent in extents:
        shared = min(max(0, free - extent.address), extent.nbytes)
        if shared:
            lost.append(_Lost(extent.address, shared, "overlaps the segment before it"))
        if shared < extent.nbytes:
            rest = _Extent(extent.address + shared, extent.offset + shared, extent.nbytes - shared)
            disjoint.append(rest)
            free = rest.address + rest.nbytes
    return disjoint


def _joined(extents: Iterable[_Extent]) -> list[_Extent]:
    """Join neighbours that follow each other both in memory and in the file."""
    runs: list[_Extent] = []
    for extent in extents:
        if runs:
            address, offset, nbytes = runs[-1]
            if (address + nbytes, offset + nbytes) == (extent.address, extent.offset):
                runs[-1] = _Extent(address, offset, nbytes + extent.nbytes)
                continue
        runs.append(extent)
    return runs


def _whole_pages(runs: Iterable[_Extent], page_size: int, lost: list[_Lost]) -> list[_Extent]:
    """Trim runs to page boundaries in memory; the parts of pages are added to `lost`."""
    trimmed = []
    for run in runs:
        stop = run.address + run.nbytes
        head = min(-run.address % page_size, run.nbytes)
        rest = (run.nbytes - head) % page_size
        for address, nbytes in ((run.address, head), (stop - rest, rest)):
            if nbytes:
                lost.append(_Lost(address, nbytes, f"part of a page of {page_size} bytes"))
        if head + rest < run.nbytes:
            trimmed.append(_Extent(run.address + head, run.offset + head, run.nbytes - head - rest))
    return trimmed


def _region(data: Bytes, run: _Extent, page_size: int) -> Region:
    return Region(run.address, data[run.offset : run.offset + run.nbytes].reshape(-1, page_size))


def _skipped(source: str, lost: _Lost) -> Skipped:
    return Skipped(source, f"segment {lost.address:#x}", lost.nbytes, lost.reason)


def _nothing_there(headers: CoreHeaders, lost: list[_Lost]) -> str:
    nr_segments, nbytes = len(headers.segments), sum(item.nbytes for item in lost)
    return f"has no whole page: {nr_segments} segments of {nbytes} bytes were not dumped, cut off or no pages"


def _notes(headers: CoreHeaders, physical: bool, runs: Iterable[_Extent]) -> tuple[str, ...]:
    notes = []
    if physical:
        notes.append("addresses are physical; video memory and firmware are not told from RAM")
    if physical and headers.machine in _PC:
        start, stop = _PC_DEVICES
        inside = (min(run.address + run.nbytes, stop) - max(run.address, start) for run in runs)
        nr_device_bytes = sum(nbytes for nbytes in inside if nbytes > 0)
        if nr_device_bytes:
            notes.append(f"{nr_device_bytes} bytes from {start:#x} to 4 GiB are most likely not RAM")
    if headers.nr_segments_guessed:
        notes.append("the section header with the number of segments is cut off, they were counted otherwise")
    return tuple(notes)

"""Raw images: files that are nothing but the bytes of memory, one page after the other.

Made by QEMU's pmemsave and memory-backend-file, VMware (.vmem), Firecracker, dd of /proc/PID/mem, CRIU
(pages-N.img). An address is the offset in the file, which need not be the address in the guest.
"""

from __future__ import annotations

import os

from ..errors import SourceError
from ..memory import Region
from ._file import Bytes, MappedFile, data_extents, expect_page_size, open_file
from ._types import Skipped, Snapshot, SourceProcess


def load(path: str | os.PathLike[str], *, page_size: int = 4096) -> Snapshot:
    """Map a raw image; one region per run of pages that has data, holes are never read.

    A hole in a sparse file was never written, so it is left out and reported, and so is a tail that is
    not a whole page. Raises `SourceError` if no whole page remains.
    """
    source = os.fspath(path)
    with open_file(source) as file:
        expect_page_size(page_size)
        mapped = MappedFile(file, source)
        data = mapped.bytes
        extents = data_extents(file)
        runs = whole_page_runs(extents, len(data), page_size)
        if not runs:
            raise SourceError(_nothing_there(extents, len(data), page_size))
    process = SourceProcess(
        source=source,
        name=os.path.basename(source),
        pid=None,
        regions=tuple(_region(data, start, stop, page_size) for start, stop in runs),
        notes=("addresses are file offsets",),
        file=mapped,
    )
    return Snapshot(processes=(process,), skipped=_left_out(source, runs, len(data), page_size))


def whole_page_runs(extents: list[tuple[int, int]], size: int, page_size: int) -> list[tuple[int, int]]:
    """Widen data extents to page boundaries and join those that then touch; the tail is cut off.

    Offsets in bytes, in order. A page with one byte of data is a page with data.
    """
    whole = size - size % page_size
    runs: list[tuple[int, int]] = []
    for start, stop in extents:
        start -= start % page_size
        stop = min(stop + -stop % page_size, whole)
        if start >= stop:
            continue
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return runs


def tail(source: str, size: int, page_size: int) -> tuple[Skipped, ...]:
    """The report of the bytes after the last whole page; empty if there are none."""
    nbytes = size % page_size
    if not nbytes:
        return ()
    return (Skipped(source, "tail", nbytes, f"less than one page of {page_size} bytes"),)


def _region(data: Bytes, start: int, stop: int, page_size: int) -> Region:
    return Region(start, data[start:stop].reshape(-1, page_size))


def _left_out(source: str, runs: list[tuple[int, int]], size: int, page_size: int) -> tuple[Skipped, ...]:
    whole = size - size % page_size
    nr_hole_bytes = whole - sum(stop - start for start, stop in runs)
    after = [start for start, _ in runs] + [whole]
    before = [0] + [stop for _, stop in runs]
    nr_holes = sum(stop < start for stop, start in zip(before, after, strict=True))
    holes: tuple[Skipped, ...] = ()
    if nr_holes:
        holes = (Skipped(source, "hole", nr_hole_bytes, f"never written, {nr_holes} in all"),)
    return holes + tail(source, size, page_size)


def _nothing_there(extents: list[tuple[int, int]], size: int, page_size: int) -> str:
    if size < page_size:
        return f"has {size} bytes, less than one page of {page_size} bytes"
    if extents:  # all of it behind the last whole page
        nbytes = size % page_size
        hole = f"a hole of {size - nbytes} bytes"
        return f"is {hole} and a tail of {nbytes} bytes, less than one page of {page_size} bytes"
    return f"is a hole of {size} bytes, nothing was ever written to it"

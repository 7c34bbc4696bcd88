"""Memory to work on, and what merging it gives.

All pages of a workload lie in one array, whoever reads them: resident, and in huge pages where the kernel has
them (numpy asks for them when an array is large). The page sets are those of `lksm.sources.synthetic`;
`dumps` is real memory, the pages of gcore dumps of Python processes, copied into such an array.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from dumps import count_segments, make_dumps
from lksm.sources import load, synthetic

PAGE = 4096
NAMES = (*synthetic.names(), "dumps")
MOST_SHARING = 256  # pages that one frame may stand for: the default of lksm and of the kernel
_RESERVE = 1 << 29  # bytes that stay free
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Pages = npt.NDArray[np.uint8]
Counts = tuple[int, int, int]


class NoRoom(Exception):
    """It would not fit in memory; the text says what needs how much."""


@dataclass(frozen=True)
class Workload:
    """pages: uint8 (n, 4096). processes: slices of it, one for each. contents, frames: shared, sharing,
    unshared, as far as equal bytes go, and with at most 256 pages a frame."""

    name: str
    pages: Pages
    processes: Sequence[Pages]
    contents: Counts
    frames: Counts


def make(name: str, nr_pages: int) -> Workload:
    """A page set of that many pages; the same in every run. NoRoom says so before anything swaps."""
    check_room(nr_pages * PAGE, f"{name} at {size_text(nr_pages)}")
    pages = synthetic.make(name, nr_pages)
    contents = synthetic.expected(name, nr_pages)
    frames = under_limit({nr_pages: 1}) if name == "zero" else contents  # no other set has so many copies
    return Workload(name, pages, [pages], contents, frames)


@contextmanager
def real(nr_pages: int) -> Iterator[Workload]:
    """At least that many pages of dumps made on the spot, a process each, counted by brute force."""
    check_room(
        3 * nr_pages * PAGE, f"dumps of {size_text(nr_pages)}, for them, their pages and the brute force"
    )
    with tempfile.TemporaryDirectory() as directory:
        dumps = make_dumps(Path(directory), nr_pages * PAGE / 2**30)
        pages, ends = _copied(dumps)
        copies = Counter(count_segments(dumps).values())
    contents = under_limit(copies, len(pages) + 1)
    yield Workload("dumps", pages, np.split(pages, ends[:-1]), contents, under_limit(copies))


def under_limit(copies: Mapping[int, int], limit: int = MOST_SHARING) -> Counts:
    """What merging gives: shared, sharing, unshared. copies: how many contents have so many pages.

    Frames are filled one after the other; a page that would be alone in the last one stays as it is.
    """
    shared = sharing = unshared = 0
    for nr_pages, nr_contents in copies.items():
        full, rest = divmod(nr_pages, limit)
        nr_frames = full + (rest > 1)
        shared += nr_frames * nr_contents
        unshared += (rest == 1) * nr_contents
        sharing += (nr_pages - nr_frames - (rest == 1)) * nr_contents
    return shared, sharing, unshared


def check_room(nr_bytes: float, what: str) -> None:
    """NoRoom unless so many bytes are available, and half a GiB besides."""
    available = psutil.virtual_memory().available - _RESERVE
    if nr_bytes > available:
        raise NoRoom(f"{what} needs {nr_bytes / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available")


def pages_in(size: str) -> int:
    """`256M` or `16G` as a number of pages."""
    return int(float(size[:-1]) * _SIZES[size[-1].upper()]) // PAGE


def size_text(nr_pages: int) -> str:
    nr_mib = nr_pages * PAGE / 2**20
    return f"{nr_mib / 1024:g} GiB" if nr_mib >= 1024 else f"{nr_mib:g} MiB"


def _copied(dumps: Sequence[Path]) -> tuple[Pages, list[int]]:
    """All pages of all dumps, and where each dump ends."""
    snapshots = [process for dump in dumps for process in load(dump).processes]
    parts = []
    ends = []
    nr_pages = 0
    for process in snapshots:
        for region in process.regions:
            array = region.array.reshape(-1, PAGE)
            parts.append(array if region.rows is None else array[region.rows[region.rows >= 0]])
            nr_pages += len(parts[-1])
        ends.append(nr_pages)
    pages = np.empty((nr_pages, PAGE), np.uint8)
    np.concatenate(parts, out=pages)
    return pages, ends

"""Arrays in, validated once: what callers hand over and what the core is given.

`Region` is the public description of a run of pages. `as_regions` turns every accepted form of memory
into regions, and `PageRun` is a region that has been checked: from there on no layer looks again.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .errors import InvalidMemory

Role = Literal["data", "bss"]
_ADDRESS_LIMIT = 1 << 64


class RegionFlag(enum.IntFlag):
    """Why a region must never be merged (spec 7.2). A region with any of these is excluded."""

    NONE = 0
    SHARED = 1
    PFNMAP = 2
    IO = 4
    DONTEXPAND = 8
    HUGETLB = 16
    MIXEDMAP = 32
    DAX = 64
    ARCH_SPECIAL = 128
    DROPPABLE = 256


@dataclass(frozen=True, eq=False)
class Region:
    """A run of pages of one process, backed by one array.

    address
        Virtual address of the first page, in bytes; a multiple of the page size.
    array
        C-contiguous, any plain numeric dtype; its bytes are whole pages, at any byte alignment.
    rows
        Optional int64 (n,): page i of the region is page `rows[i]` of `array`, -1 is absent. Pages that
        are physically one are stored once and named by several rows.
    node
        Memory node of the pages.
    flags
        `RegionFlag` bits; any of them keeps the region from being merged.
    key
        For engines with `filter=True`: any hashable, equal for regions that are one thing in several
        processes, (device, inode) of a library say. Page i of each is taken for the same page. None: the
        region is never filtered.
    role
        "data" or "bss": a file's data, or the zeroed memory behind it. One key has a filter for each.
    """

    address: int
    array: npt.NDArray[Any]
    rows: npt.NDArray[np.int64] | None = None
    node: int = 0
    flags: RegionFlag = RegionFlag.NONE
    key: Hashable | None = None
    role: Role = "data"


Memory: TypeAlias = "npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | Sequence[Region] | Region"


@dataclass(frozen=True, eq=False)
class PageRun:
    """A region that has been checked: `pages` is uint8 (k, page_size), `rows` int64 (n,) or None."""

    address: int
    pages: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64] | None
    node: int
    flags: RegionFlag
    key: Hashable | None
    role: Role

    @property
    def nr_pages(self) -> int:
        return len(self.pages) if self.rows is None else len(self.rows)


def as_page_runs(
    memory: Memory, *, page_size: int, address: int = 0, node: int = 0, nr_nodes: int = 1
) -> list[PageRun]:
    """Check memory of any accepted form and return its runs in address order, or raise `InvalidMemory`.

    A bare array starts at `address`; the arrays of a list follow each other from there.
    """
    if isinstance(memory, Region):
        memory = [memory]
    if isinstance(memory, np.ndarray):
        memory = [memory]
    if isinstance(memory, (str, bytes, bytearray, memoryview)) or not isinstance(memory, Sequence):
        raise InvalidMemory(
            f"memory is a {type(memory).__name__}, expected a numpy array, a list of them, or Regions"
        )
    if not memory:
        raise InvalidMemory("memory is an empty list, expected at least one page")
    runs: list[PageRun] = []
    for index, item in enumerate(memory):
        region = item if isinstance(item, Region) else Region(address, item, node=node)  # type: ignore[arg-type]
        run = _page_run(region, page_size, nr_nodes, f"region {index}" if len(memory) > 1 else "memory")
        address = run.address + run.nr_pages * page_size
        runs.append(run)
    runs.sort(key=lambda run: run.address)
    for before, after in itertools.pairwise(runs):
        if before.address + before.nr_pages * page_size > after.address:
            raise InvalidMemory(f"regions at {before.address:#x} and {after.address:#x} overlap")
    return runs


def _page_run(region: Region, page_size: int, nr_nodes: int, what: str) -> PageRun:
    pages = _as_pages(region.array, page_size, what)
    rows = None
    if region.rows is not None:
        rows = np.array(_integers(region.rows, f"{what}: rows"), dtype=np.int64, order="C")
        if rows.ndim != 1 or rows.size == 0:
            raise InvalidMemory(f"{what}: rows has shape {rows.shape}, expected one page or more in one row")
        lowest, highest = int(rows.min()), int(rows.max())
        if lowest < -1 or highest >= len(pages):
            raise InvalidMemory(
                f"{what}: rows reach from {lowest} to {highest}, the array has {len(pages)} pages"
            )
        rows.setflags(write=False)
    address = _integer(region.address, f"{what}: address")
    nr_pages = len(pages) if rows is None else len(rows)
    if address < 0 or address + nr_pages * page_size > _ADDRESS_LIMIT:
        raise InvalidMemory(f"{what}: address {address:#x} with {nr_pages} pages is outside 64 bits")
    if address % page_size:
        raise InvalidMemory(f"{what}: address {address:#x} is not a multiple of the page size {page_size}")
    node = _integer(region.node, f"{what}: node")
    check_node(node, nr_nodes, f"{what}: ")
    if region.role not in get_args(Role):
        raise InvalidMemory(f"{what}: role is {region.role!r}, expected 'data' or 'bss'")
    try:
        hash(region.key)
    except TypeError:
        raise InvalidMemory(
            f"{what}: key is a {type(region.key).__name__}, expected something hashable"
        ) from None
    return PageRun(address, pages, rows, node, RegionFlag(region.flags), region.key, region.role)


def check_domain(domain: int) -> None:
    """ValueError if that cannot be a domain."""
    if isinstance(domain, bool) or not isinstance(domain, (int, np.integer)) or not 0 <= domain < 2**32:
        raise ValueError(f"domain is {domain!r}, expected 0 to {2**32 - 1}")


def check_node(node: int, nr_nodes: int, what: str = "") -> None:
    """InvalidMemory if the engine has no such memory node."""
    if isinstance(node, bool) or not isinstance(node, (int, np.integer)) or not 0 <= node < nr_nodes:
        raise InvalidMemory(f"{what}node {node!r}, the engine has {nr_nodes}")


def _as_pages(array: object, page_size: int, what: str) -> npt.NDArray[np.uint8]:
    if not isinstance(array, np.ndarray):
        raise InvalidMemory(f"{what} is a {type(array).__name__}, expected a numpy array")
    if array.dtype.kind not in "buifc":
        raise InvalidMemory(f"{what} has dtype {array.dtype}, expected plain numbers")
    if array.size == 0:
        raise InvalidMemory(f"{what} is empty, expected at least one page")
    if not array.flags.c_contiguous:
        raise InvalidMemory(f"{what} with shape {array.shape} is not C-contiguous")
    if array.nbytes % page_size:
        raise InvalidMemory(f"{what} has {array.nbytes} bytes, not a whole number of {page_size}-byte pages")
    plain = array.view(np.ndarray)  # a subclass (memmap) keeps its base alive and nothing else
    flat: npt.NDArray[np.uint8] = plain.reshape(-1).view(np.uint8)
    return flat.reshape(-1, page_size)


def _integers(value: object, what: str) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise InvalidMemory(f"{what} has dtype {array.dtype}, expected integers")
    return array


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidMemory(f"{what} is {value!r}, expected an integer")
    return int(value)

"""What live sources make of /proc texts, pagemap entries and frame numbers, without any process."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lksm.errors import OutOfMemory
from lksm.memory import RegionFlag
from lksm.sources import _cgroup, _pagemap, _procfs, _store, _take
from lksm.sources._procfs import Mapping, What

_SMAPS = """\
00400000-00402000 r-xp 00000000 fe:00 260131                     /usr/bin/my prog: a (deleted)
Size:                  8 kB
Rss:                   8 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                   0 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac
7f0000200000-7f0000201000 ---p 00000000 00:00 0                  [anon:reserve]
Rss:                   0 kB
Swap:                  4 kB
VmFlags: mr mw me
7f0000300000-7f0000301000 rw-s 00000000 00:01 17                 /dev/zero (deleted)
Rss:                   4 kB
VmFlags: rd wr sh mr mw me ms
7f0000400000-7f0000404000 r--p 00000000 00:00 0                  [vvar]
Rss:                   0 kB
VmFlags: rd mr pf io de dd sd
7f0000500000-7f0000501000 rw-p 00000000 00:00 0
Rss:                   4 kB
VmFlags: rd wr mr mw me ht mm ar dp
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]
Size:                  4 kB
VmFlags: ex
"""


def test_smaps_tell_range_exclusions_and_use() -> None:
    """Every mapping of user space comes with its range, its exclusions, and whether anything is in it."""
    everything = RegionFlag.HUGETLB | RegionFlag.MIXEDMAP | RegionFlag.ARCH_SPECIAL | RegionFlag.DROPPABLE
    device = RegionFlag.PFNMAP | RegionFlag.IO | RegionFlag.DONTEXPAND
    assert _procfs.parse_smaps(_SMAPS) == [
        Mapping(0x400000, 0x402000, RegionFlag.NONE, anonymous=False, accessible=True, occupied=True),
        Mapping(0x7F0000000000, 0x7F0000100000, RegionFlag.NONE, True, True, occupied=False),
        Mapping(0x7F0000200000, 0x7F0000201000, RegionFlag.NONE, True, accessible=False, occupied=True),
        Mapping(0x7F0000300000, 0x7F0000301000, RegionFlag.SHARED, False, True, occupied=True),
        Mapping(0x7F0000400000, 0x7F0000404000, device, True, True, occupied=False),
        Mapping(0x7F0000500000, 0x7F0000501000, everything, True, True, occupied=True),
    ]


def test_maps_tell_exclusions_by_name() -> None:
    """Without VmFlags, devices, vvar, vdso, huge pages and shared mappings are known by their names."""
    text = "\n".join(
        f"{0x10000 * i:x}-{0x10000 * i + 0x1000:x} {rest}"
        for i, rest in enumerate(
            [
                "rw-p 00000000 00:00 0 ",
                "rw-s 00000000 00:05 9 /dev/shm/x",
                "rw-s 00000000 00:05 9 /dev/dri/card0",
                "rw-p 00000000 00:05 9 /dev/zero",
                "r--p 00000000 00:00 0 [vvar_vclock]",
                "r-xp 00000000 00:00 0 [vdso]",
                "rw-p 00000000 00:0f 9 /anon_hugepage (deleted)",
            ],
            start=1,
        )
    )
    device = RegionFlag.PFNMAP | RegionFlag.IO
    assert [mapping.flags for mapping in _procfs.parse_maps(text)] == [
        RegionFlag.NONE,
        RegionFlag.SHARED,
        RegionFlag.SHARED | device,
        RegionFlag.NONE,
        device,
        RegionFlag.DONTEXPAND,
        RegionFlag.HUGETLB,
    ]


def test_a_mapping_that_grew_while_it_was_listed_is_not_seen_twice() -> None:
    """Of mappings that overlap, because the file was read in pieces, only what is new counts."""
    ranges = ["1000-5000", "1000-9000", "3000-4000", "9000-a000"]
    text = "\n".join(f"{edges} rw-p 00000000 00:00 0 " for edges in ranges)
    found = [(mapping.start, mapping.stop) for mapping in _procfs.parse_maps(text)]
    assert found == [(0x1000, 0x5000), (0x5000, 0x9000), (0x9000, 0xA000)]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (RegionFlag.NONE, "anon private all"),
        (RegionFlag.SHARED, "all"),
        (RegionFlag.DONTEXPAND, "private all"),
        (RegionFlag.HUGETLB, "private all"),
        (RegionFlag.MIXEDMAP | RegionFlag.SHARED, "all"),
        (RegionFlag.IO, ""),
        (RegionFlag.PFNMAP | RegionFlag.SHARED, ""),
    ],
)
def test_what_chooses_by_exclusions(flags: RegionFlag, wanted: str) -> None:
    """KSM's exclusions keep a mapping out of "anon", sharing out of "private", devices out of all."""
    mapping = Mapping(0, 4096, flags, anonymous=True, accessible=True)
    chosen = [what for what in get_args(What) if _procfs.is_wanted(mapping, what)]
    assert chosen == wanted.split()


def test_a_status_line_may_hold_any_name() -> None:
    """Blanks and parentheses in the name do not shift the fields."""
    line = "12 (a) S (b)) T 1 12 12 0 -1 4194560 100 200 3 4 5 6 7 8 20 0 1 0 987 1000 50\n"
    status = _procfs.parse_status(line)
    ms = 11_000 // os.sysconf("SC_CLK_TCK")
    assert status == _procfs.Status(
        "a) S (b)", "T", is_kernel_thread=False, faults=103, started=987, runtime_ms=ms
    )
    assert _procfs.parse_status(line.replace("4194560", "2129984")).is_kernel_thread


_MOUNTS = """\
30 24 0:26 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 24 0:28 /box /sys/fs/cgroup/my\\040unified rw shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""


def test_freezer_files_of_both_versions() -> None:
    """The group's files are found through the mounts, whatever their root and place."""
    membership = "7:cpu:/x\n6:freezer:/a/b\n0::/box/c:d\n"
    assert list(_cgroup.freezer_files(membership, _MOUNTS)) == [
        Path("/sys/fs/cgroup/freezer/a/b/freezer.state"),
        Path("/sys/fs/cgroup/my unified/c:d/cgroup.events"),
    ]
    assert list(_cgroup.freezer_files("0::/elsewhere\n", _MOUNTS)) == []


@pytest.mark.parametrize(
    ("text", "frozen"),
    [
        ("FROZEN\n", True),
        ("FREEZING\n", False),
        ("THAWED\n", False),
        ("populated 1\nfrozen 1\n", True),
        ("populated 1\nfrozen 0\n", False),
        (None, False),
    ],
)
def test_only_a_frozen_group_is_frozen(text: str | None, frozen: bool, tmp_path: Path) -> None:
    """Freezing is not yet frozen, and a group without the file is not."""
    (tmp_path / "12").mkdir()
    (tmp_path / "self").mkdir()
    (tmp_path / "12" / "cgroup").write_text("0::/\n")
    mount = str(tmp_path).replace(" ", "\\040")
    (tmp_path / "self" / "mountinfo").write_text(f"32 24 0:28 / {mount} rw - cgroup2 cgroup2 rw\n")
    if text is not None:
        (tmp_path / "cgroup.events").write_text(text)
    assert _cgroup.is_frozen(12, proc=tmp_path) is frozen


_PRESENT, _SWAPPED, _FILE, _GUARD, _EXCLUSIVE = 1 << 63, 1 << 62, 1 << 61, 1 << 58, 1 << 56


def test_entries_become_ranges_like_those_of_a_scan() -> None:
    """Swapped, guard, file and present pages are told apart; pages that are neither are left out."""
    entries = [_PRESENT | 7, _PRESENT | _EXCLUSIVE | 9, 0, _SWAPPED | 5, _SWAPPED | _GUARD, _PRESENT | _FILE]
    ranges = _pagemap.categorize(np.array(entries, np.uint64), 100)
    present, swapped = _pagemap.IS_PRESENT, _pagemap.IS_SWAPPED
    assert ranges.tolist() == [
        [100, 102, present],
        [103, 104, swapped],
        [104, 105, swapped | _pagemap.IS_GUARD],
        [105, 106, present | _pagemap.IS_FILE],
    ]
    assert _pagemap.categorize(np.zeros(0, np.uint64), 5).tolist() == []


class _FakePagemap:
    """A pagemap with one mapping of given entries, as an old kernel shows it."""

    scans = False

    def __init__(self, entries: list[int]) -> None:
        self._entries = np.array(entries, np.uint64)

    def ranges(self, start: int, stop: int) -> np.ndarray:
        return _pagemap.categorize(self._entries[: stop - start], start)


def test_swapped_pages_are_counted_and_never_chosen() -> None:
    """In a mapping with one page of each kind, anon chooses the present one and counts the others."""
    entries = [_PRESENT | 77, _SWAPPED | 3, _SWAPPED | _GUARD, 0, _SWAPPED | 4]
    mapping = Mapping(0, 5 * _pagemap.PAGE_SIZE, RegionFlag.NONE, anonymous=True, accessible=True)
    left_out = Counter[str]()
    pages = _take._select(_FakePagemap(entries), mapping, "anon", left_out)  # type: ignore[arg-type]
    assert pages.tolist() == [0]
    assert left_out["swapped"] == 2
    assert left_out["untouched"] == 1


def test_file_pages_of_a_mapping_without_a_file_are_the_huge_page_of_zeros() -> None:
    """That is how pagemap entries, and scans of some kernels, show it; with a file they are the file's."""
    entries = [_PRESENT | 77, _PRESENT | _FILE | 512, _PRESENT | _FILE | 513]
    for anonymous, zero in ((True, 2), (False, 0)):
        left_out = Counter[str]()
        mapping = Mapping(0, 3 * _pagemap.PAGE_SIZE, RegionFlag.NONE, anonymous, accessible=True)
        pages = _take._select(_FakePagemap(entries), mapping, "private", left_out)  # type: ignore[arg-type]
        assert (pages.tolist(), left_out["zero"]) == ([0] if anonymous else [0, 1, 2], zero)


def test_frames_of_pages_that_may_be_shared() -> None:
    """Pages mapped once have nobody to share with; file pages may have all the same; swap has no frame."""
    entries = [_PRESENT | 7, _PRESENT | _EXCLUSIVE | 9, _PRESENT | _EXCLUSIVE | _FILE | 8, _SWAPPED | 5]
    assert _pagemap.shareable_frames(np.array(entries, np.uint64)).tolist() == [7, 0, 8, 0]
    assert _pagemap.frames(np.array(entries, np.uint64)).tolist() == [7, 9, 8, 0]


@given(st.lists(st.integers(1, 12), max_size=30), st.sampled_from([1, 10**6]))
def test_first_equal_by_table_and_by_sorting(numbers: list[int], scale: int) -> None:
    """Close or far apart, each frame number finds its first place."""
    frames = np.array([number * scale for number in numbers], np.uint64)
    assert _take._first_equal(frames).tolist() == [numbers.index(number) for number in numbers]


@given(st.lists(st.lists(st.integers(-1, 6), max_size=8), max_size=4))
def test_first_holders(rows: list[list[int]]) -> None:
    """Each row has exactly one first holder: the earliest page of the earliest process."""
    seen: set[int] = set()
    expected: list[list[bool]] = []
    for process in rows:
        expected.append([])
        for row in process:
            expected[-1].append(row >= 0 and row not in seen)
            seen.add(row)
    found = _store.first_holders([np.array(process, np.int64) for process in rows], 7)
    assert [mask.tolist() for mask in found] == expected


def test_families_are_joined_through_others() -> None:
    """Processes that share with a common third one are one family; order is kept."""
    one, other = np.array([3, 4, 4], np.int64), np.array([1, 3, 3], np.int64)
    assert _take._families(6, one, other) == [[0], [1, 3, 4], [2], [5]]
    assert _take._families(2, one[:0], other[:0]) == [[0], [1]]


@given(
    st.dictionaries(st.integers(0, 400), st.integers(0, 59), max_size=60),
    st.booleans(),
    st.sampled_from([1, 4, 1024]),
)
def test_regions_hold_exactly_the_stored_pages(placed: dict[int, int], may_bridge: bool, limit: int) -> None:
    """However pages lie here and there, the regions name each page's row once and nothing else."""
    store = _store.Store(4096, 60)
    store.lend(25)
    store.lend(35)
    base = [int(address) for address in store.addresses(np.arange(60))]
    pages = np.array(sorted(placed), np.int64)
    rows = np.array([placed[page] for page in sorted(placed)], np.int64)
    flags = (pages >= 200).astype(np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_store, "_MAX_REGIONS", limit)
        regions, homes = _store.split_into_regions(pages, rows, flags, store, may_bridge=may_bridge)
    found = {}
    for region in regions:
        listed = np.arange(len(region.array)) if region.rows is None else region.rows
        assert listed[0] >= 0
        assert listed[-1] >= 0
        for index, row in enumerate(listed.tolist()):
            if row >= 0:
                page = region.address // 4096 + index
                assert region.flags == (RegionFlag.SHARED if page >= 200 else RegionFlag.NONE)
                found[page] = base.index(region.array[row].ctypes.data)
    assert found == placed
    assert [regions[home].address <= page * 4096 for home, page in zip(homes, pages, strict=True)] == [
        True
    ] * len(pages)


def test_a_store_lends_no_more_than_it_may() -> None:
    """A full store lends nothing, and free rows are lent before new ones."""
    store = _store.Store(4096, 10)
    assert store.lend(4).tolist() == [0, 1, 2, 3]
    store.recycle([np.array([3, 1, -1], np.int64)])
    assert store.lend(5).tolist() == [0, 2, 4, 5, 6]
    assert store.lend(9).tolist() == [7, 8, 9]
    assert store.lend(1).tolist() == []


def test_a_store_without_memory_says_so() -> None:
    """An allocation that cannot succeed is OutOfMemory, in bytes."""
    with pytest.raises(OutOfMemory, match="4611686018427387904 bytes"):
        _store.Store(4096, 1 << 60).lend(1 << 50)

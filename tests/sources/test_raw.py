"""`lksm.sources.raw`: bytes are pages, holes are holes, tails are reported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lksm.errors import SourceError
from lksm.sources import Snapshot, raw

PAGE = 4096


def shape(snapshot: Snapshot) -> list[tuple[int, int]]:
    """(address, bytes) of every region."""
    (process,) = snapshot.processes
    return [(region.address, region.array.nbytes) for region in process.regions]


def skips(snapshot: Snapshot) -> list[tuple[str, int]]:
    return [(item.what, item.nbytes) for item in snapshot.skipped]


def write_sparse(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    """Write pieces at their offsets into a file of holes; skip where the file system has none."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            os.pwrite(file.fileno(), piece, offset)
    with open(path, "rb") as file:
        try:
            first = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        except OSError:
            first = size
    if first == size:
        pytest.skip("the file system of the temporary directory reports no holes")


def test_an_image_is_one_region_at_offset_zero(tmp_path: Path) -> None:
    """A file without holes is one region with exactly its bytes, mapped and not copied."""
    data = np.random.default_rng(1).integers(0, 256, 5 * PAGE, dtype=np.uint8).tobytes()
    path = tmp_path / "vm.raw"
    path.write_bytes(data)
    snapshot = raw.load(path)
    assert shape(snapshot) == [(0, 5 * PAGE)]
    assert snapshot.skipped == ()
    (process,) = snapshot.processes
    assert process.nbytes == 5 * PAGE
    assert process.regions[0].array.shape == (5, PAGE)
    assert process.regions[0].array.tobytes() == data
    assert process.notes == ("addresses are file offsets",)
    with open(path, "r+b") as file:  # what is mapped shows what is written
        file.write(b"changed")
    assert process.regions[0].array[0, :7].tobytes() == b"changed"


@pytest.mark.parametrize("extra", [1, 8, PAGE - 1])
def test_a_tail_is_reported(tmp_path: Path, extra: int) -> None:
    """Bytes after the last whole page are left out and reported, not silently dropped."""
    path = tmp_path / "vm.raw"
    path.write_bytes(b"x" * (2 * PAGE + extra))
    snapshot = raw.load(path)
    assert shape(snapshot) == [(0, 2 * PAGE)]
    assert skips(snapshot) == [("tail", extra)]
    assert snapshot.skipped[0].source == str(path)


def test_less_than_a_page_is_refused(tmp_path: Path) -> None:
    """An image without one whole page cannot be used; a smaller page size can use it."""
    path = tmp_path / "vm.raw"
    path.write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match=r"has 100 bytes, less than one page of 4096 bytes$"):
        raw.load(path)
    assert shape(raw.load(path, page_size=64)) == [(0, 64)]


def test_holes_are_left_out(tmp_path: Path) -> None:
    """Only extents with data become regions, at their offset in the file; the holes are reported."""
    path = tmp_path / "sparse.raw"
    mib = 1 << 20
    write_sparse(path, 16 * mib, {mib: b"a" * mib, 8 * mib: b"b" * 2 * mib})
    snapshot = raw.load(path)
    assert shape(snapshot) == [(mib, mib), (8 * mib, 2 * mib)]
    assert skips(snapshot) == [("hole", 13 * mib)]
    assert snapshot.skipped[0].reason == "never written, 3 in all"
    (process,) = snapshot.processes
    assert {int(value) for region in process.regions for value in np.unique(region.array)} == set(b"ab")


def test_all_regions_are_views_of_one_mapping(tmp_path: Path) -> None:
    """However many extents there are, the file is mapped once."""
    path = tmp_path / "sparse.raw"
    mib = 1 << 20
    write_sparse(path, 8 * mib, {offset * mib: b"a" * PAGE for offset in range(0, 8, 2)})
    (process,) = raw.load(path).processes
    assert len(process.regions) == 4
    bases = set()
    for region in process.regions:
        base: object = region.array
        while isinstance(base, np.ndarray):
            base = base.base
        bases.add(id(base))
    assert len(bases) == 1


def test_a_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    """A terabyte of hole around one page costs nothing and yields one page or one file system block."""
    path = tmp_path / "huge.raw"
    write_sparse(path, 1 << 40, {1 << 39: b"a"})
    snapshot = raw.load(path)
    ((address, nbytes),) = shape(snapshot)
    assert address <= 1 << 39 < address + nbytes
    assert nbytes <= 1 << 20
    assert snapshot.skipped[0].nbytes == (1 << 40) - nbytes


def test_nothing_but_holes_is_refused(tmp_path: Path) -> None:
    """A file to which nothing was ever written holds no pages."""
    path = tmp_path / "hole.raw"
    write_sparse(path, 1 << 20, {})
    with pytest.raises(SourceError, match=r"is a hole of 1048576 bytes, nothing was ever written to it$"):
        raw.load(path)


def test_nothing_but_holes_and_a_tail_is_refused(tmp_path: Path) -> None:
    """Where only the tail was written to, the error does not say that nothing was."""
    path = tmp_path / "hole.raw"
    write_sparse(path, (1 << 20) + 100, {1 << 20: b"x" * 100})
    said = r"is a hole of 1048576 bytes and a tail of 100 bytes, less than one page of 4096 bytes$"
    with pytest.raises(SourceError, match=said):
        raw.load(path)


def test_extents_are_widened_to_pages_and_joined() -> None:
    """A page with one byte of data is a page with data; extents that then touch are one run."""
    widen = raw.whole_page_runs
    assert widen([(10, 20)], 8 * PAGE, PAGE) == [(0, PAGE)]
    assert widen([(PAGE - 1, PAGE + 1)], 8 * PAGE, PAGE) == [(0, 2 * PAGE)]
    assert widen([(0, 10), (20, 30)], 8 * PAGE, PAGE) == [(0, PAGE)]
    assert widen([(0, 10), (PAGE, PAGE + 1)], 8 * PAGE, PAGE) == [(0, 2 * PAGE)]
    assert widen([(0, 10), (2 * PAGE, 2 * PAGE + 1)], 8 * PAGE, PAGE) == [(0, PAGE), (2 * PAGE, 3 * PAGE)]
    assert widen([(0, PAGE + 9)], PAGE + 9, PAGE) == [(0, PAGE)]
    assert widen([(PAGE, PAGE + 9)], PAGE + 9, PAGE) == []


def test_every_byte_is_used_or_reported(tmp_path: Path) -> None:
    """Regions, holes and tail add up to the size of the file for any pattern of extents."""
    random = np.random.default_rng(7)
    for case in range(20):
        path = tmp_path / f"case{case}.raw"
        size = int(random.integers(1 << 16, 1 << 19))
        offsets = random.integers(0, size - 100, 4)
        write_sparse(path, size, {int(offset): b"z" * 100 for offset in offsets})
        snapshot = raw.load(path, page_size=16384)
        used = sum(nbytes for _, nbytes in shape(snapshot))
        assert used + sum(item.nbytes for item in snapshot.skipped) == size
        in_tail = size % 16384
        found = sum(int((region.array == ord("z")).sum()) for region in snapshot.processes[0].regions)
        written = np.zeros(size, bool)
        for offset in offsets:
            written[offset : offset + 100] = True
        assert found == int(written[: size - in_tail].sum())

"""ELF files made to do harm: whatever the headers claim, the outcome is memory of the file or one line."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from elfwriter import PT_NOTE, Load, Note, elf_core, prpsinfo
from lksm.errors import SourceError
from lksm.memory import as_page_runs
from lksm.sources import Snapshot, elfcore

PAGE = 4096
PAGES = b"".join(bytes([letter]) * PAGE for letter in b"abc")
ABC = {0x1000: "a", 0x2000: "b", 0x3000: "c"}
MOST = 1 << 64
_MOST_SECONDS = 60  # far more than any of these takes


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """What does not come to an end fails."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_MOST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {_MOST_SECONDS} s")


def outcome(tmp_path: Path, core: bytes) -> Snapshot | str:
    """What loading it gives: a snapshot, all of whose pages have been read, or the reason."""
    path = tmp_path / "core"
    path.write_bytes(core)
    try:
        snapshot = elfcore.load(path)
    except SourceError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert text.isprintable()
        return text.removeprefix(f"{path}: ")
    (process,) = snapshot.processes
    runs = as_page_runs(list(process.regions), page_size=PAGE)
    assert sum(int(run.pages.sum()) for run in runs) >= 0
    assert process.name.isprintable()
    return snapshot


def pages_of(found: Snapshot | str) -> dict[int, str]:
    """The letter of each page by its address."""
    assert isinstance(found, Snapshot), found
    regions = found.processes[0].regions
    return {
        region.address + index * PAGE: chr(page[0])
        for region in regions
        for index, page in enumerate(region.array)
    }


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([Load(0x1000, PAGES), Load(0x1000, PAGES[::-1])], ABC),
        ([Load(0x1000, PAGES), Load(0x2000, b"", filesz=PAGE, memsz=PAGE, offset=0)], ABC),
        ([Load(0x1800, PAGES)], {0x2000: "a", 0x3000: "b"}),
        ([Load(MOST - PAGE, PAGES[:PAGE])], {MOST - PAGE: "a"}),
        ([Load(0, PAGES[:PAGE], memsz=1 << 63)], {0: "a"}),
        ([Load(0, PAGES[:PAGE], filesz=1 << 63, memsz=PAGE)], {0: "a"}),
        ([Load(0, PAGES[:PAGE], filesz=1 << 63, memsz=1 << 63)], {0: "a"}),
        ([Load(0, PAGES[:PAGE], filesz=MOST - 1, memsz=MOST - 1)], {0: "a"}),
        ([Load(0x1000, PAGES), Load(0x9000, memsz=PAGE, filesz=PAGE, offset=1 << 63)], ABC),
        ([Load(0x1000, PAGES), Load(0x9000, memsz=PAGE, filesz=PAGE, offset=MOST - 1)], ABC),
    ],
)  # fmt: skip
def test_sizes_and_places(tmp_path: Path, loads: list[Load], expected: dict[int, str]) -> None:
    """Overlapping, unaligned, huge and misplaced segments: what the file really has, and nothing else."""
    assert pages_of(outcome(tmp_path, elf_core(loads))) == expected


@pytest.mark.parametrize(
    ("vaddr", "memsz"),
    [(MOST - PAGE, 2 * PAGE), (MOST - 1, PAGE), (PAGE, MOST - 1), (1 << 63, (1 << 63) + 1)],
)
def test_beyond_64_bits(tmp_path: Path, vaddr: int, memsz: int) -> None:
    """A segment that would wrap around is refused."""
    said = outcome(tmp_path, elf_core([Load(vaddr, PAGES, memsz=memsz)]))
    assert said == f"has a segment at {vaddr:#x} of {max(memsz, len(PAGES))} bytes, outside 64 bits"


def test_a_segment_that_is_its_own_header(tmp_path: Path) -> None:
    """A segment may name the headers it is described by: they are bytes of the file like any other."""
    found = outcome(tmp_path, elf_core([Load(0x1000, PAGES, offset=0, filesz=PAGE, memsz=PAGE)]))
    assert isinstance(found, Snapshot)
    assert found.processes[0].regions[0].array[0, :4].tobytes() == b"\x7fELF"


def test_the_same_bytes_over_and_over(tmp_path: Path) -> None:
    """A small file whose headers claim much more memory than it has bytes is refused."""
    loads = [
        Load(0x1000 + index * len(PAGES), offset=0x1000, filesz=len(PAGES), memsz=len(PAGES))
        for index in range(40_000)
    ]
    core = elf_core([*loads, Load(1 << 40, PAGES)])
    said = outcome(tmp_path, core)
    nr_bytes = 40_001 * len(PAGES)
    assert nr_bytes > 16 * len(core)
    assert said == (f"has segments of {nr_bytes} bytes in a file of {len(core)}, all views of the same bytes")


def test_notes_that_are_walked_again_and_again(tmp_path: Path) -> None:
    """Thousands of headers over the same thousands of notes are one long walk, which ends."""
    notes = struct.pack("<3I", 0, 0, 0) * 80_000
    walks = [Load(0, offset=0x40000, filesz=len(notes), memsz=0, kind=PT_NOTE) for _ in range(4000)]
    core = elf_core([*walks, Load(0x1000, PAGES), Load(0x100000, notes)])
    found = outcome(tmp_path, core)
    assert set(pages_of(found)) > {0x1000, 0x2000, 0x3000}


def test_notes_of_notes(tmp_path: Path) -> None:
    """A note segment that names the headers, itself or the whole file names nobody."""
    for offset, filesz in ((0, PAGE), (64, 56), (0, MOST - 1), (MOST - 1, MOST - 1), (MOST - 8, 16)):
        core = elf_core([Load(0, offset=offset, filesz=filesz, memsz=0, kind=PT_NOTE), Load(0x1000, PAGES)])
        found = outcome(tmp_path, core)
        assert isinstance(found, Snapshot)
        assert found.processes[0].pid is None
        assert found.processes[0].name == "core"


@pytest.mark.parametrize("size", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF])
@pytest.mark.parametrize("field", [0, 4])
def test_notes_that_lie(tmp_path: Path, size: int, field: int) -> None:
    """Whatever sizes a note claims, the memory is used."""
    note = bytearray(elf_core([], [prpsinfo("name", 7)])[120:])
    note[field : field + 4] = struct.pack("<I", size)
    core = elf_core(
        [Load(0, bytes(note), kind=PT_NOTE), Load(0x1000, PAGES)],
    )
    assert len(pages_of(outcome(tmp_path, core))) == 3


@pytest.mark.parametrize(
    "name",
    [b"\x1b[2J\x1b[31m", b"a\nb\r\tc", b"\xff\xfe\x80", b"\xe2\x80\xaeevil", b"\xc2\x9b31m", b"\x7f\x08\x08"],
)
def test_names_in_notes(tmp_path: Path, name: bytes) -> None:
    """A process may have called itself anything; what is not printable becomes a question mark."""
    note = prpsinfo("x" * 15, 7)
    text = note.description.replace(b"x" * 15, name.ljust(15, b"\0"))
    found = outcome(tmp_path, elf_core([Load(0x1000, PAGES)], [Note(note.owner, note.type, text)]))
    assert isinstance(found, Snapshot)
    assert found.processes[0].pid == 7
    assert set(found.processes[0].name) & {"?", "\N{REPLACEMENT CHARACTER}"}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("extended", [False, True])
def test_cut_at_every_byte_of_the_headers(tmp_path: Path, bits: int, extended: bool) -> None:
    """A file cut anywhere in its headers or notes is refused or has what is left of its pages."""
    core = elf_core(
        [Load(0x1000, PAGES), Load(0x9000, PAGES)], [prpsinfo("name", 7, bits=bits)], bits=bits,
        extended_numbering=extended,
    )  # fmt: skip
    begin = len(core) - 6 * PAGE - (64 if bits == 64 else 40) * extended
    for size in (
        *range(1, begin + 2),
        *range(begin, len(core), PAGE // 4),
        *range(len(core) - 70, len(core)),
    ):
        found = outcome(tmp_path, core[:size])
        whole = max(0, min(size, begin + 6 * PAGE) - begin) // PAGE
        if whole == 0:
            assert isinstance(found, str)
        elif not extended or size == len(core):
            assert len(pages_of(found)) == whole
        else:  # the section header with the number of segments is cut off, and this file is no large one
            assert "has 65534 program headers" in str(found)


def test_a_table_of_headers_larger_than_sense(tmp_path: Path) -> None:
    """Billions of program headers in the holes of a sparse file are refused by their number."""
    core = bytearray(elf_core([Load(0x1000, PAGES)], extended_numbering=True))
    section = struct.unpack_from("<Q", core, 40)[0]
    struct.pack_into("<I", core, section + 44, 0xFFFFFFFF)
    path = tmp_path / "core"
    path.write_bytes(core)
    os.truncate(path, 300 << 30)
    with pytest.raises(SourceError, match="has 4294967295 program headers, expected at most"):
        elfcore.load(path)


def test_a_stride_that_is_not_one(tmp_path: Path) -> None:
    """Program headers further apart than their size are read where the file says they are."""
    core = bytearray(elf_core([Load(0x1000, PAGES)]) + bytes(PAGE * 20))
    struct.pack_into("<H", core, 54, 0xFFFF)
    assert isinstance(outcome(tmp_path, bytes(core)), Snapshot)
    struct.pack_into("<H", core, 54, 0)
    assert outcome(tmp_path, bytes(core)) == "has 0-byte program headers, expected 56"

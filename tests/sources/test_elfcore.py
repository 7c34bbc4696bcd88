"""`lksm.sources.elfcore`: what is in the file is used, what is not is reported, and nothing else happens."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from elfwriter import EM_386, EM_PPC, EM_PPC64, EM_X86_64, Load, Note, elf_core, prpsinfo
from lksm.errors import SourceError
from lksm.sources import Snapshot, elfcore

PAGE = 4096
KINDS = [(64, "<", EM_X86_64), (64, ">", EM_PPC64), (32, "<", EM_386), (32, ">", EM_PPC)]


def content(letters: str, page_size: int = PAGE) -> bytes:
    """One page a letter, "ab" is a page of a and a page of b."""
    return b"".join(letter.encode() * page_size for letter in letters)


def load(tmp_path: Path, core: bytes, page_size: int = PAGE) -> Snapshot:
    path = tmp_path / "core"
    path.write_bytes(core)
    return elfcore.load(path, page_size=page_size)


def picture(snapshot: Snapshot) -> list[tuple[int, str]]:
    """(address, letters) of every region; fails unless every page is one letter."""
    (process,) = snapshot.processes
    regions = []
    for region in process.regions:
        assert (region.array == region.array[:, :1]).all()
        regions.append((region.address, region.array[:, 0].tobytes().decode()))
    return regions


def skips(snapshot: Snapshot) -> list[tuple[str, int, str]]:
    return [(item.what, item.nbytes, item.reason) for item in snapshot.skipped]


@pytest.mark.parametrize(("bits", "order", "machine"), KINDS)
def test_both_classes_and_byte_orders(tmp_path: Path, bits: int, order: str, machine: int) -> None:
    """Segments, process name and pid are found in every class and byte order."""
    note = prpsinfo("worker", 4242, bits=bits, order=order, short_ids=machine == EM_386)
    loads = [Load(0x10000, content("ab")), Load(0x7000_0000, content("c"), align=PAGE)]
    snapshot = load(tmp_path, elf_core(loads, [note], bits=bits, order=order, machine=machine))
    (process,) = snapshot.processes
    assert (process.name, process.pid) == ("worker", 4242)
    assert process.immutable and process.frozen
    assert picture(snapshot) == [(0x10000, "ab"), (0x7000_0000, "c")]
    assert snapshot.skipped == ()
    assert process.notes == ()


@pytest.mark.parametrize("shift", [0, 1, 8, 0x448, 3928])
def test_segments_at_any_file_alignment(tmp_path: Path, shift: int) -> None:
    """Bytes are found, without a copy, wherever in the file the writer put them."""
    loads = [
        Load(0x1000, content("ab"), align=PAGE, shift=shift),
        Load(0x9000, content("c"), align=PAGE, shift=shift),
    ]
    snapshot = load(tmp_path, elf_core(loads))
    assert picture(snapshot) == [(0x1000, "ab"), (0x9000, "c")]
    (process,) = snapshot.processes
    assert not any(region.array.flags.owndata for region in process.regions)
    first = process.regions[0].array.__array_interface__["data"][0]
    assert first % PAGE == shift


def test_addresses_at_the_top_of_memory(tmp_path: Path) -> None:
    """The last page of 64 bits is a page like any other."""
    snapshot = load(tmp_path, elf_core([Load((1 << 64) - PAGE, content("z"))]))
    assert picture(snapshot) == [((1 << 64) - PAGE, "z")]


def test_what_was_not_dumped_is_absent(tmp_path: Path) -> None:
    """filesz < memsz: the rest of the segment is reported and in no region, and never zero."""
    loads = [
        Load(0x1000, content("a"), memsz=5 * PAGE),
        Load(0x8000, b"", memsz=2 * PAGE),
        Load(0xA000, content("b")),
    ]
    snapshot = load(tmp_path, elf_core(loads))
    assert picture(snapshot) == [(0x1000, "a"), (0xA000, "b")]
    assert skips(snapshot) == [
        ("segment 0x1000", 4 * PAGE, "not dumped"),
        ("segment 0x8000", 2 * PAGE, "not dumped"),
    ]


def test_more_in_the_file_than_in_memory_is_reported(tmp_path: Path) -> None:
    """filesz > memsz: only the bytes that both sizes admit are memory."""
    snapshot = load(tmp_path, elf_core([Load(0x1000, content("abc"), memsz=PAGE)]))
    assert picture(snapshot) == [(0x1000, "a")]
    assert skips(snapshot) == [("segment 0x1000", 2 * PAGE, "in the file but not in memory")]


def test_a_dump_truncated_in_a_page(tmp_path: Path) -> None:
    """Whole pages before the cut are used; the cut page and what is behind it are reported."""
    core = elf_core([Load(0x1000, content("abc")), Load(0x9000, content("d"))])
    snapshot = load(tmp_path, core[: -PAGE - PAGE - 100])
    assert picture(snapshot) == [(0x1000, "a")]
    assert skips(snapshot) == [
        ("segment 0x1000", PAGE + 100, "beyond the end of the file, the dump is truncated"),
        ("segment 0x2000", PAGE - 100, "part of a page of 4096 bytes"),
        ("segment 0x9000", PAGE, "beyond the end of the file, the dump is truncated"),
    ]


def test_a_segment_beyond_the_end_of_the_file(tmp_path: Path) -> None:
    """A segment that starts behind the end of the file is missing, even at the largest offset there is."""
    loads = [Load(0x1000, content("a")), Load(0x9000, filesz=PAGE, memsz=PAGE, offset=(1 << 64) - 1)]
    snapshot = load(tmp_path, elf_core(loads))
    assert picture(snapshot) == [(0x1000, "a")]
    assert [nbytes for _, nbytes, _ in skips(snapshot)] == [PAGE]


def test_a_dump_without_its_memory_is_refused(tmp_path: Path) -> None:
    """If the cut is before the first whole page, nothing is left to use."""
    core = elf_core([Load(0x1000, content("abc"))])
    with pytest.raises(SourceError, match="core: has no whole page: 1 segments of 12288 bytes"):
        load(tmp_path, core[: -2 * PAGE - 1])


def test_overlapping_segments(tmp_path: Path) -> None:
    """An address has one content: what a segment shares with an earlier one is dropped and reported."""
    loads = [
        Load(0x3000, content("xyz")),
        Load(0x1000, content("abc")),
        Load(0x2000, content("q")),
        Load(0x3000, content("xyz")),
    ]
    snapshot = load(tmp_path, elf_core(loads))
    assert picture(snapshot) == [(0x1000, "abc"), (0x4000, "yz")]
    overlap = "overlaps the segment before it"
    assert skips(snapshot) == [
        ("segment 0x2000", PAGE, overlap),
        ("segment 0x3000", PAGE, overlap),
        ("segment 0x3000", 3 * PAGE, overlap),
    ]


def test_addresses_that_are_not_page_aligned_are_trimmed(tmp_path: Path) -> None:
    """Only whole pages are used; the part pages at both ends of a segment are reported."""
    data = b"h" * 96 + content("ab") + b"t" * 32
    snapshot = load(tmp_path, elf_core([Load(0x2000 - 96, data), Load(0x8010, b"s" * 64)]))
    assert picture(snapshot) == [(0x2000, "ab")]
    part = "part of a page of 4096 bytes"
    assert skips(snapshot) == [
        ("segment 0x1fa0", 96, part),
        ("segment 0x4000", 32, part),
        ("segment 0x8010", 64, part),
    ]


def test_neighbours_in_memory_and_file_are_one_region(tmp_path: Path) -> None:
    """Segments that continue each other are joined, also in the middle of a page; others are not."""
    loads = [
        Load(0x1000, content("a")),
        Load(0x2000, b"b" * 100),
        Load(0x2064, b"b" * (PAGE - 100)),
        Load(0x5000, content("c")),
    ]
    snapshot = load(tmp_path, elf_core(loads))
    assert picture(snapshot) == [(0x1000, "ab"), (0x5000, "c")]
    assert snapshot.skipped == ()
    apart = [Load(0x1000, content("a")), Load(0x2000, content("b"), align=64, shift=1)]
    assert picture(load(tmp_path, elf_core(apart))) == [(0x1000, "a"), (0x2000, "b")]


def test_page_size_decides_what_a_page_is(tmp_path: Path) -> None:
    """With larger pages a segment of one small page is only a part of a page."""
    core = elf_core([Load(0x1000, content("a")), Load(0x10000, content("b" * 16))])
    snapshot = load(tmp_path, core, page_size=65536)
    assert picture(snapshot) == [(0x10000, "b")]
    assert skips(snapshot) == [("segment 0x1000", PAGE, "part of a page of 65536 bytes")]


def test_zero_pages_that_were_dumped_are_present(tmp_path: Path) -> None:
    """Zeros in the file are pages, unlike memory that was not dumped."""
    snapshot = load(tmp_path, elf_core([Load(0x1000, bytes(2 * PAGE), memsz=3 * PAGE)]))
    assert snapshot.processes[0].nbytes == 2 * PAGE
    assert [nbytes for _, nbytes, _ in skips(snapshot)] == [PAGE]


@pytest.mark.parametrize(("bits", "order", "machine"), KINDS)
def test_extended_numbering(tmp_path: Path, bits: int, order: str, machine: int) -> None:
    """PN_XNUM in the header: the number of segments is read from the section header."""
    loads = [Load(0x1000 + 128 * index, content("a", 64)) for index in range(65536)]
    note = prpsinfo("many", 5, bits=bits, order=order, short_ids=machine == EM_386)
    core = elf_core(loads, [note], bits=bits, order=order, machine=machine)
    snapshot = load(tmp_path, core, page_size=64)
    (process,) = snapshot.processes
    assert len(process.regions) == 65536
    assert (process.name, process.pid) == ("many", 5)
    assert snapshot.skipped == ()


def test_extended_numbering_of_a_truncated_dump(tmp_path: Path) -> None:
    """If the section header was cut off, segments are counted without it, and a note says so."""
    loads = [Load(0x1000 + 128 * index, content("a", 64)) for index in range(66000)]
    core = elf_core(loads, [prpsinfo("many", 5)])
    snapshot = load(tmp_path, core[: -64 - 10 * 64], page_size=64)
    (process,) = snapshot.processes
    assert process.regions[-1].address == loads[65989].vaddr
    assert len(process.regions) == 65990
    assert sum(nbytes for _, nbytes, _ in skips(snapshot)) == 10 * 64
    assert any("section header" in note for note in process.notes)


def test_seventy_thousand_segments(tmp_path: Path) -> None:
    """More segments than the header can count are all loaded, in address order."""
    path = tmp_path / "core"
    path.write_bytes(elf_core([Load(0x1000 + 256 * index, b"x" * 128) for index in range(70_000)]))
    regions = elfcore.load(path, page_size=128).processes[0].regions
    assert [region.address for region in regions] == [0x1000 + 256 * index for index in range(70_000)]


def qemu_like(*, vaddrs: bool, notes: list[Note]) -> bytes:
    """A dump of a machine: RAM at 0, video memory and firmware below 4 GiB, p_vaddr zero or a copy."""
    places = {0: "ab", 0xC0000: "c", 0xFD00_0000: "v", 0xFFFF_F000: "f"}
    return elf_core(
        [
            Load(paddr if vaddrs else 0, content(letters), paddr=paddr, align=PAGE, shift=0x448)
            for paddr, letters in places.items()
        ],
        notes,
    )


@pytest.mark.parametrize("vaddrs", [False, True])
def test_dumps_of_machines_are_addressed_physically(tmp_path: Path, vaddrs: bool) -> None:
    """QEMU's segments are placed by p_paddr, whether p_vaddr is zero or not; the file names the machine."""
    notes = [Note(b"CORE", 1, bytes(336)), Note(b"QEMU", 0, bytes(440))]
    snapshot = load(tmp_path, qemu_like(vaddrs=vaddrs, notes=notes))
    assert picture(snapshot) == [(0, "ab"), (0xC0000, "c"), (0xFD00_0000, "v"), (0xFFFF_F000, "f")]
    (process,) = snapshot.processes
    assert (process.name, process.pid) == ("core", None)
    assert process.notes == (
        "addresses are physical; video memory and firmware are not told from RAM",
        "8192 bytes from 0xe0000000 to 4 GiB are most likely not RAM",
    )


def test_physical_addresses_without_a_note(tmp_path: Path) -> None:
    """Segments without virtual addresses are placed by their physical ones, whoever wrote the dump."""
    snapshot = load(tmp_path, qemu_like(vaddrs=False, notes=[]))
    assert [address for address, _ in picture(snapshot)] == [0, 0xC0000, 0xFD00_0000, 0xFFFF_F000]


def test_one_physical_page_with_many_addresses_counts_once(tmp_path: Path) -> None:
    """In a dump of a machine with virtual addresses, a page that two segments name is used once."""
    core = elf_core(
        [Load(0xFFFF_8000_0000_0000, content("ab"), paddr=0x1000), Load(0x7000, content("b"), paddr=0x2000)],
        [Note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\n")],
    )
    snapshot = load(tmp_path, core)
    assert picture(snapshot) == [(0x1000, "ab")]
    assert skips(snapshot) == [("segment 0x2000", PAGE, "overlaps the segment before it")]


def test_unknown_physical_addresses_are_not_used(tmp_path: Path) -> None:
    """A writer that leaves p_paddr at -1 does not know physical addresses, so virtual ones are used."""
    core = elf_core(
        [Load(0x1000, content("a"), paddr=(1 << 64) - 1), Load(0x5000, content("b"), paddr=(1 << 64) - 1)],
        [Note(b"VMCOREINFO", 0, b"OSRELEASE=6.1\n")],
    )
    assert picture(load(tmp_path, core)) == [(0x1000, "a"), (0x5000, "b")]


def test_notes_of_others_do_not_name_the_process(tmp_path: Path) -> None:
    """Only the note CORE/NT_PRPSINFO names the process, wherever it stands among the notes."""
    info = prpsinfo("right", 7)
    fake = Note(b"OTHER", info.type, prpsinfo("wrong", 8).description)
    odd = Note(b"LINUX", 0x202, b"xyz")  # a size that is no multiple of four
    (process,) = load(tmp_path, elf_core([Load(0, content("a"))], [fake, odd, info])).processes
    assert (process.name, process.pid) == ("right", 7)


def test_names_are_safe_to_print(tmp_path: Path) -> None:
    """Control characters and broken text in a process name are replaced."""
    info = prpsinfo("evil", 7)
    broken = info.description.replace(b"evil\0", b"\x1b[\n\xff\0", 1)
    (process,) = load(tmp_path, elf_core([Load(0, content("a"))], [Note(b"CORE", 3, broken)])).processes
    assert process.name == "?[?\N{REPLACEMENT CHARACTER}"


def test_memory_is_not_taken_for_notes(tmp_path: Path) -> None:
    """Notes end where their segment ends, also if memory right behind it looks like another one."""
    info = prpsinfo("wrong", 7)
    fake = struct.pack("<3I", 5, len(info.description), info.type) + b"CORE\0\0\0\0" + info.description
    core = elf_core([Load(0, fake.ljust(PAGE, b"\0"))], [Note(b"LINUX", 0x202, b"wxyz")])
    assert load(tmp_path, core).processes[0].name == "core"


@pytest.mark.parametrize("size", [0, 1, 20, 135])
def test_a_short_process_note_is_ignored(tmp_path: Path, size: int) -> None:
    """A note that is too short to be one costs the name, not the memory."""
    note = Note(b"CORE", 3, prpsinfo("cut", 7).description[:size])
    (process,) = load(tmp_path, elf_core([Load(0, content("a"))], [note])).processes
    assert (process.name, process.pid) == ("core", None)


def test_lying_note_sizes_end_the_notes(tmp_path: Path) -> None:
    """A note that claims 4 GiB ends the list of notes; memory is used all the same."""
    core = elf_core([Load(0, content("a"))], [prpsinfo("name", 7)])
    lying = core.replace(struct.pack("<3I", 5, 136, 3), struct.pack("<3I", 5, 0xFFFFFFFF, 3))
    assert lying != core
    snapshot = load(tmp_path, lying)
    assert picture(snapshot) == [(0, "a")]
    assert snapshot.processes[0].name == "core"


def patched(core: bytes, place: int, kind: str, value: int) -> bytes:
    data = bytearray(core)
    struct.pack_into(kind, data, place, value)
    return bytes(data)


GOOD = elf_core([Load(0x1000, content("a"))], [prpsinfo("name", 7)])


@pytest.mark.parametrize(
    ("core", "said"),
    [
        (elf_core([]), "without memory segments"),
        (elf_core([], [prpsinfo("name", 7)]), "without memory segments"),
        (GOOD[:4], "broken ELF header"),
        (GOOD[:63], "broken ELF header"),
        (patched(GOOD, 4, "B", 3), "broken ELF header"),
        (patched(GOOD, 5, "B", 0), "broken ELF header"),
        (patched(GOOD, 32, "<Q", 1 << 63), "2 program headers up to byte"),
        (patched(GOOD, 54, "<H", 32), "32-byte program headers, expected 56"),
        (patched(GOOD, 54, "<H", 0), "0-byte program headers, expected 56"),
        (patched(GOOD, 56, "<H", 60000), "60000 program headers up to byte"),
        (patched(GOOD, 56, "<H", 0xFFFF), "65534 program headers up to byte"),
        (GOOD[: 64 + 56 + 20], "2 program headers up to byte"),
        (elf_core([Load((1 << 64) - PAGE, content("ab"))]), "outside 64 bits"),
        (elf_core([Load(0x1000, content("a"), memsz=(1 << 64) - 1)]), "outside 64 bits"),
        (b"not an ELF file" * 1000, "Magic number"),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, core: bytes, said: str) -> None:
    """Headers that are cut off or contradict the file are a SourceError that says what is wrong."""
    with pytest.raises(SourceError, match=said) as caught:
        load(tmp_path, core)
    assert str(caught.value).startswith(f"{tmp_path / 'core'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("bits", "order", "machine"), KINDS)
def test_no_header_makes_another_error(
    tmp_path: Path, bits: int, order: str, machine: int, seed: int
) -> None:
    """Whatever bytes stand in the headers, the outcome is regions inside the file or a SourceError."""
    notes = [prpsinfo("name", 7, bits=bits, order=order)]
    loads = [Load(0x1000, content("ab")), Load(0x8000, content("c"), memsz=2 * PAGE)]
    good = elf_core(loads, notes, bits=bits, order=order, machine=machine, extended_numbering=seed == 3)
    random = np.random.default_rng(seed)
    nr_used, reasons = 0, []
    for _ in range(200):
        bad = bytearray(good[: int(random.integers(4, len(good)))] if random.random() < 0.2 else good)
        for place in random.integers(4, min(400, len(bad)), int(random.integers(1, 4))):
            bad[place] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, int(random.integers(0, 256))]))
        try:
            (process,) = load(tmp_path, bytes(bad)).processes
        except SourceError as error:
            reasons.append(str(error))
        else:
            nr_used += 1
            assert 0 < process.nbytes <= len(bad) * len(process.regions)
            assert sum(int(region.array.sum()) for region in process.regions) >= 0
    assert nr_used > 0
    assert len(reasons) > 0
    assert not any("\n" in reason for reason in reasons)


@pytest.mark.parametrize("seed", range(40))
def test_pages_are_those_of_a_byte_by_byte_model(tmp_path: Path, seed: int) -> None:
    """Random segments, overlapping, unaligned and cut off, yield what a dictionary of bytes yields."""
    random = np.random.default_rng(seed)
    page_size = 64
    loads = random_loads(random)
    core = elf_core(loads)
    nr_body_bytes = sum(len(load.data) for load in loads)
    core = core[: len(core) - int(random.integers(0, min(300, nr_body_bytes + 1)))]
    expected = model_pages(loads, core, page_size)
    claimed = sum(max(*sizes(load)) for load in loads)
    if not expected:
        with pytest.raises(SourceError, match="has no whole page"):
            load(tmp_path, core, page_size)
        return
    snapshot = load(tmp_path, core, page_size)
    (process,) = snapshot.processes
    found = {}
    end = 0
    for region in process.regions:
        assert region.address >= end
        end = region.address + region.array.nbytes
        for index, page in enumerate(region.array):
            found[region.address + index * page_size] = page.tobytes()
    assert found == expected
    assert process.nbytes + sum(item.nbytes for item in snapshot.skipped) == claimed


def sizes(load: Load) -> tuple[int, int]:
    """filesz and memsz of a segment."""
    filesz = len(load.data) if load.filesz is None else load.filesz
    return filesz, len(load.data) if load.memsz is None else load.memsz


def random_loads(random: np.random.Generator) -> list[Load]:
    """Segments near each other, so that some overlap, some touch, and few are page-aligned."""
    loads = []
    address = 0x1000
    for _ in range(int(random.integers(1, 12))):
        data = random.integers(0, 256, int(random.integers(0, 300)), dtype=np.uint8).tobytes()
        address = max(0, address + int(random.choice([0, 0, 7, -64, -100, 128])))
        memsz = len(data) + int(random.choice([0, 0, 0, 50, -min(10, len(data))]))
        loads.append(Load(address, data, memsz=memsz, align=int(random.choice([1, 1, 1, 8]))))
        address += len(data)
    return loads


def model_pages(loads: list[Load], core: bytes, page_size: int) -> dict[int, bytes]:
    """Each page whose bytes are all there, one after the other in the file; the first segment wins."""
    bits64 = struct.Struct("<II6Q")
    headers = [bits64.unpack_from(core, 64 + index * bits64.size) for index in range(len(loads))]
    offsets: dict[int, int] = {}
    for _, _, offset, vaddr, _, filesz, memsz, _ in sorted(
        headers, key=lambda header: (header[3], header[2])
    ):
        for index in range(min(filesz, memsz)):
            if offset + index < len(core):
                offsets.setdefault(vaddr + index, offset + index)
    pages = {}
    for address in sorted(address for address in offsets if address % page_size == 0):
        first = offsets[address]
        if all(offsets.get(address + index) == first + index for index in range(page_size)):
            pages[address] = core[first : first + page_size]
    return pages

"""Writes small ELF cores, right ones and wrong ones, so that tests need no binary fixtures.

A `Load` says what a program header claims and which bytes are really in the file; the two may disagree.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EM_386, EM_PPC, EM_PPC64, EM_X86_64 = 3, 20, 21, 62
ET_EXEC, ET_CORE = 2, 4
NT_PRPSINFO = 3
PT_LOAD, PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF


@dataclass(frozen=True)
class Load:
    """One PT_LOAD. `align` and `shift`: the bytes begin at a file offset that is `shift` modulo `align`.

    `filesz` and `memsz` default to the size of `data`; `offset` to where the data really are. `kind`: another
    type of header.
    """

    vaddr: int
    data: bytes = b""
    paddr: int = 0
    filesz: int | None = None
    memsz: int | None = None
    offset: int | None = None
    align: int = 1
    shift: int = 0
    kind: int = PT_LOAD


@dataclass(frozen=True)
class Note:
    """One note: who wrote it, what it is, and its bytes."""

    owner: bytes
    type: int
    description: bytes


def elf_core(
    loads: Sequence[Load],
    notes: Sequence[Note] = (),
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = EM_X86_64,
    elf_type: int = ET_CORE,
    extended_numbering: bool | None = None,
) -> bytes:
    """Bytes of an ELF core: header, program headers, notes, memory, like the kernel writes it.

    With 65535 program headers or more (or if told so) their number goes to a section header at the end.
    """
    layout = _Layout(bits, order)
    nr_headers = len(loads) + (1 if notes else 0)
    extended = nr_headers >= _PN_XNUM if extended_numbering is None else extended_numbering
    note_bytes = b"".join(_note(note, order) for note in notes)
    body = bytearray(note_bytes)
    start = layout.header_bytes + nr_headers * layout.program_header_bytes
    headers = []
    if notes:
        headers.append(layout.program_header(PT_NOTE, start, 0, 0, len(note_bytes), 0))
    for load in loads:
        body += bytes((load.shift - start - len(body)) % load.align)
        offset = start + len(body) if load.offset is None else load.offset
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = len(load.data) if load.memsz is None else load.memsz
        headers.append(layout.program_header(load.kind, offset, load.vaddr, load.paddr, filesz, memsz))
        body += load.data
    section = layout.section_header(nr_headers) if extended else b""
    section_offset = start + len(body) if extended else 0
    header = layout.header(
        elf_type, machine, section_offset, _PN_XNUM if extended else nr_headers, 1 if extended else 0
    )
    return b"".join((header, *headers, bytes(body), section))


def prpsinfo(name: str, pid: int, *, bits: int = 64, order: str = "<", short_ids: bool = False) -> Note:
    """The note that names a process; `short_ids`: uid and gid have 16 bits, as on i386."""
    ids = "HH" if short_ids else "II"
    numbers = "4x Q" if bits == 64 else "I"
    text = struct.pack(
        f"{order}4B {numbers} {ids} 4i 16s 80s",
        0, 82, 0, 0, 0x400000, 1000, 1000, pid, 1, pid, pid, name.encode(), b"/bin/" + name.encode(),
    )  # fmt: skip
    return Note(b"CORE", NT_PRPSINFO, text)


def _note(note: Note, order: str) -> bytes:
    owner = note.owner + b"\0"
    header = struct.pack(f"{order}3I", len(owner), len(note.description), note.type)
    return header + _padded(owner) + _padded(note.description)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class _Layout:
    """The three headers of one class and byte order."""

    def __init__(self, bits: int, order: str) -> None:
        wide = bits == 64
        address = "Q" if wide else "I"
        self.ident = bytes((0x7F, 0x45, 0x4C, 0x46, 2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
        self.wide = wide
        self.elf = struct.Struct(f"{order}16s HHI {address * 3} I 6H")
        self.program = struct.Struct(f"{order}{'II6Q' if wide else '8I'}")
        self.section = struct.Struct(f"{order}II {address * 4} II {address * 2}")
        self.header_bytes = self.elf.size
        self.program_header_bytes = self.program.size

    def header(
        self, elf_type: int, machine: int, section_offset: int, nr_programs: int, nr_sections: int
    ) -> bytes:
        return self.elf.pack(
            self.ident, elf_type, machine, 1, 0, self.elf.size, section_offset, 0,
            self.elf.size, self.program.size, nr_programs, self.section.size, nr_sections, 0,
        )  # fmt: skip

    def program_header(
        self, kind: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int
    ) -> bytes:
        if self.wide:
            return self.program.pack(kind, 6, offset, vaddr, paddr, filesz, memsz, 1)
        return self.program.pack(kind, offset, vaddr, paddr, filesz, memsz, 6, 1)

    def section_header(self, nr_programs: int) -> bytes:
        return self.section.pack(0, 0, 0, 0, 0, 1, 0, nr_programs, 0, 0)

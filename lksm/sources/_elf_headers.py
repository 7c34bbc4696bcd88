"""What the headers of an ELF core say: its memory segments, and the process they belong to.

pyelftools reads the ELF header and knows the layout of notes for each class, byte order and machine. The
program headers are read as one numpy table: a core may have a million of them, and one object each would
take seconds. Nothing that a header says is believed before it was compared with the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ._file import Bytes, one_line

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_PT_LOAD = 1
_PT_NOTE = 4
_NT_PRPSINFO = 3
_PN_XNUM = 0xFFFF
_MAX_HEADERS = 1 << 24  # more than any kernel allows a process; holes of a sparse file would make billions
_MAX_NOTES = 1 << 18  # of all segments: lying sizes must not make us walk a dump in steps of twelve bytes
_MAX_OWNER = 32  # longer than any name of a note's owner
_MAX_DESCRIPTION = 1 << 10  # longer than any NT_PRPSINFO

_FIELDS_64 = (
    ("type", "u4"), ("flags", "u4"), ("offset", "u8"), ("virtual", "u8"),
    ("physical", "u8"), ("file_bytes", "u8"), ("memory_bytes", "u8"), ("align", "u8"),
)  # fmt: skip
_FIELDS_32 = (
    ("type", "u4"), ("offset", "u4"), ("virtual", "u4"), ("physical", "u4"),
    ("file_bytes", "u4"), ("memory_bytes", "u4"), ("flags", "u4"), ("align", "u4"),
)  # fmt: skip


class Segment(NamedTuple):
    """One PT_LOAD, as its header has it: addresses, file offset and sizes in bytes, none of them checked."""

    virtual: int
    physical: int
    offset: int
    file_bytes: int
    memory_bytes: int


class Program(NamedTuple):
    """The process that was dumped, from NT_PRPSINFO."""

    name: str
    pid: int


@dataclass(frozen=True)
class CoreHeaders:
    """The headers of one ELF core.

    segments: every PT_LOAD in file order. machine: pyelftools' name, "EM_X86_64". note_owners: who wrote
    notes ("CORE", "LINUX", "QEMU", "VMCOREINFO"). nr_segments_guessed: the section header that holds the
    number of segments was cut off, so they were counted otherwise.
    """

    segments: tuple[Segment, ...]
    machine: str
    program: Program | None
    note_owners: frozenset[str]
    nr_segments_guessed: bool = False


class _Note(NamedTuple):
    owner: str
    type: int
    description: bytes  # at most _MAX_DESCRIPTION bytes of NT_PRPSINFO, of all others nothing


def read_headers(file: BinaryIO, data: Bytes) -> CoreHeaders:
    """Read the headers of an ELF core; `data` is the whole file. `SourceError` if they make no sense."""
    elf = _open_elf(file)
    table, guessed = _program_headers(elf, data)
    loads = table[table["type"] == _PT_LOAD]
    if not len(loads):
        raise SourceError("is an ELF core without memory segments (PT_LOAD)")
    notes = list(islice(_all_notes(elf, data, table[table["type"] == _PT_NOTE]), _MAX_NOTES))
    return CoreHeaders(
        segments=tuple(map(Segment, *(loads[name].tolist() for name in Segment._fields))),
        machine=str(elf.header["e_machine"]),
        program=_program(elf, notes),
        note_owners=frozenset(note.owner for note in notes),
        nr_segments_guessed=guessed,
    )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """pyelftools raises errors of many types for bytes that are none of that."""
    try:
        yield
    except MemoryError:
        raise  # untested: pyelftools mostly makes something else of it
    except Exception as error:
        raise SourceError(f"has a broken {what}: {one_line(error)}") from error


def _open_elf(file: BinaryIO) -> ELFFile:
    from elftools.elf.elffile import ELFFile

    with _reading("ELF header"):
        elf = ELFFile(file)
    kind = elf.header["e_type"]
    if kind != "ET_CORE":
        raise SourceError(
            f"is an ELF file of type {kind}, not a core dump (ET_CORE); "
            "its bytes as they are can be read with lksm.sources.raw.load"
        )
    return elf


def _program_headers(elf: ELFFile, data: Bytes) -> tuple[npt.NDArray[Any], bool]:
    """The program headers as a structured array, and whether their number had to be guessed."""
    order = "<" if elf.little_endian else ">"
    fields = _FIELDS_64 if elf.elfclass == 64 else _FIELDS_32
    dtype = np.dtype([(name, order + kind) for name, kind in fields])
    start, stride, nr = (int(elf.header[name]) for name in ("e_phoff", "e_phentsize", "e_phnum"))
    if nr and stride < dtype.itemsize:
        raise SourceError(f"has {stride}-byte program headers, expected {dtype.itemsize}")
    guessed = nr == _PN_XNUM and _first_section_is_missing(elf, data)
    if guessed:
        nr = _guess_nr_headers(_table(data, dtype, start, stride, _PN_XNUM - 1), start, stride)
    elif nr == _PN_XNUM:
        nr = _nr_headers(elf)
    return _table(data, dtype, start, stride, nr), guessed


def _table(data: Bytes, dtype: np.dtype[Any], start: int, stride: int, nr: int) -> npt.NDArray[Any]:
    stop = start + nr * stride
    if nr > _MAX_HEADERS:
        raise SourceError(f"has {nr} program headers, expected at most {_MAX_HEADERS}")
    if stop > len(data):
        raise SourceError(f"has {nr} program headers up to byte {stop}, the file ends at {len(data)}")
    if not nr:
        return np.empty(0, dtype)
    return np.ndarray((nr,), dtype, buffer=data, offset=start, strides=(stride,))


def _first_section_is_missing(elf: ELFFile, data: Bytes) -> bool:
    start = int(elf.header["e_shoff"])
    return start == 0 or start + int(elf.header["e_shentsize"]) > len(data)


def _nr_headers(elf: ELFFile) -> int:
    with _reading("ELF section header"):
        return int(elf.num_segments())


def _guess_nr_headers(table: npt.NDArray[Any], start: int, stride: int) -> int:
    """Count program headers by where the first bytes that they point at begin.

    The kernel writes the section header with the real number at the very end of a core, so a truncated
    dump has lost it. But it writes notes and memory right behind the program headers.
    """
    used = table["offset"][table["file_bytes"] > 0]
    used = used[used > start]
    if not len(used):
        # untested: a core of so many segments without any bytes
        raise SourceError("has more than 65534 segments, and the section header with their number is missing")
    return max(len(table), (int(used.min()) - start) // stride)


def _all_notes(elf: ELFFile, data: Bytes, headers: npt.NDArray[Any]) -> Iterator[_Note]:
    for header in headers:
        yield from _notes(elf, data, header)


def _notes(elf: ELFFile, data: Bytes, header: Any) -> Iterator[_Note]:
    """The notes of one PT_NOTE, as far as they are in the file. Names and contents are 4-byte aligned."""
    layout = struct.Struct(f"{'<' if elf.little_endian else '>'}III")
    position = int(header["offset"])
    stop = min(position + int(header["file_bytes"]), len(data))
    while position + layout.size <= stop:
        name_size, size, kind = layout.unpack_from(data.data, position)
        name = position + layout.size
        description = name + name_size + -name_size % 4
        position = description + size + -size % 4
        if description + size > stop:
            return
        owner = bytes(data[name : name + min(name_size, _MAX_OWNER)]).partition(b"\0")[0]
        is_read = kind == _NT_PRPSINFO and owner == b"CORE"
        beginning = bytes(data[description : description + min(size, _MAX_DESCRIPTION)]) if is_read else b""
        yield _Note(_printable(owner), kind, beginning)


def _program(elf: ELFFile, notes: list[_Note]) -> Program | None:
    """Name and pid from the first NT_PRPSINFO; a note too short for its class is ignored."""
    from elftools.construct import ConstructError

    for note in notes:
        if note.owner == "CORE" and note.type == _NT_PRPSINFO:
            try:
                info = elf.structs.Elf_Prpsinfo.parse(note.description)
            except ConstructError:
                return None
            return Program(_printable(info["pr_fname"].partition(b"\0")[0]), int(info["pr_pid"]))
    return None


def _printable(text: bytes) -> str:
    """Text from a dump, safe to print: anything can be in there."""
    return "".join(char if char.isprintable() else "?" for char in text.decode("utf-8", "replace"))

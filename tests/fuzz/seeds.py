"""Where fuzzing begins: a few good inputs of each kind, made here, so that no binary files are kept."""

from __future__ import annotations

import io

import numpy as np

from elfwriter import EM_386, EM_PPC64, EM_X86_64, Load, Note, elf_core, prpsinfo
from fuzz.targets import PAGE_SIZE
from lksm.knobs import SPECS
from small_workload import SMALL

_PAGES = bytes(range(PAGE_SIZE)) * 3


def seeds(target: str) -> list[bytes]:
    """Inputs that the parser accepts, and some that it nearly does."""
    return {"elf": _elf, "raw": _raw, "npy": _npy, "toml": _toml, "knobs": _knobs}[target]()


def _elf() -> list[bytes]:
    loads = [Load(0x1000, _PAGES), Load(0x8000, _PAGES[:PAGE_SIZE], memsz=2 * PAGE_SIZE)]
    machine_dump = [Load(0, _PAGES, paddr=0x1000), Load(0, _PAGES, paddr=0xF000_0000)]
    return [
        elf_core(loads, [prpsinfo("name", 7)], machine=EM_X86_64),
        elf_core(loads, [prpsinfo("name", 7, bits=32, short_ids=True)], bits=32, machine=EM_386),
        elf_core(loads, [prpsinfo("name", 7, order=">")], order=">", machine=EM_PPC64),
        elf_core(machine_dump, [Note(b"QEMU", 0, bytes(432))]),
        elf_core(loads, extended_numbering=True),
        elf_core([Load(0x1020, _PAGES), Load(0x1060, _PAGES), Load(0x10, _PAGES, shift=3, align=16)]),
    ]


def _raw() -> list[bytes]:
    return [_PAGES, _PAGES + b"tail", bytes(PAGE_SIZE), b"EMiL" + _PAGES, *_elf()[:1], *_npy()[:1]]


def _npy() -> list[bytes]:
    arrays = [
        np.arange(96, dtype=np.uint8).reshape(3, 32),
        np.asfortranarray(np.arange(48, dtype=np.float64).reshape(8, 6)),
        np.arange(64, dtype=">u4"),
        np.zeros(0, np.uint8),
        np.zeros((2, 2), "U3"),
    ]
    files = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array)
        files.append(file.getvalue())
    with_version_2 = io.BytesIO()
    np.lib.format.write_array(with_version_2, arrays[0], version=(2, 0))
    strange = [  # of the same length, and Python or numpy has a warning of each
        files[0].replace(b"}       ", b"'\\\x1b': 1}"),
        files[0].replace(b"(3, 32)", b"(3L,32)"),
        files[0].replace(b"(3, 32), }".ljust(30), b"(4294967296, 4294967296, 8)}".ljust(30)),
    ]
    return [*files, with_version_2.getvalue(), *strange]


def _toml() -> list[bytes]:
    return [
        SMALL.encode(),
        (SMALL + "\n[engine]\nsmart_scan = true\npages_to_scan = 200\n").encode(),
        b'title = "t"\nduration_ms = 10\nmemory = {private = 1}\napps = {count = 1}\n',
    ]


def _knobs() -> list[bytes]:
    texts = [b"0", b"1\n", b"+200", b"-1", b"4294967296", b"on", b"Off", b"y", b"64K", b"0x1000", b"1.5"]
    names = [f"{name}={spec.default}".encode() for name, spec in SPECS.items()]
    return [bytes([index]) + text for index in range(len(SPECS) + 2) for text in texts] + [
        b"\0" + name for name in names
    ]

"""Telling file formats apart by their first bytes.

Everything that is not recognised is a raw image: bytes without a header. So formats that lksm knows but
cannot read are listed here by name, or their compressed bytes would be counted as if they were memory.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..errors import SourceError

HEAD_BYTES = 64  # how much of a file `recognise` wants to see


class Format(enum.Enum):
    """The file formats that have a reader."""

    RAW = "raw"
    NPY = "npy"
    ELF = "elf"


class _Foreign(NamedTuple):
    magic: bytes
    name: str
    advice: str


_READABLE = (
    (b"\x7fELF", Format.ELF),
    (b"\x93NUMPY", Format.NPY),
)

_WRITE_ELF = "write it again as an ELF core (dump-guest-memory without -z, makedumpfile -E)"
_UNPACK = "unpack it first"

_FOREIGN = (
    _Foreign(
        b"makedumpfile\0\0\0\0",
        "flattened dump",
        f"rearrange it with makedumpfile -R, and unless that gives an ELF core {_WRITE_ELF}",
    ),
    _Foreign(b"KDUMP   ", "kdump-compressed dump", _WRITE_ELF),
    _Foreign(b"DISKDUMP", "diskdump-compressed dump", _WRITE_ELF),
    _Foreign(
        b"EMiL",
        "LiME image",
        "take it with format=padded, or convert it with avml-convert --source-format lime --format raw",
    ),
    _Foreign(b"AVML", "AVML image", "convert it with avml-convert --format raw"),
    _Foreign(b"\x19\x43\x56\x54", "CRIU image", "give its pages-N.img, which is raw pages"),
    _Foreign(b"\x40\x59\x10\x55", "CRIU service image", "give pages-N.img, which is raw pages"),
    _Foreign(b"\x16\x31\x31\x58", "CRIU inventory", "give pages-N.img, which is raw pages"),
    _Foreign(b"QEVM", "QEMU migration stream", "use dump-guest-memory or pmemsave instead"),
    _Foreign(b"LibvirtQemud", "libvirt saved guest", "use virsh dump --memory-only instead"),
    _Foreign(b"PAGEDU64", "Windows kernel dump", "convert it to a raw image first"),
    _Foreign(b"PAGEDUMP", "Windows kernel dump", "convert it to a raw image first"),
    _Foreign(b"MDMP", "Windows minidump", "convert it to a raw image first"),
    _Foreign(b"PK\x03\x04", "zip or .npz archive", _UNPACK),
    _Foreign(b"\x1f\x8b\x08", "gzip-compressed file", _UNPACK),
    _Foreign(b"\xfd7zXZ\0", "xz-compressed file", _UNPACK),
    _Foreign(b"\x28\xb5\x2f\xfd", "zstd-compressed file", _UNPACK),
)


def recognise(head: bytes) -> Format:
    """Name the format of a file from its first bytes; a known format without a reader is a `SourceError`."""
    for magic, known in _READABLE:
        if head.startswith(magic):
            return known
    for foreign in _FOREIGN:
        if head.startswith(foreign.magic):
            raise SourceError(f"is a {foreign.name}, which cannot be read: {foreign.advice}")
    return Format.RAW

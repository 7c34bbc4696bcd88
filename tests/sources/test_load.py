"""`lksm.sources.load`: the right reader, or one line that says why not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elfwriter import ET_EXEC, Load, elf_core
from lksm import sources
from lksm.errors import SourceError

PAGE = 4096


def refusal(path: str | os.PathLike[str], page_size: int = PAGE) -> str:
    """The one line with which `load` refuses a path, without the path; checks that it is one line."""
    with pytest.raises(SourceError) as caught:
        sources.load(path, page_size=page_size)
    message = str(caught.value)
    assert message.startswith(f"{os.fspath(path)}: ")
    assert "\n" not in message
    assert not message.endswith(".")
    return message.removeprefix(f"{os.fspath(path)}: ")


def test_elf_core_npy_and_raw_are_told_apart(tmp_path: Path) -> None:
    """Each known format is read by its own reader, whatever the file is called."""
    page = bytes(range(256)) * 16
    (tmp_path / "a.raw").write_bytes(elf_core([Load(0x7000, page)]))
    np.save(tmp_path / "b.npy", np.frombuffer(page * 2, np.uint32))
    (tmp_path / "b.npy").rename(tmp_path / "b.core")
    (tmp_path / "c.npy").write_bytes(page * 3)
    addresses_and_pages = []
    for name in ("a.raw", "b.core", "c.npy"):
        (process,) = sources.load(tmp_path / name).processes
        (region,) = process.regions
        assert region.array.tobytes() == page * len(region.array)
        addresses_and_pages.append((region.address, len(region.array)))
    assert addresses_and_pages == [(0x7000, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize("name", ["a.raw", "a.npy", "a.core"])
def test_files_are_immutable_frozen_and_read_only(tmp_path: Path, name: str) -> None:
    """Every file source promises immutable and frozen pages, and numpy refuses to write to them."""
    path = tmp_path / name
    page = b"x" * PAGE
    if name == "a.npy":
        np.save(path, np.frombuffer(page, np.uint8))
    else:
        path.write_bytes(page if name == "a.raw" else elf_core([Load(0, page)]))
    (process,) = sources.load(path).processes
    assert process.immutable and process.frozen
    assert process.source == str(path)
    assert process.name == name
    assert process.pid is None
    assert not process.regions[0].array.flags.writeable


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"KDUMP   ", "kdump-compressed"),
        (b"DISKDUMP", "diskdump"),
        (b"makedumpfile\0\0\0\0", "makedumpfile -R"),
        (0x4C694D45.to_bytes(4, "little"), "LiME"),
        (0x4C4D5641.to_bytes(4, "little"), "AVML"),
        (0x54564319.to_bytes(4, "little"), "pages-N.img"),
        (0x55105940.to_bytes(4, "little"), "CRIU"),
        (0x58313116.to_bytes(4, "little"), "CRIU"),
        (b"QEVM", "dump-guest-memory"),
        (b"LibvirtQemudSave", "virsh dump --memory-only"),
        (b"LibvirtQemudPart", "virsh dump --memory-only"),
        (b"PAGEDU64", "Windows"),
        (b"MDMP", "Windows"),
        (b"PK\x03\x04", "unpack"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ],
)
def test_known_formats_without_a_reader_are_refused(tmp_path: Path, head: bytes, said: str) -> None:
    """A format that lksm knows but cannot read is never counted as raw pages; the error says what to do."""
    path = tmp_path / "image"
    path.write_bytes(head.ljust(2 * PAGE, b"\0"))
    assert said in refusal(path)


def test_an_executable_is_refused(tmp_path: Path) -> None:
    """An ELF file that is not a core is most likely a mistake; the error names the way to read it anyway."""
    path = tmp_path / "program"
    path.write_bytes(elf_core([Load(0, b"x" * PAGE)], elf_type=ET_EXEC))
    assert "ET_EXEC" in refusal(path)
    assert "lksm.sources.raw.load" in refusal(path)
    assert "not a core dump" in refusal(sys.executable)


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    """Directories, FIFOs, sockets and devices are refused by kind, without waiting for a writer."""
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    assert refusal(tmp_path) == "is a directory, expected a file"
    assert refusal(tmp_path / "fifo") == "is a FIFO, expected a file"
    assert refusal(tmp_path / "socket") == "is a socket, expected a file"
    assert refusal("/dev/zero") == "is a character device, expected a file"


def test_missing_empty_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A file that is not there, empty, or in a loop of links is refused with the system's own words."""
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal(tmp_path / "missing") == "No such file or directory"
    assert refusal(tmp_path / "empty") == "is empty, expected at least one page"
    assert refusal(tmp_path / "loop") == "Too many levels of symbolic links"
    with pytest.raises(SourceError, match="null byte"):
        sources.load("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    """A file that may not be read is refused with the system's own words."""
    path = tmp_path / "secret"
    path.write_bytes(b"x" * PAGE)
    path.chmod(0)
    assert refusal(path) == "Permission denied"


def test_permission_denied_is_a_source_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of opening becomes a SourceError also where the tests run as root."""
    path = tmp_path / "secret"
    path.write_bytes(b"x" * PAGE)

    def deny(*args: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", deny)
    assert refusal(path) == "Permission denied"


@pytest.mark.parametrize("page_size", [0, -4096, 4095, 6144])
@pytest.mark.parametrize("name", ["a.raw", "a.npy", "a.core"])
def test_a_page_size_is_a_power_of_two(tmp_path: Path, name: str, page_size: int) -> None:
    """Every reader refuses page sizes that no machine has."""
    path = tmp_path / name
    data = np.zeros(PAGE, np.uint8)
    if name == "a.npy":
        np.save(path, data)
    else:
        path.write_bytes(data.tobytes() if name == "a.raw" else elf_core([Load(0, data.tobytes())]))
    assert refusal(path, page_size) == f"page size is {page_size}, expected a power of two"


def test_importing_sources_does_not_import_their_dependencies() -> None:
    """Neither pyelftools nor psutil is loaded before a source needs it."""
    code = "import sys, lksm.sources; print(*{'elftools', 'psutil', 'lksm.sources.live'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []

"""Headers of `.npy` files that once got to the terminal past our one line, and files swapped meanwhile.

A header is Python text that numpy reads, and both have warnings of their own, which show what they warn of. A
program is run with every warning on, for only its standard error shows what really gets out.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from lksm.errors import SourceError
from lksm.sources import Snapshot, npy
from lksm.sources._file import MappedFile
from run_lksm import run

PAGE = 4096


def with_header(header: str, body: bytes = b"") -> bytes:
    """A file of version 1.0 with any header."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4096,), '\\\x1b[31m': 1}",  # no escape of Python
        "{'descr':'<f8','fortran_order':False,'shape':(4294967296,4294967296,2),}",  # numpy's count overflows
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4096,), 'x': 1or 2}",  # digits before a letter
        "{'descr': 'a5', 'fortran_order': False, 'shape': (4096,)}",  # a dtype that numpy wants to get rid of
        "-" * 9000 + "1",  # more than Python's parser takes: it says that there is no memory
    ],
    ids=["escape", "overflow", "number", "old dtype", "nested"],
)
def test_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """Nothing of a strange header gets to the terminal but in one printable line."""
    path = tmp_path / "a.npy"
    path.write_bytes(with_header(header, bytes(PAGE)))
    monkeypatch.setenv("PYTHONWARNINGS", "always")
    done = run("scan", path)
    assert done.stderr.startswith(f"lksm: {path}: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    assert (done.returncode, done.stdout) == (2, "")


def test_accepted_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that Python 2 wrote has longs in its shape: it is read, and nobody is told to write it again."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (8192L,), }"
    (tmp_path / "a.npy").write_bytes(with_header(header, bytes(2 * PAGE)))
    monkeypatch.setenv("PYTHONWARNINGS", "always")
    done = run("scan", tmp_path / "a.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 pages" in done.stdout


def load_swapped(path: Path, monkeypatch: pytest.MonkeyPatch, by: Path) -> Snapshot:
    """Load a file whose path is another one's once it is mapped; fail after some seconds of waiting."""

    class Swapped(MappedFile):
        def __init__(self, file: BinaryIO, source: str) -> None:
            super().__init__(file, source)
            os.replace(by, path)

    found: list[Snapshot] = []
    failed: list[SourceError] = []

    def load() -> None:
        try:
            found.append(npy.load(path))
        except SourceError as error:
            failed.append(error)

    monkeypatch.setattr(npy, "MappedFile", Swapped)
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(10)
    has_hung = thread.is_alive()
    if has_hung:  # let it go, or it would be there for the tests to come
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        thread.join(10)
    assert not has_hung
    assert not failed
    return found[0]


def test_a_fifo_in_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not opened again by its path, which may be a FIFO by now that nobody writes to."""
    array = np.arange(2 * PAGE, dtype="<u8")
    np.save(tmp_path / "a.npy", array)
    os.mkfifo(tmp_path / "fifo")
    (process,) = load_swapped(tmp_path / "a.npy", monkeypatch, tmp_path / "fifo").processes
    assert process.regions[0].array.tobytes() == array.tobytes()


def test_another_file_in_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header is that of the file whose pages are shown, not of what is found at its path by now."""
    array = np.arange(8 * PAGE, dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ones(PAGE, np.uint8))
    (process,) = load_swapped(tmp_path / "a.npy", monkeypatch, tmp_path / "b.npy").processes
    assert process.regions[0].array.tobytes() == array.tobytes()

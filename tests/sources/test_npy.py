"""`lksm.sources.npy`: the bytes of one array, in file order."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

from lksm.errors import SourceError
from lksm.sources import npy
from lksm.sources._file import MappedFile

PAGE = 4096


def save(path: Path, array: npt.NDArray[Any]) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", ["u1", "?", "<i8", ">f8", "c16", "f2", "g"])
def test_any_plain_numbers_are_bytes(tmp_path: Path, dtype: str) -> None:
    """Every numeric dtype, of either byte order, is taken as the bytes of its array."""
    array = np.frombuffer(np.arange(3 * PAGE, dtype=np.uint8).tobytes(), dtype)
    (process,) = npy.load(save(tmp_path / "a.npy", array)).processes
    (region,) = process.regions
    assert region.address == 0
    assert region.array.shape == (3, PAGE)
    assert region.array.dtype == np.uint8
    assert region.array.tobytes() == array.tobytes()


def test_fortran_order_is_taken_as_it_lies_in_the_file(tmp_path: Path) -> None:
    """An array stored column by column yields its columns, without a copy."""
    array = np.asfortranarray(np.arange(4 * PAGE, dtype=np.uint8).reshape(64, -1) * np.uint8(7))
    (process,) = npy.load(save(tmp_path / "a.npy", array)).processes
    assert process.regions[0].array.tobytes() == array.tobytes(order="F")
    assert not process.regions[0].array.flags.owndata
    assert array.tobytes(order="F") != array.tobytes(order="C")


def test_tail_and_trailing_bytes_are_reported(tmp_path: Path) -> None:
    """What is behind the last whole page, and behind the array, is left out and reported apart."""
    path = save(tmp_path / "a.npy", np.zeros(PAGE + 100, np.uint8))
    with open(path, "ab") as file:
        file.write(b"more!")
    snapshot = npy.load(path)
    assert snapshot.processes[0].nbytes == PAGE
    assert [(item.what, item.nbytes) for item in snapshot.skipped] == [
        ("tail", 100),
        ("bytes after the array", 5),
    ]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([None] * 10000), "cannot be read as .npy: .*[Oo]bject"),
        (np.zeros(1000, [("a", "u4"), ("b", "u1")]), "expected plain numbers"),
        (np.full(1000, "text"), "expected plain numbers"),
        (np.full(1000, b"text"), "expected plain numbers"),
        (np.zeros(1000, "M8[s]"), "expected plain numbers"),
        (np.zeros(PAGE - 1, np.uint8), "4095 bytes, less than one page"),
        (np.uint8(5), "less than one page"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: npt.NDArray[Any], said: str) -> None:
    """Objects, structures, text, dates and less than a page are a SourceError that says so."""
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(SourceError, match=said):
        npy.load(tmp_path / "a.npy")


def test_an_array_without_elements_is_refused(tmp_path: Path) -> None:
    """An array of shape (0,) is a SourceError, not an error of the mapping."""
    with pytest.raises(SourceError):
        npy.load(save(tmp_path / "a.npy", np.zeros(0, np.uint8)))


class Payload:
    """Unpickling one of these makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    """A file that holds a pickle instead of an array is refused without running what is in it."""
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(SourceError, match=r"cannot be read as \.npy"):
        npy.load(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    """A file that ends before its array does is a SourceError."""
    path = save(tmp_path / "a.npy", np.ones(4 * PAGE, np.uint8))
    path.write_bytes(path.read_bytes()[: 2 * PAGE])
    with pytest.raises(SourceError, match=r"a\.npy: cannot be read as \.npy: "):
        npy.load(path)


def test_no_header_makes_another_error(tmp_path: Path) -> None:
    """Whatever stands in the header, there are pages or a SourceError of one line, and no warning."""
    good = save(tmp_path / "a.npy", np.ones(PAGE, np.uint8)).read_bytes()
    random = np.random.default_rng(3)
    reasons = []
    for _ in range(300):
        bad = bytearray(good)
        for place in random.integers(6, 80, 2):
            bad[place] = int(random.integers(0, 256))
        (tmp_path / "b.npy").write_bytes(bad)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")  # an error could be taken for one of numpy's
            try:
                npy.load(tmp_path / "b.npy")
            except SourceError as error:
                reasons.append(str(error))
        assert shown == []
    assert len(reasons) > 100
    assert not any("\n" in reason for reason in reasons)


def test_a_zip_of_arrays_is_refused(tmp_path: Path) -> None:
    """What numpy opens as an .npz file is no single array, whatever its name."""
    np.savez(tmp_path / "a.npz", a=np.ones(PAGE, np.uint8))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(SourceError, match=r"a\.npy: cannot be read as \.npy: it holds no array"):
        npy.load(tmp_path / "a.npy")


def with_header(header: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """The beginning of a file, up to its array."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    """All versions of the format are read; they differ in the length and the letters of the header."""
    array = np.arange(2 * PAGE, dtype=np.uint8)
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=version)
    (process,) = npy.load(tmp_path / "a.npy").processes
    assert process.regions[0].array.tobytes() == array.tobytes()


PLAIN = "{'descr': '|u1', 'fortran_order': False, 'shape': (4096,)}"


def with_shape(shape: str) -> bytes:
    """The beginning of a file of bytes with any dimensions."""
    return with_header(PLAIN.replace("4096,", shape))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (with_header(PLAIN, (4, 0)), r"it has version 4\.0, expected 1\.0, 2\.0 or 3\.0"),
        (with_header(PLAIN, (1, 1)), r"it has version 1\.1, expected 1\.0, 2\.0 or 3\.0"),
        (with_header(PLAIN)[:7], "EOF"),
        (with_header(PLAIN)[:9], "EOF"),
        (with_header(PLAIN)[:30], "EOF"),
        (with_header(PLAIN + " " * 10_000), "its header has 10059 bytes, expected at most 10000"),
        (with_header(PLAIN, (2, 0))[:8] + b"\xff" * 4, "its header has 4294967295 bytes, expected at"),
        (with_shape("-4096,"), "dimension 0 of its shape is none that an array can have"),
        (with_shape("4096, True"), "dimension 1 of its shape is none that an array can have"),
        (with_shape("0, 0x1" + "0" * 9000), "dimension 1 of its shape is none that an array can have"),
        (with_shape("1," * 65), "it has 65 dimensions, expected at most 64"),
        (with_shape("1 << 12,"), "malformed node"),
        (with_shape("4294967296, 4294967296, 2"), "ends at byte 89, its array at byte 36893488147419103321$"),
        (with_shape("9223372036854775807," * 64), r"the file ends at byte \d+, its array at byte \d+"),
        (with_header("-" * 9000 + "1"), "its header is nested too deeply"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(tmp_path: Path, head: bytes, said: str) -> None:
    """Versions, lengths and shapes that no array has are a SourceError of one line that says so."""
    (tmp_path / "a.npy").write_bytes(head)
    with pytest.raises(SourceError, match=rf"a\.npy: cannot be read as \.npy: .*{said}") as caught:
        npy.load(tmp_path / "a.npy")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_an_array_of_many_dimensions(tmp_path: Path) -> None:
    """Of the dimensions only their product matters; a file that is one byte short of it is refused."""
    (tmp_path / "a.npy").write_bytes(with_shape("2, " * 12) + bytes(PAGE))
    assert npy.load(tmp_path / "a.npy").processes[0].nbytes == PAGE
    os.truncate(tmp_path / "a.npy", os.path.getsize(tmp_path / "a.npy") - 1)
    with pytest.raises(SourceError, match=r"the file ends at byte (\d+), its array at byte \d+$"):
        npy.load(tmp_path / "a.npy")


@pytest.mark.parametrize("left", [0, 5, 100])
def test_a_file_cut_before_its_header_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """What is gone of the header reads as zeros, which no header is made of: a SourceError, no signal."""

    class Cut(MappedFile):
        def __init__(self, file: BinaryIO, source: str) -> None:
            super().__init__(file, source)
            os.truncate(source, left)

    save(tmp_path / "a.npy", np.ones(4 * PAGE, np.uint8))
    monkeypatch.setattr(npy, "MappedFile", Cut)
    with pytest.raises(SourceError, match=r"a\.npy: cannot be read as \.npy: "):
        npy.load(tmp_path / "a.npy")


def test_warnings_of_others_stay_as_they_are(tmp_path: Path) -> None:
    """Threads that load at the same time leave Python's filters of warnings as they were."""
    path = save(tmp_path / "a.npy", np.ones(PAGE, np.uint8))
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [npy.load(path) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


FORKS = """
import os, sys, threading, time, warnings
from lksm.sources import npy

warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of a fork with threads
before, (length_bytes, read) = list(warnings.filters), npy._VERSIONS[1, 0]
is_reading = threading.Event()

def read_slowly(*arguments, **options):
    is_reading.set()
    time.sleep(0.2)
    return read(*arguments, **options)

npy._VERSIONS[1, 0] = length_bytes, read_slowly
thread = threading.Thread(target=npy.load, args=sys.argv[1:])
thread.start()
is_reading.wait()
child = os.fork()
if not child:
    npy.load(sys.argv[1])
    os._exit(list(warnings.filters) != before)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or list(warnings.filters) != before)
"""


def test_a_fork_while_another_thread_loads(tmp_path: Path) -> None:
    """The child can load files too, and has the filters of warnings that its parent had before."""
    path = save(tmp_path / "a.npy", np.ones(PAGE, np.uint8))
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORKS, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""`lksm.sources.npy`: the bytes of one array, in file order."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lksm.errors import SourceError
from lksm.sources import npy

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


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_no_header_makes_another_error(tmp_path: Path) -> None:
    """Whatever stands in the header, the outcome is pages or a SourceError of one line."""
    good = save(tmp_path / "a.npy", np.ones(PAGE, np.uint8)).read_bytes()
    random = np.random.default_rng(3)
    reasons = []
    for _ in range(300):
        bad = bytearray(good)
        for place in random.integers(6, 80, 2):
            bad[place] = int(random.integers(0, 256))
        (tmp_path / "b.npy").write_bytes(bad)
        try:
            npy.load(tmp_path / "b.npy")
        except SourceError as error:
            reasons.append(str(error))
    assert len(reasons) > 100
    assert not any("\n" in reason for reason in reasons)


def test_a_zip_of_arrays_is_refused(tmp_path: Path) -> None:
    """What numpy opens as an .npz file is no single array, whatever its name."""
    np.savez(tmp_path / "a.npz", a=np.ones(PAGE, np.uint8))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(SourceError, match=r"a\.npy: cannot be read as \.npy: it holds no array"):
        npy.load(tmp_path / "a.npy")

"""A file that loses pages while it is mapped: an error of its source, and never the end of the program."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lksm
from elfwriter import Load, elf_core
from helpers import PAGE_SIZE, unique_pages
from lksm.errors import SourceError
from lksm.sources import SourceProcess, _sigbus, load
from run_lksm import NOT_OURS_UNDER_SANITIZER

NR_PAGES = 64


def save_raw(path: Path) -> None:
    unique_pages(NR_PAGES).tofile(path)


def save_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, unique_pages(NR_PAGES))


def save_core(path: Path) -> None:
    path.write_bytes(elf_core([Load(0x10000, unique_pages(NR_PAGES).tobytes(), align=PAGE_SIZE)]))


SAVERS = (save_raw, save_npy, save_core)


def loaded(path: Path) -> SourceProcess:
    (process,) = load(path).processes
    return process


def attached(process: SourceProcess) -> lksm.Engine:
    engine = lksm.Engine(initial_rounds=0)
    engine.attach(list(process.regions), mergeable=True, immutable=True, frozen=True)
    return engine


@pytest.mark.parametrize("save", SAVERS)
def test_a_file_cut_in_the_middle_of_a_scan(tmp_path: Path, save: Callable[[Path], None]) -> None:
    """The batch goes on over zeros to its end, and then the source says that the file has shrunk."""
    save(tmp_path / "f")
    process = loaded(tmp_path / "f")
    engine = attached(process)
    engine.crawl("full")
    assert engine.scan(10) == 10
    process.expect_whole()
    before = os.path.getsize(tmp_path / "f")
    os.truncate(tmp_path / "f", 3 * PAGE_SIZE)
    assert engine.scan(10**6) == NR_PAGES - 10
    with pytest.raises(SourceError) as caught:
        process.expect_whole()
    said = f"{tmp_path / 'f'}: has shrunk from {before} to {3 * PAGE_SIZE} bytes while it was read"
    assert str(caught.value) == said
    assert not process.regions[0].array[-1].any()
    engine.close()


def test_a_cut_within_the_last_page(tmp_path: Path) -> None:
    """The rest of the page reads as zeros without any signal; it is told all the same."""
    save_raw(tmp_path / "f")
    process = loaded(tmp_path / "f")
    os.truncate(tmp_path / "f", NR_PAGES * PAGE_SIZE - 100)
    assert not process.regions[0].array[-1, -100:].any()
    with pytest.raises(SourceError, match="has shrunk"):
        process.expect_whole()


def test_a_file_that_has_its_size_again(tmp_path: Path) -> None:
    """If pages were missed meanwhile, that is remembered when the file has grown again."""
    save_raw(tmp_path / "f")
    process = loaded(tmp_path / "f")
    os.truncate(tmp_path / "f", PAGE_SIZE)
    assert not process.regions[0].array[5].any()
    save_raw(tmp_path / "f")
    with pytest.raises(SourceError, match="has lost pages while it was read"):
        process.expect_whole()
    assert not process.regions[0].array[5].any()


def test_one_file_of_two(tmp_path: Path) -> None:
    """Only the file that has shrunk is told, and the other one reads as before."""
    save_raw(tmp_path / "f")
    save_raw(tmp_path / "g")
    one, other = loaded(tmp_path / "f"), loaded(tmp_path / "g")
    os.truncate(tmp_path / "f", 0)
    assert not one.regions[0].array.any()
    other.expect_whole()
    assert (other.regions[0].array == unique_pages(NR_PAGES)).all()
    with pytest.raises(SourceError, match="to 0 bytes"):
        one.expect_whole()


@pytest.mark.parametrize("seed", range(8))
def test_cut_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Scans on one thread while another one cuts the file, piece by piece: an error, never a signal."""
    random = np.random.default_rng(seed)
    path = tmp_path / "f"
    equal = np.repeat(unique_pages(256), 8, axis=0)
    equal.tofile(path)
    process = loaded(path)
    engine = attached(process)

    def cut() -> None:
        time.sleep(random.random() / 100)
        for size in sorted(random.integers(0, len(equal) * PAGE_SIZE, 10).tolist(), reverse=True):
            os.truncate(path, size)

    cutter = threading.Thread(target=cut)
    cutter.start()
    while cutter.is_alive():
        engine.full()
    cutter.join()
    engine.full()
    engine.groups()
    engine.counters()
    with pytest.raises(SourceError, match="has shrunk"):
        process.expect_whole()
    engine.close()


def test_many_islands(tmp_path: Path) -> None:
    """However many pages are missed, and in whatever order, they take one more mapping, not one each."""
    path = tmp_path / "f"
    np.zeros((5000, PAGE_SIZE), np.uint8).tofile(path)
    process = loaded(path)

    def nr_mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    before = nr_mappings()
    os.truncate(path, 0)
    order = np.random.default_rng(1).permutation(5000)
    assert sum(int(process.regions[0].array[page, 0]) for page in order) == 0
    assert nr_mappings() <= before + 20


def test_guards_are_given_back(tmp_path: Path) -> None:
    """When the last view of a file has gone its guard serves another file."""
    save_raw(tmp_path / "f")

    def number() -> int:
        file = loaded(tmp_path / "f").file
        assert file is not None
        return file._mapping.guard

    gc.collect()  # files of earlier tests
    assert len({number() for _ in range(100)}) == 1


_STRANGER = """
import faulthandler, mmap, os, signal, sys, tempfile
from lksm.sources import load
order = sys.argv[2]
if "before" in order: faulthandler.enable()
process = load(sys.argv[1]).processes[0]
if "after" in order: faulthandler.enable()
if "sent" in order: os.kill(os.getpid(), 7)
with open(sys.argv[1], "rb") as file:
    stranger = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate(sys.argv[1], 0)
if "after" not in order: assert process.regions[0].array[9, 9] == 0
print("still here", flush=True)
print(stranger[5000])
"""


@NOT_OURS_UNDER_SANITIZER
@pytest.mark.parametrize("order", ["plain", "before", "after", "sent", "before sent", "after sent"])
def test_signals_that_are_none_of_ours(tmp_path: Path, order: str) -> None:
    """SIGBUS of any other mapping, or sent by somebody, does what it does without lksm, and once."""
    save_raw(tmp_path / "f")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _STRANGER, tmp_path / "f", order],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGBUS
    assert done.stdout == ("" if "sent" in order else "still here\n")
    reports = done.stderr.count("Fatal Python error: Bus error")
    assert reports == 0 if order in ("plain", "sent") else 1 <= reports <= 2


def test_the_signal_is_taken_back(tmp_path: Path) -> None:
    """Whoever takes SIGBUS between two files loses it to the second one."""
    save_raw(tmp_path / "f")
    first = loaded(tmp_path / "f")
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    second = loaded(tmp_path / "f")
    os.truncate(tmp_path / "f", 0)
    assert not first.regions[0].array.any()
    assert not second.regions[0].array.any()


def test_bad_numbers() -> None:
    """No guard is no number; what Python checks is checked."""
    with pytest.raises(TypeError):
        _sigbus.add("here")  # type: ignore[arg-type]
    with pytest.raises(SystemError):
        _sigbus.is_torn(0)

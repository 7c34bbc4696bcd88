"""How long does `lksm scan` take, in times of reading the same bytes once? Of a dump, and of live processes.

    python benchmarks/reading.py [--gib 4] [--turns 5] [--dir DIR] [core unique half zero live]

`core` is a gcore dump of a process with mixed content: a quarter zeros, a quarter pages that come twice, the
rest without a twin. `unique`, `half` and `zero` are page sets of lksm.sources.synthetic as raw images. All
are in the page cache, which is checked. Each turn everybody works once:

    read      read() of the whole file into one buffer of 1 MiB, again and again
    sum       the file mapped, and the sum of all its words in C, page faults included
    scan      the whole command `lksm scan FILE`, Python's start and end included

`live` are three processes of the mixed content, a quarter of the size each. There `read` is process_vm_readv
of all that /proc/PID/maps shows as writable and private into one buffer of 4 MiB, and `copy` the same into
memory of its own, which is what who compares pages has to hold.

The merge result is held to a count of digests of all pages. Fails where scan takes longer than 1.5 x read of
a file.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import xxhash

from lksm.sources import load, synthetic
from suite.peers import read_all

PAGE = 4096
TARGET = 1.5  # x the time of read, for files
FILES = ("core", "unique", "half", "zero")
SCAN = (str(Path(sys.executable).with_name("lksm")), "scan")
CHILD = """
import sys, time
import numpy as np
random, kept, previous = np.random.default_rng(int(sys.argv[2])), [], None
for number in range(int(sys.argv[1]) // 16384):
    block = random.integers(0, 2**64, (64, 256, 512), np.uint64)
    block[0::4] = 0
    if number % 2:
        block[1::4] = previous[1::4]
    kept.append(block)
    previous = block
print("ready", flush=True)
time.sleep(3600)
"""
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def child(nr_pages: int, seed: int) -> Iterator[int]:
    """A process that holds so many pages of mixed content; its pid."""
    command = [sys.executable, "-c", CHILD, str(nr_pages), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def make(name: str, nr_pages: int, directory: Path) -> Path:
    """A dump of that content."""
    path = directory / name
    if name != "core":
        pages = synthetic.make(name, nr_pages)
        with path.open("wb") as file:
            for start in range(0, nr_pages, 1 << 14):
                file.write(pages[start : start + (1 << 14)].data)
        return path
    with child(nr_pages, 0) as pid:
        command = ["gcore", "-o", str(path), str(pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return directory / f"core.{pid}"


def expect_in_page_cache(path: Path) -> None:
    """Every page of the file, by mincore()."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = np.frombuffer(mapping, np.uint8)
        resident = np.zeros((size + PAGE - 1) // PAGE, np.uint8)
        pointers = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size)
        assert _libc.mincore(*pointers, ctypes.c_void_p(resident.ctypes.data)) == 0
        del view
    assert (resident & 1).all(), f"{path} is not all in the page cache"


def counted(path: Path) -> tuple[int, int, int]:
    """What merging gives, by digests: contents with a twin, further pages of these, pages without one."""
    digests: Counter[int] = Counter()
    for region in load(path).processes[0].regions:
        digests.update(map(xxhash.xxh3_64_intdigest, region.array))
    merged = [count for count in digests.values() if count > 1]
    return len(merged), sum(merged) - len(merged), len(digests) - len(merged)


def by_read(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def by_sum(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        words = np.frombuffer(mapping, np.uint64, len(mapping) // 8)
        read_all()(words.ctypes.data, words.size)
        del words


def by_scan(arguments: Sequence[str]) -> None:
    subprocess.run([*SCAN, *arguments], check=True, stdout=subprocess.DEVNULL)


def scanned(arguments: Sequence[str]) -> dict[str, int]:
    """The counters of that scan."""
    command = [*SCAN, "--json", *arguments]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    counters: dict[str, int] = report["counters"]
    return counters


def private_ranges(pid: int) -> list[tuple[int, int]]:
    """Start and stop of what the process may write and nobody else sees."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    fields = [line.split() for line in lines]
    spans = [field[0].split("-") for field in fields if field[1].startswith("rw-p") and "[v" not in field[-1]]
    return [(int(start, 16), int(stop, 16)) for start, stop in spans]


def by_vm_readv(pids: Sequence[int], *, keeps: bool) -> None:
    """All private ranges, 4 MiB at a time: into one buffer, or, if it `keeps` them, into fresh memory."""
    piece = 1 << 22
    for pid in pids:
        for start, stop in private_ranges(pid):
            kept = np.empty(stop - start if keeps else piece, np.uint8)
            for at in range(start, stop, piece):
                target = kept.ctypes.data + (at - start if keeps else 0)
                vectors = [(ctypes.c_size_t * 2)(here, min(piece, stop - at)) for here in (target, at)]
                _libc.process_vm_readv(pid, vectors[0], 1, vectors[1], 1, 0)


def take_turns(turns: int, contenders: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(what: str, nbytes: int, medians: dict[str, float]) -> float:
    """Prints a line; returns scan's time in times of read's."""
    ratio = medians["scan"] / medians["read"]
    times = "  ".join(f"{name} {seconds:6.3f} s" for name, seconds in medians.items())
    print(f"{what:8} {nbytes / 2**30:5.2f} GiB  {times}  scan is {ratio:.2f} x read", flush=True)
    return ratio


def measure_file(name: str, nr_pages: int, turns: int, directory: Path) -> float:
    path = make(name, nr_pages, directory)
    try:
        found = scanned([str(path)])
        assert (found["pages_shared"], found["pages_sharing"], found["pages_unshared"]) == counted(path)
        expect_in_page_cache(path)
        contenders = {
            "read": lambda: by_read(path),
            "sum": lambda: by_sum(path),
            "scan": lambda: by_scan([str(path)]),
        }
        medians = take_turns(turns, contenders)
        expect_in_page_cache(path)
        return show(name, path.stat().st_size, medians)
    finally:
        path.unlink()


def measure_live(nr_pages: int, turns: int) -> None:
    with ExitStack() as children:
        pids = [children.enter_context(child(nr_pages // 4, seed)) for seed in (1, 1, 2)]
        found = scanned(["--pid", *map(str, pids)])
        nr_blocks = nr_pages // 4 // 16384
        assert found["pages_sharing"] >= nr_blocks * 16384 * 3 // 2  # the second is as the first
        arguments = ["--pid", *map(str, pids)]
        contenders = {
            "read": lambda: by_vm_readv(pids, keeps=False),
            "copy": lambda: by_vm_readv(pids, keeps=True),
            "scan": lambda: by_scan(arguments),
        }
        nbytes = found["pages_scanned"] * PAGE
        show("live", nbytes, take_turns(turns, contenders))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("contents", nargs="*", default=[*FILES, "live"], metavar="CONTENT")
    parser.add_argument("--gib", type=float, default=4.0, help="size of each dump (default 4)")
    parser.add_argument("--turns", type=int, default=5, help="how often each works (default 5)")
    parser.add_argument("--dir", type=Path, help="where the dumps are made (default: a temporary directory)")
    options = parser.parse_args()
    nr_pages = int(options.gib * 2**30) // PAGE // (1 << 16) * (1 << 16)
    ratios = []
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for name in options.contents:
            if name == "live":
                measure_live(nr_pages, options.turns)
            else:
                ratios.append(measure_file(name, nr_pages, options.turns, Path(directory)))
    return int(any(ratio > TARGET for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())

"""Real process dumps: `lksm scan` against a dict of xxhash digests over the same bytes.

    python benchmarks/dumps.py [--gib 2] [--runs 5] [--dir DIR]

Starts Python processes that parse different parts of the standard library, dumps them with gcore, counts
the pages by brute force, and holds `lksm scan --json --top 0` to that count. Then times both over the same
bytes in turns, all from the page cache, and prints medians, the ratio, and the peak of anonymous memory.
Needs gdb, and ptrace for the user who runs it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

PAGE = 4096
LKSM = str(Path(sys.executable).with_name("lksm"))
CHILD = """
import ast, pathlib, sys, sysconfig, time
files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).rglob("*.py"))
number, of = int(sys.argv[1]), int(sys.argv[2])
kept, size = [], 0
for path in files[number :: of] + files:
    try:
        text = path.read_text()
        kept.append((text, ast.parse(text)))
    except (SyntaxError, UnicodeDecodeError, RecursionError):
        continue
    size += len(text)
    if size > int(sys.argv[3]):
        break
print("ready", flush=True)
time.sleep(3600)
"""
# What a user without lksm would write: the peer that has to be beaten.
BRUTE_FORCE = """
import collections, mmap, sys, time, xxhash
from elftools.elf.elffile import ELFFile
began = time.perf_counter()
counts = collections.Counter()
for path in sys.argv[1:]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as dump:
        view = memoryview(dump)
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            start = segment["p_offset"]
            for at in range(start, start + segment["p_filesz"] // 4096 * 4096, 4096):
                counts[xxhash.xxh3_64_intdigest(view[at : at + 4096])] += 1
        view.release()
merged = {digest: pages for digest, pages in counts.items() if pages > 1}
print(sum(counts.values()), len(merged), sum(merged.values()) - len(merged))
print((time.perf_counter() - began) * 1000)
"""


def make_dumps(directory: Path, gib: float) -> list[Path]:
    """gcore files of real processes, at least `gib` GiB together."""
    dumps: list[Path] = []
    while sum(dump.stat().st_size for dump in dumps) < gib * 2**30:
        number = len(dumps)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(number), "40", "2500000"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            prefix = directory / f"python-{number}"
            subprocess.run(
                ["gcore", "-o", str(prefix), str(child.pid)],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            dumps.append(directory / f"python-{number}.{child.pid}")
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
    return dumps


def count_segments(dumps: list[Path]) -> Counter[bytes]:
    """Every whole page of every PT_LOAD, by its bytes."""
    from elftools.elf.elffile import ELFFile

    pages: Counter[bytes] = Counter()
    for dump in dumps:
        with dump.open("rb") as file:
            for segment in ELFFile(file).iter_segments("PT_LOAD"):
                data = segment.data()
                pages.update(data[at : at + PAGE] for at in range(0, len(data) // PAGE * PAGE, PAGE))
    return pages


def run(command: list[str]) -> tuple[float, str, int]:
    """Seconds, standard output, and the peak of anonymous resident memory in bytes."""
    peak = 0
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        nonlocal peak
        while child.poll() is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = child.communicate()[0]
    elapsed = time.perf_counter() - began
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{command[0]} ended with {child.returncode}")
    return elapsed, output, peak


def hold_to_brute_force(report: dict[str, object], pages: Counter[bytes]) -> None:
    """Every number that the report and the count both have is the same."""
    merged = sorted((count for count in pages.values() if count > 1), reverse=True)
    counters = report["counters"]
    assert isinstance(counters, dict)
    assert counters["pages_shared"] == len(merged)
    assert counters["pages_sharing"] == sum(merged) - len(merged)
    assert counters["pages_unshared"] == sum(count == 1 for count in pages.values())
    assert report["saved_bytes"] == (sum(merged) - len(merged)) * PAGE
    groups = report["groups"]
    assert isinstance(groups, list)
    assert [group["pages"] for group in groups] == merged


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=2.0, help="how much to dump (default 2)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--dir", type=Path, help="use the dumps that are there, or make them there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.dir or Path(scratch)
        directory.mkdir(exist_ok=True, parents=True)
        dumps = sorted(directory.glob("python-*")) or make_dumps(directory, arguments.gib)
        files = [str(dump) for dump in dumps]
        size = sum(dump.stat().st_size for dump in dumps)
        print(f"{len(dumps)} dumps, {size / 2**30:.2f} GiB")

        scan = [LKSM, "scan", "--json", "--top", "0", *files]
        quick = [LKSM, "scan", "--json", *files]
        brute = [sys.executable, "-c", BRUTE_FORCE, *files]
        pages = count_segments(dumps)
        hold_to_brute_force(json.loads(run(scan)[1]), pages)
        print(f"lksm scan --json --top 0 equals the brute force: {pages.total()} pages, every group")

        seconds: dict[str, list[float]] = {"dict": [], "scan": [], "scan --top 0": []}
        own_ms: dict[str, list[float]] = {"dict": [], "scan": []}
        peak = 0
        for _ in range(arguments.runs):
            elapsed, output, _ = run(brute)
            seconds["dict"].append(elapsed)
            own_ms["dict"].append(float(output.split()[-1]))
            elapsed, output, rss = run(quick)
            seconds["scan"].append(elapsed)
            own_ms["scan"].append(json.loads(output)["elapsed_ms"])
            peak = max(peak, rss)
            seconds["scan --top 0"].append(run(scan)[0])
        dict_median = statistics.median(seconds["dict"])
        print("whole commands, starting Python and importing included:")
        for name, times in seconds.items():
            median = statistics.median(times)
            print(
                f"{name:14} {median:6.2f} s  {size / median / 1e9:5.1f} GB/s  "
                f"{dict_median / median:4.1f} x the dict"
            )
        print("without that, from the first look at the files to the result:")
        dict_own = statistics.median(own_ms["dict"])
        for name, times in own_ms.items():
            own = statistics.median(times)
            print(
                f"{name:14} {own / 1000:6.2f} s  {size / own / 1e6:5.1f} GB/s  "
                f"{dict_own / own:4.1f} x the dict"
            )
        print(f"peak anonymous memory of lksm scan: {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()

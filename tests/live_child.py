"""Child processes whose memory the tests of live sources know, and a plain way to look at their pages."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest

from lksm.sources._types import SourceProcess

PAGE = mmap.PAGESIZE

_PROLOGUE = """
import ctypes, hashlib, mmap, os, sys, threading, time
PAGE, HALF = mmap.PAGESIZE, mmap.PAGESIZE // 2

def private(nr_pages, advice=mmap.MADV_NOHUGEPAGE):
    memory = mmap.mmap(-1, nr_pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(advice)
    return memory

def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))

def fill(memory, page, seed):
    # half by half: a whole page of it on the heap might lie there like a page
    for start, name in ((page * PAGE, f"{seed}"), (page * PAGE + HALF, f"{seed}+")):
        memory[start : start + HALF] = hashlib.shake_128(name.encode()).digest(HALF)

def drop(memory, start, stop):
    memory.madvise(mmap.MADV_DONTNEED, start * PAGE, (stop - start) * PAGE)

def fork():
    # a child of this child that runs what is sent to it, until the pipe closes
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(down[1])
        for line in os.fdopen(down[0]):
            exec(line, globals())
            os.write(up[1], b"!")
        os._exit(0)
    os.close(down[0])
    def run(text):
        os.write(down[1], text.encode() + b"\\n")
        assert os.read(up[0], 1) == b"!"
    return pid, run

for line in sys.stdin:
    command, _, text = line.partition(" ")
    if command == "do":
        exec(text.strip().replace("\\0", "\\n"), globals())
        os.write(1, b"done\\n")
    else:
        os.write(1, repr(eval(text)).encode() + b"\\n")
"""


class Child:
    """A Python process that does what it is told; killed at the end of the block."""

    def __init__(self, text: str = "pass") -> None:
        # Not under a sanitizer, nor counted: what these keep in its memory is nothing to look at.
        tools = ("LD_PRELOAD", "COVERAGE_PROCESS_CONFIG")
        environment = {name: value for name, value in os.environ.items() if name not in tools}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROLOGUE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid
        try:
            self.do(text)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def do(self, text: str) -> None:
        """Run statements in the child and wait until they are done."""
        answer = self._send("do " + text.strip().replace("\n", "\0"))
        assert answer == "done", answer

    def ask(self, expression: str) -> int:
        """The integer that `expression` is in the child."""
        return int(self._send("ask " + expression))

    def kill(self) -> None:
        """End it now and reap it; what it forked sees its pipe close and ends."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _send(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def content(seed: int) -> bytes:
    """What `fill(memory, page, seed)` writes in the child."""
    halves = (f"{seed}", f"{seed}+")
    return b"".join(hashlib.shake_128(name.encode()).digest(PAGE // 2) for name in halves)


def entries(pid: int, address: int, nr_pages: int) -> list[int]:
    """Pagemap entries of `nr_pages` pages at `address`, read the plain way."""
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        file.seek(address // PAGE * 8)
        return list(struct.unpack(f"{nr_pages}Q", file.read(nr_pages * 8)))


def is_present(entry: int) -> bool:
    return bool(entry >> 63)


def frame(entry: int) -> int:
    return entry & ((1 << 55) - 1)


def present_pages(process: SourceProcess) -> Iterator[tuple[int, int, bytes]]:
    """(address in the process, address of the stored page here, bytes) of every page that was taken."""
    for region in process.regions:
        rows = np.arange(len(region.array)) if region.rows is None else region.rows
        for index, row in enumerate(rows.tolist()):
            if row >= 0:
                page = region.array[row]
                yield region.address + index * PAGE, page.ctypes.data, page.tobytes()


def pages_at(process: SourceProcess, address: int, nr_pages: int) -> dict[int, bytes]:
    """The pages that were taken of a range, by their number within it."""
    end = address + nr_pages * PAGE
    return {(at - address) // PAGE: data for at, _, data in present_pages(process) if address <= at < end}


def storage_at(process: SourceProcess, address: int, nr_pages: int) -> dict[int, int]:
    """Where the pages of a range are stored, by their number within it."""
    end = address + nr_pages * PAGE
    return {(at - address) // PAGE: here for at, here, _ in present_pages(process) if address <= at < end}


def needs_frames() -> None:
    """Skip the test where frame numbers are hidden."""
    from lksm.sources import _pagemap

    if not _pagemap.frames_are_visible():
        pytest.skip("frame numbers are hidden without CAP_SYS_ADMIN")


def needs_root() -> None:
    """Skip the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")

"""`lksm.sources.elfcore` on dumps that real programs write: gdb's gcore, the kernel, QEMU.

What has to be in the dump is known by other means: a small program fills memory with a pattern and tells
its address, QEMU also saves guest memory as a raw file.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lksm.sources import SourceProcess, elfcore

PAGE = 4096
NR_PAGES = 64

# Page i of a private mapping is filled with byte i, the mapping behind it is never touched.
PROGRAM = f"""
import ctypes, mmap, os, sys
memory = mmap.mmap(-1, {2 * NR_PAGES * PAGE}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range({NR_PAGES}):
    memory[page * {PAGE} : (page + 1) * {PAGE}] = bytes([page]) * {PAGE}
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.readline()
os.abort()
"""


@contextmanager
def program(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running program and the address of its pattern; it aborts when it reads a line."""

    def allow_core() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    process = subprocess.Popen(  # without LD_PRELOAD: a sanitizer's shadow memory does not belong in a dump
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=directory, env=environment, preexec_fn=allow_core,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def pages_at(process: SourceProcess, address: int, nr_pages: int) -> np.ndarray:
    """Pages of a dump by address; fails unless one region has all of them."""
    for region in process.regions:
        first = (address - region.address) // PAGE
        if first >= 0 and first + nr_pages <= len(region.array):
            return region.array[first : first + nr_pages]
    raise AssertionError(f"no region has {nr_pages} pages at {address:#x}")


def check_pattern(process: SourceProcess, address: int) -> None:
    pages = pages_at(process, address, NR_PAGES)
    assert (pages == np.arange(NR_PAGES, dtype=np.uint8)[:, None]).all()


def check_regions(process: SourceProcess) -> None:
    """Regions are in order, apart, on page boundaries, and whole pages."""
    end = 0
    for region in process.regions:
        assert region.address >= end
        assert region.address % PAGE == 0
        assert region.array.shape[1] == PAGE
        end = region.address + region.array.nbytes


def test_gcore_of_a_running_program(tmp_path: Path) -> None:
    """A dump by gdb has the program's pages, its name and its pid, at any alignment in the file."""
    if shutil.which("gcore") is None:
        pytest.skip("gcore (gdb) is not installed")
    with program(tmp_path) as (running, address):
        ran = subprocess.run(
            ["gcore", "-o", str(tmp_path / "dump"), str(running.pid)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        path = tmp_path / f"dump.{running.pid}"
        if not path.exists():
            pytest.skip(f"gcore made no dump: {(ran.stderr or ran.stdout).strip().splitlines()[-1:]}")
    snapshot = elfcore.load(path)
    (process,) = snapshot.processes
    assert process.pid == running.pid
    assert process.name.startswith("python")
    check_pattern(process, address)
    check_regions(process)
    assert process.nbytes > 2 * NR_PAGES * PAGE


def test_the_kernels_core_dump(tmp_path: Path) -> None:
    """A dump by the kernel has the same, and its file-backed pages are absent, not zero."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
    if pattern != "core":
        pytest.skip(f"core_pattern is {pattern!r}, not a file in the working directory")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the hard limit of core files is not unlimited")
    with program(tmp_path) as (running, address):
        running.communicate("\n", timeout=60)
    assert running.returncode == -signal.SIGABRT
    cores = list(tmp_path.glob("core*"))
    if not cores:
        pytest.skip("the kernel wrote no core file")
    snapshot = elfcore.load(cores[0])
    (process,) = snapshot.processes
    assert process.pid == running.pid
    assert process.name.startswith("python")
    check_pattern(process, address)
    check_regions(process)
    assert any(item.reason == "not dumped" and item.nbytes > 0 for item in snapshot.skipped)


class Machine:
    """A QEMU machine without a guest: the firmware alone fills some memory."""

    def __init__(self, directory: Path) -> None:
        control = directory / "qmp"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-m", "64M", "-display", "none", "-nodefaults", "-vga", "std",
             "-qmp", f"unix:{control},server=on,wait=off"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.connection = socket.socket(socket.AF_UNIX)
        self._connect(control)
        self.stream = self.connection.makefile("rw", encoding="utf-8")
        self.stream.readline()  # the greeting
        self.command("qmp_capabilities")

    def _connect(self, control: Path) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.connection.connect(str(control))
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def command(self, name: str, **arguments: Any) -> None:
        self.stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("paging", [False, True])
def test_qemu_dump_guest_memory(tmp_path: Path, paging: bool) -> None:
    """QEMU's ELF dump has the guest's memory, byte for byte as pmemsave has it, at physical addresses."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    machine = Machine(tmp_path)
    try:
        time.sleep(2)  # let the firmware write something
        machine.command("stop")
        machine.command("dump-guest-memory", paging=paging, protocol=f"file:{tmp_path}/guest.elf")
        machine.command("pmemsave", val=0, size=64 << 20, filename=f"{tmp_path}/ram.raw")
    finally:
        machine.close()
    (process,) = elfcore.load(tmp_path / "guest.elf").processes
    check_regions(process)
    memory = np.fromfile(tmp_path / "ram.raw", np.uint8)
    nr_compared = 0
    for region in process.regions:
        inside = memory[region.address : region.address + region.array.nbytes]
        if len(inside):
            assert (region.array.reshape(-1)[: len(inside)] == inside).all()
            nr_compared += len(inside)
    assert nr_compared > 63 << 20
    assert memory.any()
    assert (process.name, process.pid) == ("guest.elf", None)
    assert any("physical" in note for note in process.notes)
    assert any("most likely not RAM" in note for note in process.notes)

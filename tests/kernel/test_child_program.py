"""What a child of the driver does when it is told, with no need of the kernel's KSM."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from typing import Any

import numpy as np
import pytest

from alone import alone
from helpers import pages
from lksm.kernel import _child

SIZE = mmap.PAGESIZE
PR_GET_MEMORY_MERGE = 68


@pytest.fixture(autouse=True)
def with_site_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program like any other, which coverage sees: children leave site packages out, to start fast."""
    start = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return start([command[0], "-P", command[-1]], **options)

    monkeypatch.setattr(_child.subprocess, "Popen", popen)


def test_areas() -> None:
    """It maps what it is given, reads it back, changes it, drops pages and unmaps."""
    content = pages("a b c", SIZE)
    with _child.Child() as child:
        area = child.map(content, advise=False)
        assert area == 0 and child.map(pages("d", SIZE), advise=False) == 1
        assert child.read(area, 0, 3 * SIZE) == content.tobytes()
        child.write(area, SIZE + 5, b"written")
        assert child.read(area, SIZE, 12)[5:] == b"written"
        child.advise(area, "dontneed", 2, 1)
        assert not any(child.read(area, 2 * SIZE, SIZE))
        assert child.read(area, 0, SIZE) == content[0].tobytes()
        child.unmap(area)
        assert child.read(1, 0, SIZE) == pages("d", SIZE).tobytes()


def test_merge_any() -> None:
    """Only its areas are offered, none when they are taken out again; or this kernel cannot do it."""
    with alone(), _child.Child() as child:  # for an instant all of its memory is offered
        area = child.map(pages("a b", SIZE), advise=False)
        if lacks_merge_any():
            with pytest.raises(OSError, match="PR_SET_MEMORY_MERGE"):
                child.merge_any(True)
        else:
            child.merge_any(True)
            assert offered(child.pid) == 2 * SIZE
            child.unmap(child.map(pages("c", SIZE), advise=False))
            assert offered(child.pid) == 2 * SIZE
            child.merge_any(False)
            assert offered(child.pid) == 0
        assert child.read(area, 0, 1) == pages("a", SIZE).tobytes()[:1]


def lacks_merge_any() -> bool:
    """Is this kernel older than 6.4, or built without KSM?"""
    return ctypes.CDLL(None).prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) < 0


def offered(pid: int) -> int:
    """Bytes of a process that the kernel may merge."""
    nr_bytes = found = 0
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            name, *words = line.split()
            if name == "Size:":
                nr_bytes = int(words[0]) * 1024
            elif name == "VmFlags:":
                found += nr_bytes * ("mg" in words)
    return found


def test_input_that_ends() -> None:
    """It ends with its input, in the middle of an area too, and without a word."""
    child = _child.Child()
    child.exit()
    assert child._process.returncode == 0
    child = _child.Child()
    _child.pickle.dump(("map", 4096, False), child._stdin)
    child._stdin.write(np.zeros(100, np.uint8).tobytes())
    child.exit()
    assert child._process.returncode == 0

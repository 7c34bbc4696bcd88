"""Three processes in four steps, the table by which the Linux Test Project examines KSM.

Every page of a process has one content: c a a, then c b a, then all d, then all d but for the last byte of
one page. Small, and with 128 MiB a process as the Linux Test Project has it.
"""

from __future__ import annotations

import numpy as np
import pytest

from helpers import PAGE_SIZE
from side_by_side import Referee, SideBySide, Twin

NO_LIMIT = 2**31 - 1


def fill(twin: Twin, letter: str) -> None:
    """Write every byte of a process; here with plain numpy, which the engine has to find out."""
    (region,) = twin.process.regions
    region.array[:] = ord(letter)
    twin.child.write(0, 0, region.array.tobytes())


def settled(both: SideBySide) -> tuple[int, int, int, int]:
    """Three passes: to look, to file and merge, and to see that nothing changes any more."""
    there = both.passes(3)
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    return there[names[0]], there[names[1]], there[names[2]], there[names[3]]


@pytest.mark.parametrize("nr_pages", [4, 128 * 1024 * 1024 // PAGE_SIZE], ids=["small", "full size"])
def test_four_steps(referee: Referee, nr_pages: int) -> None:
    """The table holds in the kernel, and the engine agrees after every pass."""
    with referee(smart_scan=0, max_page_sharing=NO_LIMIT) as both:
        contents = [np.full((nr_pages, PAGE_SIZE), ord(letter), np.uint8) for letter in "caa"]
        first, second, third = (both.start(pages) for pages in contents)
        total = 3 * nr_pages
        assert settled(both) == (2, total - 2, 0, 0)
        fill(second, "b")
        assert settled(both) == (3, total - 3, 0, 0)
        for twin in (first, second, third):
            fill(twin, "d")
        assert settled(both) == (1, total - 1, 0, 0)
        second.write_bytes(nr_pages - 1, PAGE_SIZE - 1, b"e")
        assert settled(both) == (1, total - 2, 1, 0)
        both.unmerge()
        assert both.ksm.counters()["pages_shared"] == 0
        second.check_bytes()

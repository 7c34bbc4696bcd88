"""The scan-time advisor, pass by pass.

Passes over a few pages take no time, so they count as the least there is: a second, one per cent of a CPU.
Only the first pass after the advisor was switched on is charged for all CPU time of ksmd since boot
(docs/kernel-map.md).
"""

from __future__ import annotations

import errno
import time

import pytest

import lksm
from helpers import unique_pages
from side_by_side import Referee, SideBySide


def passes(both: SideBySide, count: int) -> list[int]:
    """So many passes; after each both say the same batch size. Returns what it was."""
    said = []
    for _ in range(count):
        both.one_pass()
        said.append(both.ksm.files.number("pages_to_scan"))
        assert both.engine.knobs.pages_to_scan == said[-1], said
    return said


def switch(both: SideBySide, mode: str) -> int:
    both.ksm.files.write("advisor_mode", mode)
    both.engine.knobs.advisor_mode = mode
    both.ksmd.forget()
    assert both.engine.sysfs.read("advisor_mode") == (both.ksm.files.directory / "advisor_mode").read_text()
    assert both.ksm.files.number("pages_to_scan") == both.engine.knobs.pages_to_scan
    return both.engine.knobs.pages_to_scan


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"advisor_target_scan_time": 1},
        {"advisor_target_scan_time": 1, "advisor_max_cpu": 1000},
        {"advisor_target_scan_time": 1, "advisor_max_cpu": 0},
        {"advisor_target_scan_time": 2**32 - 1, "advisor_max_cpu": 1},
        {"advisor_min_pages_to_scan": 7, "advisor_max_pages_to_scan": 12345},
        {"advisor_min_pages_to_scan": 10**6, "advisor_max_pages_to_scan": 10**7},
        {"advisor_max_pages_to_scan": 6},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_sizes(referee: Referee, knobs: dict[str, int]) -> None:
    """Whatever its knobs, it arrives at the same batch sizes, and ends at the largest it may say."""
    with referee(smart_scan=0, advisor_mode="scan-time", **knobs) as both:
        both.start("a b a c")
        assert both.ksm.files.number("pages_to_scan") == both.engine.knobs.pages_to_scan
        assert passes(both, 8)[-1] == knobs.get("advisor_max_pages_to_scan", 30000)


def test_on_and_off(referee: Referee) -> None:
    """Switched off the batch is 100; switched on again everything is forgotten; stored again nothing is."""
    with referee(smart_scan=0, advisor_target_scan_time=1, advisor_mode="scan-time") as both:
        both.start("a a b")
        first = passes(both, 4)
        assert switch(both, "none") == 100
        assert passes(both, 2) == [100, 100]
        assert switch(both, "scan-time") == 500
        assert passes(both, 2) == first[:2]
        both.ksm.files.write("advisor_mode", "scan-time")
        both.engine.knobs.advisor_mode = "scan-time"
        assert passes(both, 2) == first[2:]
        with pytest.raises(OSError, match="Invalid argument"):
            both.ksm.files.write("pages_to_scan", 7)
        with pytest.raises(OSError, match="advisor") as here:
            both.engine.sysfs.write("pages_to_scan", "7")
        assert here.value.errno == errno.EINVAL


def test_knobs_change_on_the_way(referee: Referee) -> None:
    """New wishes count from the next pass on."""
    with referee(smart_scan=0, advisor_mode="scan-time", advisor_max_pages_to_scan=50) as both:
        both.start("a b")
        passes(both, 3)
        for name, value in (
            ("advisor_max_pages_to_scan", 2000),
            ("advisor_target_scan_time", 1),
            ("advisor_min_pages_to_scan", 9),
            ("advisor_max_cpu", 5),
            ("advisor_max_pages_to_scan", 300),
        ):
            both.ksm.files.write(name, value)
            setattr(both.engine.knobs, name, value)
            passes(both, 2)


@pytest.mark.parametrize("word", ["None", "none ", " none", "scan", "none\n", "scan-time ", "1", ""])
def test_other_words(referee: Referee, word: str) -> None:
    """The kernel takes no other words either."""
    with referee() as both:
        with pytest.raises(OSError, match="Invalid argument"):
            both.ksm.files.write("advisor_mode", word)  # and a newline
        with pytest.raises(OSError, match="advisor_mode") as here:
            both.engine.sysfs.write("advisor_mode", f"{word}\n")
        assert here.value.errno == errno.EINVAL


def test_a_pass_that_takes_seconds(referee: Referee) -> None:
    """Naps between the batches of a pass are part of it, the nap before it is not: three seconds."""
    knobs = {"advisor_target_scan_time": 1, "advisor_max_cpu": 1000, "advisor_min_pages_to_scan": 60}
    with referee(smart_scan=0, advisor_mode="scan-time", **knobs) as both:
        memory = unique_pages(150)
        both.start(memory)
        before = both.ksm.files.number("full_scans")
        both.ksm.files.write("sleep_millisecs", 1700)
        both.ksm.files.write("run", 1)
        deadline = time.monotonic() + 60
        while both.ksm.files.number("full_scans") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        there = both.ksm.files.number("pages_to_scan")
        clock = lksm.VirtualClock()
        engine = lksm.Engine(
            policy="ksm", smart_scan=0, run=1, sleep_millisecs=1700, clock=clock, cpu_clock=both.ksmd,
            advisor_mode="scan-time", **knobs,
        )  # fmt: skip
        engine.attach(memory, mergeable=True)
        while not engine.counters().full_scans:
            engine.advance(100)
        assert 3400 <= clock() < 3600
        # 54 by the time it took, or by the CPU time of ksmd since boot ten times what one per cent scans.
        assert engine.knobs.pages_to_scan == there >= 54

"""Extensions: rows 95-101 of section 13.6 of the specification, one test per row, as they come.

General profit reads as docs/design.md says: saved bytes less what the engine really holds for bookkeeping.
Row 95, the schedule of smart scan, is in tests/c/test_smart_scan.c.
"""

from __future__ import annotations

import errno
import itertools
from typing import Literal

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, content, expect, ids, pages, repeated, unique_pages
from lksm import advisor


def expected_profit(engine: lksm.Engine) -> int:
    """Bytes that merged and zero pages save, less bookkeeping."""
    counters, memory = engine.counters(), engine.memory()
    bookkeeping = sum(memory.values()) - memory["frames"]
    return (counters.pages_sharing + counters.zero_pages) * PAGE_SIZE - bookkeeping


def test_row_96_the_advisors_arithmetic() -> None:
    """Nothing known, 500 pages, a scan of 400 s with 4 s of CPU time: 5000; the same again: 30000."""
    wishes = advisor.Wishes(target_scan_time=200, max_cpu=70, max_pages=30000)
    history, nr_pages = advisor.advise(
        advisor.History(), wishes, pages_to_scan=500, elapsed_ms=400_000, cpu_ms=4000
    )
    assert nr_pages == 5000
    history, nr_pages = advisor.advise(
        history, wishes, pages_to_scan=nr_pages, elapsed_ms=400_000, cpu_ms=4000
    )
    assert nr_pages == 30000
    assert history == advisor.History(seconds=400, change=51)


@pytest.mark.parametrize("policy", ["lksm", "ksm"])
def test_row_96_an_advised_engine(policy: Literal["lksm", "ksm"]) -> None:
    """The same through an engine, whose `pages_to_scan` nobody else may store until the mode is none."""
    clock, cpu = lksm.VirtualClock(), itertools.count(0, 1000)  # a batch looks twice: it takes 1000 ms
    engine = lksm.Engine(policy=policy, clock=clock, smart_scan=0, cpu_clock=lambda: next(cpu))

    def scan_for_400_s() -> int:
        engine.crawl("full")
        for _ in range(4):
            clock.tick(100_000)
            assert engine.scan(1) == 1
        return engine.knobs.pages_to_scan

    engine.attach(pages("a b c d"), mergeable=True)
    engine.sysfs.write("advisor_mode", "scan-time")
    assert engine.sysfs.read("pages_to_scan") == "500\n"
    assert scan_for_400_s() == 5000
    assert scan_for_400_s() == 30000
    with pytest.raises(lksm.KnobError, match="pages_to_scan") as error:
        engine.sysfs.write("pages_to_scan", "100")
    assert error.value.errno == errno.EINVAL
    engine.sysfs.write("advisor_mode", "none")
    assert engine.sysfs.read("pages_to_scan") == "100\n"
    assert engine.check() == []


def test_row_97_zero_counter_and_profit(engine: lksm.Engine) -> None:
    """A hundred zero pages are counted, one less after a write, and their bytes are profit."""
    engine.sysfs.write("use_zero_pages", "1")
    process = engine.attach(np.zeros((100, PAGE_SIZE), np.uint8), mergeable=True)
    engine.attach(pages("a a a"), mergeable=True)
    engine.full()
    assert engine.sysfs.read("ksm_zero_pages") == "100\n"
    assert engine.counters().general_profit == expected_profit(engine)
    stats = process.stats()
    assert (stats.zero_pages, stats.merging_pages, stats.rmap_items) == (100, 0, 100)
    assert stats.profit_bytes == 100 * PAGE_SIZE - 100 * 64
    engine.full()
    assert process.stats().profit_bytes == 100 * PAGE_SIZE
    process.write(3, b"x")
    assert engine.sysfs.read("ksm_zero_pages") == "99\n"
    assert process.stats().zero_pages == 99
    assert engine.counters().pages_sharing == 2
    assert engine.counters().general_profit == expected_profit(engine) > 0
    engine.full()
    assert engine.sysfs.read("ksm_zero_pages") == "99\n"


def test_row_97_zero_pages_of_a_domain(engine: lksm.Engine) -> None:
    """Each domain counts its own zero pages."""
    engine.knobs.use_zero_pages = True
    engine.attach(pages("0 0 0"), domain=1, mergeable=True)
    engine.attach(pages("0 a"), domain=2, mergeable=True)
    engine.full()
    assert [engine.counters(domain).zero_pages for domain in (0, 1, 2, None)] == [0, 3, 1, 4]


def test_row_98_statistics_of_processes(engine: lksm.Engine) -> None:
    """What processes merge adds up to shared and sharing pages; profit counts 64 bytes an item."""
    engine.knobs.use_zero_pages = True
    processes = [engine.attach(pages(picture)) for picture in ("a a b 0 c", "a b b", "0 d", "e")]
    silent = engine.attach(pages("a"), mergeable=False)
    processes[2].merge_any = True
    for _ in range(3):
        engine.full()
        counters, stats = engine.counters(), [process.stats() for process in processes]
        assert sum(each.merging_pages for each in stats) == counters.pages_shared + counters.pages_sharing
        assert sum(each.rmap_items for each in stats) == counters.rmap_items
        assert sum(each.zero_pages for each in stats) == counters.zero_pages
        for each in stats:
            saved = (each.merging_pages + each.zero_pages) * PAGE_SIZE
            assert each.profit_bytes == saved - each.rmap_items * 64
        assert engine.check() == []
    assert [each.merging_pages for each in stats] == [3, 3, 0, 0]
    assert [each.zero_pages for each in stats] == [1, 0, 1, 0]
    assert [each.rmap_items for each in stats] == [4, 3, 1, 1]
    assert [each.merge_any for each in stats] == [False, False, True, False]
    assert all(each.mergeable for each in stats)
    assert not silent.stats().mergeable and not silent.stats().merge_any
    processes[0].advise("unmergeable")
    assert not processes[0].stats().mergeable
    assert processes[0].stats().merging_pages == 3  # until the next visit, as every counter
    engine.full()
    assert processes[0].stats().profit_bytes == 0


def test_row_99_merge_any(engine: lksm.Engine) -> None:
    """Set: all pages that may be are mergeable, those mapped later and a fork's too. Cleared: all private."""
    excluded = lksm.Region(64 * PAGE_SIZE, pages("a"), flags=lksm.RegionFlag.HUGETLB)
    process = engine.attach([lksm.Region(0, repeated("a", 3)), excluded], mergeable=False)
    process.merge_any = True
    process.map(lksm.Region(16 * PAGE_SIZE, repeated("a", 2)))
    engine.full()
    expect(engine, shared=1, sharing=4)
    child = process.fork()
    assert child.stats().merge_any and child.stats().mergeable
    expect(engine, scanning_process=2)
    child.map(lksm.Region(32 * PAGE_SIZE, repeated("a", 2)))
    engine.full()
    assert [frame >= 0 for frame in ids(engine, child)] == [True] * 7 + [False]
    expect(engine, shared=1, sharing=6)
    for each in (process, child):
        each.merge_any = False
        assert ids(engine, each) == [-1] * each.nr_pages
        assert not each.stats().merge_any and not each.stats().mergeable
    engine.full()
    engine.full()
    expect(engine, shared=0, sharing=0, rmap_items=0, scanning_process=0)


def library(name: str, nr_pages: int, offsets: dict[int, str]) -> lksm.Region:
    """A region of key "library" at address 0: words at these offsets, other pages of no process but this."""
    array = unique_pages(nr_pages, name)
    for offset, word in offsets.items():
        array[offset] = np.frombuffer(content(word), np.uint8)
    return lksm.Region(0, array, key="library")


def test_row_100_filter_learning() -> None:
    """A filter more than 5 rounds old lets a scanned, running process be visited at learned offsets only."""
    engine = lksm.Engine(filter=True, initial_rounds=0)
    for name in "abc":
        engine.attach(library(name, 100, {3: "P", 70: "Q"}), name=name)
    fourth = engine.attach(library("d", 100, {}), name="d")
    for _ in range(5):
        assert engine.full().pages_scanned == 400
        expect(engine, shared=2, sharing=4, unshared=3 * 98 + 100)
    report = engine.full()
    assert (report.round, report.pages_scanned) == (6, 4 * 2)
    assert fourth.stats().nr_scans == 2
    expect(engine, shared=2, sharing=4, unshared=3 * 98 + 100)
    newcomer = engine.attach(library("e", 100, {3: "P"}), name="e")
    assert engine.full().pages_scanned == 4 * 2 + 100
    assert newcomer.stats().merging_pages == 1
    fourth.freeze()
    assert engine.partial().pages_scanned == 100
    fourth.thaw()
    assert engine.full().pages_scanned == 5 * 2
    expect(engine, shared=2, sharing=5, unshared=3 * 98 + 100 + 99)
    engine.close()


def test_row_101_filter_bounds() -> None:
    """Areas of 10 and 70 pages, followed directly by another: no page of the follower is left out."""
    for nr_pages in (10, 70):
        engine = lksm.Engine(filter=True, filter_maturity=0, initial_rounds=0)
        behind = lksm.Region(nr_pages * PAGE_SIZE, unique_pages(100, "behind"))
        engine.attach([library("a", nr_pages, {3: "P"}), behind])
        engine.attach([library("b", nr_pages, {3: "P"})])
        assert engine.full().pages_scanned == 2 * nr_pages + 100
        assert engine.full().pages_scanned == 2 * 1 + 100
        expect(engine, shared=1, sharing=1, unshared=2 * (nr_pages - 1) + 100)
        engine.close()


def test_row_101_larger_area() -> None:
    """An area that is larger than the filter is no error: what merges behind its end is learned too."""
    engine = lksm.Engine(filter=True, filter_maturity=0, initial_rounds=0)
    engine.attach(library("a", 10, {3: "P"}))
    engine.attach(library("b", 10, {3: "P"}))
    engine.full()
    large = [engine.attach(library(name, 200, {3: "P", 199: "Q"})) for name in "cd"]
    assert engine.full().pages_scanned == 2 + 2 * 200
    assert engine.full().pages_scanned == 2 * 1 + 2 * 2
    expect(engine, shared=2, sharing=4, unshared=2 * 9 + 2 * 198)
    assert [process.stats().merging_pages for process in large] == [2, 2]
    engine.close()

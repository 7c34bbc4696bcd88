"""Extensions: rows 95-101 of section 13.6 of the specification, one test per row, as they come.

General profit reads as docs/design.md says: saved bytes less what the engine really holds for bookkeeping.
Not here yet: row 96 (advisor), row 98 (statistics of processes), row 99 (merge-any). Row 95, the schedule of
smart scan, is in tests/c/test_smart_scan.c.
"""

from __future__ import annotations

import numpy as np

import lksm
from helpers import PAGE_SIZE, content, expect, pages, unique_pages


def expected_profit(engine: lksm.Engine) -> int:
    """Bytes that merged and zero pages save, less bookkeeping."""
    counters, memory = engine.counters(), engine.memory()
    bookkeeping = sum(memory.values()) - memory["frames"]
    return (counters.pages_sharing + counters.zero_pages) * PAGE_SIZE - bookkeeping


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

"""Extensions: rows 95-101 of section 13.6 of the specification, one test per row, as they come.

General profit reads as docs/design.md says: saved bytes less what the engine really holds for bookkeeping.
Not here yet: row 96 (advisor), row 98 (statistics of processes), row 99 (merge-any), rows 100 and 101
(filter). Row 95, the schedule of smart scan, is in tests/c/test_smart_scan.c.
"""

from __future__ import annotations

import numpy as np

import lksm
from helpers import PAGE_SIZE, pages


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

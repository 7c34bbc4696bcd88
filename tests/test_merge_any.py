"""Merge-any: a process that offers all its pages, present and to come (spec 12.1). Row 99 is in
test_acceptance_13_6.py, the kernel's own in tests/kernel/test_merge_any.py."""

from __future__ import annotations

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, expect, ids, pages, reads, repeated


@pytest.fixture
def engine() -> lksm.Engine:
    """Nobody joins by itself, so that only advice and merge-any count."""
    return lksm.Engine(initial_rounds=0, auto_join=False)


def test_it_registers(engine: lksm.Engine) -> None:
    """At once, and once; whoever is not asked is left alone."""
    process, other = engine.attach(pages("a a")), engine.attach(pages("a"))
    assert process.merge_any is False and process.stats().merge_any is False
    expect(engine, scanning_process=0)
    process.merge_any = True
    expect(engine, scanning_process=1)
    assert engine.queue == (process,)
    process.merge_any = True
    assert engine.queue == (process,)
    stats = process.stats()
    assert process.merge_any is True and stats.merge_any is True and stats.mergeable is True
    assert other.stats().merge_any is False and other.stats().mergeable is False
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_it_registers_anew() -> None:
    """Once scanned, with nothing to offer it is unknown; then it is a newcomer, and waits when thawed (M-7).

    A long soak found that the model thought otherwise.
    """
    engine = lksm.Engine(initial_rounds=0)
    process = engine.attach(pages("a b"))
    engine.full()
    process.freeze()
    process.merge_any = True
    process.merge_any = False
    engine.full()
    expect(engine, scanning_process=0)
    process.merge_any = True
    expect(engine, scanning_process=1, nr_frozen=1)
    process.thaw()
    expect(engine, nr_frozen=0, nr_scannable=1)
    assert engine.queue == (process,)


def test_it_clears_opt_outs(engine: lksm.Engine) -> None:
    """Pages that were taken out are offered again; excluded and absent ones are not."""
    excluded = lksm.Region(16 * PAGE_SIZE, pages("a"), flags=lksm.RegionFlag.SHARED)
    holes = lksm.Region(32 * PAGE_SIZE, pages("a"), rows=np.array([-1, 0]))
    process = engine.attach([lksm.Region(0, pages("a a")), excluded, holes], mergeable=False)
    process.merge_any = True
    engine.full()
    frame = ids(engine, process)[0]
    assert frame >= 0 and ids(engine, process) == [frame, frame, -1, -3, frame]
    expect(engine, shared=1, sharing=2, rmap_items=3)


def test_set_twice_is_set_once(engine: lksm.Engine) -> None:
    """As in the kernel, setting it again brings no page back that was taken out since; clearing what is not
    set takes none out."""
    process = engine.attach(repeated("a", 4))
    process.merge_any = True
    process.advise("unmergeable", 0, 1)
    process.merge_any = True
    engine.full()
    assert ids(engine, process)[0] == -1
    expect(engine, shared=1, sharing=2)
    advised = engine.attach(repeated("a", 2), mergeable=True)
    advised.merge_any = False
    engine.full()
    expect(engine, shared=1, sharing=4)


def test_later_regions(engine: lksm.Engine) -> None:
    """They are mergeable when they are mapped; what was taken out stays out."""
    process = engine.attach(repeated("a", 3))
    process.merge_any = True
    process.advise("unmergeable", 1, 2)
    process.map(lksm.Region(16 * PAGE_SIZE, repeated("a", 2)))
    engine.full()
    assert [frame >= 0 for frame in ids(engine, process)] == [True, False, True, True, True]
    process.map(lksm.Region(8 * PAGE_SIZE, pages("a"), flags=lksm.RegionFlag.IO))
    engine.full()
    expect(engine, shared=1, sharing=3, rmap_items=4)


def test_cleared(engine: lksm.Engine) -> None:
    """Every page is private at once, counters follow at the next scan, and the bytes are as they were."""
    process, other = engine.attach(pages("a b")), engine.attach(pages("a b"), mergeable=True)
    process.merge_any = True
    engine.full()
    expect(engine, shared=2, sharing=2)
    process.merge_any = False
    assert ids(engine, process) == [-1, -1]
    assert process.stats().mergeable is False and process.merge_any is False
    assert reads(process, "a b")
    engine.full()
    expect(engine, shared=2, sharing=0, scanning_process=1, rmap_items=2)
    process.merge_any = True
    engine.full()
    expect(engine, shared=2, sharing=2, scanning_process=2)
    assert reads(other, "a b")


@pytest.mark.parametrize("policy", ["lksm", "ksm"])
def test_a_crawl_does_not_undo_it(policy: str) -> None:
    """The opt-out that clearing leaves is as sticky as any other (D-20); later regions know nothing."""
    engine = lksm.Engine(policy=policy, initial_rounds=0, smart_scan=0)  # type: ignore[arg-type]
    process = engine.attach(pages("a a b"))
    process.merge_any = True
    engine.settle()
    expect(engine, shared=1, sharing=1)
    process.merge_any = False
    engine.settle()
    expect(engine, shared=0, rmap_items=0, scanning_process=0)
    process.freeze()
    engine.partial()
    expect(engine, rmap_items=0, scanning_process=0)
    process.map(lksm.Region(16 * PAGE_SIZE, pages("c c")))
    assert process.stats().mergeable is False
    engine.settle()
    expect(engine, shared=1, sharing=1, rmap_items=2)


def test_zero_pages_leave(engine: lksm.Engine) -> None:
    """Pages on the zero frame are private at once too."""
    engine.knobs.use_zero_pages = True
    process = engine.attach(pages("0 0 a"))
    process.merge_any = True
    engine.full()
    expect(engine, zero_pages=2)
    process.merge_any = False
    assert ids(engine, process) == [-1, -1, -1]
    expect(engine, zero_pages=0)


def test_a_child_has_it(engine: lksm.Engine) -> None:
    """A fork inherits it, with what was taken out, and statistics of its own but for the zero pages."""
    engine.knobs.use_zero_pages = True
    process = engine.attach(pages("a a 0 b"))
    process.merge_any = True
    process.advise("unmergeable", 3, 4)
    engine.full()
    child = process.fork()
    stats = child.stats()
    assert child.merge_any and stats.merge_any and stats.mergeable
    assert (stats.rmap_items, stats.merging_pages, stats.zero_pages, stats.nr_merged) == (0, 0, 1, 0)
    expect(engine, scanning_process=2, zero_pages=2)
    child.map(lksm.Region(16 * PAGE_SIZE, pages("a b")))
    child.merge_any = False
    assert process.merge_any
    child.merge_any = True
    engine.full()
    assert ids(engine, child)[4] == ids(engine, process)[0] and ids(engine, process)[3] == -1


def test_dropped_by_the_scanner(engine: lksm.Engine) -> None:
    """A process with no mergeable page is forgotten by the scanner, but keeps the flag; its child has it, and
    the next region brings it back."""
    process = engine.attach(pages("a a"))
    process.merge_any = True
    process.unmap(0, 2)
    engine.full()
    expect(engine, scanning_process=0)
    stats = process.stats()
    assert stats.merge_any and not stats.mergeable
    child = process.fork()
    assert child.merge_any
    for each in (process, child):
        each.map(lksm.Region(16 * PAGE_SIZE, pages("a")))
    expect(engine, scanning_process=2)
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_nothing_to_offer(engine: lksm.Engine) -> None:
    """A process without a page that could be merged is registered all the same, until it is scanned."""
    process = engine.attach(lksm.Region(0, pages("a"), flags=lksm.RegionFlag.IO))
    process.merge_any = True
    expect(engine, scanning_process=1)
    assert process.stats().mergeable is False
    engine.full()
    expect(engine, scanning_process=0)
    assert process.merge_any


def test_while_everything_is_unmerged(engine: lksm.Engine) -> None:
    """With `run` 2 it is set and cleared, and nothing is queued."""
    engine.knobs.run = 2
    process = engine.attach(pages("a a"))
    process.merge_any = True
    process.map(lksm.Region(16 * PAGE_SIZE, pages("a")))
    assert engine.queue == ()
    expect(engine, scanning_process=1)
    engine.knobs.run = 0
    engine.full()
    expect(engine, shared=1, sharing=2)


def test_of_the_gone(engine: lksm.Engine) -> None:
    """An exited process has none to read or set."""
    process = engine.attach(pages("a"))
    process.exit()
    with pytest.raises(lksm.ProcessGone):
        process.merge_any = True
    with pytest.raises(lksm.ProcessGone):
        _ = process.merge_any

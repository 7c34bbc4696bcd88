"""`Process`: one address space, what is known of it and what can happen to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, bytes_of, content, expect, finish, ids, pages, partition, reads, repeated


def test_what_was_said_at_attach(engine: lksm.Engine) -> None:
    """A process shows what it was attached with."""
    process = engine.attach(pages("a b"), name="app", pid=42, address=0x10000, runtime_ms=7)
    assert (process.name, process.pid, process.domain, process.nr_pages) == ("app", 42, 0, 2)
    assert (process.frozen, process.exited, process.runtime_ms) == (False, False, 7)
    (region,) = process.regions
    assert region.address == 0x10000


def test_what_is_assumed_at_attach(engine: lksm.Engine) -> None:
    """Without further words a process is running, long-lived and has no pid."""
    process = engine.attach(pages("a"))
    assert (process.pid, process.frozen, process.exited, process.runtime_ms) == (None, False, False, None)
    assert process.domain == 0


def test_names_are_told_apart_or_given(engine: lksm.Engine) -> None:
    """A process has a name even if none was given."""
    process = engine.attach(pages("a"))
    assert process.name is None or isinstance(process.name, str)
    assert "app" in repr(engine.attach(pages("a"), name="app"))


def test_runtime_and_faults_are_settable(engine: lksm.Engine) -> None:
    """A monitor may report CPU time and faults as they change."""
    process = engine.attach(pages("a"), runtime_ms=1)
    process.runtime_ms = 250
    process.faults = 17
    assert (process.runtime_ms, process.faults) == (250, 17)


# ---- read and write


def test_read_copies_out(engine: lksm.Engine) -> None:
    """What was read is the caller's: a copy in rows of one page each."""
    memory = pages("a b c")
    process = engine.attach(memory)
    copy = process.read(1, 2)
    assert copy.dtype == np.uint8 and copy.shape == (2, PAGE_SIZE)
    copy[:] = 0
    assert reads(process, "a b c")
    assert process.read(0).shape == (1, PAGE_SIZE)


def test_write_reaches_the_owners_array(engine: lksm.Engine) -> None:
    """`write` changes the array that was attached."""
    memory = pages("a b")
    process = engine.attach(memory)
    process.write(1, content("c"))
    assert memory.tobytes() == pages("a c").tobytes()
    process.write(0, b"xyz", offset=PAGE_SIZE - 3)
    assert memory[0].tobytes() == content("a")[:-3] + b"xyz"


@pytest.mark.parametrize(
    "data",
    [content("b"), bytearray(content("b")), memoryview(content("b")), pages("b"), pages("b")[0]],
    ids=["bytes", "bytearray", "memoryview", "page array", "flat array"],
)
def test_write_takes_any_bytes(engine: lksm.Engine, data: Any) -> None:
    """Data may be anything that has bytes."""
    process = engine.attach(pages("a"))
    process.write(0, data)
    assert reads(process, "b")


def test_write_counts_a_fault(engine: lksm.Engine) -> None:
    """Every write is a fault of its process."""
    process = engine.attach(pages("a b"))
    before = process.faults
    process.write(0, content("c"))
    process.write(1, b"x", offset=9)
    assert process.faults == before + 2


def test_a_touched_zero_page_is_looked_at_again() -> None:
    """A tracked page on the zero frame leaves it when it is touched, though it may be zeros still."""
    with lksm.Engine(initial_rounds=0, use_zero_pages=1) as engine:
        process = engine.attach(pages("0 0"), tracked=True)
        engine.full()
        expect(engine, zero_pages=2)
        process.touch(0, 1)
        expect(engine, zero_pages=1)
        assert ids(engine, process) == [-1, -2]
        engine.full()
        expect(engine, zero_pages=2)


def test_touch_counts_faults(engine: lksm.Engine) -> None:
    """Touching pages counts faults and changes nothing else."""
    process = engine.attach(pages("a a"), mergeable=True)
    engine.full()
    before = process.faults
    process.touch(0, 2)
    assert process.faults > before
    expect(engine, shared=1, sharing=1)
    assert reads(process, "a a")


def test_a_write_of_equal_bytes_breaks_too(engine: lksm.Engine) -> None:
    """A merged page that is written is private at once, even if nothing changed; it merges again later."""
    process = engine.attach(pages("P P P"), mergeable=True)
    engine.full()
    process.write(1, content("P"))
    assert partition([ids(engine, process)]) == [[0, -1, 0]]
    expect(engine, shared=1, sharing=2, broken=0)
    engine.full()
    expect(engine, shared=1, sharing=2, broken=1, merged=3)
    assert partition([ids(engine, process)]) == [[0, 0, 0]]


def test_a_numpy_write_of_equal_bytes_breaks_nothing(engine: lksm.Engine) -> None:
    """The engine cannot see, and need not see, a write that changed no byte."""
    memory = pages("P P")
    process = engine.attach(memory, mergeable=True)
    engine.full()
    memory[1] = memory[0]
    engine.full()
    expect(engine, shared=1, sharing=1, broken=0)
    assert partition([ids(engine, process)]) == [[0, 0]]


def test_a_numpy_write_shows_at_the_next_visit(engine: lksm.Engine) -> None:
    """Page table and counters show what the last visit knew; reading shows the bytes."""
    memory = pages("P P P")
    process = engine.attach(memory, mergeable=True)
    engine.full()
    memory[2] = 0
    assert partition([ids(engine, process)]) == [[0, 0, 0]]
    assert reads(process, "P P 0")
    engine.full()
    assert partition([ids(engine, process)]) == [[0, 0, -1]]


def test_a_page_written_there_and_back_is_unbroken(engine: lksm.Engine) -> None:
    """A page that equals its frame again by the next visit never was broken."""
    memory = pages("P P P")
    engine.attach(memory, mergeable=True)
    engine.full()
    memory[2] = 0
    memory[2] = memory[0]
    engine.full()
    expect(engine, shared=1, sharing=2, broken=0)


BAD_ACCESS = [
    (lambda p: p.read(2), "a page past the end"),
    (lambda p: p.read(-1), "a negative page"),
    (lambda p: p.read(1, 2), "a run past the end"),
    (lambda p: p.read(0, -1), "a negative number of pages"),
    (lambda p: p.write(2, content("a")), "a write past the end"),
    (lambda p: p.write(-1, content("a")), "a write before the start"),
    (lambda p: p.write(0, content("a") + b"x"), "more than a page"),
    (lambda p: p.write(0, b"xy", offset=PAGE_SIZE - 1), "past the end of the page"),
    (lambda p: p.write(0, b"x", offset=-1), "a negative offset"),
    (lambda p: p.unmap(0, 3), "an unmap past the end"),
    (lambda p: p.unmap(-1, 1), "an unmap before the start"),
    (lambda p: p.unmap(2, 1), "an unmap backwards"),
    (lambda p: p.advise("mergeable", 0, 3), "advice past the end"),
    (lambda p: p.advise("unmergeable", -1, 1), "advice before the start"),
    (lambda p: p.touch(0, 3), "a touch past the end"),
]


@pytest.mark.parametrize("access", [case[0] for case in BAD_ACCESS], ids=[case[1] for case in BAD_ACCESS])
def test_pages_that_are_not_there(engine: lksm.Engine, access: Any) -> None:
    """A range outside the process is refused in one line and changes nothing."""
    process = engine.attach(pages("a a"), mergeable=True)
    engine.full()
    with pytest.raises((lksm.LksmError, IndexError, ValueError)) as error:
        access(process)
    assert str(error.value) and "\n" not in str(error.value)
    expect(engine, shared=1, sharing=1)
    assert partition([ids(engine, process)]) == [[0, 0]]
    assert reads(process, "a a")


def test_absent_pages_cannot_be_read_or_written(engine: lksm.Engine) -> None:
    """A page that is absent or unmapped has no bytes."""
    process = engine.attach([lksm.Region(0, pages("a b"), rows=np.array([0, -1, 1]))])
    process.unmap(2, 3)
    for page in (1, 2):
        with pytest.raises(lksm.LksmError):
            process.read(page)
        with pytest.raises(lksm.LksmError):
            process.write(page, content("c"))
    assert bytes_of(process, 0) == content("a")
    assert ids(engine, process) == [-1, -3, -3]


def test_unknown_advice_is_refused(engine: lksm.Engine) -> None:
    """Advice is one of two words."""
    process = engine.attach(pages("a"))
    with pytest.raises((lksm.LksmError, ValueError), match="willneed"):
        process.advise("willneed")  # type: ignore[arg-type]


# ---- freeze and thaw


def test_freeze_and_thaw(engine: lksm.Engine) -> None:
    """`frozen` follows freeze and thaw, however often they are said."""
    process = engine.attach(pages("a"))
    for freeze in (True, True, False, False, True):
        (process.freeze if freeze else process.thaw)()
        assert process.frozen is freeze


def test_freeze_queues_a_registered_process(engine: lksm.Engine) -> None:
    """Freezing queues a scanned process as frozen; thawing takes it out again."""
    process = engine.attach(pages("a"), mergeable=True)
    engine.full()
    expect(engine, nr_frozen=0, nr_scannable=0)
    process.freeze()
    expect(engine, nr_frozen=1, nr_scannable=0)
    process.thaw()
    expect(engine, nr_frozen=0, nr_scannable=0)


def test_freeze_before_the_first_scan(engine: lksm.Engine) -> None:
    """A process that waits for its first scan changes its class and keeps its place."""
    process = engine.attach(pages("a"), mergeable=True)
    expect(engine, nr_frozen=0, nr_scannable=1)
    process.freeze()
    expect(engine, nr_frozen=1, nr_scannable=0)
    process.thaw()
    expect(engine, nr_frozen=0, nr_scannable=1)


def test_freeze_under_the_cursor(gated_engine: lksm.Engine) -> None:
    """A process frozen while it is scanned is scanned once more, as frozen, in the same scan."""
    process = gated_engine.attach(pages("a b c d"), mergeable=True)
    gated_engine.crawl("full")
    gated_engine.scan(2)
    process.freeze()
    expect(gated_engine, nr_frozen=0, nr_scannable=1)
    assert finish(gated_engine, 10) == 2 + 4
    expect(gated_engine, full_scans=1, nr_frozen=0, nr_scannable=0)


def test_late_arrival(engine: lksm.Engine) -> None:
    """A process advised during a scan is scanned in the same scan and meets its pages."""
    engine.attach(pages("a b"), mergeable=True)
    engine.crawl("full")
    engine.scan(1)
    engine.attach(pages("b c"), mergeable=True)
    finish(engine)
    expect(engine, shared=1, sharing=1, unshared=2, full_scans=1)


# ---- fork


def test_fork_inherits(engine: lksm.Engine) -> None:
    """A child has its parent's pages and advice, and its own life."""
    parent = engine.attach(pages("a b c"), mergeable=True, name="parent")
    parent.advise("unmergeable", 2, 3)
    engine.full()
    child = parent.fork(name="child")
    assert (child.name, child.nr_pages, child.frozen, child.exited) == ("child", 3, False, False)
    assert engine.processes == (parent, child)
    engine.full()
    expect(engine, unshared=2, volatile=2, rmap_items=4)
    parent.exit()
    engine.full()
    expect(engine, unshared=2, volatile=0, rmap_items=2)
    assert reads(child, "a b c")


def test_a_numpy_write_reaches_both_sides_of_a_fork(engine: lksm.Engine) -> None:
    """Before any `write`, parent and child look at the same array."""
    memory = pages("a b")
    parent = engine.attach(memory)
    child = parent.fork()
    memory[0] = 0
    assert reads(parent, "0 b") and reads(child, "0 b")


def test_a_write_by_the_child_stays_in_the_child(engine: lksm.Engine) -> None:
    """The child gets a page of its own before it is written."""
    memory = pages("a b")
    parent = engine.attach(memory)
    child = parent.fork()
    child.write(0, content("c"))
    child.write(0, b"z", offset=0)
    assert reads(parent, "a b")
    assert memory.tobytes() == pages("a b").tobytes()
    assert bytes_of(child, 0) == b"z" + content("c")[1:]
    assert bytes_of(child, 1) == content("b")


def test_a_write_by_the_parent_stays_in_the_parent(engine: lksm.Engine) -> None:
    """The child keeps what it inherited when the parent writes, and so do all its siblings and children."""
    memory = pages("a b")
    parent = engine.attach(memory)
    child = parent.fork()
    sibling = parent.fork()
    grandchild = child.fork()
    parent.write(0, content("c"))
    assert memory.tobytes() == pages("c b").tobytes()
    for other in (child, sibling, grandchild):
        assert reads(other, "a b")
    child.write(0, content("d"))
    child.write(1, content("e"))
    assert reads(child, "d e")
    assert reads(sibling, "a b") and reads(grandchild, "a b") and reads(parent, "c b")
    grandchild.write(0, content("f"))
    assert reads(grandchild, "f b") and reads(sibling, "a b")


def test_a_page_mapped_twice_stays_one_page_after_a_fork(engine: lksm.Engine) -> None:
    """A page that is mapped twice stays one page on either side of a fork, whoever writes it."""
    parent = engine.attach([lksm.Region(0, pages("a b"), rows=np.array([0, 0, 1]))])
    child = parent.fork()
    parent.write(0, content("c"))
    assert reads(parent, "c c b")
    assert reads(child, "a a b")
    child.write(1, content("d"))
    assert reads(parent, "c c b")
    assert reads(child, "d d b")


def test_a_copied_page_is_a_page(engine: lksm.Engine) -> None:
    """A page that a fork no longer shares merges like any other."""
    parent = engine.attach(pages("a b"), mergeable=True)
    child = parent.fork()
    engine.full()
    expect(engine, unshared=2, volatile=2)
    child.write(0, content("b"))
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1, volatile=1)
    assert ids(engine, child)[0] == ids(engine, parent)[1] >= 0
    parent.exit()
    expect(engine, rmap_items=2)
    engine.full()
    assert reads(child, "b b")
    expect(engine, shared=1, sharing=1, unshared=0, volatile=0)


def test_a_write_after_a_fork_breaks_one_side_only(engine: lksm.Engine) -> None:
    """When a merged page is written on one side of a fork, the other side keeps the frame's bytes."""
    parent = engine.attach(pages("P P"), mergeable=True)
    engine.full()
    child = parent.fork()
    engine.full()
    child.write(0, content("x"))
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1, volatile=1)
    assert reads(parent, "P P") and reads(child, "x P")
    parent.write(1, content("y"))
    engine.full()
    assert reads(parent, "P y") and reads(child, "x P")
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=2, volatile=0)


# ---- map, unmap, advise


def test_map_adds_pages(engine: lksm.Engine) -> None:
    """A mapped region joins at the next crawl and is numbered by its address."""
    process = engine.attach(pages("a b"), address=0x10000)
    engine.full()
    process.map(lksm.Region(0x40000, pages("a c")))
    process.map(lksm.Region(0x1000, pages("d")))
    assert process.nr_pages == 5
    assert reads(process, "d a b a c")
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=3, rmap_items=5)
    assert [region.address for region in process.regions] == [0x1000, 0x10000, 0x40000]


def test_map_refuses_what_attach_refuses(engine: lksm.Engine) -> None:
    """A region that is no memory, or that overlaps, is refused and changes nothing."""
    process = engine.attach(pages("a b"))
    for region in (
        lksm.Region(0x10000, np.zeros(100, np.uint8)),
        lksm.Region(PAGE_SIZE, pages("c")),
        lksm.Region(0x10001, pages("c")),
    ):
        with pytest.raises(lksm.InvalidMemory):
            process.map(region)
    assert process.nr_pages == 2 and len(process.regions) == 1
    engine.full()
    expect(engine, unshared=2)


def test_unmap_makes_absent(engine: lksm.Engine) -> None:
    """Unmapped pages keep their numbers and are absent at once; the others stay as they are."""
    process = engine.attach(pages("P P P a"), mergeable=True)
    engine.full()
    process.unmap(0, 2)
    assert partition([ids(engine, process)]) == [[-3, -3, 0, -1]]
    assert process.nr_pages == 4
    assert bytes_of(process, 2) == content("P")
    engine.full()
    expect(engine, shared=1, sharing=0, unshared=1, rmap_items=2)
    process.unmap(0, 4)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=0, rmap_items=0, scanning_process=0)


def test_pages_that_go_behind_the_cursor(engine: lksm.Engine) -> None:
    """Pages unmapped after their visit keep their items until the next scan, which then ends the slot."""
    process = engine.attach(pages("a b c"), mergeable=True)
    engine.crawl("full")
    engine.scan(2)
    process.unmap(0, 3)
    finish(engine)
    expect(engine, rmap_items=2, unshared=2, scanning_process=1)
    engine.full()
    expect(engine, rmap_items=0, unshared=0, scanning_process=0)


def test_opted_out_at_attach(engine: lksm.Engine) -> None:
    """`mergeable=False` is an opt-out that no crawl undoes, and `advise` does."""
    process = engine.attach(pages("P P"), mergeable=False)
    engine.full()
    engine.full()
    expect(engine, rmap_items=0)
    process.advise("mergeable")
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_advice_for_a_part(engine: lksm.Engine) -> None:
    """Advice may name a range of pages."""
    process = engine.attach(pages("P P P P"), mergeable=False)
    process.advise("mergeable", 1, 3)
    engine.full()
    expect(engine, shared=1, sharing=1, rmap_items=2)
    assert partition([ids(engine, process)]) == [[-1, 0, 0, -1]]
    process.advise("mergeable", start=3)
    engine.full()
    expect(engine, shared=1, sharing=2)
    process.advise("unmergeable", stop=2)
    assert partition([ids(engine, process)]) == [[-1, -1, 0, 0]]


def test_without_auto_join_only_advice_registers() -> None:
    """`auto_join=False`: a process that nobody advised is never scanned."""
    engine = lksm.Engine(initial_rounds=0, auto_join=False)
    process = engine.attach(pages("P P"))
    engine.full()
    expect(engine, rmap_items=0, scanning_process=0)
    process.advise("mergeable")
    engine.full()
    expect(engine, shared=1, sharing=1, scanning_process=1)


def test_two_domains_never_merge(engine: lksm.Engine) -> None:
    """Pages of different domains are kept apart, and counted apart."""
    a = engine.attach(pages("P P"), mergeable=True)
    b = engine.attach(pages("P P P"), mergeable=True, domain=1)
    engine.full()
    expect(engine, shared=2, sharing=3)
    assert set(ids(engine, a)).isdisjoint(ids(engine, b))
    assert engine.counters(domain=0).pages_sharing == 1
    assert engine.counters(domain=1).pages_sharing == 2
    assert b.domain == 1


# ---- stats


def test_stats_of_a_process(engine: lksm.Engine) -> None:
    """A process knows how many of its pages are what."""
    a = engine.attach(pages("P P x y"), mergeable=True)
    b = engine.attach(pages("P z"), mergeable=True)
    engine.full()
    stats = a.stats()
    assert (stats.pages, stats.rmap_items, stats.merging_pages, stats.unshared) == (4, 4, 2, 2)
    assert (stats.volatile, stats.mergeable, stats.zero_pages) == (0, True, 0)
    assert stats.nr_scans == 4
    counters = engine.counters()
    merging = a.stats().merging_pages + b.stats().merging_pages
    assert merging == counters.pages_shared + counters.pages_sharing == 3


def test_stats_before_the_first_scan(engine: lksm.Engine) -> None:
    """A process that was never scanned has pages and nothing else."""
    stats = engine.attach(pages("a b"), mergeable=False).stats()
    assert (stats.pages, stats.rmap_items, stats.merging_pages, stats.unshared, stats.volatile) == (
        2,
        0,
        0,
        0,
        0,
    )
    assert stats.mergeable is False
    assert sum(stats.window) == stats.nr_merged == 0


def test_merge_window(engine: lksm.Engine) -> None:
    """New merges count in the score for three completed scans (rule 2.7: 5,0,0,0 gives 5,5,5,0)."""
    process = engine.attach(repeated("P", 6), mergeable=True)
    scores = []
    for _ in range(4):
        engine.full()
        stats = process.stats()
        assert len(stats.window) == 3 and sum(stats.window) == stats.nr_merged
        scores.append(stats.nr_merged)
    assert scores == [5, 5, 5, 0]


def test_a_new_slot_has_a_new_merge_window(engine: lksm.Engine) -> None:
    """A process that opted out and came back is a newcomer: its old merges do not count any more."""
    process = engine.attach(repeated("P", 6), mergeable=True)
    engine.full()
    process.advise("unmergeable")
    engine.full()
    expect(engine, scanning_process=0)
    assert process.stats().nr_merged == 0
    process.advise("mergeable")
    assert process.stats().nr_merged == 0


def test_merges_belong_to_the_process_being_scanned(engine: lksm.Engine) -> None:
    """A pair counts for the process whose page was visited second."""
    first, second = (engine.attach(pages("P"), mergeable=True) for _ in range(2))
    engine.full()
    assert (first.stats().nr_merged, second.stats().nr_merged) == (0, 1)


# ---- exit


def test_exit_is_detach(engine: lksm.Engine) -> None:
    """`exit` and `detach` are one thing, and saying it twice is an error of the process, not a crash."""
    a, b = (engine.attach(pages("a"), mergeable=True) for _ in range(2))
    a.exit()
    engine.detach(b)
    assert a.exited and b.exited
    assert engine.processes == ()
    expect(engine, scanning_process=0, nr_scannable=0)


AFTER_EXIT = {
    "read": lambda e, p: p.read(0),
    "write": lambda e, p: p.write(0, content("b")),
    "touch": lambda e, p: p.touch(0, 1),
    "freeze": lambda e, p: p.freeze(),
    "thaw": lambda e, p: p.thaw(),
    "fork": lambda e, p: p.fork(),
    "advise": lambda e, p: p.advise("mergeable"),
    "map": lambda e, p: p.map(lksm.Region(0x10000, pages("c"))),
    "unmap": lambda e, p: p.unmap(0, 1),
    "stats": lambda e, p: p.stats(),
    "page_table": lambda e, p: e.page_table(p),
    "explain": lambda e, p: e.explain(p, 0),
}


@pytest.mark.parametrize("use", AFTER_EXIT.values(), ids=AFTER_EXIT.keys())
@pytest.mark.parametrize("how", ["exit", "detach", "close"])
def test_use_after_exit(use: Any, how: str) -> None:
    """An exited process, or one of a closed engine, raises one of lksm's errors, whatever is asked of it."""
    engine = lksm.Engine(initial_rounds=0)
    process = engine.attach(pages("a a"), mergeable=True)
    engine.full()
    {"exit": process.exit, "detach": lambda: engine.detach(process), "close": engine.close}[how]()
    with pytest.raises(lksm.LksmError) as error:
        use(engine, process)
    assert str(error.value) and "\n" not in str(error.value)
    assert process.exited


def test_an_exited_process_still_says_who_it_was(engine: lksm.Engine) -> None:
    """Name and pid outlive the process."""
    process = engine.attach(pages("a"), name="app", pid=3)
    process.exit()
    assert (process.name, process.pid, process.exited) == ("app", 3, True)


def test_a_process_of_another_engine_is_refused(engine: lksm.Engine) -> None:
    """Engines are independent: one refuses the other's processes."""
    stranger = lksm.Engine().attach(pages("a"))
    for use in (engine.page_table, engine.detach):
        with pytest.raises(lksm.LksmError):
            use(stranger)
    assert not stranger.exited


def test_a_region_may_be_mapped_over_unmapped_pages(engine: lksm.Engine) -> None:
    """What was unmapped, or never there, may be mapped again; a page that is present may not."""
    process = engine.attach(pages("a b c d"), address=4 * PAGE_SIZE)
    engine.full()
    process.unmap(1, 3)
    with pytest.raises(lksm.InvalidMemory, match="overlap"):
        process.map(lksm.Region(5 * PAGE_SIZE, pages("x y z")))
    process.map(lksm.Region(5 * PAGE_SIZE, pages("a y")))
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=2, rmap_items=4)
    assert engine.page_table(process).tolist() == [0, -3, -3, -1, 0, -1]
    assert engine.check() == []

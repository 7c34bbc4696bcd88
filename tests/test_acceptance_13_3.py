"""Breaking, unmerge and exit: rows 36-51 of section 13.3 of the specification, one test per row.

Where a row says "write", both ways are tried: the owner's plain numpy write and `Process.write`; the counters
must not tell them apart. Exit is immediate, so nothing waits for a flush (rows 47-50). Not here: row 44
(unmerge needs no memory, so it succeeds even when every allocation fails) needs a hook in the core and is a
C test.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import lksm
from helpers import Pages, expect, finish, ids, pages, partition, reads, repeated, unique_pages

Write = Callable[[lksm.Process, Pages, int, str], None]


def write_as_owner(process: lksm.Process, memory: Pages, page: int, word: str) -> None:
    memory[page] = pages(word)[0]


def write_through_process(process: lksm.Process, memory: Pages, page: int, word: str) -> None:
    process.write(page, pages(word))


both_ways = pytest.mark.parametrize("write", [write_as_owner, write_through_process])


@both_ways
def test_row_36_write_isolation(engine: lksm.Engine, write: Write) -> None:
    """A write to one of three merged pages reaches nobody else, and the counters follow at the next visit."""
    memory = repeated("P", 3)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    write(process, memory, 1, "x")
    expect(engine, shared=1, sharing=2, unshared=0)
    assert reads(process, "P x P")
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1, broken=1)
    assert partition([ids(engine, process)]) == [[0, -1, 0]]


@both_ways
def test_row_37_a_frame_without_users_goes_away(engine: lksm.Engine, write: Write) -> None:
    """When all sharers were written, their frame is gone after the next scan."""
    memory = repeated("P", 3)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    for page, word in enumerate(["x", "y", "z"]):
        write(process, memory, page, word)
    expect(engine, shared=1, sharing=2, unshared=0)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=3, broken=2)
    engine.attach(pages("P"), mergeable=True)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=4)


@both_ways
def test_row_38_a_frame_with_one_user_is_still_a_target(engine: lksm.Engine, write: Write) -> None:
    """The page that is left alone on a frame stays there, and a new equal page joins it."""
    memory = repeated("P", 2)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    write(process, memory, 1, "x")
    engine.full()
    expect(engine, shared=1, sharing=0, unshared=1)
    other = engine.attach(pages("P"), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1)
    assert ids(engine, other)[0] == ids(engine, process)[0]


def test_row_39_unmergeable_range(engine: lksm.Engine) -> None:
    """Opted-out pages are private at once; their counters lag until the next scan."""
    process = engine.attach(repeated("P", 4), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=3)
    process.advise("unmergeable", 0, 2)
    assert partition([ids(engine, process)]) == [[-1, -1, 0, 0]]
    assert reads(process, "P P P P")
    expect(engine, shared=1, sharing=3, rmap_items=4)
    engine.full()
    expect(engine, shared=1, sharing=1, rmap_items=2)


def test_row_40_opt_out_is_sticky(engine: lksm.Engine) -> None:
    """No crawl undoes an opt-out; advising mergeable does."""
    process = engine.attach(repeated("P", 4), mergeable=True)
    engine.full()
    process.advise("unmergeable", 0, 2)
    for _ in range(3):
        engine.full()
        assert partition([ids(engine, process)]) == [[-1, -1, 0, 0]]
    process.advise("mergeable", 0, 2)
    engine.full()
    expect(engine, shared=1, sharing=3)


def test_row_41_unmerge_all(engine: lksm.Engine) -> None:
    """`run` = 2 makes every page private and every counter of pages zero, and forgets no process."""
    process = engine.attach(repeated("P", 500), mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=498, full_scans=1, scanning_process=1)
    assert engine.sysfs.write("run", "2\n") == 2
    expect(engine, shared=0, sharing=0, unshared=0, volatile=0, rmap_items=0, chains=0, dups=0)
    expect(engine, full_scans=1, scanning_process=1)
    assert set(ids(engine, process)) == {-1}
    assert process.read(0, 500).tobytes() == repeated("P", 500).tobytes()


def test_row_42_life_after_unmerge(engine: lksm.Engine) -> None:
    """After unmerging, `run` = 8 and a scan merge as before."""
    engine.attach(repeated("P", 500), mergeable=True)
    engine.full()
    engine.knobs.run = 2
    engine.knobs.run = 8
    engine.full()
    expect(engine, shared=2, sharing=498, full_scans=2)


def test_row_43_unmerge_during_a_scan(engine: lksm.Engine) -> None:
    """Unmerging in the middle of a scan cancels it; the next one starts afresh."""
    engine.attach(repeated("P", 10_000), mergeable=True)
    assert engine.crawl("full") == 1
    assert engine.scan(100) == 100
    engine.knobs.run = 2
    expect(engine, shared=0, sharing=0, unshared=0, rmap_items=0, full_scans=0)
    expect(engine, nr_scannable=0, nr_frozen=0)
    assert engine.scan(100) == 0
    engine.knobs.run = 8
    assert engine.crawl("full") == 1
    assert finish(engine, 1000) == 10_000
    expect(engine, shared=40, sharing=9960, full_scans=1)


def test_row_45_register_while_run_is_2(engine: lksm.Engine) -> None:
    """A process registered while `run` is 2 is scanned when `run` allows it; it may also exit before."""
    engine.knobs.run = 2
    engine.attach(repeated("P", 2), mergeable=True)
    gone = engine.attach(repeated("P", 2), mergeable=True)
    engine.full()
    expect(engine, rmap_items=0, scanning_process=2, nr_scannable=0)
    gone.exit()
    expect(engine, scanning_process=1, nr_scannable=0)
    engine.knobs.run = 8
    engine.full()
    expect(engine, shared=1, sharing=1, scanning_process=1)


def test_row_46_item_cleanup_after_unmap(engine: lksm.Engine) -> None:
    """The items of unmapped pages are gone after the next scan."""
    process = engine.attach(repeated("P", 10), mergeable=True)
    engine.full()
    process.unmap(3, 8)
    engine.full()
    expect(engine, rmap_items=5, shared=1, sharing=4)
    assert partition([ids(engine, process)]) == [[0, 0, 0, -3, -3, -3, -3, -3, 0, 0]]


def test_row_47_exit_without_items(engine: lksm.Engine) -> None:
    """A process that was registered and never scanned leaves nothing behind."""
    process = engine.attach(repeated("P", 10), mergeable=True)
    frozen = engine.attach(repeated("P", 10), mergeable=True, frozen=True)
    expect(engine, scanning_process=2, nr_scannable=1, nr_frozen=1)
    process.exit()
    expect(engine, scanning_process=1, nr_scannable=0, nr_frozen=1)
    frozen.exit()
    expect(engine, scanning_process=0, nr_scannable=0, nr_frozen=0, rmap_items=0)


def test_row_48_exit_with_items_when_idle(engine: lksm.Engine) -> None:
    """An exit between scans is counted at once."""
    stays, goes = (engine.attach(repeated("P", 5), mergeable=True) for _ in range(2))
    engine.full()
    expect(engine, shared=1, sharing=9)
    goes.exit()
    expect(engine, shared=1, sharing=4, rmap_items=5, scanning_process=1)
    assert reads(stays, "P P P P P")


@pytest.mark.parametrize("batch", [0, 1, 4, 9, 10, 11, 15, 20])
def test_row_49_exit_of_the_process_being_scanned(engine: lksm.Engine, batch: int) -> None:
    """A process may exit under the cursor, wherever the cursor is: the scan goes on with the next one."""
    processes = [engine.attach(pages("P Q 0 u v P Q 0 w x"), mergeable=True) for _ in range(3)]
    engine.crawl("full")
    if batch:
        assert engine.scan(batch) == batch
    goes = processes.pop(min(batch // 10, 1))
    goes.exit()
    assert engine.check() == []
    finish(engine, 3)
    engine.full()
    expect(engine, shared=7, sharing=13, unshared=0, rmap_items=20, scanning_process=2)


def test_row_50_all_queued_processes_exit(engine: lksm.Engine) -> None:
    """A scan whose processes all exited before its first batch ends without error and without a time."""
    engine.attach(pages("P"), mergeable=True)
    engine.full()
    before = engine.counters().proc_scan_ms
    processes = [*engine.processes, *(engine.attach(pages("P Q"), mergeable=True) for _ in range(2))]
    assert engine.crawl("full") == 3
    for process in processes:
        process.exit()
    assert engine.scan() == 0
    expect(engine, rmap_items=0, scanning_process=0, nr_scannable=0, shared=0)
    assert engine.counters().proc_scan_ms == before
    engine.attach(repeated("P", 2), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_row_51_process_without_mergeable_memory(engine: lksm.Engine) -> None:
    """A process that opted out altogether loses its slot at the next scan and may come back."""
    process = engine.attach(repeated("P", 3), mergeable=True)
    engine.full()
    process.advise("unmergeable")
    engine.full()
    expect(engine, scanning_process=0, rmap_items=0, shared=0)
    process.freeze()
    process.thaw()
    engine.full()
    expect(engine, scanning_process=0, nr_frozen=0, nr_scannable=0)
    process.advise("mergeable")
    expect(engine, scanning_process=1, nr_scannable=1)
    engine.full()
    expect(engine, scanning_process=1, shared=1, sharing=2)


def test_unique_pages_stay_private_through_all_of_it(engine: lksm.Engine) -> None:
    """Pages without a twin are never touched by merging, unmerging or the exit of others."""
    process = engine.attach(unique_pages(20), mergeable=True)
    other = engine.attach(repeated("P", 20), mergeable=True)
    engine.full()
    engine.knobs.run = 2
    engine.knobs.run = 0
    engine.full()
    other.exit()
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=20)
    assert process.read(0, 20).tobytes() == unique_pages(20).tobytes()

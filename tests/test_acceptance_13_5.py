"""Scanner, knobs, memory nodes and threads: rows 81-94 of section 13.5 of the specification.

Row 87 (the syntax of every knob) is in test_knobs.py. Row 93 runs for LKSM_SOAK_SECONDS seconds, 3 if that
is not set. More about rows 89-91 is in tests/c/test_migrate.c.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count

import pytest

import lksm
from driving import FAR, batches, clocked, one_shot, periodic, scans, turns
from helpers import PAGE_SIZE, Pages, content, expect, finish, ids, pages, partition, repeated, unique_pages

SOAK_SECONDS = float(os.environ.get("LKSM_SOAK_SECONDS", "3"))


def request(engine: lksm.Engine, kind: int) -> None:
    """Ask for a one-shot scan: 1 partial, 2 full."""
    assert engine.sysfs.write("one_shot_scanning", f"{kind}\n") == 2


# ---- 81, 82: batches and naps


@pytest.mark.parametrize("nap", [20, 1, 7000])
def test_row_81_batch_budget(nap: int) -> None:
    """20 pages in batches of 7, with a nap in between."""
    engine, clock = one_shot(pages_to_scan=7, sleep_millisecs=nap)
    engine.attach(repeated("P", 20), mergeable=True)
    request(engine, 2)
    assert batches(engine, clock, 3 * nap) == [(0, 7), (nap, 7), (2 * nap, 6)]
    expect(engine, shared=1, sharing=19, full_scans=1)


def test_row_81_a_batch_may_span_processes() -> None:
    """The budget is counted over processes."""
    engine, clock = one_shot(pages_to_scan=7)
    for number in range(5):
        engine.attach(unique_pages(4, f"{number}-"), mergeable=True)
    request(engine, 2)
    assert [visited for _, visited in batches(engine, clock, 100)] == [7, 7, 6]


@pytest.mark.parametrize("nap", [20, 0])
def test_row_81_no_pages_to_scan(nap: int) -> None:
    """With `pages_to_scan` 0 there is no progress and no spinning."""
    engine, clock = one_shot(pages_to_scan=0, sleep_millisecs=nap)
    engine.attach(repeated("P", 20), mergeable=True)
    request(engine, 2)
    assert turns(engine, clock, 10_000) <= 10_000 // max(nap, 1) + 5
    expect(engine, pages_scanned=0, full_scans=0, nr_scannable=1)
    assert engine.sysfs.read("one_shot_scanning") == "2\n"
    engine.knobs.pages_to_scan = 7
    engine.advance(100)
    expect(engine, pages_scanned=20, full_scans=1, shared=1, sharing=19)


def test_row_81_no_nap_at_all() -> None:
    """With `sleep_millisecs` 0 a scan on the virtual clock still ends, and takes next to no time."""
    engine, _ = one_shot(pages_to_scan=1, sleep_millisecs=0)
    engine.attach(repeated("P", 50), mergeable=True)
    request(engine, 2)
    engine.advance(60)
    expect(engine, pages_scanned=50, full_scans=1)


def test_row_82_nap_shortened_by_knob() -> None:
    """Storing `sleep_millisecs` during a nap ends it."""
    engine, _ = one_shot(pages_to_scan=7, sleep_millisecs=10_000)
    engine.attach(repeated("P", 20), mergeable=True)
    request(engine, 2)
    engine.advance(5000)
    expect(engine, pages_scanned=7)
    assert engine.sysfs.write("sleep_millisecs", "1") == 1
    engine.advance(1)
    assert engine.counters().pages_scanned >= 14
    engine.advance(2)
    expect(engine, pages_scanned=20, full_scans=1)


def test_row_82_a_longer_nap_is_news_as_well() -> None:
    """Whatever the new value is, the nap that runs ends; the next one is as long as it says."""
    engine, _ = one_shot(pages_to_scan=7, sleep_millisecs=10_000)
    engine.attach(repeated("P", 20), mergeable=True)
    request(engine, 2)
    engine.advance(5000)
    engine.knobs.sleep_millisecs = 20_000
    engine.advance(1)
    expect(engine, pages_scanned=14)
    engine.advance(19_990)
    expect(engine, pages_scanned=14)
    engine.advance(10)
    expect(engine, pages_scanned=20)


# ---- 83: boost


def test_row_83_boost() -> None:
    """A partial scan goes by `scan_boost`, and the user's `pages_to_scan` is back when it is over."""
    engine, clock = one_shot(pages_to_scan=150, scan_boost=1000)
    engine.attach(unique_pages(2500), mergeable=True)
    request(engine, 1)
    assert engine.knobs.pages_to_scan == 150
    assert batches(engine, clock, 120) == [(100, 1000), (120, 1000)]
    assert engine.sysfs.read("pages_to_scan") == "1000\n"
    assert engine.knobs.pages_to_scan == 1000
    assert [visited for _, visited in batches(engine, clock, 40)] == [500]
    assert engine.sysfs.read("pages_to_scan") == "150\n"
    assert engine.knobs.pages_to_scan == 150
    request(engine, 2)
    assert {visited for _, visited in batches(engine, clock, 40)} == {150}
    assert engine.knobs.pages_to_scan == 150


def test_row_83_a_store_during_the_boost() -> None:
    """What is stored during a partial scan takes effect at once and is lost when it is over."""
    engine, clock = one_shot(pages_to_scan=150, scan_boost=1000, sleep_millisecs=20)
    engine.attach(unique_pages(2500), mergeable=True)
    request(engine, 1)
    engine.advance(100)
    engine.knobs.pages_to_scan = 500
    engine.knobs.scan_boost = 2000
    assert engine.knobs.pages_to_scan == 500
    assert [visited for _, visited in batches(engine, clock, 100)] == [500, 500, 500]
    assert engine.knobs.pages_to_scan == 150
    for process in engine.processes:
        process.freeze()
    request(engine, 1)
    assert [visited for _, visited in batches(engine, clock, 200)] == [2000, 500]
    assert engine.knobs.pages_to_scan == 150


@pytest.mark.parametrize("end", [0, 2])
def test_row_83_the_boost_ends_with_the_scan_however_it_ends(end: int) -> None:
    """Stopping or unmerging in the middle of a partial scan restores `pages_to_scan` too."""
    engine, _ = one_shot(pages_to_scan=150, scan_boost=1000)
    engine.attach(unique_pages(2500), mergeable=True)
    request(engine, 1)
    engine.advance(100)
    expect(engine, pages_scanned=1000)
    engine.knobs.run = end
    engine.advance(100)
    assert engine.knobs.pages_to_scan == 150


def test_row_83_the_boost_of_a_call() -> None:
    """A partial scan in steps is boosted too: `scan()` visits what the knob reads."""
    engine = lksm.Engine(initial_rounds=0, pages_to_scan=150, scan_boost=1000)
    engine.attach(unique_pages(1700), mergeable=True)
    assert engine.crawl("partial") == 1
    assert engine.knobs.pages_to_scan == 1000
    assert [engine.scan() for _ in range(2)] == [1000, 700]
    assert engine.knobs.pages_to_scan == 150
    assert engine.partial().nr_slots == 0
    assert engine.knobs.pages_to_scan == 150
    engine.crawl("full")
    assert engine.scan() == 150


@pytest.mark.parametrize("text", ["99", "10001", "x", "", "0", "-100", "1000x"])
def test_row_83_values_of_scan_boost(engine: lksm.Engine, text: str) -> None:
    """`scan_boost` is 100 to 10000, and anything else is EINVAL."""
    with pytest.raises(lksm.KnobError, match="scan_boost") as error:
        engine.sysfs.write("scan_boost", text)
    assert error.value.errno == errno.EINVAL
    assert engine.sysfs.read("scan_boost") == "100\n"
    for good in (100, 10_000):
        engine.sysfs.write("scan_boost", f"{good}\n")
        assert engine.knobs.scan_boost == good


# ---- 84: stop and resume


@pytest.mark.parametrize("kind", [1, 2])
def test_row_84_stop_and_resume(kind: int) -> None:
    """A stopped scan goes on at the next page when it is asked for again."""
    engine, clock = one_shot()
    process = engine.attach(repeated("P", 250), mergeable=True)
    other = engine.attach(unique_pages(30), mergeable=True)
    request(engine, 2)
    engine.advance(1)
    expect(engine, pages_scanned=100, shared=1, sharing=99)
    engine.knobs.run = 0
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    assert scans(engine, clock, 10_000) == []
    expect(engine, pages_scanned=100, shared=1, sharing=99, full_scans=0, nr_scannable=2)
    assert engine.queue == (process, other)
    assert [frame >= 0 for frame in ids(engine, process)] == [True] * 100 + [False] * 150
    engine.knobs.run = 8
    assert scans(engine, clock, 10_000) == []
    request(engine, kind)
    (scan,) = scans(engine, clock, 10_000)
    assert (scan.report.pages_scanned, scan.report.nr_slots) == (180, 2)
    expect(engine, pages_scanned=280, rmap_items=280, shared=1, sharing=249, unshared=30)
    expect(engine, full_scans=kind - 1, nr_scannable=0)
    assert process.stats().elapsed_ms == 20  # the time it stood still is not its own (D-42)


def test_row_84_stop_and_resume_in_steps() -> None:
    """The same without a clock: storing 0 ends the scan, so the next one may be prepared."""
    engine = lksm.Engine(initial_rounds=0, run=8)
    engine.attach(repeated("P", 25), mergeable=True)
    engine.crawl("full")
    assert engine.scan(10) == 10
    with pytest.raises(lksm.BusyError):
        engine.crawl("full")
    engine.knobs.run = 0
    assert engine.scan(10) == 0
    expect(engine, shared=1, sharing=9, full_scans=0, nr_scannable=1)
    assert engine.crawl("full") == 1
    assert finish(engine) == 15
    expect(engine, shared=1, sharing=24, full_scans=1, pages_scanned=25, nr_scannable=0)


def test_row_84_stop_and_resume_in_periodic_operation() -> None:
    """After 1, 0, 1 the left-overs are a reason for a partial scan."""
    engine, clock, (process,) = periodic(unique_pages(250))
    process.freeze()
    engine.advance(100)
    visited = engine.counters().pages_scanned
    engine.knobs.run = 0
    assert scans(engine, clock, 5000) == []
    expect(engine, pages_scanned=visited, nr_frozen=1)
    engine.knobs.run = 1
    (scan,) = scans(engine, clock, 1200)
    assert (scan.report.mode, scan.report.pages_scanned, scan.report.cause) == ("partial", 150, "event")
    expect(engine, pages_scanned=visited + 150, nr_frozen=0)


def test_row_84_merged_pages_stay_while_stopped(engine: lksm.Engine) -> None:
    """With `run` = 0 merged pages stay merged, writes break them, and exits are counted."""
    engine.knobs.run = 8
    memory = repeated("P", 10)
    process = engine.attach(memory, mergeable=True)
    other = engine.attach(repeated("P", 3), mergeable=True)
    engine.full()
    engine.knobs.run = 0
    process.write(0, pages("x"))
    expect(engine, shared=1, sharing=12)
    assert ids(engine, process)[0] == -1
    other.exit()
    expect(engine, shared=1, sharing=9, rmap_items=10)


# ---- 85: statistics


@pytest.mark.parametrize(
    ("nr_pages", "nap", "last", "per_slot"), [((150, 110, 90), 20, 60, 20), ((150, 160), 25, 75, 37)]
)
def test_row_85_wrap_up_statistics(nr_pages: tuple[int, ...], nap: int, last: int, per_slot: int) -> None:
    """A scan of k processes that takes t ms: t, and t // k."""
    engine, clock = one_shot(sleep_millisecs=nap)
    for number, length in enumerate(nr_pages):
        engine.attach(repeated(f"P{number}", length), mergeable=True)
    engine.advance(1234)
    request(engine, 2)
    (scan,) = scans(engine, clock, 1000)
    assert scan.ended - scan.began == last
    expect(engine, last_scan_ms=last, proc_scan_ms=per_slot)
    assert scan.report.elapsed_ms == last
    assert scan.report.nr_slots == len(nr_pages)
    assert scan.report.merged == sum(nr_pages) - len(nr_pages)
    assert scan.report.broken == 0


def test_row_85_totals_of_a_scan_begin_at_zero() -> None:
    """What one scan merged, broke and visited is not in the report of the next."""
    engine, clock = one_shot()
    memory = repeated("P", 10)
    engine.attach(memory, mergeable=True)
    request(engine, 2)
    scans(engine, clock, 1000)
    memory[:3] = unique_pages(3)
    request(engine, 2)
    (second,) = scans(engine, clock, 1000)
    assert (second.report.merged, second.report.broken, second.report.nr_slots) == (0, 3, 1)
    request(engine, 2)
    (third,) = scans(engine, clock, 1000)
    assert (third.report.merged, third.report.broken, third.report.nr_slots) == (0, 0, 1)
    assert third.report.pages_scanned == 10
    expect(engine, merged=9, broken=3, pages_scanned=30, full_scans=3)


def test_row_85_no_process_no_time() -> None:
    """When every process has gone before its turn, the time per process stays what it was."""
    engine, clock = one_shot(pages_to_scan=10)
    engine.attach(unique_pages(30), mergeable=True)
    request(engine, 2)
    scans(engine, clock, 1000)
    expect(engine, proc_scan_ms=40, last_scan_ms=40)
    engine.knobs.pages_to_scan = 0
    request(engine, 2)
    engine.advance(500)
    for process in engine.processes:
        process.exit()
    engine.advance(500)
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    expect(engine, proc_scan_ms=40, scanning_process=0, rmap_items=0)


# ---- 86: run


def test_row_86_run_knob(engine: lksm.Engine) -> None:
    """0, 1, 2 and 8 are shown as they were stored; nothing else is accepted."""
    for value in (1, 8, 0, 2, 8, 1, 2, 0):
        assert engine.sysfs.write("run", f"{value}\n") == 2
        assert engine.sysfs.read("run") == f"{value}\n"
        for bad in ("3", "4", "7", "9", "", "-1", "1x"):
            with pytest.raises(lksm.KnobError, match="run") as error:
                engine.sysfs.write("run", bad)
            assert error.value.errno == errno.EINVAL
            assert engine.sysfs.read("run") == f"{value}\n"


def test_row_86_unmerging_twice_is_unmerging_once() -> None:
    """Storing 2 when `run` is 2 already does nothing."""
    engine, _ = one_shot()
    engine.attach(repeated("P", 10), mergeable=True)
    engine.full()
    before = engine.counters()
    engine.knobs.run = 2
    once = engine.counters()
    assert (once.pages_shared, once.rmap_items, once.merged) == (0, 0, before.merged)
    engine.knobs.run = 2
    assert asdict(engine.counters()) == asdict(once)


def test_row_86_from_8_to_1_periodic_work_begins() -> None:
    """After 8 → 1 what waits is scanned within a second; a pending request is dropped."""
    engine, clock = one_shot(full_scan_interval=FAR)
    process = engine.attach(pages("P P u"), mergeable=True)
    engine.full()
    process.freeze()
    assert scans(engine, clock, 10_000) == []
    request(engine, 1)
    engine.knobs.run = 1
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    (scan,) = scans(engine, clock, 1000)
    assert (scan.report.mode, scan.report.cause, scan.report.nr_slots) == ("partial", "event", 1)


@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("ms", [0, 50, 110])
def test_row_86_leaving_one_shot_mode_drops_the_request(value: int, kind: int, ms: int) -> None:
    """A request does not survive its mode, pending or being served."""
    engine, _ = one_shot(full_scan_interval=FAR, sleep_millisecs=10_000)
    engine.attach(unique_pages(250), mergeable=True)
    request(engine, kind)
    engine.advance(ms)
    engine.knobs.run = value
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    engine.knobs.run = 8
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    engine.advance(30_000)
    if value != 1:
        expect(engine, full_scans=0)
    request(engine, 2)
    engine.advance(30_000)
    assert engine.counters().rmap_items == 250
    assert engine.sysfs.read("one_shot_scanning") == "0\n"


def test_row_86_from_1_to_8_a_running_scan_goes_on() -> None:
    """A periodic scan that is under way is finished in one-shot mode, and serves no request by that."""
    engine, clock, (process,) = periodic(unique_pages(250))
    visited = engine.counters().pages_scanned
    process.freeze()
    engine.advance(100)
    expect(engine, pages_scanned=visited + 100)
    engine.knobs.run = 8
    request(engine, 2)
    engine.advance(39)
    assert engine.sysfs.read("one_shot_scanning") == "2\n"
    first, second = scans(engine, clock, 1000)
    assert (first.report.mode, first.report.cause, first.report.pages_scanned) == ("partial", "event", 250)
    assert (second.report.mode, second.report.cause, second.report.pages_scanned) == ("full", "request", 250)
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    expect(engine, full_scans=1)


def test_row_86_unmerge_in_periodic_operation() -> None:
    """1 → 2 in the middle of a scan cancels it; 2 → 1 begins afresh with full scans when they are due."""
    engine, clock, (process,) = periodic(repeated("P", 250), full_scan_interval=6000)
    process.freeze()
    engine.advance(110)
    expect(engine, nr_frozen=1)
    engine.knobs.run = 2
    expect(engine, nr_frozen=0, rmap_items=0, shared=0)
    assert scans(engine, clock, 20_000) == []
    engine.knobs.run = 1
    (scan, *_) = scans(engine, clock, 7000)
    assert scan.report.mode == "full"
    assert scan.report.pages_scanned == 250
    expect(engine, shared=1, sharing=249, rmap_items=250)


# ---- 88: volatile


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("initial_rounds", [0, 3])
def test_row_88_volatile_formula(seed: int, initial_rounds: int) -> None:
    """At every stop: what is tracked and in no tree is volatile."""
    choice = random.Random(seed)
    engine, _ = clocked(initial_rounds=initial_rounds, run=1, full_scan_interval=300, max_page_sharing=4)
    memory = [repeated("P", 40) for _ in range(4)]
    for each in memory:
        engine.attach(each)
    seen = 0
    for _ in range(300):
        choice.choice(memory)[choice.randrange(40)] = pages(choice.choice(["P", "Q", "R", "S", "T", "U"]))[0]
        engine.knobs.pages_to_scan = choice.randrange(1, 60)
        engine.advance(choice.randrange(60))
        now = engine.counters()
        tracked = now.pages_shared + now.pages_sharing + now.pages_unshared
        assert now.pages_volatile == max(0, now.rmap_items - tracked)
        assert now.pages_volatile == int(engine.sysfs.read("pages_volatile"))
        stats = [process.stats() for process in engine.processes]
        assert now.pages_volatile == sum(each.volatile for each in stats)
        seen += now.pages_volatile
    assert (seen > 0) == (initial_rounds > 0)
    assert engine.check() == []


# ---- 89 to 91: memory nodes


def two_nodes(**knobs: int) -> lksm.Engine:
    """Two memory nodes whose pages are kept apart, and no gate."""
    return lksm.Engine(nodes=2, initial_rounds=0, merge_across_nodes=0, **knobs)


def test_row_89_merge_across_nodes() -> None:
    """With 0 equal pages of different nodes stay apart; the knob is kept while pages are shared."""
    engine = lksm.Engine(nodes=2, initial_rounds=0)
    assert engine.sysfs.read("merge_across_nodes") == "1\n"
    first = engine.attach(pages("a b"), node=0, mergeable=True)
    second = engine.attach(pages("a c"), node=1, mergeable=True)
    assert engine.sysfs.write("merge_across_nodes", "0\n") == 2
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=4)
    assert engine.explain(first, 0).reason is lksm.Reason.OTHER_NODE
    assert engine.explain(first, 1).reason is lksm.Reason.UNIQUE
    third = engine.attach(pages("a c"), node=1, mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=2, unshared=2)
    assert ids(engine, first) == [-1, -1]
    assert ids(engine, second) == ids(engine, third)
    with pytest.raises(lksm.KnobError, match="merge_across_nodes") as busy:
        engine.sysfs.write("merge_across_nodes", "1")
    assert busy.value.errno == errno.EBUSY
    assert engine.sysfs.write("merge_across_nodes", "0") == 1
    for bad in ("2", "-1", "x", ""):
        with pytest.raises(lksm.KnobError, match="merge_across_nodes") as invalid:
            engine.sysfs.write("merge_across_nodes", bad)
        assert invalid.value.errno == errno.EINVAL
    engine.knobs.run = 2
    engine.knobs.merge_across_nodes = True
    engine.knobs.run = 0
    engine.full()
    expect(engine, shared=2, sharing=3, unshared=1)


def test_row_89_both_unstable_trees_restart() -> None:
    """Over 300 rounds the unshared pages of both nodes stay what they are."""
    engine = two_nodes()
    for node in (0, 1):
        engine.attach(pages("a b c"), node=node, mergeable=True)
    for _ in range(300):
        engine.full()
        expect(engine, shared=0, sharing=0, unshared=6, rmap_items=6)


def test_row_90_migrated_frame_is_refiled() -> None:
    """A frame that was moved is filed on its new node at the next visit; pages there join it."""
    engine = two_nodes()
    moved = engine.attach(pages("P P"), node=0, mergeable=True)
    engine.full()
    (frame, _) = ids(engine, moved)
    moved.move(0, 2, 1)
    assert [region.node for region in moved.regions] == [1]
    expect(engine, shared=1, sharing=1, unshared=0)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0, broken=0)
    there, here = (engine.attach(pages("P"), node=node, mergeable=True) for node in (1, 0))
    engine.full()
    expect(engine, shared=1, sharing=2, unshared=1)
    assert ids(engine, moved) == [frame, frame]
    assert ids(engine, there) == [frame]
    assert ids(engine, here) == [-1]


@pytest.mark.parametrize("nr_mappings", [1, 2])
def test_row_90_an_equal_frame_is_there(nr_mappings: int) -> None:
    """With one mapping the page joins the frame that is there, with two its own becomes a dup beside it."""
    engine = two_nodes()
    moved = engine.attach(pages("P P"), node=0, mergeable=True)
    there = engine.attach(pages("P P"), node=1, mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=2, unshared=0, chains=0)
    if nr_mappings == 1:
        moved.write(1, content("x"))
        engine.full()
        expect(engine, shared=2, sharing=1, unshared=1)
    moved.move(0, nr_mappings, 1)
    engine.full()
    if nr_mappings == 1:
        expect(engine, shared=1, sharing=2, unshared=1, chains=0, dups=0)
        assert ids(engine, moved) == [ids(engine, there)[0], -1]
    else:
        expect(engine, shared=2, sharing=2, unshared=0, chains=1, dups=2)
        assert set(ids(engine, moved)).isdisjoint(ids(engine, there))
    assert moved.read(0).tobytes() == content("P")


def test_row_91_offlining() -> None:
    """Batches wait, writes still break; afterwards no frame lies on the node that is offline."""
    engine, _ = clocked(nodes=2, merge_across_nodes=0, run=8)
    gone = engine.attach(pages("P P P"), node=0, mergeable=True)
    kept = engine.attach(pages("P P u"), node=1, mergeable=True)
    late = engine.attach(pages("Q Q"), node=0, mergeable=True)
    engine.full()
    expect(engine, shared=3, sharing=4, unshared=1)
    with engine.offlining(0):
        request(engine, 2)
        engine.advance(10_000)
        assert engine.counters().pages_scanned == 8
        for asked in (engine.full, engine.partial, engine.scan, lambda: engine.crawl("full")):
            with pytest.raises(lksm.BusyError, match="offline"):
                asked()
        with pytest.raises(lksm.BusyError, match="offline"), engine.offlining(1):
            pass
        for name, text in (("run", "0"), ("max_page_sharing", "7"), ("merge_across_nodes", "1")):
            with pytest.raises(lksm.KnobError, match="offline") as busy:
                engine.sysfs.write(name, text)
            assert busy.value.errno == errno.EBUSY
        gone.write(0, content("x"))
        assert ids(engine, gone)[0] == -1
        late.move(0, 2, 1)
    assert ids(engine, gone) == [-1, -1, -1]
    assert ids(engine, late)[0] == ids(engine, late)[1] >= 0
    expect(engine, shared=2, sharing=2, unshared=1, volatile=3)
    assert kept.read(0).tobytes() == content("P")
    engine.advance(1000)
    assert engine.counters().pages_scanned == 16
    expect(engine, shared=3, sharing=3, unshared=2)


def test_row_91_cancelled() -> None:
    """If offlining fails nothing has changed, and batches go on."""
    engine = two_nodes()
    process = engine.attach(pages("P P"), node=0, mergeable=True)
    engine.full()
    before = ids(engine, process)
    with pytest.raises(ZeroDivisionError), engine.offlining(0):
        _ = 1 // 0
    assert ids(engine, process) == before
    expect(engine, shared=1, sharing=1)
    assert engine.full().pages_scanned == 2
    with pytest.raises(lksm.InvalidMemory, match="node 2"), engine.offlining(2):
        pass


def test_row_91_threads_wait() -> None:
    """The scanner's thread waits while a node goes offline, and goes on afterwards."""
    engine = two_nodes(run=1, sleep_millisecs=0, full_scan_interval=0)
    engine.attach(pages("P P"), node=0, mergeable=True)
    with engine.running():
        wait_until(lambda: engine.counters().pages_scanned > 10)
        with engine.offlining(0):
            before = engine.counters().pages_scanned
            time.sleep(0.05)
            assert engine.counters().pages_scanned == before
        wait_until(lambda: engine.counters().pages_scanned > before + 10)
    expect(engine, shared=1, sharing=1)


def test_scans_of_other_threads_wait_for_offlining() -> None:
    """A scan that another thread asks for waits until the node has gone offline."""
    engine = two_nodes()
    engine.attach(pages("P P"), node=0, mergeable=True)
    thread = threading.Thread(target=engine.full)
    with engine.offlining(0):
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert engine.counters().pages_scanned == 0
    thread.join(60)
    expect(engine, shared=1, sharing=1)


def test_explain_after_a_move() -> None:
    """A unique page that was moved has no twin in the tree in which it still is filed itself."""
    engine = two_nodes()
    process = engine.attach(pages("a b"), node=0, mergeable=True)
    still = engine.attach(pages("c"), node=0, immutable=True, mergeable=True)
    engine.full()
    process.move(0, 1, 1)
    still.move(0, 1, 1)
    for each, page in ((process, 0), (process, 1), (still, 0)):
        assert engine.explain(each, page).reason is lksm.Reason.UNIQUE


def wait_until(is_so: Callable[[], bool]) -> None:
    """At most a minute."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_moves_are_checked() -> None:
    """Nodes and pages that are not there are refused, and a process remembers where its regions lie."""
    engine = lksm.Engine(nodes=3)
    process = engine.attach([pages("a b"), pages("c")], node=1)
    for start, stop, node in ((0, 4, 1), (-1, 1, 1), (2, 1, 1), (0, 1, 3), (0, 1, -1)):
        with pytest.raises(lksm.InvalidMemory):
            process.move(start, stop, node)
    process.move(1, 3, 2)
    assert [region.node for region in process.regions] == [1, 2]
    process.move(0, 0, 0)
    for nodes in (0, 257):
        with pytest.raises(ValueError, match="nodes is"):
            lksm.Engine(nodes=nodes)


# ---- 92: long gaps


@pytest.mark.parametrize("nr_rounds", [255, 256, 257, 512])
def test_row_92_long_gaps(engine: lksm.Engine, nr_rounds: int) -> None:
    """A process left out of very many rounds and then gone leaves sound trees behind."""
    left_out = engine.attach(pages("a b P P q"), mergeable=True)
    busy = engine.attach(pages("c d P r"), mergeable=True)
    engine.full()
    for _ in range(nr_rounds):
        busy.freeze()
        assert engine.partial().nr_slots == 1
        busy.thaw()
    expect(engine, scan_round=nr_rounds + 1, unshared=6, shared=1, sharing=2)
    assert left_out.stats().nr_scans == 5
    left_out.exit()
    expect(engine, unshared=3, shared=1, sharing=0, rmap_items=4)
    engine.attach(pages("c q d"), mergeable=True)
    engine.full()
    expect(engine, shared=3, sharing=2, unshared=2, rmap_items=7)


# ---- 93: threads


class Soak:
    """Everything at once on one engine, and what every page has to read when it is over."""

    WORDS = ("0", "P", "P>", "P<", "Q", "R")

    def __init__(self) -> None:
        self.engine = lksm.Engine(initial_rounds=1, sleep_millisecs=1, full_scan_interval=20)
        self.bytes = {word: content(word) for word in self.WORDS}
        self.ending = threading.Event()
        self.failures: list[BaseException] = []
        self.writable = [repeated("P", 60) for _ in range(4)]
        self.owned = [self.engine.attach(each, name=f"w{i}") for i, each in enumerate(self.writable)]
        self.last = [["P"] * 60 for _ in self.writable]
        still = [repeated(word, 30) for word in ("P", "Q")]
        self.still = [self.engine.attach(each, immutable=True, mergeable=True) for each in still]
        self.visits = dict.fromkeys(("write", "freeze", "come", "advise", "store", "look"), 0)

    def rounds(self, job: str) -> int:
        """Counts how often a job has been round; 0 when it is time to stop."""
        self.visits[job] += 1
        return 0 if self.ending.is_set() or self.failures else self.visits[job]

    def write(self, number: int) -> None:
        """Two processes written by this thread alone, with numpy and through the engine."""
        choice = random.Random(number)
        while self.rounds("write"):
            mine = choice.choice([number, number + 2])
            page, word = choice.randrange(60), choice.choice(self.WORDS)
            if choice.random() < 0.1:
                self.owned[mine].write(page, self.bytes[word])
            else:
                self.writable[mine][page] = memoryview(self.bytes[word])
                self.owned[mine].touch(page, page + 1)
            self.last[mine][page] = word
            if choice.random() < 0.05:
                assert self.owned[mine].read(page).tobytes() == self.bytes[word]

    def freeze(self) -> None:
        choice = random.Random("freeze")
        while self.rounds("freeze"):
            process = choice.choice([*self.owned, *self.still])
            choice.choice([process.freeze, process.thaw])()
            time.sleep(0.0002)

    def come(self, number: int) -> None:
        """Processes that come, fork, are written, and go; each reads what it should to the end."""
        choice = random.Random(f"come {number}")
        for serial in count():
            if not self.rounds("come"):
                return
            words = [choice.choice(self.WORDS) for _ in range(8)]
            process = self.engine.attach(
                pages(" ".join(words)),
                name=f"{number}-{serial}",
                mergeable=choice.choice([None, True, False]),
                frozen=choice.random() < 0.3,
                runtime_ms=choice.choice([None, 0, 1000]),
            )
            child = process.fork()
            theirs = list(words)
            for _ in range(choice.randrange(6)):
                page, word = choice.randrange(8), choice.choice(self.WORDS)
                which, expected = choice.choice([(process, words), (child, theirs)])
                which.write(page, self.bytes[word])
                expected[page] = word
                time.sleep(choice.choice([0, 0.0005]))
            for which, expected in choice.sample([(process, words), (child, theirs)], 2):
                assert which.read(0, 8).tobytes() == b"".join(self.bytes[word] for word in expected)
                which.exit()

    def advise(self) -> None:
        choice = random.Random("advise")
        while self.rounds("advise"):
            process = choice.choice(self.owned)
            start, stop = sorted(choice.choices(range(61), k=2))
            process.advise(choice.choice(["mergeable", "mergeable", "unmergeable"]), start, stop)
            time.sleep(0.001)

    def store(self) -> None:
        choice = random.Random("store")
        stores: list[Callable[[], tuple[str, int]]] = [
            lambda: ("run", choice.choice([0, 1, 1, 1, 2, 8, 8])),
            lambda: ("one_shot_scanning", choice.choice([1, 2])),
            lambda: ("sleep_millisecs", choice.choice([0, 1, 2, 50])),
            lambda: ("pages_to_scan", choice.choice([0, 1, 7, 100, 1000])),
            lambda: ("scan_boost", choice.choice([100, 500])),
            lambda: ("full_scan_interval", choice.choice([0, 1, 20, 1000])),
            lambda: ("max_page_sharing", choice.choice([2, 3, 256])),
        ]
        refusals = [("one_shot_scanning", errno.EINVAL), ("max_page_sharing", errno.EBUSY)]
        while self.rounds("store"):
            name, value = choice.choice(stores)()
            try:
                setattr(self.engine.knobs, name, value)
            except lksm.KnobError as error:
                if (name, error.errno) not in refusals:
                    raise
            time.sleep(0.003)

    def look(self) -> None:
        """I-6 holds whenever anybody looks, and the structures are sound."""
        while number := self.rounds("look"):
            now = self.engine.counters()
            tracked = now.pages_shared + now.pages_sharing + now.pages_unshared
            assert now.rmap_items == tracked + now.pages_volatile
            assert min(asdict(now)[name] for name in asdict(now) if name != "general_profit") >= 0
            assert now.merged - now.broken >= now.pages_sharing
            if number % 20 == 0:
                assert self.engine.check() == []
            time.sleep(0.002)

    def run(self, seconds: float) -> None:
        jobs: list[Callable[[], None]] = [
            lambda: self.write(0),
            lambda: self.write(1),
            self.freeze,
            lambda: self.come(0),
            lambda: self.come(1),
            self.advise,
            self.store,
            self.look,
        ]

        def guarded(job: Callable[[], None]) -> None:
            try:
                job()
            except BaseException as failure:
                self.failures.append(failure)

        threads = [threading.Thread(target=guarded, args=(job,), name="soak") for job in jobs]
        with self.engine.running():
            assert self.engine.is_running
            for thread in threads:
                thread.start()
            self.ending.wait(seconds)
            self.ending.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]


def test_row_93_thread_safety() -> None:
    """Writers, freezers, exits, advice, knobs, crawler and scanner at once: every page right, no leak."""
    before = set(threading.enumerate())
    soak = Soak()
    engine = soak.engine
    soak.run(SOAK_SECONDS)
    assert min(soak.visits.values()) > 10
    assert engine.counters().pages_scanned > 1000
    assert engine.counters().merged > 100
    assert set(threading.enumerate()) == before
    assert not engine.is_running
    assert engine.check() == []
    assert engine.processes == (*soak.owned, *soak.still)

    engine.knobs.run = 0
    for process in engine.processes:
        process.thaw()
        process.advise("mergeable")
    counters = engine.settle(64)
    assert engine.check() == []
    assert counters.pages_volatile == 0
    assert counters.rmap_items == 300
    assert (counters.nr_frozen, counters.nr_scannable, counters.scanning_process) == (0, 0, 6)
    assert counters.merged - counters.broken >= counters.pages_sharing

    # Every page reads what its owner last wrote, and pages of one frame are equal.
    frames: dict[int, set[bytes]] = {}
    for process, words in zip(engine.processes, [*soak.last, ["P"] * 30, ["Q"] * 30], strict=True):
        expected = [soak.bytes[word] for word in words]
        assert process.read(0, process.nr_pages).tobytes() == b"".join(expected)
        for frame, found in zip(ids(engine, process), expected, strict=True):
            if frame >= 0:
                frames.setdefault(frame, set()).add(found)
    assert all(len(found) == 1 for found in frames.values())
    assert len(frames) == counters.pages_shared
    kinds = {word for words in soak.last for word in words} | {"P", "Q"}
    assert {next(iter(found)) for found in frames.values()} >= {soak.bytes["P"], soak.bytes["Q"]}
    assert len(kinds) <= counters.pages_shared + counters.pages_unshared

    for process in engine.processes:
        process.exit()
    expect(engine, rmap_items=0, shared=0, sharing=0, unshared=0, scanning_process=0)
    assert engine.processes == ()
    left = engine.memory()
    assert left["frames"] == 0
    # What remains is what an engine keeps that has once held as much: the same again adds nothing.
    for _ in range(3):
        for memory in soak.writable:
            engine.attach(memory, mergeable=True)
        engine.settle()
        for process in engine.processes:
            process.exit()
        assert engine.check() == []
    assert sum(engine.memory().values()) <= sum(left.values()) + 16 * PAGE_SIZE
    engine.close()


# ---- 94: determinism


def story(engine: lksm.Engine, seed: int) -> list[tuple[dict[str, int], list[list[int]]]]:
    """Drives an engine through everything; returns counters and page tables along the way."""
    choice = random.Random(seed)
    memory: dict[lksm.Process, Pages] = {}
    seen = []
    for _ in range(400):
        live = engine.processes
        process = choice.choice(live) if live else None
        match choice.randrange(12):
            case 0 if len(live) < 8:
                picture = " ".join(choice.choice("PQRSTUVW") for _ in range(choice.randrange(1, 30)))
                words = pages(picture)
                process = engine.attach(
                    words, mergeable=choice.choice([None, True]), frozen=choice.random() < 0.2
                )
                memory[process] = words
            case 1 if process:
                process.exit()
            case 2 if process:
                process.freeze()
            case 3 if process:
                process.thaw()
            case 4 if process and len(live) < 8:
                memory[process.fork()] = memory[process]
            case 5 | 6 if process:
                page = choice.randrange(process.nr_pages)
                process.write(page, pages(choice.choice("PQRSTUVW")))
            case 7 if process:
                process.advise(choice.choice(["mergeable", "unmergeable"]))
            case 8:
                engine.knobs.run = choice.choice([0, 1, 2, 8])
            case 9 if engine.knobs.run == 8 and not engine.knobs.one_shot_scanning:
                engine.knobs.one_shot_scanning = choice.choice([1, 2])
            case 10:
                engine.knobs.pages_to_scan = choice.randrange(1, 20)
            case _:
                engine.advance(choice.randrange(2000))
        counters = asdict(engine.counters())
        seen.append((counters, [ids(engine, each) for each in engine.processes]))
    assert engine.check() == []
    return seen


def clocked_engine(seed: int) -> lksm.Engine:
    return lksm.Engine(clock=lksm.VirtualClock(), seed=seed, full_scan_interval=3000)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_row_94_determinism(seed: int) -> None:
    """The same story twice has the same counters, times included, and the same frames."""
    first, second = (story(clocked_engine(seed=5), seed) for _ in range(2))
    assert first == second
    assert any(counters["pages_sharing"] > 0 for counters, _ in first)
    assert any(counters["full_scans"] > 3 for counters, _ in first)


def test_row_94_the_seed_of_an_engine_does_not_show() -> None:
    """Another seed gives other keys, and the same counters and groups but for the work it took."""
    work = ("bytes_compared", "bytes_hashed", "general_profit")
    first, second = (story(clocked_engine(seed=seed), 1) for seed in (5, 6))
    for (counters, tables), (others, their_tables) in zip(first, second, strict=True):
        assert partition(tables) == partition(their_tables)
        for name in counters:
            assert name in work or counters[name] == others[name]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_row_94_the_step_does_not_matter(step: int) -> None:
    """Time may pass in small steps, in large ones, or turn by turn: the same happens."""
    stories = []
    for how in ("advance", "turn"):
        engine, clock = clocked(initial_rounds=3, run=1, full_scan_interval=1500)
        process = engine.attach(unique_pages(250), mergeable=True)
        engine.attach(repeated("P", 130))
        for second in range(7):
            if how == "turn":
                scans(engine, clock, 1000)
            else:
                for _ in range(1000 // step):
                    engine.advance(step)
                engine.advance(1000 % step)
            assert clock() == 1000 * (second + 1)
            (process.thaw if second % 2 else process.freeze)()
        stories.append((asdict(engine.counters()), engine.last_scan))
    assert stories[0] == stories[1]

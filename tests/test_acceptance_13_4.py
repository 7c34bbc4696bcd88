"""Crawler, queue and policies: rows 52-80 of section 13.4 of the specification, at least one test per row.

Time is a `VirtualClock`, so times are compared exactly. On it a batch takes
no time and a nap takes all of it: 250 pages in batches of 100 with naps of 20 ms last 40 ms. Row 68 has its
table here; its random events are in test_events.py.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable

import numpy as np
import pytest

import lksm
from driving import FAR, advance_until, clocked, one_shot, periodic, scans, turns
from helpers import Pages, expect, finish, ids, pages, reads, repeated, unique_pages
from lksm import ProcessState, Region, RegionFlag

FROZEN, LISTED, NEWCOMER, SCANNED = (
    ProcessState.FROZEN,
    ProcessState.LISTED,
    ProcessState.NEWCOMER,
    ProcessState.SCANNED,
)


def request(engine: lksm.Engine, kind: int) -> None:
    """Ask for a one-shot scan: 1 partial, 2 full."""
    assert engine.sysfs.write("one_shot_scanning", f"{kind}\n") == 2


def pending(engine: lksm.Engine) -> str:
    return engine.sysfs.read("one_shot_scanning")


def vip(engine: lksm.Engine, name: str, merges: int) -> lksm.Process:
    """A process that merges `merges` pages when it is scanned."""
    return engine.attach(repeated(name, merges + 1), name=name, mergeable=True)


# ---- 52-54: the initial rounds


@pytest.mark.parametrize("nap", [20, 100])
def test_row_52_initial_rounds(nap: int) -> None:
    """`run` = 1 begins with three full scans, at least a second apart, that nobody asked for."""
    engine, clock = clocked(initial_rounds=3, run=1, sleep_millisecs=nap, pages_to_scan=10)
    for number in range(4):
        engine.attach(unique_pages(99, f"{number}-"))
    found = scans(engine, clock, 20_000)
    assert [(scan.report.mode, scan.report.cause, scan.report.round) for scan in found] == [
        ("full", "initial", 1),
        ("full", "initial", 2),
        ("full", "initial", 3),
    ]
    assert [scan.report.nr_slots for scan in found] == [4, 4, 4]
    assert found[0].began <= 20
    gaps = [after.began - before.began for before, after in itertools.pairwise(found)]
    assert min(gaps) >= 1000
    assert max(gaps) <= 1000 + 40 * nap
    expect(engine, full_scans=3, scanning_process=4, unshared=396, volatile=0)


def test_row_52_initial_rounds_are_exactly_a_second_apart() -> None:
    """When a scan is over at once, the next initial round waits out its second and no more."""
    engine, clock = clocked(initial_rounds=3, run=1)
    for _ in range(4):
        engine.attach(pages("P u"))
    found = scans(engine, clock, 10_000)
    assert [scan.began - found[0].began for scan in found] == [0, 1000, 2000]


def test_row_52_initial_rounds_happen_once() -> None:
    """Stopping and unmerging later does not bring them back."""
    engine, _ = clocked(initial_rounds=3, run=1, full_scan_interval=FAR)
    engine.attach(pages("P P"))
    engine.advance(5000)
    expect(engine, full_scans=3)
    for value in (0, 1, 2, 1, 8, 1):
        engine.knobs.run = value
        engine.advance(5000)
    expect(engine, full_scans=3)


def test_row_52_a_round_without_processes_counts() -> None:
    """A preparation that finds nobody is a round, and no full scan."""
    engine, _ = clocked(initial_rounds=3, run=1, full_scan_interval=FAR)
    engine.advance(5000)
    expect(engine, full_scans=0)
    assert engine.last_scan is None
    engine.attach(pages("P P"), mergeable=True)
    engine.advance(5000)
    expect(engine, full_scans=0, shared=1, sharing=1)
    assert engine.last_scan is not None
    assert engine.last_scan.round == 4  # ungated


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5])
def test_row_52_scans_on_the_spot_are_rounds(calls: int) -> None:
    """Rounds that were called for, of either kind, need not come by themselves."""
    engine, clock = clocked(initial_rounds=3)
    engine.attach(pages("P P"))
    for number in range(calls):
        _ = engine.partial() if number % 2 else engine.full()
    engine.knobs.run = 1
    found = scans(engine, clock, 10_000)
    assert [scan.report.cause for scan in found] == ["initial"] * max(0, 3 - calls)


@pytest.mark.parametrize("kind", [1, 2])
def test_row_53_initial_rounds_in_one_shot_mode(kind: int) -> None:
    """`run` = 8 begins with them as well; a request stored meanwhile is served afterwards, not erased."""
    engine, clock = clocked(initial_rounds=3, run=8)
    process = engine.attach(pages("P P u v"))
    engine.advance(500)
    expect(engine, full_scans=1)
    request(engine, kind)
    for _ in range(14):
        engine.advance(100)
        assert pending(engine) == f"{kind}\n"
    expect(engine, full_scans=2, shared=1, sharing=1)
    process.faults += 1  # merged in round 2, so it is a VIP of the partial scan
    found = scans(engine, clock, 5000)
    assert [(scan.report.mode, scan.report.cause) for scan in found] == [
        ("full", "initial"),
        ({1: "partial", 2: "full"}[kind], "request"),
    ]
    assert [scan.report.nr_slots for scan in found] == [1, 1]
    assert pending(engine) == "0\n"
    expect(engine, full_scans=2 + kind)


def test_row_53_nothing_but_initial_rounds_without_request() -> None:
    """Without a request, one-shot mode does its three rounds and then nothing."""
    engine, clock = clocked(initial_rounds=3, run=8)
    process = engine.attach(pages("P P u v"))
    engine.advance(3000)
    expect(engine, full_scans=3)
    process.freeze()
    assert scans(engine, clock, 200) == []
    engine.advance(1_000_000)
    expect(engine, full_scans=3, nr_frozen=1, pages_scanned=12)


@pytest.mark.parametrize("before", [0, 500, 1500])
def test_row_54_no_spinning(before: int) -> None:
    """With `run` = 0 in the middle of the initial rounds the crawler sleeps."""
    engine, clock = clocked(initial_rounds=3, run=1)
    engine.attach(pages("P P"))
    turns(engine, clock, before)
    engine.knobs.run = 0
    visited = engine.counters().pages_scanned
    assert turns(engine, clock, 10_000) <= 15
    expect(engine, pages_scanned=visited)


def test_row_54_no_spinning_between_the_rounds() -> None:
    """Nor does it spin while it waits for the next initial round."""
    engine, clock = clocked(initial_rounds=10, run=1)
    engine.attach(pages("P P"))
    assert turns(engine, clock, 5000) <= 30
    expect(engine, full_scans=6)


# ---- 55-57: one-shot


def test_row_55_one_shot_partial() -> None:
    """A partial scan begins 100 ms after its request, which reads 1 until the scan has wrapped up."""
    engine, _ = one_shot()
    engine.attach(repeated("P", 250), mergeable=True)
    request(engine, 1)
    assert pending(engine) == "1\n"
    engine.advance(99)
    expect(engine, pages_scanned=0)
    engine.advance(1)
    expect(engine, pages_scanned=100)
    assert pending(engine) == "1\n"
    engine.advance(39)
    assert pending(engine) == "1\n"
    engine.advance(1)
    expect(engine, pages_scanned=250, shared=1, sharing=249, full_scans=0)
    assert pending(engine) == "0\n"
    assert engine.last_scan is not None
    assert (engine.last_scan.mode, engine.last_scan.cause) == ("partial", "request")


def test_row_55_one_shot_full() -> None:
    """A full scan begins at once, reads 2 until it has wrapped up, and is counted."""
    engine, _ = one_shot()
    engine.attach(repeated("P", 250))
    request(engine, 2)
    assert pending(engine) == "2\n"
    engine.advance(1)
    expect(engine, pages_scanned=100, full_scans=0)
    assert pending(engine) == "2\n"
    engine.advance(40)
    expect(engine, pages_scanned=250, shared=1, sharing=249, full_scans=1)
    assert pending(engine) == "0\n"
    assert engine.last_scan is not None
    assert (engine.last_scan.mode, engine.last_scan.cause) == ("full", "request")
    assert engine.last_scan.elapsed_ms == 40


def test_row_55_one_request_is_one_scan() -> None:
    """A served request is not served again; the next one is."""
    engine, clock = one_shot()
    engine.attach(repeated("P", 5))
    for number in range(1, 4):
        request(engine, 2)
        assert len(scans(engine, clock, 500)) == 1
        expect(engine, full_scans=number, pages_scanned=5 * number)


def test_row_56_one_shot_busy() -> None:
    """A second request is refused with EINVAL while one is pending, and while it is scanned."""
    engine, _ = one_shot()
    engine.attach(repeated("P", 250), mergeable=True)
    request(engine, 1)
    for ms in (0, 50, 50, 20, 19):
        engine.advance(ms)
        for text in ("1", "2"):
            with pytest.raises(lksm.KnobError, match="one_shot_scanning") as error:
                engine.sysfs.write("one_shot_scanning", text)
            assert error.value.errno == errno.EINVAL
        assert pending(engine) == "1\n"
    engine.advance(1)
    request(engine, 1)


@pytest.mark.parametrize("text", ["0", "3", "-1", "x", "", "1x", " 1", "\n", "4294967297"])
def test_row_56_one_shot_values(text: str) -> None:
    """Only 1 and 2 can be asked for."""
    engine, _ = one_shot()
    engine.attach(repeated("P", 2), mergeable=True)
    with pytest.raises(lksm.KnobError, match="one_shot_scanning") as error:
        engine.sysfs.write("one_shot_scanning", text)
    assert error.value.errno == errno.EINVAL
    assert pending(engine) == "0\n"
    engine.advance(5000)
    expect(engine, rmap_items=0)


@pytest.mark.parametrize("run", [0, 1, 2])
@pytest.mark.parametrize("kind", [1, 2])
def test_row_56_one_shot_needs_its_mode(run: int, kind: int) -> None:
    """A request is refused with EINVAL unless `run` is 8."""
    engine, _ = clocked(run=run)
    with pytest.raises(lksm.KnobError, match="one_shot_scanning") as error:
        engine.sysfs.write("one_shot_scanning", str(kind))
    assert error.value.errno == errno.EINVAL
    assert pending(engine) == "0\n"
    with pytest.raises(lksm.KnobError):
        engine.knobs.one_shot_scanning = kind


@pytest.mark.parametrize("kind", [1, 2])
def test_row_57_nothing_to_scan(kind: int) -> None:
    """Without processes a request is accepted and soon over, and nothing was scanned."""
    engine, _ = one_shot()
    request(engine, kind)
    engine.advance(101)
    assert pending(engine) == "0\n"
    assert engine.last_scan is None
    expect(engine, full_scans=0, pages_scanned=0)
    request(engine, kind)


@pytest.mark.parametrize("kind", [1, 2])
def test_row_55_a_call_is_no_answer_to_a_request(kind: int) -> None:
    """A scan on the spot while a request is pending leaves it pending, and it is served in its turn."""
    engine, clock = one_shot()
    engine.attach(repeated("P", 5), mergeable=True)
    request(engine, kind)
    report = engine.full()
    assert (report.mode, report.cause) == ("full", "call")
    assert pending(engine) == f"{kind}\n"
    engine.processes[0].freeze()
    (scan,) = scans(engine, clock, 1000)
    assert (scan.report.cause, scan.report.pages_scanned) == ("request", 5)
    assert pending(engine) == "0\n"


# ---- 58-61, 80: periodic operation


def test_row_58_periodic_full_scans() -> None:
    """The next full scan is prepared an interval after the expected end of this one."""
    engine, clock = clocked(run=1, full_scan_interval=5000)
    a = engine.attach(unique_pages(250, "a"), mergeable=True)
    b = engine.attach(unique_pages(130, "b"), mergeable=True)
    advance_until(engine, lambda: engine.counters().rmap_items == 380)
    # Batches 100, 100, 50 of a + 50 of b, 80 of b.
    assert (a.stats().elapsed_ms, b.stats().elapsed_ms) == (40, 20)
    found = scans(engine, clock, 22_000)
    assert {(scan.report.mode, scan.report.cause) for scan in found} == {("full", "interval")}
    assert len(found) >= 3
    assert {scan.ended - scan.began for scan in found} == {60}
    gaps = [after.began - before.began for before, after in itertools.pairwise(found)]
    assert set(gaps) == {5000 + 40 + 20}


def test_row_58_new_processes_are_expected_to_take_the_average() -> None:
    """A newcomer is expected to take what a process took on average in the last scan."""
    engine, clock = clocked(run=1, full_scan_interval=5000)
    engine.attach(unique_pages(250, "a"), mergeable=True)
    engine.attach(unique_pages(130, "b"), mergeable=True)
    first = next(scan for scan in scans(engine, clock, 12_000)[::-1])
    assert engine.counters().proc_scan_ms == 30
    for number in range(2):
        engine.attach(unique_pages(10, f"n{number}"))
    (second, third) = scans(engine, clock, 2 * 5200 - (clock() - first.began))
    assert second.began - first.began == 5000 + 60
    assert second.report.nr_slots == 4
    assert third.began - second.began == 5000 + 60 + 2 * 30


def test_row_58_a_partial_scan_does_not_move_the_next_full_one() -> None:
    """The full scan comes when it was due, whatever partial scans there are in between."""
    engine, clock = clocked(run=1, full_scan_interval=5000)
    process = engine.attach(unique_pages(10), mergeable=True)
    found = scans(engine, clock, 12_000)
    due = found[-1].began + 5000
    assert found[-1].report.mode == "full"
    process.freeze()
    engine.advance(1000)
    process.thaw()
    process.freeze()
    later = scans(engine, clock, due + 10 - clock())
    assert [scan.report.mode for scan in later] == ["partial", "full"]
    assert later[-1].began == due


def test_row_58_a_full_scan_that_falls_due_during_a_scan_follows_it() -> None:
    """If it falls due while another scan is running, it begins when that one has wrapped up."""
    engine, clock = clocked(run=1, full_scan_interval=5000, sleep_millisecs=1)
    process = engine.attach(unique_pages(10), mergeable=True)
    first = scans(engine, clock, 12_000)[-1]
    assert first.report.mode == "full"
    engine.advance(first.began + 4800 - clock())
    engine.knobs.sleep_millisecs = 600
    engine.knobs.pages_to_scan = 9
    engine.knobs.scan_boost = 100
    big = engine.attach(unique_pages(150, "v"), mergeable=True)
    big.freeze()
    partial, full = scans(engine, clock, 20_000)[:2]
    assert partial.report.mode == "partial" and full.report.mode == "full"
    assert partial.began <= first.began + 5000 < partial.ended
    assert partial.ended <= full.began <= partial.ended + 1
    assert process.stats().rmap_items == 10


def test_row_59_interval_change() -> None:
    """A new interval does not move the scan that is due already; the one after it does."""
    engine, clock = clocked(run=1, full_scan_interval=5000)
    engine.attach(unique_pages(250), mergeable=True)
    first = scans(engine, clock, 7000)[-1]
    assert first.report.mode == "full"
    engine.sysfs.write("full_scan_interval", "1000")
    second, third, fourth = scans(engine, clock, first.began + 5040 + 2 * 1040 + 45 - clock())
    assert second.began - first.began == 5000 + 40
    assert third.began - second.began == 1000 + 40
    assert fourth.began - third.began == 1000 + 40


@pytest.mark.parametrize("interval", [7000, 60_000])
def test_row_59_interval_before_the_end_of_the_initial_rounds(interval: int) -> None:
    """A value stored during the initial rounds stays, and the first periodic scan goes by it."""
    engine, clock = clocked(initial_rounds=3, run=1)
    engine.attach(pages("P P"))
    assert engine.sysfs.read("full_scan_interval") == "60000\n"
    engine.advance(500)
    if interval != 60_000:
        engine.sysfs.write("full_scan_interval", f"{interval}\n")
    found = scans(engine, clock, 9800)
    assert engine.knobs.full_scan_interval == interval
    assert len(found) == (3 if interval == 7000 else 2)
    if interval == 60_000:
        engine.advance(50_000 - 500)
        found += scans(engine, clock, 3500)
    initial, fourth = found[-2], found[-1]
    assert [scan.report.cause for scan in (initial, fourth)] == ["initial", "interval"]
    assert interval <= fourth.began - initial.began <= interval + 1000


def test_row_60_freeze_triggers_a_partial_scan() -> None:
    """An idle periodic engine scans a process 100 ms after it froze."""
    engine, _, (process, _) = periodic(pages("P u"), pages("v w"))
    visited = engine.counters().pages_scanned
    before = engine.last_scan
    process.freeze()
    expect(engine, nr_frozen=1)
    engine.advance(99)
    assert engine.last_scan is before
    engine.advance(1)
    assert engine.last_scan is not None and engine.last_scan is not before
    assert (engine.last_scan.mode, engine.last_scan.cause) == ("partial", "event")
    assert (engine.last_scan.nr_slots, engine.last_scan.pages_scanned) == (1, 2)
    assert process.state == FROZEN | SCANNED
    expect(engine, nr_frozen=0, pages_scanned=visited + 2, full_scans=0)


def test_row_60_freeze_does_nothing_in_one_shot_mode() -> None:
    """In one-shot mode a frozen process is queued and waits for a request."""
    engine, _ = one_shot()
    process = engine.attach(pages("P u"), mergeable=True)
    stranger = engine.attach(pages("v w"), runtime_ms=0)
    engine.full()
    before = engine.last_scan
    process.freeze()
    stranger.freeze()
    engine.advance(200_000)
    assert engine.last_scan is before
    assert engine.queue == (process,)
    expect(engine, nr_frozen=1, scanning_process=1)
    request(engine, 1)
    engine.advance(100)
    expect(engine, nr_frozen=0, scanning_process=2, unshared=4, full_scans=1)


def test_row_60_thaw_takes_the_reason_away() -> None:
    """A process that thaws before its scan is not scanned."""
    engine, clock, (process,) = periodic(pages("P u"))
    visited = engine.counters().pages_scanned
    process.freeze()
    engine.advance(50)
    process.thaw()
    assert scans(engine, clock, 5000) == []
    expect(engine, pages_scanned=visited, nr_frozen=0)


def test_row_61_burst_coalescing() -> None:
    """Five freezes within 100 ms are one partial scan with all five."""
    engine, clock, processes = periodic(*(pages(f"a{i} b{i}") for i in range(6)))
    began = clock()
    for process in processes[:5]:
        process.freeze()
        engine.advance(20 if process is not processes[4] else 19)
    assert clock() == began + 99
    (scan,) = scans(engine, clock, 5000)
    assert (scan.began, scan.report.mode, scan.report.nr_slots) == (began + 100, "partial", 5)
    assert scan.report.pages_scanned == 10


def test_row_61_the_next_burst_is_the_next_scan() -> None:
    """A freeze after the scan waits its own 100 ms."""
    engine, clock, (a, b) = periodic(pages("a"), pages("b"))
    began = clock()
    a.freeze()
    engine.advance(150)
    b.freeze()
    (scan,) = scans(engine, clock, 5000)
    assert (scan.began, scan.report.nr_slots) == (began + 250, 1)


def test_row_80_explicit_registration_is_served() -> None:
    """A process that is advised while the engine is idle is scanned within 1100 ms."""
    engine, clock, _ = periodic()
    for number in range(5):
        engine.advance(333)
        process = engine.attach(pages("P P u"), mergeable=True)
        expect(engine, nr_scannable=1)
        (scan,) = scans(engine, clock, 1100)
        assert (scan.report.mode, scan.report.cause) == ("partial", "event")
        assert process.state == LISTED | SCANNED
        expect(engine, scanning_process=number + 1, nr_scannable=0)


def test_row_80_newcomers_alone_trigger_nothing() -> None:
    """A process that nobody advised joins whichever scan comes next."""
    engine, clock, (process,) = periodic(pages("P"))
    engine.attach(pages("P"))
    assert scans(engine, clock, 3000) == []
    expect(engine, scanning_process=1)
    process.freeze()
    engine.advance(100)
    expect(engine, scanning_process=2, shared=1, sharing=1)


# ---- 62-64: candidates


def test_row_62_unregistered_frozen_process() -> None:
    """A process that froze before anybody knew it is registered as frozen, marked and merged."""
    engine, _, _ = periodic()
    memory = [Region(0, pages("P P")), Region(1 << 20, pages("P x"))]
    process = engine.attach(memory, runtime_ms=0)
    process.freeze()
    expect(engine, scanning_process=0, nr_frozen=0)
    assert not process.stats().mergeable
    engine.advance(99)
    expect(engine, scanning_process=0)
    engine.advance(1)
    expect(engine, scanning_process=1, nr_frozen=0, shared=1, sharing=2, unshared=1)
    assert process.state == FROZEN | SCANNED
    assert engine.last_scan is not None
    assert (engine.last_scan.mode, engine.last_scan.nr_slots) == ("partial", 1)


@pytest.mark.parametrize("mode", ["full", "partial"])
def test_row_62_in_steps(mode: str) -> None:
    """Draining queues it in class frozen."""
    engine = lksm.Engine()  # gated: pages of a frozen newcomer pass the gate
    process = engine.attach(pages("P P u"), runtime_ms=0)
    process.freeze()
    assert engine.crawl(mode) == 1  # type: ignore[arg-type]
    assert engine.queue == (process,)
    expect(engine, nr_frozen=1, nr_scannable=0, scanning_process=1)
    assert process.state == FROZEN | NEWCOMER
    assert finish(engine) == 3
    expect(engine, nr_frozen=0, nr_scannable=0, shared=1, sharing=1, unshared=1)


def test_row_62_attached_frozen() -> None:
    """Attaching a frozen process that nobody advised makes a candidate, as freezing does."""
    engine, _, _ = periodic()
    process = engine.attach(pages("P P u"), frozen=True, runtime_ms=0)
    expect(engine, scanning_process=0, nr_frozen=0)
    engine.advance(1200)
    expect(engine, scanning_process=1, nr_frozen=0, shared=1, sharing=1, unshared=1)
    assert process.state == FROZEN | SCANNED


def test_row_62_frozen_during_a_scan() -> None:
    """Who freezes unknown while a scan runs is not part of it; the next one comes when it is over."""
    engine, clock, (process,) = periodic(unique_pages(250))
    process.freeze()
    engine.advance(110)
    stranger = engine.attach(pages("P P"), runtime_ms=0)
    stranger.freeze()
    first, second = scans(engine, clock, 2000)
    assert (first.report.nr_slots, first.report.pages_scanned) == (1, 250)
    assert (second.report.nr_slots, second.report.pages_scanned) == (1, 2)
    assert 100 <= second.began - first.ended <= 1100
    assert stranger.state == FROZEN | SCANNED
    expect(engine, shared=1, sharing=1, nr_frozen=0)


def test_row_63_drain_accounting() -> None:
    """Five freezes of one unregistered process are one candidate."""
    engine, _ = one_shot()
    process = engine.attach(pages("P P"), runtime_ms=0)
    for _ in range(5):
        process.freeze()
    expect(engine, nr_frozen=0)
    assert engine.crawl("partial") == 1
    expect(engine, nr_frozen=1, nr_scannable=0, scanning_process=1)
    assert finish(engine) == 2
    expect(engine, nr_frozen=0, nr_scannable=0, scanning_process=1)
    assert engine.crawl("partial") == 0


def test_row_64_thaw_cancels_a_candidate() -> None:
    """Frozen and thawed before the crawl: as if it had never been frozen."""
    engine, _ = one_shot()
    process = engine.attach(pages("P P"), runtime_ms=0)
    for _ in range(5):
        process.freeze()
    process.thaw()
    assert engine.crawl("partial") == 0
    assert engine.crawl("full") == 0
    expect(engine, scanning_process=0, nr_frozen=0, nr_scannable=0)
    process.freeze()
    process.exit()
    assert engine.crawl("partial") == 0
    expect(engine, scanning_process=0)


def test_row_64_advice_takes_over_from_the_candidate() -> None:
    """A candidate that is then advised is registered once, as frozen, and not drained again."""
    engine, _ = one_shot()
    process = engine.attach(pages("P P"), runtime_ms=0)
    process.freeze()
    process.advise("mergeable")
    expect(engine, scanning_process=1, nr_frozen=1, nr_scannable=0)
    assert engine.crawl("partial") == 1
    assert finish(engine) == 2
    expect(engine, scanning_process=1, nr_frozen=0, nr_scannable=0)
    assert engine.crawl("partial") == 0


# ---- 65-69: states


def test_row_65_freeze_scan_thaw_freeze(engine: lksm.Engine) -> None:
    """Every freeze queues again, and a thawed process may be a VIP again."""
    memory = unique_pages(10)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    assert process.state == LISTED | SCANNED
    for cycle in range(4):
        memory[:] = repeated(f"P{cycle}", 10)  # new merges, so that it stays a VIP
        process.freeze()
        assert engine.queue == (process,)
        assert process.state == FROZEN | SCANNED
        expect(engine, nr_frozen=1, nr_scannable=0)
        report = engine.partial()
        assert (report.mode, report.nr_slots, report.pages_scanned, report.merged) == ("partial", 1, 10, 9)
        assert process.state == FROZEN | SCANNED
        expect(engine, nr_frozen=0, nr_scannable=0)
        process.faults += 1
        assert engine.partial().nr_slots == 0  # a frozen process is no VIP
        process.thaw()
        assert process.state == LISTED | SCANNED
        assert engine.queue == ()
        assert engine.partial().nr_slots == 1
        expect(engine, nr_frozen=0, nr_scannable=0, full_scans=1)


def test_row_66_thaw_before_the_scan_of_a_scanned_process(engine: lksm.Engine) -> None:
    """What waited only because it froze waits no longer."""
    process = engine.attach(pages("P u"), mergeable=True)
    engine.full()
    process.freeze()
    expect(engine, nr_frozen=1, nr_scannable=0)
    assert engine.queue == (process,)
    process.thaw()
    expect(engine, nr_frozen=0, nr_scannable=0)
    assert engine.queue == ()
    assert process.state == LISTED | SCANNED
    assert engine.crawl("partial") == 0


def test_row_66_thaw_before_the_scan_of_a_waiting_process(engine: lksm.Engine) -> None:
    """What waited anyway keeps its place, as running."""
    a, b = (engine.attach(pages(word), mergeable=True) for word in ("a", "b"))
    for process in (a, b):
        process.freeze()
    expect(engine, nr_frozen=2, nr_scannable=0)
    a.thaw()
    expect(engine, nr_frozen=1, nr_scannable=1)
    assert engine.queue == (a, b)
    assert a.state == LISTED | NEWCOMER
    engine.full()
    engine.crawl("full")
    b.thaw()
    expect(engine, nr_frozen=0, nr_scannable=2)
    assert engine.queue == (a, b)
    assert finish(engine) == 2


def test_row_66_the_last_to_wait_thaws() -> None:
    """If nobody is left to wait, the scan that was prepared is over, and so is its request."""
    engine, clock = one_shot()
    process = engine.attach(pages("P u"), mergeable=True)
    engine.full()
    process.freeze()
    assert engine.crawl("partial") == 1
    process.thaw()
    assert engine.queue == ()
    assert engine.crawl("partial") == 0
    process.freeze()
    request(engine, 1)
    engine.advance(99)
    clock.tick(1)
    assert engine.turn() == 0  # prepared, and no batch yet
    with pytest.raises(lksm.BusyError):
        engine.crawl("partial")
    assert pending(engine) == "1\n"
    process.thaw()
    engine.advance(1)
    assert pending(engine) == "0\n"
    assert scans(engine, clock, 1000) == []
    expect(engine, full_scans=1, pages_scanned=2, nr_frozen=0, nr_scannable=0)


@pytest.mark.parametrize(
    ("was_frozen", "events", "visits", "state"),
    [
        (False, "f", 40, FROZEN),
        (False, "ft", 20, LISTED),
        (False, "ftf", 40, FROZEN),
        (False, "t", 20, LISTED),
        (True, "t", 20, LISTED),
        (True, "tf", 20, FROZEN),
        (True, "f", 20, FROZEN),
        (True, "tft", 20, LISTED),
    ],
)
def test_row_67_freeze_at_the_cursor(
    engine: lksm.Engine, was_frozen: bool, events: str, visits: int, state: ProcessState
) -> None:
    """A process that freezes while it is scanned as running is scanned once more, as frozen."""
    process = engine.attach(unique_pages(20), mergeable=True, frozen=was_frozen)
    other = engine.attach(unique_pages(3, "o"), mergeable=True)
    assert engine.crawl("partial") == 2
    assert engine.scan(5) == 5
    before = engine.counters()
    for event in events:
        {"f": process.freeze, "t": process.thaw}[event]()
        assert process.state & (FROZEN | LISTED) == {"f": FROZEN, "t": LISTED}[event]
    expect(engine, nr_frozen=before.nr_frozen, nr_scannable=before.nr_scannable)
    assert engine.queue == (process, other)
    assert engine.scan(15) == 15
    expect(engine, nr_frozen=int(visits == 40), nr_scannable=1)
    assert engine.queue == ((other, process) if visits == 40 else (other,))
    finish(engine)
    expect(engine, pages_scanned=visits + 3, nr_frozen=0, nr_scannable=0)
    assert process.state == state | SCANNED


Setup = Callable[[lksm.Engine, lksm.Process], object]


def idle(engine: lksm.Engine, process: lksm.Process) -> None:
    engine.full()


def waiting(engine: lksm.Engine, process: lksm.Process) -> None:
    pass


def waiting_frozen(engine: lksm.Engine, process: lksm.Process) -> None:
    process.freeze()


def idle_then_frozen(engine: lksm.Engine, process: lksm.Process) -> None:
    engine.full()
    process.freeze()


def scanned_frozen(engine: lksm.Engine, process: lksm.Process) -> None:
    process.freeze()
    engine.full()


def freeze(engine: lksm.Engine, process: lksm.Process) -> None:
    process.freeze()


def thaw(engine: lksm.Engine, process: lksm.Process) -> None:
    process.thaw()


def requeue(engine: lksm.Engine, process: lksm.Process) -> None:
    engine.crawl("full")


def select(engine: lksm.Engine, process: lksm.Process) -> None:
    process.faults += 1
    engine.crawl("partial")


def leave(engine: lksm.Engine, process: lksm.Process) -> None:
    process.exit()


def unmerge(engine: lksm.Engine, process: lksm.Process) -> None:
    engine.knobs.run = 2


@pytest.mark.parametrize(
    ("before", "event", "nr_frozen", "nr_scannable", "state"),
    [
        (waiting, lambda *_: None, 0, 1, LISTED | NEWCOMER),
        (waiting, freeze, 1, 0, FROZEN | NEWCOMER),
        (waiting, thaw, 0, 1, LISTED | NEWCOMER),
        (waiting, requeue, 0, 1, LISTED | NEWCOMER),
        (waiting, select, 0, 1, LISTED | NEWCOMER),
        (waiting, leave, 0, 0, None),
        (waiting, unmerge, 0, 0, LISTED | NEWCOMER),
        (waiting_frozen, freeze, 1, 0, FROZEN | NEWCOMER),
        (waiting_frozen, thaw, 0, 1, LISTED | NEWCOMER),
        (waiting_frozen, requeue, 1, 0, FROZEN | NEWCOMER),
        (waiting_frozen, select, 1, 0, FROZEN | NEWCOMER),
        (waiting_frozen, leave, 0, 0, None),
        (waiting_frozen, unmerge, 0, 0, FROZEN | NEWCOMER),
        (idle, freeze, 1, 0, FROZEN | SCANNED),
        (idle, thaw, 0, 0, LISTED | SCANNED),
        (idle, requeue, 0, 1, LISTED),
        (idle, select, 0, 1, LISTED),
        (idle, leave, 0, 0, None),
        (idle, unmerge, 0, 0, LISTED | SCANNED),
        (idle_then_frozen, freeze, 1, 0, FROZEN | SCANNED),
        (idle_then_frozen, thaw, 0, 0, LISTED | SCANNED),
        (idle_then_frozen, requeue, 1, 0, FROZEN | SCANNED),
        (idle_then_frozen, select, 1, 0, FROZEN | SCANNED),
        (idle_then_frozen, leave, 0, 0, None),
        (idle_then_frozen, unmerge, 0, 0, FROZEN | SCANNED),
        (scanned_frozen, thaw, 0, 0, LISTED | SCANNED),
        (scanned_frozen, requeue, 1, 0, FROZEN),
        (scanned_frozen, select, 0, 0, FROZEN | SCANNED),
        (scanned_frozen, unmerge, 0, 0, FROZEN | SCANNED),
    ],
)
def test_row_68_the_table_of_states(
    engine: lksm.Engine,
    before: Setup,
    event: Setup,
    nr_frozen: int,
    nr_scannable: int,
    state: ProcessState | None,
) -> None:
    """Table 7.5 of the specification, event by event (random sequences: test_events.py)."""
    process = engine.attach(pages("P P"), mergeable=True)
    before(engine, process)
    event(engine, process)
    expect(engine, nr_frozen=nr_frozen, nr_scannable=nr_scannable)
    assert process.exited == (state is None)
    if state is not None:
        assert process.state == state
    assert engine.queue == (process,) * (nr_frozen + nr_scannable)


def test_row_69_newcomer_flag(engine: lksm.Engine) -> None:
    """A process is a newcomer from its registration to the end of its first scan."""
    process = engine.attach(unique_pages(10), mergeable=True)
    frozen = engine.attach(unique_pages(10, "f"), mergeable=True, frozen=True)
    assert process.state == LISTED | NEWCOMER
    assert frozen.state == FROZEN | NEWCOMER
    engine.crawl("full")
    engine.scan(9)
    assert process.state == LISTED | NEWCOMER
    engine.scan(1)
    assert process.state == LISTED | SCANNED
    assert frozen.state == FROZEN | NEWCOMER
    finish(engine)
    assert frozen.state == FROZEN | SCANNED
    engine.crawl("full")
    assert (process.state, frozen.state) == (LISTED, FROZEN)
    finish(engine)
    assert (process.state, frozen.state) == (LISTED | SCANNED, FROZEN | SCANNED)


# ---- 70-72: who is registered


@pytest.mark.parametrize("mode", ["full", "partial"])
def test_row_70_short_lived_filter(engine: lksm.Engine, mode: str) -> None:
    """A process is registered by a crawl once it has had 100 ms of CPU."""
    process = engine.attach(pages("P"), runtime_ms=99)
    unknown = engine.attach(pages("Q"))
    assert engine.crawl(mode) == 1  # type: ignore[arg-type]
    assert engine.queue == (unknown,)
    finish(engine)
    assert engine.explain(process, 0).reason is lksm.Reason.NOT_REGISTERED
    process.runtime_ms = 100
    engine.crawl(mode)  # type: ignore[arg-type]
    assert process in engine.queue
    finish(engine)
    expect(engine, scanning_process=2, unshared=2)


def test_row_70_explicit_advice_and_freezing_ignore_the_filter(engine: lksm.Engine) -> None:
    """Who was advised, or froze, is registered however short it has lived."""
    advised = engine.attach(pages("P"), runtime_ms=0, mergeable=True)
    frozen = engine.attach(pages("P"), runtime_ms=0)
    frozen.freeze()
    ignored = engine.attach(pages("P"), runtime_ms=0)
    engine.full()
    expect(engine, scanning_process=2, shared=1, sharing=1)
    assert ids(engine, advised) == ids(engine, frozen)
    assert ids(engine, ignored) == [-1]


def test_row_71_auto_registration_marks_regions(engine: lksm.Engine) -> None:
    """A crawl offers every plain region and no excluded one; a region added later is offered by the next."""
    flags = [flag for flag in RegionFlag if flag]
    assert len(flags) >= 8
    regions = [Region(i << 20, pages("P"), flags=flag) for i, flag in enumerate(flags)]
    plain = Region(len(flags) << 20, pages("P u"))
    process = engine.attach([*regions, plain])
    engine.full()
    expect(engine, rmap_items=2, unshared=2, shared=0)
    for page in range(len(flags)):
        assert engine.explain(process, page).reason is lksm.Reason.EXCLUDED
    process.map(Region(1 << 30, pages("P v")))
    expect(engine, rmap_items=2)
    engine.full()
    expect(engine, rmap_items=4, shared=1, sharing=1, unshared=2)
    process.map(Region(2 << 30, pages("P w")))
    process.freeze()
    engine.partial()
    expect(engine, rmap_items=6, shared=1, sharing=2, unshared=3)


def test_row_71_advice_respects_the_flags(engine: lksm.Engine) -> None:
    """Advising an excluded region is ignored, and a process with nothing else is not registered."""
    process = engine.attach([Region(0, pages("P P"), flags=RegionFlag.HUGETLB)], mergeable=True)
    expect(engine, scanning_process=0, nr_scannable=0)
    engine.full()
    expect(engine, scanning_process=0, rmap_items=0)
    assert reads(process, "P P")


def test_row_72_fork_child_registration(engine: lksm.Engine) -> None:
    """The child of a registered process is registered at the fork, waits for nothing, and inherits advice."""
    memory = pages("P Q")
    parent = engine.attach(memory, mergeable=True)
    parent.advise("unmergeable", 1, 2)
    engine.full()
    child = parent.fork()
    expect(engine, scanning_process=2, nr_scannable=0, nr_frozen=0)
    assert engine.queue == ()
    assert child.state == LISTED | NEWCOMER
    assert child.stats().mergeable
    assert engine.crawl("full") == 2
    assert engine.queue == (parent, child)
    assert finish(engine) == 2
    expect(engine, rmap_items=2)
    assert child.state == LISTED | SCANNED


def test_row_72_fork_of_an_unregistered_process(engine: lksm.Engine) -> None:
    """The child of a stranger is a stranger, and short-lived at first."""
    parent = engine.attach(pages("P Q"))
    child = parent.fork()
    expect(engine, scanning_process=0)
    assert child.runtime_ms is not None and child.runtime_ms < 100
    engine.full()
    expect(engine, scanning_process=1)
    child.runtime_ms = 100
    engine.full()
    expect(engine, scanning_process=2)


# ---- 73-78: VIPs and the queue


@pytest.mark.parametrize(("nr_scans", "score"), [(1, 5), (2, 5), (3, 5), (4, 0)])
def test_row_73_merge_window_and_score(engine: lksm.Engine, nr_scans: int, score: int) -> None:
    """One productive scan makes a VIP for three scans."""
    process = vip(engine, "P", 5)
    for _ in range(nr_scans):
        engine.full()
    stats = process.stats()
    assert stats.nr_merged == score == sum(stats.window)
    expected = [0, 0, 0, 5, 0, 0, 0][nr_scans : nr_scans + 3]
    assert list(stats.window) == expected
    process.faults += 1
    assert engine.crawl("partial") == (1 if score else 0)


def test_row_74_vip_order(engine: lksm.Engine) -> None:
    """A partial scan visits VIPs by score, and equal ones in the order in which they were scanned."""
    first, second, third, fourth = (
        vip(engine, name, merges) for name, merges in (("A", 3), ("B", 9), ("C", 9), ("D", 1))
    )
    engine.full()
    assert [p.stats().nr_merged for p in engine.processes] == [3, 9, 9, 1]
    for process in engine.processes:
        process.faults += 1
    assert engine.crawl("partial") == 4
    assert engine.queue == (second, third, first, fourth)
    finish(engine)
    # Scanned again later than its equal, the second goes behind it.
    second.freeze()
    engine.partial()
    second.thaw()
    for process in engine.processes:
        process.faults += 1
    assert engine.crawl("partial") == 4
    assert engine.queue == (third, second, first, fourth)
    expect(engine, nr_scannable=4, nr_frozen=0)


@pytest.mark.parametrize("frozen_how", ["registered", "candidates"])
def test_row_75_vip_quota(engine: lksm.Engine, frozen_how: str) -> None:
    """VIPs fill a partial scan up to twenty processes."""
    vips = [vip(engine, f"V{i}", 25 - i) for i in range(25)]
    frozen = [engine.attach(pages(f"f{i}"), mergeable=True) for i in range(2)]
    engine.full()
    if frozen_how == "candidates":
        for process in frozen:
            process.exit()
        frozen = [engine.attach(pages(f"c{i}"), runtime_ms=0) for i in range(2)]
    newcomers = [engine.attach(pages(f"n{i}")) for i in range(3)]
    for process in vips:
        process.faults += 1
    for process in frozen:
        process.freeze()
    assert engine.crawl("partial") == 20
    waiting_frozen = frozen if frozen_how == "registered" else frozen[::-1]
    assert engine.queue == (*vips[:15], *waiting_frozen, *newcomers)
    expect(engine, nr_frozen=2, nr_scannable=18)
    assert finish(engine) == sum(26 - i for i in range(15)) + 5


@pytest.mark.parametrize(("nr_newcomers", "nr_vips"), [(19, 1), (20, 0), (23, 0)])
def test_row_75_newcomers_leave_no_room(engine: lksm.Engine, nr_newcomers: int, nr_vips: int) -> None:
    """With twenty others there is no room for a VIP, and others are not limited."""
    vips = [vip(engine, f"V{i}", 2) for i in range(3)]
    engine.full()
    newcomers = [engine.attach(pages(f"n{i}")) for i in range(nr_newcomers)]
    for process in vips:
        process.faults += 1
    assert engine.crawl("partial") == nr_vips + nr_newcomers
    assert engine.queue == (*vips[:nr_vips], *newcomers)


def test_row_76_fault_pruning(engine: lksm.Engine) -> None:
    """A VIP without a fault since it was last chosen is left out; one more fault is enough."""
    memory = repeated("P", 6)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    assert engine.crawl("partial") == 0  # nothing since its registration
    process.faults += 1
    assert engine.crawl("partial") == 1
    finish(engine)
    assert engine.crawl("partial") == 0
    process.touch(0, 1)
    assert engine.crawl("partial") == 1
    finish(engine)
    memory[:] = repeated("Q", 6)  # new merges, else its window would be empty by now
    engine.full()
    assert engine.crawl("partial") == 0
    process.write(0, pages("Q"))
    assert engine.crawl("partial") == 1
    finish(engine)


def test_row_76_a_skipped_vip_keeps_its_faults(engine: lksm.Engine) -> None:
    """A fault is not forgotten by a scan that had no room, or that found its process frozen."""
    process = vip(engine, "P", 5)
    engine.full()
    process.freeze()
    engine.partial()
    process.faults += 1
    assert engine.crawl("partial") == 0
    process.thaw()
    assert engine.crawl("partial") == 1
    finish(engine)


def test_row_76_only_a_choice_uses_a_fault_up(engine: lksm.Engine) -> None:
    """A full scan, or one for another reason, does not: the next partial one still chooses the process."""
    process = vip(engine, "P", 5)
    engine.full()
    process.faults += 1
    engine.full()
    process.freeze()
    engine.partial()
    process.thaw()
    assert engine.crawl("partial") == 1
    finish(engine)
    assert engine.crawl("partial") == 0


def interleaved(engine: lksm.Engine) -> dict[str, lksm.Process]:
    """Processes of every kind, each unique, in an order of attachment that is no order of anything else."""
    found = {name: engine.attach(pages(f"{name} {name}.")) for name in ("r1", "f1")}
    for name, merges in (("v1", 1), ("v2", 3)):
        found[name] = engine.attach(repeated(name, merges + 1), mergeable=True)
    for name in ("r2", "f2"):
        found[name] = engine.attach(pages(f"{name} {name}."), mergeable=True)
    found["c1"] = engine.attach(pages("c1"), runtime_ms=0)
    engine.full()
    return found


@pytest.mark.parametrize("mode", ["partial", "full"])
def test_row_77_queue_order(mode: str) -> None:
    """Who waits first, who comes next: the order of the queue."""
    engine = lksm.Engine(initial_rounds=0, run=8)
    process = interleaved(engine)
    process["n1"] = engine.attach(pages("n1"))
    process["n1"].runtime_ms = 0  # not yet
    for name in ("l1", "l2"):
        process[name] = engine.attach(unique_pages(3, name), mergeable=True)
    assert engine.crawl("partial") == 2
    engine.knobs.run = 0
    expect(engine, nr_scannable=2, full_scans=1)
    engine.knobs.run = 8
    process["n1"].runtime_ms = 100
    process["c2"] = engine.attach(pages("c2"), runtime_ms=0)
    process["n2"] = engine.attach(pages("n2"))
    for name in ("c1", "f2", "c2", "f1"):
        process[name].freeze()
    for name in ("v1", "v2"):
        process[name].faults += 1
    # Registered in this order: advised first, then those that the crawl met.
    others = ["v1", "v2", "r2", "r1"]
    expected = {
        "partial": ["v2", "v1", "l1", "l2", "f2", "f1", "c2", "c1", "n1", "n2"],
        "full": ["l1", "l2", "f2", "f1", "c2", "c1", "n1", "n2", *others],
    }[mode]
    assert engine.crawl(mode) == len(expected)  # type: ignore[arg-type]
    names = {each: name for name, each in process.items()}
    assert [names[each] for each in engine.queue] == expected
    expect(engine, nr_frozen=4, nr_scannable=len(expected) - 4)
    finish(engine)
    expect(engine, nr_frozen=0, nr_scannable=0)
    assert engine.queue == ()


def test_row_77_an_interrupted_process_stays_in_front(engine: lksm.Engine) -> None:
    """VIPs go before whoever waits, but the process under the cursor is finished first."""
    engine.knobs.run = 8
    best = vip(engine, "V", 3)
    engine.full()
    cut = engine.attach(unique_pages(10, "c"), mergeable=True)
    left = engine.attach(unique_pages(2, "l"), mergeable=True)
    engine.crawl("partial")
    assert engine.scan(4) == 4
    engine.knobs.run = 0
    engine.knobs.run = 8
    best.faults += 1
    assert engine.crawl("partial") == 3
    expect(engine, nr_scannable=3)
    assert set(engine.queue) == {best, cut, left}
    assert engine.queue.index(best) < engine.queue.index(left)
    visited = engine.counters().pages_scanned
    assert finish(engine) == 6 + 4 + 2
    expect(engine, pages_scanned=visited + 12, nr_scannable=0)


def test_row_78_exited_vips_do_not_end_the_walk(engine: lksm.Engine) -> None:
    """When the best VIP has exited the next ones are chosen."""
    vips = [vip(engine, f"V{i}", 9 - i) for i in range(5)]
    engine.full()
    for process in vips:
        process.faults += 1
    vips[0].exit()
    vips[2].exit()
    assert engine.crawl("partial") == 3
    assert engine.queue == (vips[1], vips[3], vips[4])
    vips[1].exit()
    assert engine.queue == (vips[3], vips[4])
    expect(engine, nr_scannable=2)


# ---- 79: late arrivals


def test_row_79_late_arrivals(engine: lksm.Engine) -> None:
    """Who freezes during a scan is scanned by it, and may merge with what its first pass saw."""
    memory: list[Pages] = [unique_pages(10, name) for name in ("a", "b")]
    a, b = (engine.attach(each, mergeable=True) for each in memory)
    engine.full()
    memory[0][3] = memory[1][4] = pages("P")[0]
    a.freeze()
    assert engine.crawl("partial") == 1
    assert engine.scan(5) == 5
    b.freeze()
    assert engine.queue == (a, b)
    assert finish(engine) == 15
    expect(engine, shared=1, sharing=1, full_scans=1, scan_round=2, nr_frozen=0)
    assert engine.last_scan is not None
    assert (engine.last_scan.mode, engine.last_scan.nr_slots, engine.last_scan.merged) == ("partial", 2, 1)


def test_row_79_late_arrivals_of_a_full_scan(engine: lksm.Engine) -> None:
    """A full scan with late arrivals is one full scan, also if they have been in it before."""
    memory = unique_pages(10, "a")
    a = engine.attach(memory, mergeable=True)
    b = engine.attach(np.concatenate([pages("P"), unique_pages(9, "b")]), mergeable=True)
    assert engine.crawl("full") == 2
    assert engine.scan(15) == 15
    memory[3] = pages("P")[0]
    a.freeze()
    late = engine.attach(pages("P x"), mergeable=True)
    assert engine.queue == (b, a, late)
    assert finish(engine) == 5 + 10 + 2
    expect(engine, full_scans=1, scan_round=1, shared=1, sharing=2, nr_frozen=0, nr_scannable=0)


def test_row_79_late_arrivals_in_periodic_operation() -> None:
    """The same on the clock: one scan, one wrap-up, and no second one for the late arrival."""
    engine, clock, (a, b) = periodic(unique_pages(150, "a"), unique_pages(10, "b"))
    a.freeze()
    engine.advance(110)
    assert engine.queue == (a,)
    b.freeze()
    found = scans(engine, clock, 5000)
    assert [scan.report.nr_slots for scan in found] == [2]
    assert found[0].report.pages_scanned == 160
    expect(engine, nr_frozen=0, full_scans=0)

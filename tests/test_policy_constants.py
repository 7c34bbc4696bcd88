"""The constants of the policy that are no knobs: arguments of `Engine` (spec 1.2, 8.2)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import lksm
from driving import clocked, scans
from helpers import expect, finish, ids, pages, repeated


def test_defaults_are_the_kernels() -> None:
    """Three initial rounds, twenty VIPs, 100 ms, three scans."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(clock=clock, run=1)
    short = engine.attach(pages("s"), runtime_ms=99)
    engine.attach(pages("l"), runtime_ms=100)
    vips = [engine.attach(repeated(f"V{i}", 2)) for i in range(22)]
    assert len(scans(engine, clock, 10_000)) == 3
    assert short.stats().rmap_items == 0
    expect(engine, scanning_process=23, shared=22)
    assert len(vips[0].stats().window) == 3
    for process in vips:
        process.faults += 1
    assert engine.crawl("partial") == 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("initial_rounds", -1), ("initial_rounds", 1.5), ("initial_rounds", "3"), ("initial_rounds", True)]
    + [("max_vips", -1), ("max_vips", 2.0), ("max_vips", None), ("max_vips", False)]
    + [("short_lived_ms", -1), ("short_lived_ms", "100"), ("short_lived_ms", None)]
    + [("merge_window", 0), ("merge_window", -1), ("merge_window", 17), ("merge_window", 3.0)]
    + [("policy", "kvm"), ("policy", None)],
)
def test_bad_values(name: str, value: Any) -> None:
    """A bad value is refused with a message that names the argument and the value."""
    with pytest.raises((ValueError, TypeError), match=name) as error:
        lksm.Engine(**{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5])
def test_initial_rounds(rounds: int) -> None:
    """That many full scans come by themselves, and the gate is closed in all but the last of them."""
    engine, clock = clocked(initial_rounds=rounds, run=8)
    memory = pages("a P P")
    engine.attach(memory)
    merged_at = []
    for number in range(rounds):
        memory[0] = pages(f"b{number}")[0]  # never the same twice
        (scan,) = scans(engine, clock, 1000 if number else 999)
        assert (scan.report.cause, scan.report.round) == ("initial", number + 1)
        merged_at.append(scan.report.merged)
        if number < rounds - 1:
            expect(engine, volatile=1 if number else 3)
    assert scans(engine, clock, 20_000) == []
    if rounds:
        expect(engine, volatile=0, unshared=1, shared=1, sharing=1, full_scans=rounds)
        first = 0 if rounds == 1 else 1
        assert merged_at == [int(number == first) for number in range(rounds)]
    else:
        expect(engine, rmap_items=0, full_scans=0)


@pytest.mark.parametrize("max_vips", [0, 1, 2, 5])
def test_max_vips(max_vips: int) -> None:
    """So many processes are chosen for their merges, less those that are there for another reason."""
    engine = lksm.Engine(initial_rounds=0, max_vips=max_vips)
    vips = [engine.attach(repeated(f"V{i}", 5 - i), mergeable=True) for i in range(4)]
    engine.full()
    for process in vips:
        process.faults += 1
    assert engine.crawl("partial") == min(max_vips, 4)
    assert engine.queue == tuple(vips[:max_vips])
    finish(engine)
    newcomer = engine.attach(pages("n"))
    for process in vips:
        process.faults += 1
    assert engine.crawl("partial") == 1 + min(max(max_vips - 1, 0), 4)
    assert engine.queue[-1] is newcomer


@pytest.mark.parametrize("short_lived_ms", [0, 1, 100, 5000])
def test_short_lived_ms(short_lived_ms: int) -> None:
    """A crawl leaves out who has used less."""
    engine = lksm.Engine(initial_rounds=0, short_lived_ms=short_lived_ms)
    process = engine.attach(pages("a"), runtime_ms=max(0, short_lived_ms - 1))
    engine.full()
    expect(engine, scanning_process=int(short_lived_ms == 0))
    process.runtime_ms = short_lived_ms
    engine.full()
    expect(engine, scanning_process=1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16])
def test_merge_window(length: int) -> None:
    """A productive scan makes a VIP for so many scans."""
    engine = lksm.Engine(initial_rounds=0, merge_window=length)
    process = engine.attach(repeated("P", 6), mergeable=True)
    for number in range(1, length + 3):
        engine.full()
        window = process.stats().window
        assert len(window) == length
        assert list(window) == [5 * (number == length - i) for i in range(length)]
        assert process.stats().nr_merged == (5 if number <= length else 0)
        process.faults += 1
    assert engine.crawl("partial") == 0


def test_merge_window_adds_up() -> None:
    """The score is the sum over the window."""
    engine = lksm.Engine(initial_rounds=0, merge_window=2)
    memory = pages("a b c d e f")
    process = engine.attach(memory, mergeable=True)
    scores = []
    for nr_equal in (1, 3, 4, 6, 6):
        memory[:nr_equal] = repeated("P", nr_equal)
        engine.full()
        scores.append((process.stats().window, process.stats().nr_merged))
    assert scores == [((0, 0), 0), ((0, 2), 2), ((2, 1), 3), ((1, 2), 3), ((2, 0), 2)]


def test_auto_join() -> None:
    """Without it a crawl registers nobody; who is advised is registered as ever (D-26)."""
    engine = lksm.Engine(initial_rounds=0, auto_join=False)
    stranger = engine.attach(repeated("P", 3))
    frozen = engine.attach(repeated("P", 3), frozen=True)
    engine.attach(repeated("P", 3), mergeable=True)
    engine.full()
    engine.partial()
    stranger.freeze()
    engine.partial()
    expect(engine, scanning_process=1, shared=1, sharing=2, nr_frozen=0)
    assert ids(engine, stranger) == ids(engine, frozen) == [-1, -1, -1]


def test_upstream_gate_comes_first() -> None:
    """With policy "ksm" a page must hold still in every round, before it may even join a stable page."""
    memory = pages("P P")
    engine = lksm.Engine(policy="ksm", initial_rounds=0, smart_scan=0)
    engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=0, volatile=2)
    engine.full()
    expect(engine, shared=1, sharing=1)
    other = pages("P")
    engine.attach(other, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, volatile=1)
    engine.full()
    expect(engine, shared=1, sharing=2, volatile=0)
    other[0] = pages("x")[0]
    engine.full()
    expect(engine, shared=1, sharing=1, volatile=1)


def test_upstream_scans_round_after_round() -> None:
    """With policy "ksm" and `run` = 1 pass follows pass, with a nap in between, and nothing else does."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(policy="ksm", clock=clock, run=1, sleep_millisecs=20, smart_scan=0)
    engine.attach(repeated("P", 250), mergeable=True)
    found = scans(engine, clock, 10_000)
    assert {scan.report.mode for scan in found} == {"full"}
    assert {scan.report.pages_scanned for scan in found} == {250}
    assert [scan.ended - scan.began for scan in found[1:-1]] == [40] * len(found[1:-1])
    gaps = {after.began - before.began for before, after in itertools.pairwise(found)}
    assert gaps == {60}
    engine.knobs.run = 0
    assert scans(engine, clock, 1000) == []

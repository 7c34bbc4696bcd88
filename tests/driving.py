"""Periodic and one-shot operation on a virtual clock: engines that start idle, and what happened when.

`G` of spec section 13 with `run` = 8 is `one_shot()`; "run 1 idle" is `periodic()`. `scans()` lets time pass
turn by turn and says when each scan began and ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lksm
from helpers import Pages

FAR = 2**32 - 1
"""A `full_scan_interval` that no test lives to see the end of."""


@dataclass(frozen=True)
class Timed:
    """One scan: the clock when its first batch ran and when it wrapped up, and its report."""

    began: int
    ended: int
    report: lksm.ScanReport


def clocked(*, initial_rounds: int = 0, **knobs: int) -> tuple[lksm.Engine, lksm.VirtualClock]:
    """An engine on a virtual clock."""
    clock = lksm.VirtualClock()
    return lksm.Engine(clock=clock, initial_rounds=initial_rounds, seed=1, **knobs), clock


def one_shot(**knobs: int) -> tuple[lksm.Engine, lksm.VirtualClock]:
    """No initial rounds, `run` = 8: nothing is scanned but on request."""
    return clocked(run=8, **knobs)


def periodic(*memories: Pages, **knobs: int) -> tuple[lksm.Engine, lksm.VirtualClock, list[lksm.Process]]:
    """No initial rounds, `run` = 1, every process registered and scanned, and no full scan about to begin."""
    engine, clock = clocked(run=1, **{"full_scan_interval": FAR, **knobs})
    processes = [engine.attach(memory, mergeable=True) for memory in memories]
    engine.advance(5000)
    assert engine.queue == ()
    assert all(process.stats().rmap_items == process.nr_pages for process in processes)
    return engine, clock, processes


def steps(engine: lksm.Engine, clock: lksm.VirtualClock, ms: int, *, at_most: int = 100_000) -> Iterator[int]:
    """Let `ms` milliseconds pass turn by turn, stopping after each; yields the time."""
    end = clock() + ms
    for _ in range(at_most):
        wait = engine.turn()
        yield clock()
        if wait is None or clock() + wait > end:
            clock.tick(end - clock())
            return
        clock.tick(wait)
    raise AssertionError(f"more than {at_most} turns in {ms} ms")


def scans(engine: lksm.Engine, clock: lksm.VirtualClock, ms: int) -> list[Timed]:
    """Let `ms` milliseconds pass, and say which scans were wrapped up meanwhile."""
    found: list[Timed] = []
    seen, current = engine.last_scan, engine.counters().scan_round
    began = clock()
    for now in steps(engine, clock, ms):
        if (scan_round := engine.counters().scan_round) != current:
            began, current = now, scan_round
        if (report := engine.last_scan) is not seen:
            assert report is not None
            found.append(Timed(began, now, report))
            seen = report
    return found


def batches(engine: lksm.Engine, clock: lksm.VirtualClock, ms: int) -> list[tuple[int, int]]:
    """Let `ms` milliseconds pass, and say when pages were visited, and how many each time."""
    found: list[tuple[int, int]] = []
    before = engine.counters().pages_scanned
    for now in steps(engine, clock, ms):
        if (visited := engine.counters().pages_scanned) != before:
            found.append((now, visited - before))
            before = visited
    return found


def turns(engine: lksm.Engine, clock: lksm.VirtualClock, ms: int) -> int:
    """How often crawler and scanner wake in `ms` milliseconds, with nothing else going on."""
    return sum(1 for _ in steps(engine, clock, ms))


def advance_until(engine: lksm.Engine, done: Callable[[], bool], *, at_most: int = 100_000) -> None:
    """Let time pass until something has happened."""
    for _ in range(0, at_most, 10):
        if done():
            return
        engine.advance(10)
    raise AssertionError(f"not within {at_most} ms")

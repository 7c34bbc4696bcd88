"""Who is scanned, and when: pure functions over plain data.

State comes in, decisions go out, time is an argument; nothing here knows the core, a clock or a thread, so
the same decisions can drive another mechanism. First the state model of one process (spec 7.5), then who
joins a scan (spec 5.4 to 5.9), then when the next one is prepared (spec 5.2, 5.3, 5.7, 5.8).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["full", "partial"]
Cause = Literal["call", "initial", "interval", "event", "request"]

RUN_STOP, RUN_MERGE, RUN_UNMERGE, RUN_ONESHOT = 0, 1, 2, 8
REQUEST_PARTIAL, REQUEST_FULL = 1, 2
NAP_MS = 1000
"""How long the crawler sleeps if nothing happens; also the least gap between two initial rounds."""
GRACE_MS = 100
"""How long the crawler waits for more after the first freeze event or partial request."""


def is_merging(run: int) -> bool:
    """Does this value of the knob `run` let scans start by themselves?"""
    return run in (RUN_MERGE, RUN_ONESHOT)


# --- the state of one process (spec 7.5) -----------------------------------------------------------


class Pending(enum.IntEnum):
    """What a process waits for. The values are the core's."""

    NONE = 0
    NORMAL = 1
    FROZEN = 2


@dataclass(frozen=True)
class SlotState:
    """What policy needs to know of one process.

    registered_at: its number in the order of registration, None if it is not registered. score: merges in
    its merge window. completion: place of its last completed scan among all, 0 if there was none.
    faults_seen: `faults` when it was last chosen for a scan, or registered. runtime_ms: CPU time, None for
    long-lived. elapsed_ms: duration of its last completed scan.
    """

    registered_at: int | None
    is_frozen: bool
    pending: Pending
    is_scanned: bool
    is_cursor: bool
    score: int = 0
    completion: int = 0
    faults: int = 0
    faults_seen: int = 0
    runtime_ms: int | None = None
    elapsed_ms: int = 0
    domain: int = 0


class Action(enum.Enum):
    """What should be done with a process."""

    NOTHING = enum.auto()
    ENQUEUE_NORMAL = enum.auto()
    """Append it as running; if it is queued already, change its class and keep its place."""
    ENQUEUE_FROZEN = enum.auto()
    DEQUEUE = enum.auto()
    REQUEUE_WHEN_DONE = enum.auto()
    """It is being scanned as running: queue it once more as frozen when that is done."""
    DO_NOT_REQUEUE = enum.auto()
    ADD_CANDIDATE = enum.auto()
    """It is not registered yet: the next crawl does that (spec 7.6)."""
    DROP_CANDIDATE = enum.auto()


def enqueue(is_frozen: bool) -> Action:
    """Queue a process in the class its task has now (spec 7.5, registration and full requeue)."""
    return Action.ENQUEUE_FROZEN if is_frozen else Action.ENQUEUE_NORMAL


def on_freeze(slot: SlotState) -> Action:
    """The process was frozen: its pages hold still, so it is worth a visit (spec 7.5, freeze)."""
    if slot.registered_at is None:
        return Action.ADD_CANDIDATE
    if slot.is_cursor:
        return Action.REQUEUE_WHEN_DONE if slot.pending is Pending.NORMAL else Action.NOTHING
    return Action.NOTHING if slot.pending is Pending.FROZEN else Action.ENQUEUE_FROZEN


def on_thaw(slot: SlotState) -> Action:
    """The process runs again: what was queued only because it froze is queued no longer (spec 7.5, thaw)."""
    if slot.registered_at is None:
        return Action.DROP_CANDIDATE
    if slot.is_cursor:
        return Action.DO_NOT_REQUEUE
    if slot.pending is not Pending.FROZEN:
        return Action.NOTHING
    return Action.DEQUEUE if slot.is_scanned else Action.ENQUEUE_NORMAL


# --- who joins a scan --------------------------------------------------------------------------------


def long_lived(slots: Sequence[SlotState], short_lived_ms: int) -> list[int]:
    """Positions of the processes that a crawl looks at: enough CPU time used, or unknown (spec 5.4)."""
    return [i for i, slot in enumerate(slots) if slot.runtime_ms is None or slot.runtime_ms >= short_lived_ms]


def vips(slots: Sequence[SlotState], nr_chosen: Mapping[int, int], max_vips: int) -> list[int]:
    """Positions of the processes a partial scan adds for their recent merges, best first (spec 5.6 step 4).

    Running ones whose merge window is not empty and that have faulted since they were last chosen. The
    quota is each domain's own; the others of the scan use it up too: `nr_chosen`, by domain.
    """
    ranked = sorted(
        (i for i, slot in enumerate(slots) if slot.registered_at is not None and slot.score),
        key=lambda i: (-slots[i].score, slots[i].completion),
    )
    used, chosen = Counter(nr_chosen), []
    for i in ranked:
        slot = slots[i]
        is_eligible = not slot.is_frozen and not slot.is_cursor and slot.faults != slot.faults_seen
        if is_eligible and used[slot.domain] < max_vips:
            used[slot.domain] += 1
            chosen.append(i)
    return chosen


def others(slots: Sequence[SlotState]) -> list[int]:
    """Positions of the registered processes that wait for nothing, by registration (spec 5.9 step 2)."""
    idle = [
        (slot.registered_at, i)
        for i, slot in enumerate(slots)
        if slot.registered_at is not None and slot.pending is Pending.NONE
    ]
    return [i for _, i in sorted(idle)]


def is_sweep(nr_full: int, interval: int) -> bool:
    """Is the full scan that is prepared, number `nr_full` from 1 on, one that no filter shortens (FD-11)?"""
    return interval > 0 and nr_full % interval == 0


def next_full(
    now: int, requeued: Iterable[SlotState], *, nr_new: int, proc_scan_ms: int, interval_ms: int
) -> int:
    """When the next periodic full scan is due: the idle interval after the scan's likely end (spec 5.9).

    At least a millisecond from now, so that full scans that take no time do not follow each other for ever.
    """
    expected = sum(slot.elapsed_ms for slot in requeued) + max(0, nr_new) * proc_scan_ms
    return now + max(1, expected + interval_ms)


# --- when ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What the crawler sees when it wakes.

    request: `one_shot_scanning`. is_scanning: a scan has been handed over and has not been wrapped up.
    is_waiting: a process is queued or is a candidate.
    """

    run: int
    request: int
    is_scanning: bool
    is_waiting: bool
    crawl_round: int
    initial_rounds: int
    full_scan_interval: int


@dataclass(frozen=True)
class Crawler:
    """What the crawler remembers from one turn to the next. Times are in milliseconds of the clock.

    next_full: when the next full scan is due, None before it was ever active. ready_at: end of the grace
    delay, None if none has begun. is_initiated: the initial rounds are over.
    """

    next_full: int | None = None
    ready_at: int | None = None
    is_initiated: bool = False


@dataclass(frozen=True)
class Plan:
    """What to do now: prepare a scan, or sleep `until` a time; None: until an event."""

    prepare: Mode | None = None
    cause: Cause = "call"
    until: int | None = None


def turn(crawler: Crawler, view: View, now: int) -> tuple[Crawler, Plan]:
    """One turn of the crawler of LKSM (spec 5.2)."""
    if not is_merging(view.run):
        return replace(crawler, ready_at=None), Plan()
    if not crawler.is_initiated and view.crawl_round < view.initial_rounds:
        return _initial_turn(crawler, view, now)
    if view.is_scanning:
        return crawler, Plan()
    if not crawler.is_initiated:
        crawler = _initiated(crawler, view, now)
    if view.run == RUN_ONESHOT:
        return _one_shot_turn(crawler, view, now)
    return _periodic_turn(crawler, view, now)


def _initial_turn(crawler: Crawler, view: View, now: int) -> tuple[Crawler, Plan]:
    """Full scans at least a nap apart, whatever the mode (spec 5.3)."""
    due = now if crawler.next_full is None else crawler.next_full
    if view.is_scanning:
        return replace(crawler, next_full=due), Plan()
    if now < due:
        return crawler, Plan(until=due)
    return replace(crawler, next_full=now + NAP_MS), Plan("full", "initial")


def _initiated(crawler: Crawler, view: View, now: int) -> Crawler:
    """The initial rounds ended when the last one wrapped up, but no later than a nap after it began."""
    ended = now if crawler.next_full is None else min(now, crawler.next_full)
    return Crawler(next_full=max(now, ended + view.full_scan_interval), is_initiated=True)


def _one_shot_turn(crawler: Crawler, view: View, now: int) -> tuple[Crawler, Plan]:
    if not view.request:
        return replace(crawler, ready_at=None), Plan()
    if view.request == REQUEST_FULL:
        return replace(crawler, ready_at=None), Plan("full", "request")
    return _after_grace(crawler, now, "request")


def _periodic_turn(crawler: Crawler, view: View, now: int) -> tuple[Crawler, Plan]:
    assert crawler.next_full is not None
    if crawler.ready_at is None and now >= crawler.next_full:
        return crawler, Plan("full", "interval")
    if crawler.ready_at is not None or view.is_waiting:
        return _after_grace(crawler, now, "event")
    return crawler, Plan(until=min(now + NAP_MS, crawler.next_full))


def _after_grace(crawler: Crawler, now: int, cause: Cause) -> tuple[Crawler, Plan]:
    """A partial scan, a little later: events come in bursts."""
    ready_at = now + GRACE_MS if crawler.ready_at is None else crawler.ready_at
    if now < ready_at:
        return replace(crawler, ready_at=ready_at), Plan(until=ready_at)
    return replace(crawler, ready_at=None), Plan("partial", cause)


def upstream_turn(view: View) -> Plan:
    """One turn under policy "ksm": pass after pass over everything; only the scanner's naps pause it."""
    return Plan() if view.run != RUN_MERGE or view.is_scanning else Plan("full", "interval")


def prepared(crawler: Crawler, due: int) -> Crawler:
    """A full scan has been prepared: `due` is what `next_full` says of it. Initial rounds keep their own."""
    return replace(crawler, next_full=due) if crawler.is_initiated else crawler

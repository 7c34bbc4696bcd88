"""Who is scanned, and when: pure functions over plain data.

State comes in, decisions go out; nothing here knows the core, a clock or a thread, so the same decisions
can drive another mechanism. The state model is that of spec 7.5.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Pending(enum.IntEnum):
    """What a process waits for. The values are the core's."""

    NONE = 0
    NORMAL = 1
    FROZEN = 2


@dataclass(frozen=True)
class SlotState:
    """What policy needs to know of one process."""

    is_registered: bool
    is_frozen: bool
    pending: Pending
    is_scanned: bool
    is_cursor: bool


class Action(enum.Enum):
    """What the queue should do with a process."""

    NOTHING = enum.auto()
    ENQUEUE_NORMAL = enum.auto()
    """Append it as running; if it is queued already, change its class and keep its place."""
    ENQUEUE_FROZEN = enum.auto()
    DEQUEUE = enum.auto()
    REQUEUE_WHEN_DONE = enum.auto()
    """It is being scanned as running: queue it once more as frozen when that is done."""
    DO_NOT_REQUEUE = enum.auto()


def enqueue(is_frozen: bool) -> Action:
    """Queue a process in the class its task has now (spec 7.5, registration and full requeue)."""
    return Action.ENQUEUE_FROZEN if is_frozen else Action.ENQUEUE_NORMAL


def on_freeze(slot: SlotState) -> Action:
    """The process was frozen: its pages hold still, so it is worth a visit (spec 7.5, freeze)."""
    if not slot.is_registered:
        return Action.NOTHING
    if slot.is_cursor:
        return Action.REQUEUE_WHEN_DONE if slot.pending is Pending.NORMAL else Action.NOTHING
    return Action.ENQUEUE_FROZEN


def on_thaw(slot: SlotState) -> Action:
    """The process runs again: what was queued only because it froze is queued no longer (spec 7.5, thaw)."""
    if slot.is_cursor:
        return Action.DO_NOT_REQUEUE
    if slot.pending is not Pending.FROZEN:
        return Action.NOTHING
    return Action.DEQUEUE if slot.is_scanned else Action.ENQUEUE_NORMAL


def full_order(slots: Sequence[SlotState], registration: Sequence[int | None]) -> list[int]:
    """Positions of the processes that a full scan adds to the queue, in queue order (spec 5.9).

    Those that wait already keep their place in front. Then come newcomers, which have no registration
    number yet, in the order given; then all others in order of registration.
    """
    waiting = [i for i, slot in enumerate(slots) if slot.pending is Pending.NONE]
    newcomers = [i for i in waiting if registration[i] is None]
    others = [i for i in waiting if registration[i] is not None]
    return newcomers + sorted(others, key=lambda i: registration[i] or 0)

"""The scan-time advisor: how large a batch must be for a full scan to take as long as is wished (spec 12.4).

Plain integers in and out; every division truncates, as the kernel's do. Time and CPU time are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("none", "scan-time")
PAGES_WITHOUT_ADVISOR = 100
"""What `pages_to_scan` becomes when the advisor is switched off: the kernel's default."""

_OLD, _NEW = 70, 30  # per cent of the smoothed change that come from before, and from this scan


@dataclass(frozen=True)
class History:
    """What the advisor remembers from one full scan to the next.

    seconds: what the last one took, 0 before the first. change: what each took of the one before, in per
    cent, smoothed; it starts at 0, so the first scan counts for little.
    """

    seconds: int = 0
    change: int = 0


@dataclass(frozen=True)
class Wishes:
    """The knobs. target_scan_time: seconds. max_cpu: per cent of one CPU. max_pages: most in a batch."""

    target_scan_time: int
    max_cpu: int
    max_pages: int


def advise(
    history: History, wishes: Wishes, *, pages_to_scan: int, elapsed_ms: int, cpu_ms: int
) -> tuple[History, int]:
    """A full scan with this batch size has ended: the history with it, and the next batch size.

    elapsed_ms is how long the scan took, cpu_ms the CPU time in it.
    """
    seconds = max(1, elapsed_ms // 1000)
    cpu_percent = max(1, cpu_ms * 100 // (seconds * 1000))
    factor = max(1, wishes.target_scan_time * 100 // seconds)
    change = max(1, seconds * 100 // (history.seconds or seconds))
    change = (_OLD * history.change + _NEW * change) // 100
    pages = pages_to_scan * 100 // factor * change // 100
    pages_per_cpu_percent = max(1, pages_to_scan // cpu_percent)
    pages = max(min(pages, pages_per_cpu_percent * wishes.max_cpu), pages_per_cpu_percent * 10)
    return History(seconds, change), min(pages, wishes.max_pages)

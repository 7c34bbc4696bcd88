"""Time as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
CpuClock: TypeAlias = Callable[[], float]


class VirtualClock:
    """A clock that stands still until it is told to go on. Milliseconds, from 0."""

    def __init__(self) -> None:
        self._now = 0

    def __call__(self) -> int:
        return self._now

    def tick(self, ms: int) -> int:
        """Goes on by `ms` milliseconds, at least 0, and returns the time."""
        if ms < 0:
            raise ValueError(f"ms is {ms}, expected 0 or more")
        self._now += ms
        return self._now

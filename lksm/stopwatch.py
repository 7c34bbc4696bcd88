"""How long the scan that is under way has taken, by the clock and in CPU time."""

from __future__ import annotations

from collections.abc import Callable

from .clock import Clock, CpuClock


class Stopwatch:
    """Measures one scan at a time."""

    def __init__(self, clock: Clock, cpu_clock: CpuClock) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._began = 0
        self._is_new = True
        self._cpu_ms = 0.0

    def restart(self) -> None:
        """A scan has been prepared."""
        self._began = int(self._clock())
        self._is_new = True
        self._cpu_ms = 0.0

    def nap_ended(self) -> None:
        """A nap before the first batch is not part of the scan, as in the kernel."""
        if self._is_new:
            self._began = int(self._clock())

    def run(self, visit: Callable[[], int]) -> int:
        """Visits pages; the CPU time this takes is the scan's, also if it fails."""
        self._is_new = False
        began = self._cpu_clock()
        try:
            return visit()
        finally:
            self._cpu_ms += self._cpu_clock() - began

    @property
    def elapsed_ms(self) -> int:
        return int(self._clock()) - self._began

    @property
    def cpu_ms(self) -> int:
        return int(self._cpu_ms)

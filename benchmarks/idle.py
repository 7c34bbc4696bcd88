"""What a running engine costs while it has nothing to do: CPU time over ten idle seconds in one-shot mode.

    python -P benchmarks/idle.py [--seconds 10] [--processes 100] [--run 8]

Counts the CPU time of the whole interpreter (`time.process_time`), which does nothing else meanwhile, and the
wake-ups of the two threads (how often they ask the clock). Ends with status 1 if 10 s cost 10 ms or more.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import lksm

MOST_MS_IN_10_S = 10.0


class CountingClock:
    """The monotonic clock, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return time.monotonic_ns() // 1_000_000


def idle_cost(seconds: float, nr_processes: int, run: int) -> tuple[float, int]:
    """CPU milliseconds and wake-ups of an engine that has scanned what there is and waits."""
    clock = CountingClock()
    engine = lksm.Engine(clock=clock, initial_rounds=0, run=8, sleep_millisecs=0)
    memory = np.random.default_rng(1).integers(0, 256, (16, 4096), np.uint8)
    for _ in range(nr_processes):
        engine.attach(memory.copy(), mergeable=True)
    with engine.running():
        engine.knobs.one_shot_scanning = 2
        while engine.knobs.one_shot_scanning:
            time.sleep(0.001)
        assert engine.counters().pages_sharing == 16 * (nr_processes - 1)
        engine.knobs.run = run
        time.sleep(0.5)
        calls, cpu = clock.calls, time.process_time()
        time.sleep(seconds)
        cpu = time.process_time() - cpu
        return cpu * 1000, clock.calls - calls


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU time of an idle engine")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--run", type=int, default=8, choices=(0, 1, 8))
    arguments = parser.parse_args()
    cpu_ms, calls = idle_cost(arguments.seconds, arguments.processes, arguments.run)
    print(
        f"run {arguments.run}, {arguments.processes} processes, {arguments.seconds:g} s idle: "
        f"{cpu_ms:.2f} ms of CPU, clock asked {calls} times"
    )
    return int(cpu_ms * 10 / arguments.seconds >= MOST_MS_IN_10_S)


if __name__ == "__main__":
    sys.exit(main())

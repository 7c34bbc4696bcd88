"""One workload through the kernel's KSM and through engines, from cold to settled, each measured alike.

A run makes passes until one changes no counter; that one is not counted. Time and CPU time are those of the
passes alone: memory has been filled and offered before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..engine import Engine
from ..kernel import Child, Ksm
from ..kernel.memory import bookkeeping_bytes, proportional_bytes, slab_bytes
from ..sources import SourceProcess

_MOST_PASSES = 32

Counts = dict[str, int]
Areas = Sequence[npt.NDArray[Any]]  # the areas of one process


@dataclass(frozen=True)
class Workload:
    """Processes with memory, which is there when it is asked for.

    make: the areas of each process, once more at every call. expected: shared, sharing, unshared, if known
    beforehand. sources: what the areas are pages of, if files.
    """

    name: str
    nr_pages: int
    nr_processes: int
    page_size: int
    make: Callable[[], Sequence[Areas]]
    expected: tuple[int, int, int] | None = None
    sources: Sequence[SourceProcess] = ()

    def expect_whole(self) -> None:
        """Raise `SourceError` if a file has shrunk: then nothing was compared."""
        for source in self.sources:
            source.expect_whole()


@dataclass(frozen=True)
class Outcome:
    """What one of them did.

    passes: until nothing changed. wall_ms, cpu_ms: of these passes; the CPU time is ksmd's or this
    process's. bookkeeping_bytes: records of pages and frames. frame_bytes: copies of pages, the engine's
    only. slab_bytes: how much the kernel's slab grew, None if unknown. saved_bytes: by the counters.
    returned_bytes: by how much the processes' memory shrank; None where nothing is given back.
    """

    name: str
    counters: Counts
    passes: int
    wall_ms: float
    cpu_ms: float
    bookkeeping_bytes: int
    frame_bytes: int
    slab_bytes: int | None
    saved_bytes: int
    returned_bytes: int | None


def run_kernel(
    processes: Sequence[Areas], page_size: int, ksm: Ksm, interrupt: Callable[[], object]
) -> Outcome:
    """Each process is a child with a private copy of its areas."""
    with ExitStack() as stack:
        children = []
        for areas in processes:
            child = stack.enter_context(Child())
            children.append(child)
            for area in areas:
                interrupt()
                child.map(area)
        held, slab = sum(proportional_bytes(child.pid) for child in children), slab_bytes()
        counters, passes, wall_ms, cpu_ms = _settle(ksm.one_pass, ksm.cpu_seconds, ksm.counters, interrupt)
        now_held, now_slab = sum(proportional_bytes(child.pid) for child in children), slab_bytes()
        return Outcome(
            name="kernel",
            counters=counters,
            passes=passes,
            wall_ms=wall_ms,
            cpu_ms=cpu_ms,
            bookkeeping_bytes=bookkeeping_bytes(counters),
            frame_bytes=0,
            slab_bytes=None if slab is None or now_slab is None else now_slab - slab,
            saved_bytes=counters["pages_sharing"] * page_size,
            returned_bytes=held - now_held,
        )


def run_engine(
    processes: Sequence[Areas],
    page_size: int,
    policy: Literal["ksm", "lksm"],
    max_page_sharing: int,
    interrupt: Callable[[], object],
) -> Outcome:
    """Each process is attached as it is. For LKSM it is frozen, which is when LKSM scans: no gate."""
    with Engine(
        threads=1,  # as ksmd
        policy=policy,
        page_size=page_size,
        max_page_sharing=max_page_sharing,
        smart_scan=0,
    ) as engine:
        for areas in processes:
            engine.attach(list(areas), mergeable=True, frozen=policy == "lksm")

        def counted() -> Counts:
            now = engine.counters()
            names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
            return {name: getattr(now, name) for name in (*names, "stable_node_chains", "stable_node_dups")}

        counters, passes, wall_ms, cpu_ms = _settle(engine.full, time.process_time, counted, interrupt)
        memory = engine.memory()
        return Outcome(
            name=policy,
            counters=counters,
            passes=passes,
            wall_ms=wall_ms,
            cpu_ms=cpu_ms,
            bookkeeping_bytes=sum(size for purpose, size in memory.items() if purpose != "frames"),
            frame_bytes=memory["frames"],
            slab_bytes=None,
            saved_bytes=counters["pages_sharing"] * page_size,
            returned_bytes=None,
        )


def median(outcomes: Sequence[Outcome]) -> Outcome:
    """One for several runs of the same: times are medians, all else is the last run's."""
    return replace(
        outcomes[-1],
        wall_ms=statistics.median(outcome.wall_ms for outcome in outcomes),
        cpu_ms=statistics.median(outcome.cpu_ms for outcome in outcomes),
    )


def disagreement(workload: Workload, outcomes: Sequence[Outcome]) -> str | None:
    """Do all merge alike, and as expected? If not, one line that says what was counted."""
    found = {outcome.name: _merged(outcome.counters) for outcome in outcomes}
    if workload.expected is not None:
        found["expected"] = workload.expected
    if len(set(found.values())) <= 1:
        return None
    counts = ", ".join(f"{name} {counts}" for name, counts in found.items())
    return f"{workload.name}: merge results differ (shared, sharing, unshared): {counts}"


def split(pages: npt.NDArray[np.uint8], nr_processes: int) -> list[Areas]:
    """The pages dealt out to processes in runs of equal length."""
    return [[part] for part in np.array_split(pages, nr_processes)]


def _settle(
    one_pass: Callable[[], object],
    cpu_seconds: Callable[[], float],
    counted: Callable[[], Counts],
    interrupt: Callable[[], object],
) -> tuple[Counts, int, float, float]:
    """Passes until one changes nothing: the counters, how many before that one, their milliseconds."""
    before, wall_ms, cpu_ms = _steady(counted()), 0.0, 0.0
    for passes in range(_MOST_PASSES):
        interrupt()
        began, cpu_began = time.perf_counter(), cpu_seconds()
        one_pass()
        pass_ms, pass_cpu_ms = (time.perf_counter() - began) * 1000, (cpu_seconds() - cpu_began) * 1000
        after = _steady(counted())
        if after == before:
            return counted(), passes, wall_ms, cpu_ms
        before, wall_ms, cpu_ms = after, wall_ms + pass_ms, cpu_ms + pass_cpu_ms
    return counted(), _MOST_PASSES, wall_ms, cpu_ms  # untested: pages that never come to rest


def _steady(counters: Counts) -> Counts:
    """The counters without those that grow in every pass."""
    return {name: value for name, value in counters.items() if name not in ("pages_scanned", "pages_skipped")}


def _merged(counters: Counts) -> tuple[int, int, int]:
    return counters["pages_shared"], counters["pages_sharing"], counters["pages_unshared"]

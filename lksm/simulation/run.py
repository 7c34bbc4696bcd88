"""One policy over one script: a real engine on a virtual clock, real pages, real merges."""

from __future__ import annotations

import errno
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..clock import VirtualClock
from ..engine import Engine
from ..errors import KnobError
from ..process import Process
from .contents import Contents
from .events import Event, Exit, Freeze, Numbers, Start, Thaw, Work
from .policies import Policy
from .results import PolicyResult, percentile
from .script import Script

MERGED_SHARE = 0.95  # of what could be merged at a freeze: then it counts as merged
RETRY_MS = 20  # a one-shot request that found the engine busy is repeated so often
CHECK_MS = 20  # how exactly freeze-to-merged is known, or to a twentieth if that is more

Report = Callable[[int, int], None]
Observer = Callable[[Engine], None]


def run(
    script: Script,
    policy: Policy,
    *,
    engine_seed: int = 0,
    progress: Report | None = None,
    observe: Observer | None = None,
) -> PolicyResult:
    """Drive an engine under a policy through all events.

    engine_seed fixes which bytes the engine's keys are taken from; it moves bytes_compared and bytes_hashed a
    little and nothing else. progress is called as (virtual ms done, of so many), observe with the engine at
    every sample.
    """
    workload = script.workload
    with Engine(
        policy=policy.engine,
        page_size=workload.page_size,
        seed=engine_seed,
        clock=VirtualClock(),
    ) as engine:
        for name, value in workload.engine.items():
            setattr(engine.knobs, name, value)
        engine.knobs.run = policy.run
        return _Run(script, policy, engine, progress, observe).result()


def merged_pages(tables: list[npt.NDArray[np.int64]]) -> int:
    """Pages saved by page tables: those in frames less the frames, and those on the one zero frame."""
    entries = np.concatenate(tables) if tables else np.empty(0, np.int64)
    frames = entries[entries >= 0]
    is_used = np.zeros(int(frames.max(initial=-1)) + 1, bool)
    is_used[frames] = True
    return len(frames) - int(np.count_nonzero(is_used)) + int(np.count_nonzero(entries == -2))


@dataclass(eq=False)
class _Wait:
    """A frozen process whose pages are not merged yet, and when to look again."""

    process: Process
    pages: Numbers
    since: int
    next_look: int


class _Run:
    """The state of one run."""

    def __init__(
        self,
        script: Script,
        policy: Policy,
        engine: Engine,
        progress: Report | None,
        observe: Observer | None,
    ) -> None:
        self._script = script
        self._policy = policy
        self._engine = engine
        self._progress = progress
        self._observe = observe
        self._contents = Contents(script.workload.page_size)
        self._now = 0
        self._cpu_ns = 0
        self._processes: dict[int, Process] = {}
        self._waits: dict[int, _Wait] = {}
        self._merged: list[int] = []
        self._delays: list[int] = []
        self._nr_freezes = 0
        self._nr_never = 0
        self._is_wanted = False  # a one-shot request that the engine has not accepted yet

    def result(self) -> PolicyResult:
        """Runs to the end."""
        script = self._script
        starts = [event.at for event in script.events]
        done = 0
        for index, sample_time in enumerate(script.sample_times):
            upto = bisect_right(starts, sample_time)
            while done < upto:
                self._go_to(starts[done])
                self._apply(script.events[done], script.mergeable.get(done))
                done += 1
            self._go_to(sample_time)
            self._sample()
            if self._progress is not None:
                self._progress(index + 1, len(script.sample_times))  # untested: a terminal
        return self._summary()

    # --- time

    def _go_to(self, then: int) -> None:
        """Virtual time goes on, with stops where a request is repeated or a frozen process looked at."""
        while self._now < then:
            looks = [wait.next_look for wait in self._waits.values()]
            if self._is_wanted:
                self._request()
                looks.append(self._now + RETRY_MS)
            stop = min([then, *looks])
            began = time.process_time_ns()
            self._engine.advance(stop - self._now)
            self._cpu_ns += time.process_time_ns() - began
            self._now = stop
            self._look()

    def _request(self) -> None:
        try:
            self._engine.knobs.one_shot_scanning = self._policy.request
        except KnobError as error:
            if error.errno != errno.EINVAL:
                raise  # untested: a failure of our own
        else:
            self._is_wanted = False

    # --- events

    def _apply(self, event: Event, mergeable: Numbers | None) -> None:
        match event:
            case Start():
                self._processes[event.process] = self._engine.attach(
                    self._contents.pages(event.labels),
                    name=event.name,
                    mergeable=True if self._policy.is_advised else None,
                    runtime_ms=event.runtime_ms,
                )
            case Exit():
                self._forget(event.process)
                self._processes.pop(event.process).exit()
            case Freeze():
                process = self._processes[event.process]
                process.freeze()
                self._is_wanted = self._policy.request != 0
                assert mergeable is not None
                if len(mergeable):
                    self._nr_freezes += 1
                    self._waits[event.process] = _Wait(process, mergeable, self._now, self._now)
                    self._look()
            case Thaw():
                self._forget(event.process)
                self._processes[event.process].thaw()
            case Work():  # untested: there is no other
                self._work(self._processes[event.process], event)

    def _work(self, process: Process, event: Work) -> None:
        process.runtime_ms = event.runtime_ms
        for page, label in zip(event.patched.tolist(), event.patch_labels.tolist(), strict=True):
            offset, data = self._contents.patch(label)
            process.write(page, data, offset)
        contents = self._contents.pages(event.replaced_labels)
        for page, content in zip(event.replaced.tolist(), contents, strict=True):
            process.write(page, content)

    # --- measuring

    def _sample(self) -> None:
        tables = [self._engine.page_table(process) for process in self._processes.values()]
        self._merged.append(merged_pages(tables))
        if self._observe is not None:
            self._observe(self._engine)

    def _look(self) -> None:
        """Whose pages have been merged by now?"""
        for number, wait in list(self._waits.items()):
            if wait.next_look > self._now:
                continue
            entries = self._engine.page_table(wait.process)[wait.pages]
            elapsed = self._now - wait.since
            if np.count_nonzero((entries >= 0) | (entries == -2)) >= MERGED_SHARE * len(entries):
                self._delays.append(elapsed)
                del self._waits[number]
            else:
                wait.next_look = self._now + max(CHECK_MS, elapsed // 20)

    def _forget(self, number: int) -> None:
        """It runs again, or is no more: if its pages are not merged by now, this freeze saved nothing."""
        if self._waits.pop(number, None) is not None:
            self._nr_never += 1

    def _summary(self) -> PolicyResult:
        counters = self._engine.counters()
        return PolicyResult(
            name=self._policy.name,
            merged=tuple(self._merged),
            pages_scanned=counters.pages_scanned,
            pages_skipped=counters.pages_skipped,
            bytes_compared=counters.bytes_compared,
            bytes_hashed=counters.bytes_hashed,
            merges=counters.merged,
            breaks=counters.broken,
            scans=counters.scan_round,
            cpu_ms=round(self._cpu_ns / 1e6, 1),
            freezes=self._nr_freezes,
            freezes_merged=len(self._delays),
            freezes_never=self._nr_never,
            freeze_to_merged_ms=percentile(self._delays, 50),
            freeze_to_merged_p95_ms=percentile(self._delays, 95),
        )

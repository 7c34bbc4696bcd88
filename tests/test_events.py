"""Row 68 of the specification: whatever happens in whatever order, the counters of the queue are a recount.

Random events go to an engine and to `PolicyModel`, which computes the table of spec 7.5 by itself. After
every event the queue, its order and its classes are compared, and every counter of pages with the sum of
what the processes say of themselves. LKSM_EVENTS says how many events; the ordinary run has 100 000.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import lksm
from driving import FAR
from helpers import Pages, pages
from lksm import ProcessState
from policy_model import Pending, PolicyModel, Task

NR_EVENTS = int(os.environ.get("LKSM_EVENTS", "100000"))
SEEDS = range(4)
MOST_PROCESSES = 8
WORDS = ["0", "P", "P>", "Q", "R", "S"]
LONGEST_WAIT_MS = 1200  # a nap of the crawler, the grace delay, and what a scan takes here


@dataclass(eq=False)
class Both:
    """One process, in the engine and in the model."""

    process: lksm.Process
    task: Task
    memory: Pages


class Driver:
    """Does every event to both sides."""

    def __init__(self, *, max_vips: int = 3) -> None:
        self.clock = lksm.VirtualClock()
        self.engine = lksm.Engine(
            clock=self.clock,
            initial_rounds=0,
            max_vips=max_vips,
            full_scan_interval=FAR,
            run=1,
            sleep_millisecs=1,
            seed=1,
        )
        self.engine.advance(5000)  # what an idle engine does at first is not what is tested here
        self.model = PolicyModel(max_vips=max_vips, crawl_round=self.engine.full().round)
        self.all: list[Both] = []
        self.nr_made = 0

    @property
    def run(self) -> int:
        return self.engine.knobs.run

    # ---- what is compared

    def compare(self) -> None:
        """After every event: the queue, its classes, its order, and who is registered."""
        now, model = self.engine.counters(), self.model
        assert (now.nr_frozen, now.nr_scannable) == (model.count(Pending.FROZEN), model.count(Pending.NORMAL))
        names = {both.task: both.process.name for both in self.all}
        assert [process.name for process in self.engine.queue] == [names[task] for task in model.queue]
        assert now.scanning_process == sum(task.registered is not None for task in model.tasks)
        assert (now.full_scans, now.pages_scanned) == (model.full_scans, model.pages_scanned)
        assert now.scan_round == model.scan_round
        tracked = now.pages_shared + now.pages_sharing + now.pages_unshared
        assert now.pages_volatile == max(0, now.rmap_items - tracked)
        stats = [both.process.stats() for both in self.all]
        assert now.rmap_items == sum(each.rmap_items for each in stats)
        assert now.pages_shared + now.pages_sharing == sum(each.merging_pages for each in stats)
        assert now.pages_unshared == sum(each.unshared for each in stats)
        assert all(each.nr_merged == sum(each.window) for each in stats)

    def compare_states(self) -> None:
        """Bits of every process: M-5 and M-7 with the model's own sanity."""
        self.model.check()
        for both in self.all:
            task, state = both.task, both.process.state
            expected = ProcessState.FROZEN if task.frozen else ProcessState.LISTED
            if task.newcomer:
                expected |= ProcessState.NEWCOMER
            if task.scanned:
                expected |= ProcessState.SCANNED
            assert state == expected
            assert both.process.frozen == task.frozen

    def compare_frames(self) -> None:
        """Between scans, all visited: the page tables have as many frames as are counted."""
        frames: set[int] = set()
        for both in self.all:
            frames.update(int(frame) for frame in self.engine.page_table(both.process) if frame >= 0)
        assert len(frames) == self.engine.counters().pages_shared

    def check(self) -> None:
        assert self.engine.check() == []

    # ---- events on processes

    def attach(
        self, words: list[str], *, mergeable: bool | None, frozen: bool, runtime_ms: int | None
    ) -> None:
        if len(self.all) >= MOST_PROCESSES:
            return
        self.nr_made += 1
        memory = pages(" ".join(words))
        process = self.engine.attach(
            memory, name=f"p{self.nr_made}", mergeable=mergeable, frozen=frozen, runtime_ms=runtime_ms
        )
        task = Task(len(words), runtime_ms, mergeable, frozen)
        self.model.attach(task)
        self.all.append(Both(process, task, memory))

    def fork(self, both: Both) -> None:
        if len(self.all) >= MOST_PROCESSES:
            return
        self.nr_made += 1
        child = both.process.fork(name=f"p{self.nr_made}")
        task = self.model.fork(both.task)
        child.runtime_ms = task.runtime_ms = 50
        self.all.append(Both(child, task, both.memory))

    def freeze(self, both: Both) -> None:
        both.process.freeze()
        self.model.freeze(both.task)

    def thaw(self, both: Both) -> None:
        both.process.thaw()
        self.model.thaw(both.task)

    def advise(self, both: Both, offered: bool) -> None:
        both.process.advise("mergeable" if offered else "unmergeable")
        self.model.advise(both.task, offered)

    def exit(self, both: Both) -> None:
        both.process.exit()
        self.model.exit(both.task)
        self.all.remove(both)

    def grow_up(self, both: Both) -> None:
        """It has used more CPU time."""
        both.process.runtime_ms = both.task.runtime_ms = (both.task.runtime_ms or 0) + 60

    def fault(self, both: Both) -> None:
        both.process.faults += 1
        both.task.faults += 1

    def write(self, both: Both, page: int, word: str, through_process: bool) -> None:
        """The contents change; the policy hears of it only as a fault, and only if the process says so."""
        page %= both.task.nr_pages
        if through_process:
            both.process.write(page, pages(word))
            both.task.faults += 1
        else:
            both.memory[page] = pages(word)[0]

    # ---- scans

    def tell_scores(self) -> None:
        """Merges depend on contents, which the model does not know."""
        for both in self.all:
            both.task.score = both.process.stats().nr_merged

    def finish(self) -> None:
        """Both finish the scan that is under way."""
        if self.model.mode is not None:
            while self.engine.scan(1000):
                pass
            self.model.finish()
            assert self.engine.scan(1) == 0

    def crawl(self, mode: str) -> None:
        if self.model.unmerging and self.model.candidates:
            return  # whether an aborted preparation keeps its hints is nobody's business
        if self.model.mode is not None:
            with pytest.raises(lksm.BusyError):
                self.engine.crawl(mode)  # type: ignore[arg-type]
            return
        self.tell_scores()
        assert self.engine.crawl(mode) == self.model.crawl(mode)  # type: ignore[arg-type]

    def scan(self, nr_pages: int) -> None:
        assert self.engine.scan(nr_pages) == self.model.scan(nr_pages)

    def whole(self, mode: str) -> None:
        """`full()` or `partial()`: M-4 is seen in who a partial one chooses, and in what order."""
        self.finish()
        if self.model.unmerging and self.model.candidates:
            return
        self.tell_scores()
        report = self.engine.full() if mode == "full" else self.engine.partial()
        if not self.model.unmerging:
            completed, visited = self.model.nr_completed, self.model.pages_scanned
            self.model.crawl(mode)
            self.model.finish()
            assert report.mode == mode
            assert report.nr_slots == self.model.nr_completed - completed
            assert report.pages_scanned == self.model.pages_scanned - visited
            if mode == "full":
                self.compare_frames()
        assert self.engine.queue == () or self.model.unmerging

    # ---- knobs and time

    def store_run(self, value: int) -> None:
        before = self.run
        self.engine.sysfs.write("run", f"{value}\n")
        if value == 2 and before != 2:
            self.model.unmerge()
        elif value == 0 and before in (1, 8):
            self.model.stop()
        if value != 2:
            self.model.unmerging = False

    def store(self, name: str, value: int) -> None:
        setattr(self.engine.knobs, name, value)

    def pass_time(self, ms: int) -> None:
        """Long enough for whatever is due to come to its end; `ms` only if nothing is due."""
        if self.run in (0, 2):
            self.engine.advance(ms)
            return
        if self.model.mode is not None:
            self._until_wrap_up()
            self.model.finish()
            self.compare()
        if self.run == 8:
            self.engine.advance(ms)
        elif self.model.queue or self.model.candidates:
            self.tell_scores()
            self._until_wrap_up()
            self.model.crawl("partial")
            self.model.finish()

    def request(self, kind: int) -> None:
        if self.run != 8 or self.model.mode is not None:
            return
        self.tell_scores()
        self.store("one_shot_scanning", kind)
        assert self.engine.knobs.one_shot_scanning == kind
        for _ in range(0, 20_000, 20):
            if not self.engine.knobs.one_shot_scanning:
                break
            self.engine.advance(20)
        assert self.engine.knobs.one_shot_scanning == 0
        self.model.crawl("partial" if kind == 1 else "full")
        self.model.finish()

    def _until_wrap_up(self) -> None:
        """Nothing else falls due between two of these steps."""
        before = self.engine.last_scan
        for _ in range(0, LONGEST_WAIT_MS, 20):
            self.engine.advance(20)
            if self.engine.last_scan is not before:
                return


def random_event(driver: Driver, choice: random.Random) -> Callable[[], None]:
    """One event, drawn at random from those that are possible now."""
    anybody: Callable[[], Both] = lambda: choice.choice(driver.all)  # noqa: E731
    kind = choice.random()
    if kind < 0.12 or not driver.all:
        return lambda: driver.attach(
            [choice.choice(WORDS) for _ in range(choice.randrange(1, 7))],
            mergeable=choice.choice([None, None, True, True, False]),
            frozen=choice.random() < 0.25,
            runtime_ms=choice.choice([None, 0, 99, 100]),
        )
    if kind < 0.16:
        return lambda: driver.fork(anybody())
    if kind < 0.24:
        return lambda: driver.exit(anybody())
    if kind < 0.36:
        return lambda: driver.freeze(anybody())
    if kind < 0.46:
        return lambda: driver.thaw(anybody())
    if kind < 0.51:
        return lambda: driver.advise(anybody(), offered=True)
    if kind < 0.54:
        return lambda: driver.advise(anybody(), offered=False)
    if kind < 0.57:
        return lambda: driver.grow_up(anybody())
    if kind < 0.62:
        return lambda: driver.fault(anybody())
    if kind < 0.70:
        return lambda: driver.write(
            anybody(), choice.randrange(6), choice.choice(WORDS), choice.random() < 0.3
        )
    if kind < 0.74:
        return lambda: driver.whole(choice.choice(["full", "partial", "partial"]))
    if kind < 0.79:
        return lambda: driver.crawl(choice.choice(["full", "partial"]))
    if kind < 0.89:
        return lambda: driver.scan(choice.randrange(1, 8))
    if kind < 0.93:
        return lambda: driver.store_run(choice.choice([0, 0, 1, 1, 8, 8, 2]))
    if kind < 0.95:
        return lambda: driver.request(choice.choice([1, 2]))
    if kind < 0.97:
        return lambda: driver.pass_time(choice.randrange(3000))
    return choice.choice(
        [
            partial(driver.store, "pages_to_scan", choice.randrange(1, 50)),
            partial(driver.store, "scan_boost", choice.randrange(100, 200)),
            partial(driver.store, "sleep_millisecs", choice.randrange(1, 3)),
        ]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_row_68_random_events(seed: int) -> None:
    """A hundred thousand events, and after each the counters are what a recount says."""
    choice = random.Random(seed)
    driver = Driver()
    seen: set[str] = set()
    for number in range(NR_EVENTS // len(SEEDS)):
        random_event(driver, choice)()
        driver.compare()
        if number % 8 == 0:
            driver.compare_states()
        if number % 100 == 0:
            driver.check()
        model = driver.model
        seen.update(
            name
            for name, holds in {
                "cursor frozen": model.cursor is not None and model.cursor.frozen,
                "wanted again": model.cursor is not None and model.cursor.wanted_again,
                "stopped with a cursor": model.mode is None and model.cursor is not None,
                "chosen before the cursor": model.cursor is not None and model.queue[0] is not model.cursor,
                "candidates": len(model.candidates) > 1,
                "unmerging": model.unmerging,
                "both classes": model.count(Pending.FROZEN) > 1 and model.count(Pending.NORMAL) > 1,
                "thawed, queued and frozen": any(
                    t.pending is Pending.FROZEN and t.scanned for t in model.queue
                ),
                "gone and registered": any(task.offered is False and task.registered for task in model.tasks),
            }.items()
            if holds
        )
    driver.check()
    if NR_EVENTS >= 100_000:
        assert len(seen) == 9, f"only {sorted(seen)} came about"


# ---- the same by Hypothesis, which finds the shortest story that goes wrong

which = st.integers(0, MOST_PROCESSES - 1)


class Events(RuleBasedStateMachine):
    @initialize(max_vips=st.integers(0, 3))
    def begin(self, max_vips: int) -> None:
        self.driver = Driver(max_vips=max_vips)

    def pick(self, index: int) -> Both:
        return self.driver.all[index % len(self.driver.all)]

    def somebody(self) -> bool:
        return bool(self.driver.all)

    @rule(
        words=st.lists(st.sampled_from(["P", "Q"]), min_size=1, max_size=4),
        mergeable=st.sampled_from([True, None, False]),
        frozen=st.booleans(),
        runtime_ms=st.sampled_from([None, 0, 100]),
    )
    def attach(self, words: list[str], mergeable: bool | None, frozen: bool, runtime_ms: int | None) -> None:
        self.driver.attach(words, mergeable=mergeable, frozen=frozen, runtime_ms=runtime_ms)

    @precondition(somebody)
    @rule(index=which)
    def fork(self, index: int) -> None:
        self.driver.fork(self.pick(index))

    @precondition(somebody)
    @rule(index=which)
    def freeze(self, index: int) -> None:
        self.driver.freeze(self.pick(index))

    @precondition(somebody)
    @rule(index=which)
    def thaw(self, index: int) -> None:
        self.driver.thaw(self.pick(index))

    @precondition(somebody)
    @rule(index=which, offered=st.booleans())
    def advise(self, index: int, offered: bool) -> None:
        self.driver.advise(self.pick(index), offered)

    @precondition(somebody)
    @rule(index=which)
    def exit(self, index: int) -> None:
        self.driver.exit(self.pick(index))

    @precondition(somebody)
    @rule(index=which)
    def grow_up(self, index: int) -> None:
        self.driver.grow_up(self.pick(index))

    @precondition(somebody)
    @rule(index=which)
    def fault(self, index: int) -> None:
        self.driver.fault(self.pick(index))

    @precondition(somebody)
    @rule(index=which, page=st.integers(0, 3), word=st.sampled_from(["P", "Q"]), through=st.booleans())
    def write(self, index: int, page: int, word: str, through: bool) -> None:
        self.driver.write(self.pick(index), page, word, through)

    @rule(mode=st.sampled_from(["full", "partial"]))
    def whole(self, mode: str) -> None:
        self.driver.whole(mode)

    @rule(mode=st.sampled_from(["full", "partial"]))
    def crawl(self, mode: str) -> None:
        self.driver.crawl(mode)

    @rule(nr_pages=st.integers(1, 6))
    def scan(self, nr_pages: int) -> None:
        self.driver.scan(nr_pages)

    @rule(value=st.sampled_from([0, 1, 8, 2]))
    def store_run(self, value: int) -> None:
        self.driver.store_run(value)

    @rule(kind=st.sampled_from([1, 2]))
    def request(self, kind: int) -> None:
        self.driver.request(kind)

    @rule(ms=st.sampled_from([0, 50, 1100]))
    def pass_time(self, ms: int) -> None:
        self.driver.pass_time(ms)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "driver"):
            self.driver.compare()
            self.driver.compare_states()
            self.driver.check()

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.engine.close()


TestEvents = Events.TestCase

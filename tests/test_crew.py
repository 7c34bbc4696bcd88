"""Several threads help the one that scans, and nobody can tell but by the clock (`Engine(threads=)`)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lksm
from helpers import Pages, content, unique_pages
from lksm import _crew, scheduler

NR_CONTENTS = 40  # of `Life`


@pytest.fixture
def _small_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are sent for small scans too."""
    _send_for_few(monkeypatch)


def _send_for_few(monkeypatch: pytest.MonkeyPatch, slice_pages: int = 30) -> None:
    monkeypatch.setattr(scheduler, "SLICE_PAGES", slice_pages)
    monkeypatch.setattr(_crew, "LEAST_PAGES", 2)
    monkeypatch.setattr(_crew, "PAUSE_PAGES", 5)


def _crew_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lksm-crew")]


class Life:
    """One random life of an engine, the same for every number of threads; `seen` is all that it shows."""

    def __init__(self, seed: int, threads: int, policy: Literal["lksm", "ksm"]) -> None:
        self.random = np.random.default_rng(seed)
        self.page_size = int(self.random.choice([64, 256, 4096]))
        words = [f"{word}{mark}" for word in "0abcdefghij" for mark in ("", "^", ">", "<")]
        self.contents = [
            np.frombuffer(content(word, self.page_size), np.uint8) for word in words[:NR_CONTENTS]
        ]
        self.arrays: list[Pages] = []
        self.seen: list[Any] = []
        self.engine = lksm.Engine(
            policy=policy,
            threads=threads,
            clock=lksm.VirtualClock(),
            seed=seed,
            page_size=self.page_size,
            initial_rounds=int(self.random.choice([0, 3])),
            max_page_sharing=int(self.random.choice([2, 5, 256])),
            use_zero_pages=int(self.random.integers(2)),
            smart_scan=int(self.random.integers(2)),
            nodes=2,
            merge_across_nodes=int(self.random.integers(2)),
            secure=bool(self.random.integers(2)),
            filter=bool(self.random.integers(2)),
            filter_maturity=1,
        )

    def _below(self, limit: int) -> int:
        return int(self.random.integers(limit))

    def _random_pages(self) -> Pages:
        which = self.random.integers(0, 1 + self._below(NR_CONTENTS), 1 + self._below(60))
        return np.stack([self.contents[i] for i in which])

    def _attach(self) -> None:
        regions = []
        for i in range(1 + self._below(4)):
            array = self._random_pages()
            self.arrays.append(array)
            regions.append(
                lksm.Region(
                    i * 100 * self.page_size, array, node=self._below(2), key=("k", None)[self._below(2)]
                )
            )
        kind = self._below(3)
        self.engine.attach(
            regions,
            domain=self._below(2),
            immutable=kind == 1,
            tracked=kind == 2,
            frozen=self._below(3) == 0,
        )

    def _change(self, process: lksm.Process) -> None:
        page, word = self._below(process.nr_pages), self.contents[self._below(NR_CONTENTS)]
        match self._below(6):
            case 0:
                process.fork()
            case 1 if len(self.engine.processes) > 2:
                process.exit()
            case 2:
                process.move(0, page + 1, self._below(2))
            case 3:
                process.advise(("mergeable", "unmergeable")[self._below(2)], page)
            case _ if not process._immutable:
                for _ in range(self._below(9)):
                    process.write(self._below(process.nr_pages), word)

    def _look(self) -> None:
        engine = self.engine
        assert engine.check() == []
        core = engine._core
        assert core is not None
        counted = core.counters(None)
        self.seen.append((engine.counters(), engine.last_scan, counted.bytes_compared, counted.bytes_hashed))
        self.seen.append([engine.counters(domain) for domain in (0, 1)])
        self.seen.append(engine.groups(min_pages=1).tolist())
        self.seen.append([engine.page_table(process).tolist() for process in engine.processes])
        self.seen.append([process.stats() for process in engine.processes])
        self.seen.append(engine.sharing_matrix().tolist())

    def live(self) -> list[Any]:
        for _ in range(12):
            if self._below(3) == 0 or not self.engine.processes:
                self._attach()
            for process in self.engine.processes:
                if self._below(3) == 0:
                    self._change(process)
            match self._below(4):
                case 0:
                    self.engine.partial()
                case 1 if self.engine.scanning is None:
                    self.engine.crawl("full")
                    self.engine.scan(self._below(100))
                case 2:
                    self.engine.scan(self._below(100))
                case _:
                    self.engine.full()
            self._look()
        self.engine.settle()
        self._look()
        self.engine.close()
        return self.seen


@pytest.mark.usefixtures("_small_scans")
@pytest.mark.parametrize("policy", ["lksm", "ksm"])
@pytest.mark.parametrize("seed", range(25))
def test_any_number_of_threads(policy: Literal["lksm", "ksm"], seed: int) -> None:
    """Counters, bytes looked at, groups, page tables and statistics are those of one thread, all the way."""
    alone = Life(seed, 1, policy).live()
    for threads in (2, 3, 8):
        for number, (one, other) in enumerate(zip(alone, Life(seed, threads, policy).live(), strict=True)):
            assert one == other, f"{threads} threads, look {number}"


@pytest.mark.parametrize("threads", [2, 3, 8])
@given(seed=st.integers(0, 2**32), slice_pages=st.integers(1, 70))
@settings(max_examples=15)
def test_any_slice(threads: int, seed: int, slice_pages: int) -> None:
    """The same, however many pages others come for."""
    with pytest.MonkeyPatch.context() as patch:
        _send_for_few(patch, slice_pages)
        assert Life(seed, threads, "lksm").live() == Life(seed, 1, "lksm").live()


@pytest.mark.parametrize("immutable", [True, False])
def test_large_scans(immutable: bool) -> None:
    """Slices as they are: every counter and group is that of one thread."""
    random = np.random.default_rng(3)
    numbers = random.integers(0, 1 << 14, 50_000).astype(np.uint64)
    memory = np.zeros((len(numbers), 32), np.uint64)
    memory[:] = numbers[:, None]
    memory[::3, :31] = 5  # differ in their last bytes only
    seen = []
    for threads in (1, 2, 3):
        with lksm.Engine(initial_rounds=0, page_size=256, seed=1, threads=threads) as engine:
            process = engine.attach(memory.copy(), immutable=immutable)
            reports = [engine.full(), engine.full()]
            process_table = engine.page_table(process).tolist()
            reports = [(report.pages_scanned, report.merged, report.broken) for report in reports]
            counters = engine.counters()
            seen.append((reports, counters.general_profit, engine.groups().tolist(), process_table))
            assert engine.check() == []
            assert bool(_crew_threads()) == (threads > 1)
    assert seen[0] == seen[1] == seen[2]
    assert not _crew_threads()


def test_threads_are_few_and_end() -> None:
    """No thread is started before a large scan, and none is left when the engine is closed."""
    with lksm.Engine(initial_rounds=0, page_size=64, threads=4) as engine:
        engine.attach(np.arange(800, dtype=np.uint64).repeat(8).reshape(-1, 8))
        engine.full()
        assert not _crew_threads()
        engine.attach(np.arange(8000, dtype=np.uint64).repeat(8).reshape(-1, 8))
        engine.full()
        assert 1 <= len(_crew_threads()) <= 3
        assert engine.counters().pages_shared == 800
    assert not _crew_threads()


def test_large_pages() -> None:
    """A few of them are worth sending for."""
    memory = np.zeros((64, 1 << 18), np.uint8)
    memory[:, -1] = np.arange(64) // 2
    with lksm.Engine(initial_rounds=0, page_size=1 << 18, threads=2) as engine:
        engine.attach(memory)
        engine.full()
        assert len(_crew_threads()) == 1
        assert engine.counters().pages_shared == 32


@pytest.mark.parametrize("threads", [0, -1, True, 1.0, "2"])
def test_how_many(threads: Any) -> None:
    """`threads` is a number of at least 1."""
    with pytest.raises(ValueError, match="threads"):
        lksm.Engine(threads=threads)


def test_default_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as CPUs that the process may use."""
    made = []
    monkeypatch.setattr(
        _crew.Crew, "__init__", lambda self, core, nr_threads, page_size: made.append(nr_threads)
    )
    lksm.Engine()
    assert made == [len(os.sched_getaffinity(0))]


@pytest.mark.usefixtures("_small_scans")
def test_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the one that there is does it all."""

    def refuse(self: object) -> None:
        raise RuntimeError("can't start new thread")

    with lksm.Engine(initial_rounds=0, threads=3) as engine:
        engine.attach(np.concatenate([unique_pages(40), unique_pages(30)]))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            engine.full()
        assert (engine.counters().pages_shared, engine.counters().pages_unshared) == (30, 10)
        engine.full()


@pytest.mark.usefixtures("_small_scans")
def test_no_memory_in_the_middle() -> None:
    """A scan that finds no memory for the item of a page ends there, and can be gone on with."""
    from test_no_memory import Failing

    memory = np.concatenate([unique_pages(600, page_size=64), unique_pages(600, page_size=64)])
    for number in range(1, 40):
        with lksm.Engine(initial_rounds=0, page_size=64, threads=2) as engine:
            engine.attach(memory)
            engine.crawl("full")
            failing = Failing(engine)
            failing.at(number)
            visited = 0
            while engine.scanning is not None:
                with suppress(lksm.OutOfMemory):
                    visited += engine.scan(400)
            failing.at(0)
            assert visited == 1200
            assert engine.check() == []
            engine.settle()
            assert (engine.counters().pages_shared, engine.counters().pages_sharing) == (600, 600)


@pytest.mark.usefixtures("_small_scans")
def test_child_of_fork() -> None:
    """A child made by os.fork() has threads of its own when it scans."""
    with lksm.Engine(initial_rounds=0, threads=2) as engine:
        engine.attach(np.concatenate([unique_pages(40), unique_pages(30)]))
        engine.full()
        engine._crew._costs = {True: 1e-12, False: 1.0}  # help pays
        child = os.fork()
        if not child:
            try:
                engine.attach(np.concatenate([unique_pages(40, "v"), unique_pages(40, "v")]))
                engine.full()
                engine.full()
                is_right = engine.counters().pages_shared == 70 and engine.counters().pages_unshared == 10
                os._exit(0 if is_right and _crew_threads() else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- nobody is left behind -------------------------------------------------------------------------


@pytest.fixture
def interrupts() -> Iterator[Callable[[float], None]]:
    """Sends Ctrl-C to the main thread, so many seconds from now."""
    timers = []

    def send(seconds: float) -> None:
        timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
        timers.append(timer)
        timer.start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    yield send
    for timer in timers:
        timer.cancel()
    signal.signal(signal.SIGINT, before)


def test_interrupt_waits_for_the_others(interrupts: Callable[[float], None]) -> None:
    """Ctrl-C is heard when everybody is back, however often it comes: memory may go then."""
    is_back = threading.Event()

    def slow() -> None:
        time.sleep(0.5)
        is_back.set()

    errand = _crew._Errand(slow, lambda: None)
    other = threading.Thread(target=errand.run)
    other.start()
    time.sleep(0.1)
    for seconds in (0.05, 0.1, 0.15):
        interrupts(seconds)
    with pytest.raises(KeyboardInterrupt):
        errand.end()
    assert is_back.is_set()
    other.join()


def test_who_comes_too_late_does_nothing() -> None:
    """An errand that is over is not begun."""
    done: list[str] = []
    errand = _crew._Errand(lambda: done.append("came"), lambda: done.append("called back"))
    errand.run()
    errand.end()
    errand.run()
    assert done == ["came", "called back"]


def test_nobody_is_sent_where_there_is_nothing_to_help_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that have no twin: others come once, then not for a while, and longer each time."""
    nr_helped = []
    scan_with_help = _crew.Crew._scan_with_help

    def counted(self: _crew.Crew, nr_pages: int, now: int) -> int:
        nr_helped.append(nr_pages)
        return scan_with_help(self, nr_pages, now)

    monkeypatch.setattr(_crew.Crew, "_scan_with_help", counted)
    memory = np.zeros((400_000, 8), np.uint64)
    memory[:, 0] = np.arange(len(memory))
    with lksm.Engine(initial_rounds=0, page_size=64, threads=2) as engine:
        process = engine.attach(memory)
        engine.full()
        assert 1 <= len(nr_helped) <= 6
        memory[:] = 7
        engine.full()
        assert engine.counters().pages_unshared == 0
        monkeypatch.setattr(_crew.Crew, "_is_help_faster", lambda crew: True)
        nr_helped.clear()
        engine.full()
        assert sum(nr_helped) > process.nr_pages // 2


def test_what_is_faster_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """With help twice and without, then what took less time, and now and then the other."""
    now, ways = [0.0], []

    class Timed:
        nr_asked = 0

        def nr_waiting(self, most: int) -> int:
            return most

        def scan(self, nr_pages: int, _now: int) -> int:
            ways.append("alone")
            now[0] += 2.0 * nr_pages / 5000
            return nr_pages

    core = Timed()
    crew = _crew.Crew(core, 2, 4096)  # type: ignore[arg-type]

    def with_help(nr_pages: int, _now: int) -> int:
        ways.append("helped")
        core.nr_asked += nr_pages
        now[0] += 1.0 if len(ways) < 20 else 10.0
        return nr_pages

    monkeypatch.setattr(_crew.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(crew, "_scan_with_help", with_help)
    for number in range(48):
        nr_scanned = crew.scan(5000, 0)
        is_probe = ways[-1] == "alone" and number < 20
        assert nr_scanned == (_crew.PROBE_PAGES if is_probe else 5000)  # a few are enough to tell
    assert ways[:15] == ["helped", "helped", "alone"] + 12 * ["helped"]
    assert ways[15:20] == ["alone"] + 4 * ["helped"]
    assert ways[20:].count("helped") == 2 and ways[-1] == "helped"


def test_other_threads_get_their_turn() -> None:
    """While a large scan goes on, other threads may ask and write; in the end all is as it must be."""
    memory = np.zeros((60_000, 8), np.uint64)
    memory[:, 0] = np.arange(60_000) // 2
    with lksm.Engine(initial_rounds=0, page_size=64, threads=2, max_page_sharing=60_000) as engine:
        process = engine.attach(memory)
        is_over = threading.Event()
        nr_written = 0

        def write() -> None:
            nonlocal nr_written
            while not is_over.is_set():
                process.write(nr_written % 60_000, b"\xff")
                engine.counters()
                nr_written += 1

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(3):
            engine.full()
        is_over.set()
        writer.join()
        assert nr_written > 3
        engine.settle()
        assert engine.check() == []
        assert engine.counters().pages_sharing == 60_000 - len(np.unique(memory, axis=0))

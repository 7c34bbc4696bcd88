"""The two threads: they start, sleep, wake, stop, fail and end with the interpreter; and nothing gets lost.

Nothing here says how fast; what has to happen has a generous deadline. What ends an interpreter runs in one
of its own.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import lksm
from driving import FAR
from helpers import expect, ids, pages, reads, repeated, unique_pages
from lksm import _core

DEADLINE = 30.0
NAMES = {"ksm_crawld", "ksmd"}


def eventually(happens: Callable[[], bool], what: str = "it") -> None:
    """Wait until something happens."""
    end = time.monotonic() + DEADLINE
    while not happens():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE} s"
        time.sleep(0.0005)


def threads() -> set[str]:
    """Names of the engines' threads that are alive."""
    return {thread.name for thread in threading.enumerate()} & NAMES


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    assert threads() == set()
    yield
    assert threads() == set()


@pytest.fixture
def one_shot() -> Iterator[lksm.Engine]:
    """An engine whose threads run and wait for requests."""
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=0)
    with engine.running():
        yield engine
    assert engine.check() == []
    engine.close()


def serve(engine: lksm.Engine, kind: int) -> None:
    """Ask for a scan and wait until it has been served."""
    engine.knobs.one_shot_scanning = kind
    eventually(lambda: engine.knobs.one_shot_scanning == 0, "the requested scan")


# ---- start, stop


def test_start_and_stop(engine: lksm.Engine) -> None:
    """`start` makes two threads with the kernel's names, `stop` ends them, and it may all happen again."""
    assert not engine.is_running
    for _ in range(3):
        engine.start()
        assert engine.is_running
        assert threads() == NAMES
        engine.stop()
        assert not engine.is_running
        assert threads() == set()


def test_running(engine: lksm.Engine) -> None:
    """`running()` starts and stops, also if its block raises."""
    with engine.running():
        assert engine.is_running
        assert threads() == NAMES
    assert not engine.is_running
    with pytest.raises(ZeroDivisionError), engine.running():
        _ = 1 / 0
    assert not engine.is_running


def test_start_twice(engine: lksm.Engine) -> None:
    """Starting what runs is refused and changes nothing."""
    with engine.running():
        with pytest.raises(lksm.BusyError):
            engine.start()
        assert engine.is_running
        assert sum(thread.name in NAMES for thread in threading.enumerate()) == 2
    assert threads() == set()


def test_stop_twice(engine: lksm.Engine) -> None:
    """Stopping what does not run does nothing."""
    engine.stop()
    engine.start()
    engine.stop()
    engine.stop()
    assert not engine.is_running


def test_repr_says_whether_it_runs(engine: lksm.Engine) -> None:
    """One sees by its text whether an engine's threads run."""
    idle = repr(engine)
    with engine.running():
        assert repr(engine) != idle
    assert repr(engine) == idle


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.full(),
        lambda engine: engine.partial(),
        lambda engine: engine.crawl("full"),
        lambda engine: engine.crawl("partial"),
        lambda engine: engine.scan(),
        lambda engine: engine.scan(5),
        lambda engine: engine.settle(),
        lambda engine: engine.advance(1),
        lambda engine: engine.turn(),
        lambda engine: engine.start(),
    ],
    ids=["full", "partial", "crawl", "crawl-partial", "scan", "scan-5", "settle", "advance", "turn", "start"],
)
def test_synchronous_calls_are_refused_meanwhile(call: Callable[[lksm.Engine], object]) -> None:
    """While the threads drive the scans nobody else may; afterwards everybody may."""
    engine = lksm.Engine(initial_rounds=0, clock=lksm.VirtualClock())
    engine.attach(pages("P P"), mergeable=True)
    with engine.running():
        with pytest.raises(lksm.BusyError):
            call(engine)
        expect(engine, rmap_items=0, nr_scannable=1)
    call(engine)
    engine.close()


def test_everything_else_is_welcome_meanwhile(one_shot: lksm.Engine) -> None:
    """Processes come and go, are asked and written, and knobs are stored, while the threads run."""
    engine = one_shot
    process = engine.attach(pages("P P u"), mergeable=True)
    serve(engine, 1)
    assert len(engine.groups()) == 1
    assert engine.sharing_matrix().tolist() == [[2]]
    assert engine.explain(process, 0).reason is lksm.Reason.MERGED
    assert process.stats().merging_pages == 2
    process.write(1, pages("v"))
    child = process.fork()
    child.exit()
    process.freeze()
    process.thaw()
    engine.knobs.run = 2
    expect(engine, rmap_items=0, shared=0)
    engine.knobs.run = 8
    serve(engine, 2)
    assert reads(process, "P v u")
    expect(engine, unshared=3)
    engine.detach(process)
    assert engine.processes == ()


def test_two_engines_run_at_once() -> None:
    """Every engine has threads of its own, and stopping one does not stop the other."""
    first, second = (lksm.Engine(initial_rounds=0, run=8) for _ in range(2))
    for engine in (first, second):
        engine.attach(pages("P P"), mergeable=True)
    with first.running():
        with second.running():
            assert sum(thread.name in NAMES for thread in threading.enumerate()) == 4
            serve(second, 1)
        serve(first, 1)
        expect(first, shared=1, sharing=1)
    expect(second, shared=1, sharing=1)
    first.close()
    second.close()


# ---- what they do


def test_run_1_merges_by_itself() -> None:
    """In periodic mode an advised process is scanned without anybody asking."""
    engine = lksm.Engine(initial_rounds=0, run=1)
    with engine.running():
        engine.attach(pages("P P u"), mergeable=True)
        eventually(lambda: engine.counters().pages_sharing == 1)
    expect(engine, shared=1, sharing=1, unshared=1)
    engine.close()


def test_initial_rounds_come_by_themselves() -> None:
    """With the defaults three full scans come by themselves, in one-shot mode too."""
    engine = lksm.Engine(run=8, sleep_millisecs=0)
    engine.attach(pages("P P u"))
    with engine.running():
        eventually(lambda: engine.counters().full_scans == 3)
        expect(engine, shared=1, sharing=1)
    expect(engine, full_scans=3)
    engine.close()


def test_run_0_does_nothing(engine: lksm.Engine) -> None:
    """Threads that run with `run` 0 sleep until it changes."""
    engine.attach(pages("P P"), mergeable=True)
    with engine.running():
        time.sleep(0.2)
        expect(engine, rmap_items=0)
        engine.knobs.run = 1
        eventually(lambda: engine.counters().pages_sharing == 1)


def test_run_8_merges_on_request_only(one_shot: lksm.Engine) -> None:
    """In one-shot mode nothing is scanned until it is asked for: not for advice, nor for a freeze."""
    process = one_shot.attach(pages("P P u"), mergeable=True)
    process.freeze()
    time.sleep(0.3)
    expect(one_shot, rmap_items=0, nr_frozen=1)
    serve(one_shot, 1)
    expect(one_shot, shared=1, sharing=1, unshared=1, full_scans=0)
    serve(one_shot, 2)
    expect(one_shot, full_scans=1)


def test_freeze_triggers_a_partial_scan() -> None:
    """In periodic mode a process that freezes is scanned."""
    engine = lksm.Engine(initial_rounds=0, run=1)
    process = engine.attach(pages("P P"), mergeable=True)
    with engine.running():
        eventually(lambda: process.stats().rmap_items == 2)
        visited = engine.counters().pages_scanned
        process.freeze()
        eventually(lambda: engine.counters().pages_scanned == visited + 2)
        eventually(lambda: engine.queue == ())
        report = engine.last_scan
    assert report is not None
    assert (report.mode, report.cause, report.nr_slots) == ("partial", "event", 1)
    engine.close()


def test_a_knob_cuts_a_long_nap_short() -> None:
    """A nap of months ends when `sleep_millisecs` changes."""
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=2**32 - 1, pages_to_scan=7)
    engine.attach(repeated("P", 20), mergeable=True)
    with engine.running():
        engine.knobs.one_shot_scanning = 2
        for visited in (7, 14):
            eventually(lambda n=visited: engine.counters().pages_scanned == n)  # type: ignore[misc]
            engine.knobs.sleep_millisecs -= 1
        eventually(lambda: engine.knobs.one_shot_scanning == 0)
    expect(engine, shared=1, sharing=19, full_scans=1)
    engine.close()


def test_stopping_does_not_wait_for_a_nap() -> None:
    """`stop` returns although a nap of months has begun; the scan goes on after the next `start`."""
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=2**32 - 1, pages_to_scan=7)
    engine.attach(repeated("P", 20), mergeable=True)
    with engine.running():
        engine.knobs.one_shot_scanning = 2
        eventually(lambda: engine.counters().pages_scanned == 7)
    assert engine.knobs.one_shot_scanning == 2
    engine.knobs.sleep_millisecs = 0
    with engine.running():
        eventually(lambda: engine.knobs.one_shot_scanning == 0)
    expect(engine, pages_scanned=20, shared=1, sharing=19, full_scans=1)
    engine.close()


def test_what_the_threads_began_a_call_may_finish() -> None:
    """A scan that `stop` left unfinished is finished by the next synchronous one."""
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=2**32 - 1, pages_to_scan=7)
    engine.attach(repeated("P", 20), mergeable=True)
    with engine.running():
        engine.knobs.one_shot_scanning = 2
        eventually(lambda: engine.counters().pages_scanned == 7)
    report = engine.full()
    assert report.pages_scanned == 20
    assert engine.knobs.one_shot_scanning == 0
    expect(engine, pages_scanned=40, full_scans=2)
    engine.close()


def test_many_pages_are_merged_right(one_shot: lksm.Engine) -> None:
    """What the threads merge is what a synchronous scan merges."""
    memory = np.concatenate([unique_pages(700)] * 3)
    processes = [one_shot.attach(part, mergeable=True) for part in np.split(memory, 7)]
    serve(one_shot, 1)
    expect(one_shot, shared=700, sharing=1400, unshared=0)
    tables = [frame for process in processes for frame in ids(one_shot, process)]
    assert tables[:700] == tables[700:1400] == tables[1400:]


# ---- no lost wake-up


def test_no_lost_wake_up(one_shot: lksm.Engine) -> None:
    """Two thousand requests, one as soon as the other is done, and each is served."""
    process = one_shot.attach(pages("P u"), mergeable=True)
    before = one_shot.counters().full_scans
    for number in range(1, 2001):
        serve(one_shot, 2)
        assert one_shot.counters().full_scans == before + number
    assert process.stats().rmap_items == 2


def test_no_lost_wake_up_without_targets(one_shot: lksm.Engine) -> None:
    """The same when there is nobody to scan."""
    for _ in range(1000):
        serve(one_shot, 2)
    expect(one_shot, full_scans=0, pages_scanned=0)


def test_no_lost_wake_up_in_the_midst_of_events(one_shot: lksm.Engine) -> None:
    """The same while processes freeze, thaw, come and go all the time."""
    engine = one_shot
    stays = [engine.attach(pages("P Q u"), mergeable=True) for _ in range(3)]
    is_over = threading.Event()
    failures: list[BaseException] = []

    def noise(seed: int) -> None:
        choice = random.Random(seed)
        try:
            while not is_over.is_set():
                choice.choice([stays[seed].freeze, stays[seed].thaw])()
                process = engine.attach(pages("P"), frozen=choice.random() < 0.5, runtime_ms=0)
                choice.choice([process.freeze, process.thaw, lambda: None])()
                process.exit()
        except BaseException as failure:
            failures.append(failure)

    others = [threading.Thread(target=noise, args=(seed,)) for seed in range(2)]
    for thread in others:
        thread.start()
    try:
        for _ in range(400):
            serve(engine, 2)
    finally:
        is_over.set()
        for thread in others:
            thread.join()
    assert failures == []
    for process in stays:
        process.thaw()
    serve(engine, 2)
    expect(engine, scanning_process=3, rmap_items=9, nr_frozen=0, nr_scannable=0)


def test_no_lost_freeze() -> None:
    """In periodic mode every freeze is followed by a scan, however it falls between the turns."""
    choice = random.Random(1)
    engine = lksm.Engine(initial_rounds=0, run=1, sleep_millisecs=0, full_scan_interval=FAR)
    process = engine.attach(pages("P u"), mergeable=True)
    with engine.running():
        eventually(lambda: process.stats().rmap_items == 2)
        for _ in range(10):
            before = engine.last_scan
            process.thaw()
            process.freeze()
            eventually(lambda seen=before: engine.last_scan is not seen, "the partial scan")  # type: ignore[misc]
            time.sleep(choice.random() * 0.01)
    expect(engine, nr_frozen=0, full_scans=0)
    engine.close()


# ---- idle


class CountingClock:
    """The monotonic clock, and how often it was asked: every turn asks at least once."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return time.monotonic_ns() // 1_000_000


def quiet(clock: CountingClock, seconds: float = 0.5) -> int:
    """How often the clock had been asked when nobody asked it for a while."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before = clock.calls
        time.sleep(seconds)
        if clock.calls == before:
            return before
    raise AssertionError("the threads are never quiet")


@pytest.mark.parametrize("run", [0, 8])
def test_idle_threads_do_not_poll(run: int) -> None:
    """With nothing to do in one-shot mode, or stopped, no thread wakes up."""
    clock = CountingClock()
    engine = lksm.Engine(clock=clock, initial_rounds=0, run=8)
    processes = [engine.attach(pages("P u"), mergeable=True) for _ in range(3)]
    with engine.running():
        serve(engine, 2)
        engine.knobs.run = run
        before = quiet(clock)
        time.sleep(1)
        assert clock.calls == before
        for process in processes:
            process.freeze()
        assert quiet(clock) - before <= 10  # a turn or two at most, and no scan
        expect(engine, nr_frozen=3, full_scans=1)
    engine.close()


def test_idle_threads_in_periodic_mode() -> None:
    """In periodic mode the crawler looks once a second and the scanner not at all."""
    clock = CountingClock()
    engine = lksm.Engine(clock=clock, initial_rounds=0, run=1, full_scan_interval=FAR)
    with engine.running():
        before = quiet(clock, 0.3)
        time.sleep(2.5)
        assert clock.calls - before <= 4 * 3  # a look asks the clock three times at most
    engine.close()


# ---- failures


class Boom(Exception):
    """What a batch raises in these tests."""


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def fail_in_a_thread(engine: lksm.Engine) -> None:
    """Make a thread call what has been patched to fail, and wait until it has."""
    engine.knobs.one_shot_scanning = 2
    eventually(lambda: engine.knobs.run == 0, "run 0")


NEXT_CALLS: dict[str, Callable[[lksm.Engine], object]] = {
    "counters": lambda engine: engine.counters(),
    "check": lambda engine: engine.check(),
    "attach": lambda engine: engine.attach(pages("P")),
    "memory": lambda engine: engine.memory(),
    "stop": lambda engine: engine.stop(),
}


@pytest.mark.parametrize("method", ["scan", "begin_round"])
@pytest.mark.parametrize("call", NEXT_CALLS)
def test_an_exception_in_a_thread(monkeypatch: pytest.MonkeyPatch, method: str, call: str) -> None:
    """The engine stops, the next call raises what happened, once, and then it works again."""
    boom = Boom("in a batch")
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=0)
    process = engine.attach(pages("P P u"), mergeable=True)
    engine.start()
    with monkeypatch.context() as patched:
        patched.setattr(_core.Core, method, raiser(boom))
        fail_in_a_thread(engine)
    assert engine.sysfs.read("run") == "0\n"
    with pytest.raises(Boom) as raised:
        NEXT_CALLS[call](engine)
    assert raised.value is boom
    assert engine.check() == []
    assert engine.knobs.one_shot_scanning == 0
    if not engine.is_running:
        engine.start()
    engine.knobs.run = 8
    serve(engine, 2)
    expect(engine, shared=1, sharing=1, unshared=1)
    engine.stop()
    engine.full()
    assert reads(process, "P P u")
    engine.close()


def test_an_exception_at_the_end_of_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving `running()` tells of it, if nobody has been told."""
    boom = Boom("in a batch")
    engine = lksm.Engine(initial_rounds=0, run=8)
    engine.attach(pages("P P"), mergeable=True)
    with monkeypatch.context() as patched:
        patched.setattr(_core.Core, "scan", raiser(boom))
        with pytest.raises(Boom) as raised, engine.running():
            fail_in_a_thread(engine)
    assert raised.value is boom
    assert threads() == set()
    assert engine.full().merged == 1
    engine.close()


def test_an_exception_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """If `close` is the next call it raises too, and has closed all the same."""
    boom = Boom("in a batch")
    engine = lksm.Engine(initial_rounds=0, run=8)
    engine.attach(pages("P P"), mergeable=True)
    monkeypatch.setattr(_core.Core, "scan", raiser(boom))
    engine.start()
    fail_in_a_thread(engine)
    with pytest.raises(Boom) as raised:
        engine.close()
    assert raised.value is boom
    assert threads() == set()
    with pytest.raises(lksm.ProcessGone):
        engine.counters()
    engine.close()


def test_out_of_memory_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that gets no memory is tried again later (I-5)."""
    engine = lksm.Engine(initial_rounds=0, run=8, sleep_millisecs=0)
    engine.attach(pages("P P"), mergeable=True)
    failed = threading.Event()
    scan = _core.Core.scan

    def scan_later(core: _core.Core, *arguments: int) -> int:
        if not failed.is_set():
            failed.set()
            raise lksm.OutOfMemory("not yet")
        return scan(core, *arguments)

    monkeypatch.setattr(_core.Core, "scan", scan_later)
    with engine.running():
        serve(engine, 2)
        assert failed.is_set()
        expect(engine, shared=1, sharing=1)
        assert engine.knobs.run == 8
    engine.close()


# ---- close


def test_close_ends_the_threads() -> None:
    """Closing a running engine ends its threads, in the middle of a scan too."""
    for _ in range(20):
        engine = lksm.Engine(initial_rounds=0, run=1, sleep_millisecs=0, full_scan_interval=0)
        engine.attach(unique_pages(300), mergeable=True)
        engine.start()
        eventually(lambda: engine.counters().pages_scanned > 0)  # noqa: B023
        engine.close()
        assert threads() == set()
        assert not engine.is_running
    with pytest.raises(lksm.ProcessGone):
        engine.start()
    engine.close()


def test_close_with_exits_at_the_same_time() -> None:
    """Threads that use an engine while it closes get `ProcessGone`, and nothing hangs."""
    for _ in range(10):
        engine = lksm.Engine(initial_rounds=0, run=1, sleep_millisecs=0, full_scan_interval=0)
        unexpected: list[BaseException] = []

        def use(engine: lksm.Engine = engine, unexpected: list[BaseException] = unexpected) -> None:
            try:
                while True:
                    process = engine.attach(pages("P P"), mergeable=True)
                    process.freeze()
                    process.exit()
            except lksm.ProcessGone:
                pass
            except BaseException as failure:
                unexpected.append(failure)

        users = [threading.Thread(target=use) for _ in range(2)]
        engine.start()
        for thread in users:
            thread.start()
        eventually(lambda: engine.counters().scan_round > 0)  # noqa: B023
        engine.close()
        for thread in users:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert unexpected == []


def test_start_and_stop_from_many_threads(engine: lksm.Engine) -> None:
    """Of many that start at once one succeeds; of many that stop at once all do."""
    engine.knobs.run = 1
    for _ in range(20):
        outcomes: list[str] = []
        barrier = threading.Barrier(4)

        def start(barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes) -> None:
            barrier.wait()
            try:
                engine.start()
                outcomes.append("started")
            except lksm.BusyError:
                outcomes.append("busy")

        def stop(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            engine.stop()

        for job in (start, stop):
            several = [threading.Thread(target=job) for _ in range(4)]
            for thread in several:
                thread.start()
            for thread in several:
                thread.join(DEADLINE)
                assert not thread.is_alive()
        assert sorted(outcomes) == ["busy"] * 3 + ["started"]
        assert threads() == set()


# ---- the end of the interpreter, and forks

PREAMBLE = """
import atexit, multiprocessing, os, sys, threading, time, warnings


@atexit.register  # before lksm is imported, so it runs after whatever lksm has registered
def nobody_is_left():
    left = {thread.name for thread in threading.enumerate()} & {"ksmd", "ksm_crawld"}
    if left:
        print("still there:", left, file=sys.stderr)


import numpy as np
import lksm

# From Python 3.12 on, a fork beside threads is warned of; here it is what is tried.
warnings.simplefilter("ignore", DeprecationWarning)
rows = np.arange(600) % 300
memory = np.zeros((600, 4096), np.uint8)
memory.view(np.int64)[:, 0] = rows + 1
engine = lksm.Engine(initial_rounds=0, run=1, sleep_millisecs=0, full_scan_interval=0)
process = engine.attach(memory, mergeable=True)


def scanning():
    engine.start()
    while not engine.counters().full_scans:
        time.sleep(0.001)


def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_in_child():
    assert not engine.is_running
    assert engine.check() == []
    engine.knobs.run = 0
    engine.full()
    engine.full()
    now = engine.counters()
    assert (now.pages_shared, now.pages_sharing, now.pages_unshared) == (300, 300, 0), now
    assert engine.check() == []
    assert (process.read(0, 600) == memory).all()
    other = engine.attach(memory[:5].copy(), mergeable=True)
    assert engine.full().merged == 5
    other.exit()
    assert engine.check() == []
"""


def interpret(script: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own; it has to end by itself, with this status."""
    ended = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return ended


ENDS = {
    "plain": ("scanning()", 0),
    "idle": ("engine.knobs.run = 8; engine.start()", 0),
    "stopped": ("scanning(); engine.stop()", 0),
    "exit": ("scanning(); sys.exit()", 0),
    "exit with a status": ("scanning(); sys.exit(3)", 3),
    "exit from within": ("with engine.running():\n    time.sleep(0.05)\n    sys.exit(5)", 5),
    "two engines": ("scanning(); other = lksm.Engine(run=8); other.start()", 0),
    "deleted": ("scanning(); del engine, process", 0),
    "in a long nap": (
        "engine.knobs.sleep_millisecs = 2**32 - 1; engine.start()\n"
        "while not engine.counters().pages_scanned: time.sleep(0.001)",
        0,
    ),
    "as non-daemon threads go on": (
        "scanning(); threading.Thread(target=lambda: (time.sleep(0.1), engine.counters())).start()",
        0,
    ),
    "at exit somebody stops": ("scanning(); atexit.register(engine.stop)", 0),
    "at exit somebody asks": ("scanning(); atexit.register(engine.counters)", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_cleanly(end: str) -> None:
    """However the program ends with threads running: its own status, and not a word on stderr."""
    script, status = ENDS[end]
    ended = interpret(script, status)
    assert (ended.stdout, ended.stderr) == ("", "")


def test_the_interpreter_ends_with_an_exception() -> None:
    """An exception nobody catches is all that is told."""
    ended = interpret("scanning()\nraise ValueError('on purpose')", 1)
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("ValueError: on purpose\n")
    assert ended.stderr.count("Traceback") == 1
    assert "Fatal" not in ended.stderr


FORKS = {
    "child exits": """
        pid = os.fork()
        if not pid:
            sys.exit(7)
        assert wait_for(pid) == 7
        """,
    "child falls off the end": """
        pid = os.fork()
        if pid:
            assert wait_for(pid) == 0
        """,
    "child uses the engine": """
        pid = os.fork()
        if not pid:
            use_in_child()
            sys.exit(0)
        assert wait_for(pid) == 0
        assert engine.is_running and engine.check() == []
        """,
    "child closes the engine": """
        pid = os.fork()
        if not pid:
            engine.stop()
            engine.close()
            sys.exit(0)
        assert wait_for(pid) == 0
        assert engine.counters().pages_sharing == 300
        """,
    "child starts its own": """
        pid = os.fork()
        if not pid:
            assert not engine.is_running and "process" in repr(engine)
            before = engine.counters().full_scans
            engine.start()
            assert engine.is_running
            assert {"ksmd", "ksm_crawld"} <= {thread.name for thread in threading.enumerate()}
            while engine.counters().full_scans < before + 2:
                time.sleep(0.001)
            sys.exit(0)
        assert wait_for(pid) == 0
        """,
    "child makes another": """
        pid = os.fork()
        if not pid:
            other = lksm.Engine(initial_rounds=0, run=1, full_scan_interval=0, sleep_millisecs=0)
            other.attach(memory, mergeable=True)
            other.start()
            while other.counters().pages_sharing < 300:
                time.sleep(0.001)
            sys.exit(0)
        assert wait_for(pid) == 0
        """,
    "grandchild": """
        pid = os.fork()
        if not pid:
            pid = os.fork()
            if not pid:
                use_in_child()
                os._exit(0)
            sys.exit(wait_for(pid))
        assert wait_for(pid) == 0
        """,
    "a thread forks": """
        found = []
        def fork():
            pid = os.fork()
            if not pid:
                use_in_child()
                os._exit(0)
            found.append(wait_for(pid))
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        assert found == [0]
        """,
    "multiprocessing": """
        child = multiprocessing.get_context("fork").Process(target=use_in_child)
        child.start()
        child.join()
        assert child.exitcode == 0
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(len, ["a", "bb"]) == [1, 2]
        """,
    "again and again": """
        is_over = threading.Event()
        def noise():
            while not is_over.is_set():
                other = engine.attach(memory[:10], mergeable=True)
                other.freeze()
                engine.check()
                other.exit()
        threads = [threading.Thread(target=noise, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(40):
            pid = os.fork()
            if not pid:
                assert not engine.is_running
                for each in engine.processes[1:]:
                    each.exit()
                use_in_child()
                os._exit(0)
            assert wait_for(pid) == 0, number
            assert engine.is_running
        is_over.set()
        for thread in threads:
            thread.join()
        rounds = engine.counters().full_scans
        while engine.counters().full_scans == rounds:
            time.sleep(0.001)
        """,
    "while engines are made": """
        sys.setswitchinterval(1e-6)
        many = [lksm.Engine() for _ in range(100)]
        is_over = threading.Event()
        def make():
            while not is_over.is_set():
                lksm.Engine().close()
        thread = threading.Thread(target=make, daemon=True)
        thread.start()
        for number in range(100):
            pid = os.fork()
            if not pid:
                many[number].attach(memory[:2], mergeable=True)
                many[number].full()
                os._exit(0)
            assert wait_for(pid) == 0, number
        is_over.set()
        thread.join()
        engine.check()
        """,
    "during a synchronous scan": """
        engine.stop()
        engine.knobs.run = 0
        is_over = threading.Event()
        def scan():
            while not is_over.is_set():
                engine.full()
        thread = threading.Thread(target=scan, daemon=True)
        thread.start()
        for number in range(40):
            pid = os.fork()
            if not pid:
                use_in_child()
                os._exit(0)
            assert wait_for(pid) == 0, number
        is_over.set()
        thread.join()
        """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("story", FORKS)
def test_forks(story: str) -> None:
    """A forked child has no threads and says so; all else works in it, and nothing changes in the parent."""
    ended = interpret("scanning()\n" + textwrap.dedent(FORKS[story]))
    assert (ended.stdout, ended.stderr) == ("", "")

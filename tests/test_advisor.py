"""The scan-time advisor: its arithmetic as a table, and what it does to an engine (spec 12.4).

Row 96 is in test_acceptance_13_6.py; tests/kernel/test_advisor.py holds it against the kernel's.
"""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

import lksm
from driving import batches, clocked, scans
from helpers import finish, pages, repeated, unique_pages
from lksm import advisor

DEFAULT = advisor.Wishes(target_scan_time=200, max_cpu=70, max_pages=30000)


class CpuClock:
    """CPU time that stands still until it is told to go on, in milliseconds."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        """Every look costs a step: a batch costs one, for it is looked at twice."""
        self.now += self.step
        return self.now


def told(
    wishes: advisor.Wishes, scans_made: list[tuple[int, int]], pages_to_scan: int = 500
) -> list[tuple[int, int]]:
    """After scans of so many milliseconds, and of CPU time, what is said, and the smoothed change."""
    history, said = advisor.History(), []
    for elapsed_ms, cpu_ms in scans_made:
        history, pages_to_scan = advisor.advise(
            history, wishes, pages_to_scan=pages_to_scan, elapsed_ms=elapsed_ms, cpu_ms=cpu_ms
        )
        said.append((pages_to_scan, history.change))
    return said


@pytest.mark.parametrize(
    ("scans_made", "said"),
    [
        ([(400_000, 4000)] * 3, [(5000, 30), (30000, 51), (30000, 65)]),
        ([(100_000, 50_000)] * 3, [(100, 30), (25, 51), (10, 65)]),
        ([(200_000, 20_000)] * 3, [(500, 30), (500, 51), (500, 65)]),
        ([(300_000, 90_000), (600_000, 60_000)], [(227, 30), (556, 81)]),
        ([(999, 19)], [(5000, 30)]),
        ([(1999, 20)], [(2500, 30)]),
        ([(0, 0)], [(5000, 30)]),
        ([(10_000_000, 10_000_000)], [(350, 30)]),
    ],
)
def test_worked_by_hand(scans_made: list[tuple[int, int]], said: list[tuple[int, int]]) -> None:
    """Truncated at every step: slow scans get larger batches, CPU time beyond the wish smaller ones."""
    assert told(DEFAULT, scans_made) == said


def test_least_values() -> None:
    """No division by nothing: a factor, a change and a share of CPU are 1 at least."""
    assert told(advisor.Wishes(1, 70, 30000), [(10**9, 0)])[0][0] == 15000
    assert told(DEFAULT, [(1_000_000, 0), (1000, 0)])[1][1] == (70 * 30 + 30 * 1) // 100
    assert told(DEFAULT, [(1000, 10**9)])[0][0] == 10
    assert told(advisor.Wishes(200, 0, 30000), [(400_000, 4000)])[0][0] == 5000
    assert told(advisor.Wishes(200, 70, 3), [(400_000, 4000)])[0][0] == 3
    assert told(DEFAULT, [(400_000, 4000)], pages_to_scan=0)[0][0] == 10


# ---- in an engine


def one_scan(engine: lksm.Engine, clock: lksm.VirtualClock, cpu: CpuClock, seconds: int, cpu_ms: int) -> int:
    """A full scan that takes so long; says what `pages_to_scan` is after it."""
    engine.crawl("full")
    clock.tick(seconds * 1000)
    cpu.step = cpu_ms
    engine.scan(10**6)
    assert engine.scanning is None
    assert engine.check() == []
    return engine.knobs.pages_to_scan


def advised(**knobs: Any) -> tuple[lksm.Engine, lksm.VirtualClock, CpuClock]:
    clock, cpu = lksm.VirtualClock(), CpuClock()
    engine = lksm.Engine(clock=clock, cpu_clock=cpu, **{"advisor_mode": "scan-time", **knobs})
    engine.attach(pages("a a b"), mergeable=True)
    return engine, clock, cpu


@pytest.mark.parametrize("policy", ["lksm", "ksm"])
def test_an_engine_is_told_the_same(policy: str) -> None:
    """The engine's clocks are what the arithmetic gets, under both policies."""
    engine, clock, cpu = advised(policy=policy)
    assert engine.knobs.pages_to_scan == 500
    made = [(300, 90_000), (600, 60_000), (100, 50_000), (400, 4000)]
    expected = told(DEFAULT, [(seconds * 1000, cpu_ms) for seconds, cpu_ms in made])
    for (seconds, cpu_ms), (nr_pages, _) in zip(made, expected, strict=True):
        assert one_scan(engine, clock, cpu, seconds, cpu_ms) == nr_pages


def test_the_knobs_are_its_wishes() -> None:
    """A new value counts from the end of the scan that is under way."""
    engine, clock, cpu = advised(advisor_max_pages_to_scan=7)
    assert one_scan(engine, clock, cpu, 400, 4000) == 7
    engine.knobs.advisor_max_pages_to_scan = 30_000
    engine.knobs.advisor_target_scan_time = 4
    engine.knobs.advisor_max_cpu = 1
    expected = advisor.advise(
        advisor.History(400, 30),
        advisor.Wishes(4, 1, 30_000),
        pages_to_scan=7,
        elapsed_ms=100_000,
        cpu_ms=20_000,
    )
    assert one_scan(engine, clock, cpu, 100, 20_000) == expected[1]


def test_batches_add_up() -> None:
    """CPU time is that of the batches, in fractions too, and of no other time in between."""
    engine, clock, cpu = advised(policy="ksm")
    engine.attach(unique_pages(997), mergeable=True)
    cpu.step = 0.5
    engine.crawl("full")
    clock.tick(1000)
    for _ in range(1000):
        cpu.now += 5000  # somebody else's
        engine.scan(1)
    engine.scan(1)
    assert engine.scanning is None
    ((expected, _),) = told(DEFAULT, [(1000, 500)])
    assert engine.knobs.pages_to_scan == expected == 100


def test_only_full_scans_that_end_count() -> None:
    """A partial scan, and one that `run` ends, teach it nothing; their CPU time is theirs."""
    engine, clock, cpu = advised(run=1)
    cpu.step = 10**6
    engine.partial()
    assert engine.knobs.pages_to_scan == 500
    engine.crawl("full")
    engine.scan(1)
    engine.knobs.run = 0
    assert engine.scanning is None and engine.knobs.pages_to_scan == 500
    engine.crawl("full")
    engine.scan(1)
    engine.knobs.run = 2
    engine.knobs.run = 0
    assert engine.knobs.pages_to_scan == 500
    assert one_scan(engine, clock, cpu, 400, 4000) == 5000


def test_a_boost_gives_back_what_the_advisor_said() -> None:
    """A partial scan reads `scan_boost` and gives back the advised size; a new mode's size waits for that."""
    engine, clock, cpu = advised(scan_boost=333)
    assert one_scan(engine, clock, cpu, 400, 4000) == 5000
    engine.attach(pages("c"), mergeable=True)
    for mode, nr_pages in (("scan-time", 5000), ("none", 100), ("scan-time", 500)):
        engine.attach(pages("c"), mergeable=True)
        engine.crawl("partial")
        assert engine.knobs.pages_to_scan == 333
        engine.knobs.advisor_mode = mode
        assert engine.knobs.pages_to_scan == 333
        finish(engine)
        assert engine.knobs.pages_to_scan == nr_pages
    assert one_scan(engine, clock, cpu, 400, 4000) == 5000  # from an empty history


def test_it_sizes_the_batches() -> None:
    """With upstream's passes by the clock: batches are as large as it says, and a nap between two passes is
    part of neither."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(
        policy="ksm", clock=clock, cpu_clock=CpuClock(), run=1, smart_scan=0, sleep_millisecs=2000,
        advisor_mode="scan-time", advisor_min_pages_to_scan=4, advisor_target_scan_time=1,
        advisor_max_pages_to_scan=1000,
    )  # fmt: skip
    engine.attach(unique_pages(10), mergeable=True)
    found = batches(engine, clock, 11_000)
    assert [count for _, count in found] == [4, 4, 2, 10, 10, 10]
    assert [time for time, _ in found] == [0, 2000, 4000, 6000, 8000, 10_000]
    assert engine.knobs.pages_to_scan == 1000
    history, said = advisor.History(), 4
    for seconds in (4, 0, 0, 0):
        history, said = advisor.advise(
            history, advisor.Wishes(1, 70, 1000), pages_to_scan=said, elapsed_ms=seconds * 1000, cpu_ms=0
        )
    assert engine._scheduler._history == history


def test_periodic_lksm() -> None:
    """Under LKSM's own turns every full scan is a lesson, no partial scan is."""
    engine, clock = clocked(run=1, full_scan_interval=1000, initial_rounds=1)
    engine.knobs.advisor_mode = "scan-time"
    process = engine.attach(repeated("P", 3), mergeable=True)
    sizes = []
    for _ in range(6):
        process.freeze()
        modes = [scan.report.mode for scan in scans(engine, clock, 500)]
        sizes.append((engine.knobs.pages_to_scan, "full" in modes))
        process.thaw()
    assert any(is_full for _, is_full in sizes)
    for (before, _), (after, is_full) in itertools.pairwise(sizes):
        assert (after != before) == (is_full and before != 30_000)


# ---- the knobs


def test_the_mode_is_a_word(engine: lksm.Engine) -> None:
    """As an attribute the word, as a file both words with the one in force in brackets."""
    assert engine.knobs.advisor_mode == "none"
    assert engine.sysfs.read("advisor_mode") == "[none] scan-time\n"
    for text, word, shown in (
        ("scan-time", "scan-time", "none [scan-time]\n"),
        ("none\n", "none", "[none] scan-time\n"),
        ("scan-time\n", "scan-time", "none [scan-time]\n"),
    ):
        assert engine.sysfs.write("advisor_mode", text) == len(text)
        assert engine.knobs.advisor_mode == word
        assert engine.sysfs.read("advisor_mode") == shown


@pytest.mark.parametrize("word", ["", "None", "scan", "scan-time ", " none", "none\n\n", "nonex", "1", "\n"])
def test_other_words(engine: lksm.Engine, word: str) -> None:
    """As in the kernel nothing else is taken, not even with a blank."""
    for store in (
        lambda: engine.sysfs.write("advisor_mode", word),
        lambda: setattr(engine.knobs, "advisor_mode", word),
        lambda: lksm.Engine(advisor_mode=word),
    ):
        with pytest.raises(lksm.KnobError, match=r"advisor_mode is .*, expected none or scan-time") as error:
            store()
        assert error.value.errno == errno.EINVAL
    assert engine.knobs.advisor_mode == "none"


@pytest.mark.parametrize("value", [0, 1, True, None, b"none"])
def test_no_words_at_all(engine: lksm.Engine, value: Any) -> None:
    """A number is no mode."""
    with pytest.raises(lksm.KnobError, match="advisor_mode"):
        engine.knobs.advisor_mode = value
    with pytest.raises(lksm.KnobError, match="advisor_mode"):
        lksm.Engine(advisor_mode=value)


def test_only_a_change_of_mode_resets(engine: lksm.Engine) -> None:
    """To store the mode that is in force changes nothing; a change forgets what was learnt."""
    engine.knobs.pages_to_scan = 77
    engine.knobs.advisor_mode = "none"
    assert engine.knobs.pages_to_scan == 77
    engine.knobs.advisor_min_pages_to_scan = 600
    engine.knobs.advisor_mode = "scan-time"
    assert engine.knobs.pages_to_scan == 600
    engine.knobs.advisor_min_pages_to_scan = 700
    engine.knobs.advisor_mode = "scan-time"
    assert engine.knobs.pages_to_scan == 600
    engine.knobs.advisor_mode = "none"
    assert engine.knobs.pages_to_scan == 100


def test_the_batch_size_is_the_advisors(engine: lksm.Engine) -> None:
    """While it is active nobody else may store `pages_to_scan`; the message says why."""
    engine.knobs.advisor_mode = "scan-time"
    reason = "pages_to_scan cannot be 7: the advisor sets it while advisor_mode is scan-time"
    for store in (
        lambda: engine.sysfs.write("pages_to_scan", "7"),
        lambda: setattr(engine.knobs, "pages_to_scan", 7),
        lambda: lksm.Engine(advisor_mode="scan-time", pages_to_scan=7),
    ):
        with pytest.raises(lksm.KnobError, match=reason) as error:
            store()
        assert error.value.errno == errno.EINVAL
    assert engine.knobs.pages_to_scan == 500
    engine.knobs.advisor_mode = "none"
    engine.knobs.pages_to_scan = 7


def test_no_pages_at_all() -> None:
    """Where the advisor may say nothing but 0 the scanner sleeps, till the mode changes."""
    engine, clock = clocked(run=1, initial_rounds=1)
    engine.attach(unique_pages(3), mergeable=True)
    engine.knobs.advisor_min_pages_to_scan = 0
    engine.knobs.advisor_mode = "scan-time"
    assert scans(engine, clock, 5000) == []
    engine.knobs.advisor_mode = "none"
    assert len(scans(engine, clock, 100)) == 1


def test_as_keywords() -> None:
    """An engine may be made with an advisor and its knobs."""
    engine = lksm.Engine(advisor_mode="scan-time", advisor_min_pages_to_scan=123, advisor_target_scan_time=1)
    assert engine.knobs.pages_to_scan == 123
    assert engine.sysfs.read("advisor_target_scan_time") == "1\n"
    assert lksm.Engine(advisor_mode="none", pages_to_scan=5).knobs.pages_to_scan == 5


def test_the_systems_cpu_time_is_measured() -> None:
    """Without a clock of one's own the CPU time of the scanning thread counts: a busy scan gets few pages."""
    clock = lksm.VirtualClock()  # stands still: a scan takes the least time, a second
    engine = lksm.Engine(clock=clock, advisor_mode="scan-time", seed=1)
    engine.attach(unique_pages(20_000, page_size=4096), mergeable=True)
    engine.full()
    first, _ = told(DEFAULT, [(0, engine._scheduler._stopwatch.cpu_ms)])[0]
    assert engine.knobs.pages_to_scan == first
    assert engine._scheduler._stopwatch.cpu_ms > 0

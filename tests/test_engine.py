"""`Engine`: construction, processes, scans in one go and in steps, counters, determinism, the end."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, Literal

import numpy as np
import pytest

import lksm
from helpers import expect, finish, ids, pages, partition, reads, repeated, unique_pages
from lksm import scheduler

COUNTERS = [
    *("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "rmap_items"),
    *("stable_node_chains", "stable_node_dups", "full_scans", "scan_round", "scanning_process"),
    *("nr_frozen", "nr_scannable", "pages_scanned", "pages_skipped", "zero_pages", "merged", "broken"),
    *("last_scan_ms", "proc_scan_ms", "general_profit"),
]
PUBLIC = [
    *("Engine", "Process", "Region", "Counters", "ScanReport", "VirtualClock", "Reason"),
    *("LksmError", "InvalidMemory", "KnobError", "BusyError", "ProcessGone", "OutOfMemory", "SourceError"),
]


def deterministic(engine: lksm.Engine) -> dict[str, int]:
    """All counters that are not times."""
    return {name: getattr(engine.counters(), name) for name in COUNTERS if not name.endswith("_ms")}


# ---- construction


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    """Every name of the contract is there."""
    assert hasattr(lksm, name)
    assert name in lksm.__all__


def test_a_new_engine_knows_nothing(engine: lksm.Engine) -> None:
    """A new engine has no processes and counts nothing."""
    assert engine.processes == ()
    counters = deterministic(engine)
    assert counters.pop("general_profit") <= 0
    assert set(counters.values()) == {0}
    assert engine.check() == []


@pytest.mark.parametrize("page_size", [64, 128, 4096, 16384, 65536])
def test_page_sizes(page_size: int) -> None:
    """Any power of two from 64 is a page size."""
    engine = lksm.Engine(initial_rounds=0, page_size=page_size)
    process = engine.attach(pages("a b a a> 0", page_size), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=3)
    assert reads(process, "a b a a> 0", page_size)


@pytest.mark.parametrize(
    "keywords",
    [
        {"page_size": 0},
        {"page_size": 1000},
        {"page_size": 32},
        {"page_size": -4096},
        {"policy": "kvm"},
        {"initial_rounds": -1},
        {"nonesuch": 1},
        {"page_size": "4096"},
    ],
    ids=str,
)
def test_bad_construction(keywords: dict[str, Any]) -> None:
    """A bad argument is refused with a message that names it."""
    with pytest.raises((lksm.LksmError, ValueError, TypeError)) as error:
        lksm.Engine(**keywords)
    (name,) = keywords
    assert name in str(error.value)


def test_engines_are_independent(engine: lksm.Engine) -> None:
    """Two engines that know the same array do not know each other."""
    memory = pages("P P")
    other = lksm.Engine(initial_rounds=0)
    engine.attach(memory, mergeable=True)
    other.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)
    expect(other, shared=0, sharing=0, rmap_items=0)
    other.close()
    expect(engine, shared=1, sharing=1)


def test_processes_are_in_order_of_attachment(engine: lksm.Engine) -> None:
    """`processes` is a tuple of those alive, the oldest first, forks included."""
    a, b, c = (engine.attach(pages("a")) for _ in range(3))
    d = a.fork()
    b.exit()
    e = engine.attach(pages("e"))
    assert engine.processes == (a, c, d, e)
    assert all(isinstance(process, lksm.Process) for process in engine.processes)


# ---- full


def test_full_reports_this_scan(engine: lksm.Engine) -> None:
    """The report holds one scan's numbers, the counters are cumulative."""
    memory = pages("P P P x y")
    engine.attach(memory)
    engine.attach(pages("y z"))
    first = engine.full()
    assert (first.mode, first.round, first.nr_slots) == ("full", 1, 2)
    assert (first.pages_scanned, first.merged, first.broken) == (7, 3, 0)
    assert first.elapsed_ms >= 0
    memory[0] = pages("z")[0]
    second = engine.full()
    assert (second.round, second.nr_slots, second.pages_scanned) == (2, 2, 7)
    assert (second.merged, second.broken) == (1, 1)
    expect(engine, merged=4, broken=1, pages_scanned=14, full_scans=2, scan_round=2)


def test_full_without_processes(engine: lksm.Engine) -> None:
    """There may be nobody to scan."""
    report = engine.full()
    assert (report.nr_slots, report.pages_scanned, report.merged, report.broken) == (0, 0, 0, 0)
    assert engine.scan() == 0
    expect(engine, rmap_items=0)


def test_full_finishes_what_was_begun(engine: lksm.Engine) -> None:
    """A scan under way is finished before the next one starts."""
    engine.attach(unique_pages(10), mergeable=True)
    engine.crawl("full")
    engine.scan(3)
    report = engine.full()
    expect(engine, full_scans=2, pages_scanned=20, scan_round=2)
    assert (report.round, report.pages_scanned) == (2, 10)


def test_a_report_is_frozen_data(engine: lksm.Engine) -> None:
    """Reports and counters are plain data that do not change."""
    for data in (engine.full(), engine.counters()):
        assert is_dataclass(data) and asdict(data)
        with pytest.raises(AttributeError):
            data.merged = 5  # type: ignore[misc]


# ---- in steps


def test_crawl_returns_the_queue(engine: lksm.Engine) -> None:
    """`crawl` says how many processes wait; a second one has to wait for the scan."""
    for word in ("a", "b", "c"):
        engine.attach(pages(word))
    assert engine.crawl("full") == 3
    expect(engine, nr_scannable=3, scanning_process=3, rmap_items=0)
    with pytest.raises(lksm.BusyError):
        engine.crawl("full")
    engine.scan(2)
    with pytest.raises(lksm.BusyError):
        engine.crawl("full")
    finish(engine)
    expect(engine, nr_scannable=0, unshared=3, full_scans=1)
    assert engine.crawl("full") == 3


def test_an_unknown_mode_is_refused(engine: lksm.Engine) -> None:
    """The mode of a crawl is one of two words."""
    with pytest.raises((lksm.LksmError, ValueError), match="deep"):
        engine.crawl("deep")  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_batches_add_up(engine: lksm.Engine, batch: int) -> None:
    """A scan in batches visits every page once, and ends with a batch that finds nothing left."""
    for word in ("a b c d", "a", "d e f"):
        engine.attach(pages(word), mergeable=True)
    engine.crawl("full")
    visited: list[int] = []
    while not visited or visited[-1]:
        visited.append(engine.scan(batch))
    assert sum(visited) == 8
    assert all(number == batch for number in visited[:-2])
    expect(engine, shared=2, sharing=2, unshared=4, full_scans=1, pages_scanned=8)


def test_one_go_and_steps_are_the_same() -> None:
    """Batches of any size give the counters and the frames of one full scan."""
    results = []
    for batch in (None, 1, 3, 64):
        engine = lksm.Engine(seed=1)
        for part in np.split(unique_pages(20)[np.random.default_rng(0).integers(0, 20, 60)], 6):
            engine.attach(part)
        for _ in range(3):
            if batch is None:
                engine.full()
            else:
                engine.crawl("full")
                finish(engine, batch)
        results.append((deterministic(engine), [ids(engine, process) for process in engine.processes]))
    for counters, _ in results:
        counters.pop("general_profit")
    assert all(result == results[0] for result in results)


def frozen_under_the_cursor(policy: Literal["lksm", "ksm"], nr_left: int) -> lksm.Engine:
    """Two pages of eight were visited; it is frozen, and so queued once more, with so many left."""
    engine = lksm.Engine(policy=policy, clock=lksm.VirtualClock())
    process = engine.attach(unique_pages(8))
    engine.crawl("full")
    engine.scan(2)
    process.freeze()
    process.unmap(2, 8 - nr_left)
    return engine


@pytest.mark.parametrize("policy", ["lksm", "ksm"])
def test_a_scan_of_no_page_is_over(policy: Literal["lksm", "ksm"]) -> None:
    engine = frozen_under_the_cursor(policy, nr_left=0)
    assert (engine.scan(5), engine.scanning) == (2, None)
    assert engine.scan(5) == 0


@pytest.mark.parametrize(("policy", "found"), [("lksm", 5), ("ksm", 3)])
def test_upstreams_batch_ends_with_a_walk(policy: Literal["lksm", "ksm"], found: int) -> None:
    engine = frozen_under_the_cursor(policy, nr_left=3)
    assert (engine.scan(5), engine.scanning) == (found, "full")


@pytest.mark.parametrize("slice_pages", [1, 3, 8])
def test_where_a_walk_ends_no_slice_says(slice_pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads get their turn after so many pages; that ends no batch, and makes none longer."""
    monkeypatch.setattr(scheduler, "_SLICE_BYTES", slice_pages * 4096)
    monkeypatch.setattr(scheduler, "SLICE_PAGES", slice_pages)
    engine = frozen_under_the_cursor("ksm", nr_left=3)
    assert engine.scan(5) == 3


@pytest.mark.parametrize("number", [-1, 1.5, "3"])
def test_a_bad_batch_is_refused(engine: lksm.Engine, number: Any) -> None:
    """A batch is a whole number of pages, not a negative one."""
    engine.attach(pages("a"))
    engine.crawl("full")
    with pytest.raises((lksm.LksmError, ValueError, TypeError)):
        engine.scan(number)
    assert finish(engine) == 1


# ---- settle


def test_settle_merges_everything_there_is(gated_engine: lksm.Engine) -> None:
    """With the kernel's gate, settling takes as many rounds as it needs."""
    gated_engine.attach(np.concatenate([unique_pages(50)] * 3))
    gated_engine.attach(pages("0 0 x"))
    counters = gated_engine.settle()
    assert (counters.pages_shared, counters.pages_sharing) == (51, 101)
    assert (counters.pages_unshared, counters.pages_volatile) == (1, 0)
    assert counters.pages_shared == gated_engine.counters().pages_shared


def test_settle_stops(engine: lksm.Engine) -> None:
    """Settling stops when two whole rounds changed nothing, and after `max_rounds` at the latest."""
    engine.attach(pages("P P x"))
    engine.settle()
    rounds = engine.counters().scan_round
    assert 2 <= rounds < 16
    engine.settle(max_rounds=1)
    assert engine.counters().scan_round == rounds + 1


def test_settle_waits_for_pages_on_their_first_look() -> None:
    """A round in which the gate only looked is not a round in which nothing changed."""
    engine = lksm.Engine(initial_rounds=5)
    engine.attach(pages("P P"))
    counters = engine.settle()
    assert (counters.pages_shared, counters.pages_sharing, counters.pages_volatile) == (1, 1, 0)


def test_settle_without_processes(engine: lksm.Engine) -> None:
    """With nobody there, settling ends."""
    assert engine.settle().rmap_items == 0


# ---- counters


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter_is_a_number(engine: lksm.Engine, name: str) -> None:
    """Every counter of the contract is an integer."""
    engine.attach(pages("P P x"))
    engine.full()
    assert isinstance(getattr(engine.counters(), name), int)


def test_counters_are_a_snapshot(engine: lksm.Engine) -> None:
    """What was returned does not follow the engine."""
    engine.attach(pages("P P"))
    before = engine.counters()
    engine.full()
    assert before.pages_sharing == 0
    assert engine.counters().pages_sharing == 1


def test_merged_less_broken_is_sharing(engine: lksm.Engine) -> None:
    """Every saving was a merge, and every break takes one away, also by exit and by unmerging."""
    memory = repeated("P", 6)
    engine.attach(memory, mergeable=True)
    gone = engine.attach(pages("P Q Q"), mergeable=True)
    engine.full()
    expect(engine, merged=7, broken=0, sharing=7)
    memory[:2] = unique_pages(2)
    engine.full()
    expect(engine, merged=7, broken=2, sharing=5)
    gone.exit()
    expect(engine, merged=7, broken=4, sharing=3)
    engine.knobs.run = 2
    expect(engine, merged=7, broken=7, sharing=0)


def test_volatile_is_the_rest(gated_engine: lksm.Engine) -> None:
    """At any stop, volatile pages are the items that are in no tree (row 88)."""
    gated_engine.attach(np.concatenate([unique_pages(10), repeated("P", 10)]))
    gated_engine.attach(repeated("P", 5), frozen=True)
    for _ in range(3):
        gated_engine.crawl("full")
        while True:
            c = gated_engine.counters()
            rest = c.rmap_items - c.pages_shared - c.pages_sharing - c.pages_unshared
            assert c.pages_volatile == rest >= 0
            if not gated_engine.scan(3):
                break


# ---- determinism


def lived(seed: int) -> tuple[dict[str, int], list[list[int]]]:
    """The same life for every seed: what was counted and where the pages are."""
    random = np.random.default_rng(3)
    engine = lksm.Engine(seed=seed, max_page_sharing=5, pages_to_scan=9)
    memories = [unique_pages(12)[random.integers(0, 12, 25)] for _ in range(6)]
    processes = [engine.attach(memory, frozen=number % 2 == 0) for number, memory in enumerate(memories)]
    for _ in range(4):
        engine.crawl("full")
        while engine.scan():
            pass
        memories[0][random.integers(0, 25)] = memories[1][random.integers(0, 25)]
        processes[1].write(3, memories[2][4])
        engine.attach(unique_pages(3), mergeable=True)
    processes[2].exit()
    engine.full()
    assert engine.check() == []
    counters = deterministic(engine)
    counters.pop("general_profit")
    return counters, [ids(engine, process) for process in engine.processes]


def test_the_same_seed_is_the_same_life() -> None:
    """With one seed and one order of calls, counters and frame ids are identical (row 94)."""
    assert lived(1) == lived(1)


def test_the_seed_does_not_show() -> None:
    """Another seed files pages elsewhere and changes no counter and no partition."""
    (counters, tables), (other_counters, other_tables) = lived(1), lived(2)
    assert counters == other_counters
    assert partition(tables) == partition(other_tables)


# ---- the end

AFTER_CLOSE = {
    "attach": lambda engine: engine.attach(pages("a")),
    "full": lambda engine: engine.full(),
    "crawl": lambda engine: engine.crawl("full"),
    "scan": lambda engine: engine.scan(),
    "settle": lambda engine: engine.settle(),
    "counters": lambda engine: engine.counters(),
    "groups": lambda engine: engine.groups(),
    "sharing_matrix": lambda engine: engine.sharing_matrix(),
    "memory": lambda engine: engine.memory(),
    "check": lambda engine: engine.check(),
}


@pytest.mark.parametrize("use", AFTER_CLOSE.values(), ids=AFTER_CLOSE.keys())
def test_use_after_close(use: Any) -> None:
    """A closed engine raises one of lksm's errors, whatever is asked of it."""
    engine = lksm.Engine()
    engine.attach(pages("a a"))
    engine.full()
    engine.close()
    with pytest.raises(lksm.LksmError) as error:
        use(engine)
    assert "\n" not in str(error.value)


def test_close_twice() -> None:
    """Closing a closed engine is harmless, and its processes are gone."""
    engine = lksm.Engine()
    process = engine.attach(pages("a"))
    engine.close()
    engine.close()
    assert process.exited


def test_close_in_the_middle_of_a_scan() -> None:
    """An engine may be closed while a scan is unfinished."""
    engine = lksm.Engine(initial_rounds=0)
    engine.attach(repeated("P", 100))
    engine.crawl("full")
    engine.scan(50)
    engine.close()


# ---- errors

ERRORS = {
    "InvalidMemory": ValueError,
    "KnobError": OSError,
    "BusyError": RuntimeError,
    "ProcessGone": LookupError,
    "OutOfMemory": MemoryError,
    "SourceError": ValueError,
}


@pytest.mark.parametrize(("name", "builtin"), ERRORS.items())
def test_errors_are_the_nearest_builtin_too(name: str, builtin: type[Exception]) -> None:
    """Every error may be caught as `LksmError` or as the builtin it resembles."""
    error = getattr(lksm, name)
    assert issubclass(error, lksm.LksmError) and issubclass(error, builtin)


def test_only_a_virtual_clock_is_moved(engine: lksm.Engine) -> None:
    """The machine's clock cannot be moved on, and no clock goes back."""
    with pytest.raises(ValueError, match="needs an engine with a VirtualClock"):
        engine.advance(1)
    clock = lksm.VirtualClock()
    with lksm.Engine(clock=clock) as other:
        with pytest.raises(ValueError, match="ms is -1, expected 0 or more"):
            other.advance(-1)
        with pytest.raises(ValueError, match="ms is -2, expected 0 or more"):
            clock.tick(-2)
    assert clock() == 0


def test_what_is_no_memory_is_refused(engine: lksm.Engine) -> None:
    """A process is mapped a `Region` and written bytes or numbers, and stays as it was otherwise."""
    process = engine.attach(pages("a b"))
    with pytest.raises(lksm.InvalidMemory, match="region is a list, expected a Region"):
        process.map([1, 2])  # type: ignore[arg-type]
    for data in ("text", np.array(["text"])):
        with pytest.raises(lksm.InvalidMemory, match="expected bytes or an array of plain numbers"):
            process.write(0, data)  # type: ignore[arg-type]
    assert reads(process, "a b")
    assert engine.check() == []


def test_on_crawl_is_what_was_set(engine: lksm.Engine) -> None:
    """The call that comes before each crawl can be looked up and put back."""
    before, calls = engine.on_crawl, []
    engine.on_crawl = lambda: calls.append(1)
    engine.full()
    engine.on_crawl, ours = before, engine.on_crawl
    engine.full()
    ours()
    assert calls == [1, 1]


def test_nobody_stops_it_in_the_middle_of_a_call(engine: lksm.Engine) -> None:
    """Its threads would wait for the very call that waits for them: BusyError, and the engine goes on."""
    engine.attach(pages("a a"), mergeable=True)
    before, engine.on_crawl = engine.on_crawl, engine.stop
    with pytest.raises(lksm.BusyError, match="in the middle of another call of this thread"):
        engine.full()
    engine.on_crawl = before
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0)


def test_repr_of_a_closed_engine() -> None:
    """A closed engine says that it is closed."""
    engine = lksm.Engine()
    engine.close()
    assert repr(engine) == "<lksm.Engine (closed)>"


def test_a_merged_page_that_was_written_says_so(engine: lksm.Engine) -> None:
    """A page that left its frame by a write is volatile until its next visit, and says what it was."""
    process = engine.attach(pages("a a"), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0)
    process.write(0, b"x")
    found = engine.explain(process, 0)
    assert found.reason is lksm.Reason.VOLATILE
    assert "was merged, but was written or unmerged since" in found.text
    engine.full()
    assert "unmerged since" not in engine.explain(process, 0).text

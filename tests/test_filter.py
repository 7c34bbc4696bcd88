"""The filter of regions with a key: what it learns, what scans leave out, and what they must not.

FD-1 to FD-14 are the defects of the original in section 11.8 of the specification, each with what is right.
FD-4, FD-8 and FD-9 are about its storage and locks and have no counterpart; FD-7 is in tests/c/test_filter.c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, Pages, content, expect, finish, pages, unique_pages
from lksm.crawler import is_sweep
from lksm.memory import Role


@pytest.fixture
def engine() -> Iterator[lksm.Engine]:
    """An engine whose filters are mature one round after they were made, and without a gate."""
    engine = lksm.Engine(initial_rounds=0, filter=True, filter_maturity=0)
    yield engine
    assert engine.check() == []
    engine.close()


def put(array: Pages, offset: int, word: str) -> None:
    array[offset] = np.frombuffer(content(word), np.uint8)


def library(name: str, nr_pages: int, *offsets: int, key: object = "k", role: Role = "data") -> lksm.Region:
    """A region at address 0 whose pages at these offsets equal those of every other library there."""
    array = unique_pages(nr_pages, name)
    for offset in offsets:
        put(array, offset, f"common{offset}")
    return lksm.Region(0, array, key=key, role=role)  # type: ignore[arg-type]


def share(engine: lksm.Engine) -> dict[str, int]:
    """`region_share` as a dictionary."""
    text = engine.sysfs.read("region_share")
    assert text.endswith("\n")
    return {kind: int(count) for kind, count in (pair.split(":") for pair in text.split(" "))}


# ---- learning


def test_without_the_option_keys_mean_nothing() -> None:
    """An engine that was not told to filter visits every page in every scan, and has no region to show."""
    with lksm.Engine(initial_rounds=0, filter_maturity=0) as engine:
        for name in "ab":
            engine.attach(library(name, 10, 3))
        assert [engine.full().pages_scanned for _ in range(3)] == [20, 20, 20]
        assert engine.counters().nr_regions == 0
        assert engine.sysfs.read("region_share") == "heap:0 stack:0 file_data:0 file_bss:0 conflicted:0\n"
        assert engine.check() == []


def test_a_region_without_key_is_never_filtered(engine: lksm.Engine) -> None:
    """Keys are told apart from none at all."""
    for name in "ab":
        engine.attach(library(name, 10, 3, key=None))
    assert [engine.full().pages_scanned for _ in range(3)] == [20, 20, 20]
    assert engine.counters().nr_regions == 0


@pytest.mark.parametrize("maturity", [0, 1, 5])
def test_a_filter_only_learns_until_it_is_mature(maturity: int) -> None:
    """Made before round 1, it leaves pages out from the round that is more than its maturity later."""
    with lksm.Engine(initial_rounds=0, filter=True, filter_maturity=maturity) as engine:
        for name in "ab":
            engine.attach(library(name, 10, 3))
        visits = [engine.full().pages_scanned for _ in range(maturity + 3)]
        assert visits[: max(1, maturity)] == [20] * max(1, maturity)
        assert visits[max(1, maturity) :] == [2] * (maturity + 3 - max(1, maturity))


@pytest.mark.parametrize("key", [0, "", ("disk", 12), 2**70, frozenset({1}), -1], ids=repr)
def test_any_hashable_is_a_key(engine: lksm.Engine, key: object) -> None:
    """Equal keys are one, whatever they are."""
    for name in "ab":
        engine.attach(library(name, 10, 3, key=key))
    engine.attach(library("c", 10, key="another"))
    engine.full()
    assert engine.full().pages_scanned == 2 * 1 + 10
    assert engine.sysfs.read("nr_regions") == "2\n"


def test_device_and_inode_make_a_key(engine: lksm.Engine) -> None:
    """FD-12: the same inode on another device is another region, if the caller says so."""
    for name in "ab":
        engine.attach(library(name, 10, 3, key=(1, 77)))
    engine.attach(library("c", 10, key=(2, 77)))
    engine.full()
    assert engine.full().pages_scanned == 2 * 1 + 10


def test_data_and_bss_learn_apart(engine: lksm.Engine) -> None:
    """FD-14: a region is known by key and role, whichever region was scanned before it."""
    bss = [lksm.Region(10 * PAGE_SIZE, unique_pages(10, f"bss{name}"), key="k", role="bss") for name in "ab"]
    for region in bss:
        put(region.array, 5, "zeroed")
    for name, region in zip("ab", bss, strict=True):
        engine.attach([library(name, 10, 3), region])
    engine.full()
    assert share(engine) == {"heap": 0, "stack": 0, "file_data": 2, "file_bss": 2, "conflicted": 0}
    assert engine.counters().nr_regions == 2
    assert engine.full().pages_scanned == 4
    expect(engine, shared=2, sharing=2, unshared=36)


def test_domains_do_not_teach_each_other(engine: lksm.Engine) -> None:
    """A process of another domain is scanned as if nobody else had its key."""
    for name in "ab":
        engine.attach(library(name, 10, 3), domain=1)
    engine.full()
    engine.attach(library("c", 10, 3), domain=2)
    engine.full()
    assert engine.full().pages_scanned == 2 * 1 + 10
    assert [engine.counters(domain).nr_regions for domain in (None, 0, 1, 2)] == [2, 0, 1, 1]


def test_a_process_leaves_its_filters_in_its_domain(engine: lksm.Engine) -> None:
    """Moved to another domain, it is scanned as if nobody had had its key."""
    first, second = (engine.attach(library(name, 10, 3), domain=1) for name in "ab")
    engine.full()
    first.domain = 2
    assert engine.full().pages_scanned == 10 + 1
    assert [engine.counters(domain).nr_regions for domain in (None, 1, 2)] == [2, 1, 1]
    second.domain = 2
    assert engine.counters().nr_regions == 1
    assert engine.full().pages_scanned == 20
    assert engine.full().pages_scanned == 2
    expect(engine, shared=1, sharing=1, unshared=18)


def test_a_page_on_the_zero_frame_has_not_merged() -> None:
    """Zero pages teach nothing; they are looked at again though scans leave their offset out."""
    with lksm.Engine(initial_rounds=0, filter=True, filter_maturity=0, use_zero_pages=True) as engine:
        array = unique_pages(10, "a")
        array[[3, 7]] = np.frombuffer(content("0"), np.uint8)
        put(array, 5, "P")
        process = engine.attach(lksm.Region(0, array, key="k"))
        other = engine.attach(pages("P"))
        engine.full()
        assert engine.counters().zero_pages == 2
        assert engine.full().pages_scanned == 1 + 1
        array[3] = 9
        assert engine.full().pages_scanned == 1 + 1
        assert engine.counters().zero_pages == 1
        assert engine.explain(process, 3).reason is lksm.Reason.SKIPPED
        assert engine.explain(process, 7).reason is lksm.Reason.ZERO
        assert other.stats().merging_pages == 1
        assert engine.check() == []


# ---- what must not be left out


def test_nothing_learned_leaves_nothing_out(engine: lksm.Engine) -> None:
    """FD-10: a mature filter that has learned no offset has its regions scanned fully."""
    for name in "ab":
        engine.attach(library(name, 70))
    assert [engine.full().pages_scanned for _ in range(4)] == [140] * 4


def test_the_next_region_is_scanned(engine: lksm.Engine) -> None:
    """FD-1: where a filter's region ends, also within a word of 64 pages, the next one begins."""
    for name in "ab":
        behind = lksm.Region(10 * PAGE_SIZE, unique_pages(60, f"behind{name}"))
        engine.attach([library(name, 10, 9), behind])
    engine.full()
    assert engine.full().pages_scanned == 2 * (1 + 60)


def test_a_write_to_a_merged_page_is_noticed(engine: lksm.Engine) -> None:
    """A merged page lies at a learned offset, so its next visit sees that it was written."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    engine.full()
    put(engine.processes[0].regions[0].array, 3, "written")
    assert engine.full().broken == 1
    expect(engine, shared=1, sharing=0, unshared=19)


def test_items_of_pages_left_out_stay() -> None:
    """They count as they did; with upstream's gate their checksums make an unfiltered scan useful."""
    ksm = lksm.Engine(policy="ksm", smart_scan=0, filter=True, filter_maturity=2)
    for name in "ab":
        ksm.attach(library(name, 10, 3))
    for _ in range(4):
        ksm.full()
    expect(ksm, shared=1, sharing=1, unshared=18)
    assert ksm.full().pages_scanned == 2
    for process in ksm.processes:
        put(process.regions[0].array, 6, "late")
    ksm.full(unfiltered=True)
    expect(ksm, shared=1, sharing=1, unshared=16, volatile=2)
    for _ in range(3):
        assert ksm.full().pages_scanned == 2
    ksm.full(unfiltered=True)
    expect(ksm, shared=2, sharing=2, unshared=16)
    ksm.close()


def test_pages_that_go_are_let_go(engine: lksm.Engine) -> None:
    """What was unmapped or advised against is forgotten by a scan that would have left it out."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    engine.processes[0].unmap(5, 7)
    engine.processes[1].advise("unmergeable", 0, 2)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=14, rmap_items=16)


# ---- sweeps


def test_an_unfiltered_scan_teaches(engine: lksm.Engine) -> None:
    """FD-11: what merges at another offset is found by an unfiltered scan, and visited from then on."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    for process in engine.processes:
        put(process.regions[0].array, 8, "late")
    assert engine.full().pages_scanned == 2
    expect(engine, shared=1, sharing=1)
    assert engine.full(unfiltered=True).pages_scanned == 20
    expect(engine, shared=2, sharing=2)
    assert engine.full().pages_scanned == 4


def test_an_unfiltered_partial_scan(engine: lksm.Engine) -> None:
    """Partial scans and scans in steps can be unfiltered too; the next one is not."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    second = engine.processes[1]  # it joined the first one's page, so it is the VIP
    second.faults += 1
    assert engine.crawl("partial", unfiltered=True) == 1
    assert finish(engine) == 10
    second.faults += 1
    assert engine.crawl("partial") == 1
    assert finish(engine) == 1
    assert engine.crawl("full", unfiltered=True) == 2
    assert finish(engine, 3) == 20


def test_every_so_many_full_scans_are_sweeps() -> None:
    """FD-11: each full scan whose number the interval divides visits every page, by itself."""
    with lksm.Engine(initial_rounds=0, filter=True, filter_maturity=0, filter_sweep_interval=3) as engine:
        for name in "ab":
            engine.attach(library(name, 10, 3))
        assert [engine.full().pages_scanned for _ in range(2)] == [20, 2]
        engine.processes[1].faults += 1
        assert engine.partial().pages_scanned == 1
        assert [engine.full().pages_scanned for _ in range(7)] == [20, 2, 2, 20, 2, 2, 20]


def test_sweeps_that_are_due_by_the_clock() -> None:
    """Scans that start by themselves are counted with those that are asked for."""
    clock = lksm.VirtualClock()
    with lksm.Engine(
        clock=clock,
        policy="ksm",
        smart_scan=0,
        run=1,
        filter=True,
        filter_maturity=2,
        filter_sweep_interval=5,
    ) as engine:
        for name in "ab":
            engine.attach(library(name, 10, 3))
        visits: dict[int, int] = {}
        while engine.counters().full_scans < 12:
            engine.advance(1)
            report = engine.last_scan
            if report is not None:
                visits[report.round] = report.pages_scanned
        assert [visits[number] for number in range(1, 13)] == [20, 20, 2, 2, 20, 2, 2, 2, 2, 20, 2, 2]


def test_which_scans_are_sweeps() -> None:
    """Those whose number is a multiple of the interval; with 0 none."""
    assert [number for number in range(1, 200) if is_sweep(number, 64)] == [64, 128, 192]
    assert not any(is_sweep(number, 0) for number in range(1, 200))
    assert all(is_sweep(number, 1) for number in range(1, 200))


def test_settle_visits_everything(engine: lksm.Engine) -> None:
    """After `settle` all equal pages are merged, whatever the filters say."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    for process in engine.processes:
        put(process.regions[0].array, 8, "late")
    engine.full()
    engine.settle()
    expect(engine, shared=2, sharing=2, unshared=16)
    assert engine.full().pages_scanned == 4


# ---- sizes


def test_the_second_other_size_ends_a_filter(engine: lksm.Engine) -> None:
    """FD-2, FD-13: regions of one key that differ in size are scanned fully once that was seen twice."""
    for name in "ab":
        engine.attach(library(name, 70, 3))
    engine.full()
    assert engine.full().pages_scanned == 2
    engine.attach(library("c", 200, 3, 199))
    engine.attach(library("d", 200, 3, 199))
    # The new ones come first and make the filter larger; then the old ones do not fit any more.
    assert engine.full().pages_scanned == 400 + 140
    assert share(engine)["conflicted"] == 0
    assert [engine.full().pages_scanned for _ in range(3)] == [540] * 3
    for process in engine.processes[2:]:
        put(process.regions[0].array, 100, "late")
    engine.full()
    assert share(engine) == {"heap": 0, "stack": 0, "file_data": 6, "file_bss": 0, "conflicted": 2}
    assert engine.counters().nr_regions == 1
    expect(engine, shared=3, sharing=5)


# ---- references


def test_a_filter_goes_with_its_last_region(engine: lksm.Engine) -> None:
    """FD-3, FD-5, FD-6: exit and unmap of all pages let go of it, a fork holds it."""
    first, second = (engine.attach(library(name, 10, 3)) for name in "ab")
    assert engine.sysfs.read("nr_regions") == "1\n"
    engine.full()
    child = first.fork()
    first.exit()
    second.unmap(0, 9)
    assert engine.sysfs.read("nr_regions") == "1\n"
    second.unmap(9, 10)
    assert engine.sysfs.read("nr_regions") == "1\n"
    assert child.regions[0].key == "k"
    child.exit()
    assert engine.sysfs.read("nr_regions") == "0\n"
    engine.full()
    assert engine.check() == []


def test_a_forked_child_knows_what_its_parent_learned(engine: lksm.Engine) -> None:
    """Its first scan visits every page, the next ones those at learned offsets."""
    parent = engine.attach(library("a", 10, 3), mergeable=True)
    engine.attach(library("b", 10, 3), mergeable=True)
    engine.full()
    child = parent.fork()
    assert engine.full().pages_scanned == 2 + 10
    assert engine.full().pages_scanned == 3
    assert child.stats().rmap_items == 10


def test_keys_do_not_accumulate(engine: lksm.Engine) -> None:
    """FD-5: an engine through which thousands of keys have gone holds none of them, nor memory for any."""
    assert engine._core is not None
    kept = engine.attach(library("kept", 2, key="kept"))
    for number in range(2000):
        process = engine.attach(lksm.Region(0, pages("a b"), key=("library", number)))
        process.map(lksm.Region(1 << 20, pages("c"), key=("library", number), role="bss"))
        child = process.fork()
        process.exit()
        child.exit()
    assert engine._core.filter_keys is not None and len(engine._core.filter_keys) == 1
    assert engine.counters().nr_regions == 1
    assert engine.memory()["filters"] < 1000
    kept.exit()
    assert len(engine._core.filter_keys) == 0
    assert engine.memory()["filters"] == 0


def test_what_fails_leaves_no_key(engine: lksm.Engine) -> None:
    """A region that cannot be attached or mapped is as if it had never been tried."""
    assert engine._core is not None and engine._core.filter_keys is not None
    process = engine.attach(library("a", 4, key=1))
    with pytest.raises(lksm.InvalidMemory, match="overlap"):
        process.map(library("b", 4, key=2))
    with pytest.raises(lksm.InvalidMemory, match="role"):
        engine.attach([library("c", 4, key=3), lksm.Region(1 << 20, pages("a"), role="text")])  # type: ignore[arg-type]
    assert len(engine._core.filter_keys) == 1
    assert engine.counters().nr_regions == 1


def test_unmerge_keeps_what_was_learned(engine: lksm.Engine) -> None:
    """After `run` 2 the pages at learned offsets are the ones that merge again."""
    for name in "ab":
        engine.attach(library(name, 10, 3))
    engine.full()
    engine.knobs.run = 2
    engine.knobs.run = 0
    expect(engine, shared=0, rmap_items=0)
    assert engine.full().pages_scanned == 2
    expect(engine, shared=1, sharing=1, rmap_items=2)


# ---- surface


def test_regions_show_key_and_role(engine: lksm.Engine) -> None:
    """`Process.regions` returns what was given."""
    process = engine.attach([library("a", 2, key=("x", 1), role="bss"), lksm.Region(1 << 20, pages("a"))])
    assert [(region.key, region.role) for region in process.regions] == [(("x", 1), "bss"), (None, "data")]


@pytest.mark.parametrize("role", ["text", "", None, 1, "DATA"])
def test_a_role_is_data_or_bss(engine: lksm.Engine, role: object) -> None:
    """Anything else is refused with the value in the message, with filters and without."""
    region = lksm.Region(0, pages("a"), role=role)  # type: ignore[arg-type]
    with pytest.raises(lksm.InvalidMemory, match=rf"role is {role!r}, expected 'data' or 'bss'"):
        engine.attach(region)
    with lksm.Engine() as other, pytest.raises(lksm.InvalidMemory, match="role"):
        other.attach(region)


@pytest.mark.parametrize("key", [[1], {}, np.zeros(2)], ids=["list", "dict", "array"])
def test_a_key_is_hashable(engine: lksm.Engine, key: object) -> None:
    """A key that is not is refused with its type in the message."""
    with pytest.raises(
        lksm.InvalidMemory, match=f"key is a {type(key).__name__}, expected something hashable"
    ):
        engine.attach(library("a", 2, key=key))
    assert engine.processes == ()


@pytest.mark.parametrize("name", ["filter_maturity", "filter_sweep_interval"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "1"], ids=repr)
def test_arguments_out_of_range(name: str, value: object) -> None:
    """Both are integers of at least 0, and any such integer will do."""
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected an integer of at least 0"):
        lksm.Engine(filter=True, **{name: value})  # type: ignore[arg-type]
    with lksm.Engine(filter=True, initial_rounds=0, **{name: 2**80}) as engine:
        engine.attach(library("a", 2))
        engine.full()
        assert engine.check() == []


@pytest.mark.parametrize("name", ["nr_regions", "region_share"])
def test_the_files_are_read_only(engine: lksm.Engine, name: str) -> None:
    """Writing them is refused as for any counter."""
    with pytest.raises(lksm.KnobError, match="read-only"):
        engine.sysfs.write(name, "1")


def test_explain_a_page_that_is_left_out(engine: lksm.Engine) -> None:
    """It is skipped, and the sentence says why; visited by an unfiltered scan it is unique again."""
    process, _ = (engine.attach(library(name, 10, 3)) for name in "ab")
    engine.full()
    assert engine.explain(process, 5).reason is lksm.Reason.UNIQUE
    engine.full()
    explanation = engine.explain(process, 5)
    assert explanation.reason is lksm.Reason.SKIPPED
    assert "no page at its offset has merged in any region with the same key" in explanation.text
    assert engine.explain(process, 3).reason is lksm.Reason.MERGED
    engine.full(unfiltered=True)
    assert engine.explain(process, 5).reason is lksm.Reason.UNIQUE


def test_explain_a_visit_that_smart_scan_left_out() -> None:
    """A page whose last visit was spared is skipped, and the sentence names smart scan."""
    with lksm.Engine(initial_rounds=0, smart_scan=1) as engine:
        process = engine.attach(pages("a"))
        reasons = []
        for _ in range(9):
            is_visited = engine.full().pages_scanned == 1
            explanation = engine.explain(process, 0)
            reasons.append(explanation.reason)
            assert (explanation.reason is lksm.Reason.UNIQUE) == is_visited
            assert ("smart scan" in explanation.text) != is_visited
        assert reasons.count(lksm.Reason.SKIPPED) == 3


def test_a_sweep_that_was_stopped_is_finished() -> None:
    """What `run` 0 has left over of an unfiltered scan is not filtered when that goes on."""
    engine = lksm.Engine(filter=True, filter_maturity=0, initial_rounds=0, run=1)
    for number in range(2):
        picture = " ".join(["a", *(f"{number}/{i}" for i in range(69))])
        engine.attach(lksm.Region(0, pages(picture), key="k"))
    engine.full()
    assert engine.full().pages_scanned == 2
    engine.crawl("full", unfiltered=True)
    assert engine.scan(70) == 70
    engine.knobs.run = 0
    assert engine.full().pages_scanned >= 70
    assert engine.full().pages_scanned == 2
    engine.close()

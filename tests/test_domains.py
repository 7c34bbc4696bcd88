"""Domains: pages merge only inside one, and nothing that is visible to one depends on another."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lksm
from helpers import PAGE_SIZE, bytes_of, expect, ids, pages, reads, repeated

PAGE = 256
words = st.sampled_from([*"abc0", "a>"])
picture = st.lists(words, min_size=1, max_size=8).map(" ".join)


def visible(engine: lksm.Engine, processes: list[lksm.Process], domain: int) -> dict[str, Any]:
    """All that can be asked about a domain and its processes."""
    nr_pages = [(process, page) for process in processes for page in range(process.nr_pages)]
    return {
        "counters": asdict(engine.counters(domain)),
        "groups": engine.groups(1, domain).tolist(),
        "page tables": [ids(engine, process) for process in processes],
        "explanations": [engine.explain(process, page) for process, page in nr_pages],
        "stats": [process.stats() for process in processes],
        "states": [process.state for process in processes],
        "digests": [engine.digest(process, page) for process, page in nr_pages],
        "matrix": engine.sharing_matrix()[: len(processes), : len(processes)].tolist(),
    }


@given(
    mine=st.lists(picture, min_size=1, max_size=3),
    theirs=st.lists(picture, min_size=1, max_size=3),
    writes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), words), max_size=6),
    is_same_array=st.booleans(),
    immutable=st.booleans(),
    secure=st.booleans(),
    knobs=st.sampled_from(
        [
            {},
            {"max_page_sharing": 2},
            {"use_zero_pages": 1},
            {"smart_scan": 1, "stable_node_chains_prune_millisecs": 0},
        ]
    ),
    policy=st.sampled_from(["lksm", "ksm"]),
)
def test_nothing_of_another_domain_is_visible(
    mine: list[str],
    theirs: list[str],
    writes: list[tuple[int, int, str]],
    is_same_array: bool,
    immutable: bool,
    secure: bool,
    knobs: dict[str, int],
    policy: Any,
) -> None:
    """Whatever another domain holds, writes, or does between the scans, a domain looks the same."""
    arrays = [pages(each, PAGE) for each in mine]
    seen: list[list[dict[str, Any]]] = []
    for has_neighbour in (False, True):
        with lksm.Engine(
            page_size=PAGE, seed=1, clock=lksm.VirtualClock(), secure=secure, policy=policy, **knobs
        ) as engine:
            owned = [array.copy() for array in arrays]
            processes = [
                engine.attach(array, name=f"mine{i}", domain=3, mergeable=True, immutable=immutable)
                for i, array in enumerate(owned)
            ]
            others: list[lksm.Process] = []
            if has_neighbour:
                others = [engine.attach(pages(each, PAGE), domain=8, frozen=True) for each in theirs]
                if is_same_array:
                    others.append(engine.attach(owned[0], domain=8, immutable=immutable))
            steps = []
            for number, (which, page, word) in enumerate([*writes, (0, 0, "a")]):
                engine.full()
                steps.append(visible(engine, processes, 3))
                if has_neighbour and number == 2:
                    others.append(others[0].fork())
                    others[0].exit()
                if has_neighbour and number == 3:
                    others[1].domain = 9
                if not immutable and not is_same_array:
                    process = processes[which % len(processes)]
                    process.write(page % process.nr_pages, pages(word, PAGE)[0])
                assert engine.check() == []
            seen.append(steps)
    assert seen[0] == seen[1]


def test_the_sum_of_domains_is_the_whole(engine: lksm.Engine) -> None:
    """Counters of pages and events add up over domains, those of domains that have gone included."""
    for domain in (0, 1, 2**32 - 1):
        engine.attach(pages("a a a b"), domain=domain, mergeable=True)
    engine.full()
    engine.processes[1].write(0, b"x")
    engine.full()
    whole, parts = (
        asdict(engine.counters()),
        [asdict(engine.counters(domain)) for domain in (0, 1, 2**32 - 1)],
    )
    for name in (
        "pages_shared",
        "pages_sharing",
        "pages_unshared",
        "rmap_items",
        "merged",
        "broken",
        "pages_scanned",
    ):
        assert whole[name] == sum(part[name] for part in parts), name
    assert parts[1]["broken"] == 1
    assert whole["general_profit"] <= sum(part["general_profit"] for part in parts)
    engine.processes[1].exit()
    assert engine.counters().broken >= 1
    assert engine.counters(1).broken == 0
    assert engine.counters().pages_scanned == whole["pages_scanned"]


def test_profit_of_a_domain_has_its_own_bookkeeping() -> None:
    """What a domain saves, less what it costs, however much another one costs."""
    profits = []
    for nr_others in (1, 5000):
        with lksm.Engine(seed=0) as engine:
            engine.attach(repeated("a", 100), domain=1, frozen=True)
            engine.attach(np.arange(nr_others * PAGE_SIZE // 4, dtype=np.uint32), domain=2, frozen=True)
            engine.full()
            profits.append(engine.counters(1).general_profit)
            whole = engine.counters()
            assert whole.general_profit < 99 * PAGE_SIZE
    assert profits[0] == profits[1]
    assert 97 * PAGE_SIZE < profits[0] < 99 * PAGE_SIZE


def test_frame_numbers_of_domains_are_apart(engine: lksm.Engine) -> None:
    """No two domains have a frame number in common, however domains are numbered; domain 0 counts from 0."""
    domains = [0, 1, 2, 3, 255, 256, 2**31, 2**32 - 2, 2**32 - 1]
    processes = [engine.attach(pages("a a b b"), domain=domain, mergeable=True) for domain in domains]
    engine.full()
    tables = [ids(engine, process) for process in processes]
    assert tables[0] == [0, 0, 1, 1]
    assert all(0 <= frame < 2**63 for table in tables for frame in table)
    assert len({frame for table in tables for frame in table}) == 2 * len(domains)
    assert sorted(engine.groups()["frame"].tolist()) == sorted({frame for table in tables for frame in table})


def test_moving_a_process_between_domains_unmerges_it(engine: lksm.Engine) -> None:
    """It leaves every frame at once, and merges with its new neighbours at the next scan."""
    first, second = (engine.attach(pages("a a b"), mergeable=True) for _ in range(2))
    third = engine.attach(pages("a b"), domain=5, mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=4, unshared=2)
    second.domain = 5
    assert second.domain == 5
    assert ids(engine, second) == [-1, -1, -1]
    assert second.stats().rmap_items == 0
    assert engine.counters(0).pages_sharing == 1
    expect(engine, shared=2, sharing=1, unshared=2)
    engine.full()
    assert engine.counters(0).pages_sharing == 1
    assert engine.counters(5).pages_sharing == 3
    assert set(ids(engine, second)) == set(ids(engine, third))
    assert set(ids(engine, second)).isdisjoint(ids(engine, first))
    assert reads(second, "a a b")
    assert second.fork().domain == 5
    second.domain = 5


def test_moving_a_process_while_it_is_scanned(engine: lksm.Engine) -> None:
    """The scan goes on where it was; what it had seen of the process is forgotten."""
    first = engine.attach(pages("a b c d"), mergeable=True)
    second = engine.attach(pages("c d"), domain=1, mergeable=True)
    engine.crawl("full")
    engine.scan(2)
    first.domain = 1
    assert engine.check() == []
    while engine.scan():
        pass
    expect(engine, shared=2, sharing=2, rmap_items=4)
    assert first.stats().rmap_items == 2
    engine.full()
    expect(engine, shared=2, sharing=2, unshared=2)
    assert second.stats().merging_pages == 2


@pytest.mark.parametrize("domain", [-1, 2**32, 1.5, True, "a"])
def test_a_domain_is_a_number(engine: lksm.Engine, domain: Any) -> None:
    """Anything else is refused, and the process stays where it is."""
    process = engine.attach(pages("a"))
    with pytest.raises(ValueError, match="domain is"):
        process.domain = domain
    with pytest.raises(ValueError, match="domain is"):
        engine.attach(pages("a"), domain=domain)
    assert process.domain == 0


def test_one_array_in_two_domains(engine: lksm.Engine) -> None:
    """One page seen from two domains is one page in each: what is one is decided within a domain."""
    memory = pages("a a b")
    first, second = engine.attach(memory, mergeable=True), engine.attach(memory, domain=1, mergeable=True)
    engine.full()
    for domain in (0, 1):
        counters = engine.counters(domain)
        assert (counters.pages_shared, counters.pages_sharing, counters.pages_unshared) == (1, 1, 1)
    second.domain = 0
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1, volatile=3)
    assert ids(engine, first) == ids(engine, second)
    assert engine.explain(second, 0).reason is lksm.Reason.ALREADY_SHARED


def test_explain_tells_of_other_domains_only_if_asked(engine: lksm.Engine) -> None:
    """A twin in another domain is told to who asks across domains, and to nobody else."""
    first = engine.attach(pages("a b"), mergeable=True)
    engine.attach(pages("a c c"), domain=1, mergeable=True)
    third = engine.attach(pages("c"), mergeable=True)
    engine.full()
    assert engine.explain(first, 0).reason is lksm.Reason.UNIQUE
    across = engine.explain(first, 0, across_domains=True)
    assert across.reason is lksm.Reason.OTHER_DOMAIN
    assert "another domain" in across.text
    assert engine.explain(third, 0, across_domains=True).reason is lksm.Reason.OTHER_DOMAIN
    assert engine.explain(first, 1, across_domains=True).reason is lksm.Reason.UNIQUE
    assert engine.check() == []


@pytest.mark.parametrize("immutable", [False, True])
def test_secure_frames_are_copies(immutable: bool) -> None:
    """With `secure` every content that is merged has a copy of its own, also of immutable memory."""
    with lksm.Engine(secure=True, initial_rounds=0) as engine:
        engine.attach(pages("a a b b c"), immutable=immutable)
        leaving = engine.attach(pages("a c"), immutable=immutable)
        engine.full()
        expect(engine, shared=3, sharing=4, unshared=0)
        assert engine.memory()["frames"] == 3 * PAGE_SIZE
        leaving.exit()
        expect(engine, shared=3, sharing=2, unshared=0)
        assert engine.memory()["frames"] == 3 * PAGE_SIZE
        assert bytes_of(engine.processes[0], 0) == pages("a")[0].tobytes()
    with lksm.Engine(initial_rounds=0) as engine:
        engine.attach(pages("a a b b c"), immutable=True)
        engine.full()
        assert engine.memory()["frames"] == 0


def test_partial_scans_do_not_depend_on_neighbours() -> None:
    """The quota of VIPs is each domain's own, so that a busy neighbour takes no place in a partial scan."""
    seen = []
    for has_neighbour in (False, True):
        with lksm.Engine(initial_rounds=0, max_vips=1, clock=lksm.VirtualClock()) as engine:
            if has_neighbour:
                busy = engine.attach(repeated("z", 50), domain=8)
            mine = engine.attach(pages("a a b"), domain=3)
            engine.full()
            mine.write(2, pages("a")[0])
            if has_neighbour:
                busy.faults += 1
            engine.partial()
            seen.append((asdict(engine.counters(3)), ids(engine, mine), mine.name, mine.stats()))
            assert engine.check() == []
    assert seen[0] == seen[1]
    assert seen[0][0]["pages_sharing"] == 2
    assert seen[0][2] == "process-1"


@pytest.mark.parametrize("domain", [-1, -7, True, 2**32, 2**70, "a", 1.0])
def test_only_domains_are_asked_about(engine: lksm.Engine, domain: Any) -> None:
    """What is no domain is refused: it must not stand for all of them."""
    engine.attach(pages("a a"), mergeable=True)
    for ask in (engine.counters, lambda domain: engine.groups(2, domain)):
        with pytest.raises(ValueError, match="domain is"):
            ask(domain)


def two_of_one_array() -> tuple[lksm.Engine, lksm.Process, lksm.Process]:
    """Four equal pages, merged, and a process that has the last two of them too: the same pages."""
    engine = lksm.Engine(initial_rounds=0, clock=lksm.VirtualClock())
    array = pages("a a a a")
    first, second = engine.attach([array, pages("b")]), engine.attach(array[2:])
    engine.full()
    assert ids(engine, second) == ids(engine, first)[2:4] == [0, 0]
    return engine, first, second


def test_a_page_is_not_shown_a_frame_of_another_domain() -> None:
    """Who stands for it has left its domain and merged elsewhere; its next visit will tell what it is now."""
    engine, first, second = two_of_one_array()
    first.domain = 7
    first.freeze()
    engine.partial()
    assert len(set(ids(engine, first)[:4])) == 1 and ids(engine, first)[0] >= 0
    assert ids(engine, second) == [-1, -1]
    assert engine.explain(second, 0).frame is None


def test_a_page_is_what_stands_for_it_in_its_domain() -> None:
    """The same pages have the same frame as soon as one of them is visited, whichever it is."""
    engine, first, second = two_of_one_array()
    first.domain = 7
    first.domain = 0
    first.freeze()
    engine.partial()
    assert ids(engine, second) == ids(engine, first)[2:4]
    assert ids(engine, second)[0] >= 0

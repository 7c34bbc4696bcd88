"""What an engine knows of the processes it follows: nothing before a scan wants it, then what is so."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from live_child import PAGE, Child, content
from lksm.cli import _follow
from lksm.cli._follow import Follower, Scanned
from lksm.cli._places import Places
from lksm.engine import Engine
from lksm.sources import live
from lksm.sources.events import Event, Kind

_PAIRS = "m = private(32)\nfor page in range(32): fill(m, page, page % 16)"


@pytest.fixture
def followed() -> Iterator[tuple[Engine, Follower]]:
    """An engine without a gate, that scans when it is told to, and a follower that knows nobody."""
    with Engine(initial_rounds=0, short_lived_ms=0, max_page_sharing=1 << 20) as engine:
        yield engine, Follower(engine, live.snapshot([], retakable=True))
        assert engine.check() == []


def event(kind: Kind, pid: int, frozen: bool = False) -> Event:
    return Event(kind, pid, 1, "name", frozen)


def scan(engine: Engine, follower: Follower, mode: str = "partial") -> dict[int, Scanned]:
    """One scan, as the loop of `lksm watch` does it."""
    follower.refresh()
    engine.crawl(mode)  # type: ignore[arg-type]
    while engine.queue:
        if follower.read_what_is_scanned():
            engine.scan(50)
    assert engine.check() == []
    return {process.pid: process for process in follower.scanned()}


def page_of(engine: Engine, pid: int, address: int) -> bytes | None:
    """The engine's bytes of a page, None if it is absent."""
    [index] = [index for index, process in enumerate(engine.processes) if process.pid == pid]
    page = Places(engine).page_at(index, address)
    if page is None or engine.page_table(engine.processes[index])[page] == -3:
        return None
    return engine.processes[index].read(page).tobytes()


def test_only_who_is_scanned_is_read(followed: tuple[Engine, Follower]) -> None:
    """Attaching reads nothing; a partial scan reads the frozen, and those it takes in as new."""
    engine, follower = followed
    with Child(_PAIRS) as one, Child(_PAIRS) as two:
        follower.apply(event(Kind.START, one.pid))
        follower.apply(event(Kind.START, two.pid))
        assert (follower.bytes_read, follower.nr_processes, engine.counters().rmap_items) == (0, 2, 0)
        scanned = scan(engine, follower)
        assert {process.why for process in scanned.values()} == {"new"} and len(scanned) == 2
        assert all(process.name.startswith("python") for process in scanned.values())
        before = follower.bytes_read
        one.do("fill(m, 0, 100)")
        two.do("fill(m, 0, 200)")
        follower.apply(event(Kind.FREEZE, one.pid, frozen=True))
        assert follower.nr_frozen == 1
        # the other one merged pages lately, but has it run? As far as the crawler can know: faults tell
        [process] = [process for process in engine.processes if process.pid == two.pid]
        follower.refresh = lambda: None  # type: ignore[method-assign]
        process._faults_seen = process.faults
        assert {pid: row.why for pid, row in scan(engine, follower).items()} == {one.pid: "frozen"}
        assert before < follower.bytes_read < 2 * before
        assert page_of(engine, one.pid, one.ask("address(m)")) == content(100)
        assert page_of(engine, two.pid, two.ask("address(m)")) == content(0), "as it was when last read"


def test_who_faulted_is_a_vip(followed: tuple[Engine, Follower]) -> None:
    """Page faults are read before a crawl: a process that merged lately and has run since is scanned."""
    engine, follower = followed
    with Child(_PAIRS) as child:
        follower.apply(event(Kind.START, child.pid))
        scan(engine, follower)
        child.do("n = private(50)\nn.write(b'x' * len(n))")
        assert [row.why for row in scan(engine, follower).values()] == [""]


def test_a_late_arrival_is_read(followed: tuple[Engine, Follower]) -> None:
    """A process that is frozen while a scan goes on, and joins it, is read before it is visited."""
    engine, follower = followed
    with Child(_PAIRS) as one, Child(_PAIRS) as two:
        for child in (one, two):
            follower.apply(event(Kind.START, child.pid))
        scan(engine, follower)
        address = two.ask("address(m)")
        two.do("fill(m, 3, 300)")
        follower.apply(event(Kind.FREEZE, one.pid, frozen=True))
        engine.crawl("partial")
        follower.read_what_is_scanned()
        engine.scan(1)
        follower.apply(event(Kind.FREEZE, two.pid, frozen=True))
        assert len(engine.queue) == 2
        while engine.queue:
            follower.read_what_is_scanned()
            engine.scan(50)
        assert page_of(engine, two.pid, address + 3 * PAGE) == content(300)


def test_a_thawed_process_is_read_again(followed: tuple[Engine, Follower]) -> None:
    """What was read of a process that ran since is not good enough, even within one scan."""
    engine, follower = followed
    with Child(_PAIRS) as child:
        address = child.ask("address(m)")
        follower.apply(event(Kind.START, child.pid))
        scan(engine, follower)
        follower.apply(event(Kind.FREEZE, child.pid, frozen=True))
        follower.read_what_is_scanned()
        follower.apply(event(Kind.THAW, child.pid))
        child.do("fill(m, 2, 200)")
        follower.apply(event(Kind.FREEZE, child.pid, frozen=True))
        scan(engine, follower)
        assert page_of(engine, child.pid, address + 2 * PAGE) == content(200)


def test_reading_goes_in_steps(followed: tuple[Engine, Follower], monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is much to read, at least one process is read at a time, until all in the queue are."""
    monkeypatch.setattr(_follow, "_MUCH_BYTES", 1)
    engine, follower = followed
    with Child(_PAIRS) as one, Child(_PAIRS) as two, Child(_PAIRS) as three:
        for child in (one, two, three):
            follower.apply(event(Kind.START, child.pid))
        engine.crawl("full")
        assert [follower.read_what_is_scanned() for _ in range(4)] == [False, False, True, True]
        engine.scan(1 << 20)
        assert len(follower.scanned()) == 3
        assert len(scan(engine, follower, "full")) == 3


def test_who_cannot_be_read_is_let_go(followed: tuple[Engine, Follower]) -> None:
    """A process that refuses, or has gone, is dropped, and its end is no event any more."""
    engine, follower = followed
    with Child() as child:
        follower.apply(event(Kind.START, child.pid))
    follower.apply(event(Kind.START, 2))  # a kernel thread
    assert scan(engine, follower) == {}
    assert engine.processes == () and follower.nr_processes == 0
    assert [refused.source for refused in follower.take_refused()] == ["pid 2"]
    assert follower.take_refused() == []
    follower.apply(event(Kind.FREEZE, 2, frozen=True))
    follower.apply(event(Kind.EXIT, 2))


def test_a_process_that_exits_leaves_nothing(followed: tuple[Engine, Follower]) -> None:
    """Its merges dissolve, and its storage serves others."""
    engine, follower = followed
    with Child(_PAIRS) as one, Child(_PAIRS) as two:
        for child in (one, two):
            follower.apply(event(Kind.START, child.pid))
        scan(engine, follower)
        assert engine.counters().pages_sharing >= 48
        follower.apply(event(Kind.EXIT, one.pid))
        scan(engine, follower, "full")
        assert 16 <= engine.counters().pages_sharing < 48
        assert follower.nr_processes == 1


@pytest.mark.parametrize("most_regions", [1 << 14, 0])
def test_a_process_over_many_scans(
    followed: tuple[Engine, Follower], most_regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's pages are those of the process after every scan, also if its past is forgotten."""
    monkeypatch.setattr(_follow, "_MAX_REGIONS", most_regions)
    engine, follower = followed
    choose = random.Random(5)
    truth: dict[int, bytes] = {}
    with Child("m = private(200)") as child:
        address = child.ask("address(m)")
        follower.apply(event(Kind.START, child.pid))
        for round_ in range(8):
            start = choose.randrange(200)
            stop = min(start + choose.randrange(1, 60), 200)
            child.do(f"drop(m, {start}, {stop})")
            truth = {page: data for page, data in truth.items() if not start <= page < stop}
            written = choose.sample(range(200), 30)
            child.do(f"for page in {written}: fill(m, page, page % 7 + {round_})")
            truth |= {page: content(page % 7 + round_) for page in written}
            before = engine.processes[0]
            scan(engine, follower, "full")
            # what was read is the process as it was in the scan, before its past was forgotten
            assert (engine.processes[0] is not before) is (most_regions == 0)
            if most_regions:
                pages = {page: page_of(engine, child.pid, address + page * PAGE) for page in range(200)}
                assert {page: data for page, data in pages.items() if data is not None} == truth

"""Some processes of a snapshot taken again, others left alone: pages they share stay one, and right."""

from __future__ import annotations

import random

import pytest

from live_child import PAGE, Child, content, needs_frames, pages_at, storage_at
from lksm.sources import live
from lksm.sources._types import SourceProcess

_PAGES = "m = private(20)\nfor page in range(20): fill(m, page, page)"


def by_pid(snapshot: live.LiveSnapshot) -> dict[int | None, SourceProcess]:
    return {process.pid: process for process in snapshot.processes}


def contents(**changed: int) -> dict[int, bytes]:
    """The pages of `_PAGES`, some with another seed: p4=104."""
    return {page: content(changed.get(f"p{page}", page)) for page in range(20)}


def test_only_those_named_are_read() -> None:
    """The others keep their bytes, and have no change; the order of processes stays."""
    with Child(_PAGES) as one, Child(_PAGES) as two:
        at = {child.pid: child.ask("address(m)") for child in (one, two)}
        first = live.snapshot([one.pid, two.pid], retakable=True)
        for child in (one, two):
            child.do("fill(m, 3, 103)")
        retaken = live.retake(first, [two.pid])
        assert [change.pid for change in retaken.changes] == [two.pid]
        assert [process.pid for process in retaken.snapshot.processes] == [one.pid, two.pid]
        found = by_pid(retaken.snapshot)
        assert pages_at(found[one.pid], at[one.pid], 20) == contents()
        assert pages_at(found[two.pid], at[two.pid], 20) == contents(p3=103)
        found = by_pid(live.retake(retaken.snapshot, [one.pid]).snapshot)
        assert pages_at(found[one.pid], at[one.pid], 20) == contents(p3=103)


def test_a_process_joins() -> None:
    """A snapshot of nothing grows: a process that is not in it is mapped as a whole."""
    with Child(_PAGES) as child:
        address = child.ask("address(m)")
        empty = live.snapshot([], retakable=True)
        retaken = live.retake(empty, [child.pid])
        [change] = retaken.changes
        assert change.unmapped == () and change.mapped == change.process.regions
        assert pages_at(change.process, address, 20) == contents()
        child.do("fill(m, 5, 105); drop(m, 7, 9)")
        again = live.retake(retaken.snapshot, [child.pid, child.pid])
        [change] = again.changes
        assert change.unmapped and {5, 6} <= set(pages_at(change.process, address, 20))
        assert not {7, 8} & set(pages_at(change.process, address, 20))


def test_what_joins_a_snapshot_is_of_its_kind() -> None:
    """Processes join with the pages of `what` that the snapshot began with, under its limit."""
    text = "m = private(100)\nm.write(b'x' * len(m))\nn = mmap.mmap(-1, 8 * PAGE)\nn.write(b'y' * len(n))"
    with Child(text) as child:
        address = child.ask("address(n)")
        for what, nr_pages in (("anon", 0), ("all", 8)):
            empty = live.snapshot([], what=what, retakable=True)
            [change] = live.retake(empty, [child.pid]).changes
            assert len(pages_at(change.process, address, 8)) == nr_pages
        small = live.snapshot([], retakable=True, limit_bytes=50 * PAGE)
        retaken = live.retake(small, [child.pid])
        assert retaken.changes[0].process.nbytes == 50 * PAGE
        assert "pages over the limit" in [item.what for item in retaken.snapshot.skipped]


def test_forgotten_processes_give_their_storage_back() -> None:
    """A process that is forgotten may join again, and its storage is used for others."""
    with Child(_PAGES) as one, Child(_PAGES) as two:
        size = live.snapshot([one.pid]).processes[0].nbytes
        first = live.retake(live.snapshot([], retakable=True, limit_bytes=size + 64 * PAGE), [one.pid])
        rest = live.forget(first.snapshot, [one.pid])
        assert rest.processes == rest.members == ()
        [change] = live.retake(rest, [two.pid]).changes
        assert pages_at(change.process, two.ask("address(m)"), 20) == contents()
        assert rest.store is not None and rest.store.nr_rows <= size // PAGE + 64


def test_a_child_that_joins_shares_with_its_parent() -> None:
    """Pages that a new process got by fork are one with those of its parent, which is not read again."""
    needs_frames()
    with Child(_PAGES) as child:
        address = child.ask("address(m)")
        first = live.retake(live.snapshot([], retakable=True), [child.pid])
        child.do("kid, tell = fork()\ntell('fill(m, 4, 204)')")
        kid = child.ask("kid")
        child.do("fill(m, 7, 107)")
        retaken = live.retake(first.snapshot, [kid])
        found = by_pid(retaken.snapshot)
        assert pages_at(found[kid], address, 20) == contents(p4=204)
        own, other = (storage_at(found[pid], address, 20) for pid in (child.pid, kid))
        assert {page for page in range(20) if own[page] != other[page]} == {4, 7}
        assert pages_at(found[child.pid], address, 20) == contents(), "what was known of it, and still is"
        shared = found[kid].already_shared_pages
        assert shared is not None and shared >= 18
        both = by_pid(live.retake(retaken.snapshot).snapshot)
        assert pages_at(both[child.pid], address, 20) == contents(p7=107)
        assert pages_at(both[kid], address, 20) == contents(p4=204)


def test_a_child_that_joins_together_with_its_parent() -> None:
    """When a parent is read again together with a child that is new, what they share is stored once."""
    needs_frames()
    with Child(_PAGES) as child:
        address = child.ask("address(m)")
        first = live.retake(live.snapshot([], retakable=True), [child.pid])
        child.do("kid, tell = fork()\nfill(m, 7, 107)")
        kid = child.ask("kid")
        found = by_pid(live.retake(first.snapshot, [child.pid, kid]).snapshot)
        own, other = (storage_at(found[pid], address, 20) for pid in (child.pid, kid))
        assert {page for page in range(20) if own[page] != other[page]} == {7}
        assert pages_at(found[child.pid], address, 20) == contents(p7=107)
        assert pages_at(found[kid], address, 20) == contents()


def test_a_shared_page_that_one_has_written() -> None:
    """Who is read gets storage of its own for what it wrote; who is not read keeps its bytes."""
    needs_frames()
    with Child(f"{_PAGES}\nkid, tell = fork()") as child:
        kid, address = child.ask("kid"), child.ask("address(m)")
        first = live.snapshot([child.pid, kid], retakable=True)
        child.do("fill(m, 4, 104)\ntell('fill(m, 9, 209)')")
        found = by_pid(live.retake(first, [child.pid]).snapshot)
        assert pages_at(found[child.pid], address, 20) == contents(p4=104)
        assert pages_at(found[kid], address, 20) == contents(), "not read: 9 as it was"
        own, other = (storage_at(found[pid], address, 20) for pid in (child.pid, kid))
        assert {page for page in range(20) if own[page] != other[page]} == {4, 9}


def test_without_frames_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frame numbers are hidden each process has storage of its own, also when it joins."""
    monkeypatch.setattr(live._pagemap, "frames_are_visible", lambda: False)
    with Child(f"{_PAGES}\nkid, tell = fork()") as child:
        kid, address = child.ask("kid"), child.ask("address(m)")
        first = live.retake(live.snapshot([], retakable=True), [child.pid])
        child.do("fill(m, 4, 104)")
        retaken = live.retake(first.snapshot, [kid])
        assert retaken.changes[0].process.already_shared_pages is None
        found = by_pid(retaken.snapshot)
        own, other = (storage_at(found[pid], address, 20) for pid in (child.pid, kid))
        assert not set(own.values()) & set(other.values())
        assert pages_at(found[kid], address, 20) == contents()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_of_reading(seed: int) -> None:
    """Three relatives that write, drop and fork pages, read in any order: who was read is exact each time."""
    print("seed", seed)
    choose = random.Random(seed)
    with Child("m = private(40)\nfor page in range(40): fill(m, page, page)") as child:
        address = child.ask("address(m)")
        child.do("kid, tell = fork()")
        child.do("second, tell2 = fork()")
        speak = {
            child.pid: lambda text: child.do(text),
            child.ask("kid"): lambda text: child.do(f"tell({text!r})"),
            child.ask("second"): lambda text: child.do(f"tell2({text!r})"),
        }
        truth = {pid: {page: content(page) for page in range(40)} for pid in speak}
        known: dict[int, dict[int, bytes]] = {}
        snapshot = live.snapshot([], retakable=True)
        for step in range(15):
            for pid in choose.sample(list(speak), 2):
                pages = choose.sample(range(40), 3)
                speak[pid](f"for page in {pages}: fill(m, page, page + {1000 * step})")
                truth[pid] |= {page: content(page + 1000 * step) for page in pages}
            chosen = choose.sample(list(speak), choose.randrange(1, 3))
            retaken = live.retake(snapshot, chosen)
            snapshot = retaken.snapshot
            assert {change.pid for change in retaken.changes} == set(chosen)
            found = by_pid(snapshot)
            known |= {pid: dict(truth[pid]) for pid in chosen}
            for pid, pages_of in known.items():
                assert pages_at(found[pid], address, 40) == pages_of, (step, pid in chosen)


def test_why_a_process_cannot_be_taken() -> None:
    """The reason is one line, and there is none for a process that can be."""
    with Child() as child:
        assert live.refusal(child.pid) is None
        used = live.usage(child.pid)
        assert used is not None and used.faults > 0 and used.runtime_ms >= 0
    assert live.refusal(child.pid) == "there is no such process"
    assert live.usage(child.pid) is None
    reason = live.refusal(2)
    assert reason is not None and "kernel thread" in reason

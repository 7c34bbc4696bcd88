"""Live processes taken again and again: what changed in place, what went, what came."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from live_child import PAGE, Child, content, needs_frames, pages_at, present_pages, storage_at
from lksm.errors import SourceError
from lksm.memory import Region
from lksm.sources import live
from lksm.sources._types import Gone, SourceProcess


class Attached:
    """A process as an engine keeps it: regions in order of address, unmapped pages keep their index."""

    def __init__(self, process: SourceProcess) -> None:
        self.regions: list[tuple[Region, np.ndarray]] = []
        for region in process.regions:
            self.map(region)

    def map(self, region: Region) -> None:
        rows = np.arange(len(region.array)) if region.rows is None else region.rows.copy()
        self.regions.append((region, rows))
        self.regions.sort(key=lambda pair: pair[0].address)

    def unmap(self, start: int, stop: int) -> None:
        first = 0
        for _, rows in self.regions:
            begin, end = max(start - first, 0), min(stop - first, len(rows))
            if begin < end:
                assert (rows[begin:end] >= 0).all(), "unmapped a page that is not there"
                rows[begin:end] = -1
            first += len(rows)
        assert stop <= first

    def apply(self, change: live.Change) -> None:
        for start, stop in change.unmapped:
            self.unmap(start, stop)
        for region in change.mapped:
            self.map(region)

    def pages(self) -> dict[int, tuple[int, bytes]]:
        """Where each page is stored, and its bytes, by address; no address may be there twice."""
        result: dict[int, tuple[int, bytes]] = {}
        for region, rows in self.regions:
            for index, row in enumerate(rows.tolist()):
                if row >= 0:
                    address = region.address + index * PAGE
                    assert address not in result, f"page {address:#x} is mapped twice"
                    result[address] = region.array[row].ctypes.data, region.array[row].tobytes()
        return result

    def pages_at(self, address: int, nr_pages: int) -> dict[int, bytes]:
        found = self.pages()
        wanted = {page: address + page * PAGE for page in range(nr_pages)}
        return {page: found[at][1] for page, at in wanted.items() if at in found}


def test_changed_bytes_appear_in_the_same_arrays() -> None:
    """Bytes that the process wrote are there after a retake without mapping anything anew."""
    with Child("m = private(20)\nfor page in range(20): fill(m, page, page)") as child:
        address = child.ask("address(m)")
        first = live.snapshot([child.pid], retakable=True)
        attached = Attached(first.processes[0])
        before = storage_at(first.processes[0], address, 20)
        child.do("for page in (2, 9): fill(m, page, 70 + page)")
        [change] = live.retake(first).changes
        now = pages_at(change.process, address, 20)
        assert now == {page: content(70 + page if page in (2, 9) else page) for page in range(20)}
        assert storage_at(change.process, address, 20) == before
        assert attached.pages_at(address, 20) == now
    assert not first.processes[0].immutable


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pages_come_and_go_over_many_rounds(seed: int) -> None:
    """Followed by unmap and map alone, an attached process equals the real one after every round."""
    print("seed", seed)
    choose = random.Random(seed)
    truth: dict[int, bytes] = {}
    with Child("m = private(300)") as child:
        address = child.ask("address(m)")
        previous = live.snapshot([child.pid], retakable=True)
        attached = Attached(previous.processes[0])
        for round_ in range(12):
            start = choose.randrange(300)
            stop = min(start + choose.randrange(1, 80), 300)
            child.do(f"drop(m, {start}, {stop})")
            truth = {page: data for page, data in truth.items() if not start <= page < stop}
            written = choose.sample(range(300), 40)
            child.do(f"for page in {written}: fill(m, page, page + {round_})")
            truth |= {page: content(page + round_) for page in written}
            retaken = live.retake(previous)
            [change] = retaken.changes
            attached.apply(change)
            assert attached.pages_at(address, 300) == truth
            assert pages_at(change.process, address, 300) == truth
            found = {(at, here, data) for at, here, data in present_pages(change.process)}
            assert found == {(at, here, data) for at, (here, data) in attached.pages().items()}
            previous = retaken.snapshot


def test_storage_of_gone_pages_is_used_again() -> None:
    """A process that keeps moving its pages does not make the snapshot grow without end."""
    with Child("m = private(3000)\nm[: 300 * PAGE] = b'a' * (300 * PAGE)") as child:
        previous = live.snapshot([child.pid], retakable=True)
        assert previous.store is not None
        at_first = previous.store.nr_rows
        for step in range(1, 8):
            child.do(f"drop(m, 0, 3000); start = {step} * 300 * PAGE")
            child.do("m[start : start + 300 * PAGE] = b'b' * (300 * PAGE)")
            previous = live.retake(previous).snapshot
        assert previous.store is not None
        assert previous.store.nr_rows < at_first + 1000  # 2100 were new


def test_a_shared_page_that_is_written_gets_storage_of_its_own() -> None:
    """After one of two processes writes a page stored once for both, each has its own bytes."""
    needs_frames()
    with Child("m = private(20)\nfor page in range(20): fill(m, page, page)\nkid, tell = fork()") as child:
        kid, address = child.ask("kid"), child.ask("address(m)")
        first = live.snapshot([child.pid, kid], retakable=True)
        attached = {process.pid: Attached(process) for process in first.processes}
        shared = first.processes[1].already_shared_pages
        assert storage_at(first.processes[0], address, 20) == storage_at(first.processes[1], address, 20)
        child.do("fill(m, 4, 104)\ntell('fill(m, 7, 107); fill(m, 4, 204)')")
        retaken = live.retake(first)
        for change in retaken.changes:
            attached[change.pid].apply(change)
        same = {page: content(page) for page in range(20)}
        assert attached[child.pid].pages_at(address, 20) == same | {4: content(104)}
        assert attached[kid].pages_at(address, 20) == same | {4: content(204), 7: content(107)}
        own, other = (storage_at(process, address, 20) for process in retaken.snapshot.processes)
        assert {page for page in range(20) if own[page] != other[page]} == {4, 7}
        assert shared is not None
        now = retaken.snapshot.processes[1].already_shared_pages
        assert now is not None
        assert now <= shared - 2
        # once more, the pages that were told apart stay apart and follow their owners
        child.do("fill(m, 7, 300)\ntell('fill(m, 7, 301)')")
        for change in live.retake(retaken.snapshot).changes:
            attached[change.pid].apply(change)
        assert attached[child.pid].pages_at(address, 20)[7] == content(300)
        assert attached[kid].pages_at(address, 20)[7] == content(301)


def test_pages_that_are_each_shared_with_others_now_are_told_apart() -> None:
    """Pages stored as one are two when their frames differ, even if each is shared with a third process."""
    needs_frames()
    setup = "m = private(5)\nfor page in range(5): fill(m, page, page)\nkid, tell = fork()\nthird = fork()"
    with Child(setup) as child:
        kid, address = child.ask("kid"), child.ask("address(m)")
        first = live.snapshot([child.pid, kid], retakable=True)
        child.do("tell('fill(m, 2, 102); fourth = fork()')")
        own, other = live.retake(first).snapshot.processes
        assert pages_at(own, address, 5)[2] == content(2)
        assert pages_at(other, address, 5)[2] == content(102)
        assert storage_at(own, address, 5)[2] != storage_at(other, address, 5)[2]
        assert storage_at(own, address, 5)[3] == storage_at(other, address, 5)[3]


def test_whoever_shared_with_a_process_that_exits_stays_whole() -> None:
    """When the first holder of shared pages exits, it is Gone and the other has all its pages."""
    needs_frames()
    with Child("m = private(20)\nfor page in range(20): fill(m, page, page)\nkid, tell = fork()") as child:
        kid, address = child.ask("kid"), child.ask("address(m)")
        first = live.snapshot([kid, child.pid], retakable=True)
        attached = Attached(first.processes[1])
        child.do("os.kill(kid, 9); os.waitpid(kid, 0); fill(m, 3, 103)")
        retaken = live.retake(first)
        [change] = retaken.changes
        attached.apply(change)
        assert [gone.pid for gone in retaken.snapshot.gone] == [kid]
        assert attached.pages_at(address, 20) == {
            page: content(103 if page == 3 else page) for page in range(20)
        }
        assert change.process.already_shared_pages == 0


def test_another_process_with_the_same_pid_is_not_followed() -> None:
    """A pid that has been given to a new process means that the old one is Gone."""
    with Child() as child:
        first = live.snapshot([child.pid], retakable=True)
        [member] = first.members
        status = replace(member.facts.status, started=member.facts.status.started - 1)
        older = replace(first, members=(replace(member, facts=replace(member.facts, status=status)),))
        retaken = live.retake(older)
    assert retaken.changes == ()
    assert retaken.snapshot.gone == (Gone(child.pid, member.facts.name),)


def test_the_limit_holds_for_all_rounds() -> None:
    """New pages beyond the limit of the first snapshot are reported, not taken."""
    with Child("m = private(500)") as child:
        size = live.snapshot([child.pid]).processes[0].nbytes
        limit = size + 100 * PAGE
        first = live.snapshot([child.pid], retakable=True, limit_bytes=limit)
        child.do("m.write(b'x' * len(m))")
        retaken = live.retake(first)
    assert retaken.snapshot.processes[0].nbytes <= limit
    [skipped] = [item for item in retaken.snapshot.skipped if item.what == "pages over the limit"]
    assert skipped.nbytes >= 390 * PAGE


def test_only_a_retakable_snapshot_can_be_retaken() -> None:
    """A snapshot that is promised to be immutable cannot be taken again."""
    with Child() as child, pytest.raises(SourceError, match="retakable=True"):
        live.retake(live.snapshot([child.pid]))

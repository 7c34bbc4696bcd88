"""Truth: the engine and the referee of `model.py` live through the same events and must agree after each.

After every step `check()` is clean, every page reads back what was last written to it, and counters, merge
windows and page tables are those of the model. Only a page that changes in the middle of a scan, after it
was filed as a candidate, makes the outcome open (`Model.is_filed`): from then on only what is certain is
compared, until `run` = 2 throws the scan state away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import lksm
from helpers import Pages, content, pages, partition
from lksm import _crew
from lksm.memory import Memory, Role
from model import Cell, Model, Node, Page, Space

WORDS = ["0", "a", "b", "c", "a^", "a>", "a<", "0>", "b>"]
MAX_PROCESSES = 7
CERTAIN = ["rmap_items", "pages_scanned", "scanning_process", "nr_frozen", "nr_scannable", "full_scans"]

words = st.sampled_from(WORDS)
pictures = st.lists(words, min_size=1, max_size=6) | st.builds(
    lambda word, count: [word] * count, words, st.integers(3, 6)
)
fractions = st.floats(0, 1, exclude_max=True)
keys = st.sampled_from([None, ("k", "data"), ("k", "bss"), ("l", "data")])


@dataclass(eq=False)
class Array:
    """An owner's array and the model's cells for its rows."""

    pages: Pages
    cells: list[Cell]
    immutable: bool
    tracked: bool = False

    @classmethod
    def of(cls, picture: list[str], page_size: int, immutable: bool, tracked: bool = False) -> Array:
        array = pages(" ".join(picture), page_size)
        return cls(array, [Cell(row.tobytes()) for row in array], immutable, tracked)


@dataclass(eq=False)
class Both:
    """One process as the engine and as the model know it."""

    process: lksm.Process
    space: Space
    immutable: bool
    tracked: bool
    end: int  # the first address after its regions


class EngineAndModel(RuleBasedStateMachine):
    """Every event of the public surface, in any order."""

    @initialize(
        page_size=st.sampled_from([64, 256, 4096]),
        initial_rounds=st.sampled_from([0, 3, 60]),
        max_page_sharing=st.sampled_from([2, 3, 256]),
        disturb=st.sampled_from([False, False, True]),
        max_vips=st.sampled_from([0, 1, 2, 20]),
        policy=st.sampled_from(["lksm", "lksm", "ksm"]),
        smart_scan=st.booleans(),
        prune_millisecs=st.sampled_from([0, 50, 2000]),
        use_zero_pages=st.booleans(),
        nodes=st.sampled_from([1, 1, 2, 3]),
        secure=st.booleans(),
        filter_maturity=st.sampled_from([None, 0, 1, 3]),
        filter_sweep_interval=st.sampled_from([0, 2, 64]),
        threads=st.sampled_from([1, 2]),
        seed=st.integers(0, 3),
    )
    def start(
        self,
        page_size: int,
        initial_rounds: int,
        max_page_sharing: int,
        disturb: bool,
        max_vips: int,
        policy: Literal["lksm", "ksm"],
        smart_scan: bool,
        prune_millisecs: int,
        use_zero_pages: bool,
        nodes: int,
        secure: bool,
        filter_maturity: int | None,
        filter_sweep_interval: int,
        threads: int,
        seed: int,
    ) -> None:
        self.page_size = page_size
        self.nodes = nodes
        self.disturb = disturb
        self.certain = self.windows_certain = True
        self.clock = lksm.VirtualClock()
        self.patch = pytest.MonkeyPatch()  # the other thread helps with small scans too
        for name, value in (("LEAST_PAGES", 2), ("PAUSE_PAGES", 3)):
            self.patch.setattr(_crew, name, value)
        self.engine = lksm.Engine(
            clock=self.clock,
            page_size=page_size,
            initial_rounds=initial_rounds,
            max_page_sharing=max_page_sharing,
            max_vips=max_vips,
            policy=policy,
            threads=threads,
            smart_scan=smart_scan,
            stable_node_chains_prune_millisecs=prune_millisecs,
            use_zero_pages=use_zero_pages,
            nodes=nodes,
            merge_across_nodes=nodes != 3,
            secure=secure,
            filter=filter_maturity is not None,
            filter_maturity=filter_maturity or 0,
            filter_sweep_interval=filter_sweep_interval,
            seed=seed,
        )
        self.model = Model(
            initial_rounds=initial_rounds,
            max_page_sharing=max_page_sharing,
            max_vips=max_vips,
            is_upstream=policy == "ksm",
            smart_scan=smart_scan,
            prune_millisecs=prune_millisecs,
            use_zero_pages=use_zero_pages,
            apart=nodes == 3,
            filter_maturity=filter_maturity,
            filter_sweep_interval=filter_sweep_interval,
            choose=self.choose_as_the_engine,
        )
        self.all: list[Both] = []
        self.arrays: list[Array] = []
        self.tables: list[list[int]] = []
        self.frame_of: dict[Node, int] = {}

    def teardown(self) -> None:
        self.patch.undo()
        if hasattr(self, "engine"):
            self.engine.close()

    # ---- helpers

    def choose_as_the_engine(self, page: Page, targets: list[Node]) -> Node:
        """The dup the engine joined, judged by the page tables after the step, if the model allows it."""
        tables = self.tables_now()
        frames = {
            id(p): frame
            for both, table in zip(self.all, tables, strict=True)
            for p, frame in zip(both.space.pages, table, strict=True)
        }
        for node in targets:
            if self.frame_of.get(node) == frames[id(page)]:
                return node
        for node in targets:
            if any(frames[id(item.page)] == frames[id(page)] for item in node.items):
                return node
        return targets[0]

    def note_frames(self) -> None:
        """Which frame is which node: later all its pages may be private, and show it no more."""
        for both, table in zip(self.all, self.tables_now(), strict=True):
            for page, frame in zip(both.space.pages, table, strict=True):
                if page.frame is not None and frame >= 0:
                    self.frame_of[page.frame] = frame

    def queued(self) -> list[Both]:
        return [next(both for both in self.all if both.space is space) for space in self.model.queue]

    def tables_now(self) -> list[list[int]]:
        return [self.engine.page_table(both.process).tolist() for both in self.all]

    def pick(self, fraction: float) -> Both:
        return self.all[int(fraction * len(self.all))]

    def pick_page(self, both: Both, fraction: float) -> int:
        return int(fraction * len(both.space.pages))

    def pick_range(self, both: Both, one: float, two: float) -> tuple[int, int]:
        start, last = sorted([self.pick_page(both, one), self.pick_page(both, two)])
        return start, last + 1

    def may_change(self, cells: list[Cell | None]) -> bool:
        """Whether a filed page may change under the scan; if it does, the outcome is open from here on."""
        if any(self.model.is_filed(cell) for cell in cells):
            if not self.disturb:
                return False
            self.certain = self.windows_certain = False
        return True

    def add(self, process: lksm.Process, space: Space, immutable: bool, tracked: bool) -> None:
        regions = process.regions
        last = max(regions, key=lambda region: region.address)
        end = last.address + self.nr_pages(last) * self.page_size
        self.all.append(Both(process, space, immutable, tracked, end))

    def nr_pages(self, region: lksm.Region) -> int:
        return len(region.rows) if region.rows is not None else region.array.nbytes // self.page_size

    def has_room(self) -> bool:
        return len(self.all) < MAX_PROCESSES

    def has_processes(self) -> bool:
        return bool(self.all)

    # ---- processes

    @precondition(has_room)
    @rule(
        picture=pictures,
        form=st.sampled_from(["array", "array", "list", "rows", "gap"]),
        mergeable=st.sampled_from([None, None, True, False]),
        frozen=st.booleans(),
        immutable=st.booleans(),
        rows=st.lists(st.integers(-1, 5), min_size=1, max_size=6),
        node=fractions,
        domain=st.sampled_from([0, 0, 0, 7]),
        tracked=st.booleans(),
        key=keys,
    )
    def attach(
        self,
        picture: list[str],
        form: str,
        mergeable: bool | None,
        frozen: bool,
        immutable: bool,
        rows: list[int],
        node: float = 0.0,
        domain: int = 0,
        tracked: bool = False,
        key: tuple[str, Role] | None = None,
    ) -> None:
        lies_on = int(node * self.nodes)
        array = Array.of(picture, self.page_size, immutable, tracked)
        self.arrays.append(array)
        cells: list[Cell | None] = list(array.cells)
        sizes = [len(cells)]
        address = 16 * self.page_size
        memory: Memory = array.pages if key is None else self.region(address, array.pages, key, lies_on)
        if form in ("list", "gap"):
            second = Array.of(picture[::-1], self.page_size, immutable, tracked)
            self.arrays.append(second)
            cells += second.cells
            sizes *= 2
            memory, key = [array.pages, second.pages], key if form == "gap" else None
            if form == "gap":
                far = (len(picture) + 3) * self.page_size
                memory = [
                    self.region(far, second.pages, key, lies_on),
                    self.region(0, array.pages, key, lies_on),
                ]
        elif form == "rows":
            kept = [row if row < len(picture) else -1 for row in rows]
            cells = [array.cells[row] if row >= 0 else None for row in kept]
            sizes = [len(kept)]
            memory = [replace(self.region(0, array.pages, key, lies_on), rows=np.array(kept))]
        process = self.engine.attach(
            memory,
            address=address,
            mergeable=mergeable,
            frozen=frozen,
            immutable=immutable,
            tracked=tracked,
            node=lies_on,
            domain=domain,
        )
        space = self.model.attach(
            cells, mergeable=mergeable, frozen=frozen, node=lies_on, domain=domain, sizes=sizes, key=key
        )
        self.add(process, space, immutable, tracked)

    @staticmethod
    def region(address: int, array: Pages, key: tuple[str, Role] | None, node: int = 0) -> lksm.Region:
        name, role = key or (None, "data")
        return lksm.Region(address, array, key=name, role=role, node=node)

    @precondition(lambda self: self.has_room() and self.model.filter_maturity is not None and self.is_small())
    @rule(
        sizes=st.sampled_from([[64], [65], [65, 129], [129, 64]]),
        at=st.lists(fractions, min_size=1, max_size=4),
        role=st.sampled_from(["data", "bss"]),
    )
    def attach_large(self, sizes: list[int], at: list[float], role: Role) -> None:
        """Regions of more pages than one word of a filter is for, nearly all of them unique."""
        address, cells, regions = 0, list[Cell | None](), list[lksm.Region]()
        for size in sizes:
            picture = [f"{len(self.arrays)}/{i}" for i in range(size)]
            for fraction in at:
                picture[int(fraction * size)] = "a"
            array = Array.of(picture, self.page_size, False)
            self.arrays.append(array)
            cells += array.cells
            regions.append(self.region(address, array.pages, ("k", role)))
            address += size * self.page_size
        process = self.engine.attach(regions)
        self.add(process, self.model.attach(cells, sizes=sizes, key=("k", role)), False, False)

    def is_small(self) -> bool:
        return all(len(both.space.pages) < 60 for both in self.all)

    @precondition(lambda self: self.has_room() and self.arrays)
    @rule(which=fractions, first=fractions, mergeable=st.sampled_from([None, True]))
    def attach_again(self, which: float, first: float, mergeable: bool | None) -> None:
        """The same array, or the end of it, once more: its pages are one with the ones there already."""
        array = self.arrays[int(which * len(self.arrays))]
        skip = int(first * len(array.cells))
        process = self.engine.attach(
            array.pages[skip:], mergeable=mergeable, immutable=array.immutable, tracked=array.tracked
        )
        space = self.model.attach(list(array.cells[skip:]), mergeable=mergeable)
        self.add(process, space, array.immutable, array.tracked)

    @precondition(lambda self: self.has_room() and self.model.max_page_sharing < 256)
    @rule(word=words, immutable=st.booleans())
    def break_a_chain(self, word: str, immutable: bool) -> None:
        """A content gets a second frame, and the pages of the first go: it may be a chain of one now."""
        limit = self.model.max_page_sharing
        picture = [word] * (limit + 2)
        self.attach(picture, form="array", mergeable=None, frozen=False, immutable=immutable, rows=[0])
        self.full(times=1)
        both = self.all[-1]
        both.process.unmap(0, limit)
        self.model.unmap(both.space, 0, limit)
        self.full(times=1)

    @precondition(lambda self: self.has_room() and self.has_processes())
    @rule(which=fractions)
    def fork(self, which: float) -> None:
        parent = self.pick(which)
        child = parent.process.fork()
        child.thaw()
        space = self.model.fork(parent.space)
        self.all.append(Both(child, space, parent.immutable, parent.tracked, parent.end))

    @precondition(has_processes)
    @rule(which=fractions)
    def exit(self, which: float) -> None:
        both = self.pick(which)
        both.process.exit()
        self.model.exit(both.space)
        self.all.remove(both)

    @precondition(has_processes)
    @rule(which=fractions)
    def freeze(self, which: float) -> None:
        both = self.pick(which)
        both.process.freeze()
        self.model.freeze(both.space)

    @precondition(has_processes)
    @rule(which=fractions)
    def thaw(self, which: float) -> None:
        both = self.pick(which)
        both.process.thaw()
        self.model.thaw(both.space)

    @precondition(has_processes)
    @rule(which=fractions, runtime_ms=st.sampled_from([None, 0, 99, 100]), nr_faults=st.integers(0, 1))
    def works(self, which: float, runtime_ms: int | None, nr_faults: int) -> None:
        both = self.pick(which)
        both.process.runtime_ms = both.space.runtime_ms = runtime_ms
        both.process.faults += nr_faults
        both.space.faults += nr_faults

    # ---- memory

    @precondition(lambda self: self.arrays)
    @rule(which=fractions, row=fractions, word=words)
    def write_array(self, which: float, row: float, word: str) -> None:
        array = self.arrays[int(which * len(self.arrays))]
        number = int(row * len(array.cells))
        if array.immutable or not self.may_change([array.cells[number]]):
            return
        array.pages[number] = np.frombuffer(content(word, self.page_size), np.uint8)
        self.model.write(array.cells[number], content(word, self.page_size))
        if array.tracked:
            self.tell(array.cells[number])

    def tell(self, cell: Cell) -> None:
        """One of the processes that map a tracked page tells that it was written."""
        for both in self.all:
            for number, page in enumerate(both.space.pages):
                if page.cell is cell and page.present:
                    both.process.touch(number, number + 1)
                    both.space.faults += 1
                    self.model.told(self.tracked_pages(cell))
                    return

    def tracked_pages(self, cell: Cell) -> list[Page]:
        """Pages at one place that nobody looks at before they are written or touched."""
        tracked = [both.space for both in self.all if both.tracked and not both.immutable]
        return [page for space in tracked for page in space.pages if page.cell is cell and page.present]

    @precondition(has_processes)
    @rule(which=fractions, where=fractions, word=words, whole=st.booleans())
    def write_process(self, which: float, where: float, word: str, whole: bool) -> None:
        both = self.pick(which)
        number = self.pick_page(both, where)
        page = both.space.pages[number]
        if both.immutable or page.cell is None or not page.present or not self.may_change([page.cell]):
            return
        new = content(word, self.page_size)
        if whole:
            both.process.write(number, new)
        else:
            new = page.cell.content[:-8] + new[-8:]
            both.process.write(number, new[-8:], offset=self.page_size - 8)
        self.model.process_write(page, new)
        assert page.cell is not None
        self.model.told(self.tracked_pages(page.cell))

    @precondition(has_processes)
    @rule(which=fractions, one=fractions, two=fractions)
    def unmap(self, which: float, one: float, two: float) -> None:
        both = self.pick(which)
        start, stop = self.pick_range(both, one, two)
        both.process.unmap(start, stop)
        self.model.unmap(both.space, start, stop)

    @precondition(has_processes)
    @rule(which=fractions, picture=pictures, gap=st.integers(0, 2), below=st.booleans(), key=keys)
    def map(
        self, which: float, picture: list[str], gap: int, below: bool, key: tuple[str, Role] | None
    ) -> None:
        both = self.pick(which)
        nr_pages, size = len(both.space.pages), len(picture) * self.page_size
        if nr_pages > 12:
            return
        array = Array.of(picture, self.page_size, both.immutable, both.tracked)
        self.arrays.append(array)
        address = both.end + gap * self.page_size
        first = min(region.address for region in both.process.regions)
        if below and first >= size:
            address = first - size
        both.process.map(self.region(address, array.pages, key))
        both.end = max(both.end, address + size)
        self.model.map(both.space, list(array.cells), 0 if address < first else nr_pages, key=key)

    @precondition(has_processes)
    @rule(which=fractions, where=fractions, word=words)
    def map_over(self, which: float, where: float, word: str) -> None:
        """A page where one is absent: it is numbered behind the region that has the old one."""
        both = self.pick(which)
        number = self.pick_page(both, where)
        if both.space.pages[number].present or len(both.space.pages) > 12:
            return
        addresses = [
            address
            for region in both.process.regions
            for address in region.address + np.arange(self.nr_pages(region)) * self.page_size
        ]
        address = int(addresses[number])
        taken = zip(addresses, both.space.pages, strict=True)
        if any(page.present for other, page in taken if other == address):
            return
        array = Array.of([word], self.page_size, both.immutable, both.tracked)
        self.arrays.append(array)
        at = sum(self.nr_pages(region) for region in both.process.regions if region.address <= address)
        both.process.map(lksm.Region(address, array.pages))
        self.model.map(both.space, list(array.cells), at)

    @precondition(has_processes)
    @rule(which=fractions, one=fractions, two=fractions, mergeable=st.booleans())
    def advise(self, which: float, one: float, two: float, mergeable: bool) -> None:
        both = self.pick(which)
        start, stop = self.pick_range(both, one, two)
        both.process.advise("mergeable" if mergeable else "unmergeable", start, stop)
        self.model.advise(both.space, mergeable, start, stop)

    @precondition(has_processes)
    @rule(which=fractions, one=fractions, two=fractions, node=fractions)
    def move(self, which: float, one: float, two: float, node: float) -> None:
        both, lies_on = self.pick(which), int(node * self.nodes)
        start, stop = self.pick_range(both, one, two)
        both.process.move(start, stop, lies_on)
        self.model.move(both.space, start, stop, lies_on)

    @precondition(has_processes)
    @rule(which=fractions, domain=st.sampled_from([0, 7, 2**32 - 1]))
    def set_domain(self, which: float, domain: int) -> None:
        both = self.pick(which)
        both.process.domain = domain
        self.model.set_domain(both.space, domain)

    # ---- memory nodes

    @rule(node=fractions)
    def offline(self, node: float) -> None:
        lies_on = int(node * self.nodes)
        with self.engine.offlining(lies_on):
            pass
        self.model.offline(lies_on)

    @rule(apart=st.booleans())
    def keep_apart(self, apart: bool) -> None:
        """Only while nothing is shared."""
        if self.engine.counters().pages_shared and apart != (not self.engine.knobs.merge_across_nodes):
            with pytest.raises(lksm.KnobError, match="pages are shared"):
                self.engine.knobs.merge_across_nodes = not apart
            return
        self.engine.knobs.merge_across_nodes = not apart
        self.model.apart = apart

    @precondition(has_processes)
    @rule(which=fractions, is_on=st.sampled_from([True, True, False]))
    def merge_any(self, which: float, is_on: bool) -> None:
        both = self.pick(which)
        both.process.merge_any = is_on
        self.model.set_merge_any(both.space, is_on)
        assert both.process.merge_any == both.space.merge_any

    # ---- scans

    @rule(ms=st.sampled_from([1, 49, 50, 1950]))
    def tick(self, ms: int) -> None:
        self.model.now = self.clock.tick(ms)

    @rule(ms=st.sampled_from([0, 50, 2000]))
    def set_prune_delay(self, ms: int) -> None:
        self.engine.knobs.stable_node_chains_prune_millisecs = self.model.prune_millisecs = ms

    @rule(is_on=st.booleans())
    def use_zero_pages(self, is_on: bool) -> None:
        self.engine.sysfs.write("use_zero_pages", "Y" if is_on else "N")
        self.model.use_zero_pages = is_on

    @precondition(lambda self: not self.model.scanning)
    @rule(mode=st.sampled_from(["full", "full", "partial"]), unfiltered=st.booleans())
    def crawl(self, mode: Literal["full", "partial"], unfiltered: bool) -> None:
        queued = self.engine.crawl(mode, unfiltered=unfiltered)
        assert queued == self.model.crawl(mode, unfiltered=unfiltered)
        assert [both.process for both in self.queued()] == list(self.engine.queue)

    @precondition(lambda self: self.model.scanning)
    @rule(budget=st.integers(1, 9))
    def scan(self, budget: int) -> None:
        visited = self.engine.scan(budget)
        expected = self.model.scan(budget)
        if self.certain or not self.model.smart_scan:
            assert visited == expected
        else:  # how far a batch reaches depends on what is left out
            while self.engine.scanning:
                self.engine.scan(10**6)
            self.model.finish()

    @rule(times=st.integers(1, 3))
    def full(self, times: int) -> None:
        for _ in range(times):
            self.engine.full()
            self.model.full()
            self.note_frames()

    @rule()
    def full_unfiltered(self) -> None:
        self.engine.full(unfiltered=True)
        self.model.full(unfiltered=True)

    @rule(times=st.integers(1, 3))
    def partial(self, times: int) -> None:
        for _ in range(times):
            self.engine.partial()
            self.model.partial()

    @rule(value=st.sampled_from(["0", "1", None]))
    def unmerge(self, value: str | None) -> None:
        self.engine.sysfs.write("run", "2")
        self.model.unmerge()
        if not self.certain:
            self.model.events_gone = self.events_of(None)
            for domain in {space.domain for space in self.model.spaces}:
                self.model.events[domain] = self.events_of(domain)
                self.model.events_gone.subtract(self.model.events[domain])
            self.certain = True
        if value is not None:
            self.engine.sysfs.write("run", value)
            self.model.resume()

    def events_of(self, domain: int | None) -> Counter[str]:
        now = self.engine.counters(domain)
        names = ("merged", "broken", "pages_scanned", "pages_skipped")
        return Counter({name: getattr(now, name) for name in names})

    @precondition(lambda self: self.model.unmerging)
    @rule(value=st.sampled_from(["0", "1"]))
    def resume(self, value: str) -> None:
        self.engine.sysfs.write("run", value)
        self.model.resume()

    @precondition(lambda self: not self.model.unmerging)
    @rule()
    def settle(self) -> None:
        """Whatever happened before: after quiet full scans all equal pages are merged, and no others."""
        smart_scan, self.engine.knobs.smart_scan, self.model.smart_scan = self.model.smart_scan, False, False
        for _ in range(6):
            self.engine.full(unfiltered=True)
            self.model.full(unfiltered=True)
        self.engine.knobs.smart_scan = self.model.smart_scan = smart_scan
        if self.model.apart:
            return
        cells_of: defaultdict[tuple[int, bytes], set[int]] = defaultdict(set)
        frames_of: defaultdict[tuple[int, bytes], set[int]] = defaultdict(set)
        contents_of: defaultdict[int, set[bytes]] = defaultdict(set)
        for both, table in zip(self.all, self.tables_now(), strict=True):
            for page, frame in zip(both.space.pages, table, strict=True):
                if page.scannable and page.cell is not None:
                    key = (page.space.domain, page.cell.content)
                    cells_of[key].add(id(page.cell))
                    frames_of[key].add(frame)
                    contents_of[frame].add(page.cell.content)
        assert all(len(contents) == 1 for frame, contents in contents_of.items() if frame >= 0)
        for key, cells in cells_of.items():
            if not any(key[1]):  # some may be on the zero frame, others merged earlier or later
                assert -1 not in frames_of[key] or not self.model.use_zero_pages
            elif 2 <= len(cells) <= self.model.max_page_sharing and self.model.max_page_sharing == 256:
                assert len(frames_of[key]) == 1 and min(frames_of[key]) >= 0
            assert -2 not in frames_of[key] or not any(key[1])
        by_domain = [set(frames) - {-1, -2} for frames in self.frames_by_domain().values()]
        assert sum(map(len, by_domain)) == len(set().union(*by_domain)), "two domains share a frame"

    def frames_by_domain(self) -> dict[int, list[int]]:
        found: defaultdict[int, list[int]] = defaultdict(list)
        for both, table in zip(self.all, self.tables_now(), strict=True):
            found[both.space.domain] += [frame for frame in table if frame != -3]
        return found

    # ---- what must hold after every step

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "engine"):
            assert self.engine.check() == []

    @invariant()
    def content_intact(self) -> None:
        """Every page of every process reads back what was last written to it."""
        for both in getattr(self, "all", []):
            for number, page in enumerate(both.space.pages):
                if page.present and page.cell is not None:
                    assert both.process.read(number).tobytes() == page.cell.content

    @invariant()
    def counters_equal(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.certain &= not self.model.is_open
        self.model.is_open = False
        for domain in (None, 0, 7):
            expected = self.model.counters(domain)
            counters = self.engine.counters(domain)
            actual = {name: getattr(counters, name) for name in expected}
            assert actual["merged"] - actual["broken"] == actual["pages_sharing"] or domain is not None
            if not self.certain:
                names = [name for name in CERTAIN if name != "pages_scanned" or not self.model.smart_scan]
                expected = {name: expected[name] for name in names}
                actual = {name: actual[name] for name in names}
            assert actual == expected

    @invariant()
    def shares_equal(self) -> None:
        """The merges that filters have learned, or could not because of their sizes."""
        if hasattr(self, "engine") and self.certain:
            data, bss, conflicted = self.model.shares.values()
            shares = f"heap:0 stack:0 file_data:{data} file_bss:{bss} conflicted:{conflicted}\n"
            assert self.engine.sysfs.read("region_share") == shares

    @invariant()
    def savings_equal(self) -> None:
        """Profit counts every page that is saved once, whoever maps it; processes count their zero pages."""
        if not hasattr(self, "engine"):
            return
        for both, table in zip(self.all, self.tables_now(), strict=True):
            assert both.process.stats().zero_pages == table.count(-2)
        if self.certain:
            memory = self.engine.memory()
            bookkeeping = sum(memory.values()) - memory["frames"]
            saved = self.engine.counters().general_profit + bookkeeping
            assert saved == self.model.pages_saved() * self.page_size

    @invariant()
    def statistics_equal(self) -> None:
        """What processes contribute is the model's, and adds up to the counters."""
        merging = 0
        for both in getattr(self, "all", []):
            expected, stats = both.space.stats(), both.process.stats()
            actual = {name: getattr(stats, name) for name in expected}
            merging += stats.merging_pages
            saved = (stats.merging_pages + stats.zero_pages) * self.page_size
            assert stats.profit_bytes == saved - stats.rmap_items * 64
            if not self.certain:
                for name in ("merging_pages", "unshared", "volatile", "zero_pages"):
                    del expected[name], actual[name]
            assert actual == expected
        if hasattr(self, "engine"):
            counters = self.engine.counters()
            assert merging == counters.pages_shared + counters.pages_sharing

    @invariant()
    def merge_windows_equal(self) -> None:
        for both in getattr(self, "all", []):
            if self.windows_certain:
                assert both.process.stats().nr_merged == sum(both.space.window)

    @invariant()
    def page_tables_equal(self) -> None:
        if not hasattr(self, "engine"):
            return
        actual = partition(self.tables_now())
        expected = partition(model_tables(self.model))
        note(f"engine {actual}, model {expected}")
        if self.certain:
            assert actual == expected
            self.note_frames()
        else:
            assert [[frame == -3 for frame in table] for table in actual] == [
                [frame == -3 for frame in table] for table in expected
            ]


def model_tables(model: Model) -> list[list[int]]:
    """The model's page tables: a number for each node, -1 private, -2 zero frame, -3 absent."""
    names: dict[int, int] = {}

    def entry(page: Page) -> int:
        if not page.present:
            return -3
        if page.zero:
            return -2
        node = model.frame_shown(page)
        return -1 if node is None else names.setdefault(id(node), len(names))

    return [[entry(page) for page in space.pages] for space in model.spaces]


TestEngineAndModel = EngineAndModel.TestCase


@given(nr_pages=st.integers(2, 60), limit=st.integers(2, 9))
def test_the_referee_knows_the_closed_form(nr_pages: int, limit: int) -> None:
    """Equal pages scanned once give table 3.9.4, whatever the limit: the referee is refereed too."""
    model = Model(initial_rounds=0, max_page_sharing=limit)
    model.attach([Cell(b"P") for _ in range(nr_pages)], mergeable=True)
    model.full()
    full, rest = divmod(nr_pages, limit)
    frames = full + (rest >= 2)
    counters = model.counters()
    assert counters["pages_shared"] == frames
    assert counters["pages_unshared"] == (rest == 1)
    assert counters["pages_sharing"] == nr_pages - frames - (rest == 1)
    assert counters["stable_node_chains"] == (frames > 1)
    assert counters["stable_node_dups"] == (frames if frames > 1 else 0)


def test_the_referee_knows_rows_27_and_28() -> None:
    """A chain with one frame left counts until its time has come, or until it is searched for."""
    for ms, is_searched in ((0, False), (2000, False), (0, True)):
        model = Model(initial_rounds=0, max_page_sharing=3, prune_millisecs=2000)
        cells = [Cell(b"P") for _ in range(5)]
        model.attach([*cells], mergeable=True)
        model.full()
        for number, cell in enumerate(cells[:3]):
            cell.content = b"%d" % number
        model.full()
        assert model.counters()["stable_node_chains"] == 1
        if is_searched:
            model.attach([Cell(b"P")], mergeable=True)
        model.now += ms
        model.full()
        counters = model.counters()
        chains = int(not ms and not is_searched)
        assert (counters["stable_node_chains"], counters["stable_node_dups"]) == (chains, chains)

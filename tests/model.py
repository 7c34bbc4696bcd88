"""The referee: what the engine must do, as a page of dictionaries. It is meant to be obvious, never fast.

A *cell* is one physical page: its bytes. A *space* is a process: a list of *pages*, each looking at a cell.
Pages lie in *areas*; areas of one key and role have one *filter*: the offsets where a page ever merged.
Every page that was visited has an *item*, which is volatile, unstable or stable. Merged contents are
*nodes*: the bytes and the items that share them. Two dictionaries replace the trees: `nodes` from a place to
the nodes that are there, `unstable` from a place to the candidate of this round. A place is a domain, a
tree of it and the bytes. A third, `chains`, has the places of chains, and when each was last pruned.

The numbers behind the comments are rows and sections of the specification: "row 4" is the decision table
for one page (3.3), "L2" the rule for finding its item (3.2), "2.7" the merge window, "7.5" the states of a
slot.

Where the model is exact, and where it cannot be:

- The unstable tree is compared with the bytes a candidate has *now*, so a page that is written after it was
  filed may be missed or found (U-4). `is_filed` says whether a page is filed at present: once such a page
  is written in the middle of a scan, the model is a guess until the scan state is thrown away (`run` = 2),
  and only the invariants can be compared.
- The bytes of a page are its checksum. A real checksum of 0 on a first visit would pass the gate at once;
  that is one page in 2^31.
- Which of several dups that have room is joined is the engine's choice; `choose` tells the model. Only of a
  chain that is due to be pruned it must be a fullest one (3.9.2). If the frames of some of them were moved to
  other memory nodes, which of these a search meets is open, and so is all that follows: `is_open`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

Place = tuple[int, int, bytes]
"""Domain, tree, content."""


class State(Enum):
    """Where an item is linked: nowhere, among this (or an earlier) round's candidates, to a node."""

    VOLATILE = "volatile"
    UNSTABLE = "unstable"
    STABLE = "stable"


class Pending(Enum):
    """Why a slot is in the queue (7.5)."""

    NONE = "none"
    NORMAL = "normal"
    FROZEN = "frozen"


@dataclass(eq=False)
class Cell:
    """One physical page. Pages that look at the same cell are one page and never merge with each other."""

    content: bytes


@dataclass(eq=False)
class Node:
    """One frame: its bytes, which never change, and the items merged into it."""

    content: bytes
    domain: int
    memory_node: int  # where the frame lies
    place: Place | None = None  # None: on the migrate list (9.2)
    items: list[Item] = field(default_factory=list)


@dataclass(eq=False)
class Item:
    """What is remembered about a page that was visited."""

    page: Page
    state: State = State.VOLATILE
    node: Node | None = None
    checksum: bytes | None = None  # of the last visit that the gate looked at
    age: int = 0  # visits while not merged (12.3)
    remaining_skips: int = 0
    is_alias: bool = False  # at its last visit another page stood for its cell


@dataclass(eq=False)
class Filter:
    """What is known of the areas that have one key (11.1)."""

    birth: int  # rounds prepared when the first of them came
    nr_words: int  # 64 pages each, for the largest
    offsets: set[int] = field(default_factory=set)
    nr_conflicts: int = 0

    @property
    def is_conflicted(self) -> bool:
        return self.nr_conflicts >= 2


Key = tuple[str, str]  # key and role of an area; its domain is another matter


@dataclass(eq=False)
class Area:
    """A run of pages of one space."""

    nr_pages: int
    key: Key | None = None

    @property
    def nr_words(self) -> int:
        return max(1, -(-self.nr_pages // 64))


@dataclass(eq=False)
class Page:
    """One page of a space, the `offset`th of its area. `cell` is None if nothing is there; `mapped` is False
    after unmap.
    """

    space: Space
    cell: Cell | None
    area: Area
    offset: int
    mergeable: bool | None = None  # None: the next crawl marks it; False: opted out
    mapped: bool = True
    private: bool = False  # was merged, and has since been given its own bytes back
    item: Item | None = None
    zero: bool = False  # on the zero frame (3.4.2): no item, and looked at again in each pass
    inherited: bool = False  # by fork: the cell belongs to an ancestor, or to several descendants
    node: int = 0  # memory node of its own bytes

    @property
    def present(self) -> bool:
        return self.mapped and self.cell is not None

    @property
    def scannable(self) -> bool:
        return self.present and self.mergeable is True

    @property
    def frame(self) -> Node | None:
        """The node the page table shows: what the last visit knew, unless the page was made private since."""
        return self.item.node if self.item is not None and not self.private else None


@dataclass(eq=False)
class Space:
    """One process. With a number it has a slot. `window`: merges of its last three scans."""

    pages: list[Page] = field(default_factory=list)
    registered: int | None = None  # its number in the order of registration
    frozen: bool = False
    pending: Pending = Pending.NONE
    scanned: bool = False
    family: object = field(default_factory=object)  # the same for all that descend from one by fork
    window: list[int] = field(default_factory=lambda: [0, 0, 0])
    merged: int = 0  # pages that joined a sharer since its last completed scan
    completion: int = 0  # which of all completed scans was its last
    runtime_ms: int | None = None
    faults: int = 0
    faults_seen: int = 0  # when it was registered, or last chosen for its merges
    domain: int = 0
    merge_any: bool = False  # all its pages are offered, later ones too (12.1)

    @property
    def is_mergeable(self) -> bool:
        return any(page.scannable for page in self.pages)

    def stats(self) -> dict[str, int]:
        """What it contributes to the counters (12.6)."""
        states = [page.item.state for page in self.pages if page.item is not None]
        merging, zero_pages = states.count(State.STABLE), sum(page.zero for page in self.pages)
        return {
            "rmap_items": len(states),
            "merging_pages": merging,
            "unshared": states.count(State.UNSTABLE),
            "volatile": states.count(State.VOLATILE),
            "zero_pages": zero_pages,
            "mergeable": self.is_mergeable,
            "merge_any": self.merge_any,
        }


def is_zero(page: Page) -> bool:
    return page.cell is not None and not any(page.cell.content)


def first_of(page: Page, targets: list[Node]) -> Node:
    """The choice of a dup when nobody else makes it."""
    return targets[0]


class Model:
    """Processes, their pages and everything a scan knows about them."""

    def __init__(
        self,
        *,
        initial_rounds: int = 3,
        max_page_sharing: int = 256,
        max_vips: int = 20,
        short_lived_ms: int = 100,
        is_upstream: bool = False,
        smart_scan: bool = False,
        prune_millisecs: int = 2000,
        use_zero_pages: bool = False,
        apart: bool = False,
        filter_maturity: int | None = None,
        filter_sweep_interval: int = 64,
        choose: Callable[[Page, list[Node]], Node] = first_of,
    ) -> None:
        self.initial_rounds = initial_rounds
        self.max_page_sharing = max_page_sharing
        self.max_vips = max_vips
        self.short_lived_ms = 0 if is_upstream else short_lived_ms
        self.is_upstream = is_upstream
        self.smart_scan = smart_scan
        self.prune_millisecs = prune_millisecs
        self.now = 0
        self.use_zero_pages = use_zero_pages
        self.apart = apart  # merge_across_nodes = 0
        self.filter_maturity = filter_maturity  # None: there are no filters
        self.filter_sweep_interval = filter_sweep_interval
        self.filters: dict[tuple[int, Key], Filter] = {}  # by domain too
        self.shares = {"data": 0, "bss": 0, "conflicted": 0}
        self.is_unfiltered = False
        self.nr_full = 0  # full scans prepared
        self.area: Area | None = None  # the walk is in this one
        self.is_learning = False  # nothing was known of it when the walk came
        self.choose = choose
        self.is_open = False
        self.spaces: list[Space] = []
        self.nodes: dict[Place, list[Node]] = {}
        self.migrating: list[Node] = []
        self.chains: dict[Place, int] = {}
        self.unstable: dict[Place, Item] = {}
        self.queue: list[Space] = []  # the slot under the cursor is the first
        self.cursor: int | None = None  # the next page of that slot, None between slots
        self.candidates: list[Space] = []  # frozen before they were registered, in that order
        self.scanning = ""  # the mode of the scan that is under way
        self.unmerging = False  # run = 2
        self.nr_registered = 0
        self.nr_completed = 0
        self.crawl_round = 0
        self.scan_round = 0
        self.full_scans = 0
        self.events: defaultdict[int, Counter[str]] = defaultdict(Counter)  # of domains that have processes
        self.events_gone: Counter[str] = Counter()  # of domains that all have left

    # ---- what others look at

    def all_pages(self) -> Iterator[Page]:
        for space in self.spaces:
            yield from space.pages

    def all_items(self) -> list[Item]:
        return [page.item for page in self.all_pages() if page.item is not None]

    def all_nodes(self) -> list[Node]:
        return [node for dups in self.nodes.values() for node in dups] + self.migrating

    def counters(self, domain: int | None = None) -> dict[str, int]:
        """Every counter, counted from scratch; of one domain, or of all."""
        spaces = [space for space in self.spaces if domain in (None, space.domain)]
        items = [item for item in self.all_items() if item.page.space in spaces]
        nodes = [node for node in self.all_nodes() if domain in (None, node.domain)]
        chains = [place for place in self.chains if domain in (None, place[0])]
        events = self.events[domain] if domain is not None else sum(self.events.values(), self.events_gone)
        shared = len(nodes)
        sharing = sum(len(node.items) - 1 for node in nodes)
        unshared = sum(item.state is State.UNSTABLE for item in items)
        return {
            "rmap_items": len(items),
            "pages_shared": shared,
            "pages_sharing": sharing,
            "pages_unshared": unshared,
            "pages_volatile": len(items) - shared - sharing - unshared,
            "stable_node_chains": len(chains),
            "stable_node_dups": sum(len(self.nodes[place]) for place in chains),
            "merged": events["merged"],
            "broken": events["broken"],
            "zero_pages": sum(page.zero for space in spaces for page in space.pages),
            "pages_scanned": events["pages_scanned"],
            "pages_skipped": events["pages_skipped"],
            "nr_regions": sum(domain in (None, key[0]) for key in self.filters),
            "scanning_process": sum(space.registered is not None for space in spaces),
            "nr_frozen": sum(space.pending is Pending.FROZEN for space in spaces),
            "nr_scannable": sum(space.pending is Pending.NORMAL for space in spaces),
            "full_scans": self.full_scans,
            "scan_round": self.scan_round,
        }

    def pages_saved(self) -> int:
        """Sharers beyond the first of each frame, and zero pages: as many as there are cells in a domain."""
        sharing = sum(len(node.items) - 1 for node in self.all_nodes())
        return sharing + len({(page.space.domain, id(page.cell)) for page in self.all_pages() if page.zero})

    def first_visited(self, page: Page) -> Page | None:
        """Another page that stands for the cell of this one, if there is any."""
        for other in self.all_pages():
            is_same = (
                other is not page and other.cell is page.cell and other.space.domain == page.space.domain
            )
            if is_same and other.item and not other.item.is_alias:
                return other
        return None

    def frame_shown(self, page: Page) -> Node | None:
        """What the page table shows: the page's own node, or that of the page that stands for its cell."""
        if page.item is None or not page.item.is_alias:
            return page.frame
        first = self.first_visited(page)
        return first.frame if first is not None else None

    def same_in_writer(self, page: Page) -> list[Page]:
        """The places where the page's own process inherited it: usually one."""
        return [other for other in page.space.pages if other.inherited and other.cell is page.cell]

    def relatives(self, page: Page) -> list[Page]:
        """Pages of other processes that still share this page because of a fork."""
        return [
            other
            for other in self.all_pages()
            if other.inherited
            and other.present
            and other.cell is page.cell
            and other.space is not page.space
            and other.space.family is page.space.family
        ]

    def is_filed(self, cell: Cell | None) -> bool:
        """A page that looks at this cell is a candidate of the round that is under way."""
        return bool(self.scanning) and any(item.page.cell is cell for item in self.unstable.values())

    # ---- events

    def attach(
        self,
        cells: list[Cell | None],
        *,
        mergeable: bool | None = None,
        frozen: bool = False,
        node: int = 0,
        domain: int = 0,
        sizes: list[int] | None = None,
        key: Key | None = None,
    ) -> Space:
        """A space of areas of these sizes, one by default, all of one key."""
        space = Space(frozen=frozen, domain=domain)
        rest = list(cells)
        for size in sizes or [len(cells)]:
            space.pages += self._area(space, rest[:size], mergeable, key, node)
            rest = rest[size:]
        self.spaces.append(space)
        if frozen:
            self.candidates.append(space)
        if mergeable and space.is_mergeable:
            self._register(space)
            self._enqueue(space)
        return space

    def fork(self, parent: Space) -> Space:
        """The child looks at the parent's cells, inherits what is mergeable, and waits for the next crawl."""
        child = Space(family=parent.family, runtime_ms=0, domain=parent.domain, merge_any=parent.merge_any)
        if parent.registered is not None:
            self._register(child)
        areas = {id(page.area): Area(page.area.nr_pages, page.area.key) for page in parent.pages}
        for page in parent.pages:
            child.pages.append(replace(page, space=child, area=areas[id(page.area)], inherited=True))
            child.pages[-1].private, child.pages[-1].item = False, None
        self.spaces.append(child)
        return child

    def write(self, cell: Cell, new: bytes) -> None:
        """The owner writes its array and tells nobody: everyone who looks at the cell sees it."""
        cell.content = new

    def process_write(self, page: Page, new: bytes) -> None:
        """A write through the process: a fork ends for this page, its entry is private at once."""
        assert page.cell is not None
        copy = Cell(page.cell.content)
        for other in self.same_in_writer(page) if page.inherited else self.relatives(page):
            other.cell = copy
        page.cell.content = new
        page.space.faults += 1
        self._make_private(page)

    def told(self, pages: list[Page]) -> None:
        """Tracked pages may have been written: that they are zeros is no longer known, even if it is so."""
        for page in pages:
            page.zero = False

    def map(
        self, space: Space, cells: list[Cell | None], at: int, node: int = 0, key: Key | None = None
    ) -> None:
        """New pages get the numbers from `at` on; those that had them, and the cursor, move up."""
        space.pages[at:at] = self._area(space, cells, None, key, node)
        if self._is_under_cursor(space) and self.cursor is not None and self.cursor >= at:
            self.cursor += len(cells)
        if space.merge_any:
            self._join(space)

    def unmap(self, space: Space, start: int, stop: int) -> None:
        for page in space.pages[start:stop]:
            page.mapped = False
            self._make_private(page)
        self._drop_filters()

    def advise(self, space: Space, mergeable: bool, start: int, stop: int) -> None:
        for page in space.pages[start:stop]:
            page.mergeable = mergeable
            if not mergeable:
                self._make_private(page)
        if space.registered is None and space.is_mergeable:
            self._register(space)
            self._enqueue(space)

    def move(self, space: Space, start: int, stop: int, node: int) -> None:
        """To another memory node. A merged page takes its frame along; what stands for the page goes too."""
        for page in space.pages[start:stop]:
            page.node = node
            if page.item is None or not page.present:
                continue
            first = (self.first_visited(page) if page.item.is_alias else None) or page
            first.node = node
            if first.frame is not None:
                first.frame.memory_node = node

    def set_domain(self, space: Space, domain: int) -> None:
        """It is unmerged first; then nothing of it is known there."""
        if domain == space.domain:
            return
        for page in space.pages:
            self._free_item(page)
            page.zero = False
        before, space.domain = space.domain, domain
        self._forget_domain(before)
        self._drop_filters()
        self._join_filters(domain, space.pages)

    def offline(self, node: int) -> None:
        """The frames on a memory node are gone; their pages are private (9.3, 3.10)."""
        for frame in [frame for frame in self.all_nodes() if frame.memory_node == node]:
            self.events[frame.domain]["broken"] += len(frame.items) - 1
            for item in frame.items:
                item.state, item.node, item.page.private = State.VOLATILE, None, False
            frame.items = []
            self._remove_node(frame)

    def set_merge_any(self, space: Space, is_on: bool) -> None:
        """All pages are offered, or taken out; setting what is set does nothing (12.1)."""
        if space.merge_any == is_on:
            return
        space.merge_any = is_on
        self.advise(space, is_on, 0, len(space.pages))
        if is_on and space.registered is None:  # though it has nothing to offer
            self._register(space)
            self._enqueue(space)

    def freeze(self, space: Space) -> None:
        space.frozen = True
        if space.registered is None and space not in self.candidates:
            self.candidates.append(space)
        if space.registered is not None and not self._is_under_cursor(space):
            if space.pending is Pending.NONE:
                self.queue.append(space)
            space.pending = Pending.FROZEN

    def thaw(self, space: Space) -> None:
        if space in self.candidates:
            self.candidates.remove(space)
        if not space.frozen:
            return
        space.frozen = False
        if space.pending is Pending.FROZEN and not self._is_under_cursor(space):
            if space.scanned:
                self._leave_queue(space)
                if self.scanning and not self.queue:
                    self._wrap_up()
            else:
                space.pending = Pending.NORMAL

    def exit(self, space: Space) -> None:
        for page in space.pages:
            self._free_item(page)
        self._leave_queue(space)
        self.spaces.remove(space)
        self._forget_domain(space.domain)
        self._drop_filters()
        if space in self.candidates:
            self.candidates.remove(space)
        if self.scanning and not self.queue:
            self._wrap_up()

    def unmerge(self) -> None:
        """run = 2: every page private, every item gone, the scan cancelled (4.3). Twice is once."""
        if self.unmerging:
            return
        for page in self.all_pages():
            self._free_item(page)
            page.zero = False
        for space in self.spaces:
            space.pending = Pending.NONE
        self.queue, self.cursor, self.scanning = [], None, ""
        self.scan_round = 0
        self.full_scans = 0 if self.is_upstream else self.full_scans
        self.unmerging = True

    def resume(self) -> None:
        """run = 0, 1 or 8 after run = 2."""
        self.unmerging = False

    # ---- crawl and scan

    def crawl(self, mode: str = "full", *, unfiltered: bool = False) -> int:
        """Prepare a scan: who waits already, candidates, newcomers, then those that the mode adds."""
        assert not self.scanning
        if self.unmerging:
            return 0
        while self.candidates:  # the latest first (5.5)
            self._join(self.candidates.pop())
        nr_chosen = Counter(space.domain for space in self.spaces if space.pending is Pending.FROZEN)
        for space in self.spaces:  # 5.4
            if space.runtime_ms is None or space.runtime_ms >= self.short_lived_ms:
                nr_chosen[space.domain] += self._join(space)
        if mode == "full":
            self._add_others()
        else:
            self._add_vips(nr_chosen)
        self.crawl_round += 1
        self.nr_full += mode == "full"
        interval = self.filter_sweep_interval
        is_sweep = mode == "full" and interval > 0 and self.nr_full % interval == 0  # FD-11
        self.is_unfiltered = unfiltered or is_sweep
        self.scanning = mode if self.queue else ""
        return len(self.queue)

    def _join(self, space: Space) -> bool:
        """Mark its pages and register it. Is it a new one?"""
        for page in space.pages:
            if page.mergeable is None:
                page.mergeable = True
        if space.registered is not None or not space.is_mergeable:
            return False
        self._register(space)
        self._enqueue(space)
        return True

    def _add_others(self) -> None:
        """All that are registered and do not wait, in the order of registration (5.9)."""
        registered = [space for space in self.spaces if space.registered is not None]
        for space in sorted(registered, key=lambda space: space.registered or 0):
            if space.pending is Pending.NONE:
                space.scanned = False
                self._enqueue(space)

    def _add_vips(self, nr_chosen: Counter[int]) -> None:
        """Running ones with recent merges and new faults go to the front, best first (5.6), by domain."""
        ranked = sorted(
            (space for space in self.spaces if space.registered is not None and any(space.window)),
            key=lambda space: (-sum(space.window), space.completion),
        )
        vips = []
        for space in ranked:
            if nr_chosen[space.domain] >= self.max_vips:
                continue
            if not space.frozen and space.faults != space.faults_seen:
                space.faults_seen = space.faults
                space.scanned = False
                nr_chosen[space.domain] += 1
                vips.append(space)
        for space in vips:
            if space.pending is Pending.NONE:
                space.pending = Pending.NORMAL
            else:
                self.queue.remove(space)
        self.queue[:0] = vips

    def scan(self, budget: int | None = None) -> int:
        """Visit up to `budget` pages and go on to the next one; if there is none, the scan is over."""
        visited = 0
        while self.scanning:
            page = self._find_page()
            if page is None and not self.queue:
                self._wrap_up()
            elif visited == budget or (page is None and self.is_upstream and visited):
                break  # upstream's batch ends with a walk over the queue
            elif page is None:  # late arrivals (6.1 B)
                continue
            else:
                self._advance()
                is_made = self._visit(page)
                self.events[page.space.domain]["pages_scanned"] += is_made
                visited += is_made
        return visited

    def finish(self) -> None:
        while self.scanning:
            self.scan()

    def full(self, *, unfiltered: bool = False) -> None:
        self.finish()
        self.crawl(unfiltered=unfiltered)
        self.finish()

    def partial(self) -> None:
        self.finish()
        self.crawl("partial")
        self.finish()

    def _find_page(self) -> Page | None:
        """Go to the next page to look at (3.1): free what is passed by, complete slots that end."""
        if self.cursor is None and self.queue:
            if self.scan_round < self.crawl_round:
                self.scan_round = self.crawl_round
                self.unstable = {}
            self._begin_slot()
        while self.cursor is not None:
            space = self.queue[0]
            for page in space.pages[self.cursor :]:
                self._enter(page.area)
                page.zero = page.zero and is_zero(page)  # looked at again
                if not page.scannable or page.zero:
                    self._free_item(page)
                elif not self._is_left_out(page):
                    return page
                self._advance()
            self._complete_slot(space)
        return None

    def _wrap_up(self) -> None:
        self.full_scans += self.scanning == "full"
        self.scanning = ""
        for place in [place for place in self.chains if self._is_due(place)]:
            self._prune(place)

    def _begin_slot(self) -> None:
        """The cursor goes to the first page of the first slot in the queue, or away if there is none."""
        self.cursor = 0 if self.queue else None
        self.area = None

    def _advance(self) -> None:
        assert self.cursor is not None
        self.cursor += 1

    def _complete_slot(self, space: Space) -> None:
        """The walk is over. A slot in which it found nothing goes (F9); any other is complete (3.11)."""
        is_wanted_again = space.frozen and space.pending is not Pending.FROZEN
        if space.is_mergeable or any(page.item for page in space.pages):
            space.scanned = True
            space.window = [*space.window[1:], space.merged]  # 2.7
            self.nr_completed += 1
            space.completion = self.nr_completed
        else:
            space.registered, space.window, space.completion = None, [0, 0, 0], 0
            is_wanted_again = False
        space.merged = 0
        self._leave_queue(space, again=is_wanted_again)

    # ---- filters (11)

    def _area(
        self, space: Space, cells: list[Cell | None], mergeable: bool | None, key: Key | None, node: int
    ) -> list[Page]:
        """The pages of a new area."""
        area = Area(len(cells), key if self.filter_maturity is not None else None)
        pages = [Page(space, cell, area, offset, mergeable, node=node) for offset, cell in enumerate(cells)]
        self._join_filters(space.domain, pages)
        return pages

    def _join_filters(self, domain: int, pages: list[Page]) -> None:
        """Areas with a page come to a domain, in this order."""
        for page in pages:
            if page.area.key is not None and page.present:
                known = Filter(self.crawl_round, page.area.nr_words)
                self.filters.setdefault((domain, page.area.key), known)

    def _drop_filters(self) -> None:
        """A filter goes with the last area that has its key and a page (FD-5, FD-6)."""
        alive = {(page.space.domain, page.area.key) for page in self.all_pages() if page.present}
        self.filters = {key: known for key, known in self.filters.items() if key in alive}

    def _filter_of(self, page: Page) -> Filter | None:
        key = page.area.key
        return None if key is None else self.filters.get((page.space.domain, key))

    def _enter(self, area: Area) -> None:
        """The walk comes to an area; one that needs another number of words is a conflict (11.6)."""
        if area is self.area:
            return
        self.area = area
        known = self.filters.get((self.queue[0].domain, area.key)) if area.key else None
        if known is None:
            return
        is_walked = any(page.scannable for page in self.queue[0].pages if page.area is area)
        if is_walked and not known.is_conflicted and area.nr_words not in (1, known.nr_words):
            known.nr_conflicts += 1
            known.nr_words = max(known.nr_words, area.nr_words)
            if known.is_conflicted:
                known.offsets = set()
        self.is_learning = not known.offsets

    def _is_left_out(self, page: Page) -> bool:
        known = self._filter_of(page)
        return (
            known is not None
            and self.filter_maturity is not None
            and bool(known.offsets)
            and not self.is_learning  # FD-10
            and page.offset not in known.offsets
            and self.scan_round - known.birth > self.filter_maturity
            and not self.is_unfiltered
            and page.space.completion > 0
            and page.space.pending is not Pending.FROZEN
        )

    def _learn(self, page: Page) -> None:
        """11.5"""
        known = self._filter_of(page)
        if known is None or page.area.key is None:
            return
        if known.is_conflicted:
            self.shares["conflicted"] += 1
            return
        known.offsets.add(page.offset)
        self.shares[page.area.key[1]] += 1

    # ---- one page

    def _visit(self, page: Page) -> bool:
        """The decision table of 3.3, or upstream's (12.2). Was the visit made, or left out (12.3)?"""
        assert page.cell is not None
        bytes_now = page.cell.content
        is_frozen = page.space.pending is Pending.FROZEN
        if page.item is None:
            page.item = Item(page)
            bypass = is_frozen  # L3
        else:
            bypass = is_frozen and page.item.state is State.UNSTABLE  # L2
        item = page.item
        if (
            item.node is not None
            and not page.private
            and item.node.content == bytes_now
            and self._stays(item)
        ):
            return True  # rows 1 to 3
        self._detach(item)  # row 4
        if self.smart_scan and self._is_skipped(item):
            self.events[page.space.domain]["pages_skipped"] += 1
            return False
        item.is_alias = self.first_visited(page) is not None
        mappings = [other for other in self.all_pages() if other.cell is page.cell]
        if is_zero(page) and any(other.zero for other in mappings if other.space.domain == page.space.domain):
            page.zero = True  # the same page is on the zero frame already
            return True
        if item.is_alias:
            return True  # same pointer, same page
        if self.is_upstream and self._is_gated(item, bytes_now):
            return True
        if self.is_upstream and self._goes_to_zero(page):
            return True
        place = self._place(page.space.domain, page.node, bytes_now)
        targets = self._targets(place)
        if targets:  # row 6
            self._attach(item, targets[0] if len(targets) == 1 else self.choose(page, targets))
            return True
        is_gate_open = self.is_upstream or self.scan_round >= self.initial_rounds or bypass
        if not is_gate_open and self._is_gated(item, bytes_now):  # row 7
            return True
        if self._goes_to_zero(page):  # row 8
            return True
        twin = self.unstable.get(place)
        if twin is None:  # row 10
            item.state = State.UNSTABLE
            self.unstable[place] = item
            return True
        if not twin.page.scannable:  # row 9: unmapped or opted out since
            return True
        if self._place(twin.page.space.domain, twin.page.node, bytes_now) != place:  # row 9: moved since
            return True
        self._detach(twin)  # rows 11 and 15
        node = Node(bytes_now, page.space.domain, page.node)
        self._file(node)
        self._attach(twin, node)
        self._attach(item, node)
        return True

    def _place(self, domain: int, node: int, content: bytes) -> Place:
        return domain, node if self.apart else 0, content

    def _place_of(self, node: Node) -> Place:
        """Where a frame belongs by the memory node it lies on."""
        return self._place(node.domain, node.memory_node, node.content)

    def _stays(self, item: Item) -> bool:
        """A merged page has not changed: if its frame was moved, that is filed anew (rows 1 and 3, 9.2)."""
        node = item.node
        assert node is not None
        if node.place == self._place_of(node):
            return True
        if node.place is not None:
            self._take_out(node)
        place = self._place_of(node)
        targets = self._targets(place)
        if place not in self.nodes or len(node.items) > 1:
            self._file(node)
            self.migrating.remove(node)
            return True
        if not targets:
            return False
        self._detach(item)
        self._attach(item, targets[0] if len(targets) == 1 else self.choose(item.page, targets))
        return True

    def _file(self, node: Node) -> None:
        place = node.place = self._place_of(node)
        self.nodes.setdefault(place, []).append(node)
        if len(self.nodes[place]) == 2:
            self.chains.setdefault(place, self.now)

    def _take_out(self, node: Node) -> None:
        """To the migrate list."""
        self._remove_node(node)
        node.place = None
        self.migrating.append(node)

    def _remove_node(self, node: Node) -> None:
        if node.place is None:
            self.migrating.remove(node)
            return
        self.nodes[node.place].remove(node)
        if not self.nodes[node.place]:
            del self.nodes[node.place]
            self.chains.pop(node.place, None)

    def _targets(self, place: Place) -> list[Node]:
        """The nodes that a page may join (3.9.1, 12.8): a search collapses or prunes the chain it meets.

        One whose frame was moved is no target: it goes to the migrate list, and the search begins again.
        """
        while True:
            targets = [node for node in self.nodes.get(place, []) if len(node.items) < self.max_page_sharing]
            if place in self.chains:
                if self._is_due(place):
                    fullest = max((len(node.items) for node in targets), default=0)
                    targets = [node for node in targets if len(node.items) == fullest]
                    self._prune(place)
                elif len(self.nodes[place]) == 1:
                    del self.chains[place]
            misplaced = [node for node in targets if self._place_of(node) != place]
            if not misplaced:
                return targets
            self.is_open |= len(targets) > 1
            self._take_out(misplaced[0])

    def _is_due(self, place: Place) -> bool:
        return self.now >= self.chains[place] + self.prune_millisecs

    def _prune(self, place: Place) -> None:
        if len(self.nodes[place]) == 1:
            del self.chains[place]
        else:
            self.chains[place] = self.now

    def _goes_to_zero(self, page: Page) -> bool:
        page.zero = self.use_zero_pages and is_zero(page)
        return page.zero

    @staticmethod
    def _is_gated(item: Item, bytes_now: bytes) -> bool:
        is_changed = item.checksum != bytes_now
        item.checksum = bytes_now
        return is_changed

    @staticmethod
    def _is_skipped(item: Item) -> bool:
        """12.3: from the fourth visit on, ever more visits are left out between two that are made."""
        age = item.age
        item.age = min(255, age + 1)
        if age < 3:
            return False
        if item.remaining_skips == 0:
            item.remaining_skips = 1 if age <= 3 else 2 if age <= 5 else 4 if age <= 8 else 8
            return False
        item.remaining_skips -= 1
        return True

    def _attach(self, item: Item, node: Node) -> None:
        """3.8"""
        if node.items:
            self.events[node.domain]["merged"] += 1
            item.page.space.merged += 1
        node.items.append(item)
        item.state, item.node, item.page.private = State.STABLE, node, False
        self._learn(item.page)

    def _detach(self, item: Item) -> None:
        """3.7"""
        if item.node is not None:
            item.node.items.remove(item)
            if item.node.items:
                self.events[item.node.domain]["broken"] += 1
            else:
                self._remove_node(item.node)
        self.unstable = {key: other for key, other in self.unstable.items() if other is not item}
        item.state, item.node = State.VOLATILE, None

    # ---- small change

    def _forget_domain(self, domain: int) -> None:
        """With its last process a domain is gone, and its counts are only in those of all."""
        if not any(space.domain == domain for space in self.spaces):
            self.events_gone += self.events.pop(domain, Counter())

    def _free_item(self, page: Page) -> None:
        if page.item is not None:
            self._detach(page.item)
            page.item = None
        page.private = False

    def _make_private(self, page: Page) -> None:
        page.zero = False
        page.private = page.item is not None and page.item.node is not None

    def _register(self, space: Space) -> None:
        self.nr_registered += 1
        space.registered = self.nr_registered
        space.scanned = False  # not since (M-7)
        space.faults_seen = space.faults
        if space in self.candidates:
            self.candidates.remove(space)

    def _enqueue(self, space: Space) -> None:
        if not self.unmerging:
            space.pending = Pending.FROZEN if space.frozen else Pending.NORMAL
            self.queue.append(space)

    def _leave_queue(self, space: Space, *, again: bool = False) -> None:
        was_under_cursor = self._is_under_cursor(space)
        if space in self.queue:
            self.queue.remove(space)
        space.pending = Pending.NONE
        if was_under_cursor:
            self._begin_slot()
        if again:
            self._enqueue(space)

    def _is_under_cursor(self, space: Space) -> bool:
        return self.cursor is not None and bool(self.queue) and self.queue[0] is space

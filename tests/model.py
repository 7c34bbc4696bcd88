"""The referee: what the engine must do, as a page of dictionaries. It is meant to be obvious, never fast.

A *cell* is one physical page: its bytes. A *space* is a process: a list of *pages*, each looking at a cell.
Every page that was visited has an *item*, which is volatile, unstable or stable. Merged contents are
*nodes*: the bytes and the items that share them. Two dictionaries replace the trees: `nodes` from bytes to
the nodes that have them, `unstable` from bytes to the candidate of this round. A third, `chains`, has the
contents that are chains, and when each was last pruned.

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
  chain that is due to be pruned it must be a fullest one (3.9.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum


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
    alias_of: Page | None = None  # the page visited first of all that look at its cell, if not this one


@dataclass(eq=False)
class Page:
    """One page of a space. `cell` is None if nothing is there; `mapped` is False after unmap."""

    space: Space
    cell: Cell | None
    mergeable: bool | None = None  # None: the next crawl marks it; False: opted out
    mapped: bool = True
    private: bool = False  # was merged, and has since been given its own bytes back
    item: Item | None = None
    zero: bool = False  # on the zero frame (3.4.2): no item, and looked at again in each pass
    inherited: bool = False  # by fork: the cell belongs to an ancestor, or to several descendants

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
        self.choose = choose
        self.spaces: list[Space] = []
        self.nodes: dict[bytes, list[Node]] = {}
        self.chains: dict[bytes, int] = {}
        self.unstable: dict[bytes, Item] = {}
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
        self.merged = 0
        self.broken = 0
        self.pages_scanned = 0
        self.pages_skipped = 0

    # ---- what others look at

    def all_pages(self) -> Iterator[Page]:
        for space in self.spaces:
            yield from space.pages

    def all_items(self) -> list[Item]:
        return [page.item for page in self.all_pages() if page.item is not None]

    def all_nodes(self) -> list[Node]:
        return [node for dups in self.nodes.values() for node in dups]

    def counters(self) -> dict[str, int]:
        """Every counter, counted from scratch."""
        items, nodes = self.all_items(), self.all_nodes()
        shared = len(nodes)
        sharing = sum(len(node.items) - 1 for node in nodes)
        unshared = sum(item.state is State.UNSTABLE for item in items)
        return {
            "rmap_items": len(items),
            "pages_shared": shared,
            "pages_sharing": sharing,
            "pages_unshared": unshared,
            "pages_volatile": len(items) - shared - sharing - unshared,
            "stable_node_chains": len(self.chains),
            "stable_node_dups": sum(len(self.nodes[content]) for content in self.chains),
            "merged": self.merged,
            "broken": self.broken,
            "zero_pages": sum(page.zero for page in self.all_pages()),
            "pages_scanned": self.pages_scanned,
            "pages_skipped": self.pages_skipped,
            "scanning_process": sum(space.registered is not None for space in self.spaces),
            "nr_frozen": sum(space.pending is Pending.FROZEN for space in self.spaces),
            "nr_scannable": sum(space.pending is Pending.NORMAL for space in self.spaces),
            "full_scans": self.full_scans,
            "scan_round": self.scan_round,
        }

    def pages_saved(self) -> int:
        """Sharers beyond the first of each frame, and zero pages: as many as there are cells."""
        sharing = sum(len(node.items) - 1 for node in self.all_nodes())
        return sharing + len({id(page.cell) for page in self.all_pages() if page.zero})

    def first_visited(self, page: Page) -> Page | None:
        """Another page that stands for the cell of this one, if there is any."""
        for other in self.all_pages():
            if other is not page and other.cell is page.cell and other.item and not other.item.alias_of:
                return other
        return None

    def frame_shown(self, page: Page) -> Node | None:
        """What the page table shows: the page's own node, or that of the page it is one with."""
        first = page.item.alias_of if page.item else None
        if first is None:
            return page.frame
        return first.frame if first.cell is page.cell else None

    def lags(self, page: Page) -> bool:
        """The page it was one with has gone; nothing is said of it until its next visit."""
        first = page.item.alias_of if page.item and not page.zero else None
        return first is not None and first is not self.first_visited(page)

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
        self, cells: list[Cell | None], *, mergeable: bool | None = None, frozen: bool = False
    ) -> Space:
        space = Space(frozen=frozen)
        space.pages = [Page(space, cell, mergeable) for cell in cells]
        self.spaces.append(space)
        if frozen:
            self.candidates.append(space)
        if mergeable and space.is_mergeable:
            self._register(space)
            self._enqueue(space)
        return space

    def fork(self, parent: Space) -> Space:
        """The child looks at the parent's cells, inherits what is mergeable, and waits for the next crawl."""
        child = Space(family=parent.family, runtime_ms=0, merge_any=parent.merge_any)
        if parent.registered is not None:
            self._register(child)
        for page in parent.pages:
            child.pages.append(
                Page(child, page.cell, page.mergeable, page.mapped, zero=page.zero, inherited=True)
            )
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

    def map(self, space: Space, cells: list[Cell | None], at: int) -> None:
        """New pages get the numbers from `at` on; those that had them, and the cursor, move up."""
        space.pages[at:at] = [Page(space, cell) for cell in cells]
        if self._is_under_cursor(space) and self.cursor is not None and self.cursor >= at:
            self.cursor += len(cells)
        if space.merge_any:
            self._join(space)

    def unmap(self, space: Space, start: int, stop: int) -> None:
        for page in space.pages[start:stop]:
            page.mapped = False
            self._make_private(page)

    def advise(self, space: Space, mergeable: bool, start: int, stop: int) -> None:
        for page in space.pages[start:stop]:
            page.mergeable = mergeable
            if not mergeable:
                self._make_private(page)
        if space.registered is None and space.is_mergeable:
            self._register(space)
            self._enqueue(space)

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
        self.unmerging = True

    def resume(self) -> None:
        """run = 0, 1 or 8 after run = 2."""
        self.unmerging = False

    # ---- crawl and scan

    def crawl(self, mode: str = "full") -> int:
        """Prepare a scan: who waits already, candidates, newcomers, then those that the mode adds."""
        assert not self.scanning
        if self.unmerging:
            return 0
        while self.candidates:  # the latest first (5.5)
            self._join(self.candidates.pop())
        nr_chosen = sum(space.pending is Pending.FROZEN for space in self.spaces)
        for space in self.spaces:  # 5.4
            if space.runtime_ms is None or space.runtime_ms >= self.short_lived_ms:
                nr_chosen += self._join(space)
        if mode == "full":
            self._add_others()
        else:
            self._add_vips(nr_chosen)
        self.crawl_round += 1
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

    def _add_vips(self, nr_chosen: int) -> None:
        """Running ones with recent merges and new faults go to the front, best first (5.6)."""
        ranked = sorted(
            (space for space in self.spaces if space.registered is not None and any(space.window)),
            key=lambda space: (-sum(space.window), space.completion),
        )
        vips = []
        for space in ranked:
            if nr_chosen + len(vips) >= self.max_vips:
                break
            if not space.frozen and space.faults != space.faults_seen:
                space.faults_seen = space.faults
                space.scanned = False
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
            elif page is None:  # late arrivals (6.1 B)
                continue
            elif visited == budget:
                break
            else:
                self._advance()
                visited += self._visit(page)
        self.pages_scanned += visited
        return visited

    def finish(self) -> None:
        while self.scanning:
            self.scan()

    def full(self) -> None:
        self.finish()
        self.crawl()
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
                page.zero = page.zero and is_zero(page)  # looked at again
                if page.scannable and not page.zero:
                    return page
                self._free_item(page)
                self._advance()
            self._complete_slot(space)
        return None

    def _wrap_up(self) -> None:
        self.full_scans += self.scanning == "full"
        self.scanning = ""
        for content in [content for content in self.chains if self._is_due(content)]:
            self._prune(content)

    def _begin_slot(self) -> None:
        """The cursor goes to the first page of the first slot in the queue, or away if there is none."""
        self.cursor = 0 if self.queue else None

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
        if item.node is not None and not page.private and item.node.content == bytes_now:
            return True  # row 2
        self._detach(item)  # row 4
        if self.smart_scan and self._is_skipped(item):
            self.pages_skipped += 1
            return False
        item.alias_of = self.first_visited(page)
        if is_zero(page) and any(other.zero for other in self.all_pages() if other.cell is page.cell):
            page.zero = True  # the same page is on the zero frame already
            return True
        if item.alias_of is not None:
            return True  # same pointer, same page
        if self.is_upstream and self._is_gated(item, bytes_now):
            return True
        if self.is_upstream and self._goes_to_zero(page):
            return True
        targets = self._targets(bytes_now)
        if targets:  # row 6
            self._attach(item, targets[0] if len(targets) == 1 else self.choose(page, targets))
            return True
        is_gate_open = self.is_upstream or self.scan_round >= self.initial_rounds or bypass
        if not is_gate_open and self._is_gated(item, bytes_now):  # row 7
            return True
        if self._goes_to_zero(page):  # row 8
            return True
        twin = self.unstable.get(bytes_now)
        if twin is None:  # row 10
            item.state = State.UNSTABLE
            self.unstable[bytes_now] = item
            return True
        if not twin.page.scannable:  # row 9: unmapped or opted out since
            return True
        self._detach(twin)  # rows 11 and 15
        node = Node(bytes_now)
        dups = self.nodes.setdefault(bytes_now, [])
        dups.append(node)
        if len(dups) == 2:
            self.chains.setdefault(bytes_now, self.now)
        self._attach(twin, node)
        self._attach(item, node)
        return True

    def _targets(self, content: bytes) -> list[Node]:
        """The nodes that a page may join (3.9.1, 12.8): a search collapses or prunes the chain it meets."""
        targets = [node for node in self.nodes.get(content, []) if len(node.items) < self.max_page_sharing]
        if content in self.chains:
            if self._is_due(content):
                fullest = max((len(node.items) for node in targets), default=0)
                targets = [node for node in targets if len(node.items) == fullest]
                self._prune(content)
            elif len(self.nodes[content]) == 1:
                del self.chains[content]
        return targets

    def _is_due(self, content: bytes) -> bool:
        return self.now >= self.chains[content] + self.prune_millisecs

    def _prune(self, content: bytes) -> None:
        if len(self.nodes[content]) == 1:
            del self.chains[content]
        else:
            self.chains[content] = self.now

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
            self.merged += 1
            item.page.space.merged += 1
        node.items.append(item)
        item.state, item.node, item.page.private = State.STABLE, node, False

    def _detach(self, item: Item) -> None:
        """3.7"""
        if item.node is not None:
            item.node.items.remove(item)
            if item.node.items:
                self.broken += 1
            else:
                dups = self.nodes[item.node.content]
                dups.remove(item.node)
                if not dups:
                    del self.nodes[item.node.content]
                    self.chains.pop(item.node.content, None)
        self.unstable = {key: other for key, other in self.unstable.items() if other is not item}
        item.state, item.node = State.VOLATILE, None

    # ---- small change

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

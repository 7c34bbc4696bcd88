"""The same pages, writes and passes in the running kernel's KSM and in the engine; every counter must agree.

    with referee(smart_scan=0) as both:
        app = both.start("a a b")
        both.passes(3)
        app.write(0, "b")
        both.one_pass()

A process is a child with private memory there, and an attached array here. Everything is done to both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import lksm
from helpers import PAGE_SIZE, Pages, content, pages
from lksm.kernel import Child, Ksm, KsmUnavailable, driving
from lksm.knobs import Knobs

# what the kernel's file is called, and what the engine calls it
NAMES = {
    "pages_shared": "pages_shared",
    "pages_sharing": "pages_sharing",
    "pages_unshared": "pages_unshared",
    "pages_volatile": "pages_volatile",
    "stable_node_chains": "stable_node_chains",
    "stable_node_dups": "stable_node_dups",
    "pages_scanned": "pages_scanned",
    "pages_skipped": "pages_skipped",
    "ksm_zero_pages": "zero_pages",
}
# what /proc/PID/ksm_stat calls it, and what ProcessStats calls it
STATISTICS = {
    "ksm_rmap_items": "rmap_items",
    "ksm_zero_pages": "zero_pages",
    "ksm_merging_pages": "merging_pages",
    "ksm_process_profit": "profit_bytes",
    "ksm_merge_any": "merge_any",
    "ksm_mergeable": "mergeable",
}
_PATIENCE_SECONDS = 120.0


@dataclasses.dataclass(eq=False)
class Twin:
    """One process, there and here."""

    child: Child
    process: lksm.Process

    def write(self, page: int, word: str) -> None:
        """Write a whole page: also here it is a write of the process, not one into its array."""
        self.child.write(0, page * PAGE_SIZE, content(word))
        self.process.write(page, content(word))

    def write_bytes(self, page: int, offset: int, data: bytes) -> None:
        self.child.write(0, page * PAGE_SIZE + offset, data)
        self.process.write(page, data, offset)

    def map(self, picture: str, *, advise: bool = False) -> None:
        """One more area, behind the others here; offered for merging or not. `write` does not reach it."""
        memory = pages(picture)
        last = self.process.regions[-1]
        address = last.address + last.array.nbytes
        self.child.map(memory, advise=advise)
        first = self.process.nr_pages
        self.process.map(lksm.Region(address, memory))
        if advise:
            self.process.advise("mergeable", first)

    def merge_any(self, is_wanted: bool) -> None:
        self.child.merge_any(is_wanted)
        self.process.merge_any = is_wanted

    def statistics(self) -> tuple[dict[str, int], dict[str, int]]:
        """What the kernel says of this process, and the engine, as far as both do.

        The kernel calls a process mergeable for an area that was offered, even if no page of it is there any
        more; the engine for pages that are (docs/kernel-map.md).
        """
        there, stats = self.child.statistics(), self.process.stats()
        if stats.pages < self.process.nr_pages:
            there.pop("ksm_mergeable", None)
        names = [name for name in STATISTICS if name in there]
        here = {name: int(getattr(stats, STATISTICS[name])) for name in names}
        return {name: there[name] for name in names}, here

    def unmergeable(self, start: int, stop: int) -> None:
        """Take pages out; what was merged of them is private again."""
        self.child.advise(0, "unmergeable", start, stop - start)
        self.process.advise("unmergeable", start, stop)

    def mergeable(self, start: int, stop: int) -> None:
        self.child.advise(0, "mergeable", start, stop - start)
        self.process.advise("mergeable", start, stop)

    def drop(self, start: int, stop: int) -> None:
        """Give pages back to the system: they are absent."""
        self.child.advise(0, "dontneed", start, stop - start)
        self.process.unmap(start, stop)

    def exit(self) -> None:
        self.child.exit()
        self.process.exit()

    def unmap(self) -> None:
        """The first area goes."""
        self.child.unmap(0)
        self.process.unmap(0, self._nr_first)

    @property
    def _nr_first(self) -> int:
        return self.process.regions[0].array.nbytes // PAGE_SIZE

    def check_bytes(self) -> None:
        """The child reads the same bytes in its first area as the process."""
        nr_pages = self._nr_first
        assert self.child.read(0, 0, nr_pages * PAGE_SIZE) == self.process.read(0, nr_pages).tobytes()


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame as it was after a pass: its bytes, and for each page merged into it the page's process."""

    content: bytes
    holders: list[Twin]


class KsmdTime:
    """CPU milliseconds of ksmd, for an engine whose advisor is to hear what the kernel's does.

    The kernel's counts what ksmd has used since it last looked; when it has forgotten that, since boot.
    """

    def __init__(self, ksm: Ksm) -> None:
        self._ksm = ksm
        self._seen = 0.0
        self._is_in_batch = False

    def __call__(self) -> float:
        """Asked when a batch begins and when it ends."""
        self._is_in_batch = not self._is_in_batch
        if not self._is_in_batch:
            self._seen = self._ksm.cpu_seconds() * 1000
        return self._seen

    def forget(self) -> None:
        self._seen = 0.0


class SideBySide:
    """The kernel's KSM and an engine, pass by pass."""

    def __init__(
        self, ksm: Ksm, ksmd: KsmdTime, engine: lksm.Engine, children: ExitStack, tally: list[int]
    ) -> None:
        self.ksm = ksm
        self.ksmd = ksmd
        self.engine = engine
        self._children = children
        self._tally = tally
        self.twins: list[Twin] = []
        self.nr_passes = 0

    def start(self, picture: str | Pages, *, advise: bool = True) -> Twin:
        """A new process with these pages, offered for merging or not."""
        memory = pages(picture) if isinstance(picture, str) else picture
        child = self._children.enter_context(Child())
        child.map(memory, advise=advise)
        twin = Twin(child, self.engine.attach(memory, mergeable=advise))
        self.twins.append(twin)
        return twin

    def exit(self, twin: Twin) -> None:
        twin.exit()
        self.twins.remove(twin)

    def one_pass(self, *, sums: bool = False) -> dict[str, int]:
        """One pass of both, and all compared, or as far as `in_sums` goes; returns what the kernel counts."""
        there = self.ksm.one_pass()
        self.engine.full()
        self.nr_passes += 1
        self._tally.append(1)
        self._compare(there, sums=sums)
        return there

    def passes(self, count: int, *, sums: bool = False) -> dict[str, int]:
        """So many passes; returns what the kernel counts after the last."""
        for _ in range(count):
            there = self.one_pass(sums=sums)
        return there

    def frames(self) -> dict[int, Frame]:
        """What is merged now, by frame."""
        found: dict[int, Frame] = {}
        for twin in self.twins:
            for page, frame in enumerate(self.engine.page_table(twin.process).tolist()):
                if frame >= 0:
                    held = twin.process.read(page).tobytes()
                    found.setdefault(frame, Frame(held, [])).holders.append(twin)
        return found

    def is_taken_over(self, before: dict[int, Frame]) -> bool:
        """Has a frame lost its last mapping since `before`, while a page has its bytes and might join it?

        The kernel frees such a frame at once. The engine's is a copy of its own, which leaves with the last
        page that was merged into it, and these leave at their next visits (docs/kernel-map.md).
        """
        mapped = {frame for twin in self.twins for frame in self.engine.page_table(twin.process).tolist()}
        contents = {
            twin.process.read(page).tobytes() for twin in self.twins for page in range(twin.process.nr_pages)
        }
        return any(
            frame not in mapped
            and known.content in contents
            and not set(self.twins).isdisjoint(known.holders)
            for frame, known in before.items()
        )

    def unmerge(self) -> None:
        """`run` 2 in both, and everything compared at once."""
        there = self.ksm.unmerge()
        self.engine.knobs.run = 2
        self.engine.knobs.run = 0
        self._compare(there, sums=False)

    def _compare(self, there: dict[str, int], *, sums: bool) -> None:
        here = {name: value for name, value in counters(self.engine).items() if name in there}
        where = f"pass {self.nr_passes}: the kernel counts {there}, the engine {here}"
        assert (in_sums(here) if sums else here) == (in_sums(there) if sums else there), where
        for number, twin in enumerate(self.twins):
            told, known = twin.statistics()
            if sums:  # which page of several finds a twin depends on the order of the walk too
                told, known = (_without_merges(each) for each in (told, known))
            where = f"pass {self.nr_passes}, process {number}: the kernel says {told}, the engine {known}"
            assert known == told, where
        assert self.engine.check() == []


def in_sums(values: dict[str, int]) -> dict[str, int]:
    """What does not depend on which frame of several a page has joined.

    Once pages have left frames of a chain, the next page to come joins one that has room. Which one that is
    depends on the order of the walk, and on it depends later whether a page finds room at all.
    """
    joined = ("pages_shared", "pages_sharing", "pages_unshared")
    apart = {name: value for name, value in values.items() if name not in joined}
    return {"in a tree": sum(values[name] for name in joined)} | {
        name: value for name, value in apart.items() if not name.startswith("stable_node_")
    }


def _without_merges(statistics: dict[str, int]) -> dict[str, int]:
    names = ("ksm_merging_pages", "ksm_process_profit")
    return {name: value for name, value in statistics.items() if name not in names}


def counters(engine: lksm.Engine) -> dict[str, int]:
    """The engine's counters under the kernel's names."""
    now = engine.counters()
    return {name: getattr(now, ours) for name, ours in NAMES.items()}


class Referee:
    """What a test is given: blocks in which both run, and the count of all passes compared."""

    def __init__(self) -> None:
        self._tally: list[int] = []

    @property
    def nr_passes(self) -> int:
        return len(self._tally)

    @contextmanager
    def __call__(self, **knobs: int | str) -> Iterator[SideBySide]:
        """Both with these knobs, and nothing in them; the children exit at the end of the block.

        Skips the test where the kernel's KSM cannot be driven, or lacks such a knob.
        """
        with ExitStack() as stack:
            try:
                ksm = stack.enter_context(driving(knobs, patience_seconds=_PATIENCE_SECONDS))
            except KsmUnavailable as reason:
                pytest.skip(str(reason))
            ksmd = KsmdTime(ksm)
            engine = stack.enter_context(
                lksm.Engine(policy="ksm", cpu_clock=ksmd, auto_join=False, **knobs)  # type: ignore[arg-type]
            )
            yield SideBySide(ksm, ksmd, engine, stack.enter_context(ExitStack()), self._tally)


def needs_engine_knob(name: str) -> pytest.MarkDecorator:
    """For tests of a knob that the engine may not have."""
    return pytest.mark.skipif(not hasattr(Knobs, name), reason=f"the engine has no knob {name}")

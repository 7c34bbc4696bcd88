"""The targets of speed and memory: what is wanted, beside what a run has measured. Pure.

A target is a ratio of two medians of one run. What was not measured has no number, and is neither met nor
missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .turns import Result
from .workloads import PAGE

BASE_PAGES = 1 << 18  # 1 GiB: where ratios to peers are taken, and times of one and two threads
FIRST_PAGES, LAST_PAGES = 1 << 16, 1 << 22  # growth
BOOKKEEPING_PAGES = (1 << 20, 1 << 22)
SETS = ("unique", "half", "pairs", "zero", "lastbytes", "sparse")
ALL = (*SETS, "dumps")


@dataclass(frozen=True)
class Row:
    """One line: `measured` must be at least `target`, or at most if `is_limit`; None: not measured."""

    what: str
    target: float
    measured: float | None
    unit: str
    is_limit: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.target if self.is_limit else self.measured >= self.target


def rows(results: Sequence[Result], base_pages: int = BASE_PAGES) -> list[Row]:
    """All rows of the table, in its order. `base_pages`: where ratios to peers are taken."""
    look = _Look(results)
    return [
        *_bookkeeping(look),
        *_against_reading(look, base_pages),
        *_against_the_kernel(look, base_pages),
        *_against_dict(look, base_pages),
        *_threads(look, base_pages),
        *_growth(look),
    ]


class _Look:
    """Finds results by what they are of. `dumps` are never exactly as large as asked for."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = list(results)

    def find(
        self,
        workload: str,
        nr_pages: int,
        contender: str,
        *,
        memory: str = "",
        phase: str = "cold",
        threads: int = 1,
    ) -> Result | None:
        key = (workload, contender, memory, phase, threads)
        for result in self._results:
            is_size = workload == "dumps" or result.nr_pages == nr_pages
            found = (result.workload, result.contender, result.memory, result.phase, result.threads)
            if is_size and found == key:
                return result
        return None

    def lksm(
        self, workload: str, nr_pages: int, memory: str, phase: str = "cold", threads: int = 1
    ) -> Result | None:
        return self.find(workload, nr_pages, "lksm", memory=memory, phase=phase, threads=threads)


def _times_faster(ours: Result | None, peer: Result | None) -> float | None:
    """Bytes a second, ours by the peer's."""
    return None if ours is None or peer is None else ours.gb_per_s / peer.gb_per_s


def _bookkeeping(look: _Look) -> Iterator[Row]:
    for nr_pages in BOOKKEEPING_PAGES:
        for memory in ("immutable", "mutable"):
            for workload in SETS:
                result = look.lksm(workload, nr_pages, memory)
                if result is None and memory == "mutable" and nr_pages > 1 << 20:
                    continue  # not asked for: there is no room for the copies
                bytes_a_page = (
                    None if result is None or result.bookkeeping is None else result.bookkeeping / nr_pages
                )
                what = f"bookkeeping, {workload}, {memory}, {nr_pages >> 20} Mi pages"
                yield Row(what, 64, bytes_a_page, "bytes a page", is_limit=True)
    for memory, most in (("immutable", 0.0), ("mutable", 1.0)):
        copies = [
            result.frames / PAGE / max(1, result.contents)
            for workload in SETS
            if (result := look.lksm(workload, 1 << 20, memory)) and result.frames is not None
        ]
        what = f"copies of a merged content, {memory}, 1 Mi pages"
        yield Row(what, most, max(copies, default=None), "", is_limit=True)


def _against_reading(look: _Look, base_pages: int) -> Iterator[Row]:
    wanted = [("unique", memory, 2.0) for memory in ("immutable", "mutable")]
    wanted += [(workload, "immutable", 0.5) for workload in ("half", "pairs", "zero")]
    wanted += [(workload, "mutable", 0.3) for workload in ("half", "pairs", "zero")]
    for workload in ("lastbytes", "sparse"):
        wanted += [(workload, memory, 0.35) for memory in ("immutable", "mutable")]
    for workload, memory, target in wanted:
        peer = look.find(workload, base_pages, "read")
        faster = _times_faster(look.lksm(workload, base_pages, memory), peer)
        yield Row(f"cold, {workload}, {memory}", target, faster, "x read")
    for workload in ALL:
        peer = look.find(workload, base_pages, "read")
        faster = _times_faster(look.lksm(workload, base_pages, "immutable", "rescan"), peer)
        yield Row(f"rescan, {workload}, immutable", 10, faster, "x read")


def _against_the_kernel(look: _Look, base_pages: int) -> Iterator[Row]:
    for workload in ALL:
        for memory in ("immutable", "mutable"):
            peer = look.find(workload, base_pages, "kernel")
            faster = _times_faster(look.lksm(workload, base_pages, memory), peer)
            yield Row(
                f"cold, {workload}, {memory}", 50 if workload == "unique" else 10, faster, "x kernel's KSM"
            )


def _against_dict(look: _Look, base_pages: int) -> Iterator[Row]:
    for threads, target in ((1, 2), (2, 3)):
        for workload in ALL:
            peer = look.find(workload, base_pages, "dict")
            faster = _times_faster(look.lksm(workload, base_pages, "immutable", threads=threads), peer)
            yield Row(f"cold, {workload}, immutable{_with(threads)}", target, faster, "x dict")


def _threads(look: _Look, base_pages: int) -> Iterator[Row]:
    """Beside the same for reading, which says what the memory allows."""
    for workload in ALL:
        one = look.lksm(workload, base_pages, "immutable")
        two = look.lksm(workload, base_pages, "immutable", threads=2)
        reads = [look.find(workload, base_pages, "read", threads=threads) for threads in (2, 1)]
        allowed = _times_faster(*reads)
        note = "" if allowed is None else f" (reading: {allowed:.2f})"
        yield Row(f"two threads, {workload}, immutable{note}", 1.5, _times_faster(two, one), "x one")


def _growth(look: _Look) -> Iterator[Row]:
    for workload in SETS:
        first = look.lksm(workload, FIRST_PAGES, "immutable")
        last = look.lksm(workload, LAST_PAGES, "immutable")
        costlier = _times_faster(first, last)
        yield Row(f"cost of a page at 4 Mi, {workload}", 1.5, costlier, "x that at 64 Ki", is_limit=True)


def _with(threads: int) -> str:
    return "" if threads == 1 else f", {threads} threads"

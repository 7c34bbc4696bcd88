"""lksm as a contender: an engine made anew for each turn, its phases one after the other.

`cold`     from the bytes to the merge result: attach, and the first scan. The process is frozen and there are
           no initial rounds, so no checksum gate
`rescan`   one more full scan, after the engine has settled
`changed`  one more, after 1 % of the pages have been written (not in immutable memory)

Making the engine, writing the pages and closing it are not timed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

import lksm

from .turns import Contender, Work, Works
from .workloads import MOST_SHARING, Counts, Pages, Workload

Rows = npt.NDArray[np.int64]

_BOOKKEEPING = 64  # bytes a page
_CHANGED_WORDS = 2  # 16 bytes that no other page has, in the middle of a page
_SHARE_CHANGED = 100  # one page in so many
_ODD = 0x9E3779B97F4A7C15


def engine_of(memory: str, nr_threads: int = 1) -> Contender:
    """An engine over memory of that kind, `immutable`, `mutable` or `tracked`, with that many threads."""
    name = f"lksm, {memory}" + (f", {nr_threads} threads" if nr_threads > 1 else "")

    def run(workload: Workload) -> Works:
        def work(phase: str, do: Callable[[], object]) -> Works:
            piece = Work("lksm", phase, do, memory, nr_threads)
            yield piece
            sizes = engine.memory()
            piece.frames = sizes.pop("frames")
            piece.bookkeeping = sum(sizes.values())

        def first_look() -> None:
            for pages in workload.processes:
                _attach(engine, pages, memory)
            engine.full()

        with _engine(nr_threads) as engine:
            yield from work("cold", first_look)
            assert _counts(engine) == workload.frames
            engine.settle()
            yield from work("rescan", engine.full)
            assert _counts(engine) == workload.frames
            if memory == "immutable":
                return
            with _changed(workload.pages) as rows:
                expected = _without(engine, rows)
                if memory == "tracked":
                    _touch(engine, rows)
                yield from work("changed", engine.full)
                assert _counts(engine) == expected

    def needs(workload: Workload) -> float:
        copies = 0 if memory == "immutable" else workload.contents[0] * 4096
        return float(copies + _BOOKKEEPING * len(workload.pages))

    return Contender(name, run, needs)


def kinds_of_memory() -> list[str]:
    """tracked: writable, but changed through the API only, or declared by `touch`."""
    kinds = ["immutable", "mutable"]
    return kinds + ["tracked"] if "tracked" in inspect.signature(lksm.Engine.attach).parameters else kinds


def has_threads() -> bool:
    return "threads" in inspect.signature(lksm.Engine).parameters


def absent() -> list[str]:
    """What the benchmarks would measure if this version of lksm had it, one line each."""
    lines = [] if has_threads() else ["two threads of lksm: this version has no threads="]
    return (
        lines if "tracked" in kinds_of_memory() else lines + ["tracked memory: this version has no tracked="]
    )


def _engine(nr_threads: int) -> lksm.Engine:
    options: dict[str, Any] = {"threads": nr_threads} if has_threads() else {}
    return lksm.Engine(initial_rounds=0, seed=1, max_page_sharing=MOST_SHARING, smart_scan=0, **options)


def _attach(engine: lksm.Engine, pages: Pages, memory: str) -> None:
    options: dict[str, bool] = {} if memory == "mutable" else {memory: True}
    engine.attach(pages, frozen=True, **options)  # type: ignore[arg-type]


def _counts(engine: lksm.Engine) -> Counts:
    counters = engine.counters()
    return counters.pages_shared, counters.pages_sharing, counters.pages_unshared


@contextmanager
def _changed(pages: Pages) -> Iterator[Rows]:
    """Within the block one page in 100 has content that no other page has; afterwards it is as it was."""
    rows = np.sort(np.random.default_rng(1).permutation(len(pages))[: max(1, len(pages) // _SHARE_CHANGED)])
    middle = pages.shape[1] // 16
    words = pages.view(np.uint64)[:, middle : middle + _CHANGED_WORDS]
    before = words[rows]
    words[rows] = np.arange(1, 2 * len(rows) + 1, dtype=np.uint64).reshape(-1, 2) * np.uint64(_ODD)
    try:
        yield rows
    finally:
        words[rows] = before


def _without(engine: lksm.Engine, rows: Rows) -> Counts:
    """The counters when these pages have left their frames, which live as long as one page is in them."""
    table = np.concatenate([engine.page_table(process) for process in engine.processes])
    table[rows] = -1
    merged = table[table >= 0]
    shared = len(np.unique(merged))
    return shared, len(merged) - shared, len(table) - len(merged)


def _touch(engine: lksm.Engine, rows: Rows) -> None:
    first = 0
    for process in engine.processes:
        for row in rows[(rows >= first) & (rows < first + process.nr_pages)]:
            process.touch(int(row) - first, int(row) - first + 1)
        first += process.nr_pages

"""What a scan found, as plain data: computed once, then written as JSON or as text.

A page counts once: pages that physically are one page (fork, one frame number) belong to the first process
that has them, in order of attachment, and for all further ones they are only *already shared*.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..counters import Counters
from ..engine import Engine
from ..report import proportional_savings
from ..sources import Gone, Refused, Skipped, SourceProcess
from ._largest import largest, sharers
from ._places import ABSENT, Places
from ._session import Session
from ._zero import count_zero_pages, one_frame_each


@dataclass(frozen=True)
class ProcessRow:
    """One process. `pages` are present, some perhaps already shared; the other numbers count pages once.

    merged: pages merged with others. unshared: pages that have no twin. zero: pages of zeros, merged or
    not. saved_bytes: its proportional saving; these add up to the total.
    """

    name: str
    pid: int | None
    source: str
    pages: int
    merged: int
    unshared: int
    zero: int
    saved_bytes: int


class Group(NamedTuple):
    """One merged content: how many pages have it, in how many processes, and where the first one is.

    digest: XXH3 of the bytes, 64 bits with seed 0. process: index of the first process.
    """

    pages: int
    processes: int
    digest: int
    zero: bool
    process: int
    address: int


@dataclass(frozen=True)
class Groups:
    """The largest groups, those with the most pages first: a list for each field of `Group`.

    Lists, because there may be a million groups, and an object for each takes longer than to find them.
    """

    columns: tuple[Sequence[Any], ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Group]:
        return map(Group._make, zip(*self.columns, strict=True))


@dataclass(frozen=True)
class Results:
    """Everything a report says. `already_shared_bytes`: None where frame numbers are hidden."""

    page_size: int
    elapsed_ms: int
    scanned_bytes: int
    saved_bytes: int
    already_shared_bytes: int | None
    counters: Counters
    processes: list[ProcessRow]
    groups: Groups
    nr_groups: int
    skipped: list[Skipped]
    gone: list[Gone]
    refused: list[Refused]
    notes: list[tuple[str, str]]

    @property
    def profit_bytes(self) -> int:
        """Saved bytes less what the engine needs to remember them."""
        return self.counters.general_profit


def collect(session: Session, *, top: int, began: float) -> Results:
    """Read everything from the engine. `top`: the largest groups to tell of, 0 for all."""
    engine, loaded = session.engine, session.loaded
    elapsed_ms = round((time.monotonic() - began) * 1000)
    sources = session.sources
    counters = engine.counters()
    places = Places(engine)
    processes = _process_rows(engine, sources, places)
    groups, nr_groups = _groups(engine, places, top)
    nr_pages = sum(row.pages for row in processes) - places.nr_repeated
    is_known = all(source.already_shared_pages is not None for source in sources)
    return Results(
        page_size=engine.page_size,
        elapsed_ms=elapsed_ms,
        scanned_bytes=nr_pages * engine.page_size,
        saved_bytes=counters.pages_sharing * engine.page_size,
        already_shared_bytes=places.nr_repeated * engine.page_size if is_known else None,
        counters=counters,
        processes=processes,
        groups=groups,
        nr_groups=nr_groups,
        skipped=loaded.skipped + loaded.live_skipped,
        gone=loaded.gone,
        refused=loaded.refused,
        notes=[(source.source, note) for source in sources for note in source.notes],
    )


def _process_rows(engine: Engine, sources: list[SourceProcess], places: Places) -> list[ProcessRow]:
    nr_merged = [int((table >= 0).sum()) for table in places.tables]
    nr_unshared = [process.stats().unshared for process in engine.processes]
    nr_zero = count_zero_pages(engine, places, nr_unshared)
    savings = proportional_savings(places.tables, engine.page_size)
    return [
        ProcessRow(
            name=source.name,
            pid=source.pid,
            source=source.source,
            pages=int((table != ABSENT).sum()),
            merged=nr_merged[index],
            unshared=nr_unshared[index],
            zero=nr_zero[index],
            saved_bytes=savings[index],
        )
        for index, (source, table) in enumerate(zip(sources, places.tables, strict=True))
    ]


def _groups(engine: Engine, places: Places, top: int) -> tuple[Groups, int]:
    """The first `top` groups, or all if that is 0, and how many there are."""
    if top and one_frame_each(engine, places):
        nr_sharers = sharers(places)
        shown = largest(places, nr_sharers, top)
        zeros = engine.find(bytes(engine.page_size))
        told = _shown(places, shown, shown["frame"] == zeros, _digests(engine, shown))
        return told, int((nr_sharers >= 2).sum())
    groups = engine.groups(with_digests=top == 0)
    if not top:
        return _shown(places, groups, groups["zero"], groups["digest"].tolist()), len(groups)
    shown = groups[:top]
    return _shown(places, shown, shown["zero"], _digests(engine, shown)), len(groups)


def _digests(engine: Engine, groups: npt.NDArray[np.void]) -> list[int]:
    processes = engine.processes
    where = zip(groups["first_process"].tolist(), groups["first_page"].tolist(), strict=True)
    return [engine.digest(processes[index], page) for index, page in where]


def _shown(
    places: Places, groups: npt.NDArray[np.void], is_zero: npt.NDArray[np.bool_], digests: list[int]
) -> Groups:
    return Groups(
        (
            groups["pages"].tolist(),
            groups["processes"].tolist(),
            digests,
            is_zero.tolist(),
            groups["first_process"].tolist(),
            places.addresses(groups["first_process"], groups["first_page"]).tolist(),
        )
    )

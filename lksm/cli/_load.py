"""From what was named on the command line to processes that can be attached.

A file that is named twice, also through links, is loaded once. A source that cannot be used is reported
and the others go on; `all` means every process that may be read, so those that may not are skipped.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..errors import OutOfMemory, SourceError
from ..sources import Gone, Refused, Skipped, Snapshot, SourceProcess, load
from ._interrupt import held
from ._output import AlreadyReported, complain
from ._private import keep_out_of_dumps
from ._progress import Progress, Report

if TYPE_CHECKING:
    from ..sources.live import LiveSnapshot, Reading

_FILE_PAGE_SIZE = 4096


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `page_size`: None is the default.

    is_retaken: live pages will be read again. is_awaited: live processes may come while others are scanned.
    """

    paths: Sequence[str]
    pids: Sequence[int]
    what: Literal["anon", "private", "all"] = "anon"
    every_process: bool = False
    page_size: int | None = None
    limit_bytes: int | None = None
    is_retaken: bool = False
    is_awaited: bool = False

    @property
    def is_live(self) -> bool:
        return bool(self.pids) or self.every_process


@dataclass(eq=False)
class Loaded:
    """What could be had, files first.

    live_skipped: what was skipped of live processes when they were last read, apart from `skipped`.
    reading: the live processes that are still to come, with `arrived` when all have.
    is_incomplete: something that was named could not be used.
    """

    page_size: int
    processes: list[SourceProcess] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    live_skipped: list[Skipped] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    live: LiveSnapshot | None = None
    reading: Reading | None = None
    is_incomplete: bool = False

    def add(self, snapshot: Snapshot) -> None:
        """Everything a source yielded."""
        self.processes.extend(snapshot.processes)
        self.skipped.extend(snapshot.skipped)
        self.gone.extend(snapshot.gone)
        for refused in snapshot.refused:
            self.refuse(refused)

    def refuse(self, refused: Refused) -> None:
        """A named source cannot be used: reported at once."""
        self.refused.append(refused)
        self.is_incomplete = True
        complain(f"{refused.source}: {refused.reason}")


def load_sources(wanted: Wanted, progress: Progress) -> Loaded:
    """Map the files and copy the live processes.

    `SourceError` or `AlreadyReported` if there is no page at all, `SourceError` for a page size that live
    processes do not have.
    """
    keep_out_of_dumps()
    loaded = Loaded(wanted.page_size or (mmap.PAGESIZE if wanted.is_live else _FILE_PAGE_SIZE))
    _add_files(wanted.paths, loaded)
    if wanted.is_live:
        _add_live(wanted, loaded, progress.part("reading"))
    if loaded.reading is None:
        _expect_pages(loaded)
    return loaded


def arrived(wanted: Wanted, loaded: Loaded) -> None:
    """All of `loaded.reading` has come, and is in `processes`: what else there is to tell of it.

    Raises what `load_sources` raises if there is no page at all.
    """
    assert loaded.reading is not None
    snapshot = loaded.reading.snapshot()
    loaded.reading = None
    _note_live(wanted, loaded, replace(snapshot, processes=()))
    _expect_pages(loaded)


def _expect_pages(loaded: Loaded) -> None:
    if not loaded.processes and loaded.is_incomplete:
        raise AlreadyReported
    if not loaded.processes:
        reasons = [f" ({item.source}: {item.reason})" for item in loaded.skipped + loaded.live_skipped]
        raise SourceError(f"nothing to scan, no source has a page that can be used{''.join(reasons[:1])}")


def _add_files(paths: Iterable[str], loaded: Loaded) -> None:
    seen: dict[tuple[int, int], str] = {}
    for path in paths:
        identity = _identity(path)
        if identity in seen:
            skipped = Skipped(path, "file", os.path.getsize(path), f"the same file as {seen[identity]}")
            loaded.skipped.append(skipped)
            continue
        try:
            loaded.add(load(path, page_size=loaded.page_size))
        except (SourceError, OutOfMemory) as error:
            loaded.refuse(Refused(path, str(error).removeprefix(f"{path}: ")))
        else:
            if identity is not None:  # untested: a file that comes between two looks
                seen[identity] = path


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from all others; None if there is none, which loading it will explain."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _add_live(wanted: Wanted, loaded: Loaded, progress: Report | None) -> None:
    with held():  # as in `main`
        from ..sources import live

    pids = list(dict.fromkeys(wanted.pids))
    if wanted.every_process:
        pids.extend(pid for pid in live.all_pids() if pid not in wanted.pids)
    reading = live.Reading(
        pids,
        page_size=loaded.page_size,
        what=wanted.what,
        limit_bytes=wanted.limit_bytes,
        retakable=wanted.is_retaken,
        progress=progress,
    )
    if wanted.is_awaited:
        loaded.reading = reading
        return
    for _ in reading:
        pass
    _note_live(wanted, loaded, reading.snapshot())


def _note_live(wanted: Wanted, loaded: Loaded, snapshot: LiveSnapshot) -> None:
    loaded.live = snapshot
    loaded.live_skipped.extend(snapshot.skipped)
    named = {f"pid {pid}" for pid in wanted.pids}
    loaded.add(
        Snapshot(
            processes=snapshot.processes,
            skipped=tuple(_as_skipped(snapshot.refused, named)),
            refused=tuple(refused for refused in snapshot.refused if refused.source in named),
            gone=snapshot.gone,
        )
    )
    for gone in snapshot.gone:
        if gone.pid in wanted.pids:  # untested: with --all, one that ends meanwhile
            loaded.is_incomplete = True
            complain(f"pid {gone.pid}: there is no such process{' any more' if gone.name else ''}")


def _as_skipped(refused: Iterable[Refused], named: set[str]) -> list[Skipped]:
    return [Skipped(item.source, "process", 0, item.reason) for item in refused if item.source not in named]

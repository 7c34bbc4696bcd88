"""What every source yields: named processes with regions, and what had to be left out."""

from __future__ import annotations

from dataclasses import dataclass

from ..memory import Region
from ._file import MappedFile


@dataclass(frozen=True)
class Skipped:
    """Bytes of a source that were not used, and why.

    source: the path, or "pid 12". what: "tail", "hole", "segment 0x7f0000000000", "swapped pages" ...
    nbytes: how many bytes. reason: one phrase without a full stop.
    """

    source: str
    what: str
    nbytes: int
    reason: str


@dataclass(frozen=True)
class Refused:
    """A source, or a live process, that could not be used at all, and why (one line)."""

    source: str
    reason: str


@dataclass(frozen=True)
class Gone:
    """A live process that vanished while it was being looked at."""

    pid: int
    name: str | None


@dataclass(frozen=True, eq=False)
class SourceProcess:
    """One address space found in a source, ready to be attached.

    regions are in address order and do not overlap. `immutable`: the bytes cannot change (files, and
    snapshots that are never taken again). `frozen`: its pages hold still (files; stopped or frozen
    processes). `runtime_ms`, `faults`: CPU time and page faults so far, None if unknown.
    `already_shared_pages`: pages that are one physical page with an earlier page of this snapshot; None
    if that cannot be known (no privilege to see frame numbers). `notes`: facts for the report, a line each.
    `file`: what the regions are views of, None if they are copies.
    """

    source: str
    name: str
    pid: int | None
    regions: tuple[Region, ...]
    immutable: bool = True
    frozen: bool = True
    runtime_ms: int | None = None
    faults: int | None = None
    already_shared_pages: int | None = 0
    notes: tuple[str, ...] = ()
    file: MappedFile | None = None

    def expect_whole(self) -> None:
        """Raise `SourceError` if the pages are not those of before any more: their file has shrunk.

        To be asked after scanning, before the results are believed. An engine that has seen such pages is
        to be closed: they were immutable for it.
        """
        if self.file is not None:
            self.file.expect_whole()

    @property
    def nbytes(self) -> int:
        """Bytes present in the regions: absent rows are not counted."""
        return sum(nr_present(region) * int(region.array.shape[-1]) for region in self.regions)


@dataclass(frozen=True)
class Snapshot:
    """What a source yielded: processes to attach and everything that was left out."""

    processes: tuple[SourceProcess, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    refused: tuple[Refused, ...] = ()
    gone: tuple[Gone, ...] = ()


def nr_present(region: Region) -> int:
    """How many pages of a source's region are there: rows that are absent are not counted."""
    return len(region.array) if region.rows is None else int((region.rows >= 0).sum())

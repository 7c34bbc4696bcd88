"""An engine with the loaded processes attached, and its scans: one, or several with live pages read anew.

One scan compares everything at once: nothing that was attached changes, so no checksum gate is needed. With
several rounds the pages of live processes are read again before each, and the gate is closed in all of
them: a page that changes from round to round is held back and merged with none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engine import Engine
from ..memory import Region, RegionFlag
from ..process import Process
from ..sources import Gone, SourceProcess, nr_present
from ._arrivals import Arrivals
from ._interrupt import held
from ._load import Loaded, Wanted, arrived
from ._progress import Progress, Report

if TYPE_CHECKING:
    from ..sources.live import Change, Reading

_BATCH_PAGES = 1 << 14  # pages between two looks at Ctrl-C and the progress bar


@dataclass(eq=False)
class _Member:
    """A source's process, as it was when last read, and what it is attached as."""

    source: SourceProcess
    process: Process


class Session:
    """Everything of one scan, attached. Close it when its results have been read.

    Ctrl-C is held back in every call of the engine, which might keep its lock otherwise.
    """

    def __init__(self, loaded: Loaded, wanted: Wanted, *, rounds: int, max_page_sharing: int) -> None:
        self.loaded = loaded
        self._wanted = wanted
        self.rounds = rounds if loaded.live is not None else 1
        self._drops_flags = wanted.what != "anon"
        self._members: list[_Member] = []
        self.engine = Engine(
            page_size=loaded.page_size,
            initial_rounds=self.rounds + 1 if self._is_gated else 0,
            max_page_sharing=max_page_sharing,
            short_lived_ms=0,  # what was asked for is scanned, however young
        )
        for source, label in zip(loaded.processes, _labels(loaded.processes), strict=True):
            with held():
                self._members.append(_Member(source, self._attach(source, source.regions, label)))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        with held():
            self.engine.close()

    @property
    def sources(self) -> list[SourceProcess]:
        """The source of each of the engine's processes, in their order."""
        by_process = {id(member.process): member.source for member in self._members}
        return [by_process[id(process)] for process in self.engine.processes]

    def expect_whole(self) -> None:
        """Raise `SourceError` if a file has shrunk: then nothing that was found can be believed."""
        for member in self._members:
            member.source.expect_whole()

    def scan(self, interval_seconds: float, progress: Progress) -> None:
        """All rounds. Ctrl-C is noticed between batches, so the engine's structures stay whole."""
        if self.loaded.reading is not None:
            self._scan_while_reading(self.loaded.reading, progress)
            return
        for number in range(1, self.rounds + 1):
            part = f", round {number} of {self.rounds}" if self._is_gated else ""
            if number > 1:
                time.sleep(interval_seconds)
                self._retake(progress.part(f"reading{part}"))
            self._scan_once(progress.part(f"scanning{part}"))

    def _scan_once(self, report: Report | None) -> None:
        total = sum(member.source.nbytes for member in self._members) // self.engine.page_size
        with held():
            visited = self.engine.crawl("full")
        done = 0
        while visited:
            visited = self._scan_batch(_BATCH_PAGES)
            done += visited
            if report is not None:
                report(min(done, total), total)

    def _scan_while_reading(self, reading: Reading, progress: Progress) -> None:
        """The one scan, begun with the first process: each that comes joins its queue.

        One page is kept back, for a scan whose queue runs empty is over. That the pages ahead are counted
        wrong would only mean that there is another scan.
        """
        report = progress.part("scanning")
        ready = sum(self._nr_visits(member.source) for member in self._members)
        done = 0
        with Arrivals(reading) as arrivals:
            while not arrivals.is_over:
                has_work = ready - done > 1
                source = arrivals.next(wait=not has_work)
                if source is not None:
                    self._join(source)
                    ready += self._nr_visits(source)
                elif has_work and not arrivals.is_over:
                    self._begin()
                    done += self._scan_batch(min(_BATCH_PAGES, ready - done - 1)) or ready - done
                    if report is not None:  # untested: a terminal
                        report(done, ready)
        with held():
            arrived(self._wanted, self.loaded)
            self._begin()
        while self._scan_batch(_BATCH_PAGES):
            pass

    def _begin(self) -> None:
        if self.engine.scanning is None:
            self.engine.crawl("full")

    def _scan_batch(self, nr_pages: int) -> int:
        with held():
            visited = self.engine.scan(nr_pages)
        self.expect_whole()
        return visited

    def _join(self, source: SourceProcess) -> None:
        with held():
            self.loaded.processes.append(source)
            self._members.append(_Member(source, self._attach(source, source.regions, source.name)))

    def _nr_visits(self, source: SourceProcess) -> int:
        """How many pages of it a scan visits."""
        regions = self._comparable(source.regions)
        return sum(nr_present(region) for region in regions if not region.flags)

    # --- attaching

    @property
    def _is_gated(self) -> bool:
        return self.rounds > 1

    def _attach(self, source: SourceProcess, regions: Sequence[Region], label: str) -> Process:
        """Pages that nobody will change are lent, and bypass the gate."""
        return self.engine.attach(
            self._comparable(regions),
            name=label,
            pid=source.pid,
            mergeable=True,
            immutable=source.immutable,
            frozen=source.frozen or not self._is_gated,
            runtime_ms=source.runtime_ms,
        )

    def _comparable(self, regions: Iterable[Region]) -> list[Region]:
        """The regions without their flags, if more was asked for than what the kernel could merge."""
        if not self._drops_flags:
            return list(regions)
        return [replace(region, flags=RegionFlag.NONE) for region in regions]

    # --- live processes, again

    def _retake(self, report: Report | None) -> None:
        from ..sources import live

        assert self.loaded.live is not None
        retaken = live.retake(self.loaded.live, progress=report)
        with held():
            self.loaded.live = retaken.snapshot
            self.loaded.live_skipped = list(retaken.snapshot.skipped)
            for refused in retaken.snapshot.refused:
                self.loaded.refuse(refused)  # untested: a process that is refused between two rounds
            members = {_live_pid(member.source): member for member in self._members}
            for gone in retaken.snapshot.gone:
                known = members.get(gone.pid)
                self.loaded.gone.append(Gone(gone.pid, known.source.name if known else gone.name))
            changes = {change.pid: change for change in retaken.changes}
            for pid, member in members.items():
                if pid is not None and pid not in changes:
                    member.process.exit()
                    self._members.remove(member)
            for pid, change in changes.items():
                self._apply(change, members.get(pid))

    def _apply(self, change: Change, member: _Member | None) -> None:
        """Makes a process what it is now; one that had no pages so far is attached when it gets some."""
        if member is None:  # untested: a process that had no pages so far
            if change.mapped:
                process = self._attach(change.process, change.mapped, change.process.name)
                self._members.append(_Member(change.process, process))
            return
        member.source = change.process
        if change.process.frozen != member.process.frozen:
            (member.process.freeze if change.process.frozen else member.process.thaw)()
        for start, stop in change.unmapped:
            member.process.unmap(start, stop)
        for region in self._comparable(change.mapped):
            member.process.map(region)


def _labels(sources: Sequence[SourceProcess]) -> list[str]:
    """What to call each process: its name, with its source if others have the same name."""
    uses = Counter(source.name for source in sources)
    return [
        source.name if uses[source.name] == 1 else f"{source.name} ({source.source})" for source in sources
    ]


def _live_pid(source: SourceProcess) -> int | None:
    """The pid of a live process; dumps have pids too, but those are history."""
    return source.pid if source.source == f"pid {source.pid}" else None

"""The referee of the policy: who is queued, in which class and in which order (spec 7.5, 7.6, 5.4-5.9).

No pages are compared here: a process is a number of pages that are visited one after the other. Scores, which
depend on contents, are told to the model by whoever drives it. Everything else is computed from the events
alone, and meant to be obvious. A process of the model is a *task*, as the engine's own word is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Pending(Enum):
    NONE = "none"
    NORMAL = "normal"
    FROZEN = "frozen"


@dataclass(eq=False)
class Task:
    """One process. `registered`: its number in the order of registration, None if it has no slot."""

    nr_pages: int
    runtime_ms: int | None = None
    offered: bool | None = None  # all pages mergeable, opted out, or left to the crawler
    frozen: bool = False
    registered: int | None = None
    pending: Pending = Pending.NONE
    newcomer: bool = False
    scanned: bool = False
    wanted_again: bool = False  # froze while it was scanned as running
    faults: int = 0
    faults_seen: int = 0
    completion: int = 0  # place of its last completed scan among all
    score: int = 0  # told by the driver


@dataclass
class PolicyModel:
    """The queue, its events, and the cursor: `page` of `cursor` is the next one to be visited."""

    max_vips: int = 20
    short_lived_ms: int = 100
    tasks: list[Task] = field(default_factory=list)
    queue: list[Task] = field(default_factory=list)
    candidates: list[Task] = field(default_factory=list)  # the latest first
    cursor: Task | None = None
    page: int = 0
    mode: str | None = None  # of the scan that is under way
    unmerging: bool = False
    crawl_round: int = 0
    scan_round: int = 0
    full_scans: int = 0
    pages_scanned: int = 0
    nr_registered: int = 0
    nr_completed: int = 0

    # ---- what others look at

    def count(self, pending: Pending) -> int:
        return sum(task.pending is pending for task in self.queue)

    def check(self) -> None:
        """The model's own sanity: queued iff pending, registered, and once."""
        assert [task for task in self.tasks if task.pending is not Pending.NONE] == [
            task for task in self.tasks if task in self.queue
        ]
        assert len(set(map(id, self.queue))) == len(self.queue)
        assert all(task.registered is not None for task in self.queue)
        assert not any(task.newcomer and task.scanned for task in self.tasks)
        assert not any(task.registered is not None for task in self.candidates)

    def vips(self, nr_others: int) -> list[Task]:
        """Who is added to a partial scan, best first (5.6 step 4)."""
        ranked = [task for task in self.tasks if task.registered is not None and task.score]
        ranked.sort(key=lambda task: (-task.score, task.completion))
        chosen: list[Task] = []
        for task in ranked:
            if len(chosen) + nr_others >= self.max_vips:
                break
            if not task.frozen and task.faults != task.faults_seen and task is not self.cursor:
                chosen.append(task)
        return chosen

    # ---- events

    def attach(self, task: Task) -> None:
        self.tasks.append(task)
        if task.offered:
            self._register(task)
        elif task.frozen:
            self.candidates.insert(0, task)

    def fork(self, parent: Task) -> Task:
        child = Task(parent.nr_pages, 0, parent.offered)
        self.tasks.append(child)
        if parent.registered is not None:
            self._give_slot(child)
        return child

    def advise(self, task: Task, offered: bool) -> None:
        task.offered = offered
        if offered and task.registered is None:
            self._register(task)

    def freeze(self, task: Task) -> None:
        task.frozen = True
        if task.registered is None:
            if task not in self.candidates:
                self.candidates.insert(0, task)
        elif task is self.cursor:
            task.wanted_again = task.pending is Pending.NORMAL
        else:
            if task.pending is Pending.NONE:
                self.queue.append(task)
            task.pending = Pending.FROZEN

    def thaw(self, task: Task) -> None:
        task.frozen = False
        if task.registered is None:
            self._forget(task)
        elif task is self.cursor:
            task.wanted_again = False
        elif task.pending is Pending.FROZEN:
            if task.scanned:
                self._dequeue(task)
                self._end_if_exhausted()
            else:
                task.pending = Pending.NORMAL

    def exit(self, task: Task) -> None:
        self._forget(task)
        self._dequeue(task)
        self.tasks.remove(task)
        self._end_if_exhausted()

    def unmerge(self) -> None:
        """run = 2. Every slot stays, nothing is queued, the scan is cancelled."""
        for task in self.tasks:
            task.pending, task.wanted_again = Pending.NONE, False
        self.queue, self.cursor, self.mode, self.scan_round = [], None, None, 0
        self.unmerging = True

    def stop(self) -> None:
        """run = 0 in the middle of a scan: the queue and the cursor stay, the scan is over."""
        self.mode = None

    # ---- crawl and scan

    def crawl(self, mode: str) -> int:
        assert self.mode is None
        if self.unmerging:
            return 0
        for task in list(self.candidates):
            self._forget(task)
            self._join(task)
        nr_others = self.count(Pending.FROZEN)
        for task in self.tasks:
            if task.registered is None and (
                task.runtime_ms is None or task.runtime_ms >= self.short_lived_ms
            ):
                nr_others += self._join(task)
        if mode == "partial":
            chosen = self.vips(nr_others)
            for task in reversed(chosen):
                task.faults_seen, task.scanned = task.faults, False
                if task.pending is Pending.NONE:
                    task.pending = Pending.NORMAL
                else:
                    self.queue.remove(task)
                self.queue.insert(0, task)
        else:
            idle = [task for task in self.tasks if task.registered and task.pending is Pending.NONE]
            for task in sorted(idle, key=lambda task: task.registered or 0):
                task.scanned = False
                self._enqueue(task)
        self.crawl_round += 1
        self.mode = mode if self.queue else None
        return len(self.queue)

    def scan(self, budget: int) -> int:
        """Visit up to `budget` pages. A slot is completed as soon as its last page was visited (F8)."""
        visited = 0
        while self.mode is not None:
            if self.cursor is None:
                if visited == budget:
                    break  # whoever is left, or has come late, waits for the next batch (6.1 B)
                self.cursor, self.page = self.queue[0], 0
                self.scan_round = self.crawl_round
            if not self.cursor.offered or self.page == self.cursor.nr_pages:
                self._close(self.cursor)
            elif visited == budget:
                break
            else:
                self.page += 1
                visited += 1
        self.pages_scanned += visited
        return visited

    def finish(self) -> None:
        while self.mode is not None:
            self.scan(2**62)

    # ---- small change

    def _give_slot(self, task: Task) -> None:
        self.nr_registered += 1
        task.registered, task.newcomer, task.faults_seen = self.nr_registered, True, task.faults

    def _register(self, task: Task) -> None:
        self._forget(task)
        self._give_slot(task)
        self._enqueue(task)

    def _join(self, task: Task) -> bool:
        """Registered by the crawler, unless it has opted out."""
        if task.offered is False:
            return False
        task.offered = True
        self._register(task)
        return True

    def _forget(self, task: Task) -> None:
        if task in self.candidates:
            self.candidates.remove(task)

    def _enqueue(self, task: Task) -> None:
        if not self.unmerging:
            task.pending = Pending.FROZEN if task.frozen else Pending.NORMAL
            self.queue.append(task)

    def _dequeue(self, task: Task) -> None:
        """A cursor on it goes on to the next one, or away if there is none behind it."""
        task.pending, task.wanted_again = Pending.NONE, False
        if task not in self.queue:
            return
        place = self.queue.index(task)
        self.queue.remove(task)
        if task is self.cursor:
            self.cursor, self.page = (self.queue[place], 0) if place < len(self.queue) else (None, 0)

    def _close(self, task: Task) -> None:
        """The walk over a slot is over: it is complete (3.11), or gone if it found nothing (F9).

        Pages behind the cursor that are offered no longer still have items: those go at the next scan.
        """
        again = task.wanted_again
        if task.offered or self.page:
            self.nr_completed += 1
            task.newcomer, task.scanned, task.completion = False, True, self.nr_completed
        else:
            task.registered, task.newcomer, task.scanned, task.completion = None, False, False, 0
            again = False
        self._dequeue(task)
        if again:
            self._enqueue(task)
        self._end_if_exhausted()

    def _end_if_exhausted(self) -> None:
        if self.mode is not None and not self.queue:
            self.full_scans += self.mode == "full"
            self.mode = None

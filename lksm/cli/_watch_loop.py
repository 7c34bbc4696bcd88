"""The loop of `lksm watch`: wait for events, tell the engine, let it take its turns, print what it did.

All on one thread, and nothing in it waits but `Watcher.wait`, for as long as the engine has nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..engine import Engine
from ..sources import live
from ..sources.events import Event, Kind, Watcher
from ._follow import Follower
from ._output import complain, emit
from ._scan_lines import (
    End,
    ScanLine,
    Totals,
    begin_as_json,
    end_as_json,
    end_as_text,
    event_as_json,
    scan_as_json,
    scan_as_text,
    status_as_text,
)
from ._status import Status
from ._stop import Stop

RUN_PERIODIC, RUN_ONE_SHOT = 1, 8
_PARTIAL = 1


class _Stopped(Exception):
    """Somebody asked to end while pages were being read."""


class Watch:
    """The loop: wait for events, tell the engine, let it take its turns, print what it did."""

    def __init__(
        self,
        watcher: Watcher,
        engine: Engine,
        stop: Stop,
        status: Status,
        snapshot: live.LiveSnapshot,
        *,
        named: Sequence[int],
        drops_flags: bool,
        is_json: bool,
    ) -> None:
        self._watcher = watcher
        self._engine = engine
        self._stop = stop
        self._status = status
        self._is_json = is_json
        self._named = frozenset(f"pid {pid}" for pid in named)
        self._follower = Follower(engine, snapshot, named=named, drops_flags=drops_flags)
        self._totals = Totals()
        self._began = time.monotonic()
        self._cpu_before = round(time.process_time() * 1000)
        self._scan_cpu = time.process_time()  # when the scan that goes on was about to be prepared
        self._scan_bytes = 0
        self._last_scan = engine.last_scan
        self._unasked: set[int] = set()  # one-shot: frozen, and no request was stored since
        self._has_reader = True
        self.is_incomplete = False
        engine.on_crawl = self._before_crawl

    def go_on(self) -> None:
        """Until asked to stop, or nothing can happen any more."""
        self._begin()
        patience: float | None = 0.0
        while not self._is_over():
            for event in self._watcher.wait(patience):
                self._apply(event)
            patience = self._take_turn()
            self._show()

    def _is_over(self) -> bool:
        return self._stop.is_asked or not self._has_reader or self._watcher.is_over

    def _apply(self, event: Event) -> None:
        self._follower.apply(event)
        self._totals.started += event.kind is Kind.START
        self._totals.exited += event.kind is Kind.EXIT
        if event.frozen and event.kind in (Kind.START, Kind.FREEZE):
            self._unasked.add(event.pid)
        else:
            self._unasked.discard(event.pid)
        if self._is_json:
            self._print(event_as_json(time.time(), event))

    def _take_turn(self) -> float | None:
        """One turn of the engine; returns the seconds until the next one."""
        engine = self._engine
        self._request()
        try:
            is_ready = not engine.scanning or self._follower.read_what_is_scanned(self._check_stop)
        except _Stopped:  # untested: a stop while pages are read
            return 0.0
        self._complain_of_refused()
        milliseconds = engine.turn() if is_ready else 0  # events first, then the rest of the pages
        if engine.last_scan is not self._last_scan:  # an event may have ended it, too
            self._last_scan = engine.last_scan
            self._report()
        return None if milliseconds is None else milliseconds / 1000

    def _before_crawl(self) -> None:
        self._scan_cpu, self._scan_bytes = time.process_time(), self._follower.bytes_read
        self._follower.refresh()

    def _request(self) -> None:
        """One-shot: ask for a partial scan when processes were frozen; one request can wait at a time."""
        knobs = self._engine.knobs
        if knobs.run == RUN_ONE_SHOT and self._unasked and not knobs.one_shot_scanning:
            knobs.one_shot_scanning = _PARTIAL
            self._unasked = set()

    def _check_stop(self, _done: int, _total: int) -> None:
        if self._stop.is_asked:  # untested: a stop while pages are read
            raise _Stopped
        self._status.show("reading")

    # --- what it says

    def _begin(self) -> None:
        notes = self._watcher.notes
        for note in notes:
            complain(note)  # untested: a machine with something to note
        if self._is_json:
            engine = self._engine
            self._print(
                begin_as_json(time.time(), run=engine.knobs.run, page_size=engine.page_size, notes=notes)
            )

    def _report(self) -> None:
        """A scan has wrapped up."""
        report = self._engine.last_scan
        assert report is not None
        follower = self._follower
        line = ScanLine(
            at=time.time(),
            report=report,
            scanned=follower.scanned(),
            read_bytes=follower.bytes_read - self._scan_bytes,
            over_limit_bytes=follower.bytes_over_limit,
            saved_bytes=self._saved_bytes(),
            cpu_ms=round((time.process_time() - self._scan_cpu) * 1000),
        )
        self._totals.add(line)
        self._unasked.difference_update(process.pid for process in line.scanned)
        self._print(scan_as_json(line) if self._is_json else scan_as_text(line))

    def _complain_of_refused(self) -> None:
        """Whom somebody named is an error; of all others it is only counted."""
        for refused in self._follower.take_refused():
            self._totals.refused += 1  # untested: a process that is refused while it is watched
            if refused.source in self._named:
                self.is_incomplete = True
                self._status.clear()
                complain(f"{refused.source}: {refused.reason}")

    def _saved_bytes(self) -> int:
        """Merged pages and, if that knob was set, zero pages: the profit before bookkeeping."""
        memory = self._engine.memory()
        return self._engine.counters().general_profit + sum(memory.values()) - memory["frames"]

    def _print(self, text: str) -> None:
        self._status.clear()
        self._has_reader = emit(text) and self._has_reader

    def _show(self) -> None:
        if self._status.is_shown:
            follower = self._follower
            self._status.show(
                status_as_text(follower.nr_processes, follower.nr_frozen, self._totals, self._saved_bytes())
            )

    def end(self) -> None:
        """The summary."""
        if not self._has_reader:
            return
        as_text = end_as_json if self._is_json else end_as_text
        self._print(
            as_text(
                End(
                    at=time.time(),
                    totals=self._totals,
                    counters=self._engine.counters(),
                    page_size=self._engine.page_size,
                    nr_processes=self._follower.nr_processes,
                    seconds=time.monotonic() - self._began,
                    cpu_ms=round(time.process_time() * 1000) - self._cpu_before,
                )
            )
        )

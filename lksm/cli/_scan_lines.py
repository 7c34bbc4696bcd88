"""What `lksm watch` says: a line for each scan and a summary, as text for people or as JSON for programs.

The keys of the JSON objects are a contract, described in docs/watch.md.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..counters import Counters, ScanReport
from ..sources.events import Event
from ._follow import Scanned
from ._output import human_bytes, printable, valid_text

SCHEMA = 1
_MAX_NAMES = 2  # of each kind, in a line of text


@dataclass(frozen=True)
class ScanLine:
    """One scan, when it was over. Bytes are what was read for it, and what merging saves after it."""

    at: float
    report: ScanReport
    scanned: Sequence[Scanned]
    read_bytes: int
    over_limit_bytes: int
    saved_bytes: int
    cpu_ms: int


@dataclass
class Totals:
    """Everything since the beginning."""

    partial_scans: int = 0
    full_scans: int = 0
    pages: int = 0
    merged: int = 0
    broken: int = 0
    read_bytes: int = 0
    started: int = 0
    exited: int = 0
    refused: int = 0

    def add(self, line: ScanLine) -> None:
        """One scan more."""
        if line.report.mode == "full":
            self.full_scans += 1
        else:
            self.partial_scans += 1
        self.pages += line.report.pages_scanned
        self.merged += line.report.merged
        self.broken += line.report.broken
        self.read_bytes += line.read_bytes


@dataclass(frozen=True)
class End:
    """How things stood when the watch ended. seconds, cpu_ms: since the beginning."""

    at: float
    totals: Totals
    counters: Counters
    page_size: int
    nr_processes: int
    seconds: float
    cpu_ms: int

    @property
    def saved_bytes(self) -> int:
        """What merging saves."""
        return self.counters.pages_sharing * self.page_size


# --- text


def scan_as_text(line: ScanLine) -> str:
    """When, what, how much, and who, in columns."""
    report = line.report
    clock = time.strftime("%H:%M:%S", time.localtime(line.at))
    return (
        f"{clock}  {report.mode:7}  {report.cause:8}  {report.pages_scanned:>9,} pages  "
        f"{report.merged:>7,} merged  {report.broken:>6,} broken  {report.elapsed_ms:>6,} ms  "
        f"{line.cpu_ms:>5,} ms CPU  {printable(_who(line))}".rstrip()
        + "\n"
    )


def _who(line: ScanLine) -> str:
    """frozen: firefox(1234) cat(77) +2 more, vip: bash(12)"""
    other = "vip" if line.report.mode == "partial" else "others"
    parts = []
    for why in ("frozen", "new", ""):
        names = [f"{process.name}({process.pid})" for process in line.scanned if process.why == why]
        if names:
            more = f" +{len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            parts.append(f"{why or other}: {' '.join(names[:_MAX_NAMES])}{more}")
    return ", ".join(parts)


def status_as_text(nr_processes: int, nr_frozen: int, totals: Totals, saved_bytes: int) -> str:
    """The state of things on one short line."""
    return (
        f"watching {_number(nr_processes, 'process', 'processes')}, {nr_frozen} frozen; "
        f"{_scans(totals)}; merging saves {human_bytes(saved_bytes)}"
    )


def end_as_text(end: End) -> str:
    """The summary."""
    totals, counters = end.totals, end.counters
    refused = f", {totals.refused} may not be read" if totals.refused else ""
    return (
        f"watched for {end.seconds:.1f} s: {_number(totals.started, 'process', 'processes')}, "
        f"{totals.exited} gone by now{refused}\n"
        f"{_scans(totals)}: {totals.pages:,} pages visited, {human_bytes(totals.read_bytes)} read, "
        f"{totals.merged:,} merged, {totals.broken:,} broken, {end.cpu_ms:,} ms of CPU time\n"
        f"merging saves {human_bytes(end.saved_bytes)} "
        f"among {_number(end.nr_processes, 'process', 'processes')}: {counters.pages_shared:,} shared, "
        f"{counters.pages_sharing:,} sharing, {counters.pages_unshared:,} unshared\n"
    )


def _scans(totals: Totals) -> str:
    full = _number(totals.full_scans, "full scan", "full scans")
    return f"{_number(totals.partial_scans, 'partial scan', 'partial scans')} and {full}"


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


# --- JSON


def begin_as_json(at: float, *, run: int, page_size: int, notes: Iterable[str]) -> str:
    """The first line."""
    return _line(
        {
            "type": "begin", "schema": SCHEMA, "version": __version__, "time": at, "run": run,
            "page_size": page_size, "notes": list(notes),
        }
    )  # fmt: skip


def event_as_json(at: float, event: Event) -> str:
    """One thing that happened to a process."""
    return _line(
        {
            "type": "event", "time": at, "kind": event.kind.value, "pid": event.pid, "started": event.started,
            "name": valid_text(event.name), "frozen": event.frozen,
        }
    )  # fmt: skip


def scan_as_json(line: ScanLine) -> str:
    """One scan. `why`: "frozen", "new", "vip" (recent merges), or "full" (all are scanned)."""
    report = line.report
    other = "vip" if report.mode == "partial" else "full"
    return _line(
        {
            "type": "scan", "time": line.at, "mode": report.mode, "cause": report.cause,
            "round": report.round,
            "processes": [
                {"pid": process.pid, "name": valid_text(process.name), "why": process.why or other}
                for process in line.scanned
            ],
            "slots": report.nr_slots, "pages": report.pages_scanned, "merged": report.merged,
            "broken": report.broken, "elapsed_ms": report.elapsed_ms, "cpu_ms": line.cpu_ms,
            "read_bytes": line.read_bytes, "over_limit_bytes": line.over_limit_bytes,
            "saved_bytes": line.saved_bytes,
        }
    )  # fmt: skip


def end_as_json(end: End) -> str:
    """The last line."""
    return _line(
        {
            "type": "end", "time": end.at, "elapsed_ms": round(end.seconds * 1000), "cpu_ms": end.cpu_ms,
            "processes": end.nr_processes, **dataclasses.asdict(end.totals),
            "saved_bytes": end.saved_bytes, "counters": dataclasses.asdict(end.counters),
        }
    )  # fmt: skip


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, check_circular=False) + "\n"

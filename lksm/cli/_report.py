"""Results as text, for people: totals, processes, the largest groups, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..sources import Skipped
from ._output import human_bytes, printable
from ._results import ProcessRow, Results
from ._table import Column, table

_MAX_NOTES = 10
_MAX_NAMES = 3


def as_text(results: Results, *, is_interrupted: bool = False) -> str:
    """The whole report."""
    parts = [_headline(results, is_interrupted), _totals(results), _processes(results), _groups(results)]
    parts += [_skipped(results.skipped), _gone_and_refused(results), _notes(results)]
    return "\n".join(part for part in parts if part)


def _headline(results: Results, is_interrupted: bool) -> str:
    nr_pages = results.scanned_bytes // results.page_size
    before = "Interrupted; what was known by then:\n" if is_interrupted else ""
    share = results.saved_bytes / results.scanned_bytes if results.scanned_bytes else 0.0
    return (
        f"{before}{_number(len(results.processes), 'process', 'processes')}, "
        f"{_number(nr_pages, 'page', 'pages')} of {results.page_size} bytes, "
        f"{human_bytes(results.scanned_bytes)}, in {results.elapsed_ms / 1000:.2f} s\n"
        f"merging saves {human_bytes(results.saved_bytes)}, {share:.1%} of this memory\n"
    )


def _totals(results: Results) -> str:
    counters = results.counters
    nr_pages = results.scanned_bytes // results.page_size
    held_back = nr_pages - sum(
        (counters.pages_shared, counters.pages_sharing, counters.pages_unshared)
    )  # fmt: skip
    lines: list[tuple[str, int, str]] = [
        ("pages", nr_pages, "present, each physical page once"),
        ("shared", counters.pages_shared, "distinct merged contents"),
        ("sharing", counters.pages_sharing, "further pages that use them: saved"),
        ("unshared", counters.pages_unshared, "no other page has the same bytes"),
    ]
    if held_back > 0:
        lines.append(("held back", held_back, "changed from round to round, excluded or not yet visited"))
    lines.append(("zero pages", sum(row.zero for row in results.processes), "merged or not"))
    rows = [[name, count, human_bytes(count * results.page_size), text] for name, count, text in lines]
    rows.append(_already_shared(results))
    rows.append(["profit", "", human_bytes(results.profit_bytes), "saved less the bookkeeping of the scan"])
    columns = [Column("total"), Column("pages", True), Column("bytes", True), Column("meaning")]
    return table(columns, rows)


def _already_shared(results: Results) -> list[object]:
    nbytes = results.already_shared_bytes
    if nbytes is None:
        hidden = "frame numbers are hidden (CAP_SYS_ADMIN): such pages are counted as savings"
        return ["already shared", "unknown", "unknown", hidden]
    meaning = "seen from several places, but one page as it is"
    return ["already shared", nbytes // results.page_size, human_bytes(nbytes), meaning]


def _processes(results: Results) -> str:
    columns = [
        Column("process"),
        Column("pid", True),
        *(Column(title, True) for title in ("pages", "merged", "unshared", "zero", "saved")),
        Column("source"),
    ]
    rows = [
        [
            row.name, "-" if row.pid is None else row.pid, row.pages, row.merged, row.unshared, row.zero,
            human_bytes(row.saved_bytes), row.source,
        ]
        for row in sorted(results.processes, key=lambda row: -row.saved_bytes)
    ]  # fmt: skip
    return table(columns, rows)


def _groups(results: Results) -> str:
    if not results.groups:
        return "no two pages are merged\n" if not results.nr_groups else ""
    shown = f"the {len(results.groups)} largest of {_number(results.nr_groups, 'group', 'groups')}\n"
    columns = [
        *(Column(title, True) for title in ("pages", "bytes", "processes")),
        *(Column(title) for title in ("content", "first address", "in")),
    ]
    rows = [
        [
            row.pages, human_bytes(row.pages * results.page_size), row.processes,
            "zeros" if row.zero else f"{row.digest:016x}", hex(row.address),
            _place(results.processes[row.process]),
        ]
        for row in results.groups
    ]  # fmt: skip
    return shown + table(columns, rows)


def _place(row: ProcessRow) -> str:
    return f"{row.name} ({row.source})" if row.name not in row.source else row.source


def _skipped(skipped: Iterable[Skipped]) -> str:
    """One line for each kind of thing that was skipped for the same reason."""
    nbytes: Counter[tuple[str, str]] = Counter()
    nr_times: Counter[tuple[str, str]] = Counter()
    sources: dict[tuple[str, str], dict[str, None]] = {}
    for item in skipped:
        key = "segment" if item.what.startswith("segment ") else item.what, item.reason
        nbytes[key] += item.nbytes
        nr_times[key] += 1
        sources.setdefault(key, {})[item.source] = None
    rows = [
        [what, human_bytes(nbytes[what, reason]), nr_times[what, reason], _names(list(names)), reason]
        for (what, reason), names in sources.items()
    ]
    columns = [
        Column("skipped"), Column("bytes", True), Column("times", True), Column("in"), Column("because"),
    ]  # fmt: skip
    return table(columns, rows) if rows else ""


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _gone_and_refused(results: Results) -> str:
    rows = [[f"pid {gone.pid}", "gone", gone.name or ""] for gone in results.gone]
    rows += [[refused.source, "refused", refused.reason] for refused in results.refused]
    columns = [Column("not used"), Column(""), Column("because")]
    return table(columns, rows) if rows else ""


def _notes(results: Results) -> str:
    said: dict[str, list[str]] = {}
    for source, note in results.notes:
        said.setdefault(note, []).append(source)
    lines = [f"note: {_names(sources)}: {note}" for note, sources in said.items()]
    more = len(lines) - _MAX_NOTES
    if more > 0:
        lines = [*lines[:_MAX_NOTES], f"note: and {more} more notes"]  # untested: so many different notes
    return "".join(f"{printable(line)}\n" for line in lines)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"

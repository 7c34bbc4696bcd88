"""The table of targets, from results made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite import report, targets
from suite.turns import Result

PAGES = targets.BASE_PAGES
BYTES = PAGES * 4096


def _result(
    workload: str,
    contender: str,
    seconds: list[float],
    *,
    memory: str = "",
    phase: str = "cold",
    threads: int = 1,
    nr_pages: int = PAGES,
) -> Result:
    result = Result(workload, nr_pages, contender, phase, memory, threads, nr_pages * 4096)
    result.seconds = seconds
    return result


def _row(results: list[Result], what: str, unit: str) -> targets.Row:
    [row] = [row for row in targets.rows(results) if (row.what, row.unit) == (what, unit)]
    return row


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    """Without results every row is there, without a number."""
    rows = targets.rows([])
    assert len(rows) > 60
    assert {row.is_met for row in rows} == {None}


def test_ratios_are_of_medians() -> None:
    """Three times as fast as reading in the median, whatever single turns say."""
    read = _result("unique", "read", [0.3, 0.9, 0.01])
    ours = _result("unique", "lksm", [0.1, 0.1, 5.0], memory="immutable")
    row = _row([read, ours], "cold, unique, immutable", "x read")
    assert row.measured == pytest.approx(3.0)
    assert row.is_met is True


def test_what_falls_short_is_missed() -> None:
    """A rescan at nine times reading misses ten."""
    read = _result("zero", "read", [0.9])
    ours = _result("zero", "lksm", [0.1], memory="immutable", phase="rescan")
    row = _row([read, ours], "rescan, zero, immutable", "x read")
    assert row.measured == pytest.approx(9.0)
    assert row.is_met is False


def test_growth_is_cost_of_a_page() -> None:
    """128 times the time for 64 times the pages costs twice as much a page, which is beyond the limit."""
    results = [
        _result("pairs", "lksm", [seconds], memory="immutable", nr_pages=nr_pages)
        for nr_pages, seconds in ((targets.FIRST_PAGES, 0.01), (targets.LAST_PAGES, 1.28))
    ]
    row = _row(results, "cost of a page at 4 Mi, pairs", "x that at 64 Ki")
    assert row.measured == pytest.approx(2.0)
    assert row.is_met is False


def test_two_threads_stand_beside_what_reading_gains() -> None:
    """The row says how much faster two threads read."""
    results = [
        _result("half", "read", [0.4]),
        _result("half", "read", [0.25], threads=2),
        _result("half", "lksm", [0.9], memory="immutable"),
        _result("half", "lksm", [0.5], memory="immutable", threads=2),
    ]
    row = _row(results, "two threads, half, immutable (reading: 1.60)", "x one")
    assert row.measured == pytest.approx(1.8)


def test_bookkeeping_is_bytes_a_page() -> None:
    """Bytes reserved by pages, and copies by merged contents."""
    result = _result("pairs", "lksm", [1.0], memory="mutable", nr_pages=1 << 20)
    result.bookkeeping, result.frames, result.contents = 65 << 20, 4096 << 19, 1 << 19
    row = _row([result], "bookkeeping, pairs, mutable, 1 Mi pages", "bytes a page")
    assert (row.measured, row.is_met) == (65, False)
    row = _row([result], "copies of a merged content, mutable, 1 Mi pages", "")
    assert (row.measured, row.is_met) == (1, True)


def test_results_survive_a_file(tmp_path: Path) -> None:
    """What is saved and read again gives the same table."""
    results = [
        _result("unique", "read", [0.3, 0.9]),
        _result("unique", "lksm", [0.1], memory="mutable"),
    ]
    rows = targets.rows(results)
    report.save(tmp_path / "results.json", {"commit": "none"}, results, rows, ["the kernel: not root"])
    assert targets.rows(report.restore(tmp_path / "results.json")) == rows


def test_tables_say_what_was_missed() -> None:
    """The speed of each, its ratio to reading, and the verdict."""
    results = [_result("unique", "read", [0.1]), _result("unique", "lksm", [0.1], memory="immutable")]
    assert f"{BYTES / 1e8:8.2f}" in report.throughput(results).replace("\n", " ")
    text = report.against_targets(targets.rows(results))
    assert "1.00  x read           MISSED" in text
    assert "0 met, 1 missed" in text
